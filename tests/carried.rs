//! What goes along with a value: how long a key was idle, how often it was
//! used, cached scripts, functions; and what is left behind: expired keys.
//!
//! Looking at a key counts as a use of it (DUMP too, so verification does), so
//! idle times and frequencies are asked for before anything else reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[path = "mover/world.rs"]
#[allow(dead_code, reason = "the mover's tests use the rest of it")]
mod world;

use std::sync::Arc;
use std::time::Duration;

use keyferry::reshard::mover::Attach;
use keyferry::router::moves::Moves;
use keyferry::router::spec::DistributionKind;
use support::servers::Skipped;
use support::{Client, RedisServer, ServerKind, Value, wait_until};
use world::{World, all_keys, start};

/// Long enough that no test takes as long.
const IDLE_S: i64 = 1_000_000;

const IDLE_S_MORE_MAX: i64 = 3_600;

/// Only keys that were over for a while are known to have expired before the
/// snapshot was taken: it tells its time in whole seconds.
const EXPIRED_FOR: Duration = Duration::from_millis(8_000);

/// A frequency far from that of a new key, which is 5.
const FREQUENCY: i64 = 200;

/// The first server's keys all go to the second. The source is no target: there
/// the mover lists the keys, and what has expired goes when it is listed.
fn world_of(source: ServerKind, source_args: &[&str], target: ServerKind, args: &[&str]) -> World {
    let servers = vec![
        RedisServer::start_kind(source, source_args),
        RedisServer::start_kind(target, args),
    ];
    let layout_of = |server: &RedisServer| world::layout(&[server], DistributionKind::Ketama);
    let moves = Moves::between(layout_of(&servers[0]), layout_of(&servers[1])).unwrap();
    World {
        moves: Arc::new(moves),
        servers,
        attach: Attach::Psync,
    }
}

/// Makes a string with RESTORE and its `option` (IDLETIME, FREQ).
fn restore(client: &mut Client, key: &str, option: &str, value: i64) {
    client.call(&["SET", "template", "value"]);
    let payload = client.call(&["DUMP", "template"]).bytes().to_vec();
    client.call(&["DEL", "template"]);
    let value = value.to_string();
    let words: [&[u8]; 6] = [
        b"RESTORE",
        key.as_bytes(),
        b"0",
        &payload,
        option.as_bytes(),
        value.as_bytes(),
    ];
    assert_eq!(client.call(&words), Value::ok());
}

/// Moves one string from a server of one policy to one of another; what the
/// target's `OBJECT question` says of it.
async fn carried(policies: [&str; 2], option: &str, given: i64, question: &str) -> (Value, Value) {
    let [from, to] = policies.map(|policy| ["--maxmemory-policy", policy, "--lfu-decay-time", "0"]);
    let world = world_of(ServerKind::Redis70, &from, ServerKind::Redis70, &to);
    let key = world.find("k", |key| world.moves(key));
    restore(&mut world.servers[0].client(), &key, option, given);
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let mut target = world.servers[1].client();
    let told = target.call(&["OBJECT", question, &key]);
    let value = target.call(&["GET", &key]);
    mover.stop().await.unwrap();
    (told, value)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_times_arrive_where_the_policy_keeps_them() {
    let policies = ["allkeys-lru", "volatile-lru"];
    let (told, value) = carried(policies, "IDLETIME", IDLE_S, "IDLETIME").await;
    assert_eq!(value, Value::bulk("value"));
    let idle = told.int();
    let expected = IDLE_S..=IDLE_S + IDLE_S_MORE_MAX;
    assert!(expected.contains(&idle), "idle for {idle} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn frequencies_arrive_where_the_policy_keeps_them() {
    let policies = ["allkeys-lfu", "volatile-lfu"];
    let (told, value) = carried(policies, "FREQ", FREQUENCY, "FREQ").await;
    assert_eq!(value, Value::bulk("value"));
    assert_eq!(told, Value::Int(FREQUENCY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_another_policy_gets_the_value_alone() {
    for policies in [
        ["allkeys-lfu", "allkeys-lru"],
        ["allkeys-lfu", "noeviction"],
    ] {
        let (told, value) = carried(policies, "FREQ", FREQUENCY, "IDLETIME").await;
        assert_eq!(value, Value::bulk("value"), "{policies:?}");
        assert!(told.int() < IDLE_S_MORE_MAX, "{policies:?}: {told:?}");
    }
}

/// Scripts that a source has cached are in its snapshot up to 6.2, and in its
/// stream; later servers keep them to themselves.
#[tokio::test(flavor = "multi_thread")]
async fn cached_scripts_of_older_sources_are_cached_at_the_target() {
    let mut skipped = Skipped::default();
    for source in [ServerKind::Redis60, ServerKind::Redis62] {
        if !skipped.unless_here(
            &format!("scripts of {source}"),
            &[source, ServerKind::Redis70],
        ) {
            continue;
        }
        let world = world_of(source, &[], ServerKind::Redis70, &[]);
        let mut client = world.servers[0].client();
        let load = |client: &mut Client, text: &str| client.call(&["SCRIPT", "LOAD", text]).text();
        let before = load(&mut client, "return 'cached before'");
        let mover = start(world.config()).await.unwrap();
        mover.wait_following().await.unwrap();
        let after = load(&mut client, "return 'cached while the job follows'");
        mover.marker("after").await.unwrap();
        let exist = world.servers[1]
            .client()
            .call(&["SCRIPT", "EXISTS", &before, &after]);
        let both = Value::Array(vec![Value::Int(1), Value::Int(1)]);
        assert_eq!(exist, both, "from {source}");
        mover.stop().await.unwrap();
    }
    skipped.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_arrive_and_go_as_at_the_source() {
    let world = world_of(ServerKind::Redis70, &[], ServerKind::Redis70, &[]);
    let mut client = world.servers[0].client();
    let load = |client: &mut Client, name: &str| {
        let code = format!(
            "#!lua name={name}\nredis.register_function('{name}', function() return '{name}' end)"
        );
        assert_eq!(client.call(&["FUNCTION", "LOAD", &code]), Value::bulk(name));
    };
    load(&mut client, "stays");
    load(&mut client, "goes");
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    load(&mut client, "comes");
    client.call(&["FUNCTION", "DELETE", "goes"]);
    mover.marker("after").await.unwrap();
    let mut target = world.servers[1].client();
    for name in ["stays", "comes"] {
        assert_eq!(target.call(&["FCALL", name, "0"]), Value::bulk(name));
    }
    assert!(target.call(&["FCALL", "goes", "0"]).is_error());
    mover.stop().await.unwrap();
}

/// A source that does not expire by itself has keys in its snapshot whose time
/// is over.
#[tokio::test(flavor = "multi_thread")]
async fn expired_keys_are_counted_and_not_sent() {
    let debug = ["--enable-debug-command", "yes"];
    let world = world_of(ServerKind::Redis70, &debug, ServerKind::Redis70, &[]);
    let mut client = world.servers[0].client();
    assert_eq!(
        client.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]),
        Value::ok()
    );
    let stays = world.find("stays", |key| world.moves(key));
    client.call(&["SET", &stays, "value", "PX", "10000000"]);
    let mut gone = Vec::new();
    for n in 0..500 {
        let key = format!("gone{n}");
        assert_eq!(client.call(&["SET", &key, "x", "PX", "1"]), Value::ok());
        if world.moves(key.as_bytes()) {
            gone.push(key);
        }
    }
    assert!(gone.len() > 400, "all of them would move");
    let now = || client_ms(&world.servers[0]);
    let last = now();
    wait_until("their time is well over", EXPIRED_FOR * 3, || {
        now() > last + EXPIRED_FOR.as_millis() as u64
    });
    let restores = |server: &RedisServer| {
        let line = server.info_field("commandstats", "cmdstat_restore");
        let calls = line.and_then(|line| {
            let calls = line.split(',').find_map(|part| part.strip_prefix("calls="));
            calls?.parse::<u64>().ok()
        });
        calls.unwrap_or(0)
    };
    let mover = start(world.config()).await.unwrap();
    mover.wait_following().await.unwrap();
    let target = &world.servers[1];
    let there = all_keys(&mut target.client());
    assert_eq!(there, [stays.as_bytes()]);
    assert_eq!(target.client().call(&["GET", &stays]), Value::bulk("value"));
    // One key, and perhaps a trial or two.
    let sent = restores(target);
    assert!(
        sent < 10,
        "{sent} keys were sent, {} had expired",
        gone.len()
    );
    let counted = mover.progress_now().sources[0].keys_expired;
    assert!(counted >= gone.len() as u64, "{counted} are counted");
    mover.stop().await.unwrap();
}

fn client_ms(server: &RedisServer) -> u64 {
    let time = server.client().call(&["TIME"]);
    let parts: Vec<u64> = time
        .items()
        .iter()
        .map(|part| part.text().parse().unwrap())
        .collect();
    parts[0] * 1000 + parts[1] / 1000
}
