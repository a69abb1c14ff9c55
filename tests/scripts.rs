//! EVALSHA through the proxy: a script whose text the proxy was sent is known to
//! every shard, also to one that came later or lost it.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::thread;
use std::time::Duration;

use support::world::error_of;
use support::{Client, RedisServer, Value, World, seeded, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
const SCRIPT: &str = "return {KEYS[1], ARGV[1]}";
/// Of `return(`.
const BROKEN_SHA: &str = "a33f1d65a8f3995e86b6bee044233440ce1d37b4";
const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

/// The name of a script, as a bare server tells it.
fn sha(world: &World, script: &str) -> String {
    world
        .oracle
        .client()
        .call(&["SCRIPT", "LOAD", script])
        .text()
}

fn pair(key: &str, arg: &str) -> Value {
    Value::Array(vec![Value::bulk(key), Value::bulk(arg)])
}

/// A key of each shard.
fn keys(world: &World) -> Vec<String> {
    let one = |shard| world.keys_of(shard, 1).remove(0);
    (0..world.shards.len()).map(one).collect()
}

/// The shard was restarted: its connections are made anew when it is asked.
fn wait_for_shard(client: &mut Client, key: &str) {
    wait_until("the shard is there again", LIMIT, || {
        !client.call(&["EXISTS", key]).is_error()
    });
}

#[test]
fn a_shard_that_was_restarted_learns_a_loaded_script_when_it_is_called() {
    let mut world = World::new(2, "");
    let (name, keys) = (sha(&world, SCRIPT), keys(&world));
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["SCRIPT", "LOAD", SCRIPT]), Value::bulk(&name));
    for key in &keys {
        let reply = client.call(&["EVALSHA", &name, "1", key, "x"]);
        assert_eq!(reply, pair(key, "x"));
    }
    for round in ["once", "twice"] {
        world.shards[0].restart();
        wait_for_shard(&mut client, &keys[0]);
        for command in ["EVALSHA", "EVALSHA_RO", "evalsha"] {
            let name = name.to_ascii_uppercase();
            let reply = client.call(&[command, &name, "1", &keys[0], round]);
            assert_eq!(reply, pair(&keys[0], round));
        }
    }
    // Also through a worker that never saw its text.
    let mut others: Vec<Client> = (0..4).map(|_| world.proxy.client()).collect();
    world.shards[1].restart();
    for other in &mut others {
        wait_for_shard(other, &keys[1]);
        let reply = other.call(&["EVALSHA", &name, "1", &keys[1], "y"]);
        assert_eq!(reply, pair(&keys[1], "y"));
    }
}

#[test]
fn a_script_evaluated_on_one_shard_can_be_called_on_the_others() {
    let world = World::new(2, "");
    let keys = keys(&world);
    for protocol in ["2", "3"] {
        let mut client = world.proxy.client();
        client.call(&["HELLO", protocol]);
        let script = format!("{SCRIPT} -- {protocol}");
        let name = sha(&world, &script);
        assert_eq!(
            error_of(&client.call(&["EVALSHA", &name, "1", &keys[1], "x"])),
            NOSCRIPT
        );
        client.call(&["EVAL", &script, "1", &keys[0], "x"]);
        for key in &keys {
            assert_eq!(
                client.call(&["EVALSHA", &name, "1", key, "x"]),
                pair(key, "x")
            );
        }
    }
}

#[test]
fn what_nobody_sent_is_answered_as_by_redis() {
    let world = World::new(1, "");
    let unknown = "0".repeat(40);
    world.same(&[
        &format!("EVALSHA {unknown} 1 k"),
        &format!("EVALSHA_RO {unknown} 1 k"),
        "EVALSHA short 1 k",
        "EVALSHA",
        &format!("EVALSHA {unknown} x k"),
        // Does not compile, so it is not known afterwards, either.
        "EVAL return( 1 k",
        &format!("EVALSHA {BROKEN_SHA} 1 k"),
    ]);
}

#[test]
fn a_pipeline_keeps_its_order_where_scripts_are_loaded_on_the_way() {
    const ROUNDS: usize = 40;
    let mut world = World::new(1, "");
    let mut rng = seeded("a_pipeline_keeps_its_order_where_scripts_are_loaded_on_the_way");
    let keys = keys(&world);
    let scripts: Vec<String> = (0..ROUNDS)
        .map(|number| {
            format!(
                "local was = redis.call('GET', KEYS[1]) \
                 redis.call('SET', KEYS[1], ARGV[1] .. '+') return was -- {number}"
            )
        })
        .collect();
    let names: Vec<String> = scripts.iter().map(|script| sha(&world, script)).collect();
    let mut client = world.proxy.client();
    for script in &scripts {
        client.call(&["EVAL", script, "1", &keys[0], "x"]);
    }
    world.shards[1].restart();
    wait_for_shard(&mut client, &keys[1]);
    for key in &keys {
        let mut requests: Vec<Vec<String>> = Vec::new();
        let mut expected = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let value = rng.u32(..).to_string();
            for words in [
                vec!["SET", key, &value],
                vec!["EVALSHA", name, "1", key, &number.to_string()],
                vec!["GET", key],
                vec!["EVALSHA", name, "1", key, "again"],
                vec!["PING"],
            ] {
                requests.push(words.into_iter().map(str::to_owned).collect());
            }
            expected.extend([
                Value::ok(),
                Value::bulk(&value),
                Value::bulk(format!("{number}+")),
                Value::bulk(format!("{number}+")),
                Value::Simple("PONG".into()),
            ]);
        }
        assert_eq!(client.pipeline(&requests), expected);
    }
}

#[test]
fn a_flush_through_the_proxy_forgets_them_for_every_worker() {
    let world = World::new(2, "");
    let (name, keys) = (sha(&world, SCRIPT), keys(&world));
    let mut clients: Vec<Client> = (0..4).map(|_| world.proxy.client()).collect();
    for how in [&["SCRIPT", "FLUSH"][..], &["script", "flush", "SYNC"]] {
        clients[0].call(&["SCRIPT", "LOAD", SCRIPT]);
        for client in &mut clients {
            let reply = client.call(&["EVALSHA", &name, "1", &keys[0], "x"]);
            assert_eq!(reply, pair(&keys[0], "x"));
        }
        assert!(clients[1].call(&["SCRIPT", "FLUSH", "NOSUCH"]).is_error());
        assert_eq!(clients[1].call(how), Value::ok());
        for client in &mut clients {
            let reply = client.call(&["EVALSHA", &name, "1", &keys[0], "x"]);
            assert_eq!(error_of(&reply), NOSCRIPT);
        }
        // Sent again on one shard, it is known to all.
        clients[2].call(&["EVAL", SCRIPT, "1", &keys[2], "x"]);
        for (client, key) in clients.iter_mut().zip(keys.iter().cycle()) {
            let reply = client.call(&["EVALSHA", &name, "1", key, "x"]);
            assert_eq!(reply, pair(key, "x"));
        }
    }
    // In one pipeline.
    let replies = clients[0].pipeline(&[
        vec!["SCRIPT", "FLUSH"],
        vec!["EVALSHA", &name, "1", &keys[0], "x"],
        vec!["EVAL", SCRIPT, "1", &keys[0], "y"],
        vec!["EVALSHA", &name, "1", &keys[0], "z"],
    ]);
    assert_eq!(error_of(&replies[1]), NOSCRIPT);
    assert_eq!(replies[3], pair(&keys[0], "z"));
}

/// The client sends the text again, as it would to Redis; then all is well.
#[test]
fn scripts_forgotten_behind_the_proxy_are_loaded_again_after_their_text() {
    let world = World::new(1, "");
    let (name, key) = (sha(&world, SCRIPT), world.keys_of(0, 1).remove(0));
    let mut client = world.proxy.client();
    let call = ["EVALSHA", &name, "1", &key, "x"];
    client.call(&["SCRIPT", "LOAD", SCRIPT]);
    assert_eq!(client.call(&call), pair(&key, "x"));
    world.shards[0].client().call(&["SCRIPT", "FLUSH"]);
    assert_eq!(error_of(&client.call(&call)), NOSCRIPT);
    client.call(&["EVAL", SCRIPT, "1", &key, "x"]);
    world.shards[0].client().call(&["SCRIPT", "FLUSH"]);
    assert_eq!(client.call(&call), pair(&key, "x"));
}

#[test]
fn transactions_call_scripts_that_their_shard_did_not_know() {
    let mut world = World::new(1, "");
    let (name, keys) = (sha(&world, SCRIPT), keys(&world));
    let mut client = world.proxy.client();
    client.call(&["EVAL", SCRIPT, "1", &keys[0], "x"]);
    for watches in [false, true] {
        for shard in [1, 2] {
            world.shards[shard].restart();
            let key = &keys[shard];
            wait_for_shard(&mut client, key);
            if watches {
                assert_eq!(client.call(&["WATCH", key]), Value::ok());
            }
            let replies = client.pipeline(&[
                vec!["MULTI"],
                vec!["SET", key, "1"],
                vec!["EVALSHA", &name, "1", key, "x"],
                vec!["EVAL", "return 7", "1", key],
                vec!["EXEC"],
                vec!["GET", key],
            ]);
            let done = vec![Value::ok(), pair(key, "x"), Value::Int(7)];
            assert_eq!(replies[4], Value::Array(done));
            assert_eq!(replies[5], Value::bulk("1"));
        }
    }
}

#[test]
fn a_shard_of_a_new_layout_knows_them() {
    let mut world = World::new(2, "");
    let name = sha(&world, SCRIPT);
    let mut client = world.proxy.client();
    client.call(&["SCRIPT", "LOAD", SCRIPT]);
    world.shards.push(RedisServer::start(&[]));
    let addresses: Vec<_> = world.shards.iter().map(RedisServer::address).collect();
    world.reload(&addresses);
    let keys = world.keys_of(3, 5);
    for key in &keys {
        let reply = client.call(&["EVALSHA", &name, "1", key, "x"]);
        assert_eq!(reply, pair(key, "x"));
    }
}

/// A text that is larger than what the proxy keeps is the shard's business.
#[test]
fn a_very_long_script_is_not_kept() {
    let world = World::new(1, "");
    let keys = keys(&world);
    let script = format!("return 1 -- {}", "x".repeat(600_000));
    let name = sha(&world, &script);
    let mut client = world.proxy.client();
    client.call(&["EVAL", &script, "1", &keys[0]]);
    let call = |key| ["EVALSHA", &name, "1", key];
    assert_eq!(client.call(&call(&keys[0])), Value::Int(1));
    assert_eq!(error_of(&client.call(&call(&keys[1]))), NOSCRIPT);
}

#[test]
fn scripts_are_called_while_their_shard_comes_and_goes() {
    const CLIENTS: usize = 4;
    let mut world = World::new(2, "");
    let key = world.keys_of(0, 1).remove(0);
    let script = "return redis.call('INCR', KEYS[1])";
    let name = sha(&world, script);
    world.proxy.client().call(&["SCRIPT", "LOAD", script]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (mut client, stop) = (world.proxy.client(), stop.clone());
            let (name, key) = (name.clone(), key.clone());
            thread::spawn(move || {
                let mut done = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match client.call(&["EVALSHA", &name, "1", &key]) {
                        Value::Int(_) => done += 1,
                        Value::Error(text) => {
                            assert!(text.starts_with("ERR shard s1"), "{text}");
                        }
                        other => panic!("{other:?}"),
                    }
                }
                done
            })
        })
        .collect();
    for _ in 0..5 {
        world.shards[0].restart();
        let mut client = world.proxy.client();
        wait_until("the script runs again", LIMIT, || {
            matches!(client.call(&["EVALSHA", &name, "1", &key]), Value::Int(_))
        });
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        assert!(thread.join().unwrap() > 0);
    }
}
