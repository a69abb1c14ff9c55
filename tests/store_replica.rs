//! The built-in shard as a replica: of a real redis-server, of another shard, promoted, and
//! failed over by a Sentinel.
//!
//! ```text
//!   writers ──> redis-server ──(snapshot, stream)──> keyferry store ──> keyferry store ──> redis-server
//!                    '── broken links, kill -9 of either ──'  '── promoted
//! ```
//! Whatever happens, all hold the same in the end, by DEBUG DIGEST, and a snapshot is only
//! sent where the stream cannot go on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[path = "store_replica/sentinel.rs"]
mod sentinel;
#[path = "store_replication/writes.rs"]
mod writes;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use support::{Client, Forwarder, RedisServer, StoreServer, Value, wait_until};
use writes::{Writers, prepare};

/// Links come back after two seconds at most; then they load.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The writers' keys end after three seconds at most.
const SETTLED: Duration = Duration::from_secs(15);

/// A Redis that keeps enough of its stream, and its data over a crash.
fn redis(more: &[&str]) -> RedisServer {
    let usual = [
        "--enable-debug-command",
        "yes",
        "--repl-backlog-size",
        "64mb",
    ];
    RedisServer::start(&[&usual, more].concat())
}

fn follower(port: u16) -> StoreServer {
    StoreServer::start(&["--replicaof", &format!("127.0.0.1:{port}")])
}

/// A field of INFO, empty if there is none.
pub fn info(client: &mut Client, section: &str, field: &str) -> String {
    let text = client.call(&["INFO", section]).text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().to_owned()
}

/// Waits until one has all that the other has; both hold the same then. Keys end meanwhile,
/// so that it may take a few looks to see both at one time.
pub fn assert_same(mut master: Client, mut replica: Client) {
    wait_until("the replica has the whole stream", LIMIT, || {
        info(&mut replica, "replication", "master_link_status") == "up"
            && info(&mut replica, "replication", "slave_repl_offset")
                == info(&mut master, "replication", "master_repl_offset")
    });
    let digest = |client: &mut Client| client.call(&["DEBUG", "DIGEST"]).text();
    let begun = Instant::now();
    loop {
        let (theirs, ours) = (digest(&mut master), digest(&mut replica));
        if theirs == ours {
            assert_ne!(ours, "0".repeat(40), "there is something to compare");
            return;
        }
        let is_late = begun.elapsed() > SETTLED;
        assert!(
            !is_late,
            "they differ: {:?}",
            different(&mut master, &mut replica)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Keys that are not the same, and what they are.
fn different(master: &mut Client, replica: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    for db in 0..16 {
        let mut known = BTreeSet::new();
        for client in [&mut *master, &mut *replica] {
            client.call(&["SELECT", &db.to_string()]);
            known.extend(client.call(&["KEYS", "*"]).items().iter().map(Value::text));
        }
        for key in known {
            let about = |client: &mut Client| {
                let digest = client.call(&["DEBUG", "DIGEST-VALUE", &key]);
                let time = client.call(&["PEXPIRETIME", &key]);
                format!(
                    "{} {:?} {time:?}",
                    client.call(&["TYPE", &key]).text(),
                    digest
                )
            };
            let (theirs, ours) = (about(master), about(replica));
            if theirs != ours {
                found.push(format!("{db} {key}: {theirs}, {ours}"));
            }
        }
    }
    found
}

/// Full and partial syncs that a server gave.
fn syncs(mut client: Client) -> [String; 2] {
    ["sync_full", "sync_partial_ok"].map(|field| info(&mut client, "stats", field))
}

#[test]
fn a_shard_follows_redis_under_writes() {
    let redis = redis(&[]);
    prepare(&redis);
    let writers = Writers::start(&redis, "follows redis");
    let store = follower(redis.port());
    writers.go_on_for(5_000);
    writers.stop();
    assert_same(redis.client(), store.client());
    assert_eq!(syncs(redis.client()), ["1", "0"]);
    let mut client = store.client();
    let role = client.call(&["ROLE"]);
    assert_eq!(role.items()[0].text(), "slave");
    assert_eq!(role.items()[3].text(), "connected");
    // What it acknowledges counts.
    redis.client().call(&["SET", "acknowledged", "1"]);
    let mut waiter = redis.client();
    waiter.call(&["SET", "acknowledged", "2"]);
    assert_eq!(waiter.call(&["WAIT", "1", "20000"]), Value::Int(1));
    let words = "READONLY You can't write against a read only replica.";
    assert_eq!(
        client.call(&["SET", "a", "1"]),
        Value::Error(words.to_owned())
    );
    assert_eq!(client.call(&["GET", "acknowledged"]).text(), "2");
}

#[test]
fn a_shard_follows_streams_and_their_groups_under_writes() {
    let redis = redis(&[]);
    let writers = Writers::of_streams(&redis, "follows streams");
    writers.go_on_for(2_000);
    let mut store = follower(redis.port());
    let behind = follower(store.port());
    writers.go_on_for(3_000);
    store.kill();
    writers.go_on_for(500);
    store.start_again();
    writers.go_on_for(500);
    writers.stop();
    assert_same(redis.client(), store.client());
    assert_same(redis.client(), behind.client());
    for group in ["g", "h"] {
        for number in 0..4 {
            let asked = ["XPENDING", &format!("stream:{number}"), group];
            let wanted = redis.client().call(&asked);
            assert_eq!(store.client().call(&asked), wanted, "{asked:?}");
            assert_eq!(behind.client().call(&asked), wanted, "{asked:?}");
        }
    }
}

#[test]
fn a_link_that_breaks_goes_on_at_its_byte() {
    let redis = redis(&[]);
    prepare(&redis);
    let link = Forwarder::start(&redis.address());
    let store = follower(link.port());
    assert_same(redis.client(), store.client());
    let writers = Writers::start(&redis, "broken link of a replica");
    for round in 1..=3 {
        writers.go_on_for(500);
        // In the middle of a command, most often.
        link.cut_after(1_000 + 7 * round);
        wait_until("the stream goes on", LIMIT, || {
            syncs(redis.client())[1] == round.to_string()
        });
    }
    writers.stop();
    assert_same(redis.client(), store.client());
    assert_eq!(syncs(redis.client()), ["1", "3"]);
}

#[test]
fn a_shard_that_is_killed_goes_on_where_its_log_ends() {
    let redis = redis(&[]);
    prepare(&redis);
    let mut store = follower(redis.port());
    assert_same(redis.client(), store.client());
    for _ in 0..4 {
        let writers = Writers::start(&redis, "killed replica");
        writers.go_on_for(500);
        store.kill();
        writers.go_on_for(300);
        store.start_again();
        writers.go_on_for(300);
        writers.stop();
        assert_same(redis.client(), store.client());
    }
    assert_eq!(syncs(redis.client()), ["1", "4"]);
    // In order, too.
    store.client().send(&["SHUTDOWN"]);
    store.process().wait(LIMIT);
    store.start_again();
    assert_same(redis.client(), store.client());
    assert_eq!(syncs(redis.client()), ["1", "5"]);
}

#[test]
fn a_redis_that_is_killed_is_loaded_anew() {
    let mut redis = redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    prepare(&redis);
    let store = follower(redis.port());
    for _ in 0..2 {
        let writers = Writers::start(&redis, "killed redis");
        writers.go_on_for(500);
        redis.kill();
        writers.stop();
        redis.restart();
        assert_same(redis.client(), store.client());
    }
}

#[test]
fn a_snapshot_that_breaks_off_leaves_what_was_there() {
    let redis = redis(&["--rdbcompression", "no"]);
    let link = Forwarder::start(&redis.address());
    let mut store = StoreServer::start(&[]);
    store.client().call(&["SET", "old", "1"]);
    redis
        .client()
        .call(&["DEBUG", "POPULATE", "50000", "key", "200"]);
    let port = link.port().to_string();
    for bytes in [30, 1_000_000, 5_000_000] {
        link.cut_after(bytes);
        let tries = link.links_made();
        store.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        wait_until("the link is made and broken", LIMIT, || {
            link.links_made() > tries
        });
        link.refuse();
        let mut client = store.client();
        assert_eq!(client.call(&["GET", "old"]).text(), "1");
        assert_eq!(client.call(&["DBSIZE"]), Value::Int(1));
        assert_eq!(client.call(&["REPLICAOF", "NO", "ONE"]), Value::ok());
        client.call(&["SET", "old", "1"]);
        link.admit();
    }
    // Killed in the middle of one, it begins again.
    store.client().call(&["REPLICAOF", "127.0.0.1", &port]);
    wait_until("a snapshot comes", LIMIT, || {
        info(
            &mut store.client(),
            "replication",
            "master_sync_in_progress",
        ) == "1"
            || info(&mut store.client(), "replication", "master_link_status") == "up"
    });
    store.kill();
    store.start_again();
    assert_same(redis.client(), store.client());
    assert_eq!(store.client().call(&["EXISTS", "old"]), Value::Int(0));
    store.kill();
    store.start_again();
    assert_same(redis.client(), store.client());
}

#[test]
fn replicas_of_replicas_hold_the_same() {
    let redis = redis(&[]);
    prepare(&redis);
    let writers = Writers::start(&redis, "chained");
    let first = follower(redis.port());
    let second = follower(first.port());
    let last = RedisServer::start(&["--enable-debug-command", "yes"]);
    last.client()
        .call(&["REPLICAOF", "127.0.0.1", &second.port().to_string()]);
    writers.go_on_for(3_000);
    writers.stop();
    assert_same(redis.client(), first.client());
    assert_same(redis.client(), second.client());
    assert_same(redis.client(), last.client());
    // What is published goes all the way, and is no write.
    let mut listener = last.client();
    listener.call(&["SUBSCRIBE", "news"]);
    redis.client().call(&["PUBLISH", "news", "hello"]);
    assert_eq!(listener.read().items()[2].text(), "hello");
    for id in [first.client(), second.client(), last.client()] {
        let mut client = id;
        assert_eq!(
            info(&mut client, "replication", "master_replid"),
            info(&mut redis.client(), "replication", "master_replid")
        );
    }
}

#[test]
fn a_promoted_shard_is_followed_on_by_all_others() {
    let redis = redis(&[]);
    prepare(&redis);
    let mut new = follower(redis.port());
    let other = follower(new.port());
    assert_same(redis.client(), new.client());
    assert_same(redis.client(), other.client());
    let before = info(&mut redis.client(), "replication", "master_replid");
    assert_eq!(new.client().call(&["REPLICAOF", "NO", "ONE"]), Value::ok());
    let mut client = new.client();
    assert_eq!(client.call(&["SET", "promoted", "1"]), Value::ok());
    assert_eq!(info(&mut client, "replication", "role"), "master");
    assert_eq!(info(&mut client, "replication", "master_replid2"), before);
    // The old master has nothing that the new one has not: it goes on from there.
    redis
        .client()
        .call(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    assert_same(new.client(), redis.client());
    assert_same(new.client(), other.client());
    assert_eq!(syncs(new.client()), ["1", "2"]);
    // It stays a master, whatever its command line says.
    new.kill();
    new.start_again();
    assert_eq!(info(&mut new.client(), "replication", "role"), "master");
    assert_eq!(new.client().call(&["GET", "promoted"]).text(), "1");
    assert_same(new.client(), redis.client());
}

#[test]
fn what_is_over_is_hidden_until_the_master_says_so() {
    let mut redis = redis(&[]);
    redis.client().call(&["HSET", "long", "f", "v"]);
    let store = follower(redis.port());
    let mut replica = store.client();
    // It must be there when the master is paused: then nobody says that it is over.
    loop {
        redis.client().call(&["SET", "short", "x", "PX", "1000"]);
        wait_until("the key comes", LIMIT, || {
            info(&mut replica, "replication", "slave_repl_offset")
                == info(&mut redis.client(), "replication", "master_repl_offset")
        });
        redis.pause();
        if replica.call(&["GET", "short"]) != Value::Null {
            break;
        }
        redis.resume();
    }
    wait_until("the key is over", LIMIT, || {
        replica.call(&["GET", "short"]) == Value::Null
    });
    assert_eq!(replica.call(&["EXISTS", "short"]), Value::Int(0));
    let size = replica.call(&["DBSIZE"]);
    redis.resume();
    assert_eq!(size, Value::Int(2), "it is not removed here");
    wait_until("the master removed it", LIMIT, || {
        replica.call(&["DBSIZE"]) == Value::Int(1)
    });
}

#[test]
fn passwords_and_what_config_rewrite_keeps() {
    let redis = redis(&["--requirepass", "secret"]);
    let mut store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["REPLICAOF", "127.0.0.1", &redis.port().to_string()]);
    let set = client.call(&["CONFIG", "SET", "masterauth", "secret"]);
    assert_eq!(set, Value::ok());
    // What clients wrote here would not be in the log, which is the master's.
    let set = client.call(&["CONFIG", "SET", "replica-read-only", "no"]);
    assert!(set.is_error(), "{set:?}");
    redis.client().call(&["SET", "a", "1"]);
    assert_same(redis.client(), store.client());
    assert_eq!(client.call(&["CONFIG", "REWRITE"]), Value::ok());
    let got = client.call(&["CONFIG", "GET", "replicaof"]);
    assert_eq!(got.items()[1].text(), format!("127.0.0.1 {}", redis.port()));
    assert!(
        client
            .call(&["CONFIG", "SET", "replicaof", "a 1"])
            .is_error()
    );
    assert!(client.call(&["SET", "own", "1"]).is_error());
    store.kill();
    store.start_again();
    assert_same(redis.client(), store.client());
    let mut client = store.client();
    let got = client.call(&["CONFIG", "GET", "masterauth"]);
    assert_eq!(got.items()[1].text(), "secret");
}

#[test]
fn stale_data_are_told_or_not_as_was_asked_for() {
    let mut redis = redis(&[]);
    redis.client().call(&["SET", "a", "1"]);
    let store = follower(redis.port());
    assert_same(redis.client(), store.client());
    redis.kill();
    let mut client = store.client();
    wait_until("the link is down", LIMIT, || {
        info(&mut client, "replication", "master_link_status") == "down"
    });
    assert_eq!(client.call(&["GET", "a"]).text(), "1");
    client.call(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let words = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    assert_eq!(client.call(&["GET", "a"]), Value::Error(words.to_owned()));
    assert!(client.call(&["INFO"]).text().contains("role:slave"));
}
