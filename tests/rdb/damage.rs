//! Damaged files and payloads: the scan stops or goes on, decoding fails or
//! not, but nothing panics, hangs, or hands out bytes that are not there. What
//! we decode in spite of damage, under a right checksum, is refused by a real
//! server or does no harm there.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::support::RedisServer;
use keyferry::rdb::{
    RawValue, Record, Scanner, ScannerLimits, ValueType, content_digest, split_dump_payload,
    write_dump_payload,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Fixtures small enough to be hit often where it hurts.
fn files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb");
        let mut files = Vec::new();
        for folder in [folder.join("synthetic"), folder] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "rdb") {
                    files.push(std::fs::read(path).unwrap());
                }
            }
        }
        files.retain(|file| file.len() < 6000);
        assert!(files.len() > 60);
        files
    })
}

#[derive(Clone, Debug)]
enum Damage {
    Set {
        at: prop::sample::Index,
        byte: u8,
    },
    Flip {
        at: prop::sample::Index,
        bit: u8,
    },
    Remove {
        at: prop::sample::Index,
        count: usize,
    },
    Insert {
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Cut {
        at: prop::sample::Index,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set { at, byte }),
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        (at(), 1..20usize).prop_map(|(at, count)| Damage::Remove { at, count }),
        (at(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        at().prop_map(|at| Damage::Cut { at }),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Set { at, byte } => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Damage::Flip { at, bit } => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Damage::Remove { at, count } => {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + count);
            bytes.drain(at..end);
        }
        Damage::Insert { at, bytes: more } => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Damage::Cut { at } => bytes.truncate(at.index(bytes.len())),
    }
}

fn scan_all(bytes: &[u8], step: usize) -> u64 {
    let limits = ScannerLimits {
        record_bytes_max: 1 << 20,
        ..ScannerLimits::default()
    };
    let mut scanner = Scanner::new(limits);
    let (mut start, mut end) = (0, 0);
    loop {
        match scanner.next(&bytes[start..end]) {
            Ok(Some(event)) => {
                assert!(event.consumed > 0 && start + event.consumed <= end);
                start += event.consumed;
                match event.record {
                    Record::Key(key) => {
                        let _ = content_digest(&key.value);
                    }
                    Record::End { .. } => return scanner.offset(),
                    _ => {}
                }
            }
            Ok(None) if end == bytes.len() => return scanner.offset(),
            Ok(None) => end = bytes.len().min(end + step),
            Err(error) => {
                assert!(error.offset <= bytes.len() as u64);
                return scanner.offset();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_files_stop_cleanly(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
        step in 1usize..400,
    ) {
        let mut bytes = file.get(files()).clone();
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        let whole = scan_all(&bytes, bytes.len().max(1));
        prop_assert_eq!(scan_all(&bytes, step), whole);
    }

    #[test]
    fn damaged_values_decode_or_fail(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let bytes = file.get(files());
        let mut scanner = Scanner::new(ScannerLimits::default());
        let mut rest = &bytes[..];
        while let Ok(Some(event)) = scanner.next(rest) {
            rest = &rest[event.consumed..];
            let Record::Key(key) = event.record else {
                if matches!(event.record, Record::End { .. }) {
                    break;
                }
                continue;
            };
            let mut damaged = key.value.bytes.to_vec();
            for damage in &damages {
                apply(&mut damaged, damage);
            }
            let value = RawValue { type_id: key.value.type_id, bytes: &damaged };
            let first = content_digest(&value);
            prop_assert_eq!(first, content_digest(&value));
            let mut payload = Vec::new();
            if write_dump_payload(&mut payload, &value).is_ok() {
                prop_assert_eq!(split_dump_payload(&payload).unwrap().0, value);
                for damage in &damages {
                    apply(&mut payload, damage);
                }
                let _ = split_dump_payload(&payload);
            }
        }
    }
}

/// Newest version of payloads that the server takes, and no modules: it has none.
const SERVER_VERSION: u16 = 10;

/// Whole values of all files that the server knows the layout of.
fn values_for_the_server() -> Vec<(ValueType, Vec<u8>)> {
    let mut values = Vec::new();
    for bytes in files() {
        let mut scanner = Scanner::new(ScannerLimits::default());
        let mut rest = &bytes[..];
        while let Ok(Some(event)) = scanner.next(rest) {
            rest = &rest[event.consumed..];
            match event.record {
                Record::Key(key) => {
                    let type_id = key.value.type_id;
                    if type_id.lowest_version() <= SERVER_VERSION && type_id != ValueType::Module2 {
                        values.push((type_id, key.value.bytes.to_vec()));
                    }
                }
                Record::End { .. } => break,
                _ => {}
            }
        }
    }
    values
}

/// Says what was sent last if the test fails there.
struct Sent(Vec<u8>);

impl Drop for Sent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("sent last: \"{}\"", self.0.escape_ascii());
        }
    }
}

#[test]
fn damage_under_a_right_checksum_is_refused_or_harmless() {
    const ROUNDS: usize = 20_000;
    let server = RedisServer::start(&["--sanitize-dump-payload", "yes"]);
    let mut client = server.client();
    let values = values_for_the_server();
    let types: std::collections::BTreeSet<u8> =
        values.iter().map(|(type_id, _)| type_id.byte()).collect();
    assert!(types.len() >= 17, "{types:?}");
    // The same damage each time.
    let mut runner = TestRunner::deterministic();
    let choice = (
        any::<prop::sample::Index>(),
        prop::collection::vec(damage(), 1..4),
    );
    let (mut refused_here, mut refused_there, mut restored) = (0, 0, 0);
    let mut sent = Sent(Vec::new());
    for _ in 0..ROUNDS {
        let (which, damages) = choice.new_tree(&mut runner).unwrap().current();
        let (type_id, whole) = which.get(&values);
        let mut damaged = whole.clone();
        for damage in &damages {
            apply(&mut damaged, damage);
        }
        let value = RawValue {
            type_id: *type_id,
            bytes: &damaged,
        };
        if content_digest(&value).is_err() {
            refused_here += 1;
            continue;
        }
        sent.0.clear();
        write_dump_payload(&mut sent.0, &value).unwrap();
        let restore: [&[u8]; 5] = [b"RESTORE", b"k", b"0", &sent.0, b"REPLACE"];
        if client.call(&restore).is_error() {
            refused_there += 1;
            continue;
        }
        restored += 1;
        // What was taken can be read, written again and removed.
        client.call(&["DUMP", "k"]);
        client.call(&["DEL", "k"]);
    }
    assert_eq!(client.call(&["PING"]).text(), "PONG");
    println!("{refused_here} refused here, {refused_there} there, {restored} restored");
    assert!(refused_here > 1000 && restored > 1000);
}
