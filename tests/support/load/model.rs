//! The model of one writer's keys: makes requests and foresees their replies.
//!
//! Invariant: once the replies of a pipeline were checked, `entries` is what
//! the server holds. In between it is ahead, except for keys in `blind`, whose
//! reply decides what they hold (SPOP): they are left alone until it came.

use std::collections::{BTreeSet, HashMap, HashSet};

use fastrand::Rng;

use super::super::client::Value;
use super::super::contents::{Args, Contents, Entry, Expiry, args};

mod elements;
mod streams;
mod strings;

/// TTLs are at least this long: nothing expires during a test.
const TTL_SECONDS_MIN: i64 = 100_000;

/// How far a TTL may be from what the model says: a request may have waited.
const TTL_TOLERANCE_SECONDS: i64 = 10;

/// One request and what must come back.
pub struct Step {
    /// The request.
    pub args: Args,
    expected: Expected,
}

enum Expected {
    /// Exactly this.
    Is(Value),
    /// A TTL of about this many seconds.
    About(i64),
    /// An array of these bulk strings in any order.
    Unordered(BTreeSet<Vec<u8>>),
    /// SPOP: any member of the set at this key, which then goes.
    PopOf(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Counter,
    Text,
    List,
    Hash,
    Set,
    Sorted,
    Stream,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Counter, "counter"),
    (Kind::Text, "text"),
    (Kind::List, "list"),
    (Kind::Hash, "hash"),
    (Kind::Set, "set"),
    (Kind::Sorted, "zset"),
    (Kind::Stream, "stream"),
];

/// What one writer's keys hold.
pub struct Model {
    rng: Rng,
    prefix: String,
    keys_per_kind: usize,
    groups: bool,
    entries: HashMap<Vec<u8>, Entry>,
    blind: HashSet<Vec<u8>>,
}

impl Model {
    /// A model of keys that do not exist yet.
    pub fn new(seed: u64, prefix: &str, keys_per_kind: usize) -> Model {
        Model {
            rng: Rng::with_seed(seed),
            prefix: prefix.to_owned(),
            keys_per_kind,
            groups: false,
            entries: HashMap::new(),
            blind: HashSet::new(),
        }
    }

    /// Whether consumer groups are used.
    pub fn use_groups(&mut self, yes: bool) {
        self.groups = yes;
    }

    /// What every existing key holds.
    pub fn into_entries(self) -> impl Iterator<Item = (Vec<u8>, Entry)> {
        self.entries.into_iter()
    }

    /// From 1 to `most` requests. All of them must be sent, and their replies
    /// checked, before the next call.
    pub fn next_pipeline(&mut self, most: usize) -> Vec<Step> {
        assert!(self.blind.is_empty(), "every reply was checked");
        let count = self.rng.usize(1..=most);
        (0..count).map(|_| self.next_step()).collect()
    }

    fn next_step(&mut self) -> Step {
        match self.rng.u32(..100) {
            0..6 => self.several_keys(),
            6..13 => self.expiry(),
            _ => {
                let (kind, _) = KINDS[self.rng.usize(..KINDS.len())];
                let key = self.pick(kind);
                match kind {
                    Kind::Counter => self.counter(&key),
                    Kind::Text => self.text(&key),
                    Kind::List => self.list(&key),
                    Kind::Hash => self.hash(&key),
                    Kind::Set => self.set(&key),
                    Kind::Sorted => self.sorted(&key),
                    Kind::Stream => self.stream(&key),
                }
            }
        }
    }

    /// A key of this kind that is not blind.
    fn pick(&mut self, kind: Kind) -> Vec<u8> {
        let (_, name) = KINDS[KINDS.iter().position(|(k, _)| *k == kind).expect("listed")];
        loop {
            let number = self.rng.usize(..self.keys_per_kind);
            let key = format!("{}{name}:{number}", self.prefix).into_bytes();
            if !self.blind.contains(&key) {
                return key;
            }
        }
    }

    fn pick_any(&mut self) -> Vec<u8> {
        let (kind, _) = KINDS[self.rng.usize(..KINDS.len())];
        self.pick(kind)
    }

    fn word(&mut self) -> Vec<u8> {
        let length = self.rng.usize(1..12);
        (0..length).map(|_| self.rng.alphanumeric() as u8).collect()
    }

    /// MSET, MGET, DEL, UNLINK, EXISTS, TOUCH over keys that need not be on one
    /// server.
    fn several_keys(&mut self) -> Step {
        let count = self.rng.usize(1..7);
        let verb = self.rng.u32(..8);
        let keys: BTreeSet<Vec<u8>> = (0..count)
            .map(|_| match verb {
                0..3 => self.pick(Kind::Text),
                3..5 if self.rng.bool() => self.pick(Kind::Counter),
                3..5 => self.pick(Kind::Text),
                _ => self.pick_any(),
            })
            .collect();
        let existing = keys.iter().filter(|key| self.entries.contains_key(*key));
        let existing = existing.count() as i64;
        let command = |verb: &str| {
            let mut command = args(&[verb]);
            command.extend(keys.iter().cloned());
            command
        };
        match verb {
            0..3 => {
                let mut command = args(&["MSET"]);
                for key in keys {
                    let value = self.word();
                    command.extend([key.clone(), value.clone()]);
                    self.entries.insert(key, Entry::of(Contents::Text(value)));
                }
                step(command, Value::ok())
            }
            3..5 => {
                let values = keys.iter().map(|key| self.text_value(key)).collect();
                step(command("MGET"), Value::Array(values))
            }
            5 => {
                let command = command(if self.rng.bool() { "DEL" } else { "UNLINK" });
                self.entries.retain(|key, _| !keys.contains(key));
                step(command, Value::Int(existing))
            }
            6 => step(command("EXISTS"), Value::Int(existing)),
            _ => step(command("TOUCH"), Value::Int(existing)),
        }
    }

    /// EXPIRE, PERSIST, TTL.
    fn expiry(&mut self) -> Step {
        let key = self.pick_any();
        let verb = self.rng.u32(..4);
        let seconds = TTL_SECONDS_MIN + self.rng.i64(0..100_000);
        let entry = self.entries.get_mut(&key);
        match (verb, entry) {
            (0, Some(entry)) => {
                entry.expiry = about(seconds);
                let words = [b"EXPIRE".to_vec(), key, seconds.to_string().into_bytes()];
                step(words.to_vec(), Value::Int(1))
            }
            (0, None) => step(args(&[b"EXPIRE", key.as_slice(), b"100000"]), Value::Int(0)),
            (1, entry) => {
                let had = entry.is_some_and(|entry| {
                    std::mem::replace(&mut entry.expiry, Expiry::Never) != Expiry::Never
                });
                step(args(&[b"PERSIST", key.as_slice()]), Value::Int(had.into()))
            }
            (_, entry) => {
                let command = args(&[b"TTL", key.as_slice()]);
                match entry.map(|entry| entry.expiry) {
                    None => step(command, Value::Int(-2)),
                    Some(Expiry::Never) => step(command, Value::Int(-1)),
                    Some(Expiry::AtMs(at) | Expiry::AboutMs(at)) => Step {
                        args: command,
                        expected: Expected::About((at - super::super::contents::unix_ms()) / 1000),
                    },
                }
            }
        }
    }

    /// Says what is wrong with `reply`, and takes in what only it can tell.
    pub fn check(&mut self, step: &Step, reply: &Value) -> Result<(), String> {
        let right = match &step.expected {
            Expected::Is(value) => value == reply,
            Expected::About(seconds) => {
                matches!(reply, Value::Int(ttl) if (ttl - seconds).abs() <= TTL_TOLERANCE_SECONDS)
            }
            Expected::Unordered(wanted) => {
                matches!(reply, Value::Array(items) if items.len() == wanted.len()
                    && items.iter().all(|item| matches!(item, Value::Bulk(b) if wanted.contains(b))))
            }
            Expected::PopOf(key) => {
                self.blind.remove(key);
                self.take_popped(key, reply)
            }
        };
        if right {
            return Ok(());
        }
        let expected = match &step.expected {
            Expected::Is(value) => format!("{value:?}"),
            Expected::About(seconds) => format!("about {seconds}"),
            Expected::Unordered(items) => format!("{} members", items.len()),
            Expected::PopOf(_) => "a member of the set".to_owned(),
        };
        Err(format!(
            "{} was answered {reply:?} instead of {expected}",
            step.args.join(&b' ').escape_ascii()
        ))
    }

    /// Drops a key that has lost its last element.
    fn drop_empty(&mut self, key: &[u8]) {
        let empty = match self.entries.get(key).map(|entry| &entry.contents) {
            Some(Contents::List(items)) => items.is_empty(),
            Some(Contents::Set(items)) => items.is_empty(),
            Some(Contents::Sorted(items)) => items.is_empty(),
            Some(Contents::Hash(items)) => items.is_empty(),
            _ => false,
        };
        if empty {
            self.entries.remove(key);
        }
    }

    fn delete(&mut self, key: &[u8]) -> Step {
        let had = self.entries.remove(key).is_some();
        step(args(&[b"DEL", key]), Value::Int(had.into()))
    }
}

fn step(args: Args, reply: Value) -> Step {
    Step {
        args,
        expected: Expected::Is(reply),
    }
}

fn about(seconds: i64) -> Expiry {
    Expiry::AboutMs(super::super::contents::unix_ms() + seconds * 1000)
}

fn optional(bytes: Option<Vec<u8>>) -> Value {
    bytes.map_or(Value::Null, Value::Bulk)
}

fn number(value: i64) -> Vec<u8> {
    value.to_string().into_bytes()
}
