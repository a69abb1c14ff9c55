//! Each operation fails in each way, once: whatever was synced is there afterwards.

use keyferry::store::disk::{Fault, FaultyFiles, Operation};
use keyferry::store::oplog::{Identity, Log, LogError, fresh_replid};

use crate::world::{Model, frame, open, read_from};

const OPERATIONS: [Operation; 7] = [
    Operation::Write,
    Operation::Sync,
    Operation::SyncDir,
    Operation::Create,
    Operation::Open,
    Operation::Rename,
    Operation::Remove,
];

/// What a shard does in its life, until something fails.
fn life(log: &mut Log, model: &mut Model, later: &mut Model) -> Result<(), LogError> {
    for round in 0..12 {
        let bytes = frame(round, if round == 7 { 30_000 } else { 1500 }, None);
        log.append(&bytes, 0)?;
        model.append(&bytes, 0);
        if round % 2 == 0 {
            log.syncer().sync()?;
            model.durable = model.end();
        }
        if round % 4 == 3 {
            let limit = model.end() - 2000;
            model.needed_from = limit;
            log.retain_from(limit);
        }
    }
    *later = model.clone();
    later.identity = Identity {
        replid: fresh_replid(),
        replid2: Some((model.identity.replid, model.end())),
    };
    log.set_identity(later.identity)?;
    *model = later.clone();
    let identity = Identity {
        replid: fresh_replid(),
        replid2: None,
    };
    *later = Model::new(500, identity);
    log.restart_at(500, identity)?;
    *model = later.clone();
    for round in 20..24 {
        let bytes = frame(round, 3000, Some(3));
        log.append(&bytes, 3)?;
        model.append(&bytes, 3);
    }
    log.syncer().sync()?;
    model.durable = model.end();
    Ok(())
}

#[test]
fn while_it_is_written() {
    let calm = FaultyFiles::new();
    let mut log = open(&calm).unwrap().log;
    let mut model = Model::new(0, log.identity());
    life(&mut log, &mut model.clone(), &mut model).unwrap();
    for operation in OPERATIONS {
        for after in 0..calm.count(operation) {
            for fault in [Fault::Broken, Fault::Full, Fault::Short] {
                one_life(operation, after, fault);
            }
        }
    }
}

fn one_life(operation: Operation, after: u64, fault: Fault) {
    let disk = FaultyFiles::new();
    let Ok(opened) = ({
        let opened = open(&disk);
        disk.fail(operation, after, fault);
        opened
    }) else {
        panic!("no fault yet")
    };
    let mut log = opened.log;
    let mut model = Model::new(0, log.identity());
    let mut later = model.clone();
    let lived = life(&mut log, &mut model, &mut later);
    let is_poisoned = log.is_poisoned().is_some();
    if let Err(LogError::DiskFull { .. }) = lived {
        assert!(!is_poisoned);
        assert_eq!(log.end(), model.end());
    }
    drop(log);
    for seed in 0..6 {
        let disk = disk.crashed(seed);
        let opened = open(&disk).unwrap();
        assert!(!opened.is_clean);
        // A change that failed may have happened nevertheless.
        let mut model = if opened.log.identity() == model.identity {
            model.clone()
        } else {
            later.clone()
        };
        model.recovered(opened.log.end(), opened.log.selected_db());
        model.assert_equals(&opened.log);
    }
}

#[test]
fn while_it_is_opened() {
    let full = FaultyFiles::new();
    let mut log = open(&full).unwrap().log;
    let mut model = Model::new(0, log.identity());
    life(&mut log, &mut model.clone(), &mut model).unwrap();
    let (start, end) = (log.start(), log.end());
    let bytes = read_from(&log, start);
    let identity = log.identity();
    drop(log);
    for old in [FaultyFiles::new(), full] {
        let is_new = old.count(Operation::Create) == 0;
        for operation in OPERATIONS {
            for after in 0..12 {
                for fault in [Fault::Broken, Fault::Full, Fault::Short] {
                    let disk = old.killed();
                    disk.fail(operation, after, fault);
                    drop(open(&disk));
                    disk.heal();
                    for disk in [disk.crashed(1), disk.crashed(after), disk] {
                        let log = open(&disk).unwrap().log;
                        if is_new {
                            assert_eq!((log.start(), log.end()), (0, 0));
                        } else {
                            assert_eq!(log.identity(), identity);
                            assert_eq!((log.start(), log.end()), (start, end));
                            assert_eq!(read_from(&log, start), bytes);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    let syncer = log.syncer();
    log.append(b"covered", 0).unwrap();
    assert_eq!(syncer.sync().unwrap(), 7);
    log.append(b"not covered", 0).unwrap();
    disk.fail(Operation::Sync, 0, Fault::Broken);
    let error = syncer.sync().unwrap_err();
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    // The disk would say yes now, and have lost the frame.
    let syncs = disk.count(Operation::Sync);
    for _ in 0..3 {
        let error = syncer.sync().unwrap_err();
        assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    }
    assert_eq!(disk.count(Operation::Sync), syncs);
    assert!(log.append(b"more", 0).is_err());
    assert!(log.set_identity(log.identity()).is_err());
    assert_eq!(log.durable(), 7);
    assert!(log.is_poisoned().unwrap().contains("segment-"));
    assert!(syncer.is_poisoned().is_some());
    // What is in memory can still be read.
    assert_eq!(read_from(&log, 0), b"coverednot covered");
    assert!(log.close().is_err());
    let opened = open(&disk.crashed(1)).unwrap();
    assert!(!opened.is_clean);
    assert_eq!(read_from(&opened.log, 0), b"covered");
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_by_the_next_opening() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    log.append(b"covered", 0).unwrap();
    log.syncer().sync().unwrap();
    for number in 0..20 {
        log.append(&frame(number, 900, None), 0).unwrap();
    }
    let whole = read_from(&log, 0);
    // Two segments: the failed sync has forgotten the first one's blocks.
    disk.fail(Operation::Sync, 0, Fault::Broken);
    log.syncer().sync().unwrap_err();
    drop(log);
    let disk = disk.killed();
    let log = open(&disk).unwrap().log;
    assert_eq!(log.durable(), whole.len() as u64);
    for seed in 0..20 {
        let log = open(&disk.crashed(seed)).unwrap().log;
        assert_eq!(read_from(&log, 0), whole);
    }
}
