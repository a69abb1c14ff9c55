//! The support itself: servers start, answer and go away; the client reads
//! every kind of reply.

mod support;

use support::contents::{all_keys, read_entries};
use support::data::{make_entries, write_entries};
use support::load::{Load, LoadConfig};
use support::{Client, Forwarder, Nutcracker, RedisServer, Value, seeded, wait_until};

use std::time::Duration;

#[test]
fn redis_server_starts_answers_and_goes() {
    let address = {
        let server = RedisServer::start(&["--databases", "4"]);
        let mut client = server.client();
        assert_eq!(client.call(&["SET", "k", "v"]), Value::ok());
        assert_eq!(client.call(&["GET", "k"]), Value::bulk("v"));
        assert_eq!(client.call(&["GET", "none"]), Value::Null);
        assert!(client.call(&["SELECT", "4"]).is_error());
        assert_eq!(
            client.pipeline(&[vec!["INCR", "n"], vec!["INCR", "n"]]),
            [Value::Int(1), Value::Int(2)]
        );
        assert_eq!(
            client.exchange_bytes(b"PING\r\n").unwrap(),
            b"+PONG\r\n".to_vec()
        );
        server.address()
    };
    assert!(Client::try_connect(&address).is_err());
}

#[test]
fn resp3_replies_are_read() {
    let server = RedisServer::start(&[]);
    let mut client = server.client();
    assert!(matches!(client.call(&["HELLO", "3"]), Value::Map(_)));
    client.call(&["HSET", "h", "f", "v"]);
    assert_eq!(
        client.call(&["HGETALL", "h"]),
        Value::Map(vec![(Value::bulk("f"), Value::bulk("v"))])
    );
    client.call(&["SADD", "s", "a"]);
    assert_eq!(
        client.call(&["SMEMBERS", "s"]),
        Value::Set(vec![Value::bulk("a")])
    );
    client.call(&["ZADD", "z", "1.5", "a"]);
    assert_eq!(
        client.call(&["ZSCORE", "z", "a"]),
        Value::Double("1.5".into())
    );
    assert_eq!(client.call(&["GET", "none"]), Value::Null);
}

#[test]
fn a_killed_server_comes_back_on_its_port() {
    let mut server = RedisServer::start(&["--requirepass", "secret"]);
    let address = server.address();
    assert_eq!(
        server.client().call(&["PING"]),
        Value::Simple("PONG".into())
    );
    server.kill();
    wait_until("the port is closed", Duration::from_secs(5), || {
        Client::try_connect(&address).is_err()
    });
    server.restart();
    assert_eq!(server.client().call(&["DBSIZE"]), Value::Int(0));
}

#[test]
fn a_frozen_server_thaws() {
    let mut server = RedisServer::start(&[]);
    server.pause();
    let mut client = server.client();
    client.set_reply_limit(Duration::from_millis(100));
    assert!(client.try_call(&["PING"]).is_err());
    server.resume();
    assert_eq!(
        server.client().call(&["PING"]),
        Value::Simple("PONG".into())
    );
}

#[test]
fn nutcracker_serves() {
    let servers = RedisServer::start_many(2, &[]);
    let lines: Vec<String> = servers
        .iter()
        .map(|server| format!("{}:1", server.address()))
        .collect();
    let proxy = Nutcracker::start("fnv1a_64", "ketama", &lines);
    let mut client = proxy.client();
    let mut rng = seeded("nutcracker_serves");
    for _ in 0..100 {
        let key = rng.u64(..).to_string();
        assert_eq!(client.call(&["SET", &key, "v"]), Value::ok());
    }
    let keys: i64 = servers
        .iter()
        .map(|server| server.client().call(&["DBSIZE"]).int())
        .sum();
    assert_eq!(keys, 100);
}

#[test]
fn entries_are_read_back_as_they_were_written() {
    let server = RedisServer::start(&[]);
    let mut rng = seeded("entries_are_read_back_as_they_were_written");
    let entries = make_entries(&mut rng, "key:", 5_000);
    let mut client = server.client();
    write_entries(&mut client, &entries);
    let keys: Vec<_> = entries.keys().cloned().collect();
    assert_eq!(all_keys(&mut client), keys.iter().cloned().collect());
    for (key, found) in keys.iter().zip(read_entries(&mut client, &keys)) {
        assert_eq!(
            entries[key].difference(found.as_ref()),
            None,
            "{}",
            key.escape_ascii()
        );
    }
    // And a difference is seen.
    client.call(&[b"DEL".as_slice(), &keys[0]]);
    client.call(&[b"EXPIRE".as_slice(), &keys[1], b"77"]);
    let found = read_entries(&mut client, &keys[..2]);
    for (key, found) in keys.iter().zip(found) {
        assert!(entries[key].difference(found.as_ref()).is_some());
    }
}

#[test]
fn the_writers_model_is_that_of_a_real_server() {
    let server = RedisServer::start(&[]);
    let mut rng = seeded("the_writers_model_is_that_of_a_real_server");
    let mut config = LoadConfig::new(&server.address(), rng.u64(..));
    config.keys_per_kind = 20;
    let load = Load::start(&config);
    wait_until("200,000 replies", Duration::from_secs(120), || {
        load.replies() > 200_000 || load.has_ended()
    });
    let outcome = load.finish();
    assert_eq!(outcome.totals.wrong, 0, "{}", outcome.totals);
    assert_eq!(outcome.totals.errors, 0, "{}", outcome.totals);
    let mut client = server.client();
    let keys: Vec<_> = outcome.entries.iter().map(|(key, _)| key.clone()).collect();
    let found = read_entries(&mut client, &keys);
    for ((key, entry), found) in outcome.entries.iter().zip(found) {
        assert_eq!(
            entry.difference(found.as_ref()),
            None,
            "{}",
            key.escape_ascii()
        );
    }
    assert_eq!(all_keys(&mut client).len(), keys.len());
}

#[test]
fn a_forwarder_cuts_stalls_and_is_pointed_elsewhere() {
    let (one, other) = (RedisServer::start(&[]), RedisServer::start(&[]));
    one.client().call(&["SET", "name", "one"]);
    other.client().call(&["SET", "name", "other"]);
    let forwarder = Forwarder::start(&one.address());
    let mut client = Client::connect(&forwarder.address());
    assert_eq!(client.call(&["GET", "name"]), Value::bulk("one"));

    forwarder.stall();
    client.send(&["GET", "name"]);
    client.set_reply_limit(Duration::from_millis(50));
    assert!(client.try_read().is_err(), "stalled");
    client.set_reply_limit(Duration::from_secs(60));
    forwarder.go_on();
    assert_eq!(client.read(), Value::bulk("one"));

    // "$3\r\none\r\n" is 9 bytes long.
    forwarder.cut_after(6);
    client.send(&["GET", "name"]);
    assert_eq!(client.read_to_end().unwrap(), b"$3\r\non");

    forwarder.point_at(&other.address());
    let mut client = Client::connect(&forwarder.address());
    assert_eq!(client.call(&["GET", "name"]), Value::bulk("other"));
    forwarder.refuse();
    forwarder.cut();
    assert!(client.try_call(&["PING"]).is_err());
    let mut refused = Client::connect(&forwarder.address());
    assert!(refused.try_call(&["PING"]).is_err());
    forwarder.admit();
    let mut client = Client::connect(&forwarder.address());
    assert_eq!(client.call(&["GET", "name"]), Value::bulk("other"));
    assert_eq!((forwarder.links_made(), forwarder.tries()), (3, 4));
}
