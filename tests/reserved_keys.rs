//! Keys that begin with `__keyferry:` are our own: what clients may do with them
//! through a real proxy, which is nothing.

mod support;

use std::collections::BTreeSet;

use support::keyferry::LayoutText;
use support::{Client, Keyferry, RedisServer, Value};

const OURS: &str = "__keyferry:cp:j1:0";
const REFUSED: &str = "ERR keys that begin with \"__keyferry:\" are reserved";
/// More than a request that is kept whole.
const LARGE_BYTES: usize = 300 * 1024;
/// Enough that each of some answers would show a key of ours by chance.
const RANDOM_KEYS: usize = 60;

struct World {
    servers: Vec<RedisServer>,
    proxy: Keyferry,
}

/// Each server has a key of ours.
fn world() -> World {
    let servers = RedisServer::start_many(2, &[]);
    let addresses: Vec<String> = servers.iter().map(RedisServer::address).collect();
    for server in &servers {
        assert_eq!(server.client().call(&["SET", OURS, "x"]), Value::ok());
    }
    let proxy = Keyferry::start(&LayoutText::new("fnv1a_64", "ketama", &addresses));
    World { servers, proxy }
}

impl World {
    fn assert_untouched(&self) {
        for server in &self.servers {
            let mut client = server.client();
            assert_eq!(client.call(&["GET", OURS]), Value::bulk("x"));
            assert_eq!(client.call(&["EXISTS", "k"]), Value::Int(0));
        }
    }
}

fn refused() -> Value {
    Value::Error(REFUSED.to_owned())
}

#[test]
fn every_command_on_them_is_refused_whole() {
    let world = world();
    let mut client = world.proxy.client();
    let requests: &[&[&str]] = &[
        &["GET", OURS],
        &["SET", OURS, "y"],
        &["INCR", "__keyferry:"],
        &["DEL", OURS],
        &["MGET", "k", OURS],
        &["MSET", "k", "1", OURS, "2"],
        &["DEL", "a", "b", OURS],
        &["UNLINK", OURS, "a"],
        &["EXISTS", "a", OURS],
        &["TOUCH", OURS, "b"],
        &["EVAL", "return redis.call('SET', KEYS[1], 'y')", "1", OURS],
        &["EVAL", "return 1", "2", "k", OURS],
        &[
            "EVALSHA",
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
            "1",
            OURS,
        ],
        &["BLPOP", OURS, "0"],
        &["BLPOP", "k", OURS, "0"],
        &["XREAD", "BLOCK", "0", "STREAMS", OURS, "0"],
        &["RENAME", OURS, "k"],
        &["COPY", OURS, "k"],
        &["OBJECT", "ENCODING", OURS],
        &["WATCH", OURS],
    ];
    for database in ["0", "3"] {
        assert_eq!(client.call(&["SELECT", database]), Value::ok());
        for request in requests {
            assert_eq!(client.call(request), refused(), "{request:?}");
        }
    }
    let large = "v".repeat(LARGE_BYTES);
    assert_eq!(client.call(&["SET", OURS, &large]), refused());
    client.send_raw(format!("GET {OURS}\r\n").as_bytes());
    assert_eq!(client.read(), refused());
    assert_eq!(client.call(&["PING"]), Value::Simple("PONG".into()));
    world.assert_untouched();
}

#[test]
fn a_transaction_with_one_of_them_does_nothing() {
    let world = world();
    let mut client = world.proxy.client();
    let replies = client.pipeline(&[
        vec!["MULTI"],
        vec!["SET", "k", "1"],
        vec!["SET", OURS, "y"],
        vec!["EXEC"],
        vec!["EXEC"],
    ]);
    assert_eq!(replies[3], refused(), "{replies:?}");
    assert!(replies[4].is_error(), "it is over: {replies:?}");
    world.assert_untouched();
}

#[test]
fn channels_of_such_names_are_no_keys() {
    let world = world();
    let (mut listener, mut client) = (world.proxy.client(), world.proxy.client());
    let channel = "__keyferry:news";
    let subscribed = listener.call(&["SUBSCRIBE", channel]);
    assert_eq!(subscribed.items().len(), 3, "{subscribed:?}");
    assert_eq!(client.call(&["PUBLISH", channel, "hello"]), Value::Int(1));
    assert_eq!(listener.read().items()[2], Value::bulk("hello"));
}

fn all_of_scan(client: &mut Client) -> BTreeSet<String> {
    let (mut all, mut cursor) = (BTreeSet::new(), "0".to_owned());
    loop {
        let page = client.call(&["SCAN", &cursor]);
        all.extend(page.items()[1].items().iter().map(Value::text));
        cursor = page.items()[0].text();
        if cursor == "0" {
            return all;
        }
    }
}

#[test]
fn who_asks_for_all_keys_is_not_told_of_them_but_their_number_counts() {
    let world = world();
    let mut client = world.proxy.client();
    assert_eq!(
        client.call(&["RANDOMKEY"]),
        Value::Null,
        "there is no other"
    );
    let keys: BTreeSet<String> = (0..6).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        assert_eq!(client.call(&["SET", key, "v"]), Value::ok());
    }
    let told = client.call(&["KEYS", "*"]);
    let told: BTreeSet<String> = told.items().iter().map(Value::text).collect();
    assert_eq!(told, keys);
    assert_eq!(client.call(&["KEYS", "__keyferry:*"]), Value::Array(vec![]));
    assert_eq!(all_of_scan(&mut client), keys);
    for _ in 0..RANDOM_KEYS {
        let key = client.call(&["RANDOMKEY"]);
        assert!(key == Value::Null || keys.contains(&key.text()), "{key:?}");
    }
    let ours = world.servers.len();
    assert_eq!(
        client.call(&["DBSIZE"]),
        Value::Int((keys.len() + ours) as i64)
    );
}
