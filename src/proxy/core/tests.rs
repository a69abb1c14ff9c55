//! The core driven by hand: clients and shards are buffers here, time stands still.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::*;
use crate::proxy::config::{Compat, EjectConfig, PoolLimits, Protocol, Timeouts};
use crate::proxy::private_pipes::Role;
use crate::resp::write_command;
use crate::router::address::ShardAddress;
use crate::router::epoch::{Epoch, Gate};
use crate::router::layout::Layout;
use crate::router::moves::{Move, Moves};
use crate::router::spec::{LayoutSpec, ShardSpec};
use crate::upstream::config::UpstreamConfig;
use crate::upstream::pipe::PipeError;

mod large;
mod logins;
mod refused;
mod unblocking;

/// A core with shards that the test answers for.
struct World {
    core: PoolCore,
    /// Bytes each pipe was sent and has not "read" yet.
    sent: HashMap<u32, Vec<u8>>,
    /// Bytes each client got.
    got: HashMap<u32, Vec<u8>>,
    closed: Vec<u32>,
    shut: Vec<u32>,
    refusing: Vec<ShardAddress>,
    connect: bool,
}

fn layout(ports: &[u16]) -> Arc<Layout> {
    let shards = ports
        .iter()
        .map(|port| ShardSpec::at(&format!("h:{port}").parse().unwrap()))
        .collect();
    Arc::new(
        Layout::new(LayoutSpec {
            shards,
            ..LayoutSpec::default()
        })
        .unwrap(),
    )
}

fn config(spec: &LayoutSpec, client_buffer_bytes_max: usize) -> PoolConfig {
    PoolConfig {
        name: "p".into(),
        protocol: Protocol::default(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        backlog: 128,
        database: 0,
        layout: spec.clone(),
        timeouts: Timeouts::default(),
        eject: EjectConfig::default(),
        upstream: UpstreamConfig::default(),
        limits: PoolLimits {
            client_buffer_bytes_max,
            ..PoolLimits::default()
        },
        compat: Compat::default(),
        auth: None,
        allow_flush: false,
    }
}

impl World {
    fn new(ports: &[u16]) -> Self {
        let layout = layout(ports);
        let config = Arc::new(config(layout.spec(), 4 * 1024 * 1024));
        let routing = Arc::new(Routing::open(Epoch(1), layout));
        Self {
            core: PoolCore::new(config, routing, Registry::new(), 0, 1),
            sent: HashMap::new(),
            got: HashMap::new(),
            closed: Vec::new(),
            shut: Vec::new(),
            refusing: Vec::new(),
            connect: true,
        }
    }

    fn client(&mut self) -> u32 {
        self.core.accept(None)
    }

    fn say(&mut self, client: u32, commands: &[&[&str]]) {
        let mut bytes = Vec::new();
        for command in commands {
            let args: Vec<&[u8]> = command.iter().map(|arg| arg.as_bytes()).collect();
            write_command(&mut bytes, &args);
        }
        self.core.client_bytes(client, &bytes);
        self.turn();
    }

    /// Settles until nothing is left to do, as the worker does.
    fn turn(&mut self) {
        self.core.settle();
        while self.core.has_chores() {
            let mut chores = self.core.take_chores();
            self.refusing.append(&mut chores.refusing);
            self.closed.extend(&chores.close_clients);
            self.shut.extend(&chores.shut_pipes);
            for &key in &chores.dial {
                if self.connect {
                    self.core.pipe_connected(key);
                }
            }
            for &key in &chores.write_pipes {
                self.write_pipe(key);
            }
            for &key in &chores.write_clients {
                let bytes = self.core.client_output(key).to_vec();
                self.got.entry(key).or_default().extend_from_slice(&bytes);
                self.core.client_written(key, bytes.len());
            }
            self.core.recycle(chores);
            self.core.settle();
        }
    }

    fn write_pipe(&mut self, key: u32) {
        let bytes = self.core.pipe_output(key).to_vec();
        self.sent.entry(key).or_default().extend_from_slice(&bytes);
        self.core.pipe_written(key, bytes.len());
    }

    fn pipe_to(&self, port: u16) -> u32 {
        let address = format!("h:{port}").parse().unwrap();
        let found = self
            .core
            .pipes
            .iter()
            .find(|(_, place)| place.address == address);
        found.expect("a pipe to that port").0 as u32
    }

    fn reply(&mut self, port: u16, bytes: &[u8]) {
        let key = self.pipe_to(port);
        self.core.pipe_bytes(key, bytes);
        self.turn();
    }

    fn sent_to(&mut self, port: u16) -> String {
        let key = self.pipe_to(port);
        String::from_utf8(self.sent.remove(&key).unwrap_or_default()).unwrap()
    }

    fn got(&mut self, client: u32) -> String {
        String::from_utf8(self.got.remove(&client).unwrap_or_default()).unwrap()
    }

    fn owner(&self, key: &str) -> u16 {
        let layout = &self.core.routing.layout;
        let address = layout
            .shard(layout.owner(key.as_bytes()))
            .address
            .to_string();
        address.strip_prefix("h:").unwrap().parse().unwrap()
    }

    /// The owner if no shard were out.
    fn owner_of_all(&self, key: &str) -> u16 {
        let layout = self.core.routing.layout.without([]);
        let address = layout.shard(layout.owner(key.as_bytes())).address.clone();
        address
            .to_string()
            .strip_prefix("h:")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Whether any connection to `port` is there or being made.
    fn is_connected_to(&self, port: u16) -> bool {
        let address = format!("h:{port}").parse().unwrap();
        let mut pipes = self.core.pipes.iter();
        pipes.any(|(_, place)| place.address == address && place.pipe.is_open())
    }

    /// The first of `k0`, `k1`, ... that `port` owns.
    fn key_on(&self, port: u16) -> String {
        (0..)
            .map(|n| format!("k{n}"))
            .find(|key| self.owner(key) == port)
            .unwrap()
    }

    fn moves_to(&self, ports: &[u16]) -> Arc<Moves> {
        let from = Arc::clone(&self.core.routing.layout);
        Arc::new(Moves::between(from, layout(ports)).unwrap())
    }

    fn hold(&mut self, moves: &Arc<Moves>) -> oneshot::Receiver<Result<(), String>> {
        let gate = Gate::Held(Arc::clone(moves));
        let routing = Routing {
            gate,
            ..Routing::clone(&self.core.routing)
        };
        let (done, drained) = oneshot::channel();
        self.core
            .prepare(&Routing::open(Epoch(2), Arc::clone(moves.to())));
        self.turn();
        self.core.hold(Arc::new(routing), done);
        self.turn();
        drained
    }
}

#[test]
fn replies_of_two_shards_leave_in_request_order() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["GET", &a], &["GET", &b], &["PING"]]);
    world.reply(2, b"$1\r\nB\r\n");
    assert_eq!(world.got(client), "");
    world.reply(1, b"$1\r\nA\r\n");
    assert_eq!(world.got(client), "$1\r\nA\r\n$1\r\nB\r\n+PONG\r\n");
}

#[test]
fn mget_is_cut_and_put_together_and_one_shards_mget_passes_as_it_is() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["MGET", &b, &a, &b]]);
    let on_a = format!("*2\r\n$4\r\nMGET\r\n${}\r\n{a}\r\n", a.len());
    assert_eq!(world.sent_to(1), on_a);
    world.reply(1, b"*1\r\n$1\r\nA\r\n");
    world.reply(2, b"*2\r\n$1\r\nB\r\n$-1\r\n");
    assert_eq!(world.got(client), "*3\r\n$1\r\nB\r\n$1\r\nA\r\n$-1\r\n");
    world.say(client, &[&["mget", &a, &a]]);
    assert!(world.sent_to(1).starts_with("*3\r\n$4\r\nmget\r\n"));
}

#[test]
fn a_lost_shard_answers_its_requests_by_an_error_and_no_other() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["GET", &a], &["GET", &b], &["MGET", &a, &b]]);
    let lost = world.pipe_to(1);
    world.core.pipe_failed(lost, PipeError::Closed);
    world.turn();
    world.reply(2, b"$1\r\nB\r\n*1\r\n$1\r\nB\r\n");
    let error = "-ERR shard h:1 (h:1): connection closed by the shard\r\n";
    assert_eq!(world.got(client), format!("{error}$1\r\nB\r\n{error}"));
    world.say(client, &[&["GET", &a]]);
    assert_eq!(
        world.got(client),
        error,
        "refused at once until the next try"
    );
    world.core.set_clock(2_000_000);
    world.core.tick();
    world.turn();
    world.sent.clear();
    world.say(client, &[&["GET", &a]]);
    world.reply(1, b"$1\r\nA\r\n");
    assert_eq!(world.got(client), "$1\r\nA\r\n", "it came back by itself");
}

#[test]
fn a_held_gate_keeps_moving_keys_and_their_followers_and_lets_others_pass() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let moving = (0..).map(|n| format!("m{n}")).find(|key| {
        matches!(moves.of(key.as_bytes()), Move::Moves { .. }) && world.owner(key) == 1
    });
    let staying = (0..).map(|n| format!("s{n}")).find(|key| {
        matches!(moves.of(key.as_bytes()), Move::Stays { .. }) && world.owner(key) == 1
    });
    let (moving, staying) = (moving.unwrap(), staying.unwrap());
    let (early, late, other) = (world.client(), world.client(), world.client());
    world.say(early, &[&["INCR", &moving]]);
    let mut drained = world.hold(&moves);
    assert!(
        drained.try_recv().is_err(),
        "a request for a moving key is still in flight"
    );
    world.sent.clear();
    world.say(late, &[&["INCR", &moving], &["INCR", &staying]]);
    world.say(other, &[&["INCR", &staying]]);
    assert_eq!(
        world.sent_to(1).matches("INCR").count(),
        1,
        "only the client that moves nothing"
    );
    world.reply(1, b":1\r\n");
    assert_eq!(drained.try_recv(), Ok(Ok(())));
    assert_eq!(world.got(early), ":1\r\n");
    world.reply(1, b":7\r\n");
    assert_eq!(
        (world.got(other), world.got(late)),
        (":7\r\n".into(), String::new())
    );

    world.core.set_clock(3_000);
    let to = Arc::clone(moves.to());
    let report = world.core.route(Arc::new(Routing::open(Epoch(2), to)));
    assert_eq!((report.held_requests, report.held_us_max), (1, 3_000));
    world.turn();
    assert!(world.sent_to(3).contains(&moving), "on the new route");
    world.reply(1, b":8\r\n");
    world.reply(3, b":2\r\n");
    assert_eq!(world.got(late), ":2\r\n:8\r\n", "in its own order");
}

#[test]
fn what_depends_on_where_keys_are_waits_at_a_shut_gate() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 3]);
    let mut drained = world.hold(&moves);
    assert_eq!(drained.try_recv(), Ok(Ok(())));
    let clients: Vec<u32> = (0..4).map(|_| world.client()).collect();
    for (client, request) in clients
        .iter()
        .zip(["KEYS *", "SCAN 0", "DBSIZE", "FUNCTION FLUSH"])
    {
        let words: Vec<&str> = request.split(' ').collect();
        world.say(*client, &[&words, &["PING"]]);
        assert_eq!(world.got(*client), "", "{request}");
    }
    assert_eq!((world.sent_to(1), world.sent_to(2)), Default::default());
    let other = world.client();
    world.say(other, &[&["SCRIPT", "FLUSH"]]);
    world.reply(1, b"+OK\r\n");
    world.reply(2, b"+OK\r\n");
    assert_eq!(world.got(other), "+OK\r\n");
    let to = Arc::clone(moves.to());
    let report = world.core.route(Arc::new(Routing::open(Epoch(2), to)));
    assert_eq!(report.held_requests, 4);
    world.turn();
    assert!(world.sent_to(3).contains("KEYS"), "on the new route");
    let replies: [&[u8]; 2] = [
        b"*0\r\n*2\r\n$1\r\n0\r\n*0\r\n:1\r\n+OK\r\n",
        b"*0\r\n:2\r\n+OK\r\n",
    ];
    world.reply(1, replies[0]);
    world.reply(3, replies[1]);
    let got: Vec<String> = clients.iter().map(|client| world.got(*client)).collect();
    assert_eq!(
        got,
        [
            "*0\r\n+PONG\r\n",
            "*2\r\n$1\r\n1\r\n*0\r\n+PONG\r\n",
            ":3\r\n+PONG\r\n",
            "+OK\r\n+PONG\r\n",
        ]
    );
}

#[test]
fn an_aborted_hold_goes_on_where_it_was_and_leaves_no_pipe_behind() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[2, 3]);
    let client = world.client();
    let key = world.key_on(1);
    let mut drained = world.hold(&moves);
    assert_eq!(drained.try_recv(), Ok(Ok(())));
    world.say(client, &[&["GET", &key]]);
    assert_eq!(world.core.pipes.len(), 3);
    let from = Arc::clone(&world.core.routing.layout);
    world.core.route(Arc::new(Routing::open(Epoch(1), from)));
    world.turn();
    assert_eq!(world.core.pipes.len(), 2);
    world.reply(1, b"$-1\r\n");
    assert_eq!(world.got(client), "$-1\r\n");
}

#[test]
fn a_fenced_gate_refuses_moving_keys_as_retry_later() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[3, 4]);
    let gate = Gate::Fenced(moves);
    let routing = Routing {
        gate,
        ..Routing::clone(&world.core.routing)
    };
    world.core.route(Arc::new(routing));
    let client = world.client();
    world.say(client, &[&["GET", "a"], &["PING"]]);
    let got = world.got(client);
    assert!(
        got.starts_with("-TRYAGAIN ") && got.ends_with("\r\n+PONG\r\n"),
        "{got}"
    );
}

#[test]
fn a_pipeline_of_any_length_waits_its_turn_and_loses_nothing() {
    let mut world = World::new(&[1]);
    let client = world.client();
    let commands: Vec<&[&str]> = vec![&["INCR", "n"]; 10_000];
    world.say(client, &commands);
    let mut answered = 0;
    while answered < commands.len() {
        let waiting = world.sent_to(1).matches("INCR").count();
        assert!(waiting > 0 && waiting <= crate::proxy::intake::OWED_REPLIES_MAX);
        let replies: String = (0..waiting)
            .map(|n| format!(":{}\r\n", answered + n))
            .collect();
        answered += waiting;
        world.reply(1, replies.as_bytes());
    }
    let expected: String = (0..commands.len()).map(|n| format!(":{n}\r\n")).collect();
    assert_eq!(world.got(client), expected);
}

#[test]
fn requests_in_pieces_are_whole_requests() {
    let mut world = World::new(&[1]);
    let client = world.client();
    let mut bytes = Vec::new();
    write_command(&mut bytes, &[b"SET", b"k", b"value"]);
    write_command(&mut bytes, &[b"GET", b"k"]);
    for byte in &bytes {
        world.core.client_bytes(client, std::slice::from_ref(byte));
        world.turn();
    }
    assert_eq!(world.sent_to(1).as_bytes(), bytes);
}

#[test]
fn garbage_ends_only_its_client_after_what_it_is_owed() {
    let mut world = World::new(&[1]);
    let (bad, good) = (world.client(), world.client());
    world.say(bad, &[&["GET", "a"]]);
    world.core.client_bytes(bad, b"*1\r\n!bad\r\n");
    world.turn();
    assert!(world.closed.is_empty());
    world.reply(1, b"$1\r\nA\r\n");
    assert_eq!(
        world.got(bad),
        "$1\r\nA\r\n-ERR Protocol error: expected '$', got '!'\r\n"
    );
    assert_eq!(world.closed, vec![bad]);
    world.say(good, &[&["PING"]]);
    assert_eq!(world.got(good), "+PONG\r\n");
}

#[test]
fn a_closed_client_gets_nobody_elses_reply() {
    let mut world = World::new(&[1]);
    let first = world.client();
    world.say(first, &[&["GET", "a"]]);
    world.core.client_gone(first);
    world.turn();
    let second = world.client();
    assert_eq!(first, second, "the place is used again");
    world.say(second, &[&["GET", "b"]]);
    world.reply(1, b"$1\r\nA\r\n$1\r\nB\r\n");
    assert_eq!(world.got(second), "$1\r\nB\r\n");
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_replies() {
    let mut world = World::new(&[1]);
    let client = world.client();
    world.say(client, &[&["GET", "a"]]);
    world.core.client_eof(client);
    world.turn();
    assert!(world.closed.is_empty());
    world.reply(1, b"$1\r\nA\r\n");
    assert_eq!(world.got(client), "$1\r\nA\r\n");
    assert_eq!(world.closed, vec![client]);
}

#[test]
fn databases_and_protocols_have_pipes_of_their_own() {
    let mut world = World::new(&[1]);
    let client = world.client();
    world.say(client, &[&["SELECT", "3"], &["GET", "a"]]);
    assert_eq!(world.got(client), "+OK\r\n");
    let greeted: Vec<String> = world
        .sent
        .values()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    assert_eq!(
        greeted,
        vec!["*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n".to_owned()],
        "no request before +OK"
    );
    world.say(client, &[&["SELECT", "99"], &["SELECT", "x"]]);
    assert_eq!(world.core.lanes.len(), 2);
}

#[test]
fn another_database_waits_for_the_replies_that_are_owed() {
    let mut world = World::new(&[1]);
    let client = world.client();
    world.say(
        client,
        &[&["SET", "k", "1"], &["SELECT", "1"], &["GET", "k"]],
    );
    assert_eq!(world.core.lanes.len(), 1, "the SET must not be overtaken");
    world.reply(1, b"+OK\r\n");
    assert_eq!(world.got(client), "+OK\r\n+OK\r\n");
    assert_eq!(world.core.lanes.len(), 2);
}

#[test]
fn another_number_of_connections_keeps_keys_on_their_shards() {
    let mut world = World::new(&[1, 2, 3]);
    for connections in [2, 1, 3] {
        let mut config = PoolConfig::clone(&world.core.config);
        config.upstream.connections = connections;
        world.core.set_config(Arc::new(config));
        world.turn();
        assert_eq!(world.core.pipes.len(), 3 * usize::from(connections));
        for _ in 0..4 {
            let client = world.client();
            for port in [1, 2, 3] {
                let key = world.key_on(port);
                world.say(client, &[&["GET", &key]]);
                let (&pipe, _) = world.sent.iter().next().expect("it was sent");
                world.sent.clear();
                let address = world.core.pipe_address(pipe).expect("a pipe").to_string();
                assert_eq!(address, format!("h:{port}"));
                world.core.pipe_bytes(pipe, b"$-1\r\n");
                world.turn();
            }
        }
    }
}

#[test]
fn a_client_with_other_connections_first_gets_what_it_is_owed() {
    let mut world = World::new(&[1]);
    let clients = [world.client(), world.client()];
    for client in clients {
        world.say(client, &[&["SET", "k", "1"]]);
    }
    let first = world.pipe_to(1);
    world.sent.clear();
    let mut config = PoolConfig::clone(&world.core.config);
    config.upstream.connections = 2;
    world.core.set_config(Arc::new(config));
    for client in clients {
        assert!(
            !world.core.may_read(client),
            "its next request could overtake the SET"
        );
    }
    world.core.pipe_bytes(first, b"+OK\r\n+OK\r\n");
    world.turn();
    for client in clients {
        assert!(world.core.may_read(client));
        world.say(client, &[&["GET", "k"]]);
    }
    assert_eq!(world.sent.len(), 2, "one on each connection");
}

#[test]
fn a_connection_that_ends_with_half_a_request_unsent_is_no_quiet_end() {
    let mut world = World::new(&[1]);
    let client = world.client();
    world.say(client, &[&["GET", "a"]]);
    let pipe = world.pipe_to(1);
    world.reply(1, b"$-1\r\n");
    world
        .core
        .client_bytes(client, b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n");
    world
        .core
        .pipe_bytes(pipe, b"-ERR closing before it was read\r\n");
    world.core.pipe_failed(pipe, PipeError::Closed);
    world.core.pipe_failed(pipe, PipeError::Closed);
    world.turn();
    world.sent.clear();
    world.core.set_clock(2_000_000);
    world.core.tick();
    world.turn();
    world.say(client, &[&["PING"], &["GET", "c"]]);
    assert_eq!(
        world.sent_to(1),
        "*2\r\n$3\r\nGET\r\n$1\r\nc\r\n",
        "and nothing of before"
    );
}

#[test]
fn parts_of_a_merge_count_as_owed_bytes() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["MGET", &a, &b]]);
    let value = vec![b'x'; 100_000];
    let reply = [b"*1\r\n$100000\r\n", value.as_slice(), b"\r\n"].concat();
    world.reply(2, &reply);
    let parked = world
        .core
        .clients
        .get(client as usize)
        .expect("it")
        .parked();
    assert_eq!(parked, reply.len());
    world.reply(1, b"*1\r\n$-1\r\n");
    let parked = world
        .core
        .clients
        .get(client as usize)
        .expect("it")
        .parked();
    assert_eq!(parked, 0);
}

#[test]
fn stopping_closes_each_client_when_it_is_owed_nothing() {
    let mut world = World::new(&[1]);
    let (idle, busy) = (world.client(), world.client());
    world.say(busy, &[&["GET", "a"]]);
    world.core.stop();
    world.turn();
    assert_eq!(world.closed, vec![idle]);
    world.reply(1, b"$1\r\nA\r\n");
    world.turn();
    assert_eq!(world.got(busy), "$1\r\nA\r\n");
    assert_eq!(world.closed, vec![idle, busy]);
}

#[test]
fn a_script_that_could_not_be_loaded_is_loaded_another_time_and_a_forbidden_one_is_not() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["EVAL", "return 1", "1", &b]]);
    world.reply(2, b":1\r\n");
    world.got(client);
    let load = "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n";
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let loading = "-LOADING wait\r\n";
    let name = "$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n";
    for (answer, result, is_loaded_before) in [
        (loading, loading, true),
        (name, ":1\r\n", true),
        ("", ":1\r\n", false),
        ("lost", "", true),
        ("-NOPERM no\r\n", ":1\r\n", true),
        ("", ":1\r\n", false),
    ] {
        if answer == "lost" {
            let pipe = world.pipe_to(1);
            world.core.pipe_failed(pipe, PipeError::Closed);
            world.core.set_clock(2_000_000);
            world.core.tick();
            world.turn();
            continue;
        }
        world.sent.clear();
        world.say(client, &[&["EVALSHA", sha, "1", &a]]);
        assert_eq!(world.sent_to(1).starts_with(load), is_loaded_before);
        assert_eq!(world.got(client), "");
        world.reply(1, format!("{answer}{result}").as_bytes());
        assert_eq!(world.got(client), result);
    }
}

#[test]
fn a_shard_that_is_lost_while_a_script_is_loaded_answers_by_one_error() {
    let mut world = World::new(&[1]);
    let client = world.client();
    world.say(client, &[&["SCRIPT", "LOAD", "return 1"]]);
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    world.say(client, &[&["EVALSHA", sha, "1", "k"], &["PING"]]);
    let pipe = world.pipe_to(1);
    world.core.pipe_failed(pipe, PipeError::Closed);
    world.turn();
    let error = "-ERR shard h:1 (h:1): connection closed by the shard\r\n";
    assert_eq!(world.got(client), format!("{error}{error}+PONG\r\n"));
}

/// The layout of ports with the shards at some of them out.
fn without(world: &World, ports: &[u16]) -> Arc<Routing> {
    let layout = &world.core.routing.layout;
    let at = |port: &u16| layout.at_address(&format!("h:{port}").parse().unwrap());
    let out: Vec<_> = ports.iter().filter_map(at).collect();
    Arc::new(Routing::open(
        world.core.routing.epoch,
        Arc::new(layout.without(out)),
    ))
}

#[test]
fn failures_in_a_row_are_told_and_idle_ends_and_replies_begin_anew() {
    let mut world = World::new(&[1, 2]);
    let eject = EjectConfig {
        enabled: true,
        ..EjectConfig::default()
    };
    let mut config = PoolConfig::clone(&world.core.config);
    config.eject = eject;
    world.core.set_config(Arc::new(config));
    let (key, client) = (&*world.key_on(1), world.client());
    let mut now_us = 0;
    let mut lose = |world: &mut World, error: PipeError, ask: bool| {
        now_us += 2_000_000;
        world.core.set_clock(now_us);
        if ask {
            world.say(client, &[&["GET", key]]);
        }
        let pipe = world.pipe_to(1);
        world.core.pipe_failed(pipe, error);
        let told = mem::take(&mut world.core.chores.failing);
        world.turn();
        told.into_iter().map(|shard| shard.failures).next()
    };
    assert_eq!(lose(&mut world, PipeError::Closed, true), None);
    assert_eq!(lose(&mut world, PipeError::ConnectTimeout, true), Some(2));
    assert_eq!(lose(&mut world, PipeError::RequestTimeout, true), Some(3));
    assert_eq!(
        lose(&mut world, PipeError::NoSocket("x".into()), true),
        None
    );

    world.core.set_clock(9_000_000);
    world.say(client, &[&["GET", key]]);
    world.reply(1, b"$-1\r\n");
    assert_eq!(lose(&mut world, PipeError::Closed, false), None, "idle");
    assert_eq!(lose(&mut world, PipeError::Closed, true), None, "the first");
    assert_eq!(lose(&mut world, PipeError::Closed, true), Some(2));
}

#[test]
fn a_shard_that_goes_out_is_asked_nothing_until_it_is_let_in() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["GET", &a], &["GET", &b]]);
    world.core.route(without(&world, &[1]));
    world.turn();
    world.reply(2, b"$1\r\nB\r\n");
    let error = "-ERR shard h:1 (h:1): ejected after it failed too often; a health probe lets it \
                 in again\r\n";
    assert_eq!(world.got(client), format!("{error}$1\r\nB\r\n"));
    world.sent.clear();
    world.say(client, &[&["GET", &a], &["MGET", &a, &b]]);
    assert_eq!(world.sent_to(2).matches(a.as_str()).count(), 2);
    world.reply(2, b"$1\r\nA\r\n*2\r\n$1\r\nA\r\n$1\r\nB\r\n");
    assert_eq!(world.got(client), "$1\r\nA\r\n*2\r\n$1\r\nA\r\n$1\r\nB\r\n");
    world.say(client, &[&["DBSIZE"]]);
    world.reply(2, b":7\r\n");
    assert_eq!(world.got(client), error, "a whole answer needs all shards");
    // Also a client of another protocol, whose connections are new.
    let other = world.client();
    world.say(other, &[&["HELLO", "3"], &["GET", &a]]);
    world.core.set_clock(60_000_000);
    world.core.tick();
    world.turn();
    assert!(!world.is_connected_to(1) && world.is_connected_to(2));

    world.core.route(without(&world, &[]));
    world.turn();
    world.say(client, &[&["GET", &a]]);
    assert!(world.sent_to(1).contains(&a), "back where it was");
}

#[test]
fn with_every_shard_out_requests_fail_at_once() {
    let mut world = World::new(&[1, 2]);
    let client = world.client();
    world.core.route(without(&world, &[1, 2]));
    world.turn();
    world.say(
        client,
        &[&["GET", "x"], &["MGET", "x", "y", "z"], &["PING"]],
    );
    let got = world.got(client);
    assert_eq!(got.matches("-ERR shard h:").count(), 2, "{got}");
    assert!(got.ends_with("+PONG\r\n"));
    assert!(!world.is_connected_to(1) && !world.is_connected_to(2));
}

#[test]
fn sessions_learn_of_an_ejection() {
    let mut world = World::new(&[1, 2, 3]);
    world.core.route(without(&world, &[1]));
    world.turn();
    let (a, b) = (
        (0..)
            .map(|n| format!("k{n}"))
            .find(|key| world.owner(key) == 2 && world.owner_of_all(key) == 1)
            .unwrap(),
        (0..)
            .map(|n| format!("k{n}"))
            .find(|key| world.owner_of_all(key) == 2)
            .unwrap(),
    );
    let (waits, stays, watches) = (world.client(), world.client(), world.client());
    world.say(waits, &[&["BLPOP", &a, "0"]]);
    world.say(stays, &[&["BLPOP", &b, "0"]]);
    world.say(watches, &[&["WATCH", &b]]);
    let watching = world
        .core
        .pipes
        .iter()
        .find(|(_, place)| matches!(place.role, Role::Watching { .. }));
    let watching = watching.expect("a pipe").0 as u32;
    world.core.pipe_bytes(watching, b"+OK\r\n");
    world.turn();
    assert_eq!(world.got(watches), "+OK\r\n");

    world.core.route(without(&world, &[]));
    world.turn();
    assert_eq!(
        world.got(waits),
        "-UNBLOCKED force unblock from blocking operation, the key is on another shard now\r\n"
    );
    assert_eq!(world.got(stays), "");
    world.say(watches, &[&["MULTI"], &["GET", &b], &["EXEC"]]);
    assert_eq!(world.got(watches), "+OK\r\n+QUEUED\r\n*-1\r\n");
}

/// The element was given before the shard knew: it must reach the client.
#[test]
fn one_that_is_let_go_still_gets_what_is_on_its_way() {
    let mut world = World::new(&[1]);
    let (served, left) = (world.client(), world.client());
    let mut pipes = Vec::new();
    for client in [served, left] {
        world.say(client, &[&["BLPOP", "a", "0"]]);
        pipes.push(
            world.core.clients[client as usize]
                .session()
                .waits_on
                .unwrap(),
        );
    }
    world.core.stop();
    world.turn();
    assert_eq!(world.shut, pipes);
    assert_eq!(world.closed, Vec::<u32>::new());
    let reply = "*2\r\n$1\r\na\r\n$1\r\nx\r\n";
    world.core.pipe_bytes(pipes[0], b":7\r\n"); // the connection's number
    world.core.pipe_bytes(pipes[0], reply.as_bytes());
    world.core.pipe_failed(pipes[0], PipeError::Closed);
    world.core.pipe_failed(pipes[1], PipeError::Closed);
    world.turn();
    assert_eq!(world.got(served), reply);
    assert_eq!(world.got(left), "");
    world.closed.sort_unstable();
    assert_eq!(world.closed, vec![served, left]);
}
