//! Values far larger than a socket's buffers: they pass whole and in order, in
//! little memory, and nobody else waits for them. Where a reply has one right
//! form, a real redis-server is asked the same bytes.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;
use support::client::encode;
use support::keyferry::LayoutText;
use support::{Client, Keyferry, RedisServer, Value, seeded, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What makes a request or a reply large.
const LARGE: usize = 64 * KIB;
/// The largest value Redis takes (`proto-max-bulk-len`).
const LARGEST: usize = 512 * MIB;
/// What it may cost the proxy.
const EXTRA_KIB_MAX: u64 = 4 * 1024;

/// A byte string of any length without its memory: a block repeated. The block's
/// length has no relation to any buffer's, so bytes that went missing show.
struct Pattern {
    block: Vec<u8>,
}

impl Pattern {
    fn new(rng: &mut Rng) -> Pattern {
        Pattern {
            block: (0..1_000_003).map(|_| rng.u8(..)).collect(),
        }
    }

    /// The bytes from `at` to the end of their block, at most `len`.
    fn slice(&self, at: usize, len: usize) -> &[u8] {
        let from = at % self.block.len();
        &self.block[from..self.block.len().min(from + len)]
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        self.write(&mut out, 0, len).unwrap();
        out
    }

    /// Writes bytes `from..to`.
    fn write(&self, out: &mut impl Write, from: usize, to: usize) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let piece = self.slice(at, to - at);
            out.write_all(piece)?;
            at += piece.len();
        }
        Ok(())
    }

    /// Reads bytes `from..to` and compares them.
    fn expect(&self, input: &mut impl Read, from: usize, to: usize) {
        let mut buffer = vec![0; 64 * KIB];
        let mut at = from;
        while at < to {
            let piece = self.slice(at, (to - at).min(buffer.len()));
            let read = &mut buffer[..piece.len()];
            input
                .read_exact(read)
                .unwrap_or_else(|err| panic!("{at} of {to} bytes came: {err}"));
            assert!(
                read == piece,
                "wrong bytes between {at} and {}",
                at + piece.len()
            );
            at += piece.len();
        }
    }
}

/// The bytes of a SET before its value.
fn set_head(key: &str, len: usize) -> Vec<u8> {
    let key_len = key.len();
    format!("*3\r\n$3\r\nSET\r\n${key_len}\r\n{key}\r\n${len}\r\n").into_bytes()
}

fn set_stream(client: &mut Client, key: &str, pattern: &Pattern, len: usize) {
    let mut stream = client.try_clone_stream().unwrap();
    stream.write_all(&set_head(key, len)).unwrap();
    pattern.write(&mut stream, 0, len).unwrap();
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(client.read(), Value::ok(), "to SET {key}");
}

/// Reads the header of a bulk string of `len` bytes.
fn expect_head(client: &mut Client, len: usize) {
    let expected = format!("${len}\r\n");
    let mut head = vec![0; expected.len()];
    client.reader().read_exact(&mut head).unwrap();
    assert_eq!(String::from_utf8_lossy(&head), expected);
}

fn get_stream(client: &mut Client, key: &str, pattern: &Pattern, len: usize) {
    client.send(&["GET", key]);
    expect_head(client, len);
    pattern.expect(client.reader(), 0, len);
    let mut end = [0; 2];
    client.reader().read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n");
}

/// A line of `/proc/PID/status`, in KiB.
fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let digits: String = line.unwrap().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

struct World {
    shards: Vec<RedisServer>,
    proxy: Keyferry,
    pattern: Pattern,
    rng: Rng,
}

/// One worker, so that all clients share one set of connections.
fn world(test: &str, shards: usize, pool_extra: &str) -> World {
    let shards = RedisServer::start_many(shards, &[]);
    let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    let mut rng = seeded(test);
    World {
        proxy: Keyferry::start_with(&layout, 1, pool_extra),
        pattern: Pattern::new(&mut rng),
        shards,
        rng,
    }
}

impl World {
    /// A key that the shard with this number owns; it is set to `1`.
    fn key_of(&self, shard: usize) -> String {
        let (mut client, mut direct) = (self.proxy.client(), self.shards[shard].client());
        (0..)
            .map(|number| format!("probe:{number}"))
            .find(|key| {
                client.call(&["SET", key, "1"]);
                direct.call(&["EXISTS", key]) == Value::Int(1)
            })
            .unwrap()
    }

    /// Client connections that a shard has, without the one that asks.
    fn connections(&self, shard: usize) -> usize {
        let mut direct = self.shards[shard].client();
        direct.call(&["CLIENT", "LIST"]).text().lines().count() - 1
    }
}

/// Requests of a few clients, over and over, until told to stop.
struct Background {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    fn start(proxy: &Keyferry, clients: Range<usize>) -> Background {
        let (stop, answered) = (Arc::default(), Arc::default());
        let threads = clients.map(|number| {
            let mut client = proxy.client();
            let (stop, answered): (Arc<AtomicBool>, Arc<AtomicUsize>) =
                (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (key, value) = (format!("small{number}"), format!("{number}-{round}"));
                    assert_eq!(client.call(&["SET", &key, &value]), Value::ok());
                    assert_eq!(client.call(&["GET", &key]), Value::bulk(&value));
                    answered.fetch_add(2, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Background {
            stop,
            answered,
            threads,
        }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until `count` more requests are answered.
    fn goes_on(&self, count: usize) {
        let until = self.answered() + count;
        wait_until("other clients' requests are answered", LIMIT, || {
            self.answered() >= until
        });
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().is_ok(), "a wrong reply");
        }
    }
}

#[test]
fn the_largest_value_passes_in_4_mib() {
    let mut world = world("the_largest_value_passes_in_4_mib", 1, "");
    let pid = world.proxy.process().pid();
    let others = Background::start(&world.proxy, 0..3);
    let mut client = world.proxy.client();
    for round in 0..200 {
        let value = "x".repeat(round * 10);
        assert_eq!(client.call(&["SET", "warm", &value]), Value::ok());
        assert_eq!(client.call(&["GET", "warm"]), Value::bulk(&value));
    }
    others.goes_on(1000);
    let before = memory_kib(pid, "VmRSS:");
    let mut stream = client.try_clone_stream().unwrap();
    stream.write_all(&set_head("huge", LARGEST)).unwrap();
    world.pattern.write(&mut stream, 0, LARGEST / 2).unwrap();
    others.goes_on(1000);
    world
        .pattern
        .write(&mut stream, LARGEST / 2, LARGEST)
        .unwrap();
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(client.read(), Value::ok());
    assert_eq!(client.call(&["STRLEN", "huge"]), Value::Int(LARGEST as i64));
    let after_set = memory_kib(pid, "VmHWM:");

    client.send(&["GET", "huge"]);
    expect_head(&mut client, LARGEST);
    // The first ones may all be behind its reply: it must not pause for long,
    // and those who come now must not wait.
    let latecomers = Background::start(&world.proxy, 3..6);
    let pieces = 512;
    for piece in 0..pieces {
        let bytes = |piece| LARGEST / pieces * piece;
        let reader = client.reader();
        world.pattern.expect(reader, bytes(piece), bytes(piece + 1));
        if piece + 1 < pieces && latecomers.answered() < 1000 {
            thread::sleep(Duration::from_millis(5)); // far from a stop
        }
    }
    let mut end = [0; 2];
    client.reader().read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n");
    let answered = latecomers.answered();
    assert!(answered >= 1000, "only {answered} beside the large reply");
    assert_eq!(client.call(&["DEL", "huge"]), Value::Int(1));
    let after_get = memory_kib(pid, "VmHWM:");
    others.finish();
    latecomers.finish();
    println!("RSS {before} KiB, peak after SET {after_set} KiB, after GET {after_get} KiB");
    assert!(
        after_get <= before + EXTRA_KIB_MAX,
        "{before} KiB before, at most {after_set} KiB until SET was done, {after_get} KiB until GET"
    );
}

/// Sends `request` in pieces, and compares the reply's bytes with the oracle's.
fn same_reply(
    proxy: &mut Client,
    oracle: &mut Client,
    request: &[u8],
    pieces: &mut dyn Iterator<Item = usize>,
) {
    let mut rest = request;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(pieces.next().unwrap_or(rest.len()).min(rest.len()));
        proxy.send_raw(piece);
        rest = after;
    }
    let theirs = oracle.exchange_bytes(request).unwrap();
    let ours = proxy.read_reply_bytes();
    let shown = shown(request);
    let ours = ours.unwrap_or_else(|err| panic!("no reply to {shown}: {err}"));
    assert_eq!(ours.len(), theirs.len(), "reply to {shown}");
    assert!(ours == theirs, "wrong bytes in the reply to {shown}");
}

fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(60)];
    format!("{} ({} bytes)", start.escape_ascii(), bytes.len())
}

fn command<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, words);
    out
}

#[test]
fn values_about_the_limit_pass_however_they_are_cut() {
    let mut world = world("values_about_the_limit_pass_however_they_are_cut", 2, "");
    let oracle = RedisServer::start(&[]);
    let (mut proxy, mut oracle) = (world.proxy.client(), oracle.client());
    let head = set_head("k", LARGE).len();
    let sizes = [
        LARGE - head - 3,
        LARGE - head - 2,
        LARGE - head - 1,
        LARGE - 1,
        LARGE,
        LARGE + 1,
        128 * KIB,
        MIB,
        3 * MIB + 1,
    ];
    for size in sizes {
        let value = world.pattern.bytes(size);
        let request = command(&[b"SET", b"k".as_slice(), &value]);
        for round in 0..12 {
            let rng = &mut world.rng;
            // The first cut is in the header, in the value, or at its end.
            let first = match round % 4 {
                0 => rng.usize(1..head),
                1 => head + rng.usize(..size),
                2 => request.len() - rng.usize(1..4),
                _ => request.len(),
            };
            let most = [1000, LARGE, 200 * KIB, MIB][rng.usize(..4)];
            let mut pieces = std::iter::once(first).chain((0..).map(|_| rng.usize(1..=most)));
            same_reply(&mut proxy, &mut oracle, &request, &mut pieces);
            let get = command(&["GET", "k"]);
            same_reply(&mut proxy, &mut oracle, &get, &mut std::iter::empty());
            let append = command(&["APPEND", "k", "x"]);
            same_reply(&mut proxy, &mut oracle, &append, &mut std::iter::empty());
        }
    }
}

/// A request over few keys: often large, or with a large reply.
fn any_request(rng: &mut Rng, pattern: &Pattern) -> Vec<u8> {
    let len = match rng.u32(..6) {
        0 => LARGE - 60 + rng.usize(..120),
        1 => rng.usize(LARGE..MIB),
        2 => rng.usize(..LARGE),
        _ => rng.usize(..100),
    };
    let from = rng.usize(..1000);
    let value = &pattern.bytes(from + len)[from..];
    let (string, list, hash) = (
        format!("s{}", rng.u32(..4)),
        format!("l{}", rng.u32(..4)),
        format!("h{}", rng.u32(..4)),
    );
    let offset = rng.usize(..200_000).to_string();
    let words: Vec<&[u8]> = match rng.u32(..20) {
        0 | 1 => vec![b"SET", string.as_bytes(), value],
        2 => vec![b"APPEND", string.as_bytes(), value],
        3 => vec![b"SETRANGE", string.as_bytes(), offset.as_bytes(), value],
        4..7 => vec![b"GET", string.as_bytes()],
        7 => vec![b"GETRANGE", string.as_bytes(), offset.as_bytes(), b"-1"],
        8 => vec![b"GETSET", string.as_bytes(), value],
        9 => vec![b"LPUSH", list.as_bytes(), value, b"small", value],
        10 => vec![b"LRANGE", list.as_bytes(), b"0", b"20"],
        11 => vec![b"LTRIM", list.as_bytes(), b"0", b"10"],
        // One field: of several, each server has an order of its own.
        12 => vec![b"HSET", hash.as_bytes(), b"f", value],
        13 => vec![b"HGETALL", hash.as_bytes()],
        14 => vec![b"MGET", b"s0", b"s1", b"s2"],
        15 => vec![b"MSET", b"s0", value, b"s1", b"small"],
        16 => vec![b"DEL", string.as_bytes(), list.as_bytes()],
        17 => vec![b"GET", list.as_bytes()],
        18 => vec![b"PING", b"here"],
        _ => vec![b"STRLEN", string.as_bytes()],
    };
    command(&words)
}

/// Sends pipelines of random requests to both and compares all replies.
fn same_replies(world: &mut World, proxy: &mut Client, oracle: &mut Client, rounds: usize) {
    for round in 0..rounds {
        let requests: Vec<_> = (0..world.rng.usize(1..40))
            .map(|_| any_request(&mut world.rng, &world.pattern))
            .collect();
        let piece = [usize::MAX, 1 + world.rng.usize(..100 * KIB)][round % 2];
        let bytes = requests.concat();
        let (mut to_proxy, mut to_oracle) = (
            proxy.try_clone_stream().unwrap(),
            oracle.try_clone_stream().unwrap(),
        );
        let writer = thread::spawn(move || {
            to_oracle.write_all(&bytes).unwrap();
            for piece in bytes.chunks(piece) {
                to_proxy.write_all(piece).unwrap();
            }
        });
        for request in &requests {
            let theirs = oracle.read_reply_bytes().unwrap();
            let ours = proxy.read_reply_bytes();
            let ours = ours.unwrap_or_else(|err| panic!("{}: {err}", shown(request)));
            let shown = shown(request);
            assert_eq!(ours.len(), theirs.len(), "reply to {shown}");
            assert!(ours == theirs, "wrong bytes in the reply to {shown}");
        }
        writer.join().unwrap();
    }
}

#[test]
fn pipelines_of_small_and_large_are_answered_in_order() {
    for protocol in ["2", "3"] {
        let mut world = world("pipelines_of_small_and_large_are_answered_in_order", 2, "");
        let oracle = RedisServer::start(&[]);
        let others = Background::start(&world.proxy, 0..2);
        let (mut proxy, mut oracle) = (world.proxy.client(), oracle.client());
        proxy.call(&["HELLO", protocol]);
        oracle.call(&["HELLO", protocol]);
        same_replies(&mut world, &mut proxy, &mut oracle, 40);
        others.goes_on(100);
        others.finish();
    }
}

#[test]
fn many_clients_with_large_values_at_once_get_their_own() {
    let mut world = world(
        "many_clients_with_large_values_at_once_get_their_own",
        2,
        "",
    );
    let pattern = Arc::new(Pattern::new(&mut world.rng));
    let threads: Vec<_> = (0..40)
        .map(|number| {
            let (mut client, pattern) = (world.proxy.client(), Arc::clone(&pattern));
            let mut rng = Rng::with_seed(world.rng.u64(..));
            thread::spawn(move || {
                for round in 0..6 {
                    let len = rng.usize(LARGE / 2..2 * MIB);
                    let key = format!("own{number}");
                    set_stream(&mut client, &key, &pattern, len);
                    let small = format!("{number}-{round}");
                    assert_eq!(
                        client.call(&["SET", &format!("o{number}"), &small]),
                        Value::ok()
                    );
                    get_stream(&mut client, &key, &pattern, len);
                    assert_eq!(
                        client.call(&["GET", &format!("o{number}")]),
                        Value::bulk(&small)
                    );
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_sets_nothing() {
    let world = world("a_client_that_leaves_in_the_middle_sets_nothing", 1, "");
    let others = Background::start(&world.proxy, 0..2);
    let mut stays = world.proxy.client();
    stays.call(&["SET", "kept", "as it was"]);
    for round in 0..50 {
        let mut leaves = world.proxy.client();
        leaves.send_raw(&set_head("kept", 20 * MIB));
        let sent = [1000, LARGE, MIB, 10 * MIB][round % 4];
        leaves.send_raw(&world.pattern.bytes(sent));
        drop(leaves);
        assert_eq!(stays.call(&["GET", "kept"]), Value::bulk("as it was"));
    }
    // Nor does one that leaves while it is answered.
    set_stream(&mut stays, "large", &world.pattern, 8 * MIB);
    for _ in 0..20 {
        let mut leaves = world.proxy.client();
        leaves.send(&["GET", "large"]);
        expect_head(&mut leaves, 8 * MIB);
        drop(leaves);
        assert_eq!(stays.call(&["GET", "kept"]), Value::bulk("as it was"));
    }
    others.goes_on(100);
    wait_until(
        "the connections of those that left are closed",
        LIMIT,
        || world.connections(0) <= 10,
    );
    get_stream(&mut stays, "large", &world.pattern, 8 * MIB);
    others.finish();
}

#[test]
fn a_shard_that_dies_in_the_middle_of_a_request_fails_it_alone() {
    let mut world = world(
        "a_shard_that_dies_in_the_middle_of_a_request_fails_it_alone",
        2,
        "",
    );
    let (dead, alive) = (world.key_of(1), world.key_of(0));
    let (mut client, mut other) = (world.proxy.client(), world.proxy.client());
    client.send(&["GET", &alive]);
    client.send_raw(&set_head(&dead, 20 * MIB));
    let mut stream = client.try_clone_stream().unwrap();
    world.pattern.write(&mut stream, 0, 10 * MIB).unwrap();
    assert_eq!(client.read(), Value::bulk("1"));
    world.shards[1].kill();
    // The error comes before the request is whole; the rest of it goes nowhere.
    let error = client.read();
    assert!(error.is_error(), "{error:?}");
    assert_eq!(other.call(&["GET", &alive]), Value::bulk("1"));
    world
        .pattern
        .write(&mut stream, 10 * MIB, 20 * MIB)
        .unwrap();
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(client.call(&["GET", &alive]), Value::bulk("1"));
    assert!(client.call(&["GET", &dead]).is_error());
    // A large request for a shard that is known to be down.
    stream.write_all(&set_head(&dead, 20 * MIB)).unwrap();
    world.pattern.write(&mut stream, 0, 20 * MIB).unwrap();
    stream.write_all(b"\r\n").unwrap();
    assert!(client.read().is_error());
    assert_eq!(client.call(&["GET", &alive]), Value::bulk("1"));

    world.shards[1].restart();
    wait_until("the shard is used again", LIMIT, || {
        client.call(&["SET", &dead, "again"]) == Value::ok()
    });
    set_stream(&mut client, &dead, &world.pattern, 20 * MIB);
    get_stream(&mut client, &dead, &world.pattern, 20 * MIB);
}

#[test]
fn a_shard_that_dies_in_the_middle_of_a_reply_ends_that_client_alone() {
    let mut world = world(
        "a_shard_that_dies_in_the_middle_of_a_reply_ends_that_client_alone",
        2,
        "",
    );
    let (dead, alive) = (world.key_of(1), world.key_of(0));
    let (mut client, mut other) = (world.proxy.client(), world.proxy.client());
    let size = 64 * MIB;
    set_stream(&mut client, &dead, &world.pattern, size);
    client.send(&["GET", &dead]);
    client.send(&["GET", &alive]);
    expect_head(&mut client, size);
    world.pattern.expect(client.reader(), 0, MIB);
    world.shards[1].kill();
    // What was on its way still comes; then there is no right way to go on.
    let rest = client.read_to_end().unwrap();
    assert!(rest.len() < size - MIB, "{} bytes", rest.len());
    assert!(rest == world.pattern.bytes(size)[MIB..MIB + rest.len()]);
    assert_eq!(other.call(&["GET", &alive]), Value::bulk("1"));
    world.shards[1].restart();
    wait_until("the shard is used again", LIMIT, || {
        other.call(&["SET", &dead, "again"]) == Value::ok()
    });
    assert_eq!(
        world.proxy.client().call(&["GET", &dead]),
        Value::bulk("again")
    );
}

#[test]
fn one_who_reads_slowly_keeps_nobody_waiting() {
    let mut world = world("one_who_reads_slowly_keeps_nobody_waiting", 1, "");
    let pid = world.proxy.process().pid();
    let size = 64 * MIB;
    let (mut slow, mut other) = (world.proxy.client(), world.proxy.client());
    set_stream(&mut slow, "large", &world.pattern, size);
    other.call(&["SET", "small", "1"]);
    slow.send(&["GET", "large"]);
    slow.send(&["GET", "small"]);
    expect_head(&mut slow, size);
    for _ in 0..2000 {
        assert_eq!(other.call(&["GET", "small"]), Value::bulk("1"));
    }
    // And many of them.
    let mut more: Vec<_> = (0..20).map(|_| world.proxy.client()).collect();
    for client in &mut more {
        client.send(&["GET", "large"]);
        expect_head(client, size);
    }
    for _ in 0..2000 {
        assert_eq!(other.call(&["GET", "small"]), Value::bulk("1"));
    }
    set_stream(&mut other, "second", &world.pattern, 3 * MIB);
    get_stream(&mut other, "second", &world.pattern, 3 * MIB);
    let peak = memory_kib(pid, "VmHWM:") / 1024;
    assert!(peak < 100, "21 clients that don't read take {peak} MiB");
    for client in [&mut slow].into_iter().chain(&mut more) {
        world.pattern.expect(client.reader(), 0, size);
        let mut end = [0; 2];
        client.reader().read_exact(&mut end).unwrap();
        assert_eq!(&end, b"\r\n");
    }
    assert_eq!(slow.read(), Value::bulk("1"));
    assert_eq!(more[7].call(&["GET", "small"]), Value::bulk("1"));
}

/// Requests of two clients that reach a shard one behind the other: it is
/// frozen until the proxy has sent both.
fn behind_a_large_reply(world: &mut World, slow: &mut Client, other: &mut Client) {
    world.shards[0].pause();
    slow.send(&["GET", "large"]);
    wait_until("the first request is in flight", LIMIT, || {
        world.proxy.metric("shard_in_flight") >= 1.0
    });
    for _ in 0..100 {
        other.send(&["INCR", "counter"]);
    }
    wait_until("the others are in flight behind it", LIMIT, || {
        world.proxy.metric("shard_in_flight") >= 101.0
    });
    world.shards[0].resume();
}

#[test]
fn requests_already_behind_a_slow_readers_reply_are_answered_too() {
    let name = "requests_already_behind_a_slow_readers_reply_are_answered_too";
    let mut world = world(name, 1, "limits = { max_client_buffer = \"8MB\" }");
    let (mut slow, mut other) = (world.proxy.client(), world.proxy.client());
    set_stream(&mut slow, "large", &world.pattern, 64 * MIB);
    behind_a_large_reply(&mut world, &mut slow, &mut other);
    for number in 1..=100 {
        assert_eq!(other.read(), Value::Int(number));
    }
    // The one that did not read paid for it.
    let got = slow.read_to_end().unwrap();
    assert!(got.len() < 64 * MIB, "{} bytes", got.len());

    // One that reads gets all, and those behind it after that.
    let mut reads = world.proxy.client();
    behind_a_large_reply(&mut world, &mut reads, &mut other);
    expect_head(&mut reads, 64 * MIB);
    world.pattern.expect(reads.reader(), 0, 64 * MIB);
    for number in 101..=200 {
        assert_eq!(other.read(), Value::Int(number));
    }
}

#[test]
fn mistakes_in_the_middle_of_a_large_request_end_only_its_client() {
    let world = world(
        "mistakes_in_the_middle_of_a_large_request_end_only_its_client",
        1,
        "limits = { max_request = \"2MB\" }",
    );
    let oracle = RedisServer::start(&[]);
    let mut stays = world.proxy.client();
    stays.call(&["RPUSH", "list", "kept"]);
    oracle.client().call(&["RPUSH", "list", "kept"]);
    let large = world.pattern.bytes(MIB);
    for (bad, words) in [
        ("+1\r\n", "expected '$', got '+'"),
        ("$-5\r\n", "invalid bulk length"),
        ("$abc\r\n", "invalid bulk length"),
        ("$600000000\r\n", "invalid bulk length"),
    ] {
        let mut request = command(&["LLEN", "list"]);
        request.extend_from_slice(b"*4\r\n$5\r\nRPUSH\r\n$4\r\nlist\r\n");
        request.extend_from_slice(format!("${MIB}\r\n").as_bytes());
        request.extend_from_slice(&large);
        request.extend_from_slice(format!("\r\n{bad}").as_bytes());
        let answers = [oracle.client(), world.proxy.client()].map(|mut client| {
            let _ = client.try_send_raw(&request);
            String::from_utf8(client.read_to_end().unwrap()).unwrap()
        });
        assert_eq!(answers[1], answers[0], "to {bad:?}");
        assert!(answers[0].contains(words), "{}", answers[0]);
        assert_eq!(stays.call(&["LLEN", "list"]), Value::Int(1));
    }
    // Above the limit: as a whole, and where the value does not end as it says.
    let above = set_head("list", 3 * MIB);
    let mut crooked = set_head("list", MIB);
    crooked.extend_from_slice(&large);
    crooked.extend_from_slice(b"xx");
    for request in [above, crooked] {
        let mut client = world.proxy.client();
        let _ = client.try_send_raw(&request);
        let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
        assert!(answer.starts_with("-ERR Protocol error: "), "{answer}");
        assert_eq!(stays.call(&["LLEN", "list"]), Value::Int(1));
    }
    wait_until("their connections to the shard are closed", LIMIT, || {
        world.connections(0) <= 10
    });
}

#[test]
fn a_slow_sender_is_no_slow_shard() {
    let world = world(
        "a_slow_sender_is_no_slow_shard",
        1,
        "timeout = { connect = \"1s\", request = \"300ms\" }",
    );
    let mut client = world.proxy.client();
    let value = world.pattern.bytes(MIB);
    client.send_raw(&set_head("slow", MIB));
    for piece in value.chunks(MIB / 4) {
        client.send_raw(piece);
        // Longer than a shard may take.
        thread::sleep(Duration::from_millis(400));
    }
    client.send_raw(b"\r\n");
    assert_eq!(client.read(), Value::ok());
    assert!(client.call(&["GET", "slow"]) == Value::Bulk(value));
}

#[test]
fn senders_that_stop_keep_nobody_out() {
    let world = world("senders_that_stop_keep_nobody_out", 1, "");
    let mut stopped: Vec<_> = (0..50)
        .map(|number| {
            let mut client = world.proxy.client();
            client.send_raw(&set_head(&format!("stopped{number}"), 20 * MIB));
            client.send_raw(&world.pattern.bytes(100 * KIB + number));
            client
        })
        .collect();
    let mut client = world.proxy.client();
    set_stream(&mut client, "large", &world.pattern, MIB);
    get_stream(&mut client, "large", &world.pattern, MIB);
    assert!(client.call(&["EXISTS", "stopped0"]) == Value::Int(0));
    stopped.clear();
    wait_until("their connections to the shard are closed", LIMIT, || {
        world.connections(0) <= 10
    });
    assert!(client.call(&["EXISTS", "stopped0"]) == Value::Int(0));
}
