//! What operators do to a built-in shard: users that survive a restart, keys that migrate to
//! a Redis and back, DEBUG, connections that are killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use support::{Client, RedisServer, StoreServer, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

fn said(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    format!("{:?}", client.call(&words))
}

#[test]
fn users_survive_a_restart_when_they_were_kept() {
    let mut store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">secret",
        "~app:*",
        "+@all",
        "-@dangerous",
    ]);
    client.call(&["ACL", "SETUSER", "odd", "(%R~x +get)", "+select|0"]);
    let list = client.call(&["ACL", "LIST"]);
    assert_eq!(client.call(&["CONFIG", "REWRITE"]).text(), "OK");
    client.call(&["ACL", "SETUSER", "late", "on", "nopass"]);
    store.kill();
    store.start_again();
    let mut client = store.client();
    assert_eq!(
        format!("{:?}", client.call(&["ACL", "LIST"])),
        format!("{list:?}"),
        "what was kept, and nothing that came later"
    );
    assert_eq!(client.call(&["AUTH", "app", "secret"]).text(), "OK");
    assert!(said(&mut client, "GET x").contains("NOPERM"));
    assert!(!said(&mut client, "GET app:x").contains("NOPERM"));
    store.kill();
    fs::write(store.files().join("users.acl"), "user a +nosuch\n").expect("written");
    let why = store.try_start_again().expect_err("it is no rule");
    assert!(
        why.contains("users.acl: user a, rule +nosuch: Unknown command"),
        "{why}"
    );
}

#[test]
fn what_was_rewritten_is_there_when_it_is_answered_and_what_was_not_is_told() {
    let mut store = StoreServer::start(&[]);
    let mut client = store.client();
    for number in 1..20 {
        let number = number.to_string();
        client.call(&["CONFIG", "SET", "timeout", &number]);
        assert_eq!(client.call(&["CONFIG", "REWRITE"]).text(), "OK");
        let kept = fs::read_to_string(store.files().join("settings.json")).expect("it is there");
        assert!(
            kept.contains(&format!("\"timeout\": \"{number}\"")),
            "{kept}"
        );
    }
    let mode = fs::metadata(store.files().join("settings.json")).expect("there");
    assert_eq!(mode.permissions().mode() & 0o077, 0, "passwords are in it");
    // As much as a disk that is full: the new text cannot be made.
    let in_the_way = store.files().join("settings.json.new");
    fs::create_dir(&in_the_way).expect("made");
    client.call(&["CONFIG", "SET", "timeout", "77"]);
    let refused = "ERR Rewriting config file: Is a directory";
    let told = said(&mut client, "CONFIG REWRITE");
    assert!(told.contains(refused), "{told}");
    said(&mut client, "MULTI");
    said(&mut client, "SET k v");
    said(&mut client, "CONFIG REWRITE");
    said(&mut client, "GET k");
    let told = said(&mut client, "EXEC");
    assert!(told.contains(refused) && told.contains("OK"), "{told}");
    store.kill();
    fs::remove_dir(&in_the_way).expect("removed");
    store.start_again();
    let mut client = store.client();
    let told = said(&mut client, "CONFIG GET timeout");
    assert!(told.contains("19"), "what was kept last: {told}");
    assert_eq!(client.call(&["CONFIG", "REWRITE"]).text(), "OK");
}

#[test]
fn keys_migrate_to_a_redis_and_back() {
    let redis = RedisServer::start(&["--requirepass", "pw"]);
    let store = StoreServer::start(&[]);
    let (mut ours, mut theirs) = (store.client(), redis.client());
    theirs.call(&["AUTH", "pw"]);
    let (here, there) = (store.port().to_string(), redis.port().to_string());
    let big = "x".repeat(300_000);
    ours.call(&["SET", "text", &big, "PX", "1000000"]);
    for number in 0..2_000 {
        let number = number.to_string();
        ours.call(&["HSET", "hash", &number, "value"]);
        ours.call(&["ZADD", "zset", &number, &format!("m{number}")]);
    }
    ours.call(&["RPUSH", "list", "a", "b"]);
    let digest = |client: &mut Client| said(client, "DEBUG DIGEST-VALUE text hash zset list");
    theirs.call(&["CONFIG", "SET", "maxmemory", "0"]);
    let before = digest(&mut ours);
    let head = ["MIGRATE", "127.0.0.1", &there, "", "0", "5000"];
    let keys = ["KEYS", "text", "hash", "none", "zset", "list"];
    let refused = ours.call(&[&head[..], &keys].concat());
    assert!(format!("{refused:?}").contains("NOAUTH"), "{refused:?}");
    assert_eq!(
        said(&mut ours, "DBSIZE"),
        said(&mut ours, "EXISTS text hash zset list")
    );
    let moved = ours.call(&[&head[..], &["AUTH2", "default", "pw"], &keys].concat());
    assert_eq!(moved.text(), "OK");
    assert!(said(&mut ours, "DBSIZE").contains('0'));
    let left: i64 = theirs.call(&["PTTL", "text"]).int();
    assert!((1..=1_000_000).contains(&left), "{left}");
    // And back, by the real one.
    let back = ["MIGRATE", "127.0.0.1", &here, "", "0", "5000", "COPY"];
    assert_eq!(theirs.call(&[&back[..], &keys].concat()).text(), "OK");
    let again = theirs.call(&[&back[..], &keys].concat());
    assert!(format!("{again:?}").contains("BUSYKEY"), "{again:?}");
    let replaced = theirs.call(&[&back[..], &["REPLACE"], &keys].concat());
    assert_eq!(replaced.text(), "OK");
    assert_eq!(digest(&mut ours), before);
}

#[test]
fn a_target_that_cannot_be_reached_costs_no_key() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["SET", "k", "v"]);
    let nobody = support::free_port().to_string();
    let told = said(&mut client, &format!("MIGRATE 127.0.0.1 {nobody} k 0 500"));
    assert!(
        told.contains("IOERR error or timeout writing to target instance"),
        "{told}"
    );
    // Somebody who listens and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let told = said(&mut client, &format!("MIGRATE 127.0.0.1 {port} k 0 100"));
    assert!(
        told.contains("IOERR error or timeout reading from target instance"),
        "{told}"
    );
    assert_eq!(client.call(&["GET", "k"]).text(), "v");
}

#[test]
fn debug_is_only_there_where_it_is_let_in() {
    let mut store = StoreServer::start(&[]);
    let mut client = store.client();
    assert!(said(&mut client, "CONFIG GET enable-debug-command").contains("local"));
    assert!(!said(&mut client, "DEBUG DIGEST").contains("not allowed"));
    assert!(said(&mut client, "CONFIG SET enable-debug-command no").contains("immutable"));
    store.kill();
    let settings = "{ \"enable-debug-command\": \"no\" }";
    fs::write(store.files().join("settings.json"), settings).expect("written");
    store.start_again();
    let told = said(&mut store.client(), "DEBUG DIGEST");
    assert!(told.contains("DEBUG command not allowed"), "{told}");
}

#[test]
fn replicas_are_killed_as_clients_are() {
    let store = StoreServer::start(&[]);
    let redis = RedisServer::start(&[]);
    let mut client = store.client();
    client.call(&["SET", "k", "v"]);
    redis
        .client()
        .call(&["REPLICAOF", "127.0.0.1", &store.port().to_string()]);
    let line = |client: &mut Client| client.call(&["CLIENT", "LIST", "TYPE", "replica"]).text();
    wait_until("a replica is there", LIMIT, || {
        line(&mut client).contains("flags=S")
    });
    let first = line(&mut client);
    let id = first.split(['=', ' ']).nth(1).expect("an id").to_owned();
    assert_eq!(client.call(&["CLIENT", "KILL", "ID", &id]).int(), 1);
    wait_until("it comes again as another one", LIMIT, || {
        let now = line(&mut client);
        now.contains("flags=S") && !now.contains(&format!("id={id} "))
    });
}
