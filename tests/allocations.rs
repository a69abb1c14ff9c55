//! Nothing is allocated per request: over 100,000 requests of each kind, the
//! allocations and reallocations of the whole process are counted, whatever
//! thread makes them. After a warm-up there are next to none.
//!
//! - the core without sockets, by the scripts of `examples/core_script`;
//! - a worker with real sockets before a real redis-server;
//! - frames of the built-in shard's log, on a real disk.
//!
//! One test does it all: a second one beside it would be counted, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "../examples/core_script/script.rs"]
mod script;
mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use keyferry::metrics::registry::Registry;
use keyferry::proxy::config::{Compat, EjectConfig, PoolConfig, PoolLimits, Protocol, Timeouts};
use keyferry::proxy::process::{Proxy, ProxySettings};
use keyferry::reuseport::address::ListenAddress;
use keyferry::router::spec::{LayoutSpec, ShardSpec};
use keyferry::store::disk::RealFiles;
use keyferry::store::oplog::{Log, LogOptions};
use keyferry::upstream::config::UpstreamConfig;
use script::{Script, WORKLOADS, Workload};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::RedisServer;
use support::client::encode;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 100_000;
/// Of a script, which does the same in every round: none. A few are those of the
/// test harness, which has just started this test.
const CORE_ALLOCATIONS_MAX: usize = 10;
/// Of a worker. How much comes at once is up to the kernel's scheduler, and a
/// buffer of a client or shard finds its size when more comes than ever before.
const WORKER_ALLOCATIONS_MAX: usize = 100;
/// Rounds of a script before it is counted.
const WARM_ROUNDS: usize = 10;
/// A request with more keys is itself larger than what is kept between requests.
const KEYS_MAX: usize = 100;

/// Allocations and reallocations of the process while `work` is done.
fn allocations(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn nothing_is_allocated_per_request() {
    let counted = allocations(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(100))));
    assert!(counted > 0, "the counter counts");
    let mut counts: Vec<(&str, usize, usize)> = WORKLOADS
        .iter()
        .filter(|workload| workload.keys() <= KEYS_MAX)
        .map(|workload| (workload.name, of_core(workload), CORE_ALLOCATIONS_MAX))
        .collect();
    counts.push(("a worker's get-16", of_worker(), WORKER_ALLOCATIONS_MAX));
    counts.push(("the log's append", of_log(), CORE_ALLOCATIONS_MAX));
    for (name, count, most) in &counts {
        println!("{name}: {count} allocations over {REQUESTS} requests, at most {most}");
    }
    let all_are_few = counts.iter().all(|(_, count, most)| count <= most);
    assert!(all_are_few, "more than that: {counts:?}");
}

fn of_core(workload: &Workload) -> usize {
    let mut script = Script::new(workload);
    (0..WARM_ROUNDS).for_each(|_| script.round());
    allocations(|| {
        for _ in 0..REQUESTS.div_ceil(workload.requests()) {
            script.round();
        }
    })
}

const CLIENTS: usize = 50;
const PIPELINE: usize = 16;
const VALUE_BYTES: usize = 64;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// GETs of many clients at once; keys of each pipeline are on both shards.
/// Frames in one segment; going on in the next one costs a few allocations.
fn of_log() -> usize {
    let dir = TempDir::new().unwrap();
    let opened = Log::open(Arc::new(RealFiles), dir.path(), LogOptions::default());
    let mut log = opened.unwrap().log;
    let mut append = |count: usize| {
        for _ in 0..count {
            log.append(&[b'x'; 100], 0).unwrap();
        }
    };
    append(1000);
    allocations(|| append(REQUESTS))
}

fn of_worker() -> usize {
    let servers = RedisServer::start_many(2, &[]);
    let state = TempDir::with_prefix("keyferry-allocations-").unwrap();
    // Names are looked up on it, and there are none here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let settings = ProxySettings {
        workers: 1,
        state_dir: state.path().to_owned(),
        clients_max: CLIENTS,
        registry: Registry::new(),
    };
    let proxy = Proxy::start(settings, vec![pool(&servers)]).unwrap();
    let (_, ListenAddress::Tcp(address)) = proxy.addresses().remove(0) else {
        panic!("it listens on TCP");
    };
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|at| Client::connect(address, at))
        .collect();
    for client in &mut clients {
        client.fill();
    }
    let mut rounds = || {
        for _ in 0..REQUESTS.div_ceil(CLIENTS * PIPELINE) {
            round(&mut clients);
        }
    };
    rounds(); // to find how much may come at once
    let count = allocations(rounds);
    proxy.abandon();
    count
}

fn round(clients: &mut [Client]) {
    for client in &mut *clients {
        client.send();
    }
    for client in clients {
        client.receive();
    }
}

/// Everything a client needs is made when it connects: what it sends, what it
/// must get, and where that is read to.
struct Client {
    stream: TcpStream,
    sets: Vec<u8>,
    gets: Vec<u8>,
    values: Vec<u8>,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, at: usize) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut sets, mut gets, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..PIPELINE {
            let key = format!("key:{at}:{number}");
            let value = format!("{key:x<VALUE_BYTES$}");
            encode(&mut sets, &["SET", &key, &value]);
            encode(&mut gets, &["GET", &key]);
            values.extend_from_slice(format!("${VALUE_BYTES}\r\n{value}\r\n").as_bytes());
        }
        let read = vec![0; values.len()];
        Self {
            stream,
            sets,
            gets,
            values,
            read,
        }
    }

    fn fill(&mut self) {
        self.stream.write_all(&self.sets).unwrap();
        let mut oks = vec![0; PIPELINE * "+OK\r\n".len()];
        self.stream.read_exact(&mut oks).unwrap();
        assert_eq!(oks, b"+OK\r\n".repeat(PIPELINE));
    }

    fn send(&mut self) {
        self.stream.write_all(&self.gets).unwrap();
    }

    fn receive(&mut self) {
        self.stream.read_exact(&mut self.read).unwrap();
        assert!(self.read == self.values, "other values than were set");
    }
}

fn pool(servers: &[RedisServer]) -> PoolConfig {
    let shards = servers
        .iter()
        .map(|server| ShardSpec::at(&server.address().parse().unwrap()));
    PoolConfig {
        name: "p".into(),
        protocol: Protocol::default(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        backlog: 128,
        database: 0,
        layout: LayoutSpec {
            shards: shards.collect(),
            ..LayoutSpec::default()
        },
        timeouts: Timeouts::default(),
        eject: EjectConfig::default(),
        upstream: UpstreamConfig::default(),
        limits: PoolLimits::default(),
        compat: Compat::default(),
        auth: None,
        allow_flush: false,
    }
}
