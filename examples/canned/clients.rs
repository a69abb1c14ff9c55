//! The clients: a closed loop each. A client sends a batch of `--pipeline`
//! requests, and the next one when all replies have come.
//!
//! All requests of a load have one length; their keys (`key:` and twelve digits,
//! as redis-benchmark has them) are random. Latencies are those of whole batches.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use keyferry::resp::write_command;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use crate::bench_support::{Flags, fail};

/// What `connect` takes.
pub const FLAGS: [&str; 7] = [
    "port",
    "clients",
    "pipeline",
    "command",
    "value-bytes",
    "keys",
    "warm-ms",
];

/// Requests made beforehand, in batches, as far as they fit into this.
const REQUESTS_PREPARED: usize = 20_000;
const PREPARED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Fewer batches than this would be too few different keys.
const BATCHES_MIN: usize = 64;
const MSET_KEYS: usize = 10;
/// Latencies above are counted as this.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// All clients of one load.
pub struct Clients {
    clients: Vec<Client>,
    batches: Vec<Vec<u8>>,
    pipeline: usize,
    /// Of a batch.
    replies_bytes: usize,
    /// Of each reply.
    first_byte: u8,
    next_batch: usize,
    end: Instant,
    idle: usize,
    done: usize,
    latencies_us: Vec<u32>,
    /// The time of this turn.
    pub now: Instant,
    /// When replies came last.
    pub last_reply: Instant,
}

struct Client {
    stream: TcpStream,
    batch: usize,
    /// Bytes of the batch that are written.
    sent: usize,
    /// Bytes of replies that are still to come; 0 between batches.
    owed: usize,
    started: Instant,
}

/// Batches of requests, all of one length.
fn batches(flags: &Flags, pipeline: usize) -> Vec<Vec<u8>> {
    let command = flags.text("command");
    let value = vec![b'x'; flags.number("value-bytes")];
    let keys = flags.number("keys");
    let mut rng = Rng::with_seed(1);
    let mut key = || format!("key:{:012}", rng.usize(..keys)).into_bytes();
    let mut batches = Vec::new();
    let mut bytes = 0;
    while batches.len() < BATCHES_MIN
        || (bytes < PREPARED_BYTES_MAX && batches.len() * pipeline < REQUESTS_PREPARED)
    {
        let mut batch = Vec::new();
        for _ in 0..pipeline {
            match command {
                "get" => write_command(&mut batch, &[b"GET", &key()]),
                "set" => write_command(&mut batch, &[b"SET", &key(), &value]),
                "mset" => {
                    let keys: Vec<_> = (0..MSET_KEYS).map(|_| key()).collect();
                    let mut args: Vec<&[u8]> = vec![b"MSET"];
                    args.extend(keys.iter().flat_map(|key| [key.as_slice(), &value]));
                    write_command(&mut batch, &args);
                }
                other => fail(&format!("--command {other}: get, set or mset")),
            }
        }
        bytes += batch.len();
        batches.push(batch);
    }
    batches
}

impl Clients {
    /// Connects; tokens start at `first_token`.
    pub fn connect(poll: &Poll, first_token: usize, flags: &Flags) -> Self {
        let (value_bytes, pipeline) = (flags.number("value-bytes"), flags.number("pipeline"));
        let (first_byte, reply_bytes) = match flags.text("command") {
            "get" => (b'$', format!("${value_bytes}\r\n").len() + value_bytes + 2),
            _ => (b'+', b"+OK\r\n".len()),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], flags.number("port") as u16));
        let now = Instant::now();
        let connect = |at: usize| {
            let stream = std::net::TcpStream::connect(address).expect("the proxy listens");
            stream.set_nodelay(true).expect("a socket");
            stream.set_nonblocking(true).expect("a socket");
            let mut stream = TcpStream::from_std(stream);
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(first_token + at), both)
                .expect("a registered client");
            Client {
                stream,
                batch: 0,
                sent: 0,
                owed: 0,
                started: now,
            }
        };
        let clients: Vec<_> = (0..flags.number("clients")).map(connect).collect();
        Self {
            batches: batches(flags, pipeline),
            pipeline,
            replies_bytes: reply_bytes * pipeline,
            first_byte,
            next_batch: 0,
            end: now,
            idle: clients.len(),
            done: 0,
            latencies_us: vec![0; LATENCY_MAX.as_micros() as usize + 1],
            now,
            last_reply: now,
            clients,
        }
    }

    /// Each client sends its first batch; the last ones are sent before `end`.
    pub fn start(&mut self, now: Instant, end: Instant) {
        (self.now, self.last_reply, self.end) = (now, now, end);
        self.done = 0;
        self.latencies_us.fill(0);
        for key in 0..self.clients.len() {
            self.send(key);
        }
    }

    /// Whether all that was sent is answered.
    pub fn are_idle(&self) -> bool {
        self.idle == self.clients.len()
    }

    /// Something happened at the client `key`.
    pub fn serve(&mut self, event: &Event, key: usize, scratch: &mut [u8]) {
        if event.is_writable() {
            self.write(key);
        }
        if event.is_readable() {
            self.read(key, scratch);
        }
    }

    /// What the load that took `seconds` has shown.
    pub fn result_json(&self, seconds: f64) -> String {
        let requests = self.done * self.pipeline;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.latency_us(share));
        format!(
            "{{\"requests\": {requests}, \"seconds\": {seconds:.6}, \"rps\": {:.0}, \
             \"p50_us\": {p50}, \"p99_us\": {p99}, \"p999_us\": {p999}}}",
            requests as f64 / seconds
        )
    }

    fn send(&mut self, key: usize) {
        let client = &mut self.clients[key];
        self.next_batch = (self.next_batch + 1) % self.batches.len();
        (client.batch, client.sent) = (self.next_batch, 0);
        client.owed = self.replies_bytes;
        client.started = self.now;
        self.idle -= 1;
        self.write(key);
    }

    fn write(&mut self, key: usize) {
        let client = &mut self.clients[key];
        let batch = &self.batches[client.batch];
        while client.owed > 0 && client.sent < batch.len() {
            match client.stream.write(&batch[client.sent..]) {
                Ok(taken) => client.sent += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => fail(&format!("writing to the proxy: {error}")),
            }
        }
    }

    fn read(&mut self, key: usize, scratch: &mut [u8]) {
        loop {
            let client = &mut self.clients[key];
            let taken = match client.stream.read(scratch) {
                Ok(0) => fail("the proxy closed a connection"),
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => fail(&format!("reading from the proxy: {error}")),
            };
            let bytes = &scratch[..taken];
            if taken > client.owed
                || (client.owed == self.replies_bytes && bytes[0] != self.first_byte)
            {
                let text = bytes[..taken.min(200)].escape_ascii();
                fail(&format!("not the replies that were asked for: {text}"));
            }
            client.owed -= taken;
            if client.owed == 0 {
                return self.batch_done(key);
            }
            if taken < scratch.len() {
                return;
            }
        }
    }

    fn batch_done(&mut self, key: usize) {
        // Not the time of the turn: a long turn would look like a short wait.
        self.now = Instant::now();
        let took = self.now.duration_since(self.clients[key].started);
        self.latencies_us[took.min(LATENCY_MAX).as_micros() as usize] += 1;
        self.last_reply = self.now;
        self.done += 1;
        self.idle += 1;
        if self.now < self.end {
            self.send(key);
        }
    }

    /// The latency that `share` of all batches did not exceed.
    fn latency_us(&self, share: f64) -> usize {
        let mut left = (self.done as f64 * share).ceil() as usize;
        for (us, &count) in self.latencies_us.iter().enumerate() {
            if left <= count as usize {
                return us;
            }
            left -= count as usize;
        }
        self.latencies_us.len() - 1
    }
}
