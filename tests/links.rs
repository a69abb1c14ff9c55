//! Links that are cut or stall, targets that stand still, sources that change:
//! no source gives a second snapshot unless nothing else is possible, and what
//! was written arrives once, exactly.
//!
//! Lengths of time are the scenario here, never a measure of success. Set for a
//! longer run: `KEYFERRY_TEST_STOPPED_S=60` (how long a target stands still) and
//! `KEYFERRY_TEST_HASH_FIELDS=5000000`:
//!
//! ```text
//! KEYFERRY_TEST_STOPPED_S=60 KEYFERRY_TEST_HASH_FIELDS=5000000 \
//!     ./scripts/test --test links -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[path = "links/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use support::{Client, Job, RedisServer, Value, seeded, wait_until};
use world::{DATABASES, LIMIT, Links, full_syncs, number, wait_snapshot_sent};

/// Room for what is written during the longest cut.
const BACKLOG: [&str; 2] = ["--repl-backlog-size", "64mb"];

/// Cuts, half of them while targets are filled, half while the job follows.
const CUTS: usize = 10;

/// How long a cut or stall may take.
const OUTAGE_MS: std::ops::RangeInclusive<u64> = 1_000..=3_000;

/// A target stands still for so long by default.
const STOPPED_S_DEFAULT: u64 = 15;

/// What is written meanwhile, at least: more than sockets and memory take.
const WRITTEN_BYTES_MIN: u64 = 192 * 1024 * 1024;

/// The fields of the large hash by default.
const HASH_FIELDS_DEFAULT: u64 = 200_000;

fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let number = text.parse();
    number.unwrap_or_else(|_| panic!("{name} is a decimal number, not {text:?}"))
}

/// `count` strings of `bytes` bytes in each database.
fn fill(server: &RedisServer, rng: &mut Rng, count: usize, bytes: usize) {
    for db in DATABASES {
        let mut client = server.client();
        client.call(&["SELECT", &db.to_string()]);
        for from in (0..count).step_by(500) {
            let keys = (from..count.min(from + 500)).map(|n| {
                let value: Vec<u8> = (0..bytes).map(|_| rng.u8(..)).collect();
                [b"SET".to_vec(), format!("fill:{n}").into_bytes(), value]
            });
            for reply in client.pipeline(&keys.collect::<Vec<_>>()) {
                assert_eq!(reply, Value::ok());
            }
        }
    }
}

/// Waits for `condition`; panics with what the job said when it has ended.
fn wait_with(job: &mut Job, what: &str, mut condition: impl FnMut() -> bool) {
    wait_until(what, LIMIT, || {
        if let Some(status) = job.process().try_wait() {
            panic!("the job ended ({status}): {}", job.process().stderr());
        }
        condition()
    });
}

/// Waits until that many replicas, which are jobs here, are attached.
fn wait_slaves(job: &mut Job, source: &RedisServer, count: u64) {
    let what = format!("{count} replicas are attached");
    wait_with(job, &what, || {
        number(source, "replication", "connected_slaves") == count
    });
}

fn outage(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(OUTAGE_MS))
}

#[test]
fn ten_cuts_need_no_second_snapshot_and_lose_and_double_nothing() {
    let mut rng = seeded("ten_cuts");
    let links = Links::new(1, &BACKLOG);
    let (source, forwarder) = (&links.sources[0], &links.forwarders[0]);
    fill(source, &mut rng, 16_000, 1_000);
    let loads = links.start_writers(source, "load:", rng.u64(..));
    // 32 MB at this rate fill more time than half of the cuts take.
    let mut job = links.start_job(&["--rate", "1MB/s"]);

    // A stall, not a cut: a link that ends within its snapshot cannot be mended
    // by anything but another one.
    let before = forwarder.down_bytes();
    wait_until("the snapshot is on the wire", LIMIT, || {
        forwarder.down_bytes() > before + 1_000_000
    });
    forwarder.stall();
    thread::sleep(outage(&mut rng));
    forwarder.go_on();
    wait_snapshot_sent(source);

    let cut = |rng: &mut Rng, job: &mut Job| {
        forwarder.refuse();
        forwarder.cut();
        thread::sleep(outage(rng));
        wait_slaves(job, source, 0);
        forwarder.admit();
        wait_slaves(job, source, 1);
    };
    for _ in 0..CUTS / 2 {
        assert_eq!(job.state().as_deref(), Some("copying"), "still copying");
        cut(&mut rng, &mut job);
    }
    job.wait_state(&["following", "verified"], LIMIT);
    for _ in CUTS / 2..CUTS {
        cut(&mut rng, &mut job);
    }
    assert_eq!(full_syncs(source), 1, "one snapshot is enough");
    links.finish_writers(source, loads);
    links.wait_equal(&[source]);
    let verify = job.verb("verify", &[]);
    assert!(verify.status.success(), "{verify:?}");
    assert_eq!(full_syncs(source), 1, "one snapshot is enough");
}

/// Overwrites some large strings until told to stop.
fn write_large(server: &RedisServer, stop: &Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let (mut client, stop) = (server.client(), stop.clone());
    thread::spawn(move || {
        let mut writes = 0_u64;
        let mut rng = Rng::with_seed(1);
        let noise: Vec<u8> = (0..32_768).map(|_| rng.u8(..)).collect();
        while !stop.load(Ordering::Relaxed) {
            let key = format!("large:{}", writes % 200);
            let value = [writes.to_string().as_bytes(), &noise].concat();
            assert_eq!(client.call(&[b"SET", key.as_bytes(), &value]), Value::ok());
            writes += 1;
            thread::sleep(Duration::from_millis(1));
        }
        writes
    })
}

#[test]
fn a_target_that_stands_still_never_costs_the_source_its_tap() {
    let mut rng = seeded("a_target_that_stands_still");
    // Twice what may wait in sockets; a tap that is not read is dropped soon.
    let limit = "replica 32mb 16mb 5";
    let extra = [BACKLOG.as_slice(), &["--client-output-buffer-limit", limit]].concat();
    let mut links = Links::new(1, &extra);
    fill(&links.sources[0], &mut rng, 1_000, 1_000);
    let loads = links.start_writers(&links.sources[0], "load:", rng.u64(..));
    let mut job = links.start_job(&[]);
    job.wait_state(&["following", "verified"], LIMIT);

    links.target.pause();
    let stopped = Instant::now();
    let stopped_for = Duration::from_secs(setting("KEYFERRY_TEST_STOPPED_S", STOPPED_S_DEFAULT));
    let source = &links.sources[0];
    let offset = number(source, "replication", "master_repl_offset");
    let stop = Arc::new(AtomicBool::new(false));
    let large = write_large(source, &stop);
    let mut spooled_max = 0;
    let whole = || {
        let written = number(source, "replication", "master_repl_offset") - offset;
        written >= WRITTEN_BYTES_MIN && stopped.elapsed() >= stopped_for
    };
    wait_until(
        "it stood still for long enough",
        stopped_for + LIMIT,
        || {
            assert_eq!(number(source, "replication", "connected_slaves"), 1);
            assert_eq!(full_syncs(source), 1);
            spooled_max = spooled_max.max(links.spooled_bytes());
            whole()
        },
    );
    stop.store(true, Ordering::Relaxed);
    let writes = large.join().expect("a writer does not panic");
    println!("{writes} large writes; at most {spooled_max} bytes in the spool");
    assert!(spooled_max > 16 * 1024 * 1024, "the spool took what came");

    links.target.resume();
    let source = &links.sources[0];
    links.finish_writers(source, loads);
    links.wait_equal(&[source]);
    wait_with(&mut job, "the spool is drained", || {
        // The last segment stays until another is begun.
        links.spooled_bytes() <= 16 * 1024 * 1024
    });
    assert_eq!(number(source, "replication", "connected_slaves"), 1);
    assert_eq!(full_syncs(source), 1);
    job.wait_state(&["following", "verified"], LIMIT);
}

#[test]
fn a_source_that_fails_over_to_its_replica_is_followed_on() {
    let mut rng = seeded("a_source_that_fails_over");
    let links = Links::new(1, &BACKLOG);
    let (source, forwarder) = (&links.sources[0], &links.forwarders[0]);
    let replica = RedisServer::start(&BACKLOG);
    fill(source, &mut rng, 2_000, 200);
    let port = source.port().to_string();
    replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
    wait_until("the replica is in step", LIMIT, || {
        replica
            .info_field("replication", "master_link_status")
            .as_deref()
            == Some("up")
    });
    let mut job = links.start_job(&[]);
    job.wait_state(&["following", "verified"], LIMIT);
    let before = full_syncs(source);

    // What the replica has and the job has not must come from the replica.
    forwarder.stall();
    let loads = links.start_writers(source, "load:", rng.u64(..));
    wait_until("something was written", LIMIT, || {
        loads.iter().all(|load| load.replies() > 3_000)
    });
    let outcome: Vec<_> = loads.into_iter().map(support::load::Load::finish).collect();
    let offset = number(source, "replication", "master_repl_offset");
    wait_until("the replica has it all", LIMIT, || {
        number(&replica, "replication", "slave_repl_offset") >= offset
    });
    forwarder.refuse();
    forwarder.cut();
    forwarder.go_on();
    assert_eq!(
        replica.client().call(&["REPLICAOF", "NO", "ONE"]),
        Value::ok()
    );
    forwarder.point_at(&replica.address());
    forwarder.admit();
    let loads = links.start_writers(&replica, "after:", rng.u64(..));
    wait_until("more was written", LIMIT, || {
        loads.iter().all(|load| load.replies() > 3_000)
    });
    links.finish_writers(&replica, loads);
    for totals in outcome.iter().map(|outcome| &outcome.totals) {
        assert_eq!((totals.wrong, totals.errors), (0, 0), "{totals}");
    }
    // The replica has what was written before and after.
    links.wait_equal(&[&replica]);
    assert_eq!(
        full_syncs(source),
        before,
        "no second snapshot of the old one"
    );
    assert_eq!(full_syncs(&replica), 0, "and none of the new one");
    assert!(number(&replica, "stats", "sync_partial_ok") >= 1);
    job.wait_state(&["following", "verified"], LIMIT);
}

#[test]
fn a_source_whose_backlog_is_too_small_starts_again_alone() {
    const SMALL: [&str; 2] = ["--repl-backlog-size", "16kb"];
    let mut rng = seeded("a_source_starts_again_alone");
    let links = Links::new(2, &SMALL);
    let (cut, other) = (&links.sources[0], &links.sources[1]);
    let mine = links.keys_of(0, "key:", 4_000);
    for (at, server) in links.sources.iter().enumerate() {
        let mut client = server.client();
        for key in links.keys_of(at, "key:", 4_000) {
            client.call(&["SET", &key, "before"]);
        }
        for key in links.keys_of(at, "count:", 200) {
            client.call(&["INCR", &key]);
        }
    }
    let mut job = links.start_job(&[]);
    job.wait_state(&["following", "verified"], LIMIT);

    let forwarder = &links.forwarders[0];
    forwarder.refuse();
    forwarder.cut();
    wait_slaves(&mut job, cut, 0);
    let mut client = cut.client();
    for key in &mine[..mine.len() / 2] {
        assert_eq!(client.call(&["DEL", key]), Value::Int(1));
    }
    for key in &mine[mine.len() / 2..] {
        client.call(&["APPEND", key, &"after".repeat(rng.usize(1..40))]);
    }
    for key in links.keys_of(0, "count:", 200) {
        client.call(&["INCR", &key]);
    }
    let mut beside = other.client();
    for key in links.keys_of(1, "count:", 200) {
        beside.call(&["INCR", &key]);
    }
    forwarder.admit();
    wait_with(&mut job, "the source gives another snapshot", || {
        full_syncs(cut) == 2
    });
    // Deleted at the source while nobody listened: gone from the target, too.
    links.wait_equal(&[cut, other]);
    for key in links.keys_of(0, "count:", 200) {
        client.call(&["INCR", &key]);
    }
    links.wait_equal(&[cut, other]);
    assert_eq!(full_syncs(other), 1, "the other source is not copied again");
    job.wait_state(&["following", "verified"], LIMIT);
}

/// Round trips of PING at `server`, until told to stop, in microseconds.
fn ping(server: &RedisServer, stop: &Arc<AtomicBool>) -> thread::JoinHandle<Vec<u64>> {
    let (mut client, stop) = (Client::connect(&server.address()), stop.clone());
    thread::spawn(move || {
        let mut waits_us = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            assert_eq!(client.call(&["PING"]), Value::Simple("PONG".into()));
            let took = sent.elapsed().as_micros();
            waits_us.push(u64::try_from(took).expect("not that long"));
            thread::sleep(Duration::from_millis(1));
        }
        waits_us
    })
}

#[test]
fn a_large_hash_goes_over_in_many_small_requests() {
    let fields = setting("KEYFERRY_TEST_HASH_FIELDS", HASH_FIELDS_DEFAULT);
    let links = Links::new(1, &["--enable-debug-command", "yes"]);
    let source = &links.sources[0];
    let mut client = source.client();
    for from in (0..fields).step_by(1_000) {
        let mut command = vec!["HSET".to_owned(), "large".to_owned()];
        for field in from..fields.min(from + 1_000) {
            command.extend([format!("field{field}"), format!("value{field}")]);
        }
        assert!(client.call(&command).int() > 0);
    }
    let at = (support::contents::unix_ms() + 86_400_000).to_string();
    client.call(&["PEXPIREAT", "large", &at]);
    let stop = Arc::new(AtomicBool::new(false));
    let pings = ping(&links.target, &stop);
    let mut job = links.start_job(&[]);
    // Verification reads the whole hash at once: it is not what is measured.
    wait_with(&mut job, "the hash has its name", || {
        let there = links.target.client().call(&["EXISTS", "large"]);
        there == Value::Int(1)
    });
    stop.store(true, Ordering::Relaxed);
    let mut waits_us = pings.join().expect("a thread that does not panic");
    waits_us.sort_unstable();
    let quantile = |per_mille: usize| waits_us[(waits_us.len() - 1) * per_mille / 1000];
    println!(
        "a hash of {fields} fields; {} PINGs at the target: p50 {} us, p99 {} us, max {} us",
        waits_us.len(),
        quantile(500),
        quantile(990),
        quantile(1000),
    );
    job.wait_state(&["following", "verified"], LIMIT * 2);

    let mut target = links.target.client();
    let digest = ["DEBUG", "DIGEST-VALUE", "large"];
    assert_eq!(client.call(&digest), target.call(&digest));
    let expires = target.call(&["PEXPIRETIME", "large"]);
    assert_eq!(expires.int().to_string(), at);
    let names = target.call(&["KEYS", "*"]);
    let foreign = |name: &&Value| !name.text().starts_with("__keyferry:cp:");
    let names: Vec<&Value> = names.items().iter().filter(foreign).collect();
    assert_eq!(names, [&Value::bulk("large")], "no name is left over");
    // That no request was large is what keeps the target answering.
    let calls = |command: &str| {
        let line = links
            .target
            .info_field("commandstats", &format!("cmdstat_{command}"));
        let calls = line.and_then(|line| {
            let calls = line.split(',').find_map(|part| part.strip_prefix("calls="));
            calls?.parse::<u64>().ok()
        });
        calls.unwrap_or(0)
    };
    assert!(calls("hset") >= fields / 8_192, "{} HSETs", calls("hset"));
    assert_eq!(calls("rename") + calls("renamenx"), 1);
}
