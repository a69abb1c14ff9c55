//! What clients did and saw: every operation with the times of its call and its
//! return on one clock, and what came of it.
//!
//! ```text
//!          invoke_us                         return_us
//!  client ----|--------- in flight ------------|----->     Done(value)
//!             |--------- in flight -----------------...    Unknown: may run until the end
//!             |--------- in flight ------------|----->     Refused: never ran
//! ```
//! The operation took effect at one moment between the two, or (unknown) at one
//! after its call, or never.

use std::fmt;
use std::time::Instant;

/// The one clock of a run: microseconds since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Unix time of its start.
    unix_us: u64,
}

impl Clock {
    /// Starts it.
    pub fn start() -> Clock {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Clock {
            start: Instant::now(),
            unix_us: since_1970.expect("the clock is past 1970").as_micros() as u64,
        }
    }

    /// Now.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// As Unix time in milliseconds.
    pub fn unix_ms(&self, at_us: u64) -> u64 {
        (self.unix_us + at_us) / 1_000
    }
}

/// What kind of key it is: the first letters of its name, and what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// INCR, GET, two INCRs in MULTI or EVAL.
    Counter,
    /// SET, GET of values that are written once.
    Register,
    /// RPUSH of tokens, LLEN.
    List,
    /// APPEND of tokens, STRLEN.
    Text,
    /// SADD of tokens, SISMEMBER of own ones.
    Set,
    /// XADD of tokens.
    Stream,
    /// SET PX, PEXPIRE, PERSIST by its owner; GET by all.
    Volatile,
    /// RPUSH of tokens, BLPOP.
    Queue,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 8] = [
        Kind::Counter,
        Kind::Register,
        Kind::List,
        Kind::Text,
        Kind::Set,
        Kind::Stream,
        Kind::Volatile,
        Kind::Queue,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Kind::Counter => "ctr",
            Kind::Register => "reg",
            Kind::List => "lst",
            Kind::Text => "txt",
            Kind::Set => "set",
            Kind::Stream => "xst",
            Kind::Volatile => "vol",
            Kind::Queue => "que",
        }
    }
}

/// A key of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it holds.
    pub kind: Kind,
    /// Which of its kind.
    pub number: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.kind.prefix(), self.number)
    }
}

/// A value that is written once in a run: client and running number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// Whose.
    pub client: u32,
    /// Grows with each token of its client.
    pub sequence: u32,
}

/// How many characters a token has: APPENDed ones are taken apart by it.
pub const TOKEN_CHARS: usize = 12;

impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:03}:{:07};", self.client, self.sequence)
    }
}

impl Token {
    /// Reads what `Display` wrote.
    pub fn parse(bytes: &[u8]) -> Option<Token> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix(';')?;
        let (client, sequence) = text.split_once(':')?;
        Some(Token {
            client: client.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// INCR, or two in a transaction or script (`by` is 2).
    Add {
        /// How much.
        by: i64,
    },
    /// The value: of a counter, a register, a volatile key.
    Read,
    /// SET of a register.
    Write(Token),
    /// RPUSH, APPEND, SADD, XADD.
    Push(Token),
    /// LLEN, STRLEN: how many tokens.
    Count,
    /// Whether a token is in a set.
    Holds(Token),
    /// SET key token PX.
    WriteFor {
        /// The value.
        token: Token,
        /// How long it lives.
        ms: u64,
    },
    /// PEXPIRE.
    Renew {
        /// From now on it lives so long.
        ms: u64,
    },
    /// PERSIST.
    Persist,
    /// BLPOP with a time in seconds.
    Pop,
    /// LMOVE of the first token to the end of another queue.
    Shift {
        /// The other queue's number.
        to: u32,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// OK, or nothing that matters.
    Fine,
    /// An integer; of an XADD nothing.
    Number(i64),
    /// A token, or nothing there.
    Value(Option<Token>),
    /// The id of a stream's entry.
    Id(u64, u64),
    /// Something that no such command may answer.
    Nonsense(String),
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran once.
    Done(Seen),
    /// It did not run.
    Refused(String),
    /// It ran once or not at all.
    Unknown(String),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who.
    pub client: u32,
    /// On what.
    pub key: Key,
    /// What.
    pub call: Call,
    /// Before its first byte was written.
    pub invoke_us: u64,
    /// After its reply was read; of an unknown outcome `u64::MAX`.
    pub return_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Op {
    /// What was answered, if it ran.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.outcome {
            Outcome::Done(seen) => Some(seen),
            _ => None,
        }
    }

    /// Whether nobody knows if it ran.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Op {
            client,
            key,
            call,
            invoke_us,
            return_us,
            outcome,
        } = self;
        let end = match return_us {
            &u64::MAX => "...".to_owned(),
            end => end.to_string(),
        };
        write!(
            out,
            "client {client} {call:?} {key} [{invoke_us}..{end} us] {outcome:?}"
        )
    }
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Who found it.
    pub checker: &'static str,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}] {}", self.checker, self.what)
    }
}

/// Appends a finding.
pub fn find(findings: &mut Vec<Finding>, checker: &'static str, what: impl Into<String>) {
    findings.push(Finding {
        checker,
        what: what.into(),
    });
}
