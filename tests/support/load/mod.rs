//! Checked writers: each owns its keys, so it knows the one right reply to
//! every request, and at the end what every key must hold.
//!
//! ```text
//!   writer thread:  Model --makes--> 1..=64 steps --pipeline--> server
//!                     ^                 | expected replies         |
//!                     `---- compare <---'<------- replies ---------'
//! ```
//!
//! The model runs ahead of the server by at most one pipeline. A broken
//! connection ends the writer and counts as an error: what the server has done
//! of the last pipeline is then not known.

mod model;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Client, encode};
use super::contents::Entry;

pub use model::Model;

/// How many wrong replies are kept to be shown.
const SAMPLES_MAX: usize = 5;

/// What the writers do.
#[derive(Clone)]
pub struct LoadConfig {
    /// Where they connect.
    pub address: String,
    /// How many threads, each with one connection.
    pub writers: usize,
    /// Keys of each of the seven kinds, for each writer.
    pub keys_per_kind: usize,
    /// Requests in one pipeline: a random number from 1 to this.
    pub pipeline_max: usize,
    /// What every key's name begins with.
    pub prefix: String,
    /// Seed of all that is random.
    pub seed: u64,
    /// Requests a second for each writer, at most.
    pub rate: Option<u32>,
    /// The database they select.
    pub database: u32,
    /// Consumer groups as well: XGROUP, XREADGROUP, XACK.
    pub groups: bool,
}

impl LoadConfig {
    /// Four writers with keys that begin with `load:`.
    pub fn new(address: &str, seed: u64) -> LoadConfig {
        LoadConfig {
            address: address.to_owned(),
            writers: 4,
            keys_per_kind: 100,
            pipeline_max: 64,
            prefix: "load:".into(),
            seed,
            rate: None,
            database: 0,
            groups: true,
        }
    }
}

/// What came back, over all writers.
#[derive(Default)]
pub struct Totals {
    /// Replies that were as the model said.
    pub right: u64,
    /// Replies that were not.
    pub wrong: u64,
    /// Error replies (also counted as wrong) and broken connections.
    pub errors: u64,
    /// The longest wait for a reply, from when its pipeline was sent.
    pub wait_max: Duration,
    /// Waits of all pipelines, in microseconds, unordered.
    pub waits_us: Vec<u32>,
    /// The first few faults.
    pub samples: Vec<String>,
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.errors += other.errors;
        self.wait_max = self.wait_max.max(other.wait_max);
        self.waits_us.extend(other.waits_us);
        self.samples.extend(other.samples);
    }

    /// The wait that `per_mille` of the pipelines did not exceed.
    pub fn wait_us(&self, per_mille: usize) -> u32 {
        let mut sorted = self.waits_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or(0)
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} right replies, {} wrong replies, {} errors; wait for a pipeline: \
             p50 {} us, p99 {} us, p99.9 {} us, max {} us",
            self.right,
            self.wrong,
            self.errors,
            self.wait_us(500),
            self.wait_us(990),
            self.wait_us(999),
            self.wait_max.as_micros()
        )?;
        for sample in self.samples.iter().take(SAMPLES_MAX) {
            write!(out, "\n  {sample}")?;
        }
        Ok(())
    }
}

/// Running writers.
pub struct Load {
    stop: Arc<AtomicBool>,
    replies: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
    threads: Vec<JoinHandle<(Totals, Model)>>,
}

/// What the writers leave behind.
pub struct Outcome {
    /// Counts and waits.
    pub totals: Totals,
    /// What every key of theirs must hold now; absent keys must not exist.
    pub entries: Vec<(Vec<u8>, Entry)>,
}

impl Load {
    /// Starts the writers.
    pub fn start(config: &LoadConfig) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            replies: Arc::default(),
            faults: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..config.writers {
            let writer = Writer {
                config: config.clone(),
                stop: load.stop.clone(),
                replies: load.replies.clone(),
                faults: load.faults.clone(),
                totals: Totals::default(),
            };
            let thread = std::thread::Builder::new().name(format!("writer-{number}"));
            load.threads.push(
                thread
                    .spawn(move || writer.run(number))
                    .expect("a thread for a writer"),
            );
        }
        load
    }

    /// Replies so far.
    pub fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    /// Wrong replies and errors so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// True when a writer has given up: its connection broke.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops the writers at the end of their pipelines.
    pub fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome = Outcome {
            totals: Totals::default(),
            entries: Vec::new(),
        };
        for thread in self.threads {
            let (totals, model) = thread.join().expect("a writer does not panic");
            outcome.totals.add(totals);
            outcome.entries.extend(model.into_entries());
        }
        outcome
    }
}

struct Writer {
    config: LoadConfig,
    stop: Arc<AtomicBool>,
    replies: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
    totals: Totals,
}

impl Writer {
    fn run(mut self, number: usize) -> (Totals, Model) {
        let seed = self.config.seed.wrapping_add(number as u64);
        let prefix = format!("{}{number}:", self.config.prefix);
        let mut model = Model::new(seed, &prefix, self.config.keys_per_kind);
        model.use_groups(self.config.groups);
        let outcome = self.write_until_stopped(&mut model);
        if let Err(err) = outcome {
            self.fault(format!("writer {number}: {err}"));
            self.totals.errors += 1;
        }
        (self.totals, model)
    }

    fn write_until_stopped(&mut self, model: &mut Model) -> io::Result<()> {
        let mut client = Client::try_connect(&self.config.address)?;
        if self.config.database != 0 {
            let reply = client.try_call(&["SELECT", &self.config.database.to_string()])?;
            if reply.is_error() {
                return Err(io::Error::other(format!("SELECT was answered {reply:?}")));
            }
        }
        let start = Instant::now();
        let mut sent = 0_u64;
        let mut bytes = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let steps = model.next_pipeline(self.config.pipeline_max);
            bytes.clear();
            for step in &steps {
                encode(&mut bytes, &step.args);
            }
            let began = Instant::now();
            client.try_send_raw(&bytes)?;
            for step in &steps {
                let reply = client.try_read()?;
                match model.check(step, &reply) {
                    Ok(()) => self.totals.right += 1,
                    Err(text) => {
                        self.totals.wrong += 1;
                        self.totals.errors += u64::from(reply.is_error());
                        self.fault(text);
                    }
                }
            }
            let wait = began.elapsed();
            self.totals.wait_max = self.totals.wait_max.max(wait);
            self.totals
                .waits_us
                .push(u32::try_from(wait.as_micros()).unwrap_or(u32::MAX));
            sent += steps.len() as u64;
            self.replies
                .fetch_add(steps.len() as u64, Ordering::Relaxed);
            if let Some(rate) = self.config.rate {
                let due = Duration::from_secs_f64(sent as f64 / f64::from(rate));
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
        Ok(())
    }

    fn fault(&mut self, text: String) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        if self.totals.samples.len() < SAMPLES_MAX {
            self.totals.samples.push(text);
        }
    }
}
