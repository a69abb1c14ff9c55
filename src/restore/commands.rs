//! A value as commands, under a temporary name.
//!
//! ```text
//! element -> chunk -> RPUSH tmp e e e ..     at most CHUNK_BYTES and CHUNK_ELEMENTS
//! string  -> SET tmp .. | APPEND tmp .. | APPEND tmp ..
//! hash    -> HSET tmp f v .. | HPEXPIREAT tmp ms FIELDS n f ..
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

/// What makes a value impossible to build on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbuildable {
    /// Only RESTORE makes values of modules.
    #[error("no command but RESTORE makes a module's value")]
    Module,
    /// Streams came with Redis 5.0.
    #[error("the server has no streams")]
    NoStreams,
    /// A field expires and HPEXPIREAT is unknown.
    #[error("a field of the hash expires, and the server has no expiry of fields")]
    FieldExpiry,
}

/// Builds one value.
#[derive(Debug)]
pub(super) struct Builder {
    dialect: Dialect,
    temporary: Vec<u8>,
    chunk: Chunk,
    stream: StreamProgress,
    /// Something was created under the temporary name.
    begun: bool,
    fields_expire: bool,
    lost: Lost,
    unbuildable: Option<Unbuildable>,
}

impl Builder {
    /// Whether values of this type can be built there at all.
    pub(super) fn check(dialect: &Dialect, type_id: ValueType) -> Result<(), Unbuildable> {
        match type_id.kind() {
            ValueKind::Module => Err(Unbuildable::Module),
            ValueKind::Stream if !dialect.streams => Err(Unbuildable::NoStreams),
            _ => Ok(()),
        }
    }

    pub(super) fn new(dialect: Dialect, temporary: Vec<u8>) -> Builder {
        Builder {
            dialect,
            temporary,
            chunk: Chunk::default(),
            stream: StreamProgress::default(),
            begun: false,
            fields_expire: false,
            lost: Lost::default(),
            unbuildable: None,
        }
    }

    /// Clears the temporary name: an earlier run may have left it behind.
    pub(super) fn begin(&self, requests: &mut Requests<'_>) {
        requests.command(&[b"DEL", &self.temporary]);
    }

    pub(super) fn element(&mut self, requests: &mut Requests<'_>, element: Element<'_>) {
        if self.unbuildable.is_some() {
            return;
        }
        match element {
            Element::String(bytes) => self.string(requests, bytes),
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
            Element::Module(_) => self.unbuildable = Some(Unbuildable::Module),
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

    /// Why what was built so far can never be whole.
    pub(super) fn unbuildable(&self) -> Option<Unbuildable> {
        self.unbuildable
    }

    /// Gives what was built its name. `None`: the value had no elements, so
    /// nothing was built.
    pub(super) fn finish(
        mut self,
        requests: &mut Requests<'_>,
        key: &[u8],
        expires_at_ms: Option<i64>,
        overwrite: Overwrite,
    ) -> Option<Lost> {
        self.flush(requests);
        if !self.begun {
            return None;
        }
        name(
            requests,
            &self.temporary,
            key,
            expires_at_ms,
            overwrite,
            self.fields_expire,
        );
        Some(self.lost)
    }

    fn lose(&mut self, loss: Loss) {
        self.lost.add(loss);
    }
}

/// Renames what is whole under `temporary` to `key`.
///
/// An expiry that passes in between would make the rename fail with the old
/// value left in place. So where the key may be overwritten its expiry is set
/// behind the rename, and fields that may all have expired are met by a DEL
/// before it. Where it may not, the expiry must come before: behind a refused
/// RENAMENX it would hit the other key.
pub(super) fn name(
    requests: &mut Requests<'_>,
    temporary: &[u8],
    key: &[u8],
    expires_at_ms: Option<i64>,
    overwrite: Overwrite,
    fields_expire: bool,
) {
    // A time before 1970 has passed as much as its first millisecond has.
    let at_ms = expires_at_ms.map(|at| at.max(1).to_string());
    match overwrite {
        Overwrite::Never => {
            if let Some(at_ms) = &at_ms {
                requests.command(&[b"PEXPIREAT", temporary, at_ms.as_bytes()]);
            }
            let reply = if fields_expire || at_ms.is_some() {
                Reply::UnoccupiedOrExpired
            } else {
                Reply::Unoccupied
            };
            requests.judged(&[b"RENAMENX", temporary, key], reply);
            // Refused, it would stay for ever.
            requests.command(&[b"DEL", temporary]);
        }
        Overwrite::Always => {
            let mut reply = Reply::Accepted;
            if fields_expire {
                requests.command(&[b"DEL", key]);
                reply = Reply::AcceptedOrExpired;
            }
            requests.judged(&[b"RENAME", temporary, key], reply);
            if let Some(at_ms) = &at_ms {
                requests.command(&[b"PEXPIREAT", key, at_ms.as_bytes()]);
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
