//! The settings of a pool's connections do what they say: timeouts, preconnect,
//! connections to a shard, backlog, keepalive, and the limit of clients.
//! (What a shard that hangs or dies does to others: `proxy_behaviour.rs`.)

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use support::keyferry::LayoutText;
use support::{
    Client, Keyferry, Process, RedisServer, Signal, Value, free_port, wait_for, wait_until,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const WORKERS: u32 = 2;
/// `/proc/net/tcp`: a connection that stands.
const ESTABLISHED: &str = "01";
/// `/proc/net/tcp`: the only timer that runs is that of keepalive.
const KEEPALIVE_TIMER: &str = "02";

fn layout(servers: &[RedisServer]) -> LayoutText {
    let addresses: Vec<_> = servers.iter().map(RedisServer::address).collect();
    LayoutText::new("fnv1a_64", "ketama", &addresses)
}

/// Ids of the connections to a server, but for ours.
fn connections(server: &RedisServer) -> Vec<u64> {
    let text = server.client().call(&["CLIENT", "LIST"]).text();
    let id = |line: &str| line.strip_prefix("id=")?.split(' ').next()?.parse().ok();
    let others = text.lines().filter(|line| !line.contains("cmd=client"));
    others.filter_map(id).collect()
}

fn errors(replies: &[Value]) -> usize {
    replies.iter().filter(|reply| reply.is_error()).count()
}

#[test]
fn a_late_reply_ends_the_connection_and_all_that_waits_on_it() {
    let mut servers = RedisServer::start_many(1, &[]);
    let extra = "timeout = { connect = \"5s\", request = \"300ms\" }";
    let proxy = Keyferry::start_with(&layout(&servers), 1, extra);
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!(first.call(&["SET", "k", "1"]), Value::ok());
    let before = connections(&servers[0]);
    assert_eq!(before.len(), 1, "one for all clients");
    servers[0].pause();
    let incr = [["INCR", "k"]; 20];
    first.send(&["INCR", "k"]);
    second.send(&["INCR", "k"]);
    assert!(first.read().is_error() && second.read().is_error());
    assert_eq!(errors(&first.pipeline(&incr)), 20);
    servers[0].resume();
    wait_until("a new connection is used", LIMIT, || {
        second.call(&["GET", "k"]) != Value::Null
            && !second.call(&["PING"]).is_error()
            && !second.call(&["GET", "k"]).is_error()
    });
    // What was late may have run, but its reply is nobody's.
    for _ in 0..20 {
        assert_eq!(first.call(&["ECHO", "own"]), Value::bulk("own"));
        assert_eq!(second.call(&["SET", "other", "x"]), Value::ok());
    }
    let after = connections(&servers[0]);
    assert!(
        after.iter().all(|id| !before.contains(id)),
        "{before:?} {after:?}"
    );
    assert!(proxy.metric("keyferry_shard_timeouts_total") >= 1.0);
}

#[test]
fn a_host_that_does_not_take_the_connection_is_given_the_connect_timeout() {
    // A listener whose queue is full takes no further connection, and refuses none.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&any.into()).expect("bound");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(200);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
        queued.push(stream);
    }
    let layout = LayoutText::new("fnv1a_64", "ketama", &[address.to_string()]);
    let extra = "timeout = { connect = \"200ms\" }";
    let proxy = Keyferry::start_with(&layout, 1, extra);
    let mut client = proxy.client();
    let replies = client.pipeline(&[["GET", "a"], ["GET", "b"]]);
    assert_eq!(errors(&replies), 2, "{replies:?}");
    assert!(proxy.metric("keyferry_shard_timeouts_total") >= 1.0);
    assert_eq!(proxy.metric("keyferry_shard_connects_total") as u64, 0);
}

#[test]
fn preconnect_dials_every_shard_at_start() {
    let servers = RedisServer::start_many(3, &[]);
    let extra = "upstream = { connections = 2, preconnect = true }";
    let _ahead = Keyferry::start_with(&layout(&servers), WORKERS, extra);
    for server in &servers {
        wait_until("every worker has its two connections", LIMIT, || {
            connections(server).len() == 2 * WORKERS as usize
        });
    }
    let others = RedisServer::start_many(1, &[]);
    let late = Keyferry::start_with(&layout(&others), WORKERS, "");
    assert_eq!(late.client().call(&["PING"]), Value::Simple("PONG".into()));
    assert_eq!(connections(&others[0]), Vec::<u64>::new(), "nobody asked");
}

#[test]
fn several_connections_to_a_shard_keep_each_clients_order() {
    const CONNECTIONS: usize = 3;
    const CLIENTS: usize = 24;
    const PUSHES: usize = 2_000;
    let servers = RedisServer::start_many(1, &[]);
    let extra = format!("upstream = {{ connections = {CONNECTIONS} }}");
    let proxy = Keyferry::start_with(&layout(&servers), WORKERS, &extra);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    let numbers: Vec<String> = (0..PUSHES).map(|number| number.to_string()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        for numbers in numbers.chunks(100) {
            let key = format!("list:{at}");
            let pushes: Vec<[&str; 3]> = numbers.iter().map(|n| ["RPUSH", &key, n]).collect();
            for push in &pushes {
                client.send(push);
            }
        }
    }
    for client in &mut clients {
        for length in 1..=PUSHES {
            assert_eq!(client.read(), Value::Int(length as i64));
        }
    }
    let mut direct = servers[0].client();
    for at in 0..CLIENTS {
        let list = direct.call(&["LRANGE", &format!("list:{at}"), "0", "-1"]);
        let pushed = list.items().iter().map(Value::text);
        assert!(pushed.eq(numbers.iter().cloned()), "client {at}");
    }
    drop(direct);
    wait_until("only the proxy's connections are left", LIMIT, || {
        connections(&servers[0]).len() == CONNECTIONS * WORKERS as usize
    });
}

/// Whether every thread of a process is stopped: until then one may accept.
fn stands_still(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("Linux");
    let mut stats = tasks.map(|task| {
        let file = task.expect("a thread").path().join("stat");
        fs::read_to_string(file).unwrap_or_default()
    });
    // The state follows the name, which is in brackets.
    stats.all(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn the_backlog_is_how_many_wait_while_nobody_accepts() {
    const BACKLOG: usize = 4;
    let servers = RedisServer::start_many(1, &[]);
    let patience = Duration::from_millis(500);
    let takes = |extra: &str| {
        let mut proxy = Keyferry::start_with(&layout(&servers), 1, extra);
        let address = proxy.address().parse().expect("an address");
        proxy.signal(Signal::Stop);
        let pid = proxy.process().pid();
        wait_until("every thread stands still", LIMIT, || stands_still(pid));
        let connect = |_| TcpStream::connect_timeout(&address, patience).ok();
        let waiting: Vec<TcpStream> = (0..4 * BACKLOG).map_while(connect).collect();
        proxy.signal(Signal::Cont);
        waiting.len()
    };
    // Linux keeps one more than it is told.
    assert_eq!(takes(&format!("backlog = {BACKLOG}")), BACKLOG + 1);
    assert_eq!(takes(""), 4 * BACKLOG);
}

/// The timers of the standing connections of which `is_one` says so (ports of
/// this end and of the other).
fn timers(is_one: impl Fn(u16, u16) -> bool) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let timer = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (own, other) = (port(fields.get(1)?)?, port(fields.get(2)?)?);
        let stands = *fields.get(3)? == ESTABLISHED;
        let timer = fields.get(5)?.split(':').next()?;
        (stands && is_one(own, other)).then(|| timer.to_owned())
    };
    table.lines().skip(1).filter_map(timer).collect()
}

#[test]
fn keepalive_is_on_for_clients_and_for_shards_unless_it_is_turned_off() {
    let servers = RedisServer::start_many(1, &["--tcp-keepalive", "0"]);
    for (extra, is_on) in [("", true), ("upstream = { tcp_keepalive = false }", false)] {
        let proxy = Keyferry::start_with(&layout(&servers), 1, extra);
        let mut client = proxy.client();
        assert_eq!(client.call(&["SET", "k", "v"]), Value::ok());
        let (shard, own) = (servers[0].port(), proxy.port);
        let probed = |timers: &[String]| timers.iter().all(|timer| timer == KEEPALIVE_TIMER);
        // A timer of a retransmission may run for a moment in its place.
        wait_until("the client's connection is probed", LIMIT, || {
            let timers = timers(|here, _| here == own);
            timers.len() == 1 && probed(&timers)
        });
        wait_until("the shard's connection is as it should be", LIMIT, || {
            let timers = timers(|_, there| there == shard);
            timers.len() == 1
                && timers
                    .iter()
                    .all(|timer| (timer == KEEPALIVE_TIMER) == is_on)
        });
    }
}

fn assert_limited(address: &str, clients_max: usize) {
    let pong = Value::Simple("PONG".into());
    let mut clients = wait_for("as many as the limit are served", LIMIT, || {
        let mut clients: Vec<_> = (0..clients_max).map(|_| Client::connect(address)).collect();
        let served = |client: &mut Client| client.try_call(&["PING"]).is_ok_and(|r| r == pong);
        clients.iter_mut().all(served).then_some(clients)
    });
    for _ in 0..3 {
        let mut one_more = Client::connect(address);
        let full = Value::Error("ERR max number of clients reached".into());
        assert_eq!(one_more.read(), full);
        assert_eq!(one_more.read_to_end().expect("closed"), b"");
    }
    clients.pop();
    wait_until("the place that came free is taken", LIMIT, || {
        let mut next = Client::connect(address);
        next.try_call(&["PING"]).is_ok_and(|reply| reply == pong)
    });
    assert!(
        clients
            .iter_mut()
            .all(|client| client.call(&["PING"]) == pong)
    );
}

#[test]
fn the_limit_of_a_pools_clients_is_kept() {
    let servers = RedisServer::start_many(1, &[]);
    let extra = "limits = { max_clients = 5 }";
    let proxy = Keyferry::start_with(&layout(&servers), WORKERS, extra);
    assert_limited(&proxy.address(), 5);
}

#[test]
fn client_connections_of_a_nutcracker_file_is_kept() {
    let server = RedisServer::start(&[]);
    let dir = TempDir::with_prefix("keyferry-limit-").expect("a directory");
    let program = dir.path().join("nutcracker");
    symlink(env!("CARGO_BIN_EXE_keyferry"), &program).expect("a link");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let yml = format!(
        "a:\n  listen: {address}\n  redis: true\n  client_connections: 4\n  servers:\n   - {}:1\n",
        server.address()
    );
    let file = dir.path().join("a.yml");
    fs::write(&file, yml).expect("written");
    let mut command = Command::new(&program);
    command
        .args(["-a", "127.0.0.1", "-s", &free_port().to_string(), "-c"])
        .arg(&file)
        .current_dir(dir.path());
    let _process = Process::spawn("keyferry", "keyferry", dir.path(), &mut command);
    wait_until("it listens", LIMIT, || TcpStream::connect(&address).is_ok());
    assert_limited(&address, 4);
}
