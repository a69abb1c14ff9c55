//! The engine cannot write, or forgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keyferry::store::engine::{DeadId, Engine, EngineError, MemoryEngine, ROW_KEY_BYTES_MAX};
use keyferry::store::rows::{Rows, RowsOptions, StoreError};

use crate::object_of;
use crate::wait::wait_until;

const LONG: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3_600);

fn at_once() -> RowsOptions {
    RowsOptions {
        freeze_age: Duration::ZERO,
        persist_age: Duration::ZERO,
        sweep_pause: Duration::ZERO,
        ..RowsOptions::new(object_of)
    }
}

fn open(engine: &Arc<MemoryEngine>, options: RowsOptions) -> Rows {
    Rows::open(Arc::clone(engine) as Arc<dyn Engine>, options).unwrap()
}

fn wait_applied(rows: &mut Rows, offset: u64) {
    wait_until("the offset is applied", LONG, || {
        rows.freeze_if_due(offset);
        rows.applied_offset() == offset
    });
}

fn full_disk() -> EngineError {
    EngineError::NoSpace {
        free_bytes: 1,
        needed_bytes: 2,
    }
}

#[test]
fn a_full_disk_fills_the_overlay_until_there_is_room() {
    let engine = Arc::new(MemoryEngine::new());
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let mut rows = open(
        &engine,
        RowsOptions {
            overlay_bytes_max: 1_000,
            wake: Some(Arc::new(move || {
                counter.fetch_add(1, Ordering::Release);
            })),
            ..at_once()
        },
    );
    for _ in 0..3 {
        engine.refuse_next(full_disk());
    }
    rows.put(b"Ma", Bytes::from(vec![0; 2_000]));
    rows.freeze_if_due(1);
    wait_until("it waits for room", LONG, || rows.waits_for().is_some());
    assert!(rows.is_full());
    assert!(rows.failure().is_none(), "it is not for good");
    assert!(woken.load(Ordering::Acquire) > 0);
    wait_applied(&mut rows, 1);
    rows.freeze_if_due(1);
    assert!(!rows.is_full() && rows.waits_for().is_none());
    assert_eq!(engine.get(b"Ma").unwrap().unwrap().len(), 2_000);
}

#[test]
fn a_disk_that_stays_full_does_not_keep_the_shard_from_stopping() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    engine.refuse_next(full_disk());
    engine.refuse_next(full_disk());
    rows.put(b"Ma", Bytes::from_static(b"1"));
    rows.freeze_if_due(1);
    wait_until("it waits for room", LONG, || rows.waits_for().is_some());
    let closed = rows.close(2);
    assert!(
        matches!(closed, Err(StoreError::Engine(EngineError::NoSpace { .. }))),
        "{closed:?}"
    );
    assert_eq!(
        open(&engine, at_once()).applied_offset(),
        0,
        "the log has the rest"
    );
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    rows.put(b"Ma", Bytes::from_static(b"1"));
    wait_applied(&mut rows, 1);
    engine.refuse_next(EngineError::Poisoned);
    rows.put(b"Ma", Bytes::from_static(b"2"));
    let mut with_it = rows.snapshot_at(2);
    assert!(with_it.wait(LONG).is_err());
    wait_until("it is told", LONG, || rows.failure().is_some());
    rows.put(b"Mb", Bytes::from_static(b"3"));
    rows.freeze_if_due(3);
    assert!(rows.snapshot_at(3).wait(LONG).is_err());
    // The executor still sees what it wrote; the engine has one whole generation.
    assert_eq!(rows.get(b"Ma").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(rows.get(b"Mb").unwrap().as_deref(), Some(&b"3"[..]));
    assert!(rows.close(4).is_err());
    let rows = open(&engine, at_once());
    assert_eq!(rows.applied_offset(), 1);
    assert_eq!(rows.get(b"Ma").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(rows.get(b"Mb").unwrap(), None);
}

#[test]
fn a_failed_sync_makes_nothing_durable() {
    let engine = Arc::new(MemoryEngine::new());
    let options = RowsOptions {
        persist_age: Duration::from_millis(50),
        ..at_once()
    };
    let mut rows = open(&engine, options);
    rows.put(b"Ma", Bytes::from_static(b"1"));
    wait_applied(&mut rows, 1);
    engine.refuse_next(EngineError::Poisoned);
    wait_until("it is told", LONG, || {
        rows.failure().is_some() || rows.durable_offset() == 1
    });
    // The sync may have been faster than the fault; then the next one meets it.
    if rows.failure().is_none() {
        rows.put(b"Ma", Bytes::from_static(b"2"));
        rows.freeze_if_due(2);
        wait_until("it is told", LONG, || rows.failure().is_some());
        assert_eq!(rows.durable_offset(), 1);
    } else {
        assert_eq!(rows.durable_offset(), 0);
    }
}

#[test]
fn a_key_that_no_engine_takes_is_an_error_not_a_panic() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    rows.put(&vec![b'M'; ROW_KEY_BYTES_MAX + 1], Bytes::new());
    rows.freeze_if_due(1);
    wait_until("it is told", LONG, || rows.failure().is_some());
    assert!(matches!(
        rows.failure(),
        Some(StoreError::Engine(EngineError::BadKey { .. }))
    ));
}

#[test]
fn a_snapshot_has_its_generation_and_nothing_later() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    rows.put(b"Ma", Bytes::from_static(b"1"));
    let mut first = rows.snapshot_at(10);
    rows.put(b"Ma", Bytes::from_static(b"2"));
    let mut second = rows.snapshot_at(20);
    let mut third = rows.snapshot_at(20);
    rows.delete(b"Ma");
    wait_applied(&mut rows, 30);
    for (ticket, offset, value) in [
        (&mut first, 10, "1"),
        (&mut second, 20, "2"),
        (&mut third, 20, "2"),
    ] {
        let snapshot = ticket.poll().unwrap().expect("it was applied");
        assert_eq!(snapshot.applied_offset(), offset);
        assert_eq!(snapshot.get(b"Ma").unwrap().unwrap(), value);
    }
    assert!(first.poll().is_err(), "it is given out once");
    assert_eq!(rows.get(b"Ma").unwrap(), None);
}

#[test]
fn what_is_durable_survives_a_power_loss_and_is_told_exactly() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    rows.put(b"Ma", Bytes::from_static(b"1"));
    wait_applied(&mut rows, 1);
    wait_until("it is durable", LONG, || rows.durable_offset() == 1);
    drop(rows);
    let mut rows = open(
        &engine,
        RowsOptions {
            persist_age: NEVER,
            ..at_once()
        },
    );
    assert_eq!((rows.applied_offset(), rows.durable_offset()), (1, 1));
    rows.put(b"Ma", Bytes::from_static(b"2"));
    wait_applied(&mut rows, 2);
    assert_eq!(rows.durable_offset(), 1);
    drop(rows);
    engine.lose_power();
    let rows = open(&engine, at_once());
    assert_eq!(rows.applied_offset(), 1);
    assert_eq!(rows.get(b"Ma").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn an_offset_without_rows_is_applied_when_it_is_far_ahead() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    rows.freeze_if_due(100);
    assert_eq!(rows.freeze_due_in(), None);
    wait_applied(&mut rows, 100 << 20);
    rows.close((100 << 20) + 1).unwrap();
    assert_eq!(open(&engine, at_once()).applied_offset(), (100 << 20) + 1);
}

/// A compaction may not drop rows that a power loss would make somebody's again.
#[test]
fn the_buried_are_kept_until_the_burial_is_durable() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    rows.put(b"Ma", Bytes::from_static(b"\x01\0\0\0\0\0\0\0\x05"));
    rows.put(b"S\0\0\0\0\0\0\0\x05F", Bytes::from_static(b"1"));
    wait_applied(&mut rows, 1);
    rows.close(1).unwrap();

    let mut rows = open(
        &engine,
        RowsOptions {
            persist_age: NEVER,
            ..at_once()
        },
    );
    rows.delete(b"Ma");
    rows.bury(DeadId::Object(5));
    wait_applied(&mut rows, 2);
    engine.compact();
    assert!(engine.get(b"S\0\0\0\0\0\0\0\x05F").unwrap().is_some());
    rows.close(3).unwrap();

    // The burial is on disk: a restart goes on with it.
    assert!(engine.get(&DeadId::Object(5).row()).unwrap().is_some());
    let rows = open(&engine, at_once());
    wait_until("it is swept", LONG, || rows.stats().dead_left == 0);
    assert_eq!(engine.get(b"S\0\0\0\0\0\0\0\x05F").unwrap(), None);
    assert_eq!(engine.get(&DeadId::Object(5).row()).unwrap(), None);
}

#[test]
fn a_sweep_goes_through_more_rows_than_one_round_takes() {
    let engine = Arc::new(MemoryEngine::new());
    let mut rows = open(&engine, at_once());
    for n in 0..5_000u32 {
        let mut row = b"S\0\0\0\0\0\0\0\x05F".to_vec();
        row.extend_from_slice(&n.to_be_bytes());
        rows.put(&row, Bytes::from_static(b"1"));
        let mut row = b"M\0\0\0\x01hhhhhhh".to_vec();
        row.extend_from_slice(&n.to_be_bytes());
        rows.put(&row, Bytes::from_static(b"\0"));
        let mut row = b"T".to_vec();
        row.extend_from_slice(&u64::from(n).to_be_bytes());
        row.extend_from_slice(if n % 2 == 0 {
            b"\0\0\0\x01"
        } else {
            b"\0\0\0\x02"
        });
        rows.put(&row, Bytes::new());
    }
    // Found by the meta row of the namespace that dies.
    rows.put(
        b"M\0\0\0\x01hhhhhhhlarge",
        Bytes::from_static(b"\x01\0\0\0\0\0\0\0\x05"),
    );
    rows.put(b"M\0\0\0\x02hhhhhhhkept", Bytes::from_static(b"\0"));
    rows.bury(DeadId::Namespace(1));
    wait_applied(&mut rows, 1);
    wait_until("all is swept", LONG, || {
        rows.durable_offset() == 1 && rows.stats().dead_left == 0
    });
    let keys = |from: &[u8], to: &[u8]| engine.range(from, to).count();
    assert_eq!(keys(b"S", b"T"), 0);
    assert_eq!(keys(b"M", b"N"), 1);
    assert_eq!(keys(b"T", b"U"), 2_500);
    assert_eq!(keys(b"G", b"H"), 0);
}
