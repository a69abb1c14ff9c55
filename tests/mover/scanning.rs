//! Sources without PSYNC: walked through, by notifications and by passes.

use std::sync::Arc;
use std::time::Duration;

use keyferry::reshard::mover::{
    MoveError, Mover, MoverLimits, MoverProgress, VerifyOptions, check_targets, preflight,
};

use crate::copying::copy_under_writes;
use crate::support::{Client, Value, seeded, wait_until};
use crate::world::{DBS, World, contents, in_db, start};

/// CONFIG is what switches notifications on.
const NO_CONFIG: [&str; 3] = ["--rename-command", "CONFIG", ""];

const SETTING: &str = "notify-keyspace-events";

fn setting(client: &mut Client) -> String {
    client.call(&["CONFIG", "GET", SETTING]).items()[1].text()
}

/// Both ways that changes can be found.
fn worlds() -> [World; 2] {
    [World::without_psync(&[]), World::without_psync(&NO_CONFIG)]
}

fn moving(world: &World, prefix: &str) -> String {
    world.find(prefix, |key| world.moves(key))
}

async fn assert_clean(mover: &Mover) {
    let report = mover.verify(VerifyOptions::default()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// Until all sources are followed again after `restarts` of them began anew.
async fn wait_restarted(mover: &Mover, restarts: u64) {
    let mut progress = mover.progress();
    let begun = progress.wait_for(|now| now.restarts() >= restarts);
    tokio::time::timeout(Duration::from_secs(60), begun)
        .await
        .expect("the copy did not begin anew")
        .unwrap();
    mover.wait_following().await.unwrap();
}

fn interruptions(progress: &MoverProgress) -> u64 {
    let walks = progress.sources.iter().filter_map(|row| row.walk.as_ref());
    walks.map(|walk| walk.interruptions).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_bring_what_writers_change() {
    let world = Arc::new(World::without_psync(&[]));
    copy_under_writes(Arc::clone(&world), 3000, MoverLimits::default(), "notices").await;
    for server in &world.servers[..2] {
        assert_eq!(setting(&mut server.client()), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_passes_bring_what_writers_change() {
    let world = Arc::new(World::without_psync(&NO_CONFIG));
    copy_under_writes(world, 2000, MoverLimits::default(), "passes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_and_expiries_are_followed() {
    for world in worlds() {
        let [deleted, expired, renewed, persisted, retyped, renamed] = [
            "deleted",
            "expired",
            "renewed",
            "persisted",
            "retyped",
            "renamed",
        ]
        .map(|prefix| moving(&world, prefix));
        for db in DBS {
            for key in [&deleted, &expired, &renewed, &persisted, &retyped, &renamed] {
                let mut source = world.old_client(db, key.as_bytes());
                source.call(&["SET", key, "v", "PX", "900000"]);
            }
        }
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        for db in DBS {
            let call = |key: &String, words: &[&str]| {
                let reply = world.old_client(db, key.as_bytes()).call(words);
                assert!(!reply.is_error(), "{words:?} {reply:?}");
            };
            call(&deleted, &["DEL", &deleted]);
            call(&expired, &["PEXPIRE", &expired, "1"]);
            call(&renewed, &["PEXPIRE", &renewed, "5000000"]);
            call(&persisted, &["PERSIST", &persisted]);
            call(&retyped, &["DEL", &retyped]);
            call(&retyped, &["RPUSH", &retyped, "a", "b"]);
            call(
                &renamed,
                &["RENAME", &renamed, &format!("{{{renamed}}}:new")],
            );
        }
        wait_until("the key has expired", Duration::from_secs(20), || {
            let mut source = world.old_client(DBS[1], expired.as_bytes());
            source.call(&["EXISTS", &expired]) == Value::Int(0)
        });
        mover.marker("changed").await.unwrap();
        let new_name = format!("{{{renamed}}}:new");
        for db in DBS {
            for key in [
                &deleted, &expired, &renewed, &persisted, &retyped, &renamed, &new_name,
            ] {
                let key = key.as_bytes();
                let source = contents(&mut world.old_client(db, key), key);
                let target = contents(&mut world.new_client(db, key), key);
                assert_eq!(source, target, "{} in db {db}", key.escape_ascii());
            }
        }
        assert_clean(&mover).await;
        mover.stop().await.unwrap();
    }
}

/// XREADGROUP, XACK and PFCOUNT change a value, and no notification tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_nobody_tells_of_are_found_at_markers() {
    for world in worlds() {
        let (stream, counted) = (moving(&world, "stream"), moving(&world, "counted"));
        let mut of_stream = world.old_client(0, stream.as_bytes());
        let mut of_counted = world.old_client(0, counted.as_bytes());
        of_stream.call(&["XADD", &stream, "1-1", "f", "v"]);
        of_stream.call(&["XADD", &stream, "2-1", "f", "v"]);
        of_stream.call(&["XGROUP", "CREATE", &stream, "g", "0"]);
        of_stream.call(&["XGROUP", "CREATECONSUMER", &stream, "g", "c"]);
        of_counted.call(&["PFADD", &counted, "a", "b"]);
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        let group = ["XREADGROUP", "GROUP", "g", "c", "COUNT", "2", "STREAMS"];
        of_stream.call(&[&group[..], &[&stream, ">"]].concat());
        assert_eq!(
            of_stream.call(&["XACK", &stream, "g", "1-1"]),
            Value::Int(1)
        );
        assert_eq!(of_counted.call(&["PFCOUNT", &counted]), Value::Int(2));
        mover.marker("quiet").await.unwrap();
        let mut target = world.new_client(0, stream.as_bytes());
        let pending = target.call(&["XPENDING", &stream, "g"]);
        assert_eq!(pending, of_stream.call(&["XPENDING", &stream, "g"]));
        assert_eq!(pending.items()[0], Value::Int(1));
        of_stream.call(&["XACK", &stream, "g", "2-1"]);
        // Without a marker for all: those of the verify do for its keys.
        assert_clean(&mover).await;
        let mut target = world.new_client(0, counted.as_bytes());
        let value = target.call(&["GET", &counted]);
        assert_eq!(value, of_counted.call(&["GET", &counted]));
        mover.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_was_cut_off_misses_nothing() {
    let world = World::without_psync(&[]);
    world.fill(&mut seeded("cut off"), 500);
    let (gone, late) = (moving(&world, "gone"), moving(&world, "late"));
    let mut source = world.old_client(0, gone.as_bytes());
    source.call(&["SET", &gone, "v"]);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut target = world.new_client(0, gone.as_bytes());
    assert_eq!(target.call(&["EXISTS", &gone]), Value::Int(1));
    // In one transaction, so that nobody can be listening again in between.
    let killed = source.pipeline(&[
        vec![b"MULTI".to_vec()],
        ["CLIENT", "KILL", "TYPE", "pubsub"]
            .map(|word| word.into())
            .to_vec(),
        vec![b"DEL".to_vec(), gone.clone().into()],
        vec![b"EXEC".to_vec()],
    ]);
    assert_eq!(killed[3].items(), [Value::Int(1), Value::Int(1)]);
    wait_restarted(&mover, 1).await;
    assert_eq!(interruptions(&mover.progress_now()), 1);
    assert_eq!(target.call(&["EXISTS", &gone]), Value::Int(0));
    let mut source = world.old_client(0, late.as_bytes());
    source.call(&["SET", &late, "v"]);
    mover.marker("late").await.unwrap();
    let mut target = world.new_client(0, late.as_bytes());
    assert_eq!(target.call(&["GET", &late]), Value::bulk("v"));
    assert_clean(&mover).await;
    mover.stop().await.unwrap();
    for server in &world.servers[..2] {
        assert_eq!(setting(&mut server.client()), "");
    }
}

/// Ends all connections but lanes, which have a name, and this one.
fn kill_links(source: &mut Client) {
    let list = source.call(&["CLIENT", "LIST", "TYPE", "normal"]).text();
    let own = source.call(&["CLIENT", "ID"]).int().to_string();
    let field = |line: &str, name: &str| {
        let found = line.split(' ').find_map(|field| field.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    let unnamed = list.lines().filter(|line| field(line, "name=").is_empty());
    let ids: Vec<String> = unnamed.map(|line| field(line, "id=")).collect();
    assert!(ids.len() > 1, "{list}");
    for id in ids.iter().filter(|id| **id != own) {
        source.call(&["CLIENT", "KILL", "ID", id]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_read_are_dialed_again() {
    for world in worlds() {
        world.fill(&mut seeded("dialed"), 300);
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        let key = moving(&world, "late");
        let mut source = world.old_client(0, key.as_bytes());
        kill_links(&mut source);
        source.call(&["SET", &key, "v"]);
        mover.marker("late").await.unwrap();
        let mut target = world.new_client(0, key.as_bytes());
        assert_eq!(target.call(&["GET", &key]), Value::bulk("v"));
        assert_eq!(mover.progress_now().restarts(), 0);
        assert_clean(&mover).await;
        mover.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_that_somebody_switches_off_are_noticed() {
    let world = World::without_psync(&[]);
    let key = moving(&world, "key");
    let mut source = world.old_client(0, key.as_bytes());
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    source.call(&["CONFIG", "SET", SETTING, "Kx"]);
    source.call(&["SET", &key, "untold"]);
    let error = mover.marker("blind").await.unwrap_err();
    assert!(matches!(error, MoveError::Restarted { .. }), "{error}");
    wait_restarted(&mover, 1).await;
    let mut target = world.new_client(0, key.as_bytes());
    assert_eq!(target.call(&["GET", &key]), Value::bulk("untold"));
    mover.stop().await.unwrap();
    // What that somebody wanted.
    assert_eq!(setting(&mut source), "xK");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_what_they_were() {
    for (before, during) in [("Kx", "AKE"), ("KEA", "AKE"), ("KA", "AK"), ("", "AE")] {
        let world = World::without_psync(&["--notify-keyspace-events", before]);
        let mut source = world.servers[0].client();
        let before = setting(&mut source);
        preflight(&world.config()).await.unwrap();
        assert_eq!(setting(&mut source), before, "preflight changes nothing");
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        assert_eq!(setting(&mut source), during);
        let key = world.find("key", |key| world.moves(key) && world.old_at(key) == 0);
        source.call(&["SET", &key, "v"]);
        mover.marker("set").await.unwrap();
        let mut target = world.new_client(0, key.as_bytes());
        assert_eq!(target.call(&["GET", &key]), Value::bulk("v"));
        mover.stop().await.unwrap();
        assert_eq!(setting(&mut source), before);
    }
}

/// A run that was killed left notifications on, and a file that says what was.
#[tokio::test(flavor = "multi_thread")]
async fn the_run_after_a_kill_puts_the_setting_back() {
    let dir = tempfile::TempDir::with_prefix("keyferry-kept-").unwrap();
    let world = World::without_psync(&["--notify-keyspace-events", "AKE"]);
    let shards = world.moves.from().shards();
    let kept = format!("{SETTING}@{}", shards[0].address);
    let kept = dir.path().join(kept);
    std::fs::write(&kept, "Kx").unwrap();
    let mut config = world.config();
    config.tapping.settings_dir = Some(dir.path().to_owned());
    let mover = start(config).await.unwrap();
    mover.wait_following().await.unwrap();
    mover.stop().await.unwrap();
    // Of the other there was no file: that is how it was.
    for (shard, expected) in shards.iter().zip(["xK", "AKE"]) {
        let server = world.server(&shard.address.to_string());
        assert_eq!(setting(&mut server.client()), expected);
    }
    assert!(!kept.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_reach_the_new_server() {
    let world = World::without_psync(&[]);
    let code = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";
    let reply = world.servers[1].client().call(&["FUNCTION", "LOAD", code]);
    assert_eq!(reply, Value::bulk("lib"));
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut target = world.servers[2].client();
    assert_eq!(target.call(&["FCALL", "f", "0"]), Value::Int(7));
    mover.stop().await.unwrap();
}

/// A value too large to be restored at once, and keys that a target has already.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_replaced_whole() {
    let world = World::without_psync(&[]);
    let key = moving(&world, "large");
    let mut source = world.old_client(DBS[1], key.as_bytes());
    let fill = |source: &mut Client, from: usize| {
        let fields = (from..from + 10_000).flat_map(|n| [format!("f{n}"), format!("v{n}")]);
        let words = ["HSET".to_owned(), key.clone()].into_iter().chain(fields);
        let words: Vec<String> = words.collect();
        assert_eq!(source.call(&words), Value::Int(10_000));
    };
    fill(&mut source, 0);
    let config = world.config();
    let checked = check_targets(&config).await.unwrap();
    let mover = keyferry::reshard::mover::start(config, checked)
        .await
        .unwrap();
    mover.wait_following().await.unwrap();
    fill(&mut source, 10_000);
    source.call(&["HDEL", &key, "f1"]);
    mover.marker("larger").await.unwrap();
    let mut target = in_db(world.new_owner(key.as_bytes()), DBS[1]);
    assert_eq!(target.call(&["HLEN", &key]), Value::Int(19_999));
    assert_clean(&mover).await;
    assert!(
        mover
            .progress_now()
            .sources
            .iter()
            .any(|row| row.keys_by_commands > 0)
    );
    mover.stop().await.unwrap();
}
