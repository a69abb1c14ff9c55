//! A value as commands, under a temporary name.
//!
//! ```text
//! element -> chunk -> RPUSH tmp e e e ..     at most CHUNK_BYTES and CHUNK_ELEMENTS
//! string  -> SET tmp .. | APPEND tmp .. | APPEND tmp ..
//! hash    -> HSET tmp f v .. | HPEXPIREAT tmp ms FIELDS n f ..
//! array   -> ARMSET tmp i v .. | ARSEEK tmp i
//! stream  -> stream.rs
//! ```
//!
//! Invariant: what is held is one chunk, whatever the size of the value.

mod chunk;
mod stream;

use crate::rdb::{Element, Loss, Lost, ValueKind, ValueType};
use crate::resp::write_command;

use super::dialect::{Dialect, FieldExpiry};
use super::reply::Reply;
use super::restorer::{Overwrite, Requests};
use chunk::{Chunk, Verb};
use stream::StreamProgress;

/// Bytes of arguments in one command; one larger element goes alone.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Elements in one command.
pub(super) const CHUNK_ELEMENTS: usize = 512;

/// Bytes of commands that each byte of a value, or of a part of one, may become.
/// The longest of a use: LZF makes 88 of one, two bytes of a packed list make 7.
const EXPANSION_MAX: usize = 1024;
/// And so many more.
const EXPANSION_FREE_BYTES: usize = 8 << 20;
/// How long a value that is not finished stays, from its newest part: a day.
const LEASE_MS: &[u8] = b"86400000";

/// What makes a value impossible to build on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbuildable {
    /// Only RESTORE makes values of modules.
    #[error("no command but RESTORE makes a module's value")]
    Module,
    /// Streams came with Redis 5.0.
    #[error("the server has no streams")]
    NoStreams,
    /// Arrays came with Redis 8.8.
    #[error("the server has no arrays")]
    NoArrays,
    /// Only RESTORE makes rate limiters.
    #[error("no command but RESTORE makes a rate limiter's state")]
    RateLimiter,
    /// A field expires and HPEXPIREAT is unknown.
    #[error("a field of the hash expires, and the server has no expiry of fields")]
    FieldExpiry,
    /// Names that every command says again make a small value endless.
    #[error(
        "its commands would be more than {EXPANSION_MAX} times as long as it is; such a stream \
         repeats names of fields, groups or consumers that are too long for that"
    )]
    Inflated,
}

/// Builds one value.
#[derive(Debug)]
pub(super) struct Builder {
    dialect: Dialect,
    temporary: Vec<u8>,
    chunk: Chunk,
    stream: StreamProgress,
    array_inserted_at: Option<u64>,
    /// Something was created under the temporary name.
    begun: bool,
    fields_expire: bool,
    /// The temporary name has a time to live of its own.
    leased: bool,
    lost: Lost,
    /// Bytes of commands that may still be made of the bytes at hand.
    room: usize,
    unbuildable: Option<Unbuildable>,
}

impl Builder {
    /// Whether values of this type can be built there at all.
    pub(super) fn check(dialect: &Dialect, type_id: ValueType) -> Result<(), Unbuildable> {
        match type_id.kind() {
            ValueKind::Module => Err(Unbuildable::Module),
            ValueKind::RateLimiter => Err(Unbuildable::RateLimiter),
            ValueKind::Stream if !dialect.streams => Err(Unbuildable::NoStreams),
            ValueKind::Array if !dialect.arrays => Err(Unbuildable::NoArrays),
            _ => Ok(()),
        }
    }

    pub(super) fn new(dialect: Dialect, temporary: Vec<u8>) -> Builder {
        Builder {
            dialect,
            temporary,
            chunk: Chunk::default(),
            stream: StreamProgress::default(),
            array_inserted_at: None,
            begun: false,
            fields_expire: false,
            leased: false,
            lost: Lost::default(),
            room: 0,
            unbuildable: None,
        }
    }

    /// Clears the temporary name: an earlier run may have left it behind, and
    /// a value that cannot be finished must go.
    pub(super) fn clear(&self, requests: &mut Requests<'_>) {
        requests.command(&[remover(&self.dialect), &self.temporary]);
    }

    /// What comes next are the elements of so many bytes.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.room = bytes
            .saturating_mul(EXPANSION_MAX)
            .saturating_add(EXPANSION_FREE_BYTES);
    }

    pub(super) fn element(&mut self, requests: &mut Requests<'_>, element: Element<'_>) {
        if self.unbuildable.is_some() {
            return;
        }
        let before = requests.bytes.len();
        self.build(requests, element);
        let grown = requests.bytes.len().saturating_sub(before);
        match self.room.checked_sub(grown) {
            Some(room) => self.room = room,
            None => self.unbuildable = Some(Unbuildable::Inflated),
        }
    }

    fn build(&mut self, requests: &mut Requests<'_>, element: Element<'_>) {
        match element {
            Element::String(bytes) | Element::StringPart(bytes) => self.string(requests, bytes),
            Element::ListItem(item) => self.packed(requests, Verb::Rpush, &[item]),
            Element::SetMember(member) => self.packed(requests, Verb::Sadd, &[member]),
            Element::ScoredMember { member, score } => {
                let score = score_text(score);
                self.packed(requests, Verb::Zadd, &[score.as_bytes(), member]);
            }
            Element::HashField {
                field,
                value,
                expires_at_ms,
            } => self.field(requests, field, value, expires_at_ms),
            Element::ArrayCursor { inserted_at } => self.array_inserted_at = Some(inserted_at),
            Element::ArrayItem { index, value } => {
                let index = index.to_string();
                self.packed(requests, Verb::Armset, &[index.as_bytes(), value]);
            }
            Element::Module(_) => self.unbuildable = Some(Unbuildable::Module),
            Element::RateLimiter(_) => self.unbuildable = Some(Unbuildable::RateLimiter),
            stream_part => self.stream_element(requests, stream_part),
        }
    }

    fn string(&mut self, requests: &mut Requests<'_>, bytes: &[u8]) {
        if !self.begun {
            let first = bytes.get(..CHUNK_BYTES).unwrap_or(bytes);
            requests.command(&[b"SET", &self.temporary, first]);
            self.begun = true;
            return self.string(requests, bytes.get(first.len()..).unwrap_or(&[]));
        }
        for piece in bytes.chunks(CHUNK_BYTES) {
            requests.command(&[b"APPEND", &self.temporary, piece]);
        }
    }

    fn packed(&mut self, requests: &mut Requests<'_>, verb: Verb, args: &[&[u8]]) {
        self.begun = true;
        self.chunk.make_room(args, &self.temporary, requests);
        self.chunk.push(verb, args);
    }

    fn field(
        &mut self,
        requests: &mut Requests<'_>,
        field: &[u8],
        value: &[u8],
        expires_at_ms: Option<i64>,
    ) {
        self.packed(requests, Verb::Hset, &[field, value]);
        let Some(at_ms) = expires_at_ms else { return };
        match self.dialect.field_expiry {
            FieldExpiry::None => self.unbuildable = Some(Unbuildable::FieldExpiry),
            FieldExpiry::Hpexpireat => {
                self.fields_expire = true;
                self.chunk.expire(field, at_ms, &self.temporary);
            }
        }
    }

    /// Ends a run of elements: nothing is held back behind it.
    pub(super) fn flush(&mut self, requests: &mut Requests<'_>) {
        self.chunk.flush(&self.temporary, requests);
    }

    pub(super) fn temporary(&self) -> &[u8] {
        &self.temporary
    }

    /// Gives the temporary name some time to live, again and again while the value
    /// grows: what nobody ends vanishes by itself.
    pub(super) fn lease(&mut self, requests: &mut Requests<'_>) {
        self.leased = true;
        requests.command(&[b"PEXPIRE", &self.temporary, LEASE_MS]);
    }

    /// Why what was built so far can never be whole.
    pub(super) fn unbuildable(&self) -> Option<Unbuildable> {
        self.unbuildable
    }

    /// Gives what was built its name. `None`: the value had no elements, so
    /// nothing was built.
    pub(super) fn finish(
        &mut self,
        requests: &mut Requests<'_>,
        key: &[u8],
        expires_at_ms: Option<i64>,
        overwrite: Overwrite,
    ) -> Option<Lost> {
        self.flush(requests);
        if !self.begun {
            return None;
        }
        if let Some(inserted_at) = self.array_inserted_at {
            let next = inserted_at.saturating_add(1).to_string();
            requests.command(&[b"ARSEEK", &self.temporary, next.as_bytes()]);
        }
        Naming {
            temporary: &self.temporary,
            key,
            expires_at_ms,
            may_be_gone: self.fields_expire,
            leased: self.leased,
        }
        .write(requests, &self.dialect, overwrite);
        Some(self.lost)
    }

    fn lose(&mut self, loss: Loss) {
        self.lost.add(loss);
    }
}

/// What removes a key without stopping the server for as long as that takes.
pub(super) fn remover(dialect: &Dialect) -> &'static [u8] {
    if dialect.unlink { b"UNLINK" } else { b"DEL" }
}

/// Gives what is whole under a temporary name its own.
pub(super) struct Naming<'a> {
    pub(super) temporary: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) expires_at_ms: Option<i64>,
    /// Nothing may be left of it by now: all its fields may have expired.
    pub(super) may_be_gone: bool,
    /// The temporary name has a time to live that is not the key's.
    pub(super) leased: bool,
}

impl Naming<'_> {
    /// Where the key may be overwritten, what it holds is removed first: the
    /// rename would free it on the spot, and fail with it left in place if
    /// everything new has expired. Its expiry is set behind the rename, so that
    /// one that passed ends the new value and not the rename. Where the key must
    /// be kept the expiry comes before: behind a refused RENAMENX it would hit
    /// the other value.
    pub(super) fn write(
        &self,
        requests: &mut Requests<'_>,
        dialect: &Dialect,
        overwrite: Overwrite,
    ) {
        // A time before 1970 has passed as much as its first millisecond has.
        let at_ms = self.expires_at_ms.map(|at| at.max(1).to_string());
        if self.leased && at_ms.is_none() {
            requests.command(&[b"PERSIST", self.temporary]);
        }
        match overwrite {
            Overwrite::Never => {
                let mut reply = Reply::Unoccupied;
                if let Some(at_ms) = &at_ms {
                    requests.command(&[b"PEXPIREAT", self.temporary, at_ms.as_bytes()]);
                }
                if self.may_be_gone || at_ms.is_some() {
                    reply = Reply::UnoccupiedOrExpired;
                }
                requests.judged(&[b"RENAMENX", self.temporary, self.key], reply);
                // Refused, it would stay for ever.
                requests.command(&[remover(dialect), self.temporary]);
            }
            Overwrite::Always => {
                let reply = if self.may_be_gone {
                    Reply::AcceptedOrExpired
                } else {
                    Reply::Accepted
                };
                requests.command(&[remover(dialect), self.key]);
                requests.judged(&[b"RENAME", self.temporary, self.key], reply);
                if let Some(at_ms) = &at_ms {
                    requests.command(&[b"PEXPIREAT", self.key, at_ms.as_bytes()]);
                }
            }
        }
    }
}

impl Requests<'_> {
    /// Appends a request whose reply is fine unless it is an error.
    pub(super) fn command(&mut self, args: &[&[u8]]) {
        self.judged(args, Reply::Accepted);
    }

    pub(super) fn judged(&mut self, args: &[&[u8]], reply: Reply) {
        write_command(self.bytes, args);
        self.replies.push(reply);
    }
}

/// Shortest text that reads back as the same number.
fn score_text(score: f64) -> String {
    const PLAIN: std::ops::Range<f64> = 1e-5..1e17;
    if score == f64::INFINITY {
        "inf".to_owned()
    } else if score == f64::NEG_INFINITY {
        "-inf".to_owned()
    } else if score == 0.0 || PLAIN.contains(&score.abs()) {
        score.to_string()
    } else {
        format!("{score:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_read_back_exactly() {
        for score in [
            0.0,
            -0.0,
            1.0,
            0.1,
            -2.5,
            1e16,
            1e17,
            1e-5,
            9.99e-6,
            3.000_000_000_000_000_4,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ] {
            let text = score_text(score);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), score.to_bits());
            assert!(text.len() <= 25, "{text}");
        }
    }
}
