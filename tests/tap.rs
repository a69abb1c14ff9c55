//! The tap against real servers, and against one that we play ourselves where a
//! real one cannot be made to do what is tested.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "tap/links.rs"]
mod links;
#[path = "tap/scripted.rs"]
mod scripted;
#[path = "tap/servers.rs"]
mod servers;
#[path = "tap/spooling.rs"]
mod spooling;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use keyferry::rdb::write_dump_payload;
use keyferry::replication::{
    ResumePoint, SnapshotRecord, SpoolConfig, Tap, TapConfig, TapError, TapErrorKind, TapEvent,
    TapFigures, TapMeter, TapMode, TapStep,
};
use keyferry::upstream::{Credentials, Retry, Secret, ShardAddress, UpstreamConfig};
use support::{Client, Forwarder, RedisServer, wait_for, wait_until};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// For conditions that hold within milliseconds unless something is wrong.
const LIMIT: Duration = Duration::from_secs(30);

/// A tap that takes the first failure as the end.
fn config(address: &str) -> TapConfig {
    let mut config = patient(address);
    config.patience = Duration::ZERO;
    config
}

/// A tap that gets its link back.
fn patient(address: &str) -> TapConfig {
    let address: ShardAddress = address.parse().unwrap();
    TapConfig::new(address, UpstreamConfig::default())
}

fn with_credentials(address: &str, username: Option<&str>, password: &str) -> TapConfig {
    let mut config = config(address);
    config.upstream.credentials = Some(Credentials {
        username: username.map(str::to_owned),
        password: Secret::new(password),
    });
    config
}

async fn attach(server: &RedisServer) -> Tap {
    Tap::attach(config(&server.address()), None).await.unwrap()
}

/// What a tap told so far.
#[derive(Default)]
struct Seen {
    events: Vec<TapEvent>,
    /// The last offset told.
    offset: u64,
    /// The last point between units.
    resume: Option<ResumePoint>,
    snapshot_ended: bool,
    error: Option<TapError>,
}

impl Seen {
    fn note(&mut self, event: TapEvent) {
        let replid = self
            .resume
            .as_ref()
            .map(|point| point.replid.clone())
            .unwrap_or_default();
        match &event {
            TapEvent::FullResync { replid, offset } => {
                self.offset = *offset;
                self.snapshot_ended = false;
                self.resume = Some(ResumePoint {
                    replid: replid.clone(),
                    offset: *offset,
                    db: 0,
                });
            }
            TapEvent::Command(command) => {
                self.offset = command.offset_end;
                if !command.in_transaction {
                    let (offset, db) = (command.offset_end, command.db);
                    self.resume = Some(ResumePoint { replid, offset, db });
                }
            }
            TapEvent::TransactionBegin { offset_end } => self.offset = *offset_end,
            TapEvent::TransactionEnd {
                offset_end: offset,
                db,
            }
            | TapEvent::Idle { offset, db } => {
                self.offset = *offset;
                self.resume = Some(ResumePoint {
                    replid,
                    offset: *offset,
                    db: *db,
                });
            }
            TapEvent::SnapshotEnd => self.snapshot_ended = true,
            _ => {}
        }
        self.events.push(event);
    }

    fn records(&self) -> impl Iterator<Item = &SnapshotRecord> {
        self.events.iter().filter_map(|event| match event {
            TapEvent::Snapshot(record) => Some(record),
            _ => None,
        })
    }

    /// Names of stream commands with their databases.
    fn commands(&self) -> Vec<(String, u32, bool)> {
        let told = self.events.iter().filter_map(|event| match event {
            TapEvent::Command(command) => Some((
                String::from_utf8_lossy(command.name()).into_owned(),
                command.db,
                command.in_transaction,
            )),
            _ => None,
        });
        told.collect()
    }
}

/// Takes a tap's events in a task of its own and acknowledges each.
struct Follower {
    meter: Arc<TapMeter>,
    seen: Arc<Mutex<Seen>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Tap>,
}

impl Follower {
    fn start(mut tap: Tap, seen: Seen) -> Follower {
        let meter = tap.meter();
        let seen = Arc::new(Mutex::new(seen));
        let (stop, mut stopped) = oneshot::channel();
        let sink = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let told = tokio::select! {
                    told = tap.next() => told,
                    _ = &mut stopped => return tap,
                };
                let mut seen = sink.lock().unwrap();
                match told {
                    Ok(event) => seen.note(event),
                    Err(error) => {
                        seen.error = Some(error);
                        return tap;
                    }
                }
                tap.acknowledge(seen.offset);
            }
        });
        Follower {
            meter,
            seen,
            stop,
            task,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        let seen = self.seen.lock().unwrap();
        assert!(seen.error.is_none(), "{}", seen.error.as_ref().unwrap());
        seen
    }

    /// Waits until everything the source has written was told.
    fn catch_up(&self, source: &RedisServer) -> u64 {
        wait_for("the tap is where the source is", LIMIT, || {
            let offset = master_offset(source);
            let seen = self.seen();
            (seen.snapshot_ended && seen.offset == offset).then_some(offset)
        })
    }

    fn figures(&self) -> TapFigures {
        self.meter.figures()
    }

    async fn stop(self) -> Seen {
        let _ = self.stop.send(());
        self.task.await.unwrap().close().await;
        Arc::into_inner(self.seen).unwrap().into_inner().unwrap()
    }
}

fn master_offset(source: &RedisServer) -> u64 {
    source
        .info_field("replication", "master_repl_offset")
        .unwrap()
        .parse()
        .unwrap()
}

/// All types, in their small and large layouts, in databases 0 and 5.
fn fill(client: &mut Client) {
    let mut call = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = client.call(&words);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    };
    call("SET string value");
    call("SET number 12345");
    call(&format!("SET compressible {}", "ab".repeat(5_000)));
    call(&format!("SET large {}", "0123456789abcdef".repeat(40_000)));
    call("SET volatile v PXAT 4102444800000");
    call("RPUSH list a b 3");
    call("SADD intset 1 2 300000");
    call("SADD set a b c");
    call("ZADD zset 1 a 2.5 b -inf c");
    call("HSET hash f v g w");
    call("XADD stream 1-1 f v");
    call("XADD stream 2-1 f v g w");
    call("XGROUP CREATE stream group 0");
    call("XREADGROUP GROUP group consumer COUNT 1 STREAMS stream >");
    call("PFADD log a b c");
    call("SETBIT bits 100000 1");
    for i in 0..600 {
        call(&format!("RPUSH biglist {i}-{}", "x".repeat(100)));
        call(&format!("SADD bigset member-{i}"));
        call(&format!("ZADD bigzset {i}.25 member-{i}"));
        call(&format!("HSET bighash field-{i} {}", "y".repeat(i % 90)));
    }
    call("SELECT 5");
    call("SET string other");
    call("HSET hash in five");
    for i in 0..2_000 {
        call(&format!("SET key:{i} {i}"));
    }
}

/// A second server that gets everything a tap told.
struct Copy {
    server: RedisServer,
}

impl Copy {
    fn of(events: &[TapEvent]) -> Copy {
        let server = RedisServer::start(&["--enable-debug-command", "yes"]);
        Copy::at(server, events)
    }

    fn at(server: RedisServer, events: &[TapEvent]) -> Copy {
        // What came before the last full resync is void.
        let resync = |event: &TapEvent| matches!(event, TapEvent::FullResync { .. });
        let begin = events.iter().rposition(resync).unwrap_or(0);
        let events = &events[begin..];
        let mut client = server.client();
        let mut selected = 0;
        let mut expect = |client: &mut Client, db: u32, command: &[&[u8]]| {
            if db != selected {
                client.call(&["SELECT", &db.to_string()]);
                selected = db;
            }
            let reply = client.call(command);
            assert!(!reply.is_error(), "{:?}: {reply:?}", command.first());
        };
        for event in events {
            match event {
                TapEvent::Snapshot(record) => {
                    let mut payload = Vec::new();
                    write_dump_payload(&mut payload, &record.raw_value()).unwrap();
                    let ttl = record.expires_at_ms.unwrap_or(0).to_string();
                    let words: [&[u8]; 5] =
                        [b"RESTORE", &record.key, ttl.as_bytes(), &payload, b"ABSTTL"];
                    expect(&mut client, record.db, &words);
                }
                TapEvent::Command(command) => {
                    let words: Vec<&[u8]> = command.args().collect();
                    expect(&mut client, command.db, &words);
                }
                _ => {}
            }
        }
        Copy { server }
    }

    fn assert_equals(&self, source: &RedisServer) {
        let digest = |server: &RedisServer| server.client().call(&["DEBUG", "DIGEST"]).text();
        assert_eq!(digest(&self.server), digest(source), "the copy differs");
    }
}

fn source(diskless: bool) -> RedisServer {
    let diskless = if diskless { "yes" } else { "no" };
    RedisServer::start(&[
        "--enable-debug-command",
        "yes",
        "--repl-diskless-sync",
        diskless,
    ])
}

async fn snapshot_is_whole(diskless: bool) {
    let source = source(diskless);
    fill(&mut source.client());
    source.client().call(&["FUNCTION", "LOAD", FUNCTION]);
    let follower = Follower::start(attach(&source).await, Seen::default());
    let offset = follower.catch_up(&source);
    let seen = follower.stop().await;
    assert!(matches!(&seen.events[0], TapEvent::FullResync { replid, .. } if replid.len() == 40));
    assert!(seen.offset == offset && seen.records().count() > 2_000);
    assert!(
        seen.events
            .iter()
            .any(|event| matches!(event, TapEvent::Function(code) if *code == FUNCTION.as_bytes()))
    );
    Copy::of(&seen.events).assert_equals(&source);
}

const FUNCTION: &str = "#!lua name=lib\nredis.register_function('one', function() return 1 end)";

#[tokio::test(flavor = "multi_thread")]
async fn a_diskless_snapshot_is_whole() {
    snapshot_is_whole(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_from_disk_is_whole() {
    snapshot_is_whole(false).await;
}

/// Writes of many kinds until told to stop.
fn write_until(stop: &AtomicBool, client: &mut Client) {
    let mut round = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let (db, other) = (
            ["0", "5"][round as usize % 2],
            ["5", "0"][round as usize % 2],
        );
        let key = format!("during:{}", round % 100);
        let commands: Vec<Vec<&str>> = vec![
            vec!["SELECT", db],
            vec!["INCR", "counter"],
            vec!["RPUSH", &key, "element"],
            vec!["SET", "volatile", "renewed", "PXAT", "4102444900000"],
            vec!["MULTI"],
            vec!["INCR", "in-transaction"],
            vec!["SELECT", other],
            vec!["HINCRBY", "hash-during", &key, "1"],
            vec!["EXEC"],
            vec!["DEL", &key],
            vec!["SPOP", "bigset"],
            vec!["XADD", "stream-during", "MAXLEN", "~", "100", "*", "f", "v"],
        ];
        for reply in client.pipeline(&commands) {
            assert!(!reply.is_error(), "{reply:?}");
        }
    }
}

async fn writes_during_the_sync_are_followed(diskless: bool) {
    let source = source(diskless);
    fill(&mut source.client());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut client, stopped) = (source.client(), Arc::clone(&stop));
    let writer = thread::spawn(move || write_until(&stopped, &mut client));
    let follower = Follower::start(attach(&source).await, Seen::default());
    wait_until(
        "a few thousand commands came after the snapshot",
        LIMIT,
        || follower.seen().commands().len() > 5_000,
    );
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let offset = follower.catch_up(&source);
    wait_until("the source sees our ACK", LIMIT, || {
        let slave = source.info_field("replication", "slave0").unwrap();
        slave.contains(&format!("offset={offset}")) && slave.contains("state=online")
    });
    let seen = follower.stop().await;
    let commands = seen.commands();
    assert!(
        commands
            .iter()
            .all(|(name, ..)| name != "SELECT" && name != "PING")
    );
    assert!(commands.contains(&("INCR".to_owned(), 5, true)));
    assert!(
        commands.contains(&("HINCRBY".to_owned(), 0, true)),
        "SELECT inside MULTI"
    );
    Copy::of(&seen.events).assert_equals(&source);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_during_a_diskless_sync_are_followed() {
    writes_during_the_sync_are_followed(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_during_a_sync_from_disk_are_followed() {
    writes_during_the_sync_are_followed(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_on_the_source_gets_its_ack_at_once() {
    // From disk: a diskless source starts its stream only at an ACK sent on time.
    let source = source(false);
    let mut config = config(&source.address());
    // So rarely that only GETACK can be what is answered.
    config.ack_every = Duration::from_secs(3600);
    let tap = Tap::attach(config, None).await.unwrap();
    let follower = Follower::start(tap, Seen::default());
    follower.catch_up(&source);
    let mut client = source.client();
    for round in 1..=5 {
        client.call(&["SET", "k", &round.to_string()]);
        // GETACK is answered with what was acknowledged by then, so the first
        // one may come too early; WAIT asks again each time.
        wait_until("WAIT counts us", LIMIT, || {
            client.call(&["WAIT", "1", "200"]).int() == 1
        });
    }
    follower.catch_up(&source);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_caller_acknowledged_is_acked() {
    let source = source(true);
    let mut tap = attach(&source).await;
    let mut start = 0;
    loop {
        match tap.next().await.unwrap() {
            TapEvent::FullResync { offset, .. } => start = offset,
            TapEvent::SnapshotEnd => break,
            _ => {}
        }
    }
    let mut client = source.client();
    client.call(&["SET", "k", "v"]);
    let command = loop {
        if let TapEvent::Command(command) = tap.next().await.unwrap() {
            break command;
        }
    };
    let acked = |offset: u64| {
        wait_until("the ACK is seen", LIMIT, || {
            let slave = source.info_field("replication", "slave0").unwrap();
            slave.contains(&format!("offset={offset},"))
        });
    };
    acked(start);
    assert_eq!(
        client.call(&["WAIT", "1", "150"]).int(),
        0,
        "nobody said so yet"
    );
    tap.acknowledge(command.offset_end);
    tap.acknowledge(1);
    acked(command.offset_end);
    tap.close().await;
    wait_until("the source sees us go", LIMIT, || {
        source
            .info_field("replication", "connected_slaves")
            .as_deref()
            == Some("0")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_link_is_resumed_in_its_database() {
    let source = source(true);
    let mut client = source.client();
    let follower = Follower::start(attach(&source).await, Seen::default());
    follower.catch_up(&source);
    client.call(&["SELECT", "5"]);
    client.call(&["SET", "a", "1"]);
    follower.catch_up(&source);
    let seen = follower.stop().await;
    let point = seen.resume.unwrap();
    assert_eq!(point.db, 5);
    client.call(&["SET", "b", "2"]);
    client.call(&["MULTI"]);
    client.call(&["INCR", "c"]);
    client.call(&["INCR", "d"]);
    client.call(&["EXEC"]);

    let tap = Tap::attach(config(&source.address()), Some(point.clone()))
        .await
        .unwrap();
    let resumed = Seen {
        resume: Some(point.clone()),
        snapshot_ended: true,
        ..Seen::default()
    };
    let follower = Follower::start(tap, resumed);
    follower.catch_up(&source);
    let seen = follower.stop().await;
    assert_eq!(
        seen.events[0],
        TapEvent::Continue {
            replid: point.replid
        }
    );
    let name = |name: &str, inside| (name.to_owned(), 5, inside);
    assert_eq!(
        seen.commands(),
        [name("SET", false), name("INCR", true), name("INCR", true)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_resume_point_gets_a_full_resync() {
    let source = source(true);
    let point = ResumePoint {
        replid: "b".repeat(40),
        offset: 77,
        db: 0,
    };
    let mut tap = Tap::attach(config(&source.address()), Some(point))
        .await
        .unwrap();
    assert!(matches!(
        tap.next().await.unwrap(),
        TapEvent::FullResync { .. }
    ));
    tap.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_said_and_judged() {
    let source = RedisServer::start(&["--requirepass", "right"]);
    let address = source.address();
    source.client().call(&[
        "ACL",
        "SETUSER",
        "ferry",
        "on",
        ">secret",
        "+psync",
        "+replconf",
        "+ping",
    ]);
    for config in [
        with_credentials(&address, None, "right"),
        with_credentials(&address, Some("ferry"), "secret"),
    ] {
        let follower = Follower::start(Tap::attach(config, None).await.unwrap(), Seen::default());
        follower.catch_up(&source);
        follower.stop().await;
    }

    let wrong = Tap::attach(with_credentials(&address, None, "wrong"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind, TapErrorKind::WrongPassword(_)),
        "{wrong}"
    );
    assert_eq!(
        (wrong.step, wrong.retry()),
        (TapStep::Authenticate, Retry::Never)
    );
    assert!(wrong.to_string().contains(&address) && wrong.to_string().contains("WRONGPASS"));

    let none = Tap::attach(config(&address), None).await.unwrap_err();
    assert!(
        matches!(none.kind, TapErrorKind::PasswordRequired(_)),
        "{none}"
    );

    source.client().call(&["ACL", "SETUSER", "ferry", "-psync"]);
    let denied = Tap::attach(with_credentials(&address, Some("ferry"), "secret"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(denied.kind, TapErrorKind::PsyncNotAvailable(_)),
        "{denied}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_psync_is_named() {
    let source = RedisServer::start(&["--rename-command", "PSYNC", ""]);
    let error = Tap::attach(config(&source.address()), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind, TapErrorKind::PsyncNotAvailable(_)),
        "{error}"
    );
    assert_eq!((error.step, error.retry()), (TapStep::Psync, Retry::Never));
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("source {}: PSYNC: ", source.address())),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_master_is_gone_says_not_now() {
    let mut master = RedisServer::start(&[]);
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    wait_until("the replica is in sync", LIMIT, || {
        replica
            .info_field("replication", "master_link_status")
            .as_deref()
            == Some("up")
    });
    // A replica is as good a source as its master.
    let follower = Follower::start(attach(&replica).await, Seen::default());
    master.client().call(&["SET", "k", "v"]);
    wait_until("the write came through", LIMIT, || {
        !follower.seen().commands().is_empty()
    });
    follower.stop().await;

    master.kill();
    wait_until("the replica notices", LIMIT, || {
        replica
            .info_field("replication", "master_link_status")
            .as_deref()
            == Some("down")
    });
    let error = Tap::attach(config(&replica.address()), None)
        .await
        .unwrap_err();
    assert!(matches!(error.kind, TapErrorKind::NotNow(_)), "{error}");
    assert_eq!(error.retry(), Retry::Safe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_ends_the_stream() {
    let mut source = source(true);
    let follower = Follower::start(attach(&source).await, Seen::default());
    follower.catch_up(&source);
    source.kill();
    let error = wait_for("the tap notices", LIMIT, || {
        follower.seen.lock().unwrap().error.take()
    });
    assert!(
        matches!(error.kind, TapErrorKind::Closed | TapErrorKind::Io(_)),
        "{error}"
    );
    assert_eq!((error.step, error.retry()), (TapStep::Stream, Retry::Safe));
    let refused = Tap::attach(config(&source.address()), None)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.step, refused.retry()),
        (TapStep::Connect, Retry::Safe)
    );
}

/// Plays a source: answers the handshake, then does what `after_psync` says.
fn play(
    listener: TcpListener,
    ping: &'static str,
    after_psync: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut heard = Vec::new();
        loop {
            let words = read_command(&mut reader);
            let Some(name) = words.first().cloned() else {
                return heard;
            };
            heard.push(words.join(" "));
            match name.as_str() {
                "PING" => stream.write_all(ping.as_bytes()).unwrap(),
                "PSYNC" => break,
                _ => stream
                    .write_all(b"-ERR Unrecognized REPLCONF option\r\n")
                    .unwrap(),
            }
        }
        after_psync(&mut stream);
        heard
    })
}

fn read_command(reader: &mut impl BufRead) -> Vec<String> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let words = line
        .trim_end()
        .strip_prefix('*')
        .map(|n| n.parse().unwrap())
        .unwrap_or(0);
    let word = |_| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut bytes = vec![0; line.trim_end()[1..].parse::<usize>().unwrap() + 2];
        reader.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap().trim_end().to_owned()
    };
    (0..words).map(word).collect()
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Events up to the last byte of the fixtures (offset 1064).
async fn told_by(config: TapConfig) -> Vec<TapEvent> {
    let mut tap = Tap::attach(config, None).await.unwrap();
    let mut events = Vec::new();
    loop {
        match tap.next().await.unwrap() {
            TapEvent::Idle { offset: 1064, .. } => {
                tap.close().await;
                return events;
            }
            // Whether there was a pause is the wire's doing.
            TapEvent::Idle { .. } => {}
            event => events.push(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_cut_anywhere_on_the_wire_tell_the_same() {
    let wires: [&'static [u8]; 2] = [
        include_bytes!("fixtures/replication/wire_disk_len.bin"),
        include_bytes!("fixtures/replication/wire_diskless_eofmark.bin"),
    ];
    for wire in wires {
        let mut whole = None;
        for cut in 0..wire.len() {
            let (listener, address) = listen();
            let source = play(
                listener,
                "-NOAUTH first say who you are\r\n",
                move |stream| {
                    stream.write_all(&wire[..cut]).unwrap();
                    // Two segments, so that the tap mostly reads them apart; the
                    // unit tests cut without chance.
                    thread::yield_now();
                    stream.write_all(&wire[cut..]).unwrap();
                    let _ = stream.read_to_end(&mut Vec::new());
                },
            );
            let events = told_by(config(&address)).await;
            let heard = source.join().unwrap();
            assert_eq!(
                heard,
                [
                    "PING",
                    "REPLCONF listening-port 0",
                    "REPLCONF capa eof",
                    "REPLCONF capa psync2",
                    "REPLCONF version 9.0.0",
                    "REPLCONF rdb-no-compress 1",
                    "REPLCONF capa rdb-channel-repl",
                    "REPLCONF capa dual-channel",
                    "PSYNC ? -1"
                ]
            );
            assert!(events.contains(&TapEvent::SnapshotEnd));
            let whole = whole.get_or_insert_with(|| events.clone());
            assert_eq!(&events, whole, "cut at {cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newlines_are_patience_and_silence_is_not() {
    let (listener, address) = listen();
    let source = play(listener, "+PONG\r\n", |stream| {
        // Together longer than the tap's patience, each far shorter.
        for _ in 0..12 {
            thread::sleep(Duration::from_millis(100));
            stream.write_all(b"\n").unwrap();
        }
        stream.write_all(b"+FULLRESYNC abc 1000\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut impatient = config(&address);
    impatient.silence_max = Duration::from_secs(1);
    let mut tap = Tap::attach(impatient, None).await.unwrap();
    let full = TapEvent::FullResync {
        replid: "abc".to_owned(),
        offset: 1000,
    };
    assert_eq!(tap.next().await.unwrap(), full);
    let error = loop {
        // A caller who waits in short turns notices silence, too.
        match tokio::time::timeout(Duration::from_millis(50), tap.next()).await {
            Ok(told) => break told.unwrap_err(),
            Err(_elapsed) => {}
        }
    };
    assert!(matches!(error.kind, TapErrorKind::Silent(_)), "{error}");
    assert_eq!(
        (error.step, error.retry()),
        (TapStep::Snapshot, Retry::Safe)
    );
    tap.close().await;
    source.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_snapshot_is_kept_alive_by_newlines() {
    let (listener, address) = listen();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let source = play(listener, "+PONG\r\n", move |stream| {
        let wire = include_bytes!("fixtures/replication/wire_diskless_eofmark.bin");
        let mark = wire.windows(4).position(|four| four == b"*2\r\n").unwrap();
        let (first, rest) = wire.split_at(mark - 1);
        let (last_of_mark, commands) = rest.split_at(1);
        let mut heard = [0; 64];
        stream.write_all(first).unwrap();
        let len = stream.read(&mut heard).unwrap();
        sink.lock().unwrap().push(heard[..len].to_vec());
        stream.write_all(last_of_mark).unwrap();
        // Like a real diskless source, nothing more before the first ACK.
        let len = stream.read(&mut heard).unwrap();
        sink.lock().unwrap().push(heard[..len].to_vec());
        stream.write_all(commands).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    told_by(config(&address)).await;
    source.join().unwrap();
    let heard = heard.lock().unwrap();
    assert_eq!(heard[0], b"\n");
    assert_eq!(
        heard[1],
        b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$4\r\n1000\r\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_kind_is_told_apart() {
    let (listener, address) = listen();
    let source = play(listener, "HTTP/1.1 400 Bad Request\r\n", |_| {});
    let error = Tap::attach(config(&address), None).await.unwrap_err();
    assert!(matches!(error.kind, TapErrorKind::NotResp(_)), "{error}");
    assert_eq!(error.step, TapStep::Ping);
    assert_eq!(source.join().unwrap(), ["PING"]);
}
