//! The load: clients that write what can be accounted for, and log all of it.
//!
//! Each client has a connection to one proxy and a seeded generator of its own: of
//! what it does, not of how threads interleave. It sends pipelines of 1 to 128
//! requests and reads the replies; what has no reply when its connection breaks is
//! of unknown outcome, and it connects again. Two clients for each proxy only pop,
//! blocking, and two only read: a shut gate would soon keep others from reading.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;

use crate::support::client::{Client, Value, encode};

use super::history::{Call, Clock, Key, Kind, Op, Outcome, Seen, TOKEN_CHARS, Token};

/// What the load is like.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Proxies that have clients: the first so many.
    pub proxies: usize,
    /// Clients of each proxy, besides those that pop or read.
    pub clients: usize,
    /// Longest pipeline.
    pub pipeline_max: usize,
    /// Pause between two pipelines of a client, at most.
    pub pause_us_max: u64,
    /// Keys of each kind.
    pub keys: u32,
    /// Volatile keys; the more there are, the longer each is left as it is.
    pub volatile_keys: u32,
    /// Whether commands go from one key to another: of the old layout's servers some
    /// hold both, of the new one's fewer.
    pub spanning: bool,
    /// Longest wait for a reply before its connection is given up.
    pub reply_limit: Duration,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            proxies: usize::MAX,
            clients: 4,
            pipeline_max: 128,
            pause_us_max: 8_000,
            keys: 40,
            volatile_keys: 80,
            spanning: false,
            reply_limit: Duration::from_secs(30),
        }
    }
}

/// Clients of each proxy that only pop.
const POP_CLIENTS: usize = 2;

/// Clients of each proxy that only read.
const READ_CLIENTS: usize = 2;

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Writes,
    Pops,
    Reads,
}

/// BLPOP waits this long at most, in seconds.
const POP_WAIT_S: &str = "0.2";

/// Clients at work.
pub struct Workload {
    clock: Clock,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Op>>>,
}

impl Workload {
    /// Starts clients of the proxies at `addresses`.
    pub fn start(addresses: &[String], options: &LoadOptions, rng: &mut Rng) -> Workload {
        let mut workload = Workload {
            clock: Clock::start(),
            stop: Arc::new(AtomicBool::new(false)),
            done: Arc::new(AtomicU64::new(0)),
            threads: Vec::new(),
        };
        let mut number = 0;
        for address in addresses {
            for at in 0..options.clients + POP_CLIENTS + READ_CLIENTS {
                let worker = Worker {
                    number,
                    address: address.clone(),
                    options: options.clone(),
                    clock: workload.clock,
                    rng: Rng::with_seed(rng.u64(..)),
                    is_zipf: at % 2 == 0,
                    role: match at {
                        at if at < options.clients => Role::Writes,
                        at if at < options.clients + POP_CLIENTS => Role::Pops,
                        _ => Role::Reads,
                    },
                    sequence: 0,
                    own_sets: Vec::new(),
                    ops: Vec::new(),
                };
                number += 1;
                let (stop, done) = (Arc::clone(&workload.stop), Arc::clone(&workload.done));
                let thread = thread::spawn(move || worker.run(&stop, &done));
                workload.threads.push(thread);
            }
        }
        workload
    }

    /// The clock of the history.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Replies so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends all clients: everything they did.
    pub fn finish(self) -> Vec<Op> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(JoinHandle::join);
        ended
            .flat_map(|ops| ops.expect("a client does not panic"))
            .collect()
    }
}

struct Worker {
    number: u32,
    address: String,
    options: LoadOptions,
    clock: Clock,
    rng: Rng,
    is_zipf: bool,
    role: Role,
    sequence: u32,
    /// Tokens that were acknowledged in sets: to ask for.
    own_sets: Vec<(Key, Token)>,
    ops: Vec<Op>,
}

impl Worker {
    fn run(mut self, stop: &AtomicBool, done: &AtomicU64) -> Vec<Op> {
        let mut client = None;
        while !stop.load(Ordering::Relaxed) {
            let Some(connection) = &mut client else {
                client = Client::try_connect(&self.address).ok();
                match &client {
                    Some(client) => client.set_reply_limit(self.options.reply_limit),
                    // The proxy is down: the pace of trying again, not a wait for it.
                    None => thread::sleep(Duration::from_millis(20)),
                }
                continue;
            };
            let batch = self.batch();
            let went_well = self.exchange(connection, &batch, done);
            if went_well.is_err() {
                client = None;
            }
            // The pace of the load.
            let pause = self.rng.u64(..=self.options.pause_us_max);
            thread::sleep(Duration::from_micros(pause));
        }
        self.ops
    }

    /// What goes out in one write.
    fn batch(&mut self) -> Vec<(Key, Call, bool)> {
        match self.role {
            Role::Pops => {
                let mut key = self.key(Kind::Queue);
                // So that the others hold something when the switch comes.
                key.number &= !1;
                return vec![(key, Call::Pop, false)];
            }
            // Few at once: in a pipeline one that waits keeps back those behind it.
            Role::Reads => return (0..self.rng.usize(1..4)).map(|_| self.read()).collect(),
            Role::Writes => {}
        }
        let length = match self.rng.u8(..4) {
            0 => 1,
            1 => self.rng.usize(1..=self.options.pipeline_max),
            _ => self.rng.usize(1..=self.options.pipeline_max.min(16)),
        };
        let mut own_keys = BTreeSet::new();
        let mut batch = Vec::with_capacity(length);
        while batch.len() < length {
            let (key, call) = self.choose();
            // So that its operations on one key never overlap (`expiry.rs`).
            let is_free = key.kind != Kind::Volatile || call == Call::Read || own_keys.insert(key);
            if is_free {
                batch.push((key, call, self.rng.bool()));
            }
        }
        batch
    }

    fn read(&mut self) -> (Key, Call, bool) {
        let (kind, call) = match self.rng.u8(..5) {
            0 => (Kind::List, Call::Count),
            1 => (Kind::Text, Call::Count),
            2 => (Kind::Register, Call::Read),
            3 => (Kind::Volatile, Call::Read),
            _ => (Kind::Counter, Call::Read),
        };
        (self.key(kind), call, false)
    }

    fn choose(&mut self) -> (Key, Call) {
        match self.rng.u8(..100) {
            0..=14 => (self.key(Kind::List), self.push()),
            15..=24 => (self.key(Kind::Text), self.push()),
            25..=34 => (self.key(Kind::Set), self.push()),
            35..=41 => (self.key(Kind::Stream), self.push()),
            42..=44 => (self.key(Kind::List), Call::Count),
            45..=46 => (self.key(Kind::Text), Call::Count),
            47..=49 if !self.own_sets.is_empty() => {
                let (key, token) = self.own_sets[self.rng.usize(..self.own_sets.len())];
                (key, Call::Holds(token))
            }
            47..=61 => (self.key(Kind::Counter), Call::Add { by: 1 }),
            62..=66 => (self.key(Kind::Counter), Call::Add { by: 2 }),
            67..=70 => (self.key(Kind::Counter), Call::Read),
            71..=75 => {
                let token = self.token();
                (self.key(Kind::Register), Call::Write(token))
            }
            76..=81 => (self.key(Kind::Register), Call::Read),
            82..=90 => self.own_volatile(),
            91..=92 => (self.key(Kind::Volatile), Call::Read),
            93..=96 if self.options.spanning => {
                let to = self.key(Kind::Queue).number;
                (self.key(Kind::Queue), Call::Shift { to })
            }
            _ => (self.key(Kind::Queue), self.push()),
        }
    }

    fn token(&mut self) -> Token {
        self.sequence += 1;
        Token {
            client: self.number,
            sequence: self.sequence,
        }
    }

    fn push(&mut self) -> Call {
        Call::Push(self.token())
    }

    fn key(&mut self, kind: Kind) -> Key {
        let keys = match kind {
            // Few operations on each: their order is searched for.
            Kind::Register => self.options.keys * 10,
            Kind::Volatile => self.options.volatile_keys,
            Kind::Queue => self.options.keys.div_ceil(4),
            _ => self.options.keys,
        };
        let number = match self.is_zipf {
            // About 1/rank: the logarithm of the rank is uniform.
            true => (f64::from(keys).powf(self.rng.f64()) - 1.0) as u32,
            false => self.rng.u32(..keys),
        };
        Key {
            kind,
            number: number.min(keys - 1),
        }
    }

    /// A write of one of this client's own volatile keys.
    fn own_volatile(&mut self) -> (Key, Call) {
        // More than there are clients, so that no two have one.
        let writers = 4 * (self.options.clients + POP_CLIENTS + READ_CLIENTS) as u32;
        let keys = self.options.volatile_keys.max(writers);
        let mine = keys.div_ceil(writers);
        let number = self.number % writers + writers * self.rng.u32(..mine);
        let key = Key {
            kind: Kind::Volatile,
            number,
        };
        let call = match self.rng.u8(..10) {
            0..=2 => Call::WriteFor {
                token: self.token(),
                ms: self.rng.u64(50..500),
            },
            3..=5 => Call::WriteFor {
                token: self.token(),
                ms: self.rng.u64(500..6_000),
            },
            6..=7 => Call::Renew {
                ms: self.rng.u64(50..5_000),
            },
            8 => Call::Persist,
            _ => Call::Read,
        };
        (key, call)
    }

    /// Sends a batch and reads its replies; whatever happens, each of it is logged.
    fn exchange(
        &mut self,
        client: &mut Client,
        batch: &[(Key, Call, bool)],
        done: &AtomicU64,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (key, call, variant) in batch {
            encode_call(&mut bytes, key, *call, *variant);
        }
        let invoke_us = self.clock.now_us();
        let mut broken = client.try_send_raw(&bytes).err();
        for (key, call, variant) in batch {
            let outcome = match &broken {
                Some(error) => Outcome::Unknown(error.to_string()),
                None => match read_outcome(client, *call, *variant) {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        let text = error.to_string();
                        broken = Some(error);
                        Outcome::Unknown(text)
                    }
                },
            };
            let return_us = match outcome {
                Outcome::Unknown(_) => u64::MAX,
                _ => self.clock.now_us(),
            };
            if let (Kind::Set, Call::Push(token), Outcome::Done(_)) = (key.kind, call, &outcome) {
                self.own_sets.push((*key, *token));
            }
            done.fetch_add(1, Ordering::Relaxed);
            self.ops.push(Op {
                client: self.number,
                key: *key,
                call: *call,
                invoke_us,
                return_us,
                outcome,
            });
        }
        broken.map_or(Ok(()), Err)
    }
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    encode(out, words);
}

/// Adds twice: in a transaction, or in a script.
const ADD_TWICE: &str = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1])";

fn encode_call(out: &mut Vec<u8>, key: &Key, call: Call, variant: bool) {
    let name = key.to_string();
    match call {
        Call::Add { by: 1 } => command(out, &["INCR", &name]),
        Call::Add { .. } if variant => command(out, &["EVAL", ADD_TWICE, "1", &name]),
        Call::Add { .. } => {
            command(out, &["MULTI"]);
            command(out, &["INCR", &name]);
            command(out, &["INCR", &name]);
            command(out, &["EXEC"]);
        }
        Call::Read => command(out, &["GET", &name]),
        Call::Write(token) => command(out, &["SET", &name, &token.to_string()]),
        Call::Push(token) => {
            let token = token.to_string();
            match key.kind {
                Kind::Text => command(out, &["APPEND", &name, &token]),
                Kind::Set => command(out, &["SADD", &name, &token]),
                Kind::Stream => command(out, &["XADD", &name, "*", "t", &token]),
                _ => command(out, &["RPUSH", &name, &token]),
            }
        }
        Call::Count if key.kind == Kind::Text => command(out, &["STRLEN", &name]),
        Call::Count => command(out, &["LLEN", &name]),
        Call::Holds(token) => command(out, &["SISMEMBER", &name, &token.to_string()]),
        Call::WriteFor { token, ms } => {
            let words = ["SET", &name, &token.to_string(), "PX", &ms.to_string()];
            command(out, &words);
        }
        Call::Renew { ms } => command(out, &["PEXPIRE", &name, &ms.to_string()]),
        Call::Persist => command(out, &["PERSIST", &name]),
        Call::Pop => command(out, &["BLPOP", &name, POP_WAIT_S]),
        Call::Shift { to } => {
            let (kind, number) = (Kind::Queue, to);
            let other = Key { kind, number }.to_string();
            command(out, &["LMOVE", &name, &other, "LEFT", "RIGHT"]);
        }
    }
}

fn read_outcome(client: &mut Client, call: Call, variant: bool) -> io::Result<Outcome> {
    if matches!(call, Call::Add { by: 2 }) && !variant {
        return read_transaction(client);
    }
    let reply = client.try_read()?;
    Ok(outcome(call, &reply))
}

/// +OK, +QUEUED twice, then the array.
fn read_transaction(client: &mut Client) -> io::Result<Outcome> {
    let mut refused = None;
    for _ in 0..3 {
        if let Value::Error(text) = client.try_read()? {
            refused.get_or_insert(text);
        }
    }
    Ok(match (client.try_read()?, refused) {
        (Value::Error(text), _) => failed(&text),
        (Value::Null, _) => Outcome::Refused("EXEC answered nil".into()),
        (Value::Array(items), None) => match items.as_slice() {
            [Value::Int(one), Value::Int(two)] if one + 1 == *two => {
                Outcome::Done(Seen::Number(*two))
            }
            other => Outcome::Done(Seen::Nonsense(format!("EXEC answered {other:?}"))),
        },
        (other, refused) => Outcome::Done(Seen::Nonsense(format!(
            "EXEC answered {other:?} after {refused:?}"
        ))),
    })
}

/// Words of errors that say that nothing ran.
const REFUSALS: [&str; 5] = ["TRYAGAIN", "EXECABORT", "NOPERM", "UNBLOCKED", "CROSSSLOT"];

fn failed(text: &str) -> Outcome {
    match REFUSALS.iter().any(|word| text.starts_with(word)) {
        true => Outcome::Refused(text.to_owned()),
        false => Outcome::Unknown(text.to_owned()),
    }
}

/// What one reply means.
pub fn outcome(call: Call, reply: &Value) -> Outcome {
    let nonsense = || Outcome::Done(Seen::Nonsense(format!("{call:?} answered {reply:?}")));
    let token = |bytes: &[u8]| match Token::parse(bytes) {
        Some(token) => Outcome::Done(Seen::Value(Some(token))),
        None => nonsense(),
    };
    match (call, reply) {
        (_, Value::Error(text)) => failed(text),
        (Call::Read | Call::Pop | Call::Shift { .. }, Value::Null) => {
            Outcome::Done(Seen::Value(None))
        }
        (Call::Read, Value::Bulk(bytes)) => {
            let text = std::str::from_utf8(bytes).ok();
            match text.and_then(|text| text.parse::<i64>().ok()) {
                Some(number) => Outcome::Done(Seen::Number(number)),
                None => token(bytes),
            }
        }
        (Call::Shift { .. }, Value::Bulk(bytes)) => token(bytes),
        (Call::Pop, Value::Array(items)) => match items.as_slice() {
            [_, Value::Bulk(bytes)] => token(bytes),
            _ => nonsense(),
        },
        (Call::Write(_) | Call::WriteFor { .. }, Value::Simple(_)) => Outcome::Done(Seen::Fine),
        (Call::Push(_), Value::Bulk(id)) => match parse_id(id) {
            Some((ms, sequence)) => Outcome::Done(Seen::Id(ms, sequence)),
            None => nonsense(),
        },
        (_, Value::Int(number)) => Outcome::Done(Seen::Number(*number)),
        _ => nonsense(),
    }
}

fn parse_id(id: &[u8]) -> Option<(u64, u64)> {
    let (ms, sequence) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some((ms.parse().ok()?, sequence.parse().ok()?))
}

/// Whether the number that is answered is the token's place, in characters or items.
pub fn in_places(ops: &mut [Op]) {
    for op in ops {
        if op.key.kind == Kind::Counter && op.outcome == Outcome::Done(Seen::Value(None)) {
            op.outcome = Outcome::Done(Seen::Number(0));
        }
        let Outcome::Done(Seen::Number(number)) = &mut op.outcome else {
            continue;
        };
        match (op.key.kind, op.call) {
            (Kind::Text, Call::Push(_) | Call::Count) => *number /= TOKEN_CHARS as i64,
            // 1: it was new. Not a place.
            (Kind::Set, Call::Push(_)) => op.outcome = Outcome::Done(Seen::Fine),
            // Of a queue the length when it came: not its place either.
            (Kind::Queue, Call::Push(_)) => op.outcome = Outcome::Done(Seen::Fine),
            _ => {}
        }
    }
}
