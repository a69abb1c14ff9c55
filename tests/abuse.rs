//! What no client should send, sent to the proxy and to a bare redis-server, in
//! the same pieces: the proxy answers with the same bytes, and closes where the
//! server closes. Where it does not, the reason is in [`DEVIATIONS`].
//!
//! After all of it the process is the one that it was, a client that behaves is
//! served, and nothing of what was sent is still in memory. The inputs are in
//! `abuse/inputs.rs`; some are in it by chance, so a failure prints its seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "abuse/inputs.rs"]
mod inputs;
mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use inputs::{Input, LONG_LINE_BYTES};
use support::keyferry::LayoutText;
use support::process::memory_bytes;
use support::{Client, Keyferry, RedisServer, Value, seeded};

/// Both sides answer, or close, within this.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the other side is given to close when one of them did.
const SAME_END_LIMIT: Duration = Duration::from_millis(500);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What all of it may leave behind in the proxy.
const GROWTH_BYTES_MAX: usize = 2 * MIB;
/// What it may take at any time: connections that are open at once, each with
/// what is read of it at once, and long lines.
const PEAK_BYTES_MAX: usize = 4 * MIB;
const INPUTS_MIN: usize = 1_000;
/// So many inputs are sent at once, on as many connections.
const AT_ONCE: usize = 100;
/// Longer ones are not sent byte by byte.
const SLOW_BYTES_MAX: usize = 400;

/// A way in which the proxy is not like Redis, and is not meant to be.
struct Deviation {
    name: &'static str,
    fits: fn(&[u8], &Outcome, &Outcome) -> bool,
}

/// `docs/commands.md` tells of them, too.
const DEVIATIONS: &[Deviation] = &[
    // Redis skips the two bytes after a body unseen. Many clients share one
    // connection to a shard here, and not every server is so patient.
    Deviation {
        name: "something else than CR LF stands after an argument",
        fits: |_, theirs, ours| ours.ends_by("expected CRLF after bulk", theirs),
    },
    Deviation {
        name: "a length line ends with CR and something else than LF",
        fits: |bytes, theirs, ours| {
            let odd = |pair: &[u8]| pair[0] == b'\r' && pair[1] != b'\n';
            let refused = ours.ends_by("invalid multibulk length", theirs)
                || ours.ends_by("invalid bulk length", theirs);
            refused && bytes.windows(2).any(odd)
        },
    },
    // What is kept for an argument takes more memory than the shortest one has bytes.
    Deviation {
        name: "more than 1,048,576 arguments, which Redis refused before 7.0",
        fits: |bytes, theirs, ours| {
            let said = String::from_utf8_lossy(bytes);
            let mut counts = said.split('*').skip(1).map(digits);
            counts.any(|count| (1_048_577..=i32::MAX as u64).contains(&count))
                && ours.ends_by("invalid multibulk length", theirs)
        },
    },
    // Redis looks at a line's length only if its end has not arrived, so that
    // chance decides.
    Deviation {
        name: "a line above 64 KiB that has an end",
        fits: |bytes, theirs, ours| {
            let longest = bytes.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
            longest >= Some(64 * KIB)
                && (ours.ends_by("too big inline request", theirs)
                    || ours.ends_by("too big mbulk count string", theirs)
                    || ours.ends_by("too big bulk count string", theirs))
        },
    },
    Deviation {
        name: "a transaction with keys on several shards",
        fits: |_, theirs, ours| {
            let said = String::from_utf8_lossy(&ours.replies);
            said.find("-CROSSSLOT Keys in request")
                .is_some_and(|at| theirs.replies.starts_with(&said.as_bytes()[..at]))
        },
    },
    // Redis closes before it writes what it owes for what came in the same piece.
    Deviation {
        name: "replies to what was sent before POST or Host:",
        fits: |bytes, theirs, ours| {
            let said = String::from_utf8_lossy(bytes).to_lowercase();
            (said.contains("post") || said.contains("host:"))
                && theirs.closed
                && ours.closed
                && ours.replies.starts_with(&theirs.replies)
        },
    },
];

fn digits(text: &str) -> u64 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// What a client got for all it sent.
#[derive(Clone, PartialEq)]
struct Outcome {
    replies: Vec<u8>,
    /// The server ended it, not the client.
    closed: bool,
}

impl Outcome {
    /// Whether it is like `theirs` up to this error, which ends it.
    fn ends_by(&self, words: &str, theirs: &Outcome) -> bool {
        let error = format!("-ERR Protocol error: {words}\r\n");
        let before = self.replies.strip_suffix(error.as_bytes());
        self.closed && before.is_some_and(|before| theirs.replies.starts_with(before))
    }

    fn shown(&self) -> String {
        let replies: String = self
            .replies
            .escape_ascii()
            .to_string()
            .chars()
            .take(300)
            .collect();
        format!(
            "\"{replies}\" and is {}",
            if self.closed { "closed" } else { "open" }
        )
    }
}

/// A connection that gets an input.
struct Link {
    stream: TcpStream,
    replies: Vec<u8>,
    closed: bool,
}

impl Link {
    fn open(address: &str) -> Link {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("set");
        stream.set_write_timeout(Some(LIMIT)).expect("set");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        Link {
            stream,
            replies: Vec::new(),
            closed: false,
        }
    }

    /// Sends as much as the other side wants to have.
    fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            let closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(closed.contains(&error.kind()), "{error}");
        }
    }

    /// Takes what has arrived.
    fn look(&mut self) {
        self.stream.set_nonblocking(true).expect("set");
        let mut piece = [0; 16 * KIB];
        while !self.closed {
            match self.stream.read(&mut piece) {
                Ok(0) => self.closed = true,
                Ok(n) => self.replies.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.closed = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_nonblocking(false).expect("set");
    }

    /// The client sends no more; what it is still owed comes, and then the end.
    fn finish(mut self, what: &str) -> Outcome {
        if !self.closed {
            let _ = self.stream.shutdown(Shutdown::Write);
            match self.stream.read_to_end(&mut self.replies) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => panic!("{what} neither answers nor closes: {error}"),
            }
        }
        Outcome {
            replies: self.replies,
            closed: self.closed,
        }
    }
}

/// The proxy or the server, with a client that behaves.
struct Side {
    name: &'static str,
    address: String,
    client: Client,
}

impl Side {
    fn new(name: &'static str, address: String) -> Side {
        let client = Client::connect(&address);
        Side {
            name,
            address,
            client,
        }
    }

    /// Returns when what was sent before is handled, at all shards: neither
    /// side serves two clients at a time.
    fn pass(&mut self, round_trips: usize) {
        let names: Vec<String> = (0..16).map(|number| format!("none{number}")).collect();
        let words = [&["MGET".to_owned()][..], &names].concat();
        for _ in 0..round_trips {
            let nothing = Value::Array(vec![Value::Null; names.len()]);
            assert_eq!(self.client.call(&words), nothing);
        }
    }
}

struct World {
    shards: Vec<RedisServer>,
    proxy: Keyferry,
    oracle: RedisServer,
}

impl World {
    /// With one worker nothing is handled beside what is waited for.
    fn new() -> World {
        let shards = RedisServer::start_many(2, &[]);
        let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
        let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
        World {
            proxy: Keyferry::start_with(&layout, 1, "hash_tag = \"{}\""),
            oracle: RedisServer::start(&[]),
            shards,
        }
    }

    /// Theirs first.
    fn sides(&self) -> [Side; 2] {
        [
            Side::new("the server", self.oracle.address()),
            Side::new("the proxy", self.proxy.address()),
        ]
    }

    fn forget_everything(&self) {
        for server in self.shards.iter().chain([&self.oracle]) {
            assert_eq!(server.client().call(&["FLUSHALL"]), Value::ok());
        }
    }

    /// The process is the one that was started, it serves, and nothing in it panicked.
    fn assert_well(&mut self, pid: u32) {
        let mut client = self.proxy.client();
        for number in 0..100 {
            let (key, value) = (format!("well{number}"), format!("value{number}"));
            assert_eq!(client.call(&["SET", &key, &value]), Value::ok());
            assert_eq!(client.call(&["GET", &key]), Value::bulk(&value));
        }
        assert_eq!(self.proxy.process().try_wait(), None);
        assert_eq!(self.proxy.process().pid(), pid);
        let said = self.proxy.process().stderr();
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// Sends each input, in pieces of one byte or in one piece, to both sides:
/// what became of it, theirs first.
fn send_all(sides: &mut [Side; 2], inputs: &[&Input], slowly: bool) -> Vec<[Outcome; 2]> {
    let mut links: Vec<[Link; 2]> = inputs
        .iter()
        .map(|_| [&sides[0], &sides[1]].map(|side| Link::open(&side.address)))
        .collect();
    let longest = inputs.iter().map(|input| input.bytes.len()).max();
    let longest = longest.unwrap_or(0);
    let (step, rounds) = if slowly { (1, longest) } else { (longest, 1) };
    for round in 0..rounds {
        for (at, side) in sides.iter_mut().enumerate() {
            for (input, links) in inputs.iter().zip(&mut links) {
                let rest = input.bytes.get(round * step..).unwrap_or_default();
                links[at].send(&rest[..step.min(rest.len())]);
            }
            side.pass(1);
        }
    }
    // A server reads 16 KiB at once.
    let passes = 4 + longest / (16 * KIB);
    for (at, side) in sides.iter_mut().enumerate() {
        side.pass(passes);
        links.iter_mut().for_each(|links| links[at].look());
    }
    let start = Instant::now();
    let differ = |links: &[Link; 2]| links[0].closed != links[1].closed;
    while links.iter().any(differ) && start.elapsed() < SAME_END_LIMIT {
        thread::yield_now();
        links.as_flattened_mut().iter_mut().for_each(Link::look);
    }
    let links = links.into_iter();
    links
        .map(|[theirs, ours]| [theirs.finish(sides[0].name), ours.finish(sides[1].name)])
        .collect()
}

/// How often each of [`DEVIATIONS`] was met; what differs in another way is
/// shown.
#[derive(Default)]
struct Findings {
    met: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Findings {
    fn note(&mut self, input: &Input, slowly: bool, [theirs, ours]: &[Outcome; 2]) {
        if theirs == ours {
            return;
        }
        let mut fitting = DEVIATIONS
            .iter()
            .filter(|deviation| (deviation.fits)(&input.bytes, theirs, ours));
        if let Some(deviation) = fitting.next() {
            *self.met.entry(deviation.name).or_default() += 1;
            return;
        }
        let bytes = input.bytes.escape_ascii().to_string();
        let shown: String = bytes.chars().take(300).collect();
        self.wrong.push(format!(
            "{}, {}, {} bytes: {shown}\n  server {}\n  proxy  {}",
            input.family,
            if slowly {
                "byte by byte"
            } else {
                "in one piece"
            },
            input.bytes.len(),
            theirs.shown(),
            ours.shown(),
        ));
    }
}

#[test]
fn what_is_no_request_gets_redis_s_error_or_is_closed() {
    let mut random = seeded("what_is_no_request_gets_redis_s_error_or_is_closed");
    let inputs = inputs::all(&mut random);
    assert!(inputs.len() >= INPUTS_MIN, "{}", inputs.len());
    let mut world = World::new();
    let mut sides = world.sides();
    let pid = world.proxy.process().pid();
    let mut findings = Findings::default();

    // What is used later is there already: buffers of one long line, and the
    // connections that are open at once.
    let long = inputs
        .iter()
        .find(|input| input.bytes.len() >= LONG_LINE_BYTES);
    send_all(&mut sides, &[long.expect("one"); AT_ONCE], false);
    let sound = Input {
        family: "sound",
        bytes: b"*1\r\n$4\r\nPING\r\n".to_vec(),
    };
    send_all(&mut sides, &[&sound; AT_ONCE], true);
    let before = memory_bytes(pid, "VmRSS");

    let mut all: Vec<&Input> = inputs.iter().collect();
    // Those of a length together: all wait for the longest.
    all.sort_by_key(|input| input.bytes.len());
    let short = all.partition_point(|input| input.bytes.len() <= SLOW_BYTES_MAX);
    let short = &all[..short];
    for (slowly, inputs) in [(false, &all[..]), (true, short)] {
        for some in inputs.chunks(AT_ONCE) {
            let outcomes = send_all(&mut sides, some, slowly);
            for (input, outcome) in some.iter().zip(&outcomes) {
                findings.note(input, slowly, outcome);
            }
        }
        world.forget_everything();
    }

    let (peak, after) = (memory_bytes(pid, "VmHWM"), memory_bytes(pid, "VmRSS"));
    println!(
        "{} inputs in one piece, {} byte by byte; {} KiB before, {} KiB after, {} KiB at most",
        inputs.len(),
        short.len(),
        before / KIB,
        after / KIB,
        peak / KIB,
    );
    println!("{:#?}", findings.met);
    assert!(
        findings.wrong.is_empty(),
        "{} outcomes differ:\n{}",
        findings.wrong.len(),
        findings.wrong.join("\n")
    );
    world.assert_well(pid);
    assert!(after <= before + GROWTH_BYTES_MAX);
    assert!(peak <= before + PEAK_BYTES_MAX);
    let unmet = DEVIATIONS
        .iter()
        .map(|deviation| deviation.name)
        .filter(|name| !findings.met.contains_key(name));
    assert_eq!(
        unmet.collect::<Vec<_>>(),
        [""; 0],
        "these are none any more"
    );
}

#[test]
fn what_is_only_announced_takes_no_memory() {
    const CLIENTS: usize = 1_000;
    const EACH_BYTES_MAX: usize = 8 * KIB;
    let needed = (CLIENTS + 500) as u64;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    assert!(descriptors >= needed, "this test opens {needed} files");
    let mut world = World::new();
    let pid = world.proxy.process().pid();
    let mut side = Side::new("the proxy", world.proxy.address());
    side.pass(10);
    let before = memory_bytes(pid, "VmRSS");

    let announced: [&[u8]; 5] = [
        b"*1048576\r\n$536870912\r\nabc",
        b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$536870912\r\nabc",
        b"*2\r\n$4\r\nECHO\r\n$536870912\r\nabc",
        b"*1048576\r\n$4\r\nMSET\r\n$1\r\nk\r\n$536870912\r\nabc",
        b"SET k \"",
    ];
    let mut links: Vec<Link> = (0..CLIENTS).map(|_| Link::open(&side.address)).collect();
    for (number, link) in links.iter_mut().enumerate() {
        link.send(announced[number % announced.len()]);
    }
    side.pass(10);
    world.assert_well(pid);
    for link in &mut links {
        link.look();
        assert!(
            !link.closed && link.replies.is_empty(),
            "it waits for the rest"
        );
    }
    let held = memory_bytes(pid, "VmRSS");
    for link in links {
        let outcome = link.finish("the proxy");
        assert!(outcome.replies.is_empty(), "{}", outcome.shown());
    }
    side.pass(10);
    world.assert_well(pid);
    let (peak, after) = (memory_bytes(pid, "VmHWM"), memory_bytes(pid, "VmRSS"));
    println!(
        "{} KiB before, {} KiB more with {CLIENTS} halves, {} KiB more after, {} KiB more at most",
        before / KIB,
        held.saturating_sub(before) / KIB,
        after.saturating_sub(before) / KIB,
        peak.saturating_sub(before) / KIB,
    );
    assert!(peak <= before + CLIENTS * EACH_BYTES_MAX);
}
