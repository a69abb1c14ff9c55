//! What a tap hands on. Bytes are refcounted slices of what was read.

use bytes::Bytes;

use crate::rdb::{RawValue, ValueType};
use crate::resp::Span;

/// One event, in the order of the source's history.
#[derive(Clone, Debug, PartialEq)]
pub enum TapEvent {
    /// A full resync: a snapshot of exactly `offset` follows.
    FullResync {
        /// Replication id of the source's history.
        replid: String,
        /// Offset the snapshot stands at; the stream goes on after it.
        offset: u64,
    },
    /// The stream goes on after the resume point.
    Continue {
        /// Replication id from now on; a promoted replica has a new one.
        replid: String,
    },
    /// A pair about the file or the server.
    Aux {
        /// Its name.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Source of one function library.
    Function(Bytes),
    /// A module's data outside any key, without its opcode.
    ModuleAux(Bytes),
    /// One key of the snapshot.
    Snapshot(SnapshotRecord),
    /// One key of the snapshot whose value is too large to be handed on whole:
    /// [`TapEvent::Part`]s of it follow, and nothing else until the last.
    LargeKey(LargeKeyHead),
    /// More of the value of the newest [`TapEvent::LargeKey`]; cut as
    /// [`crate::rdb::ValuePart`] says.
    Part {
        /// Its bytes, never none.
        bytes: Bytes,
        /// Whether the value ends here.
        last: bool,
    },
    /// The snapshot is whole and its checksum and frame are right.
    SnapshotEnd,
    /// One command of the stream.
    Command(StreamCommand),
    /// MULTI: the commands up to [`TapEvent::TransactionEnd`] are one unit.
    TransactionBegin {
        /// Offset after MULTI.
        offset_end: u64,
    },
    /// EXEC: the unit is whole.
    TransactionEnd {
        /// Offset after EXEC.
        offset_end: u64,
        /// The database selected there.
        db: u32,
    },
    /// Everything received was handed on, and what came last (PING, SELECT,
    /// GETACK) has no event of its own. Never inside a transaction.
    Idle {
        /// Offset after it: may be acknowledged once all earlier events are dealt with.
        offset: u64,
        /// The database selected there.
        db: u32,
    },
}

/// A key of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// The database it is in.
    pub db: u32,
    /// Its name.
    pub key: Bytes,
    /// When it expires, Unix time in ms; may be in the past.
    pub expires_at_ms: Option<i64>,
    /// Seconds since it was last used, where the server keeps that.
    pub idle_s: Option<u64>,
    /// Its logarithmic access frequency, where the server keeps that.
    pub freq: Option<u8>,
    /// What modules attached to it: the KEY_META record with its opcode, as a
    /// DUMP payload begins with it.
    pub metadata: Option<Bytes>,
    /// How its value is laid out.
    pub type_id: ValueType,
    /// The value exactly as in the RDB, without the type byte.
    pub value: Bytes,
}

/// A key of the snapshot whose value comes in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeKeyHead {
    /// The database it is in.
    pub db: u32,
    /// Its name.
    pub key: Bytes,
    /// When it expires, Unix time in ms; may be in the past.
    pub expires_at_ms: Option<i64>,
    /// Seconds since it was last used, where the server keeps that.
    pub idle_s: Option<u64>,
    /// Its logarithmic access frequency, where the server keeps that.
    pub freq: Option<u8>,
    /// As [`SnapshotRecord::metadata`].
    pub metadata: Option<Bytes>,
    /// How its value is laid out.
    pub type_id: ValueType,
}

impl SnapshotRecord {
    /// The value as the `rdb` folder takes it.
    #[must_use]
    pub fn raw_value(&self) -> RawValue<'_> {
        RawValue {
            type_id: self.type_id,
            bytes: &self.value,
        }
    }
}

/// A command of the stream: anything but SELECT, PING, MULTI, EXEC and REPLCONF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCommand {
    /// The database it applies to.
    pub db: u32,
    /// Offset after its last byte.
    pub offset_end: u64,
    /// Whether it is part of a MULTI..EXEC unit; only after its end may an
    /// offset be kept as a resume point.
    pub in_transaction: bool,
    /// The command as it was sent: a RESP array of bulk strings.
    pub bytes: Bytes,
    /// Arguments as spans of `bytes`, the name first; never empty.
    pub args: Vec<Span>,
}

impl StreamCommand {
    /// The command's name, as it was sent.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.arg(0)
    }

    /// Argument `i`, 0 being the name; empty if there is none.
    #[must_use]
    pub fn arg(&self, i: usize) -> &[u8] {
        self.args
            .get(i)
            .map(|span| span.of(&self.bytes))
            .unwrap_or_default()
    }

    /// All arguments, the name first.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.args.iter().map(|span| span.of(&self.bytes))
    }
}
