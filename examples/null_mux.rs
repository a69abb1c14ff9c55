//! The limit a proxy is measured against: a worker's sockets without a worker's
//! work.
//!
//! ```text
//! turn:  wait -> read ready shards, then clients -> look again while more comes
//!        -> write each shard that has bytes once -> write each client that
//!        has bytes once -> accept
//! ```
//!
//! Its I/O is that of `src/proxy/worker.rs`, call for call: edge-triggered, one
//! scratch buffer, reads until one comes back short, one connection to each
//! shard. But requests and replies have a length that flags give, the shard is
//! told by the lowest bit of one byte of the request, and a reply goes to the
//! client at the head of its shard's queue, in whatever order replies come:
//! nothing is parsed, hashed, checked, counted, timed or put in order.
//!
//! ```text
//! null_mux --port P --shards A,B --request-bytes N --reply-bytes N --shard-byte OFFSET
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a program for measurements: a panic that says what happened is the right answer"
)]

mod bench_support;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::SocketAddr;

use bench_support::{Flags, Output, SCRATCH_BYTES};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// As a worker's.
const EVENTS_PER_WAIT: usize = 512;
/// As a worker's.
const READS_PER_TURN: usize = 4;
/// As a worker's.
const WAITS_PER_TURN_MAX: usize = 5;
/// As a worker's.
const EVENTS_PER_TURN_MAX: usize = 256;
/// As a worker's.
const FULL_BYTES: usize = 64 * 1024;

const LISTENER: Token = Token(usize::MAX);
/// Tokens from here on are shards.
const SHARDS: usize = 1 << 40;

struct Client {
    stream: TcpStream,
    /// The beginning of a request whose end has not arrived.
    partial: Vec<u8>,
    output: Output,
    is_dirty: bool,
}

struct Shard {
    stream: TcpStream,
    /// The beginning of a reply whose end has not arrived.
    partial: Vec<u8>,
    output: Output,
    is_dirty: bool,
    /// Whose request each coming reply answers.
    asked: VecDeque<u32>,
}

/// Lengths and the place of the byte that chooses the shard.
#[derive(Clone, Copy)]
struct Frames {
    request_bytes: usize,
    reply_bytes: usize,
    shard_byte: usize,
}

struct Mux {
    poll: Poll,
    listener: TcpListener,
    frames: Frames,
    clients: Vec<Option<Client>>,
    shards: Vec<Shard>,
    dirty_clients: Vec<u32>,
    dirty_shards: Vec<u32>,
    /// Read again in the next turn without waiting for an event.
    again: Vec<Token>,
    scratch: Vec<u8>,
}

fn main() {
    let flags = Flags::parse(
        std::env::args().skip(1),
        &[
            "port",
            "shards",
            "request-bytes",
            "reply-bytes",
            "shard-byte",
        ],
    );
    let poll = Poll::new().expect("an epoll");
    let address = |port: usize| -> SocketAddr { ([127, 0, 0, 1], port as u16).into() };
    let mut listener = TcpListener::bind(address(flags.number("port"))).expect("the port is free");
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .expect("a listener");
    let ports = flags.numbers("shards").into_iter().enumerate();
    let shards = ports
        .map(|(index, port)| dial(&poll, index, address(port)))
        .collect();
    let mut mux = Mux {
        poll,
        listener,
        frames: Frames {
            request_bytes: flags.number("request-bytes"),
            reply_bytes: flags.number("reply-bytes"),
            shard_byte: flags.number("shard-byte"),
        },
        clients: Vec::new(),
        shards,
        dirty_clients: Vec::new(),
        dirty_shards: Vec::new(),
        again: Vec::new(),
        scratch: vec![0; SCRATCH_BYTES],
    };
    mux.run();
}

fn dial(poll: &Poll, index: usize, address: SocketAddr) -> Shard {
    let stream = std::net::TcpStream::connect(address).expect("the shard listens");
    stream.set_nonblocking(true).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    let mut stream = TcpStream::from_std(stream);
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry()
        .register(&mut stream, Token(SHARDS + index), both)
        .expect("a registered shard");
    Shard {
        stream,
        partial: Vec::new(),
        output: Output::default(),
        is_dirty: false,
        asked: VecDeque::new(),
    }
}

impl Mux {
    fn run(&mut self) -> ! {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        let mut again = Vec::new();
        let (mut waits, mut gathered) = (0, 0);
        let mut accepts = false;
        loop {
            let goes_on = waits > 0 || !self.again.is_empty();
            let patience = goes_on.then_some(std::time::Duration::ZERO);
            if let Err(error) = self.poll.poll(&mut events, patience) {
                assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
            }
            if waits == 0 {
                std::mem::swap(&mut again, &mut self.again);
                for token in again.drain(..) {
                    self.read(token, true);
                }
            }
            for event in events.iter().filter(|event| is_shard(event.token())) {
                self.ready(event);
            }
            for event in events.iter().filter(|event| !is_shard(event.token())) {
                if event.token() == LISTENER {
                    accepts = true;
                } else {
                    self.ready(event);
                }
            }
            let count = events.iter().count();
            waits += 1;
            gathered += count;
            let enough = if waits == 1 { 2 } else { 1 };
            if count >= enough && waits < WAITS_PER_TURN_MAX && gathered < EVENTS_PER_TURN_MAX {
                continue;
            }
            (waits, gathered) = (0, 0);
            self.write_dirty();
            if std::mem::take(&mut accepts) {
                self.accept();
            }
        }
    }

    fn ready(&mut self, event: &mio::event::Event) {
        if event.is_writable() {
            self.room(event.token());
        }
        if event.is_readable() || event.is_error() {
            self.read(event.token(), event.is_read_closed() || event.is_error());
        }
    }

    fn read(&mut self, token: Token, until_empty: bool) {
        for _ in 0..READS_PER_TURN {
            let taken = match self.read_once(token) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => 0,
            };
            if taken == 0 {
                return self.close(token);
            }
            if taken < SCRATCH_BYTES && !until_empty {
                return;
            }
        }
        self.again.push(token);
    }

    fn read_once(&mut self, Token(at): Token) -> io::Result<usize> {
        if let Some(shard) = self.shards.get_mut(at.wrapping_sub(SHARDS)) {
            let taken = shard.stream.read(&mut self.scratch)?;
            self.replies(at - SHARDS, taken);
            return Ok(taken);
        }
        let Some(Some(client)) = self.clients.get_mut(at) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken = client.stream.read(&mut self.scratch)?;
        self.requests(at, taken);
        self.write_full();
        Ok(taken)
    }

    /// Hands the first `taken` bytes of the scratch buffer to the shards.
    fn requests(&mut self, key: usize, taken: usize) {
        let frame = self.frames.request_bytes;
        let mut bytes = &self.scratch[..taken];
        let Some(Some(client)) = self.clients.get_mut(key) else {
            return;
        };
        if !client.partial.is_empty() {
            let missing = (frame - client.partial.len()).min(bytes.len());
            client.partial.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if client.partial.len() < frame {
                return;
            }
            let shard = usize::from(client.partial[self.frames.shard_byte] & 1);
            let dirty = &mut self.dirty_shards;
            self.shards[shard].ask(shard, dirty, key as u32, &client.partial, 1);
            client.partial.clear();
        }
        // Neighbours for one shard go in one copy.
        let (mut start, mut end, mut to) = (0, 0, 0);
        while end + frame <= bytes.len() {
            let shard = usize::from(bytes[end + self.frames.shard_byte] & 1);
            if shard != to {
                let span = &bytes[start..end];
                let count = span.len() / frame;
                self.shards[to].ask(to, &mut self.dirty_shards, key as u32, span, count);
                (start, to) = (end, shard);
            }
            end += frame;
        }
        let span = &bytes[start..end];
        let count = span.len() / frame;
        self.shards[to].ask(to, &mut self.dirty_shards, key as u32, span, count);
        client.partial.extend_from_slice(&bytes[end..]);
    }

    /// Hands the first `taken` bytes of the scratch buffer to the clients.
    fn replies(&mut self, index: usize, taken: usize) {
        let frame = self.frames.reply_bytes;
        let mut bytes = &self.scratch[..taken];
        let shard = &mut self.shards[index];
        if !shard.partial.is_empty() {
            let missing = (frame - shard.partial.len()).min(bytes.len());
            shard.partial.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if shard.partial.len() < frame {
                return;
            }
            let key = shard.asked.pop_front().expect("a reply was asked for");
            answer(
                &mut self.clients,
                &mut self.dirty_clients,
                key,
                &shard.partial,
            );
            shard.partial.clear();
        }
        // Neighbours for one client go in one copy.
        let whole = bytes.len() / frame;
        let mut at = 0;
        while at < whole {
            let start = at;
            let key = shard.asked.pop_front().expect("a reply was asked for");
            at += 1;
            while at < whole && shard.asked.front() == Some(&key) {
                shard.asked.pop_front();
                at += 1;
            }
            let span = &bytes[start * frame..at * frame];
            answer(&mut self.clients, &mut self.dirty_clients, key, span);
        }
        shard.partial.extend_from_slice(&bytes[whole * frame..]);
    }

    fn write_dirty(&mut self) {
        for index in self.dirty_shards.drain(..) {
            let shard = &mut self.shards[index as usize];
            shard.is_dirty = false;
            let Shard { output, stream, .. } = shard;
            output.write_to(stream).expect("the shard is there");
        }
        for key in self.dirty_clients.drain(..) {
            if let Some(Some(client)) = self.clients.get_mut(key as usize) {
                client.is_dirty = false;
                let Client { output, stream, .. } = client;
                // A client that is gone shows at its next read.
                let _ = output.write_to(stream);
            }
        }
    }

    /// The socket has room again: what did not fit goes out with this turn.
    fn room(&mut self, Token(at): Token) {
        if let Some(shard) = self.shards.get_mut(at.wrapping_sub(SHARDS)) {
            if !shard.is_dirty && !shard.output.bytes.is_empty() {
                shard.is_dirty = true;
                self.dirty_shards.push((at - SHARDS) as u32);
            }
        } else if let Some(Some(client)) = self.clients.get_mut(at)
            && !client.is_dirty
            && !client.output.bytes.is_empty()
        {
            client.is_dirty = true;
            self.dirty_clients.push(at as u32);
        }
    }

    /// Writes to shards that have more than is worth keeping.
    fn write_full(&mut self) {
        for shard in &mut self.shards {
            if shard.output.bytes.len() >= FULL_BYTES {
                let Shard { output, stream, .. } = shard;
                output.write_to(stream).expect("the shard is there");
            }
        }
    }

    fn close(&mut self, Token(at): Token) {
        assert!(at < SHARDS, "shard {} closed", at - SHARDS);
        // The place is not used again: replies may still be on their way to it.
        if let Some(place) = self.clients.get_mut(at) {
            *place = None;
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nodelay(true).expect("a socket");
            let token = Token(self.clients.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, token, both)
                .expect("a registered client");
            self.clients.push(Some(Client {
                stream,
                partial: Vec::new(),
                output: Output::default(),
                is_dirty: false,
            }));
        }
    }
}

impl Shard {
    fn ask(&mut self, index: usize, dirty: &mut Vec<u32>, key: u32, span: &[u8], count: usize) {
        if count == 0 {
            return;
        }
        if !self.is_dirty {
            self.is_dirty = true;
            dirty.push(index as u32);
        }
        self.output.bytes.extend_from_slice(span);
        self.asked.extend(std::iter::repeat_n(key, count));
    }
}

fn answer(clients: &mut [Option<Client>], dirty: &mut Vec<u32>, key: u32, span: &[u8]) {
    let Some(Some(client)) = clients.get_mut(key as usize) else {
        return;
    };
    if !client.is_dirty {
        client.is_dirty = true;
        dirty.push(key);
    }
    client.output.bytes.extend_from_slice(span);
}

fn is_shard(Token(at): Token) -> bool {
    (SHARDS..LISTENER.0).contains(&at)
}
