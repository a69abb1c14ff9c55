//! Clients and shards that cost next to nothing, around the proxy that is
//! measured. Clients send requests made beforehand and count the bytes that come
//! back; shards find requests and answer each by fixed bytes.
//!
//! ```text
//! canned --shard-ports A,B --value-bytes 64
//!
//!   in:  connect --port P --clients 50 --pipeline 16 --command get --value-bytes 64
//!                --keys 100000 --warm-ms 300       connects, and loads for a while
//!   out: ready
//!   in:  go --ms 2000                              loads, and waits for the last replies
//!   out: {"requests": ..., "seconds": ..., "rps": ..., "p50_us": ..., ...}
//!   in:  close
//!   out: closed
//! ```
//!
//! Between `ready` and the result the proxy does nothing but this load, so
//! whoever reads its CPU time there knows what the requests cost.
//!
//! One thread is clients and shards: what the proxy sends to either while it is
//! busy with the other is read at once, in large pieces, and there are no
//! switches between two programs. It does not sleep during a load, so that the
//! proxy does not pay for waking it: clients in the field are on other machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program for measurements: a panic that says what happened is the right answer"
)]

#[path = "../bench_support/mod.rs"]
mod bench_support;
mod clients;
mod shards;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use bench_support::{Flags, SCRATCH_BYTES, fail};
use clients::Clients;
use mio::{Events, Poll, Token, Waker};
use shards::Shards;

const EVENTS_PER_WAIT: usize = 1024;
/// Without any reply for so long, the proxy hangs.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// There is a line to read.
const WAKE: Token = Token(usize::MAX);
/// Tokens from here on are clients, those below are of the shards.
const CLIENTS: usize = 1 << 40;

struct Canned {
    poll: Poll,
    events: Events,
    shards: Shards,
    clients: Option<Clients>,
    scratch: Vec<u8>,
}

fn main() {
    let flags = Flags::parse(std::env::args().skip(1), &["shard-ports", "value-bytes"]);
    let poll = Poll::new().expect("an epoll");
    let lines = lines(Waker::new(poll.registry(), WAKE).expect("a waker"));
    let shards = Shards::listen(
        &poll,
        &flags.numbers("shard-ports"),
        flags.number("value-bytes"),
    );
    let mut canned = Canned {
        poll,
        events: Events::with_capacity(EVENTS_PER_WAIT),
        shards,
        clients: None,
        scratch: vec![0; SCRATCH_BYTES],
    };
    loop {
        match lines.try_recv() {
            Ok(line) => println!("{}", canned.obey(&line)),
            Err(TryRecvError::Empty) => canned.turn(None),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// What comes in on stdin; its end is the end of the channel.
fn lines(waker: Waker) -> Receiver<String> {
    let (sender, receiver) = channel();
    let waker = Arc::new(waker);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if sender.send(line.expect("stdin")).is_err() {
                return;
            }
            waker.wake().expect("a waker");
        }
        drop(sender);
        waker.wake().expect("a waker");
    });
    receiver
}

impl Canned {
    /// Does what a line says; what to answer.
    fn obey(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("connect") => {
                let flags = Flags::parse(words, &clients::FLAGS);
                self.clients = Some(Clients::connect(&self.poll, CLIENTS, &flags));
                self.load(flags.number("warm-ms"));
                "ready".to_owned()
            }
            Some("go") => {
                let flags = Flags::parse(words, &["ms"]);
                let seconds = self.load(flags.number("ms"));
                let clients = self.clients.as_ref().expect("connect comes first");
                clients.result_json(seconds)
            }
            Some("close") => {
                self.clients = None;
                "closed".to_owned()
            }
            _ => fail(&format!("no such command: {line}")),
        }
    }

    /// Loads for so long and waits for what is still owed; how long it took, in seconds.
    fn load(&mut self, ms: usize) -> f64 {
        let start = Instant::now();
        let end = start + Duration::from_millis(ms as u64);
        self.clients
            .as_mut()
            .expect("connect comes first")
            .start(start, end);
        while let Some(clients) = &self.clients
            && !clients.are_idle()
        {
            if clients.now.duration_since(clients.last_reply) > SILENCE_MAX {
                fail("the proxy does not answer");
            }
            self.turn(Some(Duration::ZERO));
        }
        start.elapsed().as_secs_f64()
    }

    fn turn(&mut self, patience: Option<Duration>) {
        if let Err(error) = self.poll.poll(&mut self.events, patience) {
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
        }
        if let Some(clients) = &mut self.clients {
            clients.now = Instant::now();
        }
        for event in &self.events {
            match (event.token(), &mut self.clients) {
                (WAKE, _) => {}
                (Token(at), Some(clients)) if at >= CLIENTS => {
                    clients.serve(event, at - CLIENTS, &mut self.scratch);
                }
                (Token(at), _) if at < CLIENTS => {
                    self.shards.serve(&self.poll, at, &mut self.scratch);
                }
                _ => {} // a client that is closed by now
            }
        }
    }
}
