//! Commands without a key, sent to all shards: the answers one server with all
//! the keys would give.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::keyferry::LayoutText;
use support::stage::JOB_LIMIT;
use support::{Client, Keyferry, RedisServer, Shape, Stage, Value, seeded, wait_until};

struct World {
    shards: Vec<RedisServer>,
    proxy: Keyferry,
}

fn world(pool_extra: &str) -> World {
    let shards = RedisServer::start_many(3, &[]);
    let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    let proxy = Keyferry::start_with(&layout, 2, pool_extra);
    World { shards, proxy }
}

fn fill(client: &mut Client, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        assert_eq!(client.call(&["SET", key, "v"]), Value::ok());
    }
    keys
}

fn names(reply: &Value) -> BTreeSet<String> {
    let names: BTreeSet<String> = reply.items().iter().map(Value::text).collect();
    assert_eq!(names.len(), reply.items().len(), "a key was told twice");
    names
}

/// All keys of a whole SCAN; its pages, too.
fn scan(client: &mut Client, options: &[&str]) -> (BTreeSet<String>, usize) {
    let (mut all, mut pages, mut cursor) = (BTreeSet::new(), 0, "0".to_owned());
    loop {
        let mut ask = vec!["SCAN", &cursor];
        ask.extend(options);
        let reply = client.call(&ask);
        let [next, keys] = reply.items() else {
            panic!("SCAN answers two elements, not {reply:?}");
        };
        all.extend(keys.items().iter().map(Value::text));
        pages += 1;
        let next = next.text();
        if next == "0" {
            return (all, pages);
        }
        assert!(
            next.parse::<u64>().unwrap() < 1 << 53,
            "{next} is exact in JavaScript"
        );
        cursor = next;
    }
}

#[test]
fn all_keys_are_told_once_in_both_protocols() {
    let world = world("");
    let mut client = world.proxy.client();
    let keys = fill(&mut client, 500);
    for protocol in ["2", "3"] {
        client.call(&["HELLO", protocol]);
        assert_eq!(names(&client.call(&["KEYS", "*"])), keys);
        assert_eq!(names(&client.call(&["KEYS", "key:1?"])).len(), 10);
        assert_eq!(client.call(&["KEYS", "none*"]), Value::Array(vec![]));
        assert_eq!(client.call(&["DBSIZE"]), Value::Int(500));
        let (found, pages) = scan(&mut client, &[]);
        assert_eq!(found, keys);
        assert!(pages > 30, "{pages} pages");
        assert_eq!(scan(&mut client, &["COUNT", "1000"]), (keys.clone(), 3));
        assert_eq!(
            scan(&mut client, &["MATCH", "key:1?", "TYPE", "string"])
                .0
                .len(),
            10
        );
        assert!(scan(&mut client, &["TYPE", "list"]).0.is_empty());
    }
    // Another database is another set of keys.
    client.call(&["SELECT", "2"]);
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(0));
    assert_eq!(client.call(&["RANDOMKEY"]), Value::Null);
    client.call(&["SET", "only", "v"]);
    assert_eq!(
        client.call(&["KEYS", "*"]),
        Value::Array(vec![Value::bulk("only")])
    );
}

#[test]
fn a_pipeline_of_them_keeps_its_order() {
    let world = world("");
    let mut client = world.proxy.client();
    let replies = client.pipeline(&[
        vec!["SET", "a", "1"],
        vec!["KEYS", "*"],
        vec!["SET", "b", "1"],
        vec!["DBSIZE"],
        vec!["SCAN", "x"],
        vec!["DEL", "a", "b"],
        vec!["DBSIZE"],
    ]);
    assert_eq!(
        replies,
        [
            Value::ok(),
            Value::Array(vec![Value::bulk("a")]),
            Value::ok(),
            Value::Int(2),
            Value::Error("ERR invalid cursor".into()),
            Value::Int(2),
            Value::Int(0),
        ]
    );
}

#[test]
fn copies_that_a_reshard_left_behind_are_not_told() {
    let world = world("");
    let mut client = world.proxy.client();
    let keys = fill(&mut client, 100);
    for shard in &world.shards {
        let mut direct = shard.client();
        for key in &keys {
            direct.call(&["SET", key, "copy"]);
        }
    }
    assert_eq!(names(&client.call(&["KEYS", "*"])), keys);
    assert_eq!(scan(&mut client, &[]).0, keys);
    for _ in 0..20 {
        assert!(keys.contains(&client.call(&["RANDOMKEY"]).text()));
    }
}

#[test]
fn a_random_key_is_found_whichever_shard_has_it() {
    let world = world("");
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["RANDOMKEY"]), Value::Null);
    for number in 0..20 {
        let key = format!("k{number}");
        client.call(&["SET", &key, "v"]);
        assert_eq!(client.call(&["RANDOMKEY"]), Value::bulk(&key));
        client.call(&["DEL", &key]);
    }
    let keys = fill(&mut client, 30);
    let seen: BTreeSet<String> = (0..500)
        .map(|_| client.call(&["RANDOMKEY"]).text())
        .collect();
    assert!(
        seen.is_subset(&keys) && seen.len() > 20,
        "{} of 30",
        seen.len()
    );
}

#[test]
fn wrong_cursors_and_options_have_the_words_of_redis() {
    let world = world("");
    let oracle = RedisServer::start(&[]);
    let (mut client, mut oracle) = (world.proxy.client(), oracle.client());
    for request in [
        &["SCAN"][..],
        &["SCAN", "x"],
        &["SCAN", " 1"],
        &["SCAN", "1x"],
        &["SCAN", "99999999999999999999"],
        &["SCAN", "0", "COUNT", "0"],
        &["SCAN", "0", "COUNT", "x"],
        &["SCAN", "0", "NOSUCH"],
        &["SCAN", "", "COUNT"],
        &["KEYS"],
        &["DBSIZE", "x"],
        &["SCRIPT", "LOAD", "return ("],
        &["SCRIPT", "FLUSH", "NOSUCH"],
        &["FUNCTION", "LOAD", "no shebang"],
        &["FUNCTION", "DELETE", "none"],
        &["FUNCTION", "FLUSH", "NOSUCH"],
    ] {
        assert_eq!(client.call(request), oracle.call(request), "{request:?}");
    }
    // A shard that is not there.
    assert_eq!(
        client.call(&["SCAN", "3"]),
        Value::Error("ERR invalid cursor".into())
    );
}

#[test]
fn scripts_and_functions_are_on_every_shard() {
    let world = world("");
    let oracle = RedisServer::start(&[]);
    let (mut client, mut oracle) = (world.proxy.client(), oracle.client());
    let sum = oracle.call(&["SCRIPT", "LOAD", "return KEYS[1]"]);
    assert_eq!(client.call(&["SCRIPT", "LOAD", "return KEYS[1]"]), sum);
    let library = "#!lua name=lib\nredis.register_function('f', function(keys) return keys[1] end)";
    for request in [
        &["SCRIPT", "EXISTS", &sum.text(), "none"][..],
        &["FUNCTION", "LOAD", library],
        &["FUNCTION", "LOAD", library],
        &["FUNCTION", "LOAD", "REPLACE", library],
        &["FUNCTION", "LIST"],
        &["FUNCTION", "STATS"],
        &["FUNCTION", "DUMP"],
        &["OBJECT", "HELP"],
        &["SCRIPT", "HELP"],
    ] {
        assert_eq!(client.call(request), oracle.call(request), "{request:?}");
    }
    for number in 0..30 {
        let key = format!("k{number}");
        assert_eq!(
            client.call(&["EVALSHA", &sum.text(), "1", &key]),
            Value::bulk(&key)
        );
        assert_eq!(client.call(&["FCALL", "f", "1", &key]), Value::bulk(&key));
    }
    // One shard lost its scripts: they do not exist any more.
    world.shards[1].client().call(&["SCRIPT", "FLUSH"]);
    assert_eq!(
        client.call(&["SCRIPT", "EXISTS", &sum.text()]),
        Value::Array(vec![Value::Int(0)])
    );
    let dump = client.call(&["FUNCTION", "DUMP"]);
    assert_eq!(client.call(&["FUNCTION", "DELETE", "lib"]), Value::ok());
    assert_eq!(client.call(&["FUNCTION", "LIST"]), Value::Array(vec![]));
    let restore = [&b"FUNCTION"[..], b"RESTORE", dump.bytes()];
    assert_eq!(client.call(&restore), Value::ok());
    assert_eq!(client.call(&["FUNCTION", "FLUSH"]), Value::ok());
    assert_eq!(client.call(&["SCRIPT", "FLUSH"]), Value::ok());
    for command in ["SCRIPT", "FUNCTION"] {
        assert!(client.call(&[command, "KILL"]).is_error());
    }
}

#[test]
fn flushing_is_refused_until_the_pool_allows_it() {
    let mut world = world("");
    let mut client = world.proxy.client();
    fill(&mut client, 50);
    for command in ["FLUSHALL", "FLUSHDB"] {
        let Value::Error(text) = client.call(&[command]) else {
            panic!("{command} was not refused");
        };
        assert!(text.contains("allow_flush = true"), "{text}");
    }
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(50));
    let addresses: Vec<_> = world.shards.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    world.proxy.write_config(&layout, 2, "allow_flush = true");
    world.proxy.launch();
    let mut client = world.proxy.client();
    client.call(&["SELECT", "1"]);
    fill(&mut client, 20);
    assert!(client.call(&["FLUSHDB", "NOSUCH"]).is_error());
    assert_eq!(client.call(&["FLUSHDB", "ASYNC"]), Value::ok());
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(0));
    client.call(&["SELECT", "0"]);
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(50));
    assert_eq!(client.call(&["FLUSHALL", "SYNC"]), Value::ok());
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(0));
}

#[test]
fn a_shard_that_is_down_makes_the_whole_answer_an_error() {
    let mut world = world("");
    let mut client = world.proxy.client();
    fill(&mut client, 30);
    world.shards.remove(1);
    for request in [
        &["KEYS", "*"][..],
        &["DBSIZE"],
        &["RANDOMKEY"],
        &["SCRIPT", "LOAD", "return 1"],
    ] {
        let reply = client.call(request);
        assert!(reply.is_error(), "{request:?}: {reply:?}");
    }
    // What any shard can answer is still answered.
    assert!(!client.call(&["FUNCTION", "LIST"]).is_error());
    assert_eq!(client.call(&["PING"]), Value::Simple("PONG".into()));
}

#[test]
fn a_scan_sees_what_is_there_all_the_time_while_others_come_and_go() {
    let world = world("");
    let mut rng = seeded("a_scan_sees_what_is_there_all_the_time_while_others_come_and_go");
    let (mut client, mut writer) = (world.proxy.client(), world.proxy.client());
    let stays = fill(&mut client, 2000);
    let mut cursor = "0".to_owned();
    let mut seen = BTreeSet::new();
    loop {
        for _ in 0..20 {
            let key = format!("other:{}", rng.u32(..3000));
            let verb = if rng.bool() { "SET" } else { "GETDEL" };
            let words: &[&str] = if verb == "SET" {
                &[verb, &key, "v"]
            } else {
                &[verb, &key]
            };
            writer.call(words);
        }
        let reply = client.call(&["SCAN", &cursor]);
        seen.extend(reply.items()[1].items().iter().map(Value::text));
        cursor = reply.items()[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert!(stays.is_subset(&seen));
}

/// Writes through one proxy and asks the other for all keys, until told to stop.
fn compare_until(stop: &AtomicBool, rounds: &AtomicU64, stage: &Stage, stay: &BTreeSet<String>) {
    let mut writer = stage.proxies[0].client();
    let mut reader = stage.proxies[1].client();
    let mut own = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        let key = format!("own:{round}");
        assert_eq!(writer.call(&["SET", &key, "v"]), Value::ok());
        own.insert(key);
        if own.len() > 100 {
            let first = own.pop_first().unwrap();
            assert_eq!(writer.call(&["DEL", &first]), Value::Int(1));
        }
        assert_eq!(names(&reader.call(&["KEYS", "own:*"])), own);
        if round.is_multiple_of(8) {
            assert_eq!(&names(&writer.call(&["KEYS", "key:*"])), stay);
            assert!(writer.call(&["RANDOMKEY"]) != Value::Null);
        }
    }
    for key in own {
        assert_eq!(writer.call(&["DEL", &key]), Value::Int(1));
    }
}

#[test]
fn all_keys_are_told_at_every_moment_of_a_reshard_through_either_proxy() {
    let stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    let mut client = stage.proxies[0].client();
    let keys = fill(&mut client, 3000);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let some_rounds = || {
        let before = rounds.load(Ordering::Relaxed);
        wait_until("keys are compared", Duration::from_secs(60), || {
            rounds.load(Ordering::Relaxed) > before + 50
        });
    };
    thread::scope(|scope| {
        let comparing = scope.spawn(|| compare_until(&stop, &rounds, &stage, &keys));
        some_rounds();
        let mut job = stage.start_job(&["--switch", "auto"]);
        let (code, stdout, stderr) = job.finish(JOB_LIMIT);
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        some_rounds();
        // Copies are still on the old shards.
        assert_eq!(
            scan(&mut client, &["COUNT", "500", "MATCH", "key:*"]).0,
            keys
        );
        let complete = job.verb("complete", &["--yes", "--purge"]);
        assert!(complete.status.success(), "{complete:?}");
        some_rounds();
        stop.store(true, Ordering::Relaxed);
        comparing.join().unwrap();
    });
    stage.assert_epoch(2);
    assert_eq!(client.call(&["DBSIZE"]), Value::Int(3000));
}
