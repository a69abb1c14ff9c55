//! Sources of other versions and vendors, and moments that no real one can be made
//! to have: we play them, connection by connection.

use super::*;

const WIRE_DISK: &[u8] = include_bytes!("../fixtures/replication/wire_disk_len.bin");
const WIRE: &[u8] = include_bytes!("../fixtures/replication/wire_diskless_eofmark.bin");
/// Where the fixtures' snapshots stand, and where their streams end.
const OFFSET: u64 = 1000;
const OFFSET_END: u64 = 1064;

/// The fixture after its +FULLRESYNC line: the framed snapshot, the stream.
fn parts(wire: &'static [u8]) -> (&'static [u8], &'static [u8]) {
    let line = wire.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
    let stream = wire.windows(4).position(|four| four == b"*2\r\n").unwrap();
    (&wire[line..stream], &wire[stream..])
}

/// One connection of the tap, from the source's side.
struct Peer {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Peer { stream, reader }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next command, keepalives left out.
    fn heard(&mut self) -> String {
        loop {
            let next = self.reader.fill_buf().unwrap();
            assert!(!next.is_empty(), "the tap hung up");
            if next[0] != b'\n' {
                return read_command(&mut self.reader).join(" ");
            }
            self.reader.consume(1);
        }
    }

    fn expect(&mut self, command: &str, answer: &str) {
        assert_eq!(self.heard(), command);
        self.send(answer);
    }

    /// Answers PING and REPLCONF; the PSYNC that follows is the answer.
    fn greet(&mut self) -> String {
        loop {
            let command = self.heard();
            match command.split(' ').next().unwrap() {
                "PING" => self.send("+PONG\r\n"),
                "REPLCONF" => self.send("+OK\r\n"),
                _ => return command,
            }
        }
    }

    /// Everything until the tap hangs up.
    fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A close with our bytes unread arrives as a reset.
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }
}

fn full_resync() -> String {
    format!("\n+FULLRESYNC abc {OFFSET}\r\n")
}

fn ack(offset: u64) -> String {
    format!("REPLCONF ACK {offset}")
}

/// A source in a thread of its own, and its address.
fn played(play: impl FnOnce(&TcpListener) + Send + 'static) -> (thread::JoinHandle<()>, String) {
    let (listener, address) = listen();
    (thread::spawn(move || play(&listener)), address)
}

/// Events up to the end of the fixture, Idle left out.
async fn told(tap: &mut Tap, offset_end: u64) -> Vec<TapEvent> {
    let mut events = Vec::new();
    loop {
        match tap.next().await.unwrap() {
            TapEvent::Idle { offset, .. } if offset == offset_end => return events,
            TapEvent::Idle { .. } => {}
            event => events.push(event),
        }
    }
}

/// What the fixture tells on one socket.
async fn expected() -> Vec<TapEvent> {
    let (source, address) = played(|listener| {
        let mut main = Peer::accept(listener);
        assert_eq!(main.greet(), "PSYNC ? -1");
        main.send(full_resync());
        main.send(&WIRE[parts_at()..]);
        main.rest();
    });
    let mut tap = Tap::attach(config(&address), None).await.unwrap();
    let events = told(&mut tap, OFFSET_END).await;
    assert_eq!(tap.mode(), TapMode::Psync);
    tap.close().await;
    source.join().unwrap();
    events
}

fn parts_at() -> usize {
    WIRE.windows(2).position(|two| two == b"\r\n").unwrap() + 2
}

/// The second connection up to its snapshot's first byte.
fn second_of_redis(listener: &TcpListener) -> Peer {
    let mut second = Peer::accept(listener);
    second.expect(
        "REPLCONF capa eof rdb-only 1 rdb-channel 1 listening-port 0 main-ch-client-id 42",
        "+OK\r\n",
    );
    second.expect("REPLCONF version 9.0.0", "-ERR Unrecognized option\r\n");
    assert_eq!(second.heard(), "PSYNC ? -1");
    for byte in full_resync().bytes() {
        second.send([byte]);
    }
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_sends_the_snapshot_on_a_second_socket() {
    let (source, address) = played(|listener| {
        let (snapshot, stream) = parts(WIRE);
        let mut main = Peer::accept(listener);
        assert_eq!(main.greet(), "PSYNC ? -1");
        main.send("+RDBCHANNELSYNC 42\r\n");
        let mut second = second_of_redis(listener);
        // The stream is there before the snapshot, and has to wait for it.
        main.send(stream);
        for piece in snapshot.chunks(1) {
            second.send(piece);
        }
        assert_eq!(main.heard(), ack(OFFSET));
        assert!(second.rest().is_empty());
        main.rest();
    });
    let mut tap = Tap::attach(config(&address), None).await.unwrap();
    let events = told(&mut tap, OFFSET_END).await;
    assert_eq!(tap.mode(), TapMode::TwoSockets);
    assert_eq!(events, expected().await);
    tap.close().await;
    source.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_tells_the_second_socket_where_the_stream_starts() {
    let (source, address) = played(|listener| {
        let (snapshot, stream) = parts(WIRE);
        let mut main = Peer::accept(listener);
        assert_eq!(main.greet(), "PSYNC ? -1");
        main.send("+DUALCHANNELSYNC\r\n");
        let mut second = Peer::accept(listener);
        second.expect(
            "REPLCONF capa eof rdb-only 1 rdb-channel 1 listening-port 0",
            "+OK\r\n",
        );
        second.expect("REPLCONF version 9.0.0", "+OK\r\n");
        second.expect("SYNC", &format!("\n$ENDOFF:{OFFSET} abc 0 77\r\n"));
        main.expect("REPLCONF set-rdb-client-id 77", "+OK\r\n");
        main.expect("PSYNC abc 1001", "+CONTINUE abc\r\n");
        main.send(stream);
        second.send(snapshot);
        assert_eq!(main.heard(), ack(OFFSET));
        main.rest();
    });
    let mut tap = Tap::attach(config(&address), None).await.unwrap();
    let events = told(&mut tap, OFFSET_END).await;
    assert_eq!(tap.mode(), TapMode::TwoSockets);
    assert_eq!(events, expected().await);
    tap.close().await;
    source.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn either_socket_lost_means_a_new_snapshot() {
    for second_is_lost in [true, false] {
        let (source, address) = played(move |listener| {
            let (snapshot, stream) = parts(WIRE);
            let mut main = Peer::accept(listener);
            main.greet();
            main.send("+RDBCHANNELSYNC 42\r\n");
            let mut second = second_of_redis(listener);
            main.send(&stream[..20]);
            second.send(&snapshot[..snapshot.len() - 1]);
            if second_is_lost {
                drop(second);
                main.rest();
            } else {
                drop(main);
                second.rest();
            }
            let mut main = Peer::accept(listener);
            assert_eq!(main.greet(), "PSYNC ? -1");
            main.send(full_resync());
            main.send(snapshot);
            main.send(stream);
            main.rest();
        });
        let mut tap = Tap::attach(patient(&address), None).await.unwrap();
        let events = told(&mut tap, OFFSET_END).await;
        let resync = |event: &TapEvent| matches!(event, TapEvent::FullResync { .. });
        let begin = events.iter().rposition(resync).unwrap();
        assert_eq!(events[begin..], expected().await);
        let figures = tap.meter().figures();
        assert_eq!((figures.full_resyncs, figures.mode), (2, TapMode::Psync));
        tap.close().await;
        source.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_before_psync_is_synced_and_never_acked() {
    let (source, address) = played(|listener| {
        let (snapshot, stream) = parts(WIRE_DISK);
        for attempt in 0..2 {
            let mut first = Peer::accept(listener);
            assert_eq!(first.greet(), "PSYNC ? -1");
            first.send("-ERR unknown command 'PSYNC'\r\n");
            let mut old = Peer::accept(listener);
            let info = "# Server\r\nredis_version:2.6.17\r\nredis_mode:standalone\r\n";
            old.expect("INFO", &format!("${}\r\n{info}\r\n", info.len()));
            old.expect("SYNC", "\n\n");
            old.send(snapshot);
            old.send(stream);
            if attempt == 0 {
                drop(old);
                continue;
            }
            let rest = old.rest();
            assert!(rest.iter().all(|byte| *byte == b'\n'), "{rest:?}");
        }
    });
    let mut tap = Tap::attach(patient(&address), None).await.unwrap();
    for _ in 0..2 {
        assert!(
            matches!(tap.next().await.unwrap(), TapEvent::FullResync { replid, offset: 0 } if replid.is_empty())
        );
        told(&mut tap, OFFSET_END - OFFSET).await;
    }
    let figures = tap.meter().figures();
    assert_eq!((figures.full_resyncs, figures.mode), (2, TapMode::Sync));
    tap.acknowledge(OFFSET_END);
    tap.close().await;
    source.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_given_up_is_asked_for_again() {
    let (source, address) = played(|listener| {
        let mut main = Peer::accept(listener);
        main.greet();
        main.send(full_resync());
        main.send("\n-ERR BGSAVE failed, see the log\r\n");
        main.rest();
        let mut main = Peer::accept(listener);
        assert_eq!(main.greet(), "PSYNC ? -1");
        main.send(full_resync());
        main.send(&WIRE[parts_at()..]);
        main.rest();
    });
    let mut tap = Tap::attach(patient(&address), None).await.unwrap();
    let events = told(&mut tap, OFFSET_END).await;
    assert!(events.contains(&TapEvent::SnapshotEnd));
    let error = tap.meter().figures().last_error.unwrap();
    assert!(
        error.contains("gave up the snapshot: ERR BGSAVE failed"),
        "{error}"
    );
    tap.close().await;
    source.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_every_cut_exactly_the_next_byte_is_asked_for() {
    let whole = expected().await;
    let (snapshot, stream) = parts(WIRE);
    for cut in 0..stream.len() {
        let (source, address) = played(move |listener| {
            let mut main = Peer::accept(listener);
            main.greet();
            main.send(full_resync());
            main.send(snapshot);
            assert_eq!(main.heard(), ack(OFFSET));
            main.send(&stream[..cut]);
            drop(main);
            let mut main = Peer::accept(listener);
            let next = OFFSET + cut as u64 + 1;
            assert_eq!(main.greet(), format!("PSYNC abc {next}"));
            main.send("+CONTINUE def\r\n");
            main.send(&stream[cut..]);
            main.rest();
        });
        let mut tap = Tap::attach(patient(&address), None).await.unwrap();
        let mut events = told(&mut tap, OFFSET_END).await;
        let replid = "def".to_owned();
        let continued = TapEvent::Continue { replid };
        let at = events.iter().position(|event| *event == continued).unwrap();
        events.remove(at);
        assert_eq!(events, whole, "cut at {cut}");
        tap.close().await;
        source.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_go_on_is_preferred_to_a_new_snapshot() {
    let (snapshot, stream) = parts(WIRE);
    let (other, other_address) = played(move |listener| {
        let mut main = Peer::accept(listener);
        assert_eq!(main.greet(), "PSYNC abc 1021");
        main.send("+CONTINUE\r\n");
        main.send(&stream[20..]);
        main.rest();
    });
    let (source, address) = played(move |listener| {
        let mut main = Peer::accept(listener);
        main.greet();
        main.send(full_resync());
        main.send(snapshot);
        assert_eq!(main.heard(), ack(OFFSET));
        main.send(&stream[..20]);
        drop(main);
        // It restarted meanwhile, say, and knows the history no more.
        let mut main = Peer::accept(listener);
        assert_eq!(main.greet(), "PSYNC abc 1021");
        main.send("+FULLRESYNC other 0\r\n");
        main.rest();
    });
    let mut config = patient(&address);
    config.alternates = vec![other_address.parse().unwrap()];
    let mut tap = Tap::attach(config, None).await.unwrap();
    let mut events = told(&mut tap, OFFSET_END).await;
    let continued = |event: &TapEvent| matches!(event, TapEvent::Continue { .. });
    events.retain(|event| !continued(event));
    assert_eq!(events, expected().await);
    assert_eq!(tap.address().to_string(), other_address);
    assert_eq!(tap.meter().figures().full_resyncs, 1);
    tap.close().await;
    source.join().unwrap();
    other.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_ends_inside_the_content_is_noticed() {
    let (source, address) = played(|listener| {
        let (snapshot, _) = parts(WIRE_DISK);
        let rdb = &snapshot[snapshot
            .windows(5)
            .position(|five| five == b"REDIS")
            .unwrap()..];
        // The mark is a piece of the RDB itself.
        let mark = &rdb[10..50];
        let mut main = Peer::accept(listener);
        main.greet();
        main.send(full_resync());
        main.send([b"$EOF:", mark, b"\r\n", rdb, mark].concat());
        main.rest();
    });
    let mut tap = Tap::attach(config(&address), None).await.unwrap();
    let error = loop {
        match tap.next().await {
            Ok(event) => assert_ne!(event, TapEvent::SnapshotEnd),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error.kind, TapErrorKind::EndsDiffer { .. }),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::Safe);
    tap.close().await;
    source.join().unwrap();
}
