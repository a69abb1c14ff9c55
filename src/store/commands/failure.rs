//! Why a command was not executed: Redis' words, which clients compare.

use std::borrow::Cow;

use crate::store::rows::StoreError;

/// An error reply, or a store that cannot read.
#[derive(Debug)]
pub enum Failure {
    /// What the client is told: its code first.
    Reply(Cow<'static, [u8]>),
    /// The engine or a row of it.
    Store(StoreError),
}

impl Failure {
    /// A command for another kind of value.
    pub const WRONG_TYPE: Failure =
        Failure::words("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// A key that must be there is not.
    pub const NO_SUCH_KEY: Failure = Failure::words("ERR no such key");
    /// Options that do not go together, or are none.
    pub const SYNTAX: Failure = Failure::words("ERR syntax error");
    /// An index that is not there.
    pub const INDEX: Failure = Failure::words("ERR index out of range");
    /// No integer of 64 bits.
    pub const NOT_INTEGER: Failure = Failure::words("ERR value is not an integer or out of range");
    /// No float.
    pub const NOT_FLOAT: Failure = Failure::words("ERR value is not a valid float");
    /// A count that must be positive.
    pub const NOT_POSITIVE: Failure = Failure::words("ERR value is out of range, must be positive");
    /// A sum beyond 64 bits.
    pub const OVERFLOW: Failure = Failure::words("ERR increment or decrement would overflow");
    /// A cursor that is no number.
    pub const CURSOR: Failure = Failure::words("ERR invalid cursor");
    /// A string beyond `proto-max-bulk-len`.
    pub const TOO_LONG: Failure =
        Failure::words("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// A database beyond the last.
    pub const DATABASE: Failure = Failure::words("ERR DB index is out of range");
    /// A key that this store's rows cannot name.
    pub const LONG_KEY: Failure =
        Failure::words("ERR the key is longer than 60000 bytes, which this server does not store");

    /// Fixed words.
    pub const fn words(words: &'static str) -> Failure {
        Failure::Reply(Cow::Borrowed(words.as_bytes()))
    }

    /// Words made for the occasion.
    pub fn text(text: String) -> Failure {
        Failure::Reply(Cow::Owned(text.into_bytes()))
    }

    /// Words around something that a client sent, be it text or not: up to its first zero
    /// byte, as C reads it.
    pub fn quoting(before: &str, told: &[u8], after: &str) -> Failure {
        let told = up_to_zero(told);
        Failure::Reply(Cow::Owned(
            [before.as_bytes(), told, after.as_bytes()].concat(),
        ))
    }

    /// The wrong number of arguments for a command, named in lower case.
    pub fn arity(command: &str) -> Failure {
        Failure::text(format!(
            "ERR wrong number of arguments for '{command}' command"
        ))
    }

    /// A time to live that cannot be.
    pub fn expire_time(command: &str) -> Failure {
        Failure::text(format!("ERR invalid expire time in '{command}' command"))
    }
}

/// What C takes for the whole text.
pub fn up_to_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or(text)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}
