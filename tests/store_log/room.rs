//! A disk that fills up, and files that go round.

use keyferry::store::disk::{FaultyFiles, Operation};
use keyferry::store::oplog::LogError;

use crate::world::{frame, open, read_from};

#[test]
fn a_full_disk_is_noticed_before_the_room_is_needed_and_passes() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    disk.set_free_bytes(3000);
    let bytes = frame(1, 300, None);
    let mut whole: Vec<u8> = Vec::new();
    let mut noticed_at = None;
    let error = loop {
        match log.append(&bytes, 0) {
            Ok(_) => whole.extend(&bytes),
            Err(error) => break error,
        }
        if log.needs_room() && noticed_at.is_none() {
            noticed_at = Some(log.end());
        }
    };
    assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    let noticed_at = noticed_at.expect("noticed before it failed");
    assert!(noticed_at < log.end(), "{noticed_at} of {}", log.end());
    assert_eq!(log.end(), whole.len() as u64);
    assert_eq!(log.is_poisoned(), None);
    assert!(log.append(&bytes, 0).is_err(), "still full");
    assert_eq!(log.syncer().sync().unwrap(), log.end());

    disk.heal();
    log.append(&bytes, 0).unwrap();
    whole.extend(&bytes);
    assert!(!log.needs_room());
    assert_eq!(read_from(&log, 0), whole);
    log.syncer().sync().unwrap();
    let log = open(&disk.crashed(4)).unwrap().log;
    assert_eq!(read_from(&log, 0), whole);
}

#[test]
fn a_frame_for_which_there_is_no_room_leaves_nothing_behind() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"small", 0).unwrap();
    disk.set_free_bytes(100_000);
    let large = frame(1, 200_000, None);
    for _ in 0..3 {
        let error = log.append(&large, 0).unwrap_err();
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    }
    log.append(b"small", 0).unwrap();
    disk.heal();
    log.append(&large, 0).unwrap();
    assert_eq!(log.end(), 10 + large.len() as u64);
}

#[test]
fn in_steady_state_files_go_round_and_an_append_is_one_write() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let bytes = frame(1, 500, None);
    let turn = |log: &mut keyferry::store::oplog::Log| {
        log.append(&bytes, 0).unwrap();
        log.syncer().sync().unwrap();
        log.retain_from(log.end());
    };
    for _ in 0..500 {
        turn(&mut log);
    }
    let created = disk.count(Operation::Create);
    let written = disk.count(Operation::Write);
    let segments = disk.count(Operation::Rename);
    for _ in 0..1000 {
        turn(&mut log);
    }
    assert_eq!(disk.count(Operation::Create), created, "no file is made");
    // A segment comes and goes by two renames, and has one header.
    let segments = (disk.count(Operation::Rename) - segments).div_ceil(2);
    assert!(segments > 20);
    let frames = disk.count(Operation::Write) - written;
    assert!(frames <= 1000 + segments + 1, "{frames} writes");
    assert!(log.stats().segments <= 2, "{:?}", log.stats());
}
