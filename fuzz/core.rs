//! The proxy's core with the bytes of its clients and shards: no panic, whatever
//! comes, in whatever pieces, and clients that behave get their replies in order.
//!
//! ```text
//! | who lies 1 | step | step | ..        a step: | what 1 | of whom 1 | its bytes |
//! ```
//!
//! One client sends what the data says. The others send requests of which the
//! answers are known. Shards answer what they are asked, unless they lie: then
//! nothing is known but that there is no panic.

#![no_main]

use std::sync::{Arc, LazyLock};

use keyferry::metrics::registry::Registry;
use keyferry::proxy::config::{Compat, EjectConfig, PoolConfig, PoolLimits, Protocol, Timeouts};
use keyferry::proxy::core::{Full, PoolCore};
use keyferry::resp::{
    Request, RequestLimits, RequestScanner, write_array_header, write_bulk, write_command,
    write_integer,
};
use keyferry::router::epoch::{Epoch, Routing};
use keyferry::router::layout::Layout;
use keyferry::router::spec::{LayoutSpec, ShardSpec};
use keyferry::upstream::config::UpstreamConfig;
use keyferry::upstream::pipe::PipeError;
use libfuzzer_sys::fuzz_target;

const SHARDS: u16 = 3;
/// Clients that behave.
const HONEST: usize = 3;
/// Turns in which everything that is owed must have come.
const LAST_TURNS: usize = 1_000;

/// A client, and what it is owed.
struct Client {
    key: u32,
    behaves: bool,
    closed: bool,
    /// Not yet read by the core.
    unread: Vec<u8>,
    expected: Vec<u8>,
    got: Vec<u8>,
}

/// A connection to a shard: its place in the core.
#[derive(Default)]
struct Link {
    connected: bool,
    /// Sent to the shard, and not answered.
    asked: Vec<u8>,
    /// Answers that did not arrive yet.
    answers: Vec<u8>,
}

struct World {
    core: PoolCore,
    clients: Vec<Client>,
    links: Vec<Link>,
    lies: bool,
    now_us: u64,
    /// At most so many bytes are written at once.
    piece: usize,
    sequence: u32,
}

/// Made once: its points cost more than all the rest of a run.
static LAYOUT: LazyLock<Arc<Layout>> = LazyLock::new(|| {
    let address = |port: u16| format!("h:{port}").parse().expect("an address");
    let spec = LayoutSpec {
        shards: (1..=SHARDS)
            .map(|port| ShardSpec::at(&address(port)))
            .collect(),
        ..LayoutSpec::default()
    };
    Arc::new(Layout::new(spec).expect("a layout"))
});

fn new_core() -> PoolCore {
    let layout = Arc::clone(&LAYOUT);
    let config = PoolConfig {
        name: "p".into(),
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        backlog: 128,
        protocol: Protocol::Redis,
        auth: None,
        database: 0,
        layout: layout.spec().clone(),
        timeouts: Timeouts::default(),
        eject: EjectConfig::default(),
        upstream: UpstreamConfig::default(),
        limits: PoolLimits::default(),
        compat: Compat::default(),
        allow_flush: true,
    };
    let routing = Arc::new(Routing::open(Epoch(1), layout));
    PoolCore::new(Arc::new(config), routing, Registry::new(), 0, 1)
}

/// What a shard says that has every key, with its name as its value.
fn answer(request: &Request<'_>, out: &mut Vec<u8>) {
    let name = request.arg(0).to_ascii_uppercase();
    match name.as_slice() {
        b"GET" => write_bulk(out, request.arg(1)),
        b"MGET" => {
            write_array_header(out, request.len() - 1);
            (1..request.len()).for_each(|at| write_bulk(out, request.arg(at)));
        }
        b"DEL" | b"EXISTS" | b"UNLINK" | b"TOUCH" => write_integer(out, request.len() as i64 - 1),
        _ => out.extend_from_slice(b"+OK\r\n"),
    }
}

impl World {
    fn new(lies: bool) -> World {
        let mut core = new_core();
        let client = |behaves: bool| Client {
            key: core.accept(None),
            behaves,
            closed: false,
            unread: Vec::new(),
            expected: Vec::new(),
            got: Vec::new(),
        };
        let behave = [false].into_iter().chain([true; HONEST]);
        let clients = behave.map(client).collect();
        World {
            core,
            clients,
            links: Vec::new(),
            lies,
            now_us: 0,
            piece: usize::MAX,
            sequence: 0,
        }
    }

    fn link(&mut self, key: u32) -> &mut Link {
        let place = key as usize;
        if self.links.len() <= place {
            self.links.resize_with(place + 1, Link::default);
        }
        &mut self.links[place]
    }

    /// A client that behaves asks for something; `chosen` says what.
    fn ask(&mut self, which: usize, chosen: u8) {
        self.sequence += 1;
        let client = &mut self.clients[1 + which % HONEST];
        let names: Vec<String> = (0..3)
            .map(|n| format!("{which}:{}:{n}", self.sequence))
            .collect();
        let [a, b, c] = [0, 1, 2].map(|at| names[at].as_bytes());
        let (asked, expected) = (&mut client.unread, &mut client.expected);
        match chosen % 5 {
            0 => {
                write_command(asked, &[b"ECHO", a]);
                write_bulk(expected, a);
            }
            1 => {
                write_command(asked, &[b"MGET", a, b, c]);
                write_array_header(expected, 3);
                for name in [a, b, c] {
                    write_bulk(expected, name);
                }
            }
            2 => {
                write_command(asked, &[b"DEL", a, b]);
                write_integer(expected, 2);
            }
            3 => {
                write_command(asked, &[b"SET", a, b]);
                expected.extend_from_slice(b"+OK\r\n");
            }
            _ => {
                write_command(asked, &[b"GET", a]);
                write_bulk(expected, a);
            }
        }
    }

    /// Gives the core at most `bytes_max` bytes of a client.
    fn read_client(&mut self, which: usize, bytes_max: usize) {
        let client = &mut self.clients[which];
        if client.closed || !self.core.may_read(client.key) {
            return;
        }
        let piece: Vec<u8> = client
            .unread
            .drain(..bytes_max.min(client.unread.len()))
            .collect();
        if !piece.is_empty() {
            self.core.client_bytes(client.key, &piece);
        }
        self.write_full();
        self.turn();
    }

    /// Gives the core at most `bytes_max` bytes of a shard's answers.
    fn read_shard(&mut self, place: usize, bytes_max: usize) {
        let Some(link) = self.links.get_mut(place).filter(|link| link.connected) else {
            return;
        };
        if !self.lies {
            let mut scanner = RequestScanner::new(RequestLimits::default());
            let mut at = 0;
            while let Some(request) = scanner.scan(&link.asked[at..]).expect("it is sound") {
                answer(&request, &mut link.answers);
                at += request.consumed;
            }
            link.asked.drain(..at);
        }
        let piece: Vec<u8> = link
            .answers
            .drain(..bytes_max.min(link.answers.len()))
            .collect();
        if !piece.is_empty() {
            self.core.pipe_bytes(place as u32, &piece);
        }
        self.turn();
    }

    fn write_full(&mut self) {
        while let Some(full) = self.core.take_full() {
            match full {
                Full::Client(key) => self.write_client(key),
                Full::Pipe(key) => self.write_pipe(key),
            }
        }
    }

    fn write_client(&mut self, key: u32) {
        let output = self.core.client_output(key);
        let taken = output.len().min(self.piece);
        let client = self
            .clients
            .iter_mut()
            .find(|client| client.key == key && !client.closed);
        if let Some(client) = client {
            client.got.extend_from_slice(&output[..taken]);
        }
        self.core.client_written(key, taken);
    }

    fn write_pipe(&mut self, key: u32) {
        if !self.link(key).connected {
            return;
        }
        let output = self.core.pipe_output(key);
        let piece = output[..output.len().min(self.piece)].to_vec();
        self.core.pipe_written(key, piece.len());
        self.link(key).asked.extend_from_slice(&piece);
    }

    /// Ends a turn as the worker does.
    fn turn(&mut self) {
        self.core.settle();
        for _ in 0..LAST_TURNS {
            if !self.core.has_chores() {
                break;
            }
            let chores = self.core.take_chores();
            for &key in &chores.close_pipes {
                *self.link(key) = Link::default();
            }
            for &key in &chores.close_clients {
                let mut clients = self.clients.iter_mut();
                if let Some(client) = clients.find(|client| client.key == key && !client.closed) {
                    client.closed = true;
                }
            }
            for &key in &chores.dial {
                *self.link(key) = Link {
                    connected: true,
                    ..Link::default()
                };
                self.core.pipe_connected(key);
            }
            for &key in &chores.write_pipes {
                self.write_pipe(key);
            }
            for &key in &chores.write_clients {
                self.write_client(key);
            }
            self.core.recycle(chores);
            self.core.settle();
        }
    }

    /// Sockets that took only a part take more.
    fn write_rest(&mut self) {
        for at in 0..self.clients.len() {
            if !self.clients[at].closed {
                self.core.client_writable(self.clients[at].key);
            }
        }
        for place in 0..self.links.len() {
            if self.links[place].connected {
                self.core.pipe_writable(place as u32);
            }
        }
        self.turn();
    }

    fn step(&mut self, what: u8, whom: u8, bytes: &[u8]) {
        match what % 8 {
            0 => self.clients[0].unread.extend_from_slice(bytes),
            1 | 2 => self.ask(usize::from(whom), bytes.first().copied().unwrap_or(4)),
            3 => self.read_client(
                usize::from(whom) % self.clients.len(),
                usize::from(what) + 1,
            ),
            4 => {
                let place = usize::from(whom) % self.links.len().max(1);
                if let Some(link) = self.links.get_mut(place).filter(|_| self.lies) {
                    link.answers.extend_from_slice(bytes);
                }
                self.read_shard(place, usize::from(what) * 4 + 1);
            }
            5 => {
                self.piece = 1 + usize::from(whom);
                self.write_rest();
            }
            6 => {
                self.now_us += u64::from(whom) * 10_000;
                self.core.set_clock(self.now_us);
                self.core.tick();
                self.turn();
            }
            _ if self.lies => match self.links.get(usize::from(whom)) {
                Some(link) if link.connected => {
                    self.core.pipe_failed(u32::from(whom), PipeError::Closed);
                    self.turn();
                }
                _ => {
                    let client = &self.clients[usize::from(whom) % self.clients.len()];
                    if !client.closed {
                        self.core.client_gone(client.key);
                        self.turn();
                    }
                }
            },
            _ => {
                if !self.clients[0].closed {
                    self.core.client_eof(self.clients[0].key);
                    self.turn();
                }
            }
        }
    }

    /// All that is on its way arrives.
    fn finish(&mut self) {
        self.piece = usize::MAX;
        for _ in 0..LAST_TURNS {
            let owes = |client: &Client| {
                client.behaves
                    && (!client.unread.is_empty() || client.got.len() < client.expected.len())
            };
            if !self.clients.iter().any(owes) {
                break;
            }
            (0..self.clients.len()).for_each(|which| self.read_client(which, usize::MAX));
            self.write_rest();
            (0..self.links.len()).for_each(|place| self.read_shard(place, usize::MAX));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [lies, rest @ ..] = data else { return };
    let mut rest = rest;
    let mut world = World::new(lies % 2 == 1);
    while let [what, whom, length, after @ ..] = rest {
        let (bytes, next) = after.split_at(usize::from(*length).min(after.len()));
        world.step(*what, *whom, bytes);
        rest = next;
    }
    world.finish();
    if world.lies {
        return;
    }
    for client in world.clients.iter().filter(|client| client.behaves) {
        assert!(!client.closed, "a client that behaves was closed");
        assert!(
            client.got == client.expected,
            "got {}\nexpected {}",
            client.got.escape_ascii(),
            client.expected.escape_ascii()
        );
    }
});
