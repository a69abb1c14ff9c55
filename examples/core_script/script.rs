//! The fixed scripts: clients and shards of a core without sockets, that do in
//! every round exactly what they did in the round before.
//!
//! ```text
//! round    every client's pipeline -> core -> what the shards get
//!          every shard's replies   -> core -> what the clients get
//! ```
//!
//! Each arrow is one turn of a worker. Shards answer in the order of their
//! names, so of the clients whose pipelines begin on a later shard the replies
//! come out of order.
//!
//! Invariant: after the first round, which connects and learns what the shards
//! answer, nothing here allocates: what is counted is the core's.

use std::sync::Arc;

use keyferry::metrics::registry::Registry;
use keyferry::proxy::config::{Compat, EjectConfig, PoolConfig, PoolLimits, Protocol, Timeouts};
use keyferry::proxy::core::PoolCore;
use keyferry::resp::{Request, RequestLimits, RequestScanner, write_array_header, write_bulk};
use keyferry::router::epoch::{Epoch, Routing};
use keyferry::router::layout::Layout;
use keyferry::router::spec::{LayoutSpec, ShardSpec};
use keyferry::upstream::config::UpstreamConfig;

const VALUE_BYTES: usize = 64;
/// Length of a turn on the core's clock.
const ROUND_US: u64 = 1_000;

/// What a client sends.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Answered by the proxy itself.
    Ping,
    /// One key.
    Get,
    /// One key and a value.
    Set,
    /// So many keys.
    Mget(usize),
    /// So many keys, each with a value.
    Mset(usize),
}

/// What is played.
pub struct Workload {
    /// As the command line has it.
    pub name: &'static str,
    /// Clients that send in each round.
    pub clients: usize,
    /// Requests that each of them sends.
    pub pipeline: usize,
    /// Of which kind.
    pub kind: Kind,
    /// Shards that the keys are spread over.
    pub shards: u16,
}

const fn of(
    name: &'static str,
    (clients, pipeline): (usize, usize),
    kind: Kind,
    shards: u16,
) -> Workload {
    Workload {
        name,
        clients,
        pipeline,
        kind,
        shards,
    }
}

/// Every workload. More clients than about 500 do not meet in one turn of a worker.
pub const WORKLOADS: &[Workload] = &[
    of("get-1", (50, 1), Kind::Get, 2),
    of("set-1", (50, 1), Kind::Set, 2),
    of("get-1-500-clients", (500, 1), Kind::Get, 2),
    of("get-16", (50, 16), Kind::Get, 2),
    of("set-16", (50, 16), Kind::Set, 2),
    of("ping-16", (50, 16), Kind::Ping, 2),
    of("get-64", (50, 64), Kind::Get, 2),
    of("set-64", (50, 64), Kind::Set, 2),
    of("mget-10", (50, 1), Kind::Mget(10), 2),
    of("mset-10", (50, 1), Kind::Mset(10), 2),
    of("mset-10-500-clients", (500, 1), Kind::Mset(10), 2),
    of("mget-100", (1, 1), Kind::Mget(100), 4),
    of("mset-100", (1, 1), Kind::Mset(100), 4),
    of("mget-10000", (1, 1), Kind::Mget(10_000), 4),
    of("mset-10000", (1, 1), Kind::Mset(10_000), 4),
];

impl Workload {
    /// Requests of one round.
    pub fn requests(&self) -> usize {
        self.clients * self.pipeline
    }

    /// Keys of one request.
    pub fn keys(&self) -> usize {
        match self.kind {
            Kind::Ping => 0,
            Kind::Get | Kind::Set => 1,
            Kind::Mget(keys) | Kind::Mset(keys) => keys,
        }
    }

    /// One client's pipeline, with the next keys of a fixed sequence.
    fn batch(&self, seed: &mut u64) -> Vec<u8> {
        let (name, with_values) = match self.kind {
            Kind::Ping => ("PING", false),
            Kind::Get => ("GET", false),
            Kind::Set => ("SET", true),
            Kind::Mget(_) => ("MGET", false),
            Kind::Mset(_) => ("MSET", true),
        };
        let args_of_key = if with_values { 2 } else { 1 };
        let mut bytes = Vec::new();
        for _ in 0..self.pipeline {
            write_array_header(&mut bytes, 1 + self.keys() * args_of_key);
            write_bulk(&mut bytes, name.as_bytes());
            for _ in 0..self.keys() {
                write_bulk(&mut bytes, next_key(seed).as_bytes());
                if with_values {
                    write_bulk(&mut bytes, &[b'v'; VALUE_BYTES]);
                }
            }
        }
        bytes
    }

    /// Bytes of all clients' replies in one round.
    fn reply_bytes(&self) -> usize {
        let mut reply = Vec::new();
        match self.kind {
            Kind::Ping => reply.extend_from_slice(b"+PONG\r\n"),
            Kind::Set | Kind::Mset(_) => reply.extend_from_slice(b"+OK\r\n"),
            Kind::Get => write_bulk(&mut reply, &[b'v'; VALUE_BYTES]),
            Kind::Mget(keys) => write_values(&mut reply, keys),
        }
        reply.len() * self.requests()
    }
}

fn next_key(seed: &mut u64) -> String {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    format!("key:{:012}", *seed >> 44)
}

fn write_values(out: &mut Vec<u8>, count: usize) {
    write_array_header(out, count);
    for _ in 0..count {
        write_bulk(out, &[b'v'; VALUE_BYTES]);
    }
}

/// What a shard says to a request: it only looks at its shape.
fn answer(request: &Request<'_>, out: &mut Vec<u8>) {
    match request.arg(0) {
        b"GET" => write_bulk(out, &[b'v'; VALUE_BYTES]),
        b"MGET" => write_values(out, request.len() - 1),
        _ => out.extend_from_slice(b"+OK\r\n"),
    }
}

/// See the head of this file.
pub struct Script {
    core: PoolCore,
    /// Each client, and what it sends in every round.
    clients: Vec<(u32, Vec<u8>)>,
    /// By pipe: what its shard answers in every round.
    replies: Vec<Vec<u8>>,
    /// Whether `replies` are still to be found out.
    learning: bool,
    pipe_bytes_of_round: usize,
    client_bytes_of_round: usize,
    rounds: u64,
    /// Bytes that were written in this round.
    to_pipes: usize,
    to_clients: usize,
}

impl Script {
    /// Connects everyone and plays the first round.
    pub fn new(workload: &Workload) -> Self {
        let mut core = core(workload.shards);
        let mut seed = 42;
        let clients = (0..workload.clients)
            .map(|_| (core.accept(None), workload.batch(&mut seed)))
            .collect();
        let mut script = Self {
            core,
            clients,
            replies: Vec::new(),
            learning: true,
            pipe_bytes_of_round: 0,
            client_bytes_of_round: workload.reply_bytes(),
            rounds: 0,
            to_pipes: 0,
            to_clients: 0,
        };
        script.play();
        script.learning = false;
        script.pipe_bytes_of_round = script.to_pipes;
        script
    }

    /// One more round.
    pub fn round(&mut self) {
        self.play();
        assert_eq!(self.to_pipes, self.pipe_bytes_of_round, "to the shards");
    }

    fn play(&mut self) {
        (self.to_pipes, self.to_clients) = (0, 0);
        self.core.set_clock(self.rounds * ROUND_US);
        self.rounds += 1;
        for (key, bytes) in &self.clients {
            self.core.client_bytes(*key, bytes);
        }
        self.do_chores();
        for (key, bytes) in (0..).zip(&self.replies) {
            self.core.pipe_bytes(key, bytes);
        }
        self.do_chores();
        assert_eq!(
            self.to_clients, self.client_bytes_of_round,
            "to the clients"
        );
    }

    /// Does what the core asks for, as a worker would.
    fn do_chores(&mut self) {
        self.core.settle();
        while self.core.has_chores() {
            let chores = self.core.take_chores();
            for &key in &chores.dial {
                self.core.pipe_connected(key);
            }
            for &key in &chores.write_pipes {
                if self.learning {
                    self.learn(key);
                }
                let taken = self.core.pipe_output(key).len();
                self.core.pipe_written(key, taken);
                self.to_pipes += taken;
            }
            for &key in &chores.write_clients {
                let taken = self.core.client_output(key).len();
                self.core.client_written(key, taken);
                self.to_clients += taken;
            }
            self.core.recycle(chores);
            self.core.settle();
        }
    }

    fn learn(&mut self, key: u32) {
        let place = key as usize;
        if self.replies.len() <= place {
            self.replies.resize_with(place + 1, Vec::new);
        }
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let mut requests = self.core.pipe_output(key);
        while let Ok(Some(request)) = scanner.scan(requests) {
            answer(&request, &mut self.replies[place]);
            requests = &requests[request.consumed..];
        }
    }
}

fn core(shards: u16) -> PoolCore {
    let shards = (1..=shards)
        .map(|port| ShardSpec::at(&format!("h:{port}").parse().expect("an address")))
        .collect();
    let spec = LayoutSpec {
        shards,
        ..LayoutSpec::default()
    };
    let layout = Arc::new(Layout::new(spec.clone()).expect("a layout"));
    let config = PoolConfig {
        name: "p".into(),
        protocol: Protocol::default(),
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        backlog: 128,
        database: 0,
        layout: spec,
        timeouts: Timeouts::default(),
        eject: EjectConfig::default(),
        upstream: UpstreamConfig::default(),
        limits: PoolLimits::default(),
        compat: Compat::default(),
        auth: None,
        allow_flush: false,
    };
    let routing = Arc::new(Routing::open(Epoch(1), layout));
    PoolCore::new(Arc::new(config), routing, Registry::new(), 0, 1)
}
