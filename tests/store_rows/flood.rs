//! Writes as fast as they go, on small memtables, so that many flushes and compactions
//! happen. If no commit ends for long, the watchdog says what it saw: fjall has been
//! seen to wait for itself for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use keyferry::store::engine::{Engine, EngineError, EngineOptions, LsmEngine, open_lsm};
use keyferry::store::rows::{Rows, RowsOptions};

use crate::{object_of, setting};

/// No commit may take longer.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(5);

fn options() -> EngineOptions {
    EngineOptions {
        cache_bytes: 8 << 20,
        memtable_bytes: setting("KEYFERRY_STORE_MEMTABLE_BYTES", 1 << 20),
        worker_threads: setting(
            "KEYFERRY_STORE_WORKERS",
            EngineOptions::default().worker_threads as u64,
        ) as usize,
        free_bytes_min: 64 << 20,
    }
}

fn duration() -> Duration {
    Duration::from_secs(setting("KEYFERRY_STORE_FLOOD_SECONDS", 3))
}

/// Panics with what it sees if `commits` stands still, until the time is over.
fn watch(commits: &AtomicU64, engine: &LsmEngine, over: &AtomicBool) {
    let (began, mut last) = (Instant::now(), (0, Instant::now()));
    while began.elapsed() < duration() {
        thread::sleep(Duration::from_millis(20));
        let now = commits.load(Ordering::Acquire);
        if now != last.0 {
            last = (now, Instant::now());
        }
        let stood = last.1.elapsed();
        if stood > COMMIT_WAIT_MAX {
            over.store(true, Ordering::Release);
            panic!("no commit for {stood:?} after {now}: {:?}", engine.stats());
        }
    }
    over.store(true, Ordering::Release);
}

fn print(what: &str, times: &Histogram<u64>, rows: u64) {
    let at = |q| Duration::from_micros(times.value_at_quantile(q));
    println!(
        "{what}: {rows} rows, {} commits, p50 {:?} p99 {:?} p99.9 {:?} max {:?}",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        Duration::from_micros(times.max()),
    );
}

/// How many different keys there are.
fn keys() -> u64 {
    setting("KEYFERRY_STORE_FLOOD_KEYS", 400_000)
}

fn key(n: u64) -> [u8; 17] {
    let mut key = [b'M'; 17];
    let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key[1..9].copy_from_slice(&scattered.to_be_bytes());
    key
}

#[test]
fn tight_commits_never_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(open_lsm(dir.path(), &options()).unwrap());
    let (commits, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let value = Bytes::from(vec![7; 128]);
            let mut times = Histogram::<u64>::new(3).unwrap();
            let (mut busy, mut n, keys) = (0u64, 0u64, keys());
            while !over.load(Ordering::Acquire) {
                let batch: Vec<_> = (n..n + 16).map(|n| key(n % keys)).collect();
                let began = Instant::now();
                loop {
                    let mut batch = batch.iter().map(|key| (&key[..], Some(&value)));
                    match engine.write(&mut batch) {
                        Ok(()) => break,
                        Err(EngineError::Busy { .. }) if !over.load(Ordering::Acquire) => {
                            busy += 1;
                            thread::sleep(Duration::from_millis(1));
                        }
                        Err(EngineError::Busy { .. }) => return (times, n, busy),
                        Err(error) => panic!("{error}"),
                    }
                }
                times.record(began.elapsed().as_micros() as u64).unwrap();
                n += 16;
                commits.fetch_add(1, Ordering::Release);
            }
            (times, n, busy)
        });
        watch(&commits, &engine, &over);
        let (times, rows, busy) = writer.join().unwrap();
        print("tight commits", &times, rows);
        println!("busy {busy} times; {:?}", engine.stats());
        assert!(times.len() > 100);
    });
}

/// As a shard does it: ticks of 16 rows, through the overlay.
#[test]
fn a_flood_through_the_overlay_keeps_going() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(open_lsm(dir.path(), &options()).unwrap());
    let (applied, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (wake, woken) = std::sync::mpsc::sync_channel(1);
    let options = RowsOptions {
        overlay_bytes_max: 64 << 20,
        freeze_bytes: 2 << 20,
        freeze_busy_bytes: 8 << 20,
        wake: Some(Arc::new(move || {
            let _ = wake.try_send(());
        })),
        ..RowsOptions::new(object_of)
    };
    let mut rows = Rows::open(Arc::clone(&engine) as Arc<dyn Engine>, options).unwrap();
    let (applied, over) = (&applied, &over);
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut times = Histogram::<u64>::new(3).unwrap();
            let mut reads = Histogram::<u64>::new(3).unwrap();
            let (mut full, mut n, keys) = (0u64, 0u64, keys());
            let (pace, since) = (
                setting("KEYFERRY_STORE_FLOOD_ROWS_A_SECOND", 0),
                Instant::now(),
            );
            while !over.load(Ordering::Acquire) {
                while pace > 0 && n > since.elapsed().as_millis() as u64 * pace / 1_000 {
                    thread::yield_now();
                }
                let began = Instant::now();
                for n in n..n + 16 {
                    rows.put(&key(n % keys), Bytes::from(vec![n as u8; 128]));
                }
                n += 16;
                let began_reading = Instant::now();
                rows.get(&key(n.wrapping_mul(31) % keys)).unwrap();
                reads
                    .record(began_reading.elapsed().as_micros() as u64)
                    .unwrap();
                rows.freeze_if_due(n);
                applied.store(rows.applied_offset(), Ordering::Release);
                times.record(began.elapsed().as_micros() as u64).unwrap();
                if let Some(failure) = rows.failure() {
                    panic!("{failure}");
                }
                while rows.is_full() && !over.load(Ordering::Acquire) {
                    full += 1;
                    // The timeout is for the end only.
                    let _ = woken.recv_timeout(Duration::from_millis(100));
                    rows.freeze_if_due(n);
                    applied.store(rows.applied_offset(), Ordering::Release);
                }
            }
            print("ticks of the executor", &times, n);
            print("single reads among them", &reads, n);
            println!("full {full} times; {:?}", rows.stats());
            rows.close(n).unwrap();
        });
        watch(applied, &engine, over);
        writer.join().unwrap();
    });
    let rows = engine.range(b"M", b"N").count();
    assert!(rows > 1_000, "{rows} rows");
}
