//! Readers begin anywhere, follow the end, and are told when they are too far behind.

use std::sync::Arc;
use std::thread;

use keyferry::store::disk::{FaultyFiles, RealFiles};
use keyferry::store::oplog::{LogError, LogOptions};

use crate::world::{SEGMENT_BYTES, frame, open, open_at, read_all, read_from, segment};

#[test]
fn from_every_offset_to_the_end() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let mut whole: Vec<u8> = Vec::new();
    for number in 0..40 {
        let bytes = frame(number, 20 * number as usize, None);
        log.append(&bytes, 0).unwrap();
        whole.extend(bytes);
    }
    for offset in 0..=whole.len() {
        let from = read_from(&log, offset as u64);
        assert!(from == whole[offset..], "from {offset}");
    }
    let end = log.end();
    let error = log.reader(end + 1).unwrap_err();
    assert!(matches!(error, LogError::BehindEnd { .. }), "{error}");
}

#[test]
fn a_reader_at_the_end_sees_what_is_appended_later() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let mut reader = log.reader(0).unwrap();
    assert_eq!(read_all(&mut reader), b"");
    for number in 0..100 {
        let bytes = frame(number, 400, None);
        log.append(&bytes, 0).unwrap();
        assert_eq!(reader.behind_bytes(), bytes.len() as u64);
        assert_eq!(read_all(&mut reader), bytes);
        assert_eq!(reader.offset(), log.end());
    }
}

#[test]
fn beside_the_writer_in_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_at(Arc::new(RealFiles), dir.path()).unwrap().log;
    let frames: Vec<_> = (0..3000)
        .map(|number| frame(number, number as usize % 700, None))
        .collect();
    let whole = frames.concat();
    let wanted = whole.len();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let mut reader = log.reader(0).unwrap();
            thread::spawn(move || {
                let mut out = Vec::new();
                while out.len() < wanted {
                    if reader.read(&mut out, 5000).unwrap() == 0 {
                        thread::yield_now();
                    }
                }
                out
            })
        })
        .collect();
    let syncer = log.syncer();
    let syncing = thread::spawn(move || {
        while (syncer.sync().unwrap() as usize) < wanted {
            thread::yield_now();
        }
    });
    for frame in &frames {
        log.append(frame, 0).unwrap();
    }
    for reader in readers {
        assert!(reader.join().unwrap() == whole);
    }
    syncing.join().unwrap();
    assert_eq!(log.durable(), log.end());
}

#[test]
fn a_reader_keeps_its_segment_and_is_told_that_the_next_is_gone() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let mut whole: Vec<u8> = Vec::new();
    for number in 0..100 {
        let bytes = frame(number, 700, None);
        log.append(&bytes, 0).unwrap();
        whole.extend(bytes);
    }
    log.syncer().sync().unwrap();
    let mut reader = log.reader(100).unwrap();
    let mut out = Vec::new();
    reader.read(&mut out, 10).unwrap();
    log.retain_from(log.end());
    assert!(disk.bytes(&segment(1)).is_none());
    // Files go round: the reader's must not be among them.
    for number in 100..300 {
        log.append(&frame(number, 700, None), 0).unwrap();
        log.syncer().sync().unwrap();
        log.retain_from(log.end());
    }
    let error = loop {
        match reader.read(&mut out, 50) {
            Ok(read) => assert!(read > 0),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Gone { .. }), "{error}");
    assert!(out.len() > 1000);
    assert_eq!(out, whole[100..100 + out.len()]);
    let start = log.start();
    let error = log.reader(start - 1).unwrap_err();
    assert!(
        matches!(error, LogError::Gone { start: at, .. } if at == start),
        "{error}"
    );
}

#[test]
fn what_is_to_be_retained_is() {
    let disk = FaultyFiles::new();
    let files = Arc::new(disk.clone());
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        retain_bytes: 50_000,
    };
    let dir = std::path::Path::new("/log");
    let mut log = keyferry::store::oplog::Log::open(files, dir, options)
        .unwrap()
        .log;
    for number in 0..300 {
        log.append(&frame(number, 600, None), 0).unwrap();
        log.retain_from(log.end());
    }
    assert_eq!(log.start(), 0, "nothing was synced");
    log.syncer().sync().unwrap();
    log.retain_from(0);
    assert_eq!(log.start(), 0, "somebody needs it");
    log.retain_from(log.end());
    let kept = log.end() - log.start();
    assert!(
        (50_000..50_000 + 2 * SEGMENT_BYTES).contains(&kept),
        "{kept}"
    );
    let start = log.start();
    log.set_retain_bytes(0);
    log.retain_from(log.end());
    assert!(log.start() > start);
}

#[test]
fn the_selected_database_is_known_at_every_command() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let mut boundaries = Vec::new();
    let mut db = 0;
    for number in 0..30 {
        let mut tick = Vec::new();
        for command in 0..4 {
            let at = log.end() + tick.len() as u64;
            boundaries.push((at, db));
            let select = (command == 2).then_some(number as u16 % 16);
            let bytes = frame(number, 200, select);
            if let Some(select) = select {
                let select_bytes = bytes.windows(4).position(|four| four == b"\r\n*3").unwrap() + 2;
                db = select;
                boundaries.push((at + select_bytes as u64, db));
            }
            tick.extend(bytes);
        }
        log.append(&tick, db).unwrap();
    }
    boundaries.push((log.end(), db));
    for (offset, db) in &boundaries {
        assert_eq!(log.db_at(*offset).unwrap(), *db, "at {offset}");
    }
    drop(log);
    let log = open(&disk.killed()).unwrap().log;
    for (offset, db) in &boundaries {
        assert_eq!(log.db_at(*offset).unwrap(), *db, "at {offset}");
    }
}

#[test]
fn a_frame_larger_than_a_segment_has_one_of_its_own() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let frames = [
        frame(1, 100, None),
        frame(2, 700_000, None),
        frame(3, 100, None),
    ];
    for frame in &frames {
        log.append(frame, 0).unwrap();
    }
    assert_eq!(read_from(&log, 0), frames.concat());
    log.syncer().sync().unwrap();
    drop(log);
    let mut log = open(&disk.crashed(1)).unwrap().log;
    assert_eq!(read_from(&log, 0), frames.concat());
    for number in 4..20 {
        log.append(&frame(number, 1000, None), 0).unwrap();
    }
    log.syncer().sync().unwrap();
    log.retain_from(log.end());
    assert!(log.stats().disk_bytes < 100_000, "{:?}", log.stats());
}

#[test]
fn a_replay_begins_at_a_frame_and_ends_where_its_owner_says() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    for text in [b"one", b"two", b"six"] {
        log.append(text, 0).unwrap();
    }
    let mut seen = Vec::new();
    log.replay(3, &mut |offset, bytes, _| {
        seen.push((offset, bytes.to_vec()));
        Ok::<(), LogError>(())
    })
    .unwrap();
    assert_eq!(seen, [(3, b"two".to_vec()), (6, b"six".to_vec())]);
    let inside = log.replay(4, &mut |_, _, _| Ok::<(), LogError>(()));
    assert!(
        matches!(inside, Err(LogError::InsideFrame { offset: 4 })),
        "{inside:?}"
    );
    let mut count = 0;
    let stopped = log.replay(0, &mut |offset, _, _| {
        count += 1;
        Err(LogError::InsideFrame { offset })
    });
    assert!(stopped.is_err());
    assert_eq!(count, 1);
    log.replay(9, &mut |_, _, _| Err(LogError::InsideFrame { offset: 9 }))
        .unwrap();
}
