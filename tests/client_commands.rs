//! What the proxy answers itself about clients and "the server". Where Redis has
//! one right answer, `commands_compared.rs` asks it; here is what a sequence of
//! requests does, and what the proxy's own facts are.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeMap;

use support::client::encode;
use support::keyferry::LayoutText;
use support::{Client, Keyferry, RedisServer, Value, seeded};

struct World {
    proxy: Keyferry,
    oracle: RedisServer,
    _shards: Vec<RedisServer>,
}

fn world() -> World {
    let shards = RedisServer::start_many(2, &[]);
    let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    World {
        proxy: Keyferry::start_with(&layout, 3, ""),
        oracle: RedisServer::start(&[]),
        _shards: shards,
    }
}

const END: &str = "this is the end";

/// Everything that comes back for `requests`, up to a last ECHO.
fn all_replies(client: &mut Client, requests: &[Vec<String>]) -> Vec<String> {
    let mut bytes = Vec::new();
    for request in requests {
        encode(&mut bytes, request);
    }
    encode(&mut bytes, &["CLIENT", "REPLY", "ON"]);
    encode(&mut bytes, &["ECHO", END]);
    client.send_raw(&bytes);
    let mut replies = Vec::new();
    loop {
        let reply = client.read();
        if reply == Value::bulk(END) {
            return replies;
        }
        let text = format!("{reply:?}");
        replies.push(text.chars().take(100).collect());
    }
}

fn requests(lines: &[&str]) -> Vec<Vec<String>> {
    let words = |line: &&str| line.split(' ').map(str::to_owned).collect();
    lines.iter().map(words).collect()
}

#[test]
fn replies_that_a_client_does_not_want_are_not_sent() {
    let world = world();
    let (mut ours, mut theirs) = (world.proxy.client(), world.oracle.client());
    let large = "x".repeat(1_000_000);
    for client in [&mut ours, &mut theirs] {
        assert_eq!(client.call(&["SET", "large", &large]), Value::ok());
    }
    let (off, on, skip) = ("CLIENT REPLY OFF", "CLIENT REPLY ON", "CLIENT REPLY SKIP");
    let cases: &[&[&str]] = &[
        &["SET a 1", off, "GET a", "PING", "nosuch", "GET"],
        &["SET a 1", off, "GET a", on, "GET a", "GET a"],
        &["GET a", skip, "GET a", "GET a", "GET a"],
        &["GET a", skip, skip, "GET a", "GET b", "GET c"],
        &["GET a", skip, "MGET a b c d e f", "GET b", "GET c"],
        &[skip, "PING one", "PING two"],
        &[skip, "nosuch", "PING two"],
        &[skip, on, "PING two"],
        &[off, skip, "PING one", "PING two"],
        &[skip, "GET large", "GET a"],
        &[off, "GET large", "GET large", "GET a", on, "GET a"],
        &[skip, "GET a", "GET large", skip, "GET large", "GET a"],
        &["CLIENT REPLY", "CLIENT REPLY x", "CLIENT REPLY on"],
        &[off, "RESET", "PING"],
        &[off, "SELECT 1", on, "GET a", "SELECT 0"],
    ];
    for case in cases {
        let case = requests(case);
        assert_eq!(
            all_replies(&mut ours, &case),
            all_replies(&mut theirs, &case),
            "{case:?}"
        );
    }
    let mut rng = seeded("replies_that_a_client_does_not_want_are_not_sent");
    for _ in 0..100 {
        let case: Vec<Vec<String>> = (0..rng.usize(1..60))
            .map(|_| {
                let key = format!("k{}", rng.u32(..20));
                let line = match rng.u32(..12) {
                    0 => off.to_owned(),
                    1 => on.to_owned(),
                    2 | 3 => skip.to_owned(),
                    4 => format!("MGET {key} a b c"),
                    5 => format!("INCR {key}"),
                    6 => "PING".to_owned(),
                    7 => format!("DEL {key} a b"),
                    8 => "nosuch".to_owned(),
                    9 => "GET large".to_owned(),
                    _ => format!("GET {key}"),
                };
                line.split(' ').map(str::to_owned).collect()
            })
            .collect();
        assert_eq!(
            all_replies(&mut ours, &case),
            all_replies(&mut theirs, &case),
            "{case:?}"
        );
    }
}

/// `name=value` of one line of CLIENT LIST.
fn fields(line: &str) -> BTreeMap<String, String> {
    let pairs = line.split(' ').filter_map(|field| field.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn listed(client: &mut Client, options: &[&str]) -> Vec<BTreeMap<String, String>> {
    let mut ask = vec!["CLIENT", "LIST"];
    ask.extend(options);
    client.call(&ask).text().lines().map(fields).collect()
}

#[test]
fn clients_are_listed_and_ended() {
    let world = world();
    let mut asker = world.proxy.client();
    let mut others: Vec<_> = (0..6).map(|_| world.proxy.client()).collect();
    let ids: Vec<String> = others
        .iter_mut()
        .map(|client| client.call(&["CLIENT", "ID"]).int().to_string())
        .collect();
    others[0].call(&["CLIENT", "SETNAME", "first"]);
    others[0].call(&["SELECT", "3"]);
    let own = asker.call(&["CLIENT", "ID"]).int().to_string();
    assert_eq!(listed(&mut asker, &[]).len(), 7);
    assert_eq!(listed(&mut asker, &["TYPE", "normal"]).len(), 7);
    assert_eq!(listed(&mut asker, &["TYPE", "pubsub"]).len(), 0);
    let two = listed(&mut asker, &["ID", &ids[0], &ids[1], "987654"]);
    let found: Vec<&str> = two.iter().map(|line| line["id"].as_str()).collect();
    let mut asked = [ids[0].as_str(), ids[1].as_str()];
    asked.sort_by_key(|id| id.parse::<u64>().unwrap());
    assert_eq!(found, asked);
    let one = listed(&mut asker, &["ID", &ids[0]]);
    assert_eq!(
        (one[0]["name"].as_str(), one[0]["db"].as_str()),
        ("first", "3")
    );
    assert_eq!(one[0]["laddr"], world.proxy.address());

    let is_gone = |client: &mut Client| client.try_call(&["PING"]).is_err();
    assert_eq!(
        asker.call(&["CLIENT", "KILL", "ID", &ids[0]]),
        Value::Int(1)
    );
    assert!(is_gone(&mut others[0]));
    assert_eq!(
        asker.call(&["CLIENT", "KILL", "ID", &ids[0]]),
        Value::Int(0)
    );
    let second = listed(&mut asker, &["ID", &ids[1]]);
    let address = &second[0]["addr"];
    assert_eq!(asker.call(&["CLIENT", "KILL", address]), Value::ok());
    assert!(is_gone(&mut others[1]));
    let third = listed(&mut asker, &["ID", &ids[2]]);
    let address = &third[0]["addr"];
    let kill = ["CLIENT", "KILL", "ADDR", address, "ID", &ids[3]];
    assert_eq!(asker.call(&kill), Value::Int(0));
    let kill = ["CLIENT", "KILL", "ADDR", address, "TYPE", "normal"];
    assert_eq!(asker.call(&kill), Value::Int(1));
    assert!(is_gone(&mut others[2]));
    // Itself only if it says so.
    assert_eq!(asker.call(&["CLIENT", "KILL", "ID", &own]), Value::Int(0));
    assert_eq!(
        asker.call(&["CLIENT", "KILL", "MAXAGE", "9999"]),
        Value::Int(0)
    );
    let local = world.proxy.address();
    assert_eq!(
        asker.call(&["CLIENT", "KILL", "LADDR", &local]),
        Value::Int(3)
    );
    assert!(others[3..].iter_mut().all(is_gone));
    let kill = ["CLIENT", "KILL", "ID", &own, "SKIPME", "no"];
    assert_eq!(asker.call(&kill), Value::Int(1));
    assert!(is_gone(&mut asker));
}

#[test]
fn info_has_the_fields_that_clients_look_for() {
    let world = world();
    let mut client = world.proxy.client();
    let mut other = world.proxy.client();
    other.call(&["PING"]); // it is not only on its way
    let info = client.call(&["INFO"]).text();
    let fields: BTreeMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    for (name, value) in [
        ("role", "master"),
        ("loading", "0"),
        ("maxmemory_policy", "noeviction"),
        ("cluster_enabled", "0"),
        ("redis_mode", "standalone"),
        ("connected_clients", "2"),
        ("connected_slaves", "0"),
    ] {
        assert_eq!(fields.get(name), Some(&value), "{name} in {info}");
    }
    assert!(fields["redis_version"].starts_with("7."));
    assert!(info.starts_with("# Server\r\n") && info.contains("\r\n\r\n# Clients\r\n"));
    let some = client.call(&["INFO", "replication", "MEMORY"]).text();
    assert!(some.starts_with("# Memory\r\n") && some.contains("\r\n\r\n# Replication\r\n"));
    assert!(!some.contains("# Server"));
    assert_eq!(client.call(&["INFO", "nosuch"]), Value::bulk(""));
    client.call(&["HELLO", "3"]);
    assert!(matches!(
        client.call(&["INFO", "server"]),
        Value::Verbatim(_)
    ));
}

#[test]
fn config_get_takes_patterns_and_nothing_is_changed() {
    let world = world();
    let mut client = world.proxy.client();
    let pairs = |reply: &Value| -> BTreeMap<String, String> {
        let texts: Vec<String> = reply.items().iter().map(Value::text).collect();
        let pairs = texts.chunks(2);
        pairs
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    };
    let memory = pairs(&client.call(&["CONFIG", "GET", "MAXMEM*", "maxmemory", "save"]));
    let names: Vec<&str> = memory.keys().map(String::as_str).collect();
    assert_eq!(names, ["maxmemory", "maxmemory-policy", "save"]);
    assert_eq!(
        pairs(&client.call(&["CONFIG", "GET", "databases"]))["databases"],
        "16"
    );
    assert!(client.call(&["CONFIG", "GET", "*"]).items().len() > 20);
    assert_eq!(
        client.call(&["CONFIG", "GET", "nosuch"]),
        Value::Array(vec![])
    );
    let Value::Error(text) = client.call(&["CONFIG", "SET", "maxmemory", "1"]) else {
        panic!("CONFIG SET is refused");
    };
    assert!(text.contains("in its config file"), "{text}");
    client.call(&["HELLO", "3"]);
    let Value::Map(map) = client.call(&["CONFIG", "GET", "appendonly"]) else {
        panic!("a map in RESP3");
    };
    assert_eq!(map, [(Value::bulk("appendonly"), Value::bulk("no"))]);
}
