//! Streams of the built-in shard beside those of real servers: dumped here and restored
//! there, and the other way round; replicated both ways; killed and applied again.
//!
//! ```text
//!   keyferry store <──DUMP, RESTORE──> redis-server 6.0 .. 8.0, valkey
//!   keyferry store <──snapshot, stream──> redis-server 7.0
//!   keyferry store ──kill -9──> the same
//! ```
//! What is compared is all that XINFO STREAM FULL tells, but for what is another thing on
//! each server: how a stream is packed, and when consumers were last seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::time::Duration;

use fastrand::Rng;
use support::servers::Skipped;
use support::{Client, RedisServer, ServerKind, StoreServer, Value, seeded, wait_until};

/// Replicas load and follow within this.
const LIMIT: Duration = Duration::from_secs(60);
/// Streams that are written.
const STREAMS: u32 = 4;

/// What is asked of streams, with groups. Refusals are fine.
fn command(rng: &mut Rng) -> String {
    let key = format!("stream:{}", rng.u32(..STREAMS));
    let group = ["g", "g", "h"][rng.usize(..3)];
    let who = ["alice", "bob", "carol"][rng.usize(..3)];
    let (ms, seq) = (rng.u32(1..400), rng.u32(..2));
    let number = rng.u32(..1_000_000);
    match rng.u32(..30) {
        0..9 => format!(
            "XADD {key} * field {number} other {}",
            "x".repeat(rng.usize(..90))
        ),
        9 => format!("XADD {key} * name{number} {number} other v more fields"),
        10 => format!("XADD {key} MAXLEN ~ {} * field {number}", rng.u32(50..300)),
        11 => format!("XADD {key} MAXLEN {} * field {number}", rng.u32(50..300)),
        12 => format!("XADD {key} {ms}-* field {number}"),
        13 => format!("XTRIM {key} MAXLEN ~ {} LIMIT 100", rng.u32(50..300)),
        14 => format!(
            "XGROUP CREATE {key} {group} {} MKSTREAM",
            ["0", "$"][rng.usize(..2)]
        ),
        15..19 => format!(
            "XREADGROUP GROUP {group} {who} COUNT {} STREAMS {key} >",
            1 + seq * 4
        ),
        19 => format!("XREADGROUP GROUP {group} {who} NOACK COUNT 2 STREAMS {key} >"),
        20 | 21 => format!("XAUTOCLAIM {key} {group} {who} 0 0 COUNT 3"),
        22 => format!("XCLAIM {key} {group} {who} 0 {ms}-{seq} {ms}-0 FORCE RETRYCOUNT {seq}"),
        23 => format!("XACK {key} {group} {ms}-{seq} {ms}-0"),
        24 => format!("XDEL {key} {ms}-{seq}"),
        25 if rng.u32(..10) == 0 => format!("XGROUP DESTROY {key} {group}"),
        25 => format!("XGROUP DELCONSUMER {key} {group} {who}"),
        26 => format!("XGROUP CREATECONSUMER {key} {group} {who}"),
        27 if rng.u32(..20) == 0 => format!("DEL {key}"),
        27 => format!("XSETID {key} {number}-5 ENTRIESADDED {}", number + 1_000),
        28 => format!("COPY {key} copy:{} REPLACE", rng.u32(..3)),
        _ => format!("XINFO STREAM {key}"),
    }
}

/// Acknowledges and deletes what is pending: only by its reply is it known.
fn acknowledge(client: &mut Client, rng: &mut Rng) {
    let key = format!("stream:{}", rng.u32(..STREAMS));
    let pending = client.call(&["XPENDING", &key, "g", "-", "+", "8"]);
    let Value::Array(pending) = pending else {
        return;
    };
    for entry in &pending {
        let id = entry.items()[0].text();
        match rng.u32(..6) {
            0 => client.call(&["XDEL", &key, &id]),
            1..4 => client.call(&["XACK", &key, "g", &id]),
            _ => continue,
        };
    }
}

fn write(client: &mut Client, rng: &mut Rng, commands: u32) {
    for number in 0..commands {
        let command = command(rng);
        let words: Vec<&str> = command.split(' ').collect();
        client.call(&words);
        if number % 40 == 0 {
            acknowledge(client, rng);
        }
    }
}

fn keys(client: &mut Client) -> Vec<String> {
    let found = client.call(&["KEYS", "*"]);
    let mut keys: Vec<String> = found.items().iter().map(Value::text).collect();
    keys.sort();
    keys
}

/// Which fields of XINFO are not compared.
const NEVER: &[&str] = &[
    "radix-tree-keys",
    "radix-tree-nodes",
    "seen-time",
    "active-time",
];
/// What Redis 7.0 does not tell its replicas.
const READ: &[&str] = &["entries-read", "lag"];

/// Later servers reckon otherwise how far a group is behind where entries were deleted.
fn lag_of(kind: ServerKind) -> &'static [&'static str] {
    match kind {
        ServerKind::Redis70 => &[],
        _ => &["lag"],
    }
}

fn told(value: &Value, without: &[&str], out: &mut String) {
    let Value::Array(items) = value else {
        let text = match value {
            Value::Null => "nil".to_owned(),
            Value::Int(number) => number.to_string(),
            other => format!("{:?}", other.text()),
        };
        out.push_str(&text);
        out.push(' ');
        return;
    };
    out.push_str("[ ");
    let mut items = items.iter();
    while let Some(item) = items.next() {
        let name = matches!(item, Value::Bulk(_)).then(|| item.text());
        if name.is_some_and(|name| NEVER.contains(&&*name) || without.contains(&&*name)) {
            items.next();
        } else {
            told(item, without, out);
        }
    }
    out.push_str("] ");
}

/// All that is known of a stream.
fn all_of(client: &mut Client, key: &str, without: &[&str]) -> String {
    let full = client.call(&["XINFO", "STREAM", key, "FULL", "COUNT", "0"]);
    let mut text = String::new();
    told(&full, without, &mut text);
    text
}

/// What of two texts is the same if one side does not know what a group has read, and the
/// other one, which was given the stream as type 15, has reckoned it. Redis takes the first
/// entry of an empty stream for the largest there can be then.
fn where_both_know(one: &str, other: &str) -> [String; 2] {
    let largest = format!("\"{0}-{0}\"", u64::MAX);
    let words = [one, other].map(|text| {
        let text = text.replace(&largest, "\"0-0\"");
        text.split(' ').map(str::to_owned).collect::<Vec<_>>()
    });
    let [mut one, mut other] = words;
    for at in 1..one.len().min(other.len()) {
        let is_of_reading = ["\"entries-read\"", "\"lag\""].contains(&&*one[at - 1]);
        if is_of_reading && (one[at] == "nil") != (other[at] == "nil") {
            (one[at], other[at]) = (String::new(), String::new());
        }
    }
    [one, other].map(|words| words.join(" "))
}

/// Long texts: what is shown is where they differ.
fn assert_same_text(found: &str, wanted: &str, of: &str) {
    const BEFORE: usize = 300;
    const SHOWN: usize = 700;
    let differ = found
        .bytes()
        .zip(wanted.bytes())
        .position(|(one, other)| one != other);
    let at = differ
        .unwrap_or(found.len().min(wanted.len()))
        .saturating_sub(BEFORE);
    let [found, wanted] = [found, wanted].map(|text| text.get(at..).unwrap_or(""));
    let [shown, expected] = [found, wanted].map(|text| text.get(..SHOWN).unwrap_or(text));
    assert!(found == wanted, "{of}: {shown}\ninstead of {expected}");
}

fn assert_equal(one: &mut Client, other: &mut Client, without: &[&str], when: &str) {
    let known = keys(one);
    assert_eq!(known, keys(other), "{when}");
    for key in &known {
        let [wanted, found] = [&mut *one, &mut *other].map(|of| all_of(of, key, without));
        let [wanted, found] = where_both_know(&wanted, &found);
        assert_same_text(&found, &wanted, &format!("{key} {when}"));
        let asked = ["DEBUG", "DIGEST-VALUE", key];
        assert_eq!(other.call(&asked), one.call(&asked), "{key} {when}");
    }
}

fn restore(to: &mut Client, key: &str, payload: &[u8]) -> Value {
    to.call(&[
        b"RESTORE".as_slice(),
        key.as_bytes(),
        b"0",
        payload,
        b"REPLACE",
    ])
}

fn dump(from: &mut Client, key: &str) -> Vec<u8> {
    from.call(&["DUMP", key]).bytes().to_vec()
}

fn with_debug(kind: ServerKind) -> RedisServer {
    let args: &[&str] = match kind.is_seven_or_later() {
        true => &["--enable-debug-command", "yes"],
        false => &[],
    };
    RedisServer::start_kind(kind, args)
}

#[test]
fn what_is_dumped_on_either_side_is_restored_on_the_other() {
    let mut rng = seeded("store_streams: dumps");
    let mut skipped = Skipped::default();
    for kind in ServerKind::ALL
        .into_iter()
        .filter(|kind| kind.is_seven_or_later())
    {
        if !skipped.unless_here(&format!("dumps of {kind}"), &[kind]) {
            continue;
        }
        let (store, server) = (StoreServer::start(&[]), with_debug(kind));
        let (mut ours, mut theirs) = (store.client(), server.client());
        for _ in 0..2 {
            let (from, to) = (&mut ours, &mut theirs);
            // What was restored in the first round is there.
            from.call(&["FLUSHALL"]);
            to.call(&["FLUSHALL"]);
            write(from, &mut rng, 4_000);
            from.call(&["XGROUP", "CREATE", "empty", "g", "5-5", "MKSTREAM"]);
            for key in keys(from) {
                let payload = dump(from, &key);
                assert_eq!(restore(to, &key, &payload), Value::ok(), "{key} of {kind}");
                // And back again.
                let copy = dump(to, &key);
                assert_eq!(restore(from, &key, &copy), Value::ok(), "{key} of {kind}");
            }
            assert_equal(from, to, lag_of(kind), &format!("with {kind}"));
            // They are streams that can be written.
            write(to, &mut rng, 200);
            std::mem::swap(&mut ours, &mut theirs);
        }
    }
    skipped.finish();
}

/// They have fewer counters, and know no type but 15.
#[test]
fn servers_before_7_restore_streams_that_were_only_added_to() {
    let mut skipped = Skipped::default();
    for kind in [ServerKind::Redis60, ServerKind::Redis62] {
        if !skipped.unless_here(&format!("dumps of {kind}"), &[kind]) {
            continue;
        }
        let (store, server) = (StoreServer::start(&[]), with_debug(kind));
        let (mut ours, mut theirs) = (store.client(), server.client());
        for client in [&mut ours, &mut theirs] {
            for number in 0..500 {
                let (id, text) = (
                    format!("{}-{}", 1 + number / 3, number % 3),
                    number.to_string(),
                );
                client.call(&["XADD", "s", &id, "field", &text, "other", "text"]);
            }
            client.call(&["XGROUP", "CREATE", "s", "g", "0"]);
            client.call(&["XREADGROUP", "GROUP", "g", "alice", "STREAMS", "s", ">"]);
            client.call(&["XACK", "s", "g", "1-1", "2-0"]);
            for (group, from) in [("end", "$"), ("begin", "0"), ("between", "50")] {
                client.call(&["XGROUP", "CREATE", "s", group, from]);
            }
        }
        for _ in 0..2 {
            let (from, to) = (&mut ours, &mut theirs);
            let payload = dump(from, "s");
            assert_eq!(restore(to, "t", &payload), Value::ok(), "{kind}");
            for asked in [
                &["XRANGE", "t", "-", "+"][..],
                &["XPENDING", "t", "g"],
                &["XACK", "t", "g", "1-0", "1-1"],
                &["XADD", "t", "1000", "f", "v"],
                &["XREADGROUP", "GROUP", "end", "a", "STREAMS", "t", ">"],
                &["XREADGROUP", "GROUP", "between", "a", "STREAMS", "t", ">"],
            ] {
                let of_s: Vec<&str> = asked
                    .iter()
                    .map(|of| if *of == "t" { "s" } else { of })
                    .collect();
                let [found, wanted] =
                    [to.call(asked), from.call(&of_s)].map(|of| format!("{of:?}"));
                let found = found.replace("\"t\"", "\"s\"");
                assert_eq!(found, wanted, "{asked:?} of {kind}");
            }
            std::mem::swap(&mut ours, &mut theirs);
        }
    }
    skipped.finish();
}

/// Lengths at which the size of an element takes one byte more.
#[test]
fn values_of_any_length_come_over() {
    let (store, server) = (StoreServer::start(&[]), with_debug(ServerKind::Redis70));
    let (mut ours, mut theirs) = (store.client(), server.client());
    for len in [
        0, 63, 64, 125, 126, 4095, 4096, 16_376, 16_377, 16_378, 16_379, 2_097_145, 2_097_146,
    ] {
        let text = "v".repeat(len);
        for client in [&mut ours, &mut theirs] {
            client.call(&["XADD", "s", "*", "field", &text, "behind", "it"]);
        }
    }
    for _ in 0..2 {
        let (from, to) = (&mut ours, &mut theirs);
        let payload = dump(from, "s");
        assert_eq!(restore(to, "t", &payload), Value::ok());
        let [wanted, found] =
            [(from, "s"), (to, "t")].map(|(of, key)| of.call(&["DEBUG", "DIGEST-VALUE", key]));
        assert_eq!(found, wanted);
        std::mem::swap(&mut ours, &mut theirs);
    }
}

/// A field of INFO, empty if there is none.
fn info(client: &mut Client, field: &str) -> String {
    let text = client.call(&["INFO", "replication"]).text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().to_owned()
}

fn wait_until_followed(master: &mut Client, replica: &mut Client) {
    wait_until("the replica has the whole stream", LIMIT, || {
        info(replica, "master_link_status") == "up"
            && info(replica, "slave_repl_offset") == info(master, "master_repl_offset")
    });
}

#[test]
fn a_redis_follows_streams_and_their_groups() {
    let mut rng = seeded("store_streams: a redis follows");
    let store = StoreServer::start(&[]);
    let mut ours = store.client();
    write(&mut ours, &mut rng, 2_000);
    let port = store.port().to_string();
    let replica = RedisServer::start(&[
        "--enable-debug-command",
        "yes",
        "--replicaof",
        "127.0.0.1",
        &port,
    ]);
    let mut theirs = replica.client();
    for round in 0..4 {
        write(&mut ours, &mut rng, 2_000);
        wait_until_followed(&mut ours, &mut theirs);
        assert_equal(&mut ours, &mut theirs, &[], &format!("in round {round}"));
    }
}

#[test]
fn streams_and_their_groups_are_followed_from_a_redis() {
    let mut rng = seeded("store_streams: follows a redis");
    let redis = RedisServer::start(&["--enable-debug-command", "yes"]);
    let mut theirs = redis.client();
    write(&mut theirs, &mut rng, 2_000);
    let of = format!("127.0.0.1:{}", redis.port());
    let store = StoreServer::start(&["--replicaof", &of]);
    let mut ours = store.client();
    wait_until_followed(&mut theirs, &mut ours);
    assert_equal(&mut theirs, &mut ours, &[], "after the snapshot");
    let other = StoreServer::start(&["--replicaof", &store.address()]);
    let mut behind = other.client();
    for round in 0..4 {
        write(&mut theirs, &mut rng, 2_000);
        wait_until_followed(&mut theirs, &mut ours);
        assert_equal(&mut theirs, &mut ours, READ, &format!("in round {round}"));
        wait_until_followed(&mut ours, &mut behind);
        assert_equal(
            &mut ours,
            &mut behind,
            &[],
            &format!("further on in round {round}"),
        );
    }
}

#[test]
fn a_shard_that_was_killed_has_its_streams_and_groups() {
    let mut rng = seeded("store_streams: killed");
    let mut store = StoreServer::start(&["--durability", "always"]);
    for round in 0..6 {
        let mut client = store.client();
        write(&mut client, &mut rng, 1_500);
        let known = keys(&mut client);
        let wanted: Vec<String> = known
            .iter()
            .map(|key| all_of(&mut client, key, &[]))
            .collect();
        match round % 3 {
            2 => {
                client.send(&["SHUTDOWN"]);
                store.process().wait(LIMIT);
            }
            _ => store.kill(),
        }
        store.start_again();
        let mut client = store.client();
        assert_eq!(keys(&mut client), known, "in round {round}");
        for (key, wanted) in known.iter().zip(wanted) {
            let found = all_of(&mut client, key, &[]);
            assert_same_text(&found, &wanted, &format!("{key} in round {round}"));
        }
    }
}

/// What was published to a client since it was last asked.
fn events(client: &mut Client, listener: &mut Client) -> Vec<String> {
    client.call(&["PUBLISH", "__key:end", "end"]);
    let mut found = Vec::new();
    loop {
        let message = listener.read();
        let words: Vec<String> = message.items().iter().map(Value::text).collect();
        match &words[..] {
            [_, _, channel, _] if channel == "__key:end" => return found,
            [_, _, channel, text] => found.push(format!("{channel} {text}")),
            other => panic!("no message: {other:?}"),
        }
    }
}

/// Two clients each, one of which hears what happens.
#[test]
fn keyspace_events_are_those_of_redis() {
    let mut rng = seeded("store_streams: events");
    let (store, server) = (StoreServer::start(&[]), with_debug(ServerKind::Redis70));
    let mut sides = [
        (store.client(), store.client()),
        (server.client(), server.client()),
    ];
    for (client, listener) in &mut sides {
        let set = ["CONFIG", "SET", "notify-keyspace-events", "KEAmn"];
        assert_eq!(client.call(&set), Value::ok());
        listener.call(&["PSUBSCRIBE", "__key*:*"]);
    }
    for number in 0..3_000 {
        let mut command = command(&mut rng);
        // Ids of the clock are another one on each side, and so are nodes.
        let id = format!(" {} ", 1 + number / 3);
        command = command.replace(" * ", &id).replace(" ~ ", " = ");
        let words: Vec<&str> = command.split(' ').collect();
        let [ours, theirs] = sides.each_mut().map(|(client, listener)| {
            client.call(&words);
            events(client, listener)
        });
        assert_eq!(ours, theirs, "{command}");
    }
}

/// More than is decoded at once: entries, and what is pending.
#[test]
fn large_streams_are_followed_in_parts() {
    const ENTRIES: u32 = 20_000;
    let fill = |client: &mut Client| {
        let text = "some text that takes its place in every entry".repeat(2);
        for from in (1..=ENTRIES).step_by(1_000) {
            for number in from..from + 1_000 {
                client.send(&["XADD", "large", &number.to_string(), "field", &text]);
            }
            for _ in 0..1_000 {
                assert!(!client.read().is_error());
            }
        }
        for (group, count) in [("g", "10000"), ("h", "3000")] {
            client.call(&["XGROUP", "CREATE", "large", group, "0"]);
            let read = [
                "XREADGROUP",
                "GROUP",
                group,
                "alice",
                "COUNT",
                count,
                "STREAMS",
            ];
            client.call(&[&read[..], &["large", ">"]].concat());
        }
        client.call(&["XDEL", "large", "7", "9000"]);
    };
    let (store, redis) = (StoreServer::start(&[]), with_debug(ServerKind::Redis70));
    let (mut ours, mut theirs) = (store.client(), redis.client());
    fill(&mut ours);
    fill(&mut theirs);
    let replica = with_debug(ServerKind::Redis70);
    let of_redis = format!("127.0.0.1:{}", redis.port());
    let follower = StoreServer::start(&["--replicaof", &of_redis]);
    let mut of_store = replica.client();
    of_store.call(&["REPLICAOF", "127.0.0.1", &store.port().to_string()]);
    for (master, replica) in [(ours, of_store), (theirs, follower.client())] {
        let (mut master, mut replica) = (master, replica);
        wait_until_followed(&mut master, &mut replica);
        assert_equal(&mut master, &mut replica, &[], "large");
        let payload = dump(&mut master, "large");
        let restored = restore(&mut master, "again", &payload);
        assert_eq!(restored, Value::ok());
        wait_until_followed(&mut master, &mut replica);
        assert_equal(&mut master, &mut replica, &[], "large and dumped");
    }
}

/// A large stream goes as fast as a small one, and its rows go later.
#[test]
fn a_large_stream_is_deleted_at_once() {
    let store = StoreServer::start(&[]);
    let mut client = store.client();
    client.call(&["XGROUP", "CREATE", "large", "g", "0", "MKSTREAM"]);
    for _ in 0..100 {
        for _ in 0..1_000 {
            client.send(&["XADD", "large", "*", "f", "v"]);
        }
        for _ in 0..1_000 {
            assert!(!client.read().is_error());
        }
    }
    client.call(&[
        "XREADGROUP",
        "GROUP",
        "g",
        "c",
        "COUNT",
        "50000",
        "STREAMS",
        "large",
        ">",
    ]);
    client.call(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    client.call(&["SLOWLOG", "RESET"]);
    assert_eq!(client.call(&["DEL", "large"]).int(), 1);
    let slow = client.call(&["SLOWLOG", "GET", "-1"]);
    let del = slow
        .items()
        .iter()
        .find(|of| of.items()[3].items()[0].text() == "DEL");
    println!(
        "DEL of 100,000 entries: {} us",
        del.expect("it was noted").items()[2].int()
    );
    assert_eq!(client.call(&["XADD", "large", "1", "f", "v"]).text(), "1-0");
    assert_eq!(client.call(&["XLEN", "large"]).int(), 1);
    assert_eq!(
        client.call(&["XINFO", "GROUPS", "large"]),
        Value::Array(Vec::new())
    );
}
