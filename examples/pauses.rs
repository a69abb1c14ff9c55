//! Closed-loop writers that note how long each request took, in windows.
//!
//! ```text
//! cargo run --release --example pauses -- --writers 8 --rate 500 --keys 20000 \
//!     --value-bytes 200 [--cluster yes] --addresses 127.0.0.1:7001,127.0.0.1:7002
//! ```
//!
//! Each line on stdin begins a window, and the window before is printed as one
//! line of JSON: requests, their quantiles in microseconds, the longest, how many
//! took how long, errors and connections that were closed. A window is not cut: a request counts where it
//! ended. The end of stdin is the end.
//!
//! Writers take the addresses in turn and send SET, INCR, APPEND and GET, one at a
//! time, at `--rate` a second each. With `--cluster yes` they follow `-MOVED`,
//! `-ASK` and `-TRYAGAIN` as cluster clients do, and a request's time ends when it was answered.
//! `--value-bytes` of a value are random.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is a fine error in a measuring program"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

#[path = "bench_support/mod.rs"]
#[allow(dead_code, reason = "it has more than this program needs")]
mod bench_support;

use bench_support::Flags;

/// The longest wait for a reply: far beyond what is measured.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// What happened since the window began.
struct Window {
    latency_us: Histogram<u64>,
    errors: u64,
    closed: u64,
    first_error: Option<String>,
}

impl Window {
    fn new() -> Self {
        Self {
            latency_us: Histogram::new_with_max(LATENCY_US_MAX, 3).expect("valid bounds"),
            errors: 0,
            closed: 0,
            first_error: None,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let at = |quantile| self.latency_us.value_at_quantile(quantile);
        let buckets: Vec<(u64, u64)> = (self.latency_us.iter_recorded())
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
            .collect();
        serde_json::json!({
            "requests": self.latency_us.len(),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": self.latency_us.max(),
            "errors": self.errors,
            "closed": self.closed,
            "first_error": self.first_error,
            "buckets_us": buckets,
        })
    }
}

fn main() {
    let known = [
        "writers",
        "rate",
        "keys",
        "value-bytes",
        "cluster",
        "addresses",
    ];
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--cluster") {
        words.extend(["--cluster".to_owned(), "no".to_owned()]);
    }
    let flags = Flags::parse(words, &known);
    let addresses: Vec<String> = flags
        .text("addresses")
        .split(',')
        .map(str::to_owned)
        .collect();
    let pace = Duration::from_secs(1) / flags.number("rate").max(1) as u32;
    let (keys, value_bytes) = (flags.number("keys") as u64, flags.number("value-bytes"));
    let is_cluster = flags.text("cluster") == "yes";
    let window = Mutex::new(Window::new());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..flags.number("writers") {
            let (window, is_over, addresses) = (&window, &is_over, &addresses);
            scope.spawn(move || {
                let mut writer = Writer {
                    connections: HashMap::new(),
                    address: addresses[number % addresses.len()].clone(),
                    is_cluster,
                    rng: fastrand::Rng::with_seed(number as u64),
                };
                let mut due = Instant::now();
                while !is_over.load(Ordering::Relaxed) {
                    let request = writer.request(keys, value_bytes);
                    let sent = Instant::now();
                    let outcome = writer.call(&request);
                    note(
                        &mut window.lock().expect("no panic"),
                        sent.elapsed(),
                        outcome,
                    );
                    due += pace;
                    // Behind its pace it does not catch up: that would be another load.
                    due = due.max(Instant::now() - pace);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            let ended = std::mem::replace(&mut *window.lock().expect("no panic"), Window::new());
            println!("{}", ended.to_json());
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// How a request went wrong.
enum Fault {
    /// An error reply.
    Error(String),
    /// The connection was closed or said nothing.
    Closed(String),
}

fn note(window: &mut Window, took: Duration, outcome: Result<(), Fault>) {
    let us = u64::try_from(took.as_micros()).unwrap_or(LATENCY_US_MAX);
    window.latency_us.saturating_record(us.min(LATENCY_US_MAX));
    if let Err(fault) = outcome {
        let what = match fault {
            Fault::Error(what) => {
                window.errors += 1;
                what
            }
            Fault::Closed(what) => {
                window.closed += 1;
                what
            }
        };
        window.first_error.get_or_insert(what);
    }
}

struct Writer {
    connections: HashMap<String, BufReader<TcpStream>>,
    address: String,
    is_cluster: bool,
    rng: fastrand::Rng,
}

impl Writer {
    fn request(&mut self, keys: u64, value_bytes: usize) -> Vec<u8> {
        let number = self.rng.u64(..keys.max(1));
        let value: Vec<u8> = std::iter::repeat_with(|| self.rng.alphanumeric() as u8)
            .take(value_bytes)
            .collect();
        let key = |kind: &str| format!("{kind}:{number:012}").into_bytes();
        match self.rng.u8(..10) {
            0..4 => encode(&[b"SET", &key("key"), &value]),
            4..6 => encode(&[b"INCR", &key("count")]),
            6 => encode(&[b"SETRANGE", &key("text"), b"0", &value]),
            _ => encode(&[b"GET", &key("key")]),
        }
    }

    fn call(&mut self, request: &[u8]) -> Result<(), Fault> {
        let mut asking = false;
        loop {
            let address = self.address.clone();
            let reply = self.exchange(&address, request, asking);
            let error = match reply {
                Ok(None) => return Ok(()),
                Ok(Some(error)) => error,
                Err(error) => {
                    self.connections.remove(&address);
                    return Err(Fault::Closed(format!("{address}: {error}")));
                }
            };
            let mut words = error.split(' ');
            let kind = words.next().unwrap_or_default();
            match (self.is_cluster, kind, words.nth(1)) {
                (true, "MOVED" | "ASK", Some(to)) => {
                    asking = kind == "ASK";
                    self.address = to.to_owned();
                }
                (true, "TRYAGAIN" | "CLUSTERDOWN", _) => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                _ => return Err(Fault::Error(error)),
            }
        }
    }

    /// The error's words, if the reply is one.
    fn exchange(
        &mut self,
        address: &str,
        request: &[u8],
        asking: bool,
    ) -> std::io::Result<Option<String>> {
        if !self.connections.contains_key(address) {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(REPLY_LIMIT))?;
            self.connections
                .insert(address.to_owned(), BufReader::new(stream));
        }
        let connection = self.connections.get_mut(address).expect("just made");
        if asking {
            connection.get_mut().write_all(&encode(&[b"ASKING"]))?;
            read_reply(connection)?;
        }
        connection.get_mut().write_all(request)?;
        read_reply(connection)
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

fn read_reply(from: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let text = line.trim_end();
    if let Some(error) = text.strip_prefix('-') {
        return Ok(Some(error.to_owned()));
    }
    if let Some(length) = text.strip_prefix('$')
        && let Ok(length) = length.parse::<usize>()
    {
        let mut bytes = vec![0; length + 2];
        from.read_exact(&mut bytes)?;
    }
    Ok(None)
}
