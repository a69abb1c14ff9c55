//! What the proxy holds for clients that do not read and for shards that do not
//! answer: it is bounded, the others go on, and nothing is lost or out of order.
//!
//! Memory is the resident set of a real `keyferry run`, as `/proc` tells it; its
//! peak counts, not what is left later. Nothing here looks at the time: that a
//! socket takes no more is known when others were served many times meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::io::{ErrorKind, Write};
use std::iter;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use support::client::encode;
use support::keyferry::{Keyferry, LayoutText};
use support::process::memory_bytes;
use support::{Client, RedisServer, Value, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// `limits.max_client_buffer`, unless a test says otherwise.
const CLIENT_BUFFER_BYTES_MAX: usize = 64 * MIB;
/// What waits for a shard before its clients are paused (`PIPE_UNWRITTEN_BYTES_MAX`);
/// as much may be written already and still stand before it.
const PIPE_BYTES_MAX: usize = 8 * MIB;
/// What the proxy reads of a client at once (`SCRATCH_BYTES`): as much may be
/// there unhandled when the client is paused, and again while it goes on.
const READ_BYTES_MAX: usize = 128 * KIB;
/// Kernel buffers of a client that shall be stopped, so that few bytes do it.
const SOCKET_BUFFER_BYTES: usize = 64 * KIB;
/// Round trips of another client after which a socket that took nothing is
/// believed to take nothing more.
const QUIET_ROUNDS: usize = 100;

/// Shards, and a proxy in front of them.
struct World {
    shards: Vec<RedisServer>,
    proxy: Keyferry,
    pid: u32,
}

impl World {
    /// With one worker nobody can be served beside a worker that stalls.
    fn with(workers: u32, pool_extra: &str) -> World {
        let shards = RedisServer::start_many(2, &[]);
        let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
        let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
        let mut proxy = Keyferry::start_with(&layout, workers, pool_extra);
        let pid = proxy.process().pid();
        World { shards, proxy, pid }
    }

    /// `count` keys of `bytes` bytes that the shard with this number owns.
    fn keys_of(&self, shard: usize, count: usize, bytes: usize) -> Vec<String> {
        let mut client = self.proxy.client();
        let mut direct = self.shards[shard].client();
        let keys = (0..).map(|number| format!("probe{shard}-{number:0>bytes$}"));
        let mut owned = |key: &String| {
            client.call(&["SET", key, "1"]);
            direct.call(&["EXISTS", key]) == Value::Int(1)
        };
        keys.filter(|key| owned(key)).take(count).collect()
    }

    fn resident(&self) -> usize {
        memory_bytes(self.pid, "VmRSS")
    }

    fn resident_peak(&self) -> usize {
        memory_bytes(self.pid, "VmHWM")
    }

    /// Fails if more than `bytes_max` came on top of `before` at any time.
    fn assert_grew_at_most(&self, what: &str, before: usize, bytes_max: usize) {
        let (peak, now) = (self.resident_peak(), self.resident());
        let shown = format!(
            "{what}: {} KiB before, at most {} KiB more, now {} KiB more; allowed are {} KiB",
            before / KIB,
            peak.saturating_sub(before) / KIB,
            now.saturating_sub(before) / KIB,
            bytes_max / KIB
        );
        println!("{shown}");
        assert!(peak <= before + bytes_max, "{shown}");
    }
}

/// A client that sends and does not read, on a socket that never waits.
struct Pusher {
    client: Client,
    stream: TcpStream,
    requests: Vec<u8>,
    sent: usize,
}

impl Pusher {
    fn new(proxy: &Keyferry, requests: Vec<u8>) -> Pusher {
        let client = proxy.client();
        let stream = client.try_clone_stream().expect("a second handle");
        let socket = SockRef::from(&stream);
        socket
            .set_send_buffer_size(SOCKET_BUFFER_BYTES)
            .expect("set");
        socket
            .set_recv_buffer_size(SOCKET_BUFFER_BYTES)
            .expect("set");
        Pusher {
            client,
            stream,
            requests,
            sent: 0,
        }
    }

    /// Sends what the socket takes now; false if it takes nothing. A connection
    /// that was closed takes nothing.
    fn push(&mut self) -> bool {
        let before = self.sent;
        self.stream.set_nonblocking(true).expect("set");
        while let Some(rest) = self.requests.get(self.sent..).filter(|r| !r.is_empty()) {
            match self.stream.write(rest) {
                Ok(n) => self.sent += n,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => {
                    let closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    let expected = err.kind() == ErrorKind::WouldBlock;
                    assert!(expected || closed.contains(&err.kind()), "{err}");
                    break;
                }
            }
        }
        self.stream.set_nonblocking(false).expect("set");
        self.sent > before
    }

    /// Sends the rest in a thread, and meanwhile reads a reply for each of
    /// `replies`, which must be just that.
    fn finish(mut self, replies: impl Iterator<Item = Value>) {
        let rest = self.requests.split_off(self.sent);
        let mut stream = self.stream;
        let writer = thread::spawn(move || stream.write_all(&rest));
        for (number, expected) in replies.enumerate() {
            let reply = self.client.read();
            assert!(
                reply == expected,
                "reply {number} is {}, not {}",
                shown(&reply),
                shown(&expected)
            );
        }
        writer.join().unwrap().expect("all is sent");
    }
}

fn shown(value: &Value) -> String {
    format!("{value:?}").chars().take(100).collect()
}

/// Sends until no socket takes any more, while `meanwhile` serves others.
fn push_until_stopped(pushers: &mut [Pusher], mut meanwhile: impl FnMut()) {
    let mut quiet = 0;
    while quiet < QUIET_ROUNDS {
        quiet += 1;
        for pusher in &mut *pushers {
            if pusher.push() {
                quiet = 0;
            }
        }
        meanwhile();
    }
}

fn requests<'a>(commands: impl Iterator<Item = Vec<&'a str>>) -> Vec<u8> {
    let mut out = Vec::new();
    commands.for_each(|command| encode(&mut out, &command));
    out
}

/// A value of `bytes` bytes that no other number has.
fn large(number: usize, bytes: usize) -> String {
    let text = format!("{number}-");
    text.repeat(bytes / text.len() + 1)[..bytes].to_owned()
}

/// A client asks for what `keys` hold, in some order, and does not read; then it does.
fn pipeline_without_reading(
    world: &World,
    keys: &[String],
    values: &[String],
    (asked, bytes_max): (usize, usize),
) {
    let mut other = world.proxy.client();
    for (key, value) in keys.iter().zip(values) {
        assert_eq!(other.call(&["SET", key, value]), Value::ok());
    }
    let mut call = 0;
    let mut round_trip = || {
        call = (call + 1) % keys.len();
        let (key, value) = (&keys[call], Value::bulk(&values[call]));
        assert!(other.call(&["GET", key]) == value);
        let both = Value::Array(vec![value, Value::bulk(&values[0])]);
        assert!(other.call(&["MGET", key, &keys[0]]) == both);
    };
    (0..keys.len()).for_each(|_| round_trip());
    let before = world.resident();

    let order = (0..asked).map(|number| number * 7 % keys.len());
    let all = requests(order.clone().map(|at| vec!["GET", keys[at].as_str()]));
    let mut pushers = [Pusher::new(&world.proxy, all)];
    push_until_stopped(&mut pushers, &mut round_trip);
    let [pusher] = pushers;
    let (sent, all) = (pusher.sent, pusher.requests.len());
    assert!(sent < all, "{sent} bytes of {all} were taken");
    world.assert_grew_at_most("nobody reads", before, bytes_max);

    pusher.finish(order.map(|at| Value::bulk(&values[at])));
    world.assert_grew_at_most("it reads again", before, bytes_max);
    round_trip();
    assert_eq!(world.proxy.metric("clients_overrun_total"), 0.0);
}

#[test]
fn a_client_that_does_not_read_small_replies_is_not_read() {
    let world = World::with(1, "");
    let keys = [world.keys_of(0, 10, 10), world.keys_of(1, 10, 10)].concat();
    let values: Vec<_> = (0..keys.len()).map(|number| large(number, 100)).collect();
    pipeline_without_reading(&world, &keys, &values, (200_000, 4 * MIB));
}

#[test]
fn a_client_that_does_not_read_large_replies_is_not_read() {
    let world = World::with(1, "");
    // Long keys: what the proxy does not read soon fills the sockets.
    let keys = [world.keys_of(0, 10, 1_000), world.keys_of(1, 10, 1_000)].concat();
    let bytes = [64 * KIB, 10];
    let values: Vec<_> = (0..keys.len())
        .map(|number| large(number, bytes[number % 2]))
        .collect();
    pipeline_without_reading(
        &world,
        &keys,
        &values,
        (4_000, CLIENT_BUFFER_BYTES_MAX + 8 * MIB),
    );
}

/// Asks for `requests` and expects to be closed, after some of the replies, for
/// not reading them.
fn is_closed(world: &mut World, asked: usize, requests: &[u8], reply: &Value) {
    let closed = world.proxy.metric("clients_overrun_total");
    let mut pusher = Pusher::new(&world.proxy, requests.to_vec());
    let peer = pusher.stream.local_addr().expect("an address").to_string();
    assert!(pusher.push() && pusher.sent == requests.len());
    wait_until("the client is closed and counted", LIMIT, || {
        world.proxy.metric("clients_overrun_total") == closed + 1.0
    });
    let is_logged = |line: &str| {
        line.contains("WARN") && line.contains(&peer) && line.contains("limits.max_client_buffer")
    };
    wait_until("the log says so", LIMIT, || {
        let log = world.proxy.process().stderr();
        log.lines().filter(|line| is_logged(line)).count() == 1
    });
    let replies = iter::from_fn(|| pusher.client.try_read().ok());
    let got = replies.map(|got| assert!(got == *reply, "{}", shown(&got)));
    assert!(got.count() < asked);
}

#[test]
fn a_client_that_is_owed_too_much_is_closed() {
    const LIMIT_BYTES: usize = MIB;
    // Small enough to be kept: larger ones wait at their shards instead.
    const VALUE_BYTES: usize = 60 * KIB;
    const ASKED: usize = 400;
    let mut world = World::with(1, "limits = { max_client_buffer = \"1MB\" }");
    let keys = [world.keys_of(0, 4, 10), world.keys_of(1, 4, 10)].concat();
    let value = large(1, VALUE_BYTES);
    let mut other = world.proxy.client();
    for key in &keys {
        assert_eq!(other.call(&["SET", key, &value]), Value::ok());
    }
    let value = Value::bulk(&value);
    let serves_all = |world: &World| {
        let mut other = world.proxy.client();
        let mut all = vec!["MGET"];
        all.extend(keys.iter().map(String::as_str));
        assert!(other.call(&all) == Value::Array(vec![value.clone(); keys.len()]));
    };
    serves_all(&world);
    let before = world.resident();

    let gets = requests((0..ASKED).map(|number| vec!["GET", &keys[number % keys.len()]]));
    is_closed(&mut world, ASKED, &gets, &value);
    let fan_outs = requests((0..ASKED).map(|_| vec!["MGET", &keys[0], &keys[4]]));
    let pair = Value::Array(vec![value.clone(), value.clone()]);
    is_closed(&mut world, ASKED, &fan_outs, &pair);
    serves_all(&world);

    // What waits for the other shard counts, and goes when its client goes.
    world.shards[1].pause();
    for _ in 0..20 {
        let waits = requests(iter::once(vec!["GET", &keys[4]]));
        is_closed(&mut world, 1, &[waits, gets.clone()].concat(), &value);
        is_closed(&mut world, 1, &fan_outs, &pair);
        assert!(other.call(&["GET", &keys[0]]) == value);
    }
    world.assert_grew_at_most("clients are closed", before, LIMIT_BYTES + 8 * MIB);
    world.shards[1].resume();
    serves_all(&world);
    assert_eq!(world.proxy.metric("clients_overrun_total"), 42.0);
}

#[test]
fn a_shard_that_stops_stops_only_those_who_ask_it() {
    const WRITERS: usize = 4;
    const WRITES: usize = 3_000;
    const VALUE_BYTES: usize = 10 * KIB;
    const READERS: usize = 100;
    const READS: usize = 20_000;
    let mut world = World::with(1, "");
    let (stopped, running) = (world.keys_of(1, 1 + WRITERS, 10), world.keys_of(0, 10, 10));
    let mut other = world.proxy.client();
    for list in &stopped[1..] {
        assert_eq!(other.call(&["DEL", list]), Value::Int(1));
    }
    let mut round_trip = || {
        for key in &running {
            assert_eq!(other.call(&["GET", key]), Value::bulk("1"));
        }
        let all: Vec<_> = iter::once("MGET")
            .chain(running.iter().map(String::as_str))
            .collect();
        assert_eq!(
            other.call(&all),
            Value::Array(vec![Value::bulk("1"); running.len()])
        );
    };
    round_trip();
    let before = world.resident();

    world.shards[1].pause();
    let value = large(0, VALUE_BYTES);
    let writes = |writer: usize| {
        let list = &stopped[1 + writer];
        requests((0..WRITES).map(|_| vec!["LPUSH", list, &value]))
    };
    let reads = requests((0..READS).map(|_| vec!["GET", &stopped[0]]));
    let fan_outs = requests((0..READS).map(|_| vec!["MGET", &running[0], &stopped[0]]));
    let all = (0..WRITERS)
        .map(writes)
        .chain([fan_outs])
        .chain(iter::repeat_n(reads, READERS));
    let mut pushers: Vec<_> = all
        .map(|requests| Pusher::new(&world.proxy, requests))
        .collect();
    push_until_stopped(&mut pushers, &mut round_trip);
    for pusher in &pushers {
        let (sent, all) = (pusher.sent, pusher.requests.len());
        assert!(sent < all, "{sent} bytes of {all} were taken");
    }
    let bytes_max = 2 * PIPE_BYTES_MAX + pushers.len() * 2 * READ_BYTES_MAX + 16 * MIB;
    world.assert_grew_at_most("a shard stands still", before, bytes_max);

    world.shards[1].resume();
    let pair = || Value::Array(vec![Value::bulk("1"); 2]);
    thread::scope(|scope| {
        for (number, pusher) in pushers.into_iter().enumerate() {
            scope.spawn(move || match number {
                ..WRITERS => pusher.finish((1..=WRITES as i64).map(Value::Int)),
                WRITERS => pusher.finish(iter::repeat_n(pair(), READS)),
                _ => pusher.finish(iter::repeat_n(Value::bulk("1"), READS)),
            });
        }
    });
    round_trip();
    world.assert_grew_at_most("it goes on", before, bytes_max);
}

#[test]
fn ten_thousand_idle_clients_cost_little_and_a_thousand_busy_ones_are_served() {
    const IDLE: usize = 10_000;
    const BUSY: usize = 1_000;
    const THREADS: usize = 10;
    const ROUNDS: usize = 20;
    const PIPELINE: usize = 200;
    const IDLE_BYTES_MAX: usize = 2 * KIB;
    // Here and in the proxy each connection is a descriptor.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let needed = (IDLE + BUSY + 500) as u64;
    assert!(
        descriptors >= needed,
        "this test opens {needed} files and may open {descriptors}: raise the hard limit (ulimit -Hn)"
    );
    let mut world = World::with(2, "");
    let text = fs::read_to_string(world.proxy.config()).expect("the config");
    let limit = format!("[server]\nmax_clients = {}", IDLE + BUSY + 1);
    fs::write(world.proxy.config(), text.replace("[server]", &limit)).expect("written");
    world.proxy.launch();
    world.pid = world.proxy.process().pid();
    let keys = [world.keys_of(0, 1, 10), world.keys_of(1, 1, 10)].concat();
    let value = large(0, 30);
    for key in &keys {
        world.proxy.client().call(&["SET", key, &value]);
    }

    // Each does something first, on both shards at once: a fresh client is cheap.
    let served = |client: &mut Client| {
        let commands: Vec<_> = (0..PIPELINE)
            .map(|number| ["GET", &keys[number % 2]])
            .collect();
        let replies = client.pipeline(&commands);
        assert_eq!(replies, vec![Value::bulk(&value); PIPELINE]);
    };
    let idle = |count: usize| -> Vec<_> {
        let mut clients: Vec<_> = (0..count).map(|_| world.proxy.client()).collect();
        clients.iter_mut().for_each(served);
        clients
    };
    let mut first = idle(IDLE / 10);
    let before = world.resident();
    let mut rest = idle(IDLE - IDLE / 10);
    let after = world.resident();
    println!(
        "{} bytes for each idle client",
        (after - before) / rest.len()
    );
    assert!(after <= before + rest.len() * IDLE_BYTES_MAX);

    thread::scope(|scope| {
        for thread in 0..THREADS {
            let world = &world;
            scope.spawn(move || {
                let mut clients: Vec<_> =
                    (0..BUSY / THREADS).map(|_| world.proxy.client()).collect();
                for round in 0..ROUNDS {
                    let name = |number: usize| format!("busy:{thread}:{number}");
                    for (number, client) in clients.iter_mut().enumerate() {
                        let (key, twin) = (name(number), name(number) + ":twin");
                        let value = format!("{key}-{round}");
                        client.send(&["MSET", &key, &value, &twin, &value]);
                        client.send(&["GET", &key]);
                        client.send(&["MGET", &twin, "none", &key]);
                    }
                    for (number, client) in clients.iter_mut().enumerate() {
                        let value = Value::bulk(format!("{}-{round}", name(number)));
                        assert_eq!(client.read(), Value::ok());
                        assert_eq!(client.read(), value);
                        assert_eq!(client.read().items(), [value.clone(), Value::Null, value]);
                    }
                }
            });
        }
    });
    first.iter_mut().chain(&mut rest).for_each(served);
    let bytes_max = rest.len() * IDLE_BYTES_MAX + BUSY * 16 * KIB;
    world.assert_grew_at_most("busy ones beside them", before, bytes_max);
}

#[test]
fn pipelines_of_ten_thousand_commands_are_answered_in_order() {
    const CLIENTS: usize = 8;
    const COMMANDS: usize = 10_000;
    const ROUNDS: usize = 3;
    let world = World::with(2, "");
    let mut first = world.proxy.client();
    for shard in 0..2 {
        first.call(&["GET", &world.keys_of(shard, 1, 10)[0]]);
    }
    let before = world.resident();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let world = &world;
            scope.spawn(move || {
                let mut client = world.proxy.client();
                for round in 0..ROUNDS {
                    let (commands, replies) = any_pipeline(number, round, COMMANDS);
                    // As most clients do: all is sent before a reply is read.
                    let got = client.pipeline(&commands);
                    for (at, (got, expected)) in got.iter().zip(&replies).enumerate() {
                        assert_eq!(got, expected, "to {:?}", commands[at]);
                    }
                    assert_eq!(got.len(), replies.len());
                }
            });
        }
    });
    let bytes_max = CLIENTS * (MIB + 2 * READ_BYTES_MAX);
    world.assert_grew_at_most("long pipelines", before, bytes_max);
}

/// Commands over many keys of one client, and what they are answered.
fn any_pipeline(client: usize, round: usize, count: usize) -> (Vec<Vec<String>>, Vec<Value>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut pairs = Vec::with_capacity(count);
    for at in 0..count / 5 {
        let key = format!("{client}:{at}");
        let (list, value) = (format!("list:{client}"), large(round + at, at % 200));
        let pair = vec![Value::bulk(&value), Value::Null, Value::bulk(&value)];
        let pushed = (round * (count / 5) + at + 1) as i64;
        pairs.extend([
            (words(&["SET", &key, &value]), Value::ok()),
            (words(&["GET", &key]), Value::bulk(&value)),
            (words(&["RPUSH", &list, "x"]), Value::Int(pushed)),
            (words(&["MGET", &key, "none", &key]), Value::Array(pair)),
            (words(&["PING", &key]), Value::bulk(&key)),
        ]);
    }
    pairs.into_iter().unzip()
}
