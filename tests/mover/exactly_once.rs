//! What comes after a position is applied once, whatever breaks meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use keyferry::reshard::mover::{
    Begin, MoveError, Mover, MoverConfig, MoverLimits, Phase, Position, VerifyOptions,
};
use keyferry::router::moves::Moves;
use keyferry::router::spec::DistributionKind;

use crate::support::{Client, Forwarder, RedisServer, Value, seeded, wait_until};
use crate::world::{World, in_db, layout, layout_at, prepared_cut, start};

/// Longest wait for something that is about to happen.
const SOON: Duration = Duration::from_secs(30);
/// How often the link of a lane is cut under load.
const CUTS: usize = 40;
/// How often a job is taken up again.
const RUNS: usize = 4;
/// Keys of each kind that the load works on, in each database.
const COUNTERS: usize = 6;

/// Where a source's stream is now, in database `db`.
fn position(server: &RedisServer, db: u32) -> Position {
    let field = |name| server.info_field("replication", name).unwrap();
    Position {
        source: server.address().parse().unwrap(),
        replid: field("master_replid"),
        offset: field("master_repl_offset").parse().unwrap(),
        db,
    }
}

fn full_syncs(server: &RedisServer) -> u64 {
    let count = server.info_field("stats", "sync_full").unwrap();
    count.parse().unwrap()
}

/// A world of one server that becomes two, with a counter in each database that
/// was copied, and its sources' positions.
async fn copied() -> (World, String, Vec<Position>) {
    let world = World::ketama(1, 2);
    let key = world.find("count", |key| world.moves(key));
    for db in [0, 3] {
        in_db(&world.servers[0], db).call(&["INCR", &key]);
    }
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.stop().await.unwrap();
    // The last command was in database 3.
    let at = vec![position(&world.servers[0], 3)];
    (world, key, at)
}

/// One server that becomes two, the second behind a forwarder.
fn forwarded(extra: &[&str]) -> (World, Forwarder) {
    let servers = RedisServer::start_many(2, extra);
    let forwarder = Forwarder::start(&servers[1].address());
    let old = layout(&[&servers[0]], DistributionKind::Ketama);
    let addresses = [servers[0].address(), forwarder.address()];
    let new = layout_at(&addresses, DistributionKind::Ketama);
    let world = World {
        moves: Arc::new(Moves::between(old, new).unwrap()),
        ..World::between(servers, 1, 2, DistributionKind::Ketama)
    };
    (world, forwarder)
}

/// Clients that count, append and push, none of which may be done twice.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
    keys: Vec<String>,
}

impl Load {
    fn start(world: &World) -> Load {
        let mut keys = Vec::new();
        for n in 0..COUNTERS {
            let moving = |kind: &str| world.find(&format!("{kind}{n}:"), |key| world.moves(key));
            keys.extend(["count", "text", "list"].map(moving));
            // The tag decides for both.
            let tag = moving("pair");
            keys.extend(["a", "b"].map(|end| format!("{{{tag}}}{end}")));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers = [0, 3].map(|db| {
            let mut client = in_db(&world.servers[0], db);
            let (stop, keys) = (Arc::clone(&stop), keys.clone());
            std::thread::spawn(move || write(&mut client, &stop, &keys))
        });
        Load {
            stop,
            writers: writers.into(),
            keys,
        }
    }

    /// How many rounds were written.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self
            .writers
            .into_iter()
            .map(|writer| writer.join().unwrap());
        (rounds.sum(), self.keys)
    }
}

fn write(client: &mut Client, stop: &AtomicBool, keys: &[String]) -> u64 {
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let mut batch: Vec<Vec<String>> = Vec::new();
        for of_kind in keys.chunks(5) {
            let [count, text, list, one, other] = of_kind else {
                unreachable!()
            };
            let mark = round.to_string();
            let mut command = |words: &[&str]| {
                batch.push(words.iter().map(ToString::to_string).collect());
            };
            command(&["INCR", count]);
            command(&["APPEND", text, &mark]);
            command(&["RPUSH", list, &mark]);
            command(&["LTRIM", list, "-500", "-1"]);
            command(&["MULTI"]);
            command(&["INCR", one]);
            command(&["INCR", other]);
            command(&["EXEC"]);
        }
        for reply in client.pipeline(&batch) {
            assert!(!reply.is_error(), "{reply:?}");
        }
        round += 1;
    }
    round
}

/// All keys of the load are on the target as they are on the source.
fn assert_same(world: &World, keys: &[String]) {
    for db in [0, 3] {
        let mut source = in_db(&world.servers[0], db);
        let mut target = in_db(&world.servers[1], db);
        for of_kind in keys.chunks(5) {
            for (at, key) in of_kind.iter().enumerate() {
                let read: Vec<&str> = match at {
                    2 => vec!["LRANGE", key, "0", "-1"],
                    _ => vec!["GET", key],
                };
                assert!(source.call(&read) == target.call(&read), "db {db}: {key}");
            }
        }
    }
}

async fn assert_clean(mover: &Mover) {
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// The names and ids of lanes that a server has.
fn lanes(server: &RedisServer) -> Vec<String> {
    let list = server.client().call(&["CLIENT", "LIST"]).text();
    let lanes = list.lines().filter(|line| line.contains(":lane:"));
    let ids = lanes.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_position_is_followed() {
    let (world, key, at) = copied().await;
    let mut source = in_db(&world.servers[0], 3);
    assert_eq!(source.call(&["INCR", &key]), Value::Int(2));
    let config = MoverConfig {
        begin: Begin::Follow(at),
        ..world.config()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_eq!(full_syncs(&world.servers[0]), 1);
    assert_clean(&mover).await;
    assert_eq!(
        in_db(&world.servers[1], 3).call(&["GET", &key]),
        Value::bulk("2")
    );
    assert_eq!(mover.progress_now().restarts(), 0);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_gone_makes_its_keys_be_copied_anew() {
    let (world, key, mut at) = copied().await;
    at[0].replid = "0".repeat(40);
    let stale = world.find("stale", |key| world.moves(key));
    in_db(&world.servers[1], 0).call(&["SET", &stale, "x"]);
    let config = MoverConfig {
        begin: Begin::Follow(at),
        ..world.config()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_clean(&mover).await;
    let mut target = in_db(&world.servers[1], 0);
    assert_eq!(target.call(&["EXISTS", &stale]), Value::Int(0));
    assert_eq!(target.call(&["GET", &key]), Value::bulk("1"));
    assert_eq!(mover.progress_now().restarts(), 1);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn links_cut_under_load_lose_and_repeat_nothing() {
    let mut rng = seeded("links_cut_under_load_lose_and_repeat_nothing");
    let (world, forwarder) = forwarded(&[]);
    world.fill(&mut rng, 300);
    let load = Load::start(&world);
    let mover = start(world.config()).await.unwrap();
    for cut in 0..CUTS {
        let links = forwarder.links_made();
        if cut % 4 == 0 {
            wait_until("the lane has its name", SOON, || {
                !lanes(&world.servers[1]).is_empty()
            });
            for id in lanes(&world.servers[1]) {
                world.servers[1]
                    .client()
                    .call(&["CLIENT", "KILL", "ID", &id]);
            }
        } else {
            // In the middle of a reply, sooner or later.
            forwarder.cut_after(rng.usize(1..3_000));
        }
        let dials = async {
            while forwarder.links_made() == links {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            error = mover.failed() => panic!("cut {cut}: {error}"),
            () = dials => {}
        }
    }
    mover.wait_following().await.unwrap();
    let (rounds, keys) = load.end();
    assert!(rounds > 0);
    mover.marker("end").await.unwrap();
    assert_same(&world, &keys);
    assert_clean(&mover).await;
    assert_eq!(mover.progress_now().restarts(), 0);
    assert_eq!(full_syncs(&world.servers[0]), 1);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_taken_up_again_goes_on_where_it_was() {
    let mut rng = seeded("a_job_taken_up_again_goes_on_where_it_was");
    let world = World::ketama(1, 2);
    world.fill(&mut rng, 300);
    // The job is away for a moment; the source has to remember what came meanwhile.
    world.servers[0]
        .client()
        .call(&["CONFIG", "SET", "repl-backlog-size", "64mb"]);
    let soon = world.find("soon", |key| world.moves(key));
    in_db(&world.servers[0], 3).call(&["SET", &soon, "v", "PX", "900000"]);
    let load = Load::start(&world);
    for run in 0..RUNS {
        let mut config = world.config();
        if run > 0 {
            (config.begin, config.resumed) = (Begin::Resume, true);
        }
        let mover = start(config).await.unwrap();
        mover.wait_following().await.unwrap();
        assert_eq!(mover.progress_now().restarts(), 0);
        // Renewed near its end: a guarded time is what this run leaves behind.
        in_db(&world.servers[0], 3).call(&["PEXPIRE", &soon, "800000"]);
        mover.marker("left").await.unwrap();
        // Whatever is under way stays unanswered.
        mover.stop().await.unwrap();
    }
    let mut config = world.config();
    (config.begin, config.resumed) = (Begin::Resume, true);
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    let (_, keys) = load.end();
    mover.marker("end").await.unwrap();
    assert_same(&world, &keys);
    assert_clean(&mover).await;
    assert_eq!(full_syncs(&world.servers[0]), 1);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guarded_times_of_an_earlier_run_are_set_right() {
    let world = World::ketama(1, 2);
    let key = world.find("guarded", |key| world.moves(key));
    let mut source = in_db(&world.servers[0], 3);
    source.call(&["SET", &key, "v", "PX", "900000"]);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.stop().await.unwrap();
    // As a run leaves it that ended before it had settled.
    let mut target = in_db(&world.servers[1], 3);
    assert_eq!(target.call(&["PEXPIRE", &key, "604800000"]), Value::Int(1));
    let mut config = world.config();
    (config.begin, config.resumed) = (Begin::Resume, true);
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    // Until a cut it may be guarded, being near.
    prepared_cut(&mover).await;
    let expected = source.call(&["PEXPIRETIME", &key]);
    assert_eq!(target.call(&["PEXPIRETIME", &key]), expected);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_checkpoint_a_source_is_copied_anew() {
    let (world, key, _) = copied().await;
    let mut target = in_db(&world.servers[1], 0);
    assert_eq!(target.call(&["DEL", "__keyferry:cp:test:0"]), Value::Int(1));
    let stale = world.find("stale", |key| world.moves(key));
    target.call(&["SET", &stale, "x"]);
    let mut config = world.config();
    (config.begin, config.resumed) = (Begin::Resume, true);
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_clean(&mover).await;
    assert_eq!(target.call(&["EXISTS", &stale]), Value::Int(0));
    assert_eq!(target.call(&["GET", &key]), Value::bulk("1"));
    assert_eq!(full_syncs(&world.servers[0]), 2);
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lost_its_data_is_an_error() {
    let (world, _forwarder) = forwarded(&[]);
    world.fill(&mut seeded("a_target_that_lost_its_data_is_an_error"), 50);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut target = world.servers[1].client();
    // Its lane has no word of it as long as the connection is up.
    target.call(&["MULTI"]);
    target.call(&["FLUSHALL"]);
    for id in lanes(&world.servers[1]) {
        target.call(&["CLIENT", "KILL", "ID", &id]);
    }
    target.call(&["EXEC"]);
    let error = mover.failed().await;
    assert!(matches!(error, MoveError::TargetForgot { .. }), "{error}");
    assert!(error.to_string().contains("start the job again"), "{error}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stays_away_is_an_error_when_patience_is_over() {
    let (mut world, _forwarder) = forwarded(&[]);
    let mut config = world.config();
    config.limits = MoverLimits {
        target_patience_ms: 500,
        ..MoverLimits::default()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    world.servers[1].kill();
    let error = mover.failed().await;
    let text = error.to_string();
    assert!(text.contains("target"), "{text}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_is_in_database_0_whatever_the_data_is_in() {
    let world = World::ketama(1, 2);
    let key = world.find("count", |key| world.moves(key));
    let mut source = in_db(&world.servers[0], 3);
    source.call(&["INCR", &key]);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    source.call(&["INCR", &key]);
    mover.marker("now").await.unwrap();
    let mut target = in_db(&world.servers[1], 3);
    assert_eq!(target.call(&["KEYS", "*"]).items(), [Value::bulk(&key)]);
    assert_eq!(target.call(&["GET", &key]), Value::bulk("2"));
    target.call(&["SELECT", "0"]);
    let kept = target.call(&["GET", "__keyferry:cp:test:0"]).text();
    assert!(kept.starts_with("v1 ") && kept.contains(" at "), "{kept}");
    mover.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_source_arrives_as_one() {
    let world = World::ketama(1, 2);
    let tag = world.find("pair", |key| world.moves(key));
    let moving = |end: &str| format!("{{{tag}}}{end}");
    let (one, other) = (moving("a"), moving("b"));
    let mover = start(world.config()).await.unwrap();
    let mut progress = mover.progress();
    let following = progress.wait_for(|now| {
        let mut rows = now.sources.iter();
        rows.next().is_some_and(|row| row.phase == Phase::Following)
    });
    following.await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut client, stop) = (world.servers[0].client(), Arc::clone(&stop));
        let (one, other) = (one.clone(), other.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                client.call(&["MULTI"]);
                client.call(&["INCR", &one]);
                client.call(&["INCR", &other]);
                client.call(&["EXEC"]);
            }
        })
    };
    let mut target = world.servers[1].client();
    for _ in 0..3_000 {
        let pair = target.call(&["MGET", &one, &other]);
        assert_eq!(pair.items()[0], pair.items()[1]);
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    mover.marker("end").await.unwrap();
    let written = world.servers[0].client().call(&["GET", &one]);
    assert!(written != Value::Null);
    assert_eq!(target.call(&["GET", &other]), written);
    mover.stop().await.unwrap();
}

/// What only the memory of a run had is known again to the next: which keys were
/// pending, and whose times were guarded.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_knows_what_was_pending_and_what_was_guarded() {
    let world = World::ketama(1, 2);
    let [pending, guarded, exact] =
        ["pending", "guarded", "exact"].map(|name| world.find(name, |key| world.moves(key)));
    let mut source = in_db(&world.servers[0], 3);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    source.call(&["SET", &pending, "new"]);
    source.call(&["SET", &guarded, "v", "PX", "400000"]);
    source.call(&["SET", &exact, "v", "PX", "40000000"]);
    mover.marker("written").await.unwrap();
    mover.stop().await.unwrap();
    let mut target = in_db(&world.servers[1], 3);
    let left = target.call(&["PTTL", &guarded]).int();
    assert!(left > 40_000_000, "it is not guarded: {left} ms");
    // As a run leaves it that is killed between a command and the reading.
    target.call(&["SET", &pending, "old"]);
    let member = format!("3 {pending}");
    in_db(&world.servers[1], 0).call(&["SADD", "__keyferry:pending:test:0", &member]);

    let config = MoverConfig {
        begin: Begin::Resume,
        resumed: true,
        ..world.config()
    };
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.prepare_cut().await.unwrap();
    mover.cut("end", 0).await.unwrap();
    assert_eq!(full_syncs(&world.servers[0]), 1);
    assert_eq!(target.call(&["GET", &pending]), Value::bulk("new"));
    for key in [&guarded, &exact] {
        let [at, expected] =
            [&mut target, &mut source].map(|client| client.call(&["PEXPIRETIME", key]).int());
        assert_eq!(at, expected, "{key}");
    }
    let noted = in_db(&world.servers[1], 0).call(&["EXISTS", "__keyferry:pending:test:0"]);
    assert_eq!(noted, Value::Int(0));
    mover.stop().await.unwrap();
}

/// A run is left while keys are being read again, time after time: what is noted
/// of them is enough to go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_left_while_keys_are_pending_is_gone_on_with() {
    let world = World::ketama(1, 2);
    let stays = world.find("stays", |key| !world.moves(key));
    let moving: Vec<String> = (0..64)
        .map(|n| world.find(&format!("to{n}:"), |key| world.moves(key)))
        .collect();
    world.servers[0]
        .client()
        .call(&["CONFIG", "SET", "repl-backlog-size", "64mb"]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut client, stop) = (in_db(&world.servers[0], 3), Arc::clone(&stop));
        let (stays, moving) = (stays.clone(), moving.clone());
        std::thread::spawn(move || {
            let mut round = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut batch = Vec::new();
                for key in &moving {
                    let mark = round.to_string();
                    batch.push(["SET", &stays, &mark].join(" "));
                    batch.push(["RENAME", &stays, key].join(" "));
                    batch.push(["APPEND", key, "+"].join(" "));
                    round += 1;
                }
                let words = batch.iter().map(|line| line.split(' ').collect::<Vec<_>>());
                for reply in client.pipeline(&words.collect::<Vec<_>>()) {
                    assert!(!reply.is_error(), "{reply:?}");
                }
            }
        })
    };
    for run in 0..RUNS {
        let mut config = world.config();
        if run > 0 {
            (config.begin, config.resumed) = (Begin::Resume, true);
        }
        let mover = start(config).await.unwrap();
        mover.wait_following().await.unwrap();
        assert_eq!(mover.progress_now().restarts(), 0);
        mover.stop().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let mut config = world.config();
    (config.begin, config.resumed) = (Begin::Resume, true);
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.cut("end", 0).await.unwrap();
    let [mut source, mut target] = [0, 1].map(|at| in_db(&world.servers[at], 3));
    for key in &moving {
        assert_eq!(target.call(&["GET", key]), source.call(&["GET", key]));
    }
    assert_eq!(full_syncs(&world.servers[0]), 1);
    mover.stop().await.unwrap();
}

/// While nobody follows, a key ends on its target that its source has renewed.
#[tokio::test(flavor = "multi_thread")]
async fn keys_renewed_while_nobody_follows_are_kept() {
    let world = World::ketama(1, 2);
    let [text, count, forever, list, fresh, kept] =
        ["text", "count", "forever", "list", "fresh", "kept"]
            .map(|name| world.find(name, |key| world.moves(key)));
    let mut source = in_db(&world.servers[0], 3);
    for key in [&text, &count, &forever, &kept] {
        source.call(&["SET", key, "41", "PX", "6000"]);
    }
    source.call(&["RPUSH", &list, "a"]);
    source.call(&["PEXPIRE", &list, "6000"]);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    // From here on the target has their exact times.
    prepared_cut(&mover).await;
    mover.stop().await.unwrap();
    source.call(&["PEXPIRE", &text, "900000"]);
    source.call(&["INCR", &count]);
    source.call(&["PEXPIRE", &count, "900000"]);
    source.call(&["PERSIST", &forever]);
    source.call(&["RPUSH", &list, "b"]);
    source.call(&["PERSIST", &list]);
    source.call(&["INCR", &fresh]);
    source.call(&["INCR", &fresh]);
    source.call(&["PEXPIRE", &kept, "900000"]);
    source.call(&["SET", &kept, "v", "KEEPTTL"]);
    let mut target = in_db(&world.servers[1], 3);
    wait_until("the target has ended them", SOON, || {
        target.call(&["EXISTS", &text, &count, &forever, &list, &kept]) == Value::Int(0)
    });
    let mut config = world.config();
    (config.begin, config.resumed) = (Begin::Resume, true);
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    assert_eq!(full_syncs(&world.servers[0]), 1);
    assert_clean(&mover).await;
    assert!(target.call(&["PTTL", &kept]).int() > 0);
    for (key, value) in [
        (&text, "41"),
        (&count, "42"),
        (&forever, "41"),
        (&fresh, "2"),
    ] {
        assert_eq!(target.call(&["GET", key]), Value::bulk(value), "{key}");
    }
    assert_eq!(target.call(&["LLEN", &list]), Value::Int(2));
    mover.stop().await.unwrap();
}

/// A lane is dialed again while its target runs a long script.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_busy_when_a_lane_comes_back_is_waited_for() {
    let (world, forwarder) = forwarded(&["--lua-time-limit", "1"]);
    let key = world.find("k", |key| world.moves(key));
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut scripting = world.servers[1].client();
    scripting.send(&["EVAL", "while true do end", "0"]);
    let mut watching = world.servers[1].client();
    wait_until("it is busy", SOON, || watching.call(&["PING"]).is_error());
    let links = forwarder.links_made();
    forwarder.cut();
    let dials = async {
        while forwarder.links_made() < links + 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        error = mover.failed() => panic!("{error}"),
        () = dials => {}
    }
    assert_eq!(watching.call(&["SCRIPT", "KILL"]), Value::ok());
    world.servers[0].client().call(&["SET", &key, "v"]);
    mover.marker("back").await.unwrap();
    assert_clean(&mover).await;
    mover.stop().await.unwrap();
}
