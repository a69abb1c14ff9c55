//! The built-in shard killed at any time: what it acknowledged is there, what it says is
//! whole, and files that were damaged are refused.
//!
//! `KEYFERRY_STORE_CYCLES=1000` is the long run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Client, StoreServer, Value, seeded};

/// Kills of a run, unless `KEYFERRY_STORE_CYCLES` says otherwise.
const CYCLES: usize = 100;
/// Clients that write at once.
const WRITERS: usize = 4;
/// Keys of each.
const KEYS: usize = 200;

fn cycles() -> usize {
    let asked = std::env::var("KEYFERRY_STORE_CYCLES").ok();
    asked.map_or(CYCLES, |text| text.parse().expect("a number of cycles"))
}

/// What one writer knows: of each key what was acknowledged, and what may have been done
/// besides because its reply never came.
#[derive(Default)]
struct Journal {
    counts: HashMap<String, (i64, i64)>,
    lists: HashMap<String, (i64, i64)>,
    acknowledged: u64,
}

/// Writes until the connection ends; each request is noted before it is sent.
fn write(address: &str, writer: usize, journal: &Mutex<Journal>, stop: &AtomicBool, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let Ok(mut client) = Client::try_connect(address) else {
        return;
    };
    while !stop.load(Ordering::Relaxed) {
        let number = rng.usize(..KEYS);
        let is_count = rng.bool();
        let key = match is_count {
            true => format!("count:{writer}:{number}"),
            false => format!("list:{writer}:{number}"),
        };
        let (sure, maybe) = {
            let mut journal = journal.lock().unwrap();
            let of = match is_count {
                true => journal.counts.entry(key.clone()).or_default(),
                false => journal.lists.entry(key.clone()).or_default(),
            };
            of.1 += 1;
            *of
        };
        let reply = match is_count {
            true => client.try_call(&["INCR", &key]),
            // Two keys at once: both or none.
            false => client
                .try_call(&["MULTI"])
                .and_then(|_| client.try_call(&["RPUSH", &key, "item"]))
                .and_then(|_| client.try_call(&["SET", &format!("len:{key}"), "set"]))
                .and_then(|_| client.try_call(&["EXEC"])),
        };
        let Ok(reply) = reply else {
            return;
        };
        let now = match &reply {
            Value::Int(now) => *now,
            Value::Array(replies) => match replies.first() {
                Some(Value::Int(now)) => *now,
                other => panic!("{key}: {other:?}"),
            },
            other => panic!("{key}: {other:?}"),
        };
        assert!(
            (sure + 1..=maybe).contains(&now),
            "{key}: {now} of {sure}..={maybe}"
        );
        let mut journal = journal.lock().unwrap();
        let of = match is_count {
            true => journal.counts.get_mut(&key).unwrap(),
            false => journal.lists.get_mut(&key).unwrap(),
        };
        *of = (now, now);
        journal.acknowledged += 1;
    }
}

/// Every key has what was acknowledged, and no more than was asked for.
fn check(store: &StoreServer, journal: &mut Journal) {
    let mut client = store.client();
    let mut keys: Vec<String> = journal.counts.keys().cloned().collect();
    keys.sort();
    for key in keys {
        let (sure, maybe) = journal.counts[&key];
        let found = match client.call(&["GET", &key]) {
            Value::Bulk(text) => String::from_utf8(text).unwrap().parse().unwrap(),
            Value::Null => 0,
            other => panic!("{key}: {other:?}"),
        };
        assert!(
            (sure..=maybe).contains(&found),
            "{key}: {found} of {sure}..={maybe}"
        );
        journal.counts.insert(key, (found, found));
    }
    let mut keys: Vec<String> = journal.lists.keys().cloned().collect();
    keys.sort();
    for key in keys {
        let (sure, maybe) = journal.lists[&key];
        let Value::Int(found) = client.call(&["LLEN", &key]) else {
            panic!("{key}: no length");
        };
        assert!(
            (sure..=maybe).contains(&found),
            "{key}: {found} of {sure}..={maybe}"
        );
        let other = client.call(&["EXISTS", &format!("len:{key}")]);
        assert_eq!(
            other,
            Value::Int(i64::from(found > 0)),
            "{key}: half a transaction"
        );
        journal.lists.insert(key, (found, found));
    }
}

fn kill_again_and_again(durability: &str) {
    let mut rng = seeded(&format!("kill_again_and_again {durability}"));
    let mut store = StoreServer::start(&["--durability", durability]);
    let journals: Vec<_> = (0..WRITERS)
        .map(|_| Arc::new(Mutex::new(Journal::default())))
        .collect();
    for cycle in 0..cycles() {
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = journals
            .iter()
            .enumerate()
            .map(|(writer, journal)| {
                let (journal, stop) = (Arc::clone(journal), Arc::clone(&stop));
                let (address, seed) = (store.address(), rng.u64(..));
                std::thread::spawn(move || write(&address, writer, &journal, &stop, seed))
            })
            .collect();
        // The moment of the kill is what is varied here, not waited for.
        std::thread::sleep(Duration::from_millis(rng.u64(5..120)));
        store.kill();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no wrong reply");
        }
        store.start_again();
        for journal in &journals {
            check(&store, &mut journal.lock().unwrap());
        }
        if cycle % 100 == 99 {
            eprintln!("{} kills", cycle + 1);
        }
    }
    let acknowledged: u64 = journals
        .iter()
        .map(|of| of.lock().unwrap().acknowledged)
        .sum();
    println!(
        "{} kills, {acknowledged} acknowledged writes, none lost",
        cycles()
    );
    assert!(
        acknowledged > cycles() as u64,
        "hardly anything was written"
    );
}

#[test]
fn nothing_acknowledged_is_lost_with_durability_always() {
    kill_again_and_again("always");
}

/// The system keeps what was written when a process dies; the second is for power losses.
#[test]
fn nothing_acknowledged_is_lost_by_a_kill_with_durability_everysec() {
    kill_again_and_again("everysec");
}

#[test]
fn a_stop_in_order_keeps_everything_and_the_replication_id() {
    let mut store = StoreServer::start(&["--durability", "no"]);
    let replid = |store: &StoreServer| {
        let text = store.client().call(&["INFO", "replication"]);
        let text = text.text();
        text.lines()
            .find(|line| line.starts_with("master_replid:"))
            .unwrap()
            .to_owned()
    };
    let mut client = store.client();
    for number in 0..1000 {
        client.call(&["SET", &format!("k{number}"), "v"]);
    }
    let before = replid(&store);
    store.stop();
    store.start_again();
    assert_eq!(store.client().call(&["DBSIZE"]), Value::Int(1000));
    assert_eq!(replid(&store), before);
    store.kill();
    store.start_again();
    assert_ne!(replid(&store), before, "bytes that were sent may be lost");
}

/// A bit that flipped in the log or in a table: refused by name, or not there to be read;
/// never wrong data.
#[test]
fn damaged_files_are_refused() {
    let mut rng = seeded("damaged_files_are_refused");
    let mut refused = 0;
    for round in 0..6 {
        let mut store = StoreServer::start(&["--durability", "always"]);
        let mut client = store.client();
        for number in 0..300 {
            client.call(&["SET", &format!("k{number}"), &format!("value {number}")]);
        }
        // Into the tables in the odd rounds.
        match round % 2 {
            0 => store.kill(),
            _ => store.stop(),
        }
        let folder = store
            .files()
            .join(if round % 2 == 0 { "log" } else { "rows" });
        let mut files = Vec::new();
        collect(&folder, &mut files);
        let (path, mut bytes) = files.swap_remove(rng.usize(..files.len()));
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        let at = rng.usize(..used);
        bytes[at] ^= 1 << rng.u32(..8);
        fs::write(&path, bytes).unwrap();
        if starts(&mut store) {
            let mut client = store.client();
            let mut is_cut = false;
            for number in 0..300 {
                let key = format!("k{number}");
                let found = client.call(&["GET", &key]);
                if found == Value::bulk(format!("value {number}")) {
                    assert!(!is_cut, "{}: {key} is behind what was cut", path.display());
                } else if found == Value::Null {
                    // The log's last frame cannot be told from one that was torn.
                    assert!(round % 2 == 0, "{}: {key} is gone", path.display());
                    is_cut = true;
                } else {
                    // Said, not made up.
                    assert!(
                        matches!(found, Value::Error(_)),
                        "{}: {key}: {found:?}",
                        path.display()
                    );
                    refused += 1;
                }
            }
        } else {
            refused += 1;
        }
    }
    println!("{refused} refusals");
}

fn collect(folder: &std::path::Path, files: &mut Vec<(std::path::PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let bytes = fs::read(&path).unwrap();
            if bytes.iter().any(|byte| *byte != 0) {
                files.push((path, bytes));
            }
        }
    }
}

fn starts(store: &mut StoreServer) -> bool {
    store.try_start_again().is_ok()
}
