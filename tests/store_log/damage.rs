//! Bits that flip, blocks that never arrive: the first is refused, the second is cut.

use std::path::Path;

use keyferry::store::disk::{FaultyFiles, Files};
use keyferry::store::oplog::{LogError, fresh_replid};

use crate::world::{DIR, frame, open, read_all, read_from, segment};

/// Where the first frame's payload starts in a segment's file.
const FIRST_PAYLOAD_AT: usize = 4096 + 40;

#[test]
fn a_flipped_bit_with_synced_frames_behind_it_is_refused_with_file_and_offset() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"first", 0).unwrap();
    log.syncer().sync().unwrap();
    log.append(b"second", 0).unwrap();
    drop(log);
    let disk = disk.killed();
    assert!(disk.flip(&segment(1), FIRST_PAYLOAD_AT + 2, 4));
    let error = open(&disk).unwrap_err();
    let LogError::Damaged {
        file, at, offset, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((file, *at, *offset), (&segment(1), 4096, 0));
    assert!(
        error.to_string().contains("at byte 4096 (offset 0"),
        "{error}"
    );
}

#[test]
fn a_flipped_bit_in_the_last_frame_is_refused_once_the_log_was_idle() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"only", 0).unwrap();
    log.syncer().sync().unwrap();
    // Nothing new: it says so in the file.
    log.syncer().sync().unwrap();
    let disk = disk.crashed(5);
    disk.flip(&segment(1), FIRST_PAYLOAD_AT, 1);
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(error, LogError::Damaged { at: 4096, .. }),
        "{error}"
    );
}

#[test]
fn a_flipped_bit_anywhere_in_a_closed_log_changes_nothing_that_is_read() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    for number in 0..6 {
        log.append(&frame(number, 900, None), 0).unwrap();
    }
    let whole = read_from(&log, 0);
    log.close().unwrap();
    assert!(disk.bytes(&segment(2)).is_some(), "two segments");
    let mut refused = 0;
    for sequence in 1..=2 {
        let length = disk.bytes(&segment(sequence)).unwrap().len();
        for at in (0..length).filter(|at| *at < 64 || *at % 7 == 0) {
            let disk = disk.killed();
            disk.flip(&segment(sequence), at, 1 << (at % 8));
            match open(&disk) {
                Err(LogError::Damaged { .. }) => refused += 1,
                Err(error) => panic!("byte {at}: {error}"),
                Ok(opened) => {
                    assert!(opened.is_clean);
                    let mut out = Vec::new();
                    let read = opened.log.reader(0).and_then(|mut reader| {
                        while reader.read(&mut out, 500)? > 0 {}
                        Ok(())
                    });
                    match read {
                        Ok(()) => assert_eq!(out, whole),
                        Err(LogError::Damaged { .. }) => assert!(whole.starts_with(&out)),
                        Err(error) => panic!("byte {at}: {error}"),
                    }
                }
            }
        }
    }
    assert!(refused > 10);
}

#[test]
fn a_damaged_manifest_is_refused_by_name() {
    let disk = FaultyFiles::new();
    open(&disk).unwrap().log.close().unwrap();
    let path = Path::new(DIR).join("MANIFEST");
    for at in 0..disk.bytes(&path).unwrap().len() {
        let disk = disk.killed();
        disk.flip(&path, at, 0x10);
        let error = open(&disk).unwrap_err();
        match at {
            // The version: it may be a newer one.
            8..12 => assert!(matches!(error, LogError::Newer { .. }), "{error}"),
            _ => assert!(matches!(error, LogError::ManifestDamaged { .. }), "{error}"),
        }
        assert!(error.to_string().contains("/shard/log/MANIFEST"), "{error}");
    }
}

#[test]
fn frames_without_a_manifest_are_not_a_new_log() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"precious", 0).unwrap();
    drop(log);
    disk.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, LogError::ManifestDamaged { .. }), "{error}");
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_missing_segment_in_the_middle_is_refused() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    for number in 0..40 {
        log.append(&frame(number, 900, None), 0).unwrap();
        log.syncer().sync().unwrap();
    }
    drop(log);
    for sequence in 1..=3 {
        let disk = disk.killed();
        disk.remove(&segment(sequence)).unwrap();
        let opened = open(&disk);
        // Without the oldest one it is a shorter log, as after retention: its owner sees
        // that by `start`.
        match sequence {
            1 => assert!(opened.unwrap().log.start() > 0),
            _ => assert!(matches!(opened, Err(LogError::Damaged { .. }))),
        }
    }
}

#[test]
fn an_unsynced_frame_that_is_lost_takes_those_behind_it_along_and_they_never_come_back() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"kept", 0).unwrap();
    log.syncer().sync().unwrap();
    log.append(b"lost", 0).unwrap();
    log.append(b"whole, and behind it", 0).unwrap();
    drop(log);
    let disk = disk.killed();
    // Its block did not arrive; those behind it did.
    let lost_at = 4096 + (40 + 4_usize).next_multiple_of(8);
    for at in lost_at..lost_at + 44 {
        let byte = disk.bytes(&segment(1)).unwrap()[at];
        disk.flip(&segment(1), at, byte);
    }
    let opened = open(&disk).unwrap();
    assert!(!opened.is_clean);
    let lost = opened.lost_tail.unwrap();
    assert_eq!((lost.offset, lost.at), (4, lost_at as u64));
    let mut log = opened.log;
    assert_eq!(log.end(), 4);
    // As long as the lost one, so that the old frame stands right behind it.
    log.append(b"anew", 0).unwrap();
    assert_eq!(read_from(&log, 0), b"keptanew");
    log.syncer().sync().unwrap();
    drop(log);
    let log = open(&disk.crashed(9)).unwrap().log;
    assert_eq!(read_from(&log, 0), b"keptanew");
}

#[test]
fn frames_of_a_file_s_former_life_are_never_taken_for_new_ones() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    // All frames are of one size: old and new ones stand at the same places.
    for number in 0..200 {
        log.append(&frame(number, 500, None), 0).unwrap();
        log.syncer().sync().unwrap();
        log.retain_from(log.end());
    }
    let whole = read_from(&log, log.start());
    let (start, end) = (log.start(), log.end());
    assert!(start > 0);
    drop(log);
    for seed in 0..50 {
        let log = open(&disk.crashed(seed)).unwrap().log;
        assert_eq!((log.start(), log.end()), (start, end));
        assert_eq!(read_from(&log, start), whole);
    }
    // The same offsets again, of another history.
    let mut log = open(&disk).unwrap().log;
    let identity = keyferry::store::oplog::Identity {
        replid: fresh_replid(),
        replid2: None,
    };
    log.restart_at(0, identity).unwrap();
    for number in 1000..1004 {
        log.append(&frame(number, 500, None), 0).unwrap();
    }
    let whole = read_from(&log, 0);
    log.syncer().sync().unwrap();
    drop(log);
    let log = open(&disk.killed()).unwrap().log;
    assert_eq!(read_from(&log, 0), whole);
}

#[test]
fn a_damaged_frame_is_told_to_readers_and_nothing_of_it_is_handed_out() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"right", 0).unwrap();
    log.append(b"wrong", 0).unwrap();
    let mut reader = log.reader(0).unwrap();
    let at = FIRST_PAYLOAD_AT + 8 + 40 + 3;
    assert!(disk.flip(&segment(1), at, 1));
    let mut out = Vec::new();
    let error = reader.read(&mut out, 100).unwrap_err();
    assert!(
        matches!(error, LogError::Damaged { offset: 5, .. }),
        "{error}"
    );
    assert_eq!(out, b"right");
    // Right again: so is the reader.
    disk.flip(&segment(1), at, 1);
    let mut reader = log.reader(5).unwrap();
    assert_eq!(read_all(&mut reader), b"wrong");
}

#[test]
fn a_frame_inside_a_value_is_none() {
    // A frame that says that a lot was durable, as a client could know it: from a log of its own.
    let other = FaultyFiles::new();
    let mut log = open(&other).unwrap().log;
    log.append(&[b'x'; 3000], 0).unwrap();
    log.syncer().sync().unwrap();
    let at = 4096 + (40 + 3000_usize).next_multiple_of(8);
    log.append(b"forged", 0).unwrap();
    let image = other.bytes(&segment(1)).unwrap()[at..at + 46].to_vec();
    assert!(image.starts_with(b"KFFR"));

    for is_forged in [true, false] {
        let disk = FaultyFiles::new();
        let mut log = open(&disk).unwrap().log;
        log.append(b"lost before it was synced", 0).unwrap();
        if !is_forged {
            log.syncer().sync().unwrap();
        }
        log.append(&image, 0).unwrap();
        drop(log);
        let disk = disk.killed();
        disk.flip(&segment(1), FIRST_PAYLOAD_AT, 1);
        match open(&disk) {
            Ok(opened) => assert!(is_forged && opened.log.end() == 0),
            Err(error) => assert!(!is_forged, "{error}"),
        }
    }
}
