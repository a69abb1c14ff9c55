//! Whose history it is, and how it was left.

use std::sync::Arc;

use keyferry::store::disk::{Fault, FaultyFiles, Operation, RealFiles};
use keyferry::store::oplog::{Identity, LogError, fresh_replid};

use crate::world::{open, open_at, read_from};

#[test]
fn a_clean_stop_keeps_the_id_and_a_kill_is_noticed() {
    let disk = FaultyFiles::new();
    let opened = open(&disk).unwrap();
    assert!(opened.is_clean && opened.is_new);
    let mut log = opened.log;
    let first = log.identity();
    assert_eq!(first.replid2, None);
    assert!(first.replid.iter().all(u8::is_ascii_hexdigit));
    log.append(b"one", 4).unwrap();
    log.close().unwrap();

    let opened = open(&disk.crashed(1)).unwrap();
    assert!(opened.is_clean && !opened.is_new);
    assert_eq!(opened.lost_tail, None);
    assert_eq!(opened.log.identity(), first);
    assert_eq!(opened.log.selected_db(), 4);

    let opened = open(&disk).unwrap();
    assert!(opened.is_clean);
    drop(opened);
    let mut opened = open(&disk.killed()).unwrap();
    assert!(!opened.is_clean, "it was open");
    let second = opened.log.begin_history().unwrap();
    assert_ne!(second.replid, first.replid);
    assert_eq!(second.replid2, Some((first.replid, 3)));
    assert_eq!(opened.log.identity(), second);
}

#[test]
fn a_new_id_is_there_whole_or_not_at_all() {
    let calm = FaultyFiles::new();
    let mut log = open(&calm).unwrap().log;
    log.append(b"one", 0).unwrap();
    log.syncer().sync().unwrap();
    let old = log.identity();
    drop(log);
    for operation in [
        Operation::Create,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ] {
        for fault in [Fault::Broken, Fault::Full] {
            let disk = calm.killed();
            let mut log = open(&disk).unwrap().log;
            disk.fail(operation, 0, fault);
            let error = log.begin_history().unwrap_err();
            assert_eq!(log.identity(), old);
            let is_full = matches!(error, LogError::DiskFull { .. });
            assert_eq!(log.is_poisoned().is_none(), is_full, "{error}");
            if is_full {
                let new = log.begin_history().unwrap();
                assert_eq!(open(&disk.crashed(3)).unwrap().log.identity(), new);
            } else {
                for seed in 0..8 {
                    let log = open(&disk.crashed(seed)).unwrap().log;
                    let found = log.identity();
                    let is_new = found.replid2 == Some((old.replid, 3));
                    assert!(found == old || is_new, "{found:?}");
                }
            }
        }
    }
}

#[test]
fn a_full_sync_begins_anew_elsewhere() {
    let disk = FaultyFiles::new();
    let mut log = open(&disk).unwrap().log;
    for _ in 0..40 {
        log.append(&[b'o'; 1000], 5).unwrap();
    }
    let mut reader = log.reader(10).unwrap();
    reader.read(&mut Vec::new(), 10).unwrap();
    let masters = Identity {
        replid: fresh_replid(),
        replid2: None,
    };
    log.restart_at(1_000_000, masters).unwrap();
    assert_eq!((log.start(), log.end()), (1_000_000, 1_000_000));
    assert_eq!((log.durable(), log.selected_db()), (1_000_000, 0));
    assert!(matches!(
        reader.read(&mut Vec::new(), 1),
        Err(LogError::Gone { .. })
    ));
    assert!(matches!(log.reader(20), Err(LogError::Gone { .. })));
    log.append(b"new", 2).unwrap();
    log.syncer().sync().unwrap();
    drop(log);
    let log = open(&disk.crashed(2)).unwrap().log;
    assert_eq!(log.identity(), masters);
    assert_eq!((log.start(), log.end()), (1_000_000, 1_000_003));
    assert_eq!(read_from(&log, 1_000_000), b"new");
}

#[test]
fn nobody_opens_it_twice() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_at(Arc::new(RealFiles), dir.path()).unwrap().log;
    let error = open_at(Arc::new(RealFiles), dir.path()).unwrap_err();
    assert!(matches!(error, LogError::InUse { .. }), "{error}");
    drop(log);
    assert!(open_at(Arc::new(RealFiles), dir.path()).is_ok());

    let disk = FaultyFiles::new();
    let _log = open(&disk).unwrap().log;
    assert!(matches!(open(&disk), Err(LogError::InUse { .. })));
}

#[test]
fn a_new_beginning_that_was_not_finished_is_no_part_of_the_log() {
    for after in 0..2 {
        let disk = FaultyFiles::new();
        let mut log = open(&disk).unwrap().log;
        log.append(&[b'o'; 2000], 0).unwrap();
        log.syncer().sync().unwrap();
        // The mark says that all of it was durable.
        log.syncer().sync().unwrap();
        let old = log.identity();
        disk.fail(Operation::SyncDir, after, Fault::Broken);
        let masters = Identity {
            replid: fresh_replid(),
            replid2: None,
        };
        // Inside what there is: its segment could pass for the next one.
        log.restart_at(1000, masters).unwrap_err();
        drop(log);
        let killed = disk.killed();
        let crashed = (0..20).map(|seed| disk.crashed(seed));
        for disk in crashed.chain([killed]) {
            let log = open(&disk).unwrap().log;
            if log.identity() == old {
                assert_eq!(read_from(&log, 0), [b'o'; 2000]);
            } else {
                assert_eq!((log.start(), log.end()), (1000, 1000));
            }
        }
    }
}
