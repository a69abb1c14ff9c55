//! Very large values beside busy clients, with a clock that the test sets.

use super::*;
use crate::proxy::pace::FREE_BYTES;

const PIECE: usize = 64 * 1024;
const MIB: u64 = 1024 * 1024;
const RATE: u64 = 8 * MIB;
const SECOND_US: u64 = 1_000_000;

/// One shard; very large values have [`RATE`].
fn world() -> World {
    let layout = layout(&[1]);
    let mut config = config(layout.spec(), 64 * MIB as usize);
    config.limits.large_bytes_per_second = Some(RATE);
    let mut world = World::new(&[1]);
    world.core = PoolCore::new(
        Arc::new(config),
        Arc::new(Routing::open(Epoch(1), layout)),
        Registry::new(),
        0,
        1,
    );
    world
}

impl World {
    /// Time passes while `other` asks 10 requests a millisecond.
    fn pass_ms(&mut self, other: u32, from_us: u64, ms: u64) -> u64 {
        for now_us in (from_us..from_us + ms * 1_000).step_by(1_000) {
            self.core.set_clock(now_us);
            self.core.tick();
            self.say(other, &[&["PING"] as &[&str]; 10]);
        }
        from_us + ms * 1_000
    }

    /// Pieces of a client's value that are read in one turn of the clock.
    fn upload(&mut self, client: u32) -> u64 {
        let mut bytes = 0;
        while self.core.may_read(client) && bytes < 64 * MIB {
            self.core.client_bytes(client, &[b'x'; PIECE]);
            bytes += PIECE as u64;
            self.turn();
        }
        bytes
    }

    /// The same for a reply on `pipe`.
    fn download(&mut self, pipe: u32) -> u64 {
        let mut bytes = 0;
        while self.core.may_read_pipe(pipe) && bytes < 64 * MIB {
            self.core.pipe_bytes(pipe, &[b'x'; PIECE]);
            bytes += PIECE as u64;
            self.turn();
        }
        bytes
    }

    fn pipe_that_was_sent(&self, text: &str) -> u32 {
        let is_it = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
        let found = self.sent.iter().find(|(_, bytes)| is_it(bytes));
        *found.expect("a pipe with that request").0
    }
}

#[test]
fn a_very_large_request_keeps_the_pace_while_others_are_busy() {
    let mut world = world();
    let (client, other) = (world.client(), world.client());
    let now_us = world.pass_ms(other, SECOND_US, 100);
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 256 * MIB);
    world.core.client_bytes(client, head.as_bytes());
    world.turn();
    let first = world.upload(client);
    assert!((FREE_BYTES..FREE_BYTES + MIB).contains(&first), "{first}");
    assert!(world.core.needs_clock(), "no event will tell");
    let (mut now_us, mut passed) = (now_us, 0);
    for _ in 0..1_000 {
        now_us = world.pass_ms(other, now_us, 1);
        passed += world.upload(client);
    }
    assert!(passed.abs_diff(RATE) <= MIB / 2, "{passed}");
    // Nobody else asks: it passes as it comes.
    world.core.set_clock(now_us + SECOND_US);
    world.turn();
    world.core.set_clock(now_us + 2 * SECOND_US);
    world.turn();
    assert_eq!(world.upload(client), 64 * MIB);
}

#[test]
fn who_reads_very_large_values_has_a_connection_for_it_and_keeps_the_pace() {
    let mut world = world();
    let (client, other) = (world.client(), world.client());
    world.say(client, &[&["GET", "k"]]);
    world.say(other, &[&["GET", "behind"]]);
    let shared = world.pipe_that_was_sent("behind");
    assert_eq!(shared, world.pipe_that_was_sent("$1\r\nk\r\n"));
    let now_us = world.pass_ms(other, SECOND_US, 100);
    let size = 16 * MIB;
    world
        .core
        .pipe_bytes(shared, format!("${size}\r\n").as_bytes());
    world.turn();
    for piece in 0..size / PIECE as u64 {
        assert!(world.core.may_read_pipe(shared), "others wait, at {piece}");
        world.core.pipe_bytes(shared, &[b'x'; PIECE]);
        world.turn();
    }
    world.core.pipe_bytes(shared, b"\r\n$1\r\nb\r\n");
    world.turn();
    world.got.clear();
    world.sent.clear();

    // The second time it keeps nobody waiting.
    world.say(client, &[&["GET", "k"]]);
    world.say(other, &[&["GET", "beside"]]);
    let alone = world.pipe_that_was_sent("$1\r\nk\r\n");
    let beside = world.pipe_that_was_sent("beside");
    assert_ne!(alone, beside);
    world.core.pipe_bytes(beside, b"$1\r\nb\r\n");
    world
        .core
        .pipe_bytes(alone, format!("${}\r\n", 256 * MIB).as_bytes());
    world.turn();
    let first = world.download(alone);
    assert!((FREE_BYTES..FREE_BYTES + MIB).contains(&first), "{first}");
    let (mut now_us, mut passed) = (now_us, 0);
    for _ in 0..1_000 {
        now_us = world.pass_ms(other, now_us, 1);
        passed += world.download(alone);
    }
    assert!(passed.abs_diff(RATE) <= MIB / 2, "{passed}");
}

#[test]
fn what_a_reader_of_large_values_sends_stays_in_order() {
    let mut world = world();
    let client = world.client();
    if let Some(client) = world.core.clients.get_mut(client as usize) {
        client.got_large(FREE_BYTES + 1, 0);
    }
    world.say(client, &[&["GET", "a"]]);
    let alone = world.pipe_that_was_sent("$1\r\na\r\n");
    world.sent.clear();
    // The next waits for that reply; of two that come together neither rides alone.
    world.say(client, &[&["SET", "a", "1"], &["GET", "b"]]);
    assert!(world.sent.values().all(Vec::is_empty));
    world.core.pipe_bytes(alone, b"$1\r\nx\r\n");
    world.turn();
    let shared = world.pipe_that_was_sent("SET");
    assert_ne!(shared, alone);
    world.core.pipe_bytes(shared, b"+OK\r\n$-1\r\n");
    world.turn();
    let got = world.got.remove(&client).unwrap_or_default();
    assert_eq!(got, b"$1\r\nx\r\n+OK\r\n$-1\r\n");
    // After a while it is a client like others.
    world.core.set_clock(60 * SECOND_US);
    world.sent.clear();
    world.say(client, &[&["GET", "c"]]);
    assert_eq!(world.pipe_that_was_sent("$1\r\nc\r\n"), shared);
}
