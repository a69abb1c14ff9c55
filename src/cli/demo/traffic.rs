//! Clients of the demonstration: each knows what each reply must be.
//!
//! A client has keys of its own, counts on them, writes and reads them, and compares every
//! reply with what it did. At the end it reads all of them again.

use std::fmt;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::resp::{ReplyScanner, Value, parse_value, write_command};

/// Clients at once.
const CLIENTS: usize = 4;
/// Keys of one client.
const KEYS: usize = 5_000;
/// Between two requests of one client: a demonstration leaves the machine some time.
const PACE: Duration = Duration::from_micros(500);
/// Longest wait for a reply.
const REPLY_MAX: Duration = Duration::from_secs(30);
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
const READ_BYTES: usize = 16 * 1024;

/// Clients that run.
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

struct Shared {
    is_over: AtomicBool,
    requests: AtomicU64,
    wrong: AtomicU64,
    closed: AtomicU64,
    latency_us: Mutex<Latencies>,
    first_wrong: Mutex<Option<String>>,
}

struct Latencies {
    all: Histogram<u64>,
    /// Since the meter last looked.
    lately: Histogram<u64>,
}

/// What all clients saw.
#[derive(Debug)]
pub struct Seen {
    requests: u64,
    /// Replies that were not what they must be, errors among them.
    pub wrong: u64,
    closed: u64,
    first_wrong: Option<String>,
    latency_us: Histogram<u64>,
}

impl Traffic {
    /// Starts clients of the proxy.
    ///
    /// # Errors
    /// No connection, or no thread.
    pub fn start(proxy: SocketAddr) -> io::Result<Self> {
        let new = || Histogram::new_with_max(LATENCY_US_MAX, 3).map_err(io::Error::other);
        let shared = Arc::new(Shared {
            is_over: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            latency_us: Mutex::new(Latencies {
                all: new()?,
                lately: new()?,
            }),
            first_wrong: Mutex::new(None),
        });
        let threads = (0..CLIENTS).map(|number| {
            let mut client = Client::connect(proxy, number, Arc::clone(&shared))?;
            std::thread::Builder::new()
                .name(format!("client {number}"))
                .spawn(move || client.run())
        });
        Ok(Self {
            threads: threads.collect::<io::Result<_>>()?,
            shared,
        })
    }

    /// Ends it: each client reads what it wrote once more.
    pub fn stop(self) -> Seen {
        let shared = self.shared;
        shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    shared.closed.fetch_add(1, Ordering::Relaxed);
                    shared.note_wrong(format!("a connection ended: {error}"));
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let latency = shared.latencies().all.clone();
        let first_wrong = shared
            .first_wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Seen {
            requests: shared.requests.load(Ordering::Relaxed),
            wrong: shared.wrong.load(Ordering::Relaxed),
            closed: shared.closed.load(Ordering::Relaxed),
            first_wrong,
            latency_us: latency,
        }
    }
}

impl Shared {
    fn latencies(&self) -> std::sync::MutexGuard<'_, Latencies> {
        self.latency_us
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_wrong(&self, what: String) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        let mut first = self
            .first_wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(what);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(self.latency_us.value_at_quantile(quantile));
        writeln!(
            f,
            "  {} requests, {} wrong replies, {} connections closed",
            self.requests, self.wrong, self.closed
        )?;
        write!(
            f,
            "  latency: median {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.1} ms",
            at(0.5),
            at(0.99),
            at(0.999),
            ms(self.latency_us.max())
        )?;
        match &self.first_wrong {
            Some(first) => write!(f, "\n  the first wrong one: {first}"),
            None => Ok(()),
        }
    }
}

/// Tells what happened since it last told.
pub struct Meter {
    shared: Arc<Shared>,
    requests: u64,
    since: Instant,
}

impl Meter {
    /// From now on.
    pub fn new(traffic: &Traffic) -> Self {
        Self {
            shared: Arc::clone(&traffic.shared),
            requests: traffic.shared.requests.load(Ordering::Relaxed),
            since: Instant::now(),
        }
    }

    /// One line.
    pub fn line(&mut self) -> String {
        let requests = self.shared.requests.load(Ordering::Relaxed);
        let rate = (requests - self.requests) as f64 / self.since.elapsed().as_secs_f64();
        (self.requests, self.since) = (requests, Instant::now());
        let mut latencies = self.shared.latencies();
        let (p99, longest) = (
            latencies.lately.value_at_quantile(0.99),
            latencies.lately.max(),
        );
        latencies.lately.reset();
        drop(latencies);
        format!(
            "{rate:6.0} requests/s   p99 {:5.2} ms   longest {:5.1} ms   wrong {}",
            p99 as f64 / 1000.0,
            longest as f64 / 1000.0,
            self.shared.wrong.load(Ordering::Relaxed)
        )
    }
}

/// What a client knows of one key.
#[derive(Clone, Copy)]
struct Known {
    count: i64,
    written: u64,
}

struct Client {
    shared: Arc<Shared>,
    stream: BufReader<TcpStream>,
    scanner: ReplyScanner,
    input: Vec<u8>,
    number: usize,
    keys: Vec<Known>,
}

impl Client {
    fn connect(proxy: SocketAddr, number: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        let known = Known {
            count: 0,
            written: 0,
        };
        Ok(Self {
            shared,
            stream: BufReader::with_capacity(READ_BYTES, stream),
            scanner: ReplyScanner::new(),
            input: Vec::new(),
            number,
            keys: vec![known; KEYS],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut rng = fastrand::Rng::with_seed(self.number as u64);
        let mut requests = 0;
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let at = rng.usize(..KEYS);
            requests += 1;
            match rng.u8(..4) {
                0 => self.count(at)?,
                1 => self.write(at, requests)?,
                _ => self.read(at)?,
            }
            std::thread::sleep(PACE);
        }
        for at in 0..KEYS {
            self.read(at)?;
            self.read_count(at)?;
        }
        Ok(())
    }

    fn key(&self, kind: &str, at: usize) -> String {
        format!("demo:{}:{kind}:{at}", self.number)
    }

    fn count(&mut self, at: usize) -> io::Result<()> {
        self.keys[at].count += 1;
        let key = self.key("count", at);
        let wanted = Value::Integer(self.keys[at].count);
        self.ask(&["INCR", &key], &wanted)
    }

    fn write(&mut self, at: usize, token: u64) -> io::Result<()> {
        self.keys[at].written = token;
        let key = self.key("text", at);
        let text = token.to_string();
        self.ask(&["SET", &key, &text], &Value::Simple(b"OK".to_vec()))
    }

    fn read(&mut self, at: usize) -> io::Result<()> {
        let key = self.key("text", at);
        let wanted = match self.keys[at].written {
            0 => Value::Null,
            token => Value::Bulk(token.to_string().into_bytes()),
        };
        self.ask(&["GET", &key], &wanted)
    }

    fn read_count(&mut self, at: usize) -> io::Result<()> {
        let key = self.key("count", at);
        let wanted = match self.keys[at].count {
            0 => Value::Null,
            count => Value::Bulk(count.to_string().into_bytes()),
        };
        self.ask(&["GET", &key], &wanted)
    }

    fn ask(&mut self, words: &[&str], wanted: &Value) -> io::Result<()> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut request = Vec::new();
        write_command(&mut request, &words);
        let sent = Instant::now();
        self.stream.get_mut().write_all(&request)?;
        let got = self.reply()?;
        let us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
        let mut latencies = self.shared.latencies();
        latencies.all.saturating_record(us.min(LATENCY_US_MAX));
        latencies.lately.saturating_record(us.min(LATENCY_US_MAX));
        drop(latencies);
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        if got != *wanted {
            let request = String::from_utf8_lossy(&words.join(&b' ')).into_owned();
            self.shared
                .note_wrong(format!("{request}: {got:?} instead of {wanted:?}"));
        }
        Ok(())
    }

    fn reply(&mut self) -> io::Result<Value> {
        use io::BufRead;
        loop {
            let scanned = self.scanner.scan(&self.input).map_err(io::Error::other)?;
            if let Some(reply) = scanned {
                let bytes = self.input.get(..reply.len).unwrap_or(&[]);
                let value = parse_value(bytes).map_err(io::Error::other)?;
                self.input.drain(..reply.len);
                return Ok(value);
            }
            let read = self.stream.fill_buf()?;
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = read.len();
            self.input.extend_from_slice(read);
            self.stream.consume(count);
        }
    }
}
