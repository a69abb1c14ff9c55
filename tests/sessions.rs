//! Transactions, WATCH and commands that wait, as clients see them: a real
//! redis-server is asked the same, and its answers are the expected ones.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::thread;
use std::time::Duration;

use support::process::Signal;
use support::world::error_of;
use support::{Client, RedisServer, Value, World, seeded, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
/// Below the half minute after which a stop no longer waits for anything.
const STOP_LIMIT: Duration = Duration::from_secs(15);

fn world() -> World {
    world_with("")
}

fn world_with(pool_extra: &str) -> World {
    World::new(1, &format!("hash_tag = \"{{}}\"\n{pool_extra}"))
}

impl World {
    fn blocked(&self) -> usize {
        let clients = |shard: &RedisServer| shard.info_field("clients", "blocked_clients");
        let counts = self.shards.iter().filter_map(clients);
        counts.map(|count| count.parse::<usize>().unwrap()).sum()
    }

    fn wait_for_blocked(&self, count: usize) {
        wait_until("the shards know who waits", LIMIT, || {
            self.blocked() == count
        });
    }
}

#[test]
fn transactions_are_answered_as_by_redis() {
    let world = world();
    let scripts: &[&[&str]] = &[
        &[
            "MULTI",
            "SET {t}a 1",
            "INCR {t}a",
            "GET {t}a",
            "EXEC",
            "GET {t}a",
        ],
        &["MULTI", "EXEC"],
        &["MULTI", "DISCARD", "GET {t}a"],
        &["EXEC"],
        &["DISCARD"],
        &["UNWATCH"],
        &["MULTI", "MULTI", "SET {t}n 1", "EXEC"],
        &["MULTI", "WATCH {t}a", "SET {t}a 1", "EXEC", "GET {t}a"],
        &[
            "MULTI",
            "SET {t}b 1",
            "NOSUCH x",
            "SET {t}b 2",
            "EXEC",
            "GET {t}b",
        ],
        &["MULTI", "SET {t}b", "EXEC", "GET {t}b"],
        &[
            "SET {t}s text",
            "MULTI",
            "INCR {t}s",
            "LPUSH {t}s x",
            "SET {t}s 2",
            "EXEC",
            "GET {t}s",
        ],
        &["MULTI", "PING", "ECHO hi", "EXEC"],
        &[
            "MULTI",
            "MSET {t}a 1 {t}b 2",
            "MGET {t}a {t}b {t}none",
            "DEL {t}a {t}b",
            "EXEC",
        ],
        &["MULTI", "SET {t}a 1", "DISCARD", "EXEC"],
        &["WATCH {t}w", "MULTI", "SET {t}w 1", "EXEC", "GET {t}w"],
        &[
            "WATCH {t}w",
            "SET {t}w 5",
            "MULTI",
            "SET {t}w 6",
            "EXEC",
            "GET {t}w",
        ],
        &[
            "WATCH {t}w {t}x",
            "UNWATCH",
            "SET {t}w 5",
            "MULTI",
            "SET {t}w 6",
            "EXEC",
        ],
        &[
            "WATCH {t}w",
            "WATCH {t}x",
            "SET {t}x 5",
            "MULTI",
            "EXEC",
            "MULTI",
            "EXEC",
        ],
        &[
            "WATCH {t}w",
            "SET {t}w 7",
            "MULTI",
            "DISCARD",
            "MULTI",
            "GET {t}w",
            "EXEC",
        ],
        &["MULTI", "BLPOP {t}none 0", "EXEC"],
        &["MULTI", "EVAL return{KEYS[1],ARGV[1]} 1 {t}k v", "EXEC"],
        &["EXEC now"],
        &["MULTI", "EXEC now", "EXEC"],
        &["MULTI x", "WATCH", "DISCARD x"],
        &[
            "SELECT 3",
            "MULTI",
            "SET {t}three 3",
            "EXEC",
            "GET {t}three",
            "SELECT 0",
            "GET {t}three",
        ],
    ];
    for script in scripts {
        world.same(script);
    }
}

#[test]
fn a_watched_key_that_another_changes_stops_the_transaction() {
    let world = world();
    for protocol in ["2", "3"] {
        let (mut one, mut other) = (world.proxy.client(), world.proxy.client());
        one.call(&["HELLO", protocol]);
        one.call(&["SET", "stock", "5"]);
        assert_eq!(one.call(&["WATCH", "stock"]), Value::ok());
        assert_eq!(other.call(&["DECR", "stock"]), Value::Int(4));
        assert_eq!(one.call(&["MULTI"]), Value::ok());
        one.call(&["DECR", "stock"]);
        assert_eq!(one.call(&["EXEC"]), Value::Null);
        assert_eq!(one.call(&["GET", "stock"]), Value::bulk("4"));
        // The next one is free of it.
        assert_eq!(one.call(&["WATCH", "stock"]), Value::ok());
        one.call(&["MULTI"]);
        one.call(&["DECR", "stock"]);
        assert_eq!(one.call(&["EXEC"]), Value::Array(vec![Value::Int(3)]));
    }
}

#[test]
fn counters_under_watch_lose_nothing() {
    const CLIENTS: usize = 8;
    const ROUNDS: i64 = 50;
    let world = world();
    let threads = (0..CLIENTS).map(|_| {
        let mut client = world.proxy.client();
        thread::spawn(move || {
            let mut done = 0;
            while done < ROUNDS {
                client.call(&["WATCH", "sum"]);
                let sum = match client.call(&["GET", "sum"]) {
                    Value::Null => 0,
                    sum => sum.text().parse::<i64>().unwrap(),
                };
                let next = (sum + 1).to_string();
                let replies =
                    client.pipeline(&[vec!["MULTI"], vec!["SET", "sum", &next], vec!["EXEC"]]);
                done += i64::from(replies[2] != Value::Null);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    let sum = world.proxy.client().call(&["GET", "sum"]);
    assert_eq!(sum, Value::bulk((CLIENTS as i64 * ROUNDS).to_string()));
}

#[test]
fn nothing_comes_between_the_requests_of_a_transaction() {
    const ROUNDS: i64 = 500;
    let world = world();
    let threads = (0..4).map(|_| {
        let mut client = world.proxy.client();
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                let replies = client.pipeline(&[
                    vec!["INCR", "{x}other"],
                    vec!["MULTI"],
                    vec!["INCR", "{x}a"],
                    vec!["INCR", "{x}b"],
                    vec!["GET", "{x}a"],
                    vec!["EXEC"],
                    vec!["PING"],
                ]);
                let sums = replies[5].items();
                assert_eq!(sums[0], sums[1]);
                assert_eq!(sums[2].text(), sums[0].int().to_string());
                assert_eq!(replies[6], Value::Simple("PONG".into()));
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    let sum = world.proxy.client().call(&["GET", "{x}a"]);
    assert_eq!(sum, Value::bulk((4 * ROUNDS).to_string()));
}

#[test]
fn keys_of_several_shards_are_refused_and_nothing_is_done() {
    let world = world();
    let keys: Vec<_> = (0..2)
        .map(|shard| world.keys_of(shard, 1).remove(0))
        .collect();
    let mut client = world.proxy.client();
    client.call(&["DEL", &keys[0], &keys[1]]);
    let names_both = |reply: &Value| {
        let text = error_of(reply);
        assert!(text.starts_with("CROSSSLOT"), "{text}");
        assert!(keys.iter().all(|key| text.contains(key.as_str())), "{text}");
    };
    client.call(&["MULTI"]);
    for key in &keys {
        client.call(&["SET", key, "1"]);
    }
    names_both(&client.call(&["EXEC"]));
    assert_eq!(client.call(&["EXISTS", &keys[0], &keys[1]]), Value::Int(0));
    client.call(&["WATCH", &keys[0]]);
    client.call(&["MULTI"]);
    client.call(&["SET", &keys[1], "1"]);
    names_both(&client.call(&["EXEC"]));
    names_both(&client.call(&["WATCH", &keys[0], &keys[1]]));
    names_both(&client.call(&["BLPOP", &keys[0], &keys[1], "0"]));
    client.call(&["MULTI"]);
    assert!(client.call(&["SUBSCRIBE", "c"]).is_error());
    client.call(&["SET", &keys[0], "1"]);
    assert!(error_of(&client.call(&["EXEC"])).starts_with("EXECABORT"));
    assert_eq!(client.call(&["EXISTS", &keys[0], &keys[1]]), Value::Int(0));
}

#[test]
fn a_watch_whose_shard_went_away_stops_the_transaction() {
    let mut world = world();
    let key = world.keys_of(0, 1).remove(0);
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["WATCH", &key]), Value::ok());
    world.shards[0].restart();
    wait_until("the shard is there again", LIMIT, || {
        world.proxy.client().call(&["SET", &key, "other"]) == Value::ok()
    });
    client.call(&["MULTI"]);
    client.call(&["SET", &key, "mine"]);
    assert_eq!(client.call(&["EXEC"]), Value::Null);
    assert_eq!(client.call(&["GET", &key]), Value::bulk("other"));
}

#[test]
fn who_waits_is_served_and_keeps_nobody_else_waiting() {
    let world = world_with("timeout = { request = \"300ms\" }");
    let key = world.keys_of(0, 1).remove(0);
    let (mut waiter, mut other) = (world.proxy.client(), world.proxy.client());
    waiter.send(&["BLPOP", &key, "0"]);
    // Must not run before the one that waits.
    waiter.send(&["SET", &key, "after"]);
    world.wait_for_blocked(1);
    thread::sleep(Duration::from_millis(700)); // more than a request may take
    for _ in 0..100 {
        assert_eq!(other.call(&["EXISTS", &key]), Value::Int(0));
    }
    assert_eq!(other.call(&["RPUSH", &key, "x"]), Value::Int(1));
    let pair = Value::Array(vec![Value::bulk(&key), Value::bulk("x")]);
    assert_eq!(waiter.read(), pair);
    assert_eq!(waiter.read(), Value::ok());
    assert_eq!(waiter.call(&["GET", &key]), Value::bulk("after"));
}

#[test]
fn commands_that_wait_are_answered_as_by_redis() {
    let world = world();
    let scripts: &[&[&str]] = &[
        &["BLPOP {b}none 0.01", "BRPOP {b}none {b}more 0.01"],
        &[
            "RPUSH {b}l 1 2 3",
            "BLPOP {b}l 0",
            "BRPOP {b}none {b}l 0",
            "BLMOVE {b}l {b}m LEFT RIGHT 0",
        ],
        &[
            "BLMPOP 0.01 2 {b}x {b}m LEFT COUNT 2",
            "BRPOPLPUSH {b}none {b}m 0.01",
        ],
        &[
            "ZADD {b}z 1 a 2 b 3 c",
            "BZPOPMIN {b}z 0",
            "BZPOPMAX {b}z 0",
            "BZMPOP 0 1 {b}z MIN",
        ],
        &[
            "BZPOPMIN {b}none 0.01",
            "BLPOP {b}l x",
            "BLPOP {b}l -1",
            "BLPOP {b}l",
        ],
        &["SET {b}s 1", "BLPOP {b}s 0"],
        &[
            "XADD {b}x 1-1 f v",
            "XREAD BLOCK 10 STREAMS {b}x 0",
            "XREAD BLOCK 10 STREAMS {b}x $",
        ],
        &[
            "XGROUP CREATE {b}x g 0",
            "XREADGROUP GROUP g c BLOCK 10 STREAMS {b}x >",
            "XREADGROUP GROUP g c BLOCK 10 STREAMS {b}x >",
        ],
        &[
            "SELECT 2",
            "RPUSH {b}two 2",
            "BLPOP {b}two 0",
            "SELECT 0",
            "EXISTS {b}two",
        ],
    ];
    for script in scripts {
        world.same(script);
    }
}

/// The element that a client would have been given is not lost with it.
#[test]
fn one_that_leaves_while_it_waits_takes_nothing_along() {
    let world = world();
    let key = world.keys_of(1, 1).remove(0);
    let mut other = world.proxy.client();
    for sends_more in [false, true] {
        let mut waiter = world.proxy.client();
        waiter.send(&["BLPOP", &key, "0"]);
        if sends_more {
            waiter.send(&["PING"]); // so it is not read any more
        }
        world.wait_for_blocked(1);
        drop(waiter);
        world.wait_for_blocked(0);
        other.call(&["RPUSH", &key, "x"]);
        assert_eq!(other.call(&["LPOP", &key]), Value::bulk("x"));
    }
}

/// Who waits for an element may wait for ever, and a stop must not.
#[test]
fn a_stop_lets_those_go_that_wait_and_takes_nothing_along() {
    let mut world = world();
    let key = world.keys_of(1, 1).remove(0);
    let (mut waiter, mut other) = (world.proxy.client(), world.proxy.client());
    waiter.send(&["BLPOP", &key, "0"]);
    // What follows it is not begun either.
    other.pipeline(&[vec!["PING"], vec!["SET", "a", "b"]]);
    other.send(&["XREAD", "BLOCK", "0", "STREAMS", "stream", "$"]);
    other.send(&["SET", "a", "c"]);
    world.wait_for_blocked(2);
    world.proxy.signal(Signal::Term);
    assert_eq!(world.proxy.process().wait_code(STOP_LIMIT), 0);
    assert_eq!(waiter.read_to_end().unwrap(), b"");
    assert_eq!(other.read_to_end().unwrap(), b"");
    let mut shard = world.shards[1].client();
    shard.call(&["RPUSH", &key, "x"]);
    assert_eq!(shard.call(&["LRANGE", &key, "0", "-1"]).items().len(), 1);
}

#[test]
fn hundreds_wait_at_once_and_each_is_served_once() {
    const WAITERS: usize = 300;
    let world = world();
    let mut rng = seeded("hundreds_wait_at_once_and_each_is_served_once");
    let key = format!("queue:{}", rng.u32(..));
    let mut waiters: Vec<Client> = (0..WAITERS).map(|_| world.proxy.client()).collect();
    for round in 0..2 {
        for waiter in &mut waiters {
            waiter.send(&["BRPOP", &key, "0"]);
        }
        world.wait_for_blocked(WAITERS);
        let mut other = world.proxy.client();
        let items: Vec<_> = (0..WAITERS).map(|n| format!("{round}:{n}")).collect();
        for item in &items {
            other.call(&["LPUSH", &key, item]);
        }
        let mut got: Vec<_> = waiters
            .iter_mut()
            .map(|waiter| waiter.read().items()[1].text())
            .collect();
        let mut expected = items;
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
    }
    world.wait_for_blocked(0);
}

#[test]
fn the_shard_of_one_that_waits_goes_down() {
    let mut world = world();
    let key = world.keys_of(2, 1).remove(0);
    let mut waiter = world.proxy.client();
    waiter.send(&["BLPOP", &key, "0"]);
    world.wait_for_blocked(1);
    world.shards[2].kill();
    assert!(waiter.read().is_error());
    assert_eq!(waiter.call(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn reset_and_quit_end_a_transaction() {
    let world = world();
    let mut client = world.proxy.client();
    client.call(&["WATCH", "k"]);
    client.call(&["MULTI"]);
    client.call(&["SET", "k", "1"]);
    assert_eq!(client.call(&["RESET"]), Value::Simple("RESET".into()));
    assert!(client.call(&["EXEC"]).is_error());
    assert_eq!(client.call(&["EXISTS", "k"]), Value::Int(0));
    client.call(&["MULTI"]);
    assert_eq!(client.call(&["QUIT"]), Value::ok());
    assert!(client.read_to_end().unwrap().is_empty());
}
