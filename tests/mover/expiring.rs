//! Keys that would end on their target before what renewed them comes there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyferry::reshard::mover::{Attach, MoveError, Phase, VerifyOptions};
use keyferry::router::layout::Layout;
use keyferry::router::moves::Moves;
use keyferry::router::spec::{DistributionKind, LayoutSpec, ShardSpec};

use crate::support::forwarder::Forwarder;
use crate::support::servers::Skipped;
use crate::support::{Client, RedisServer, ServerKind, Value, seeded, wait_until};
use crate::world::{
    DBS, World, all_keys, contents, in_db, layout, now_ms, prepared_cut, rate, start,
};

/// Longer than the renewals take, shorter than the copy.
const TTL_MS: u64 = 3_000;
/// With a megabyte a second, what comes after it comes after the TTL.
const FILLER_BYTES: usize = 5_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn keys_renewed_while_the_copy_lags_are_kept() {
    let world = World::ketama(1, 2);
    let moving = |prefix: &str| world.find(prefix, |key| world.moves(key));
    // Random bytes: a snapshot compresses others.
    let mut rng = seeded("expiring");
    let filler: Vec<u8> = (0..100_000).map(|_| rng.u8(..)).collect();
    let mut first = in_db(&world.servers[0], DBS[0]);
    for n in 0.. {
        let key = format!("filler{n}");
        if world.moves(key.as_bytes()) {
            first.call(&[b"SET", key.as_bytes(), &filler]);
        }
        if first.call(&["DBSIZE"]).int() as usize * filler.len() >= FILLER_BYTES {
            break;
        }
    }
    // The second database comes after the first in a snapshot.
    let mut source = in_db(&world.servers[0], DBS[1]);
    let [count, text, forever, gone, fresh] =
        ["count", "text", "forever", "gone", "fresh"].map(moving);
    let ttl = TTL_MS.to_string();
    for key in [&count, &text, &forever, &gone] {
        source.call(&["SET", key, "41", "PX", &ttl]);
    }
    let ended = now_ms() + TTL_MS;
    let mut config = world.config();
    config.throttle = rate(1_000_000);
    let mover = start(config).await.unwrap();
    let mut progress = mover.progress();
    let begun = progress.wait_for(|now| {
        let mut rows = now.sources.iter();
        rows.next().is_some_and(|row| row.phase >= Phase::Snapshot)
    });
    begun.await.unwrap();
    for command in [
        vec!["INCR", &count],
        vec!["PEXPIRE", &count, "600000"],
        vec!["PEXPIRE", &text, "600000"],
        vec!["PERSIST", &forever],
        vec!["SET", &fresh, "1", "PX", &ttl],
        vec!["INCR", &fresh],
        vec!["RENAME", &fresh, &fresh],
        vec!["PEXPIRE", &fresh, "600000", "GT"],
    ] {
        let reply = source.call(&command);
        assert!(
            !reply.is_error() && reply != Value::Int(0),
            "too slow: {command:?} {reply:?}"
        );
    }
    wait_until("the first times end", Duration::from_secs(30), || {
        now_ms() > ended
    });
    mover.wait_following().await.unwrap();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    prepared_cut(&mover).await;
    let mut target = in_db(&world.servers[1], DBS[1]);
    for (key, value) in [
        (&count, "42"),
        (&text, "41"),
        (&forever, "41"),
        (&fresh, "2"),
    ] {
        assert_eq!(target.call(&["GET", key]), Value::bulk(value), "{key}");
        let key = key.as_bytes();
        assert_eq!(contents(&mut target, key), contents(&mut source, key));
    }
    assert_eq!(target.call(&["EXISTS", &gone]), Value::Int(0));
    mover.stop().await.unwrap();
}

/// One old server, and a forwarder before the only new one: its keys, and what
/// holds them up.
struct Slow {
    world: World,
    link: Forwarder,
}

impl Slow {
    fn start() -> Slow {
        let servers = RedisServer::start_many(2, &[]);
        let link = Forwarder::start(&servers[1].address());
        let old = layout(&[&servers[0]], DistributionKind::Ketama);
        let shards = [servers[0].address(), link.address()].map(|addr| ShardSpec {
            name: None,
            addr,
            weight: 1,
            slots: None,
        });
        let spec = LayoutSpec {
            shards: shards.into(),
            ..old.spec().clone()
        };
        let moves = Moves::between(old, Arc::new(Layout::new(spec).unwrap())).unwrap();
        let world = World {
            servers,
            moves: Arc::new(moves),
            attach: Attach::Psync,
        };
        Slow { world, link }
    }

    fn moving(&self, prefix: &str) -> String {
        self.world.find(prefix, |key| self.world.moves(key))
    }

    fn source(&self) -> Client {
        self.world.servers[0].client()
    }

    fn target(&self) -> Client {
        self.world.servers[1].client()
    }

    /// All moving keys are equal, times to the millisecond.
    fn assert_equal(&self) {
        let (mut source, mut target) = (self.source(), self.target());
        let keys = all_keys(&mut source);
        for key in keys.iter().filter(|key| self.world.moves(key)) {
            let shown = key.escape_ascii();
            assert_eq!(
                contents(&mut target, key),
                contents(&mut source, key),
                "{shown}"
            );
        }
        for key in all_keys(&mut target) {
            let is_ours = keys.contains(&key) || key.starts_with(b"__keyferry:");
            assert!(is_ours, "only at the target: {}", key.escape_ascii());
        }
    }
}

fn until_ended(client: &mut Client, key: &str) {
    let what = format!("{key} ends");
    wait_until(&what, Duration::from_secs(20), || {
        client.call(&["EXISTS", key]) == Value::Int(0)
    });
}

/// Renewals in the last moments of a key, while its target hears nothing until
/// after its old end.
#[tokio::test(flavor = "multi_thread")]
async fn keys_renewed_while_a_target_lags_are_kept() {
    let slow = Slow::start();
    let mover = start(slow.world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut source = slow.source();
    let [count, text, forever, gone, whole, copied] =
        ["count", "text", "forever", "gone", "whole", "copied"].map(|name| slow.moving(name));
    let to = slow.moving("to");
    let members = ["m1", "m2", "m3"].map(|name| slow.moving(name));
    for key in [&count, &text, &forever, &gone, &whole, &copied] {
        source.call(&["SET", key, "41", "PX", "3000"]);
    }
    for key in &members {
        source.call(&["SADD", key, key]);
        source.call(&["PEXPIRE", key, "3000"]);
    }
    mover.marker("set").await.unwrap();
    slow.link.stall();
    let mut brief = slow.source();
    for command in [
        vec!["INCR", &count],
        vec!["PEXPIRE", &count, "2000"],
        vec!["INCR", &count],
        vec!["PEXPIRE", &count, "1200000"],
        vec!["PEXPIRE", &text, "1200000", "GT"],
        vec!["PERSIST", &forever],
        vec!["SET", &whole, "new", "KEEPTTL"],
        vec!["PEXPIRE", &whole, "2500"],
        vec!["RENAME", &copied, &to],
        vec!["PEXPIRE", &to, "900000"],
        vec!["SUNIONSTORE", &members[0], &members[1], &members[2]],
        vec!["PEXPIRE", &members[0], "30000"],
    ] {
        let reply = source.call(&command);
        assert!(
            !reply.is_error() && reply != Value::Int(0),
            "too slow: {command:?} {reply:?}"
        );
    }
    for key in [&gone, &whole, &members[1], &members[2]] {
        until_ended(&mut brief, key);
    }
    slow.link.go_on();
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    prepared_cut(&mover).await;
    slow.assert_equal();
    assert_eq!(slow.target().call(&["GET", &count]), Value::bulk("43"));
    assert_eq!(slow.target().call(&["SCARD", &members[0]]), Value::Int(2));
    mover.stop().await.unwrap();
}

/// Keys whose exact time the target has: a touch when it is near reads them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_time_has_come_near_is_read_again_when_it_is_touched() {
    let slow = Slow::start();
    let key = slow.moving("far");
    let mut source = slow.source();
    source.call(&["SET", &key, "41", "PX", "7000000"]);
    let mover = start(slow.world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let exact = slow.target().call(&["PEXPIRETIME", &key]);
    assert_eq!(exact, source.call(&["PEXPIRETIME", &key]));
    // A preparation makes it exact, though it ends soon.
    source.call(&["SET", &key, "41", "PX", "4000"]);
    prepared_cut(&mover).await;
    slow.assert_equal();
    mover.uncut();
    mover.marker("on").await.unwrap();
    slow.link.stall();
    source.call(&["INCR", &key]);
    source.call(&["PEXPIRE", &key, "3600000"]);
    let mut target = slow.target();
    until_ended(&mut target, &key);
    slow.link.go_on();
    mover.cut("end", 0).await.unwrap();
    slow.assert_equal();
    assert_eq!(target.call(&["GET", &key]), Value::bulk("42"));
    assert!(mover.progress_now().sources[0].keys_refreshed > 0);
    mover.stop().await.unwrap();
}

/// Writers that renew and end keys with short times all the while, over a link
/// that stalls now and then.
#[tokio::test(flavor = "multi_thread")]
async fn short_times_under_load_are_exact_after_a_cut() {
    let slow = Slow::start();
    let mut rng = seeded("short times");
    let names: Vec<String> = (0..40).map(|n| slow.moving(&format!("v{n}:"))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, mut rng) = (slow.source(), rng.fork());
            let (stop, names) = (Arc::clone(&stop), names.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let (key, other) = (rng.choice(&names).unwrap(), rng.choice(&names).unwrap());
                    let ms = rng.u32(1..1500).to_string();
                    let command = match rng.u32(..10) {
                        0 => vec!["SET", key, "0", "PX", &ms],
                        1 => vec!["SET", key, "0"],
                        2 | 3 => vec!["PEXPIRE", key, &ms],
                        4 => vec!["PERSIST", key],
                        5 => vec!["DEL", key],
                        6 => vec!["RENAME", key, other],
                        7 => vec!["SET", key, "5", "KEEPTTL"],
                        8 => vec!["COPY", key, other, "REPLACE"],
                        _ => vec!["INCR", key],
                    };
                    let reply = client.call(&command);
                    let known = ["no such key", "the same"];
                    if let Value::Error(text) = &reply {
                        assert!(known.iter().any(|known| text.contains(known)), "{text}");
                    }
                }
            })
        })
        .collect();
    let mover = start(slow.world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    for _ in 0..3 {
        slow.link.stall();
        let before = mover.progress_now().sources[0].offset_read;
        wait_until("the source goes on", Duration::from_secs(20), || {
            mover.progress_now().sources[0].offset_read > before + 30_000
        });
        slow.link.go_on();
        let report = mover.verify(VerifyOptions::default()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    prepared_cut(&mover).await;
    // What ends from here on ends at both by itself: look at what does not.
    let mut source = slow.source();
    wait_until("all times are over", Duration::from_secs(20), || {
        names
            .iter()
            .all(|key| source.call(&["PTTL", key]).int() < 0)
    });
    slow.assert_equal();
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_keys_that_end_at_once_hold_a_cut_off() {
    let slow = Slow::start();
    let mover = start(slow.world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut source = slow.source();
    let names = (0..).map(|n| format!("many{n}"));
    let names: Vec<String> = names
        .filter(|name| slow.world.moves(name.as_bytes()))
        .take(2_500)
        .collect();
    let batch: Vec<Vec<&str>> = names
        .iter()
        .map(|name| vec!["SET", name, "v", "PX", "300000"])
        .collect();
    source.pipeline(&batch);
    // Without a preparation all of them are guarded.
    let error = mover.cut("unprepared", 0).await.unwrap_err();
    assert!(
        matches!(error, MoveError::TooManyEnding { count: 2_500, .. }),
        "{error}"
    );
    mover.uncut();
    prepared_cut(&mover).await;
    slow.assert_equal();
    mover.uncut();
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn times_from_now_on_of_older_sources_are_kept() {
    let mut skipped = Skipped::default();
    for kind in [ServerKind::Redis60, ServerKind::Redis62] {
        if !skipped.unless_here(&format!("times from {kind}"), &[kind]) {
            continue;
        }
        let mut servers = vec![RedisServer::start_kind(kind, &[])];
        servers.extend(RedisServer::start_many(1, &[]));
        let world = World::between(servers, 1, 2, DistributionKind::Ketama);
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        let mut source = world.servers[0].client();
        let [a, b, c, d] =
            ["a", "b", "c", "d"].map(|name| world.find(name, |key| world.moves(key)));
        for command in [
            vec!["SETEX", &a, "4000", "v"],
            vec!["SET", &b, "v", "PX", "5000"],
            vec!["SET", &c, "v"],
            vec!["EXPIRE", &c, "9000"],
            vec!["PSETEX", &d, "60000", "v"],
        ] {
            assert!(!source.call(&command).is_error());
        }
        let report = mover.verify(VerifyOptions::default()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        prepared_cut(&mover).await;
        let mut target = world.servers[1].client();
        for key in [&a, &b, &c, &d] {
            let left = [&mut source, &mut target].map(|client| client.call(&["PTTL", key]).int());
            assert!(left[0].abs_diff(left[1]) < 1_000, "{key}: {left:?}");
        }
        mover.stop().await.unwrap();
    }
    skipped.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_renewed_while_a_target_lags_are_kept() {
    let mut skipped = Skipped::default();
    if skipped.unless_here("field times from redis-8.0", &[ServerKind::Redis80]) {
        let servers = (0..2).map(|_| RedisServer::start_kind(ServerKind::Redis80, &[]));
        let world = World::between(servers.collect(), 1, 2, DistributionKind::Ketama);
        let mut source = world.servers[0].client();
        let key = world.find("hash", |key| world.moves(key));
        source.call(&["HSET", &key, "f", "1", "g", "2", "h", "3"]);
        source.call(&["HPEXPIRE", &key, "1500", "FIELDS", "1", "f"]);
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        let mut target = world.servers[1].client();
        source.call(&["HPEXPIRE", &key, "1500", "FIELDS", "1", "g"]);
        mover.marker("set").await.unwrap();
        source.call(&["HPEXPIRE", &key, "1000000", "FIELDS", "2", "f", "g"]);
        source.call(&["HINCRBY", &key, "g", "5"]);
        mover.cut("end", 0).await.unwrap();
        assert!(mover.progress_now().sources[0].keys_refreshed > 0);
        let all = |client: &mut Client| {
            let fields = client.call(&["HMGET", &key, "f", "g", "h"]);
            let times = client.call(&["HPEXPIRETIME", &key, "FIELDS", "3", "f", "g", "h"]);
            (fields, times)
        };
        assert_eq!(all(&mut target), all(&mut source));
        assert_eq!(all(&mut target).0.items()[1], Value::bulk("7"));
        mover.stop().await.unwrap();
    }
    skipped.finish();
}

/// Behind the marker of a cut, keys get their times from guarded ones after those
/// were asked for.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_turn_up_behind_a_cut_get_exact_times_too() {
    let world = World::ketama(1, 2);
    let tag = world.find("pair", |key| world.moves(key));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut client, stop) = (world.servers[0].client(), Arc::clone(&stop));
        let key = |end: &str| format!("{{{tag}}}{end}");
        let (one, other) = (key("a"), key("b"));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                client.call(&["SET", &one, "v", "PX", "400000"]);
                for _ in 0..20 {
                    client.call(&["COPY", &one, &other, "REPLACE"]);
                    client.call(&["RENAME", &other, &one]);
                }
            }
        })
    };
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    for _ in 0..100 {
        let cut = tokio::time::timeout(Duration::from_secs(30), mover.cut("now", 0));
        cut.await.expect("it is through").unwrap();
        mover.uncut();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    mover.stop().await.unwrap();
}
