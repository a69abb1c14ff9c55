//! The built-in shard as a master: real redis-servers replicate from it.
//!
//! ```text
//!   writers ──> keyferry store ──(full sync, stream)──> redis-server 6.0 .. 8.0, valkey
//!                    '─────────── by hand: SYNC, $len, $EOF, offsets
//! ```
//! Whatever happens to either and to the link between them, both hold the same in the end,
//! by DEBUG DIGEST, and a snapshot is only sent where the log does not cover the gap.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[path = "store_replication/by_hand.rs"]
mod by_hand;
#[path = "store_replication/writes.rs"]
mod writes;

use std::time::Duration;

use support::servers::Skipped;
use support::{Client, Forwarder, RedisServer, ServerKind, StoreServer, wait_until};
use writes::{Writers, prepare};

/// Replicas come back after a second at most; then they load.
const LIMIT: Duration = Duration::from_secs(60);

fn replica(kind: ServerKind, master_port: u16) -> RedisServer {
    let port = master_port.to_string();
    let mut args = vec!["--replicaof", "127.0.0.1", &port];
    if kind.is_seven_or_later() {
        args.extend(["--enable-debug-command", "yes"]);
    }
    RedisServer::start_kind(kind, &args)
}

/// A field of INFO, empty if there is none.
fn info(client: &mut Client, section: &str, field: &str) -> String {
    let text = client.call(&["INFO", section]).text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().to_owned()
}

fn digest(client: &mut Client) -> String {
    client.call(&["DEBUG", "DIGEST"]).text()
}

/// Waits until the replica has all that its master has; both hold the same then.
fn assert_same(store: &StoreServer, replica: &RedisServer) {
    let (mut master, mut follower) = (store.client(), replica.client());
    wait_until("the replica has the whole stream", LIMIT, || {
        info(&mut follower, "replication", "master_link_status") == "up"
            && info(&mut follower, "replication", "slave_repl_offset")
                == info(&mut master, "replication", "master_repl_offset")
    });
    assert_ne!(digest(&mut master), "0".repeat(40), "there is something");
    // A key whose time is over is not seen here, and there until its DEL comes.
    let (mut tries, is_same) = (0, |master: &mut Client, follower: &mut Client| {
        digest(master) == digest(follower)
    });
    while !is_same(&mut master, &mut follower) {
        tries += 1;
        let what = || differences(&mut store.client(), &mut replica.client());
        assert!(
            tries < 500,
            "they differ in {:?}: {}",
            what(),
            replica.log()
        );
        // One write more: the replica has answered for all before it.
        master.call(&["INCR", "tries"]);
        assert!(master.call(&["WAIT", "1", "0"]).int() >= 1);
    }
}

/// Keys that are not the same on both sides.
fn differences(master: &mut Client, follower: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    for db in 0..16 {
        for client in [&mut *master, &mut *follower] {
            client.call(&["SELECT", &db.to_string()]);
        }
        let mut keys: Vec<String> = [&mut *master, &mut *follower]
            .into_iter()
            .flat_map(|client| client.call(&["KEYS", "*"]).items().to_vec())
            .map(|key| key.text())
            .collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let asked = ["DEBUG", "DIGEST-VALUE", &key];
            if master.call(&asked) != follower.call(&asked) {
                found.push(format!("{db}: {key}"));
            }
        }
    }
    found
}

fn syncs(store: &StoreServer) -> [String; 3] {
    let mut client = store.client();
    ["sync_full", "sync_partial_ok", "sync_partial_err"]
        .map(|field| info(&mut client, "stats", field))
}

#[test]
fn servers_of_all_versions_follow_under_writes() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let writers = Writers::start(&store, "all versions");
    let mut skipped = Skipped::default();
    let mut replicas = Vec::new();
    // Redis 6.0 knows no SET with PXAT, which is what the stream says.
    for kind in ServerKind::ALL
        .into_iter()
        .filter(|kind| *kind != ServerKind::Redis60)
    {
        if skipped.unless_here(&format!("{kind} as a replica"), &[kind]) {
            replicas.push(replica(kind, store.port()));
        }
    }
    for replica in &replicas {
        let mut client = replica.client();
        wait_until("a replica is linked", LIMIT, || {
            info(&mut client, "replication", "master_link_status") == "up"
        });
    }
    writers.go_on_for(2_000);
    writers.stop();
    for replica in &replicas {
        assert_same(&store, replica);
    }
    let count = replicas.len().to_string();
    assert_eq!(syncs(&store), [count.as_str(), "0", "0"]);
    let mut client = store.client();
    assert_eq!(info(&mut client, "replication", "connected_slaves"), count);
    wait_until("all acknowledge", LIMIT, || {
        let role = client.call(&["ROLE"]);
        assert_eq!(role.items()[0].text(), "master");
        role.items()[2].items().len() == replicas.len()
    });
    let first = info(&mut client, "replication", "slave0");
    assert!(first.starts_with("ip=127.0.0.1,port="), "{first}");
    assert!(first.contains(",state=online,offset="), "{first}");
    skipped.finish();
}

/// Those before 7.0 cannot load what type 15 does not say.
#[test]
fn streams_and_their_groups_are_followed_under_writes() {
    let mut store = StoreServer::start(&[]);
    let writers = Writers::of_streams(&store, "streams");
    writers.go_on_for(2_000);
    let mut skipped = Skipped::default();
    let mut replicas = Vec::new();
    for kind in ServerKind::ALL
        .into_iter()
        .filter(|kind| kind.is_seven_or_later())
    {
        if skipped.unless_here(&format!("{kind} as a replica"), &[kind]) {
            replicas.push(replica(kind, store.port()));
        }
    }
    writers.go_on_for(3_000);
    writers.stop();
    for replica in &replicas {
        assert_same(&store, replica);
    }
    let writers = Writers::of_streams(&store, "streams, killed");
    writers.go_on_for(1_000);
    store.kill();
    writers.stop();
    store.start_again();
    for replica in &replicas {
        assert_same(&store, replica);
    }
    skipped.finish();
}

#[test]
fn a_link_that_breaks_is_continued_without_a_snapshot() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let link = Forwarder::start(&store.address());
    let replica = replica(ServerKind::Redis70, link.port());
    assert_same(&store, &replica);
    let writers = Writers::start(&store, "broken link");
    for round in 1..=3 {
        writers.go_on_for(500);
        link.cut();
        wait_until("the replica continues", LIMIT, || {
            syncs(&store)[1] == round.to_string()
        });
    }
    writers.stop();
    assert_same(&store, &replica);
    let cut = ["CLIENT", "KILL", "TYPE", "replica"];
    assert_eq!(store.client().call(&cut).int(), 1);
    wait_until("the replica continues", LIMIT, || syncs(&store)[1] == "4");
    assert_same(&store, &replica);
    assert_eq!(syncs(&store), ["1", "4", "0"]);
}

#[test]
fn a_shard_that_was_killed_is_followed_on_under_its_new_name() {
    let mut store = StoreServer::start(&[]);
    prepare(&store);
    let replica = replica(ServerKind::Redis70, store.port());
    assert_same(&store, &replica);
    let mut names = Vec::new();
    for round in 0..3 {
        let writers = Writers::start(&store, "killed");
        writers.go_on_for(500);
        names.push(info(&mut store.client(), "replication", "master_replid"));
        store.kill();
        writers.stop();
        store.start_again();
        let name = info(&mut store.client(), "replication", "master_replid");
        let former = info(&mut store.client(), "replication", "master_replid2");
        assert!(!names.contains(&name), "a name is not used again");
        assert_eq!(former, names[round]);
        assert_same(&store, &replica);
        assert_eq!(syncs(&store), ["0", "1", "0"], "the log covers the gap");
        let theirs = info(&mut replica.client(), "replication", "master_replid");
        assert_eq!(theirs, name);
    }
}

#[test]
fn a_shard_that_was_stopped_is_followed_on_under_the_same_name() {
    let mut store = StoreServer::start(&[]);
    prepare(&store);
    let replica = replica(ServerKind::Redis70, store.port());
    assert_same(&store, &replica);
    let name = info(&mut store.client(), "replication", "master_replid");
    store.client().send(&["SHUTDOWN"]);
    store.process().wait(LIMIT);
    store.start_again();
    assert_eq!(
        info(&mut store.client(), "replication", "master_replid"),
        name
    );
    // In the database that is selected for the replica, which hears of no SELECT but ours.
    store.client().call(&["RPUSH", "after", "the", "stop"]);
    assert_same(&store, &replica);
    assert_eq!(syncs(&store), ["0", "1", "0"]);
}

#[test]
fn a_replica_that_missed_more_than_the_log_has_begins_anew() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let link = Forwarder::start(&store.address());
    let replica = replica(ServerKind::Redis70, link.port());
    assert_same(&store, &replica);
    // Segments are 64 MiB and the log keeps 1 MiB besides: three of them are beyond it.
    link.refuse();
    link.cut();
    let mut client = store.client();
    let large = "x".repeat(1 << 20);
    for number in 0..200 {
        client.call(&["SET", &format!("large:{}", number % 4), &large]);
    }
    wait_until("the log let go of its start", LIMIT, || {
        info(&mut client, "replication", "repl_backlog_first_byte_offset") != "1"
    });
    link.admit();
    wait_until("it begins anew", LIMIT, || syncs(&store)[0] == "2");
    assert_same(&store, &replica);
    assert_eq!(syncs(&store), ["2", "0", "1"]);
}

#[test]
fn a_snapshot_that_breaks_off_is_sent_again() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let link = Forwarder::start(&store.address());
    link.cut_after(300_000);
    let mut replica = replica(ServerKind::Redis70, link.port());
    wait_until("it began anew", LIMIT, || syncs(&store)[0] == "2");
    assert_same(&store, &replica);
    // Redis kept it as its own file, and finds in there where in our stream it was.
    replica.restart();
    assert_same(&store, &replica);
    assert_eq!(syncs(&store), ["2", "1", "0"]);
    assert_eq!(
        info(&mut store.client(), "replication", "connected_slaves"),
        "1"
    );
}

#[test]
fn a_replica_logs_in() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut client = store.client();
    client.call(&["CONFIG", "SET", "requirepass", "word"]);
    let refused = store.client().call(&["PSYNC", "?", "-1"]);
    assert_eq!(
        refused,
        support::Value::Error("NOAUTH Authentication required.".into())
    );
    let replica = replica(ServerKind::Redis70, store.port());
    let mut follower = replica.client();
    follower.call(&["CONFIG", "SET", "masterauth", "word"]);
    wait_until("it is let in", LIMIT, || {
        info(&mut follower, "replication", "master_link_status") == "up"
    });
    client.call(&["CONFIG", "SET", "requirepass", ""]);
    assert_same(&store, &replica);
}

#[test]
fn a_replica_that_stands_still_takes_the_rest_from_the_log() {
    let store = StoreServer::start(&[]);
    prepare(&store);
    let mut replicas: Vec<_> = (0..2)
        .map(|_| replica(ServerKind::Redis70, store.port()))
        .collect();
    for replica in &replicas {
        assert_same(&store, replica);
    }
    // Far more than sockets and the backlog hold, and several segments of the log.
    replicas[0].pause();
    let mut client = store.client();
    let large = "x".repeat(1 << 20);
    for number in 0..200 {
        client.call(&["SET", &format!("large:{}", number % 4), &large]);
        client.call(&["INCR", "counter"]);
    }
    assert_same(&store, &replicas[1]);
    let start = info(&mut client, "replication", "repl_backlog_first_byte_offset");
    assert_eq!(start, "1", "the log keeps what the slow one needs");
    replicas[0].resume();
    assert_same(&store, &replicas[0]);
    assert_eq!(syncs(&store), ["2", "0", "0"]);
    wait_until("the log lets go of it", LIMIT, || {
        client.call(&["INCR", "counter"]);
        info(&mut client, "replication", "repl_backlog_first_byte_offset") != "1"
    });
}

#[test]
fn wait_counts_replicas_that_have_the_write() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["SET", "key", "value"]);
    assert_eq!(client.call(&["WAIT", "0", "0"]).int(), 0);
    assert_eq!(
        client.call(&["WAIT", "1", "10"]).int(),
        0,
        "the time is over"
    );
    let mut replicas: Vec<_> = (0..2)
        .map(|_| replica(ServerKind::Redis70, store.port()))
        .collect();
    for replica in &replicas {
        assert_same(&store, replica);
    }
    for number in 0..20 {
        client.call(&["SET", "key", &number.to_string()]);
        assert_eq!(client.call(&["WAIT", "2", "0"]).int(), 2);
        for replica in &replicas {
            assert_eq!(
                replica.client().call(&["GET", "key"]).text(),
                number.to_string()
            );
        }
    }
    replicas[0].pause();
    client.call(&["SET", "key", "last"]);
    assert_eq!(client.call(&["WAIT", "1", "0"]).int(), 1);
    assert_eq!(client.call(&["WAIT", "2", "50"]).int(), 1);
    client.send(&["WAIT", "2", "0"]);
    replicas[0].resume();
    assert_eq!(client.read().int(), 2);
    let many = [
        ["SET", "key", "x"].as_slice(),
        &["WAIT", "2", "0"],
        &["GET", "key"],
    ];
    let replies = client.pipeline(&many);
    assert_eq!((replies[1].int(), replies[2].text()), (2, "x".to_owned()));
    client.pipeline(&[
        ["MULTI"].as_slice(),
        &["SET", "key", "y"],
        &["WAIT", "5", "0"],
    ]);
    assert!(
        client.call(&["EXEC"]).items()[1].int() <= 2,
        "EXEC does not wait"
    );
    assert!(client.call(&["WAIT", "1", "-1"]).is_error());
}

#[test]
fn writes_need_as_many_replicas_as_were_asked_for() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["SET", "key", "0"]);
    client.call(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let refused = client.call(&["SET", "key", "1"]);
    let words = "NOREPLICAS Not enough good replicas to write.";
    assert_eq!(refused, support::Value::Error(words.to_owned()));
    assert_eq!(client.call(&["GET", "key"]).text(), "0");
    let mut replica = replica(ServerKind::Redis70, store.port());
    assert_same(&store, &replica);
    wait_until("the replica counts", LIMIT, || {
        client.call(&["SET", "key", "1"]) == support::Value::ok()
    });
    replica.kill();
    wait_until("the replica is missed", LIMIT, || {
        client.call(&["SET", "key", "2"]).is_error()
    });
    client.call(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(client.call(&["SET", "key", "3"]), support::Value::ok());
}
