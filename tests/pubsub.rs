//! Channels through the proxy: published once, received by every subscriber.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::time::Duration;

use support::{Client, Keyferry, RedisServer, Value, World, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
const CHANNELS: usize = 12; // enough for all shards

fn world(workers: u32) -> World {
    World::new(workers, "")
}

fn channel(number: usize) -> String {
    format!("{number}-channel")
}

fn message(channel: &str, text: &str) -> Value {
    Value::Array(["message", channel, text].map(Value::bulk).into())
}

#[test]
fn subscribing_is_answered_as_by_redis() {
    let world = world(1);
    world.same_replies(&[
        ("SUBSCRIBE a b c", 3),
        ("SUBSCRIBE a", 1),
        ("PSUBSCRIBE x* y*", 2),
        ("SSUBSCRIBE s", 1),
        ("PING", 1),
        ("PING hello", 1),
        ("GET k", 1),
        ("CONFIG GET save", 1),
        ("UNSUBSCRIBE b", 1),
        ("UNSUBSCRIBE never", 1),
        ("PUNSUBSCRIBE", 2),
        ("SUNSUBSCRIBE s", 1),
        ("GET k", 1),
        ("UNSUBSCRIBE c a", 2),
        ("UNSUBSCRIBE", 1),
        ("GET k", 1),
        ("SUBSCRIBE a", 1),
        ("RESET", 1),
        ("GET k", 1),
        ("SUBSCRIBE", 1),
        ("PUBLISH nobody text", 1),
    ]);
}

#[test]
fn each_message_reaches_every_subscriber_once() {
    let world = world(2);
    let names: Vec<_> = (0..CHANNELS).map(channel).collect();
    let mut all: Vec<&str> = vec!["SUBSCRIBE"];
    all.extend(names.iter().map(String::as_str));
    let mut listeners: Vec<Client> = (0..6).map(|_| world.proxy.client()).collect();
    for listener in &mut listeners {
        listener.send(&all);
        for (number, name) in names.iter().enumerate() {
            let told = listener.read();
            assert_eq!(told.items()[1], Value::bulk(name));
            assert_eq!(told.items()[2], Value::Int(number as i64 + 1));
        }
    }
    let mut pattern = world.proxy.client();
    pattern.call(&["PSUBSCRIBE", "*-channel"]);
    let mut publisher = world.proxy.client();
    for round in 0..50 {
        for name in &names {
            let text = format!("{name} {round}");
            assert_eq!(publisher.call(&["PUBLISH", name, &text]), Value::Int(7));
            for listener in &mut listeners {
                assert_eq!(listener.read(), message(name, &text));
            }
            let parts = ["pmessage", "*-channel", name, &text];
            assert_eq!(pattern.read(), Value::Array(parts.map(Value::bulk).into()));
        }
    }
    // Nothing more came than that.
    for listener in &mut listeners {
        assert_eq!(
            listener.call(&["PING"]),
            Value::Array(vec![Value::bulk("pong"), Value::bulk("")])
        );
    }
}

/// As Celery stores a result: a value, and the word that it is there.
#[test]
fn a_transaction_publishes_on_its_shard() {
    let world = world(1);
    let mut listener = world.proxy.client();
    let name = channel(0);
    listener.call(&["SUBSCRIBE", &name]);
    let mut publisher = world.proxy.client();
    publisher.call(&["MULTI"]);
    publisher.call(&["SET", &name, "value"]);
    let queued = publisher.call(&["PUBLISH", &name, "stored"]);
    assert_eq!(queued, Value::Simple("QUEUED".into()));
    let done = Value::Array(vec![Value::Simple("OK".into()), Value::Int(1)]);
    assert_eq!(publisher.call(&["EXEC"]), done);
    assert_eq!(listener.read(), message(&name, "stored"));

    // A channel counts as a key: one that belongs elsewhere is told at EXEC.
    let apart: Vec<Value> = (1..CHANNELS)
        .map(|number| {
            publisher.call(&["MULTI"]);
            publisher.call(&["SET", &name, "value"]);
            publisher.call(&["PUBLISH", &channel(number), "elsewhere"]);
            publisher.call(&["EXEC"])
        })
        .filter(|reply| matches!(reply, Value::Error(text) if text.starts_with("CROSSSLOT")))
        .collect();
    assert!(!apart.is_empty(), "{CHANNELS} channels on one shard");
}

#[test]
fn a_resp3_client_goes_on_beside_its_subscription() {
    let world = world(1);
    let (mut client, mut publisher) = (world.proxy.client(), world.proxy.client());
    client.call(&["HELLO", "3"]);
    client.send(&["SUBSCRIBE", "news"]);
    assert_eq!(
        client.read_reply_bytes().unwrap(),
        b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
    );
    for round in 0..20 {
        let text = format!("{round}");
        assert_eq!(client.call(&["SET", "k", &text]), Value::ok());
        publisher.call(&["PUBLISH", "news", &text]);
        let push = client.read_reply_bytes().unwrap();
        let expected = format!(
            ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${}\r\n{text}\r\n",
            text.len()
        );
        assert_eq!(push, expected.as_bytes());
        assert_eq!(client.call(&["GET", "k"]), Value::bulk(&text));
    }
}

#[test]
fn shards_forget_what_nobody_listens_to() {
    let world = world(1);
    let subscribed = || -> usize {
        let count = |shard: &RedisServer| {
            shard.client().call(&["PUBSUB", "CHANNELS"]).items().len()
                + shard.client().call(&["PUBSUB", "NUMPAT"]).int() as usize
        };
        world.shards.iter().map(count).sum()
    };
    let mut staying = world.proxy.client();
    staying.call(&["SUBSCRIBE", &channel(0)]);
    for leaves in [false, true] {
        let mut going = world.proxy.client();
        for number in 0..CHANNELS {
            going.call(&["SUBSCRIBE", &channel(number)]);
        }
        going.call(&["PSUBSCRIBE", "p*"]);
        assert_eq!(subscribed(), CHANNELS + world.shards.len());
        if leaves {
            drop(going);
        } else {
            assert_eq!(going.call(&["RESET"]), Value::Simple("RESET".into()));
        }
        wait_until("the shards forgot", LIMIT, || subscribed() == 1);
    }
    world
        .proxy
        .client()
        .call(&["PUBLISH", &channel(0), "still"]);
    assert_eq!(staying.read(), message(&channel(0), "still"));
}

#[test]
fn a_shard_that_goes_ends_its_subscribers_alone() {
    let mut world = world(1);
    let mut listeners: Vec<Client> = (0..CHANNELS).map(|_| world.proxy.client()).collect();
    for (number, listener) in listeners.iter_mut().enumerate() {
        listener.call(&["SUBSCRIBE", &channel(number)]);
    }
    let mut lost = world.shards[0].client();
    let on_lost: Vec<_> = lost.call(&["PUBSUB", "CHANNELS"]).items().to_vec();
    assert!((1..CHANNELS).contains(&on_lost.len()));
    world.shards[0].restart();
    let mut publisher = world.proxy.client();
    for (number, mut listener) in listeners.into_iter().enumerate() {
        let name = channel(number);
        if on_lost.contains(&Value::bulk(&name)) {
            assert!(listener.read_to_end().unwrap().is_empty());
            // It comes again, as it would to Redis.
            wait_until("it can subscribe again", LIMIT, || {
                let mut again = world.proxy.client();
                again.call(&["SUBSCRIBE", &name]) != Value::Null
                    && publisher.call(&["PUBLISH", &name, "x"]) == Value::Int(1)
                    && again.try_read().ok() == Some(message(&name, "x"))
            });
        } else {
            publisher.call(&["PUBLISH", &name, "y"]);
            assert_eq!(listener.read(), message(&name, "y"));
        }
    }
}

#[test]
fn subscriptions_follow_their_channels_to_a_new_layout() {
    let mut world = world(1);
    let mut listener = world.proxy.client();
    for number in 0..CHANNELS {
        listener.call(&["SUBSCRIBE", &channel(number)]);
    }
    listener.call(&["PSUBSCRIBE", "*-channel"]);
    let added = RedisServer::start_many(2, &[]);
    let all = world.shards.iter().chain(&added).map(RedisServer::address);
    world.reload(&all.collect::<Vec<_>>());
    let patterns = |server: &RedisServer| server.client().call(&["PUBSUB", "NUMPAT"]).int();
    wait_until("the new shards have the pattern", LIMIT, || {
        added.iter().all(|server| patterns(server) == 1)
    });
    let channels = |server: &RedisServer| {
        let found = server.client().call(&["PUBSUB", "CHANNELS"]);
        found.items().len()
    };
    wait_until(
        "some channels moved, and none is left behind",
        LIMIT,
        || {
            let on_new: usize = added.iter().map(channels).sum();
            let on_old: usize = world.shards.iter().map(channels).sum();
            on_new > 0 && on_new + on_old == CHANNELS
        },
    );
    let mut publisher = world.proxy.client();
    for number in 0..CHANNELS {
        let name = channel(number);
        publisher.call(&["PUBLISH", &name, "after"]);
        let mut got = [listener.read(), listener.read()];
        got.sort_by_key(|value| value.items().len());
        let parts = ["pmessage", "*-channel", &name, "after"];
        let pattern = Value::Array(parts.map(Value::bulk).into());
        assert_eq!(got, [message(&name, "after"), pattern]);
    }
}

#[test]
fn client_list_tells_who_listens_waits_or_is_in_a_transaction() {
    let world = world(1);
    let mut asking = world.proxy.client();
    let named = |name: &str, commands: &[&[&str]]| {
        let mut client = world.proxy.client();
        client.call(&["CLIENT", "SETNAME", name]);
        commands.iter().for_each(|command| client.send(command));
        client
    };
    let _listener = named("listens", &[&["SUBSCRIBE", "a"], &["PSUBSCRIBE", "p*"]]);
    let _queueing = named("queues", &[&["MULTI"], &["SET", "k", "v"]]);
    let _waiting = named("waits", &[&["BLPOP", "none", "0"]]);
    let mut line = |name: &str| {
        let list = asking.call(&["CLIENT", "LIST"]).text();
        let found = list
            .lines()
            .find(|line| line.contains(&format!("name={name} ")));
        found.unwrap_or_default().to_owned()
    };
    for (name, facts) in [
        ("listens", "flags=P db=0 sub=1 psub=1 ssub=0 multi=-1"),
        ("queues", "flags=x db=0 sub=0 psub=0 ssub=0 multi=1"),
        ("waits", "flags=b db=0 sub=0 psub=0 ssub=0 multi=-1"),
    ] {
        wait_until("the list says so", LIMIT, || line(name).contains(facts));
    }
    let listeners = asking.call(&["CLIENT", "LIST", "TYPE", "pubsub"]).text();
    assert_eq!(listeners.lines().count(), 1, "{listeners}");
}

/// The same listeners at the proxy and at a bare server.
fn listen_at_both(world: &World, commands: &[&[&str]]) -> [Client; 2] {
    let mut both = [world.proxy.client(), world.oracle.client()];
    for client in &mut both {
        for command in commands {
            client.send(command);
            for _ in 1..command.len() {
                client.read();
            }
        }
    }
    both
}

fn ask_both(world: &World, request: &[&str]) -> [Value; 2] {
    [world.proxy.client(), world.oracle.client()].map(|mut client| client.call(request))
}

#[test]
fn publish_and_pubsub_count_clients_as_redis_does() {
    let world = world(3);
    let names: Vec<_> = (0..CHANNELS).map(channel).collect();
    let mut listeners: Vec<[Client; 2]> = Vec::new();
    let compare = || {
        let mut numsub = vec!["PUBSUB", "NUMSUB"];
        numsub.extend(names.iter().map(String::as_str));
        let sharded = [&["PUBSUB", "SHARDNUMSUB"], &numsub[2..]].concat();
        for request in [&numsub[..], &sharded, &["PUBSUB", "NUMPAT"]] {
            let [ours, theirs] = ask_both(&world, request);
            assert_eq!(ours, theirs, "{request:?}");
        }
        for request in [
            &["PUBSUB", "CHANNELS"][..],
            &["PUBSUB", "CHANNELS", "1*"],
            &["PUBSUB", "CHANNELS", "*-CHANNEL"],
            &["PUBSUB", "SHARDCHANNELS"],
            &["PUBSUB", "SHARDCHANNELS", "[0-4]-*"],
        ] {
            let [ours, theirs] = ask_both(&world, request).map(|reply| {
                let mut names: Vec<_> = reply.items().iter().map(Value::text).collect();
                names.sort();
                names
            });
            assert_eq!(ours, theirs, "{request:?}");
        }
        for name in &names {
            for verb in ["PUBLISH", "SPUBLISH"] {
                let [ours, theirs] = ask_both(&world, &[verb, name, "text"]);
                assert_eq!(ours, theirs, "{verb} {name}");
            }
        }
    };
    compare();
    for round in 0..9 {
        let own = &names[round % CHANNELS];
        listeners.push(listen_at_both(
            &world,
            &[&["SUBSCRIBE", &names[0], own, own], &["SSUBSCRIBE", own]],
        ));
        listeners.push(listen_at_both(&world, &[&["PSUBSCRIBE", "*", "[0-5]-c*"]]));
        compare();
    }
    // Some leave in their own words, some without any.
    for both in &mut listeners[..6] {
        for client in both {
            client.call(&["RESET"]);
        }
    }
    // What a shard knows may come later than what the proxy does.
    let wait_for_shards = || {
        for name in &names {
            wait_until("the shards know who left", LIMIT, || {
                let [ours, theirs] = ask_both(&world, &["PUBLISH", name, "text"]);
                ours == theirs
            });
        }
    };
    wait_for_shards();
    compare();
    listeners.truncate(8);
    wait_until("the proxy and the server know who left", LIMIT, || {
        let left = ask_both(&world, &["PUBSUB", "NUMSUB", &names[0]]);
        let [ours, theirs] = left.map(|reply| reply.items()[1].int());
        ours == theirs && ours == 1
    });
    wait_for_shards();
    compare();
}

#[test]
fn other_listeners_at_a_shard_are_counted_too() {
    let world = world(1);
    let other = Keyferry::start(&world.layout);
    let mut here: Vec<_> = (0..3).map(|_| world.proxy.client()).collect();
    let mut there: Vec<_> = (0..3).map(|_| other.client()).collect();
    let mut direct: Vec<_> = world.shards.iter().map(RedisServer::client).collect();
    for client in here.iter_mut().chain(&mut there).chain(&mut direct) {
        client.call(&["SUBSCRIBE", "news"]);
    }
    // Its own three, one connection for each worker of the other proxy, one at the shard.
    let heard = world.proxy.client().call(&["PUBLISH", "news", "x"]);
    assert_eq!(heard, Value::Int(3 + 2 + 1));
    for client in here.iter_mut().chain(&mut there) {
        assert_eq!(client.read(), message("news", "x"));
    }
    let count = world.proxy.client().call(&["PUBSUB", "NUMSUB", "news"]);
    assert_eq!(count.items()[1], Value::Int(3));
}

#[test]
fn a_transaction_publishes_beside_the_key_of_the_same_name() {
    let world = world(1);
    let mut client = world.proxy.client();
    for number in 0..CHANNELS {
        let name = channel(number);
        let mut listener = world.proxy.client();
        listener.call(&["SUBSCRIBE", &name]);
        let replies = client.pipeline(&[
            vec!["MULTI"],
            vec!["SET", &name, "result"],
            vec!["PUBLISH", &name, "done"],
            vec!["EXEC"],
        ]);
        let done = Value::Array(vec![Value::ok(), Value::Int(1)]);
        assert_eq!(replies[3], done);
        assert_eq!(listener.read(), message(&name, "done"));
    }
    // A channel is on one shard, as a key is.
    let mut requests = vec![vec!["MULTI".to_owned()]];
    requests.extend((0..CHANNELS).map(|n| vec!["PUBLISH".into(), channel(n), "x".into()]));
    requests.push(vec!["EXEC".into()]);
    let replies = client.pipeline(&requests);
    assert!(format!("{:?}", replies.last().unwrap()).contains("CROSSSLOT"));
}
