//! A list against a vector, short and in rows.

use super::*;

fn keyspace() -> Keyspace {
    Keyspace::in_memory(1 << 20)
}

fn all(keyspace: &Keyspace, list: &ListValue) -> Vec<Vec<u8>> {
    let items = items(keyspace.rows_read(), list, 0, len(list)).expect("items");
    items.map(|item| item.expect("an item").to_vec()).collect()
}

fn numbered(keyspace: &mut Keyspace, count: usize) -> (ListValue, Vec<Vec<u8>>) {
    let mut builder = Builder::default();
    let items: Vec<Vec<u8>> = (0..count)
        .map(|n| format!("item {n}").into_bytes())
        .collect();
    items.iter().for_each(|item| builder.push(keyspace, item));
    (builder.finish(), items)
}

#[test]
fn random_changes_leave_what_they_leave_of_a_vector() {
    for (seed, count, cache_bytes) in [
        (1, 0, 1 << 20),
        (2, 40, 1 << 20),
        (3, 600, 1 << 20),
        (4, 2000, 1 << 20),
        (5, 2000, 64 << 10),
        (6, 2000, 4 << 10),
        (7, 2000, 0),
    ] {
        let mut keyspace = Keyspace::in_memory(cache_bytes);
        let mut dice = fastrand::Rng::with_seed(seed);
        let (mut list, mut model) = numbered(&mut keyspace, count);
        for step in 0..400 {
            let item = format!("new {step}").into_bytes();
            let at = dice.usize(0..=model.len());
            match dice.u8(0..8) {
                0 => {
                    push(&mut keyspace, &mut list, End::Head, &[&item, b"second"]);
                    model.splice(0..0, [b"second".to_vec(), item]);
                }
                1 => {
                    push(&mut keyspace, &mut list, End::Tail, &[&item]);
                    model.push(item);
                }
                2 => {
                    insert(&mut keyspace, &mut list, at as u64, &item).expect("inserts");
                    model.insert(at, item);
                }
                3 if at < model.len() => {
                    set(&mut keyspace, &mut list, at as u64, &item);
                    model[at] = item;
                }
                4 if !model.is_empty() => {
                    let mut places: Vec<u64> = (0..dice.u64(1..6))
                        .map(|_| dice.u64(0..model.len() as u64))
                        .collect();
                    places.sort_unstable();
                    places.dedup();
                    remove(keyspace.rows(), &mut list, &places).expect("removes");
                    places
                        .iter()
                        .rev()
                        .for_each(|at| drop(model.remove(*at as usize)));
                }
                5 => {
                    let count = dice.usize(0..4).min(model.len());
                    let taken = pop(keyspace.rows(), &mut list, End::Tail, count as u64);
                    let expected: Vec<_> = model.drain(model.len() - count..).rev().collect();
                    assert_eq!(taken.expect("pops"), expected);
                }
                6 => {
                    let count = [1, 1, 2, 20][dice.usize(0..4)].min(model.len());
                    let taken = pop(keyspace.rows(), &mut list, End::Head, count as u64);
                    let expected: Vec<_> = model.drain(..count).collect();
                    assert_eq!(taken.expect("pops"), expected);
                }
                _ if at + 3 < model.len() => {
                    trim(&mut keyspace, &mut list, 2, model.len() as u64 - 1).expect("trims");
                    model = model[2..model.len() - 1].to_vec();
                }
                _ => {}
            }
            assert_eq!(all(&keyspace, &list), model, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn trimming_most_of_a_long_list_makes_a_new_one() {
    let mut keyspace = keyspace();
    let (mut list, items) = numbered(&mut keyspace, 5000);
    trim(&mut keyspace, &mut list, 4000, 4010).expect("trims");
    assert!(matches!(list, ListValue::Inline(_)));
    assert_eq!(all(&keyspace, &list), items[4000..4010]);
}

#[test]
fn a_row_that_is_not_there_is_told() {
    let mut keyspace = keyspace();
    let (list, _) = numbered(&mut keyspace, 1000);
    let ListValue::Rows { id, first, .. } = list else {
        panic!("in rows");
    };
    keyspace.rows().delete(&row::index(id, first + 500));
    let mut items = items(keyspace.rows_read(), &list, 0, 1000).expect("items");
    assert_eq!(items.by_ref().filter(Result::is_err).count(), 1);
    assert!(items.next().is_none());
    drop(items);
    assert!(get(keyspace.rows_read(), &list, 500).is_err());
    let mut popped = list.clone();
    keyspace.rows().delete(&row::index(id, first + 1));
    pop(keyspace.rows(), &mut popped, End::Head, 1).expect("it is there");
    assert!(pop(keyspace.rows(), &mut popped, End::Head, 1).is_err());
    assert_eq!(len(&popped), 999, "nothing is changed");
}
