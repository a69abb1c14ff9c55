//! Lives of jobs, there and back, and what a torn journal leaves of them.

use std::path::Path;

use super::*;
use crate::reshard::record::{Copied, Direction};
use crate::router::spec::LayoutSpec;

fn place(offset: u64) -> StreamPosition {
    StreamPosition {
        source: "127.0.0.1:7002".to_owned(),
        replid: "f00".to_owned(),
        offset,
        db: 0,
    }
}

fn intended(at_ms: u64, direction: Direction) -> Record {
    Record::SwitchIntended {
        settings: Vec::new(),
        at_ms,
        incarnation: at_ms,
        fence: FenceLevel::default(),
        direction,
    }
}

fn decided(at_ms: u64, positions: Vec<StreamPosition>) -> Record {
    Record::SwitchDecided { at_ms, positions }
}

fn committed(at_ms: u64) -> Record {
    Record::SwitchCommitted {
        at_ms,
        proxies: Vec::new(),
        late: Vec::new(),
        bypass: Vec::new(),
    }
}

/// From the start of a copy to the clean verify.
fn verified(at_ms: u64) -> Vec<Record> {
    vec![
        Record::CopyingBegan {
            at_ms,
            beside_others: false,
        },
        Record::FollowingBegan {
            at_ms: at_ms + 1,
            copied: Copied::default(),
        },
        Record::Verified {
            at_ms: at_ms + 2,
            keys: 7,
            proof: Vec::new(),
        },
    ]
}

/// Planned, verified.
fn beginning() -> Vec<Record> {
    let planned = PlannedJob {
        job: "job-1".to_owned(),
        pool: "cache".to_owned(),
        from: LayoutSpec::default(),
        to: LayoutSpec::default(),
        epoch: 2,
        proxies: vec!["http://127.0.0.1:1".to_owned()],
    };
    let mut records = vec![
        Record::Planned {
            at_ms: 0,
            job: planned,
        },
        Record::Started {
            incarnation: 1,
            at_ms: 1,
        },
    ];
    records.extend(verified(2));
    records
}

/// A switch and a switch back.
fn there_and_back() -> Vec<Record> {
    let mut records = beginning();
    records.extend([
        intended(10, Direction::Forward),
        decided(11, vec![place(42)]),
        committed(12),
    ]);
    records.extend(verified(20));
    records.extend([
        intended(30, Direction::Back),
        decided(31, Vec::new()),
        committed(32),
    ]);
    records
}

fn replayed(records: &[Record]) -> History {
    History::replay(records.to_vec()).unwrap().unwrap()
}

#[test]
fn positions_are_known_from_the_commit_until_the_way_back_begins() {
    let records = there_and_back();
    let commit = beginning().len() + 3;
    for length in 1..=records.len() {
        let known = replayed(&records[..length]).positions().len();
        assert_eq!(known, usize::from(length == commit), "after {length}");
    }
    assert_eq!(replayed(&records).state, JobState::RolledBack);
}

#[test]
fn positions_of_a_try_that_was_taken_back_are_not_used() {
    let aborted = Record::SwitchAborted {
        at_ms: 12,
        why: "late".to_owned(),
    };
    let mut records = beginning();
    records.extend([
        intended(10, Direction::Forward),
        decided(11, vec![place(42)]),
        aborted,
    ]);
    records.extend(verified(20).pop());
    // A power cut may lose the decision, which is not synced.
    let started = Record::Started {
        incarnation: 31,
        at_ms: 31,
    };
    records.extend([intended(30, Direction::Forward), started, committed(32)]);
    assert_eq!(replayed(&records).positions(), []);
}

fn journal_of(records: &[Record], path: &Path) -> Vec<u8> {
    let mut opened = Journal::open(path).unwrap();
    for record in records {
        opened.journal.append_synced(record).unwrap();
    }
    std::fs::read(path).unwrap()
}

#[test]
fn cut_at_any_byte_a_life_there_and_back_is_one_that_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let records = there_and_back();
    let bytes = journal_of(&records, &path);
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let read = Journal::open(&path).unwrap().records;
        assert_eq!(read, records[..read.len()], "cut at {length}");
        History::replay(read).unwrap();
    }
}

#[test]
fn with_any_byte_flipped_it_is_refused_or_one_record_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let records = there_and_back();
    let bytes = journal_of(&records, &path);
    let whole = records.len();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).unwrap();
        match Journal::read(&path) {
            Err(JournalError::Corrupt { .. } | JournalError::NotAJournal { .. }) => {}
            Ok(Some(read)) => assert_eq!(read, records[..whole - 1], "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}
