//! Ejecting: a shard that fails too often leaves the ring for all workers at once,
//! its keys are where the original puts them, and only a probe brings it back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::client::encode;
use support::keyferry::LayoutText;
use support::{
    Client, Keyferry, Nutcracker, RedisServer, Signal, Value, free_port, http_post,
    keyferry_command, wait_for, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
/// Enough that each of two workers has some of them.
const CLIENTS: usize = 8;
const NEVER: &str = "eject = { enabled = true, failures = 2, retry_after = \"1h\" }\n";
const SOON: &str = "eject = { enabled = true, failures = 2, retry_after = \"100ms\" }\n\
                    timeout = { connect = \"1s\", request = \"300ms\" }\n";

struct World {
    shards: Vec<RedisServer>,
    layout: LayoutText,
    proxy: Keyferry,
    clients: Vec<Client>,
}

impl World {
    fn new(shards: usize, distribution: &str, pool_extra: &str) -> World {
        World::hashed(shards, "fnv1a_64", distribution, pool_extra)
    }

    fn hashed(shards: usize, hash: &str, distribution: &str, pool_extra: &str) -> World {
        let shards = RedisServer::start_many(shards, &[]);
        let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
        let layout = LayoutText::new(hash, distribution, &addresses);
        let proxy = Keyferry::start_with(&layout, 2, pool_extra);
        let clients = (0..CLIENTS).map(|_| proxy.client()).collect();
        World {
            shards,
            layout,
            proxy,
            clients,
        }
    }

    fn name(shard: usize) -> String {
        format!("s{}", shard + 1)
    }

    fn ejected(&self) -> Vec<String> {
        ejected(&self.proxy)
    }

    /// What the API says was the last failure of the first ejected shard.
    fn why(&self) -> String {
        let pools = self.proxy.pools();
        pools["pools"][0]["ejected"][0]["why"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn metric(&self, name: &str, shard: usize) -> f64 {
        let shard = World::name(shard);
        self.proxy.metric(&format!(
            "keyferry_{name}{{pool=\"cache\",shard=\"{shard}\"}}"
        ))
    }

    /// Asks for keys of all shards, over every client, until these are ejected.
    fn ask_until_ejected(&mut self, shards: &[usize]) {
        let wanted: Vec<String> = shards.iter().map(|shard| World::name(*shard)).collect();
        wait_until("the shards are ejected", LIMIT, || {
            for client in &mut self.clients {
                client.pipeline(&gets(0..200));
            }
            ejected(&self.proxy) == wanted
        });
    }

    /// Keys that the shard owns when all are in.
    fn keys_of(&mut self, shard: usize, count: usize) -> Vec<String> {
        let mut direct = self.shards[shard].client();
        let keys = (0..).map(|number| format!("probe:{number}"));
        let client = &mut self.clients[0];
        keys.filter(|key| {
            assert_eq!(client.call(&["SET", key, "1"]), Value::ok());
            direct.call(&["EXISTS", key]) == Value::Int(1)
        })
        .take(count)
        .collect()
    }
}

fn ejected(proxy: &Keyferry) -> Vec<String> {
    let pools = proxy.pools();
    let ejected = pools["pools"][0]["ejected"].as_array().expect("a list");
    let name = |shard: &serde_json::Value| shard["shard"].as_str().expect("a name").to_owned();
    ejected.iter().map(name).collect()
}

fn gets(numbers: std::ops::Range<u32>) -> Vec<[String; 2]> {
    numbers
        .map(|number| ["GET".to_owned(), format!("k:{number}")])
        .collect()
}

fn keys_on(server: &RedisServer) -> BTreeSet<Vec<u8>> {
    let keys = server.client().call(&["KEYS", "*"]);
    keys.items()
        .iter()
        .map(|key| key.bytes().to_vec())
        .collect()
}

#[test]
fn keys_of_a_dead_shard_are_where_nutcracker_puts_them() {
    const KEYS: usize = 5_000;
    const DEAD: usize = 2;
    for (hash, distribution) in [("fnv1a_64", "ketama"), ("md5", "modula")] {
        let mut world = World::hashed(4, hash, distribution, NEVER);
        let servers: Vec<String> = (0..4)
            .map(|at| {
                format!(
                    "   - {}:1 {}\n",
                    world.shards[at].address(),
                    World::name(at)
                )
            })
            .collect();
        let original = Nutcracker::start_pool(&format!(
            "  hash: {hash}\n  distribution: {distribution}\n  redis: true\n  \
             auto_eject_hosts: true\n  server_failure_limit: 2\n  server_retry_timeout: 3600000\n  \
             timeout: 2000\n  servers:\n{}",
            servers.concat()
        ));
        world.shards[DEAD].kill();
        world.ask_until_ejected(&[DEAD]);
        let mut theirs = original.client();
        wait_until("the original has ejected it, too", LIMIT, || {
            let replies = theirs.pipeline(&gets(0..200));
            !replies.iter().any(Value::is_error)
        });

        let keys: Vec<String> = (0..KEYS).map(|number| format!("key-{number}")).collect();
        let live = || (0..4).filter(|at| *at != DEAD);
        let contents = |clients: &mut [Client]| {
            let at_once = KEYS / clients.len();
            for (client, keys) in clients.iter_mut().zip(keys.chunks(at_once)) {
                let sets: Vec<_> = keys.iter().map(|key| ["SET", key, "v"]).collect();
                for (reply, key) in client.pipeline(&sets).iter().zip(keys) {
                    assert_eq!(*reply, Value::ok(), "{distribution}: SET {key}");
                }
            }
            let of_shards: Vec<_> = live().map(|at| keys_on(&world.shards[at])).collect();
            for at in live() {
                let emptied = world.shards[at].client().call(&["FLUSHALL"]);
                assert_eq!(emptied, Value::ok());
            }
            of_shards
        };
        let by_us = contents(&mut world.clients);
        let by_them = contents(&mut [theirs]);
        assert!(
            by_us == by_them,
            "{distribution}: keys are on other servers"
        );
        assert!(
            by_us.iter().all(|keys| keys.len() > KEYS / 8),
            "{distribution}"
        );
        assert_eq!(by_us.iter().map(BTreeSet::len).sum::<usize>(), KEYS);
    }
}

#[test]
fn only_a_probe_that_is_answered_well_brings_a_shard_back() {
    let mut world = World::new(3, "ketama", SOON);
    let own = world.keys_of(1, 50);
    // It accepts connections from here on, and answers nothing.
    world.shards[1].pause();
    world.ask_until_ejected(&[1]);
    assert_eq!(
        (
            world.metric("shard_ejected", 1),
            world.metric("shard_ejected", 0)
        ),
        (1.0, 0.0)
    );
    assert_eq!(world.metric("shard_ejects_total", 1), 1.0);
    let why = world.why();

    let (proxy, shard) = (&world.proxy, &mut world.shards[1]);
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.client();
                    let sets: Vec<_> = own.iter().map(|key| ["SET", key, "new"]).collect();
                    let mut rounds = 0;
                    while !over.load(Ordering::Relaxed) {
                        for reply in client.pipeline(&sets) {
                            assert_eq!(reply, Value::ok(), "the probing is nobody's trouble");
                        }
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        wait_until("a probe has failed", LIMIT, || {
            let pools = proxy.pools();
            let out = &pools["pools"][0]["ejected"][0];
            out["shard"] == "s2" && out["why"].as_str().is_some_and(|now| now != why)
        });
        shard.resume();
        wait_until("it is in again", LIMIT, || ejected(proxy).is_empty());
        over.store(true, Ordering::Relaxed);
        asking
            .into_iter()
            .map(|asks| asks.join().expect("no error"))
            .min()
    });
    assert!(asked.expect("four") > 0);
    for key in &own {
        assert_eq!(world.clients[0].call(&["SET", key, "back"]), Value::ok());
        assert_eq!(
            world.shards[1].client().call(&["GET", key]),
            Value::bulk("back")
        );
    }
    assert_eq!(
        (
            world.metric("shard_ejected", 1),
            world.metric("shard_ejects_total", 1)
        ),
        (0.0, 1.0)
    );
}

/// Answers every connection's `PING`s by `-LOADING` until it is told to stop, and
/// returns what else it was sent.
fn loading(listener: &TcpListener, over: &AtomicBool) -> Vec<String> {
    let mut odd = Vec::new();
    for stream in listener.incoming() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut stream = stream.expect("a connection");
        let mut request = [0; b"*1\r\n$4\r\nPING\r\n".len()];
        if stream.read_exact(&mut request).is_err() || request != *b"*1\r\n$4\r\nPING\r\n" {
            odd.push(request.escape_ascii().to_string());
        }
        let _ = stream.write_all(b"-LOADING Redis is loading the dataset in memory\r\n");
        let mut rest = String::new();
        let _ = BufReader::new(stream).read_line(&mut rest);
        if !rest.is_empty() {
            odd.push(rest);
        }
    }
    odd
}

#[test]
fn a_shard_that_answers_the_probe_by_an_error_stays_out_and_is_asked_nothing_else() {
    let mut world = World::new(3, "ketama", SOON);
    let port = world.shards[2].port();
    world.shards[2].kill();
    world.ask_until_ejected(&[2]);
    let listener = wait_for("the port is free", LIMIT, || {
        TcpListener::bind(("127.0.0.1", port)).ok()
    });
    let over = AtomicBool::new(false);
    let odd = std::thread::scope(|scope| {
        let fake = scope.spawn(|| loading(&listener, &over));
        wait_until("the probe was told so", LIMIT, || {
            for client in &mut world.clients {
                for reply in client.pipeline(&gets(0..200)) {
                    assert_eq!(reply, Value::Null);
                }
            }
            let pools = world.proxy.pools();
            let why = pools["pools"][0]["ejected"][0]["why"].as_str();
            why.is_some_and(|why| why.contains("LOADING"))
        });
        over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", port));
        fake.join().expect("no panic")
    });
    assert_eq!(odd, Vec::<String>::new());
    assert_eq!(world.ejected(), ["s3"]);
    drop(listener);
    world.shards[2].restart();
    wait_until("it is in again", LIMIT, || world.ejected().is_empty());
}

#[test]
fn a_probe_logs_in_and_selects_as_every_connection_does() {
    let shards = RedisServer::start_many(2, &["--requirepass", "secret"]);
    let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    let extra = format!("{SOON}upstream = {{ password = \"secret\" }}\ndatabase = 3\n");
    let proxy = Keyferry::start_with(&layout, 2, &extra);
    let clients = (0..CLIENTS).map(|_| proxy.client()).collect();
    let mut world = World {
        shards,
        layout,
        proxy,
        clients,
    };
    world.shards[0].kill();
    world.ask_until_ejected(&[0]);
    world.shards[0].restart();
    wait_until("it is in again", LIMIT, || world.ejected().is_empty());
    for reply in world.clients[0].pipeline(&gets(0..200)) {
        assert_eq!(reply, Value::Null);
    }
}

#[test]
fn nothing_is_ejected_unless_it_is_asked_for() {
    let mut world = World::new(2, "ketama", "");
    let (dead, alive) = (world.keys_of(1, 1), world.keys_of(0, 1));
    world.shards[1].kill();
    wait_until("it failed many times", LIMIT, || {
        for client in &mut world.clients {
            assert!(client.call(&["GET", &dead[0]]).is_error());
            assert_eq!(client.call(&["GET", &alive[0]]), Value::bulk("1"));
        }
        world.metric("shard_failures_total", 1) >= 8.0
    });
    assert_eq!(world.ejected(), Vec::<String>::new());
    assert_eq!(world.metric("shard_ejects_total", 1), 0.0);
    world.shards[1].restart();
    wait_until("the shard is used again", LIMIT, || {
        world.clients[0].call(&["SET", &dead[0], "again"]) == Value::ok()
    });
}

#[test]
fn no_shard_goes_out_while_a_job_works_and_no_job_begins_while_one_is_out() {
    let mut world = World::new(3, "ketama", NEVER);
    let announce = |admin: &str, job: &str, lease_ms: u32| {
        let body = format!("{{\"job\":\"{job}\",\"incarnation\":1,\"lease_ms\":{lease_ms}}}");
        http_post(admin, "/api/v1/pools/cache/job", &body).expect("an answer")
    };
    let admin = world.proxy.admin();
    assert_eq!(announce(&admin, "j1", 60_000).0, 200);
    let dead = world.keys_of(1, 1);
    world.shards[1].kill();
    wait_until("it failed many times", LIMIT, || {
        for client in &mut world.clients {
            assert!(client.call(&["GET", &dead[0]]).is_error());
        }
        world.metric("shard_failures_total", 1) >= 8.0
    });
    assert_eq!(world.ejected(), Vec::<String>::new());
    assert_eq!(announce(&admin, "j1", 0).0, 200);
    world.ask_until_ejected(&[1]);

    let (status, text) = announce(&admin, "j2", 60_000);
    assert_eq!(status, 409, "{text}");
    assert!(
        text.contains("shard_ejected") && text.contains("shard s2 is ejected"),
        "{text}"
    );
    let stage = serde_json::json!({
        "job": "j2", "epoch": 2, "incarnation": 1, "from_fingerprint": 0,
        "to": world.proxy.pools()["pools"][0]["layout"],
    });
    let path = "/api/v1/pools/cache/switch/stage";
    let (status, text) = http_post(&admin, path, &stage.to_string()).expect("an answer");
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("shard_ejected"), "{text}");

    let file = world.proxy.dir().join("to.toml");
    let addresses = [0, 2].map(|at: usize| world.shards[at].address());
    let to = LayoutText::new("fnv1a_64", "ketama", &addresses);
    fs::write(&file, to.to_layout_file()).expect("written");
    let state = world.proxy.dir().join("job");
    let output = keyferry_command(&[
        "reshard".as_ref(),
        "start".as_ref(),
        "-c".as_ref(),
        world.proxy.config().as_os_str(),
        "-p".as_ref(),
        Keyferry::POOL.as_ref(),
        "--to".as_ref(),
        file.as_os_str(),
        "--state".as_ref(),
        state.as_os_str(),
        "--proxy".as_ref(),
        world.proxy.admin_url().as_ref(),
        "--yes".as_ref(),
    ]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("shard s2 is ejected"), "{told}");
}

/// One line of twemproxy's statistics, read from its port.
fn stats(port: u16) -> serde_json::Value {
    let mut text = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the statistics port");
    stream.read_to_string(&mut text).expect("text");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn with_the_last_shard_out_requests_fail_at_once_until_one_is_back() {
    let mut world = World::new(2, "modula", SOON);
    let port = free_port();
    let config = fs::read_to_string(world.proxy.config()).expect("the config");
    let with_stats = format!("[admin]\nnutcracker_stats = \"127.0.0.1:{port}\"");
    fs::write(world.proxy.config(), config.replace("[admin]", &with_stats)).expect("written");
    world.proxy.launch();
    world.clients = (0..CLIENTS).map(|_| world.proxy.client()).collect();
    assert_eq!(stats(port)["cache"]["server_ejects"], 0);

    world.shards[0].kill();
    world.ask_until_ejected(&[0]);
    world.shards[1].kill();
    world.ask_until_ejected(&[0, 1]);
    for client in &mut world.clients {
        for reply in client.pipeline(&gets(0..200)) {
            assert!(reply.is_error(), "{reply:?}");
        }
        assert_eq!(client.call(&["PING"]), Value::Simple("PONG".into()));
    }
    world.shards[1].restart();
    wait_until("one is in again", LIMIT, || world.ejected() == ["s1"]);
    for client in &mut world.clients {
        for reply in client.pipeline(&gets(0..200)) {
            assert_eq!(reply, Value::Null);
        }
    }
    let told = stats(port);
    assert_eq!(told["cache"]["server_ejects"], 2);
    let at_us = |shard: &str| {
        told["cache"][shard]["server_ejected_at"]
            .as_u64()
            .expect("a time")
    };
    assert!(
        at_us("s2") >= at_us("s1") && at_us("s1") > 1_600_000_000_000_000,
        "{told}"
    );
}

#[test]
fn commands_for_all_shards_name_the_one_that_is_out() {
    let route = "route = [{ prefix = \"pin:\", shard = \"s2\" }]\n";
    let mut world = World::new(3, "ketama", &format!("{SOON}{route}"));
    world.shards[1].kill();
    world.ask_until_ejected(&[1]);
    let client = &mut world.clients[0];
    let sets: Vec<String> = (0..50)
        .flat_map(|n| [format!("m:{n}"), "v".into()])
        .collect();
    let mset: Vec<&str> = ["MSET"]
        .into_iter()
        .chain(sets.iter().map(String::as_str))
        .collect();
    assert_eq!(client.call(&mset), Value::ok());
    let names = (0..50).map(|n| format!("m:{n}"));
    let mget: Vec<String> = ["MGET".to_owned()].into_iter().chain(names).collect();
    let values = client.call(&mget);
    assert!(
        values
            .items()
            .iter()
            .all(|value| *value == Value::bulk("v")),
        "{values:?}"
    );

    let of_all: [&[&str]; 6] = [
        &["DBSIZE"],
        &["KEYS", "*"],
        &["SCRIPT", "LOAD", "return 1"],
        &["GET", "pin:1"],
        &["BLPOP", "pin:1", "1"],
        &["SUBSCRIBE", "pin:1"],
    ];
    for command in of_all {
        match client.call(command) {
            Value::Error(text) => {
                assert!(
                    text.contains("shard s2 ") && text.contains("ejected"),
                    "{text}"
                );
            }
            other => panic!("{command:?} is answered by {other:?}"),
        }
    }
    let mut cursor = "0".to_owned();
    let refused = wait_for("SCAN comes to the shard", LIMIT, || {
        match client.call(&["SCAN", &cursor, "COUNT", "1000"]) {
            Value::Error(text) => Some(text),
            page => {
                cursor = page.items()[0].text();
                assert_ne!(cursor, "0", "it left the shard out");
                None
            }
        }
    });
    assert!(refused.contains("shard s2 "), "{refused}");
    assert_eq!(client.call(&["PUBLISH", "channel", "m"]), Value::Int(0));
    let mut listens = world.proxy.client();
    assert_eq!(
        listens.call(&["PSUBSCRIBE", "ch*"]).items()[0],
        Value::bulk("psubscribe")
    );

    world.shards[1].restart();
    wait_until("it is in again", LIMIT, || world.ejected().is_empty());
    let client = &mut world.clients[0];
    assert_eq!(client.call(&["SET", "pin:1", "v"]), Value::ok());
    assert!(!client.call(&["DBSIZE"]).is_error());
    wait_until("a channel of each shard is heard", LIMIT, || {
        (0..20).all(|n| client.call(&["PUBLISH", &format!("ch{n}"), "m"]) == Value::Int(1))
    });
}

#[test]
fn whoever_waits_at_a_stand_in_is_told_when_the_shard_is_back() {
    let mut world = World::new(2, "modula", SOON);
    let (own, other) = (world.keys_of(1, 1), world.keys_of(0, 1));
    world.clients[0].call(&["DEL", &own[0], &other[0]]);
    world.shards[1].kill();
    world.ask_until_ejected(&[1]);
    let (mut misplaced, mut placed) = (world.proxy.client(), world.proxy.client());
    misplaced.send(&["BLPOP", &own[0], "0"]);
    placed.send(&["BLPOP", &other[0], "0"]);
    wait_until("both wait at the other shard", LIMIT, || {
        world.shards[0].info_field("clients", "blocked_clients") == Some("2".into())
    });
    world.shards[1].restart();
    match misplaced.read() {
        Value::Error(text) => assert!(text.starts_with("UNBLOCKED "), "{text}"),
        value => panic!("{value:?}"),
    }
    assert_eq!(world.ejected(), Vec::<String>::new());
    let mut commands = Vec::new();
    encode(&mut commands, &["RPUSH", &other[0], "v"]);
    world.clients[0].send_raw(&commands);
    assert_eq!(placed.read().items()[1], Value::bulk("v"));
}

#[test]
fn a_reload_follows_and_a_restart_begins_with_all() {
    let mut world = World::new(4, "ketama", NEVER);
    world.shards[1].kill();
    world.ask_until_ejected(&[1]);

    // Without s4: s2 is still out.
    world.layout.shards.truncate(3);
    world.proxy.write_config(&world.layout, 2, NEVER);
    world.proxy.signal(Signal::Hup);
    wait_until("the new layout is in use", LIMIT, || {
        world.proxy.epoch_and_gate().0 == 2
    });
    assert_eq!(world.ejected(), ["s2"]);
    assert_eq!(world.metric("shard_ejected", 1), 1.0);
    let replies = world.clients[0].pipeline(&gets(0..200));
    assert!(replies.iter().all(|reply| *reply == Value::Null));

    // A wait that is over already under the new setting.
    world.shards[1].restart();
    world.proxy.write_config(&world.layout, 2, SOON);
    world.proxy.signal(Signal::Hup);
    wait_until("it is in again", LIMIT, || world.ejected().is_empty());
    world.shards[1].kill();
    world.ask_until_ejected(&[1]);

    // Turned off: it is in, dead as it is.
    world.proxy.write_config(&world.layout, 2, "");
    world.proxy.signal(Signal::Hup);
    wait_until("it is in again", LIMIT, || world.ejected().is_empty());
    let replies = world.clients[0].pipeline(&gets(0..200));
    assert!(replies.iter().any(Value::is_error));

    // Out again, then out of the layout.
    world.proxy.write_config(&world.layout, 2, NEVER);
    world.proxy.signal(Signal::Hup);
    world.ask_until_ejected(&[1]);
    world.layout.shards.remove(1);
    world.proxy.write_config(&world.layout, 2, NEVER);
    world.proxy.signal(Signal::Hup);
    wait_until("the new layout is in use", LIMIT, || {
        world.proxy.epoch_and_gate().0 == 3
    });
    assert_eq!(world.ejected(), Vec::<String>::new());
    let replies = world.clients[0].pipeline(&gets(0..200));
    assert!(replies.iter().all(|reply| *reply == Value::Null));

    world.shards[0].kill();
    wait_until("s1 is ejected", LIMIT, || {
        for client in &mut world.clients {
            client.pipeline(&gets(0..200));
        }
        ejected(&world.proxy) == ["s1"]
    });
    world.proxy.launch();
    assert_eq!(world.ejected(), Vec::<String>::new());
}
