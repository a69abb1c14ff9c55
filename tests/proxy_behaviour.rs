//! The proxy as clients see it. Wherever a reply has one right form, a real
//! redis-server is asked the same bytes and its answer is the expectation.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::io::Write;
use std::time::Duration;

use support::client::encode;
use support::load::{Load, LoadConfig};
use support::{Client, Signal, Value, World, seeded, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

fn world() -> World {
    world_with("")
}

fn world_with(pool_extra: &str) -> World {
    World::new(2, pool_extra)
}

impl World {
    /// `count` keys of the shard with this number, with the value 1.
    fn filled_keys_of(&self, shard: usize, count: usize) -> Vec<String> {
        let keys = self.keys_of(shard, count);
        for key in &keys {
            self.proxy.client().call(&["SET", key, "1"]);
        }
        keys
    }
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, words);
    out
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    text.chars().take(300).collect()
}

/// Sends the same bytes to both and compares one reply's bytes.
fn same_reply(proxy: &mut Client, oracle: &mut Client, request: &[u8]) {
    let ours = proxy.exchange_bytes(request);
    let theirs = oracle.exchange_bytes(request).unwrap();
    let ours = ours.unwrap_or_else(|err| panic!("{}: {err}", shown(request)));
    assert_eq!(shown(&ours), shown(&theirs), "to {}", shown(request));
}

#[test]
fn errors_have_the_words_of_redis() {
    let world = world();
    let (mut proxy, mut oracle) = (world.proxy.client(), world.oracle.client());
    let long = "x".repeat(300);
    let cases: &[&[&str]] = &[
        &["NOSUCH"],
        &["nosuch", "a", "b c", ""],
        &["NoSuch", &long, "after"],
        &[&long, "a"],
        &["NOSUCH", "line\nbreak\r\n"],
        &["GET"],
        &["get", "a", "b"],
        &["SET", "a"],
        &["MGET"],
        &["MSET", "a"],
        &["MSET", "a", "1", "b"],
        &["DEL"],
        &["EXISTS"],
        &["PING", "a", "b"],
        &["ECHO"],
        &["SELECT"],
        &["SELECT", "x"],
        &["SELECT", "-1"],
        &["SELECT", "99"],
        &["AUTH", "secret"],
        &["AUTH", "user", "secret"],
        &["AUTH"],
        &["HELLO", "4"],
        &["HELLO", "x"],
        &["CLIENT", "NOSUCH"],
        &["CLIENT"],
        &["OBJECT", "NOSUCH", "k"],
        &["XGROUP", "NOSUCH", "k"],
        &["INCR"],
        &["SET", "k", "v", "EX", "0"],
        &["SET", "k", "v", "NOSUCH"],
        &["GETRANGE", "k", "a", "b"],
    ];
    for case in cases {
        same_reply(&mut proxy, &mut oracle, &command(case));
    }
    // Where the keys are cannot be told: an error, in whose words is open.
    for count in ["x", "-1", "5"] {
        assert!(proxy.call(&["EVAL", "return 1", count, "k"]).is_error());
    }
    // The connection is still good.
    same_reply(&mut proxy, &mut oracle, &command(&["PING"]));
}

#[test]
fn commands_for_the_connection_are_answered_like_redis() {
    let world = world();
    let (mut proxy, mut oracle) = (world.proxy.client(), world.oracle.client());
    let cases: &[&[&str]] = &[
        &["PING"],
        &["ping", "hello"],
        &["PING", ""],
        &["ECHO", "some text"],
        &["SELECT", "0"],
        &["SELECT", "5"],
        &["SELECT", "0"],
        &["CLIENT", "GETNAME"],
        &["CLIENT", "SETNAME", "me"],
        &["CLIENT", "GETNAME"],
        &["CLIENT", "SETNAME", "no spaces"],
    ];
    for case in cases {
        same_reply(&mut proxy, &mut oracle, &command(case));
    }
    assert!(proxy.call(&["CLIENT", "ID"]).int() > 0);
    assert_eq!(proxy.call(&["TIME"]).items().len(), 2);
    assert!(proxy.call(&["INFO"]).text().contains("redis_version:"));
    assert!(proxy.call(&["COMMAND", "COUNT"]).int() > 200);
    for (client, name) in [(&mut proxy, "keyferry"), (&mut oracle, "redis")] {
        client.send_raw(&[command(&["PING"]), command(&["QUIT"])].concat());
        let all = client.read_to_end().unwrap();
        assert_eq!(shown(&all), shown(b"+PONG\r\n+OK\r\n"), "{name}");
    }
}

#[test]
fn protocol_errors_are_redis_own_and_close_only_that_client() {
    let world = world();
    let mut bystander = world.proxy.client();
    bystander.call(&["SET", "k", "v"]);
    let too_long = [b'x'; 70_000];
    let cases: &[&[u8]] = &[
        b"*1\r\n$-5\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$600000000\r\n",
        b"*abc\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*3\r\n:1\r\n",
        b"*1\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n+k\r\n",
        b"SET \"k v\r\n",
        b"SET 'k v\r\n",
        b"SET \"k\"v 1\r\n",
        &too_long,
    ];
    for (number, case) in cases.iter().enumerate() {
        for before in [
            b"".as_slice(),
            b"*2\r\n$3\r\nGET\r\n$4\r\nnone\r\n*1\r\n$4\r\nPING\r\n",
        ] {
            let request = [before, case].concat();
            let answers = [world.oracle.client(), world.proxy.client()].map(|mut client| {
                let _ = client.try_send_raw(&request);
                shown(&client.read_to_end().unwrap_or_else(|err| {
                    panic!("case {number}: {} is not closed: {err}", shown(&request))
                }))
            });
            assert_eq!(answers[1], answers[0], "case {number}: {}", shown(&request));
            assert!(answers[0].contains("Protocol error"), "case {number}");
        }
        assert_eq!(bystander.call(&["GET", "k"]), Value::bulk("v"));
    }
}

#[test]
fn blank_requests_are_ignored_and_inline_commands_work() {
    let world = world();
    let (mut proxy, mut oracle) = (world.proxy.client(), world.oracle.client());
    let requests: &[&[u8]] = &[
        b"\r\n\r\nPING\r\n",
        b"*0\r\nPING\r\n",
        b"*-1\r\nPING\r\n",
        b"  PING   \r\n",
        b"PING\n",
        b"set inline 'a b'\r\n",
        b"GET inline\r\n",
        b"SET inline \"\\x00\\n\\\"\"\r\n",
        b"GET inline\r\n",
        b"nosuch 1 2\r\n",
    ];
    for request in requests {
        same_reply(&mut proxy, &mut oracle, request);
    }
}

/// One request that has one right answer, over few keys so that they meet.
fn any_request(rng: &mut fastrand::Rng) -> Vec<u8> {
    let key = |rng: &mut fastrand::Rng| format!("k{}", rng.u32(..40));
    let several = |rng: &mut fastrand::Rng, verb: &str| {
        let mut words = vec![verb.to_owned()];
        words.extend((0..rng.usize(1..8)).map(|_| key(rng)));
        words
    };
    let (k, v) = (key(rng), rng.u32(..100).to_string());
    let one = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let words: Vec<String> = match rng.u32(..26) {
        0 => one(&["SET", &k, &v]),
        1 => one(&["GET", &k]),
        2 => one(&["INCR", &k]),
        3 => one(&["APPEND", &k, &v]),
        4 => one(&["RPUSH", &k, &v]),
        5 => one(&["LRANGE", &k, "0", "-1"]),
        6 => one(&["HSET", &k, &v, "1"]),
        7 => one(&["HINCRBY", &k, &v, "3"]),
        8 => one(&["ZADD", &k, &v, "m"]),
        9 => one(&["ZRANGE", &k, "0", "-1", "WITHSCORES"]),
        10 => one(&["TYPE", &k]),
        11 => one(&["STRLEN", &k]),
        12 => one(&["SADD", &k, &v]),
        13 => one(&["SCARD", &k]),
        14 => several(rng, "MGET"),
        15 => several(rng, "DEL"),
        16 => several(rng, "EXISTS"),
        17 => several(rng, "UNLINK"),
        18 => several(rng, "TOUCH"),
        19 => {
            let mut words = vec!["MSET".to_owned()];
            for _ in 0..rng.usize(1..8) {
                words.extend([key(rng), rng.u32(..100).to_string()]);
            }
            words
        }
        20 => one(&["PING", &v]),
        21 => one(&["nosuch", &k]),
        22 => one(&["GET"]),
        23 => one(&["SET", &k, &"long".repeat(rng.usize(1..3000))]),
        24 => one(&["EVAL", "return redis.call('TYPE', KEYS[1])", "1", &k]),
        _ => one(&["XADD", &k, "5-5", "f", &v]),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    command(&words)
}

#[test]
fn a_pipeline_of_anything_is_answered_as_one_redis_would() {
    let world = world();
    let mut rng = seeded("a_pipeline_of_anything_is_answered_as_one_redis_would");
    let (mut proxy, mut oracle) = (world.proxy.client(), world.oracle.client());
    for round in 0..60 {
        let requests: Vec<_> = (0..rng.usize(1..300))
            .map(|_| any_request(&mut rng))
            .collect();
        let bytes = requests.concat();
        oracle.send_raw(&bytes);
        // Now and then the bytes arrive in pieces that end anywhere.
        let piece = if round % 3 == 0 {
            rng.usize(1..50)
        } else {
            bytes.len()
        };
        for piece in bytes.chunks(piece) {
            proxy.send_raw(piece);
        }
        for request in &requests {
            let theirs = oracle.read_reply_bytes().unwrap();
            let ours = proxy.read_reply_bytes();
            let ours = ours.unwrap_or_else(|err| panic!("{}: {err}", shown(request)));
            assert_eq!(shown(&ours), shown(&theirs), "to {}", shown(request));
        }
    }
}

#[test]
fn resp3_is_spoken_to_those_who_ask() {
    let world = world();
    let (mut proxy, mut oracle) = (world.proxy.client(), world.oracle.client());
    let mut resp2 = world.proxy.client();
    assert!(matches!(oracle.call(&["HELLO", "3"]), Value::Map(_)));
    let Value::Map(hello) = proxy.call(&["HELLO", "3", "SETNAME", "me"]) else {
        panic!("HELLO 3 answers a map");
    };
    let proto = hello.iter().find(|(name, _)| *name == Value::bulk("proto"));
    assert_eq!(proto.unwrap().1, Value::Int(3));
    let cases: &[&[&str]] = &[
        &["HSET", "h", "f", "v", "g", "w"],
        &["HGETALL", "h"],
        &["SADD", "s", "one"],
        &["SMEMBERS", "s"],
        &["ZADD", "z", "1.5", "m"],
        &["ZSCORE", "z", "m"],
        &["ZRANGE", "z", "0", "-1", "WITHSCORES"],
        &["GET", "none"],
        &["MGET", "none", "none2", "none3", "h"],
        &["LPOP", "none"],
        &["CLIENT", "GETNAME"],
        &["GET"],
    ];
    oracle.call(&["CLIENT", "SETNAME", "me"]);
    for case in cases {
        same_reply(&mut proxy, &mut oracle, &command(case));
    }
    assert_eq!(
        resp2.call(&["HGETALL", "h"]),
        Value::Array(["f", "v", "g", "w"].map(Value::bulk).to_vec())
    );
    // And back.
    oracle.call(&["HELLO", "2"]);
    proxy.call(&["HELLO", "2"]);
    same_reply(&mut proxy, &mut oracle, &command(&["HGETALL", "h"]));
}

#[test]
fn every_client_has_its_own_database() {
    let world = world();
    let (mut zero, mut three) = (world.proxy.client(), world.proxy.client());
    assert_eq!(three.call(&["SELECT", "3"]), Value::ok());
    for number in 0..50 {
        let key = format!("k{number}");
        zero.call(&["SET", &key, "zero"]);
        three.call(&["SET", &key, "three"]);
        assert_eq!(zero.call(&["GET", &key]), Value::bulk("zero"));
        assert_eq!(three.call(&["GET", &key]), Value::bulk("three"));
    }
    let mut keys = 0;
    for shard in &world.shards {
        let mut client = shard.client();
        let first = client.call(&["DBSIZE"]);
        client.call(&["SELECT", "3"]);
        assert_eq!(client.call(&["DBSIZE"]), first);
        keys += first.int();
    }
    assert_eq!(keys, 50);
}

#[test]
fn many_clients_get_their_own_replies() {
    let world = world();
    let mut clients: Vec<_> = (0..200).map(|_| world.proxy.client()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            let (key, value) = (format!("c{number}"), format!("v{number}-{round}"));
            client.send(&["SET", &key, &value]);
            client.send(&["GET", &key]);
            client.send(&["MGET", &key, "none", &key]);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let value = Value::bulk(format!("v{number}-{round}"));
            assert_eq!(client.read(), Value::ok());
            assert_eq!(client.read(), value);
            assert_eq!(
                client.read(),
                Value::Array(vec![value.clone(), Value::Null, value])
            );
        }
    }
}

#[test]
fn a_client_that_leaves_early_takes_no_reply_of_others() {
    let world = world();
    let mut stays = world.proxy.client();
    for round in 0..50 {
        let mut leaves = world.proxy.client();
        let mut requests = Vec::new();
        for number in 0..100 {
            requests.extend(command(&["SET", &format!("k{number}"), "left"]));
            requests.extend(command(&["GET", &format!("k{number}")]));
        }
        // And one that is cut in the middle.
        requests.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$100\r\nabc");
        leaves.send_raw(&requests);
        drop(leaves);
        let value = format!("value {round}");
        for number in 0..20 {
            let key = format!("mine{number}");
            assert_eq!(stays.call(&["SET", &key, &value]), Value::ok());
            assert_eq!(stays.call(&["GET", &key]), Value::bulk(&value));
        }
    }
}

#[test]
fn checked_writers_see_no_wrong_reply() {
    let world = world();
    let mut rng = seeded("checked_writers_see_no_wrong_reply");
    let mut config = LoadConfig::new(&world.proxy.address(), rng.u64(..));
    let zero = Load::start(&config);
    (config.database, config.seed) = (7, rng.u64(..));
    let seven = Load::start(&config);
    wait_until("100,000 replies each", Duration::from_secs(120), || {
        let both = [&zero, &seven];
        both.iter().all(|load| load.replies() > 100_000) || both.iter().any(|load| load.has_ended())
    });
    for load in [zero, seven] {
        let totals = load.finish().totals;
        assert_eq!((totals.wrong, totals.errors), (0, 0), "{totals}");
    }
}

#[test]
fn large_values_and_replies_nobody_reads_yet() {
    let world = world();
    let mut client = world.proxy.client();
    let large = "0123456789".repeat(800_000);
    assert_eq!(client.call(&["SET", "large", &large]), Value::ok());
    assert_eq!(client.call(&["STRLEN", "large"]), Value::Int(8_000_000));
    assert!(client.call(&["GET", "large"]) == Value::bulk(&large));
    client.call(&["SET", "small", &"x".repeat(1000)]);
    // 40 MB of replies wait while the client only writes; another is served.
    let mut request = command(&["GET", "small"]).repeat(20_000);
    request.extend(command(&["GET", "large"]).repeat(3));
    let mut stream = client.try_clone_stream().unwrap();
    let writer = std::thread::spawn(move || stream.write_all(&request));
    let mut other = world.proxy.client();
    for _ in 0..100 {
        assert_eq!(other.call(&["STRLEN", "small"]), Value::Int(1000));
    }
    for _ in 0..20_000 {
        assert_eq!(client.read().bytes().len(), 1000);
    }
    for _ in 0..3 {
        assert_eq!(client.read().bytes().len(), large.len());
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn a_shard_that_is_down_fails_alone_and_comes_back() {
    let mut world = world();
    let (dead, alive) = (world.filled_keys_of(1, 5), world.filled_keys_of(0, 5));
    let mut client = world.proxy.client();
    world.shards[1].kill();
    wait_until("its requests fail", LIMIT, || {
        client.call(&["GET", &dead[0]]).is_error()
    });
    for _ in 0..20 {
        for (dead, alive) in dead.iter().zip(&alive) {
            client.send(&["GET", alive]);
            client.send(&["GET", dead]);
            client.send(&["MGET", alive, dead]);
            client.send(&["PING"]);
            assert_eq!(client.read(), Value::bulk("1"));
            assert!(client.read().is_error());
            assert!(client.read().is_error());
            assert_eq!(client.read(), Value::Simple("PONG".into()));
        }
    }
    world.shards[1].restart();
    wait_until("the shard is used again", LIMIT, || {
        client.call(&["SET", &dead[0], "again"]) == Value::ok()
    });
    assert_eq!(client.call(&["GET", &dead[0]]), Value::bulk("again"));
    assert_eq!(client.call(&["GET", &dead[1]]), Value::Null);
}

#[test]
fn a_shard_that_hangs_times_out_alone() {
    let mut world = world_with("timeout = { connect = \"1s\", request = \"300ms\" }");
    let (hung, alive) = (world.filled_keys_of(2, 2), world.filled_keys_of(0, 2));
    let (mut client, mut other) = (world.proxy.client(), world.proxy.client());
    world.shards[2].pause();
    client.send(&["GET", &hung[0]]);
    for _ in 0..100 {
        assert_eq!(other.call(&["GET", &alive[0]]), Value::bulk("1"));
    }
    assert!(client.read().is_error());
    world.shards[2].resume();
    wait_until("the shard is used again", LIMIT, || {
        client.call(&["GET", &hung[0]]) == Value::bulk("1")
    });
}

#[test]
fn a_client_that_says_nothing_for_too_long_is_closed() {
    let world = world_with("timeout = { idle = \"300ms\" }");
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["PING"]), Value::Simple("PONG".into()));
    assert_eq!(client.read_to_end().unwrap(), b"");
}

#[test]
fn a_reload_keeps_connections_and_routes_anew() {
    let mut world = world();
    let mut client = world.proxy.client();
    client.call(&["SET", "k", "v"]);
    let (epoch, _) = world.proxy.epoch_and_gate();
    // A config that means nothing: refused, counted, nothing changes.
    let config = world.proxy.config();
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("ketama", "ketema")).unwrap();
    world.proxy.signal(Signal::Hup);
    wait_until("the failed reload is counted", LIMIT, || {
        world.proxy.metric("config_reload_failures") > 0.0
    });
    assert_eq!(client.call(&["GET", "k"]), Value::bulk("v"));
    // One shard fewer.
    world.layout.shards.pop();
    world.proxy.write_config(&world.layout, 2, "");
    world.proxy.signal(Signal::Hup);
    wait_until("the new layout is in use", LIMIT, || {
        world.proxy.epoch_and_gate().0 == epoch + 1
    });
    let before = world.shards[2].client().call(&["DBSIZE"]);
    for number in 0..200 {
        assert_eq!(
            client.call(&["SET", &format!("new{number}"), "v"]),
            Value::ok()
        );
    }
    assert_eq!(world.shards[2].client().call(&["DBSIZE"]), before);
    // The same config again: nothing happens.
    world.proxy.signal(Signal::Hup);
    assert_eq!(client.call(&["PING"]), Value::Simple("PONG".into()));
    assert_eq!(world.proxy.epoch_and_gate().0, epoch + 1);
}

#[test]
fn sigterm_answers_what_is_in_flight_and_exits_0() {
    let mut world = world();
    let keys = world.filled_keys_of(1, 3);
    let mut client = world.proxy.client();
    world.shards[1].pause();
    for key in &keys {
        client.send(&["INCR", key]);
    }
    // Each worker has read them once it has answered a later request.
    for _ in 0..16 {
        let mut other = world.proxy.client();
        assert_eq!(other.call(&["PING"]), Value::Simple("PONG".into()));
    }
    world.proxy.signal(Signal::Term);
    let address = world.proxy.address();
    wait_until("no new client is accepted", LIMIT, || {
        Client::try_connect(&address).is_err()
    });
    world.shards[1].resume();
    for _ in &keys {
        assert_eq!(client.read(), Value::Int(2));
    }
    assert_eq!(world.proxy.process().wait_code(LIMIT), 0);
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let mut world = world();
    let keys = world.filled_keys_of(1, 1);
    let mut client = world.proxy.client();
    world.shards[1].pause();
    client.send(&["INCR", &keys[0]]);
    world.proxy.signal(Signal::Term);
    let address = world.proxy.address();
    wait_until("no new client is accepted", LIMIT, || {
        Client::try_connect(&address).is_err()
    });
    world.proxy.signal(Signal::Term);
    world.proxy.process().wait(LIMIT);
    world.shards[1].resume();
}

#[test]
fn the_redis_crate_is_served() {
    let world = world();
    for url in ["", "?protocol=resp3"] {
        let url = format!("redis://{}/0{url}", world.proxy.address());
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_connection().unwrap();
        let () = redis::cmd("SET")
            .arg("k")
            .arg(41)
            .query(&mut connection)
            .unwrap();
        let sum: i64 = redis::cmd("INCR").arg("k").query(&mut connection).unwrap();
        assert_eq!(sum, 42);
        let mut pipe = redis::pipe();
        for number in 0..500 {
            pipe.cmd("SET")
                .arg(format!("p{number}"))
                .arg(number)
                .ignore();
            pipe.cmd("GET").arg(format!("p{number}"));
        }
        let got: Vec<i64> = pipe.query(&mut connection).unwrap();
        assert_eq!(got, (0..500).collect::<Vec<_>>());
        let keys: Vec<_> = (0..500).map(|number| format!("p{number}")).collect();
        let got: Vec<i64> = redis::cmd("MGET")
            .arg(&keys)
            .query(&mut connection)
            .unwrap();
        assert_eq!(got, (0..500).collect::<Vec<_>>());
        let gone: i64 = redis::cmd("DEL").arg(&keys).query(&mut connection).unwrap();
        assert_eq!(gone, 500);
    }
}

#[test]
fn a_config_with_a_mistake_names_its_place_and_exits_2() {
    let world = world();
    let config = world.proxy.config();
    let good = std::fs::read_to_string(&config).unwrap();
    let broken = config.with_file_name("broken.toml");
    std::fs::write(&broken, good.replace("distribution", "distributoin")).unwrap();
    for verb in ["run", "check"] {
        let output = support::keyferry_command(&[verb, "-c", &broken.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        let line = 1 + good
            .lines()
            .position(|line| line.starts_with("distribution"))
            .unwrap();
        assert!(
            said.contains(&format!("{}:{line}:1", broken.display())),
            "{verb}: {said}"
        );
        assert!(said.contains("distribution"), "{verb}: {said}");
    }
    let output = support::keyferry_command(&["check", "-c", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
