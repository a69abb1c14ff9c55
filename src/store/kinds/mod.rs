//! Operations on one object of each kind, whether its parts stand in its meta row or in
//! rows of their own. What commands are written in, and what dumps, snapshots and digests
//! walk. They know the keyspace, and nothing of replies.
//!
//! ```text
//! elements   what hashes and sets have in common: walks, scans, draws, spilling into rows
//! fields     the rows of hashes and sets
//! source     rows to be read: of the shard now, or of a snapshot
//! string, hash, set, list, zset, stream  one kind each
//! hll        HyperLogLogs, which are strings
//! build      values of what an RDB has of them, element by element
//! plain      a value in RDB's plain types, for DUMP and snapshots
//! walk       all elements of an object of any kind; copy, digest
//! ```
//! A collection stands in its meta row as long as it is short ([`INLINE_BYTES_MAX`],
//! [`INLINE_ITEMS_MAX`]); then in rows, for good.

pub mod build;
pub mod copy;
pub mod digest;
mod elements;
pub mod fields;
pub mod hash;
pub mod hll;
pub mod list;
pub mod plain;
pub mod set;
pub mod source;
pub mod stream;
pub mod string;
mod walk;
pub mod zset;

pub use elements::{Drawn, Element, Elements, Scanned};
pub use walk::walk;

use crate::store::format::object::Value;

/// Longest packed bytes of a collection in its meta row.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Most elements of one.
pub const INLINE_ITEMS_MAX: usize = 512;

/// What OBJECT ENCODING tells of a value.
pub fn encoding(value: &Value) -> &'static str {
    match value {
        Value::String(of) => string::encoding(of),
        Value::List(_) => "quicklist",
        Value::Hash(of) if of.is_compact => "listpack",
        Value::Set(of) if of.is_compact => "intset",
        Value::Hash(_) | Value::Set(_) => "hashtable",
        Value::Zset(of) if of.is_compact => "listpack",
        Value::Zset(_) => "skiplist",
        Value::Stream(_) => "stream",
    }
}
