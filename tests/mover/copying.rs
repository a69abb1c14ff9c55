//! Copy and follow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use keyferry::reshard::mover::{
    Bound, MoveError, Mover, MoverLimits, Throttle, ThrottleChange, ThrottleDial, VerifyOptions,
    purge,
};
use keyferry::router::spec::DistributionKind;
use keyferry::upstream::config::UpstreamConfig;

use crate::support::{RedisServer, Value, seeded, wait_until};
use crate::world::{DBS, World, all_keys, contents, now_ms, prepared_cut, rate, start};

/// Names of the keys that the writer changes; `{n}` is their hash tag.
const HOT_KEYS: usize = 300;
/// Rounds that the writer has made, at least, before it is stopped.
const ROUNDS_MIN: u64 = 1000;

fn hot(n: usize, what: &str) -> Vec<u8> {
    format!("{{hot{n}}}:{what}").into_bytes()
}

/// Writes to the old owners until told to stop; each round touches one tag.
fn write(world: &World, stop: &AtomicBool, rounds: &AtomicU64, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut clients = [world.clients(DBS[0]), world.clients(DBS[1])];
    while !stop.load(Ordering::Relaxed) {
        let n = rng.usize(..HOT_KEYS);
        let key = |what: &str| hot(n, what);
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        let number = round.to_string().into_bytes();
        let soon = (now_ms() + rng.u64(600_000..900_000))
            .to_string()
            .into_bytes();
        let b = |text: &str| text.as_bytes().to_vec();
        let commands: Vec<Vec<Vec<u8>>> = vec![
            vec![b("INCR"), key("count")],
            vec![b("RPUSH"), key("list"), number.clone()],
            vec![b("APPEND"), key("text"), number.clone()],
            vec![b("HINCRBY"), key("hash"), b("f"), b("1")],
            vec![b("ZADD"), key("zset"), number.clone(), b("m")],
            vec![b("SADD"), key("set"), number.clone()],
            vec![b("XADD"), key("stream"), b("*"), b("f"), number.clone()],
            match rng.u32(..10) {
                0 => vec![b("DEL"), key("list"), key("gone")],
                1 => vec![b("PEXPIREAT"), key("text"), soon],
                2 => vec![b("PERSIST"), key("text")],
                3 => vec![b("RENAME"), key("count"), key("renamed")],
                4 => vec![b("MSET"), key("gone"), number.clone(), key("other"), number],
                5 => vec![b("SPOP"), key("set")],
                6 => vec![b("SUNIONSTORE"), key("union"), key("set")],
                7 => vec![b("SET"), key("gone"), number, b("PX"), b("500000")],
                8 => vec![
                    b("EVAL"),
                    b("redis.call('INCR', KEYS[1]) redis.call('DEL', KEYS[2])"),
                    b("2"),
                    key("count"),
                    key("gone"),
                ],
                _ => vec![b("UNLINK"), key("hash")],
            },
        ];
        let client = &mut clients[usize::from(rng.bool())][world.old_at(&key("count"))];
        for reply in client.pipeline(&commands) {
            assert!(!reply.is_error(), "{reply:?}");
        }
    }
}

/// Every moving key is the same on both owners, and no other key was copied.
fn assert_moved(world: &World) {
    for db in DBS {
        let mut clients = world.clients(db);
        let per_server: Vec<Vec<Vec<u8>>> = clients.iter_mut().map(all_keys).collect();
        let mut expected: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::new(); clients.len()];
        let mut moving = 0;
        for (at, keys) in per_server.iter().enumerate() {
            for key in keys.iter().filter(|key| world.old_at(key) == at) {
                expected[at].insert(key.clone());
                expected[world.new_at(key)].insert(key.clone());
                if world.moves(key) {
                    moving += 1;
                    let source = contents(&mut clients[at], key);
                    let target = contents(&mut clients[world.new_at(key)], key);
                    assert_eq!(source, target, "key {} in db {db}", key.escape_ascii());
                }
            }
        }
        for (keys, expected) in per_server.into_iter().zip(expected) {
            let keys: BTreeSet<Vec<u8>> = keys.into_iter().collect();
            let wrong: Vec<_> = keys.symmetric_difference(&expected).collect();
            assert!(
                wrong.is_empty(),
                "{} keys lost or extra: {:?}",
                wrong.len(),
                wrong.first()
            );
        }
        assert!(moving > 0, "the layouts move nothing");
    }
}

pub async fn copy_under_writes(world: Arc<World>, keys: usize, limits: MoverLimits, name: &str) {
    let mut rng = seeded(name);
    world.fill(&mut rng, keys);
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let writer = {
        let (world, stop, seed) = (Arc::clone(&world), Arc::clone(&stop), rng.u64(..));
        let rounds = Arc::clone(&rounds);
        tokio::task::spawn_blocking(move || write(&world, &stop, &rounds, seed))
    };
    let mut config = world.config();
    config.limits = limits;
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut verified = false;
    while !verified || rounds.load(Ordering::Relaxed) < ROUNDS_MIN {
        let report = mover.verify(VerifyOptions::default()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(
            report.keys_compared > 0 && report.keys_looked_up > 0,
            "{report:?}"
        );
        verified = true;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    // Times that end soon are exact from here on.
    let marker = prepared_cut(&mover).await;
    assert_eq!(marker.sources.len(), world.moves.from().shards().len());
    assert_progress(&mover);
    {
        let world = Arc::clone(&world);
        tokio::task::spawn_blocking(move || assert_moved(&world))
            .await
            .unwrap();
    }
    mover.uncut();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(
        report.is_clean() && report.keys_rechecked == 0,
        "{report:?}"
    );
    mover.stop().await.unwrap();
}

fn assert_progress(mover: &Mover) {
    let progress = mover.progress_now();
    assert!(progress.is_following());
    assert!(
        progress
            .sources
            .iter()
            .any(|row| row.keys_sent > 0 && row.bytes_sent > 0)
    );
    for row in &progress.sources {
        assert_eq!(row.keys_sent, row.keys_acked, "{row:?}");
        assert!(row.keys_scanned >= row.keys_sent, "{row:?}");
        assert_eq!(row.lag_bytes(), 0, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shards_become_three_under_writes() {
    let world = Arc::new(World::ketama(2, 3));
    copy_under_writes(world, 4000, MoverLimits::default(), "two_to_three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_shards_become_two_with_tiny_windows() {
    let world = Arc::new(World::ketama(3, 2));
    let limits = MoverLimits {
        window_bytes: 512,
        window_ops: 3,
        queue_bytes: 2048,
        ..MoverLimits::default()
    };
    copy_under_writes(world, 1000, limits, "three_to_two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modula_becomes_ketama_on_the_same_servers() {
    let servers = RedisServer::start_many(2, &[]);
    let world = Arc::new(World::between(servers, 2, 2, DistributionKind::Modula));
    copy_under_writes(world, 1000, MoverLimits::default(), "modula_to_ketama").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_removes_what_moved_and_nothing_else() {
    let world = World::ketama(2, 3);
    let keys = world.fill(&mut seeded("purge"), 500);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.stop().await.unwrap();
    let report = purge(&world.moves, &UpstreamConfig::default(), None)
        .await
        .unwrap();
    let moving = keys.iter().filter(|key| world.moves(key)).count();
    assert_eq!(report.keys(), (moving * DBS.len()) as u64);
    for key in &keys {
        let mut client = world.new_client(DBS[1], key);
        assert_eq!(client.call(&[b"EXISTS", &key[..]]), Value::Int(1));
        if world.moves(key) {
            let mut client = world.old_client(DBS[1], key);
            assert_eq!(client.call(&[b"EXISTS", &key[..]]), Value::Int(0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_slows_the_copy_and_nothing_else() {
    let world = World::ketama(2, 3);
    world.fill(&mut seeded("rate"), 2000);
    let mut config = world.config();
    config.throttle = rate(1_000_000);
    let mover = start(config).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), mover.wait_following())
        .await
        .unwrap()
        .unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_taken_back_frees_the_copy() {
    let world = World::ketama(2, 3);
    world.fill(&mut seeded("dial"), 2000);
    let mut config = world.config();
    // At this rate it would take hours.
    config.throttle = rate(10);
    let dial = config.throttle.clone();
    let mover = start(config).await.unwrap();
    let mut progress = mover.progress();
    let held = progress.wait_for(|now| {
        let begun = now.sources.iter().any(|row| row.keys_sent > 0);
        begun && now.held.bytes_per_s == Some(10)
    });
    held.await.unwrap();
    assert!(!mover.progress_now().is_following());
    dial.turn(ThrottleChange {
        rate_bytes_per_s: Some(Bound::Off),
        ..ThrottleChange::default()
    });
    tokio::time::timeout(Duration::from_secs(60), mover.wait_following())
        .await
        .expect("the copy still goes at the old rate")
        .unwrap();
    mover.stop().await.unwrap();
}

/// A target that answers too slowly slows the copy down to the governor's floor
/// at most, and is named; taken back, the copy is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_answers_slowly_slows_the_copy() {
    let servers = RedisServer::start_many(2, &["--enable-debug-command", "yes"]);
    let world = World::between(servers, 1, 2, DistributionKind::Ketama);
    world.fill(&mut seeded("strain"), 5000);
    let mut config = world.config();
    config.throttle = ThrottleDial::new(Throttle {
        target_ping_p99_ms_max: Some(5),
        ..Throttle::default()
    });
    let dial = config.throttle.clone();
    let mut target = world.servers[1].client();
    let is_named = Arc::new(AtomicBool::new(false));
    let awake = Arc::clone(&is_named);
    let sleeping = std::thread::spawn(move || {
        while !awake.load(Ordering::SeqCst) {
            let slept = target.call(&["DEBUG", "SLEEP", "0.05"]);
            assert_eq!(slept, Value::ok());
        }
    });
    let mover = start(config).await.unwrap();
    let mut progress = mover.progress();
    let named = progress.wait_for(|now| {
        let target = world.servers[1].address();
        let why = now.held.why.as_deref().unwrap_or_default();
        now.held.bytes_per_s.is_some() && why.contains(&target)
    });
    named.await.unwrap();
    is_named.store(true, Ordering::SeqCst);
    dial.turn(ThrottleChange {
        target_ping_p99_ms_max: Some(Bound::Off),
        ..ThrottleChange::default()
    });
    mover.wait_following().await.unwrap();
    sleeping.join().unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_reach_the_servers_that_are_new() {
    let world = World::ketama(2, 3);
    world.fill(&mut seeded("functions"), 50);
    let library = |version: u32| {
        format!("#!lua name=lib\nredis.register_function('f', function() return {version} end)")
    };
    for server in &world.servers[..2] {
        let reply = server.client().call(&["FUNCTION", "LOAD", &library(1)]);
        assert_eq!(reply, Value::bulk("lib"));
    }
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut fresh = world.servers[2].client();
    assert_eq!(fresh.call(&["FCALL", "f", "0"]), Value::Int(1));
    for server in &world.servers[..2] {
        server
            .client()
            .call(&["FUNCTION", "LOAD", "REPLACE", &library(2)]);
    }
    mover.marker("loaded").await.unwrap();
    assert_eq!(fresh.call(&["FCALL", "f", "0"]), Value::Int(2));
    for server in &world.servers[..2] {
        server.client().call(&["FUNCTION", "DELETE", "lib"]);
    }
    mover.marker("deleted").await.unwrap();
    assert!(fresh.call(&["FCALL", "f", "0"]).is_error());
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_mover_leaves_its_servers_and_can_still_be_stopped() {
    let world = World::ketama(2, 3);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.cut("decided", 0).await.unwrap();
    mover.detach();
    mover.detach();
    for server in &world.servers {
        let mut client = server.client();
        wait_until("tap and lanes are gone", Duration::from_secs(20), || {
            let info = client.call(&["INFO", "replication"]).text();
            let list = client.call(&["CLIENT", "LIST"]).text();
            info.contains("connected_slaves:0") && !list.contains("name=keyferry")
        });
    }
    let error = mover.marker("late").await.unwrap_err();
    assert!(matches!(error, MoveError::Stopped), "{error}");
    let failed = tokio::time::timeout(Duration::from_millis(50), mover.failed());
    assert!(failed.await.is_err(), "detaching is no failure");
    mover.stop().await.unwrap();
}
