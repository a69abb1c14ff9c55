use std::collections::HashMap;

use super::*;

impl Weighed for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn touch(&self) -> u8 {
        self.first().copied().unwrap_or(0)
    }
}

const NS: Namespace = Namespace(1);
const ENTRY_BYTES: usize = 100;

fn key(number: u64) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn put(table: &mut Resident<Vec<u8>>, key: &[u8], value: Vec<u8>) {
    let hash = table.hash_of(NS, key);
    match table.find(hash, NS, key) {
        Some(number) => drop(table.change(number, |old| *old = value)),
        None => drop(table.add(hash, NS, key, value)),
    }
}

fn get<'a>(table: &'a Resident<Vec<u8>>, key: &[u8]) -> Option<&'a Vec<u8>> {
    let number = table.find(table.hash_of(NS, key), NS, key)?;
    table.get(number)
}

/// Weights as they should be, from what is there.
fn check(table: &Resident<Vec<u8>>) {
    let (mut bytes, mut trial_bytes, mut count) = (0, 0, 0);
    let taken: Vec<u32> = table.slots.iter().map(|slot| slot.number).collect();
    for number in taken.into_iter().filter(|number| *number != NOBODY) {
        let entry = table.entry(number).expect("an entry");
        let weight = table.weight_of(number);
        bytes += weight;
        trial_bytes += if entry.queue == Queue::Trial {
            weight
        } else {
            0
        };
        count += 1;
        let found = table.probe(entry.hash, entry.ns, &entry.key);
        assert_eq!(found.map(|(number, _)| number), Some(number), "it is found");
    }
    assert_eq!((table.bytes, table.trial_bytes), (bytes, trial_bytes));
    assert_eq!(table.count, count);
    assert_eq!(table.trial.len() + table.kept.len(), count);
}

#[test]
fn what_is_there_is_what_was_put_last_whatever_was_forgotten() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut table = Resident::new(200_000, ENTRY_BYTES, KeyHash::default());
    let mut model = HashMap::new();
    for step in 0..100_000_u64 {
        let key = key(random.u64(0..3_000));
        match random.bool() {
            true => {
                let value = vec![step as u8; random.usize(0..200)];
                model.insert(key.clone(), value.clone());
                put(&mut table, &key, value);
            }
            false => {
                if let Some(found) = get(&table, &key) {
                    assert_eq!(Some(found), model.get(&key));
                }
            }
        }
        let room = (ENTRY_BYTES + 10 + 200) as u64;
        assert!(table.bytes() <= 200_000 + room, "{}", table.bytes());
        if step % 5_000 == 0 {
            check(&table);
            let keys: Vec<_> = model.keys().take(WARM_MAX + 5).collect();
            let named = keys.iter().map(|key| (NS, key.as_slice()));
            let mut hashes = [0; WARM_MAX];
            let hashes = table.warm(named, &mut hashes);
            let of_all = keys.iter().map(|key| table.hash_of(NS, key));
            assert!(of_all.take(WARM_MAX).eq(hashes.iter().copied()));
        }
    }
    check(&table);
    assert!(table.count > 500, "{} entries", table.count);
    table.clear();
    assert_eq!((table.bytes(), table.count), (0, 0));
    check(&table);
}

#[test]
fn what_is_asked_for_once_does_not_drive_out_what_is_asked_for_often() {
    let mut table = Resident::new(100_000, ENTRY_BYTES, KeyHash::default());
    let often: Vec<_> = (0..300).map(key).collect();
    for _ in 0..3 {
        for key in &often {
            match get(&table, key) {
                Some(_) => {}
                None => put(&mut table, key, vec![1]),
            }
        }
    }
    for number in 0..20_000 {
        put(&mut table, &key(1_000_000 + number), vec![2]);
        if number % 20 == 0 {
            let _ = get(&table, &often[number as usize / 20 % often.len()]);
        }
    }
    let left = often
        .iter()
        .filter(|key| get(&table, key).is_some())
        .count();
    assert!(left > 250, "{left} of 300 are left");
}

#[test]
fn one_that_comes_again_soon_is_kept() {
    let mut table = Resident::new(20_000, ENTRY_BYTES, KeyHash::default());
    for number in 0..1_000 {
        put(&mut table, &key(number), vec![1]);
    }
    let gone = key(850);
    while table.peek(table.hash_of(NS, &gone), NS, &gone).is_some() {
        put(&mut table, &key(fastrand::u64(1_000..)), vec![1]);
    }
    put(&mut table, &gone, vec![3]);
    for number in 2_000..2_050 {
        put(&mut table, &key(number), vec![1]);
    }
    assert_eq!(get(&table, &gone), Some(&vec![3]));
}
