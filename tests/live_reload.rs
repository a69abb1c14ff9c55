//! SIGHUP under load: pools and shards come, go and move, timeouts, limits and
//! the log change, while 1,000 connections are open and half of them send
//! pipelines all the time. None is closed, none gets an error, and every reply
//! is the one to its own request: it carries the client's number and how many
//! pipelines it sent before.
//!
//! A reload that gives keys other owners moves no data: until it is taken back
//! a value may be missing, and nothing else may differ.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::keyferry::LayoutText;
use support::{Client, Keyferry, RedisServer, Signal, Value, free_port, http_get, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const THREADS: usize = 8;
const BUSY_OF_THREAD: usize = 63;
const IDLE_OF_THREAD: usize = 62;
const CLIENTS: usize = THREADS * (BUSY_OF_THREAD + IDLE_OF_THREAD);
const KEYS: usize = 500;
/// Pipelines that every busy client sends after each reload, before the next.
const ROUNDS_BETWEEN: u64 = 3;

/// What the config file says.
#[derive(Clone)]
struct Setup {
    distribution: &'static str,
    shards: Vec<(&'static str, String)>,
    /// Lines of the pool.
    pool: String,
    log: &'static str,
    /// Where else the pool listens.
    second_listen: Option<String>,
    /// Whole tables of other pools.
    others: String,
}

impl Setup {
    fn write(&self, proxy: &Keyferry) {
        let listen = self
            .second_listen
            .iter()
            .fold(format!("\"{}\"", proxy.address()), |all, also| {
                format!("{all}, \"{also}\"")
            });
        let mut text = format!(
            "[server]\nworkers = 2\nstate_dir = \"{}\"\n[log]\n{}\n[admin]\nhttp = \"{}\"\n\
             [pool.{}]\nlisten = [{listen}]\ndistribution = \"{}\"\n{}\n",
            proxy.dir().join("state").display(),
            self.log,
            proxy.admin(),
            Keyferry::POOL,
            self.distribution,
            self.pool,
        );
        for (name, addr) in &self.shards {
            text += &format!(
                "[[pool.{}.shard]]\nname = \"{name}\"\naddr = \"{addr}\"\n",
                Keyferry::POOL
            );
        }
        fs::write(proxy.config(), text + &self.others).expect("written");
    }
}

fn key(number: usize) -> String {
    format!("key:{}", number % KEYS)
}

fn value(number: usize) -> String {
    format!("value of {}", key(number))
}

fn fill(server: &RedisServer) {
    let sets: Vec<_> = (0..KEYS)
        .map(|number| ["SET".to_owned(), key(number), value(number)])
        .collect();
    let replies = server.client().pipeline(&sets);
    assert!(replies.iter().all(|reply| *reply == Value::ok()));
}

/// What those that send know of those that reload.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Even: every key is where it was written. Odd: it may be looked for elsewhere.
    phase: AtomicU64,
    rounds: [AtomicU64; THREADS],
    replies: AtomicU64,
}

/// Those that send end also when this test fails.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// One pipeline of a client: requests, then their replies.
struct Pipeline {
    client: usize,
    sequence: u64,
}

impl Pipeline {
    fn mark(&self) -> String {
        format!("{}:{}", self.client, self.sequence)
    }

    fn at(&self) -> usize {
        self.client * 7 + self.sequence as usize
    }

    fn own_key(&self) -> String {
        format!("own:{}", self.client)
    }

    fn send(&self, connection: &mut Client) {
        let (mark, at, own) = (self.mark(), self.at(), self.own_key());
        let commands: [&[&str]; 7] = [
            &["SET", &own, &mark],
            &["ECHO", &mark],
            &["EVAL", "return ARGV[1]", "1", &key(at), &mark],
            &["GET", &key(at + 1)],
            &["MGET", &key(at + 2), &key(at + 3), &key(at + 4)],
            &["GET", &own],
            &["PING", &mark],
        ];
        let mut bytes = Vec::new();
        for command in commands {
            support::client::encode(&mut bytes, command);
        }
        connection.send_raw(&bytes);
    }

    /// Reads and checks all replies; answers how many.
    fn check(&self, connection: &mut Client, before: u64, shared: &Shared) -> u64 {
        let replies: [Value; 7] = std::array::from_fn(|_| connection.read());
        let after = shared.phase.load(Ordering::SeqCst);
        let strict = before == after && before.is_multiple_of(2);
        let shown = || format!("{} (strict: {strict}) got {replies:?}", self.mark());
        let held = |reply: &Value, number: usize| {
            *reply == Value::bulk(value(number)) || (!strict && *reply == Value::Null)
        };
        let mark = Value::bulk(self.mark());
        assert_eq!(replies[0], Value::ok(), "{}", shown());
        assert_eq!(replies[1], mark, "{}", shown());
        assert_eq!(replies[2], mark, "{}", shown());
        assert!(held(&replies[3], self.at() + 1), "{}", shown());
        let items = replies[4].items();
        assert_eq!(items.len(), 3, "{}", shown());
        for (item, number) in items.iter().zip(self.at() + 2..) {
            assert!(held(item, number), "{}", shown());
        }
        let own = match &replies[5] {
            reply if *reply == mark => true,
            Value::Null => !strict,
            // What this client wrote earlier, on the shard that had the key then.
            Value::Bulk(bytes) => {
                !strict && bytes.starts_with(format!("{}:", self.client).as_bytes())
            }
            _ => false,
        };
        assert!(own, "{}", shown());
        assert_eq!(replies[6], mark, "{}", shown());
        replies.len() as u64
    }
}

/// Sends on all connections of a thread, again and again.
fn send_all_the_time(thread: usize, connections: &mut [Client], shared: &Shared) {
    let mut sequence = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let phase = shared.phase.load(Ordering::SeqCst);
        let pipeline = |at: usize| Pipeline {
            client: thread * (BUSY_OF_THREAD + IDLE_OF_THREAD) + at,
            sequence,
        };
        for (at, connection) in connections.iter_mut().enumerate() {
            pipeline(at).send(connection);
        }
        for (at, connection) in connections.iter_mut().enumerate() {
            let checked = pipeline(at).check(connection, phase, shared);
            shared.replies.fetch_add(checked, Ordering::SeqCst);
        }
        sequence += 1;
        shared.rounds[thread].fetch_add(1, Ordering::SeqCst);
    }
}

/// The proxy, and what it was told so far.
struct Operator<'a> {
    proxy: &'a mut Keyferry,
    shared: &'a Shared,
    reloads: u64,
    epoch: u64,
}

impl Operator<'_> {
    fn metric(&self, line: &str) -> bool {
        let (_, text) = http_get(&self.proxy.admin(), "/metrics").expect("metrics");
        text.lines().any(|found| found == line)
    }

    /// Every busy client sent some pipelines more.
    fn go_on(&self, what: &str) {
        let counts = || {
            let rounds = self.shared.rounds.iter();
            rounds.map(|count| count.load(Ordering::SeqCst))
        };
        let before: Vec<u64> = counts().collect();
        wait_until(what, LIMIT, || {
            assert!(!self.shared.stop.load(Ordering::SeqCst));
            let mut pairs = counts().zip(&before);
            pairs.all(|(now, before)| now >= before + ROUNDS_BETWEEN)
        });
    }

    fn reload(&mut self, what: &str, setup: &Setup) {
        setup.write(self.proxy);
        self.proxy.signal(Signal::Hup);
        self.reloads += 1;
        let done = format!("keyferry_config_reloads_total {}", self.reloads);
        wait_until(what, LIMIT, || self.metric(&done));
        assert_eq!(self.proxy.epoch_and_gate(), (self.epoch, "open".to_owned()));
        self.go_on(what);
    }

    /// A reload after which keys are looked for on other servers; whether they
    /// hold the same.
    fn reload_elsewhere(&mut self, what: &str, setup: &Setup, same: bool) {
        self.shared.phase.fetch_or(1, Ordering::SeqCst);
        self.epoch += 1;
        self.reload(what, setup);
        if same {
            self.shared.phase.fetch_add(1, Ordering::SeqCst);
            self.go_on(what);
        }
    }

    fn reload_wrong(&mut self, text: &str) {
        fs::write(self.proxy.config(), text).expect("written");
        self.proxy.signal(Signal::Hup);
        wait_until("the failure is counted", LIMIT, || {
            self.metric("keyferry_config_reload_failures_total 1")
        });
        assert_eq!(self.proxy.epoch_and_gate().0, self.epoch);
        self.go_on("a wrong file");
    }
}

fn pool_of(name: &str, listen: &str, shard: &RedisServer) -> String {
    format!(
        "[pool.{name}]\nlisten = [\"{listen}\"]\n[[pool.{name}.shard]]\naddr = \"{}\"\n",
        shard.address()
    )
}

/// All that is changed, one after the other.
fn change_everything(operator: &mut Operator<'_>, mut setup: Setup, servers: &mut [RedisServer]) {
    let [first, first_again, second_again, fourth] = servers else {
        panic!("four servers")
    };
    operator.go_on("all send");

    // Another pool.
    let other = format!("127.0.0.1:{}", free_port());
    let plain = setup.clone();
    setup.others = pool_of("other", &other, fourth);
    operator.reload("a pool is added", &setup);
    let mut visitor = Client::connect(&other);
    assert_eq!(visitor.call(&["SET", "x", "1"]), Value::ok());
    setup.others = pool_of("other", &other, first_again);
    setup.others = setup.others.replace("shard]]", "shard]]\nname = \"o\"");
    operator.reload("another pool gets a new layout", &setup);
    assert_eq!(visitor.call(&["GET", "x"]), Value::Null);
    setup.others = plain.others.clone();
    operator.reload("a pool is removed", &setup);
    assert!(Client::try_connect(&other).is_err());

    // Shards under the same names at other addresses; the old one ends.
    setup.shards[0].1 = first_again.address();
    operator.reload_elsewhere("a shard has another address", &setup, true);
    first.kill();
    operator.go_on("the old server is gone");
    setup.shards[1].1 = second_again.address();
    setup.pool = "timeout = { connect = \"2s\", request = \"50s\" }".into();
    operator.reload_elsewhere("a shard and timeouts", &setup, true);

    // Settings.
    setup.pool = "timeout = { connect = \"3s\", request = \"40s\", idle = \"10m\" }".into();
    operator.reload("timeouts", &setup);
    setup.pool =
        "limits = { max_request = \"64MB\", max_client_buffer = \"8MB\", max_clients = 5000 }\n\
         upstream = { connections = 4 }"
            .into();
    operator.reload("limits and more connections", &setup);
    setup.pool = "limits = { max_clients = 1 }\nallow_flush = true".into();
    operator.reload("fewer clients than there are, fewer connections", &setup);
    setup.pool = "upstream = { connections = 2, tcp_keepalive = false }\nbacklog = 100".into();
    setup.log = "level = \"debug\"\nformat = \"json\"";
    operator.reload("the log, and the backlog", &setup);
    setup.log = "level = \"error\"";
    let also = format!("127.0.0.1:{}", free_port());
    setup.second_listen = Some(also.clone());
    operator.reload("another address to listen at", &setup);
    assert_eq!(
        Client::connect(&also).call(&["PING"]),
        Value::Simple("PONG".into())
    );
    setup.second_listen = None;
    operator.reload("one address again", &setup);
    assert!(Client::try_connect(&also).is_err());
    operator.reload("nothing", &setup);
    operator.reload_wrong("[server]\nworkers = many\n");

    // Other owners.
    let here = setup.clone();
    setup.shards.push(("s4", fourth.address()));
    operator.reload_elsewhere("a shard is added", &setup, false);
    setup.distribution = "modula";
    operator.reload_elsewhere("another distribution", &setup, false);
    operator.reload_elsewhere("all as it was", &here, true);
    assert_eq!(
        operator.proxy.metric("keyferry_config_reload_failures"),
        1.0
    );
}

#[test]
fn reloads_under_load_close_nobody_and_answer_everything_in_order() {
    let needed = (2 * CLIENTS + 500) as u64;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    assert!(
        descriptors >= needed,
        "this test opens {needed} files and may open {descriptors}: raise the hard limit (ulimit -Hn)"
    );
    let servers = RedisServer::start_many(6, &[]);
    servers.iter().for_each(fill);
    let mut servers = servers.into_iter();
    let mut next = || servers.next().expect("six servers");
    let (first, second, third) = (next(), next(), next());
    let addresses = [first.address(), second.address(), third.address()];
    let mut proxy = Keyferry::start(&LayoutText::new("fnv1a_64", "ketama", &addresses));
    let names = ["s1", "s2", "s3"];
    let setup = Setup {
        distribution: "ketama",
        shards: names.into_iter().zip(addresses).collect(),
        pool: String::new(),
        log: "",
        second_listen: None,
        others: String::new(),
    };
    let mut spare = [first, next(), next(), next()];

    let mut busy: Vec<Vec<Client>> = Vec::new();
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..THREADS {
        busy.push((0..BUSY_OF_THREAD).map(|_| proxy.client()).collect());
        idle.extend((0..IDLE_OF_THREAD).map(|_| proxy.client()));
    }
    let all_open = format!("keyferry_clients{{pool=\"{}\"}} {CLIENTS}", Keyferry::POOL);
    let shared = Shared::default();
    let mut operator = Operator {
        proxy: &mut proxy,
        shared: &shared,
        reloads: 0,
        epoch: 1,
    };
    wait_until("all are counted", LIMIT, || operator.metric(&all_open));
    thread::scope(|scope| {
        let _stop = StopAtEnd(&shared);
        for (thread, connections) in busy.iter_mut().enumerate() {
            let shared = &shared;
            scope.spawn(move || {
                let _stop = StopAtEnd(shared);
                send_all_the_time(thread, connections, shared);
            });
        }
        change_everything(&mut operator, setup, &mut spare);
    });
    assert!(operator.metric(&all_open), "all are still there");
    println!(
        "{} reloads, epoch {}, {} replies checked",
        operator.reloads,
        operator.epoch,
        shared.replies.load(Ordering::SeqCst)
    );
    for (at, connection) in idle.iter_mut().enumerate() {
        let pipeline = Pipeline {
            client: CLIENTS + at,
            sequence: 0,
        };
        pipeline.send(connection);
        pipeline.check(connection, shared.phase.load(Ordering::SeqCst), &shared);
    }
    assert_eq!(proxy.metric("keyferry_client_errors_total"), 0.0);
}
