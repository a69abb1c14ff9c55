//! Streams: entries by their ids, and groups of consumers.
//!
//! ```text
//! E | ms 8 | seq 8       field, value, field, value ..       an entry
//! G | part | ..          see `group`                         groups, and what they read
//! ```
//! Invariants
//! - The meta row's first id is that of the first entry, so that nobody walks over what
//!   was trimmed; its count is that of the entries.
//! - No entry has an id behind the last one, also after entries are gone.

mod builder;
mod counters;
mod group;
mod membership;
mod write;

use bytes::Bytes;

use super::source::{RowSource, RowsBetween, bad_row};
use crate::rdb::StreamId;
use crate::store::format::object::StreamValue;
use crate::store::format::packed::Packed;
use crate::store::format::row::{self, RowBuf, kind};
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

pub use builder::Builder;
pub use counters::{count_read, lag};
pub use group::{
    Consumer, Found, Group, Pending, consumer, consumers, group, groups, owned_between, pending,
    pending_between,
};
pub use membership::{Membership, create_group, destroy_group};
pub use write::{type_of, write};

/// An entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its id.
    pub id: StreamId,
    /// Fields and values in turn.
    pub fields: Packed,
}

/// Which entries are let go of, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// All but so many.
    Length(u64),
    /// Those before an id.
    Before(StreamId),
}

/// How exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// To the entry.
    Exact,
    /// By so many at once, as Redis lets go of whole nodes; at most `limit`.
    About {
        /// Entries at once; at least 1.
        by: u64,
        /// Most that go.
        limit: u64,
    },
}

/// A stream without entries.
pub fn empty(keyspace: &mut Keyspace) -> StreamValue {
    StreamValue {
        id: keyspace.new_object_id(),
        entries: 0,
        last: StreamId::MIN,
        first: StreamId::MIN,
        max_deleted: StreamId::MIN,
        added: 0,
        groups: 0,
        numbered: 0,
    }
}

fn entry_row(stream: &StreamValue, id: StreamId) -> RowBuf {
    let mut row = row::sub(stream.id, kind::ENTRY);
    row.extend_from_slice(&id.to_bytes());
    row
}

/// The id that a row's key ends with.
fn id_of_row(key: &[u8]) -> Result<StreamId, StoreError> {
    let id = key.last_chunk::<16>().ok_or_else(|| bad_row(key))?;
    Ok(StreamId::from_bytes(*id))
}

/// Adds an entry, whose id is behind the last one.
pub fn append(rows: &mut Rows, stream: &mut StreamValue, id: StreamId, fields: &Packed) {
    let fields = Bytes::copy_from_slice(fields.as_bytes());
    rows.put(&entry_row(stream, id), fields);
    if stream.entries == 0 {
        stream.first = id;
    }
    (stream.last, stream.entries, stream.added) = (id, stream.entries + 1, stream.added + 1);
}

/// Whether there is an entry of this id.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn has(rows: &impl RowSource, stream: &StreamValue, id: StreamId) -> Result<bool, StoreError> {
    Ok(rows.row(&entry_row(stream, id))?.is_some())
}

/// The entry of an id.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn get(
    rows: &impl RowSource,
    stream: &StreamValue,
    id: StreamId,
) -> Result<Option<Entry>, StoreError> {
    let key = entry_row(stream, id);
    match rows.row(&key)? {
        None => Ok(None),
        Some(value) => {
            let fields = Packed::from_bytes(value).ok_or_else(|| bad_row(&key))?;
            Ok(Some(Entry { id, fields }))
        }
    }
}

/// Entries from one id to another, both included.
pub struct Entries<'a>(Option<RowsBetween<'a>>);

/// Entries from one id to another, both included, from either end.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn range<'a>(
    rows: &'a impl RowSource,
    stream: &StreamValue,
    from: StreamId,
    to: StreamId,
) -> Result<Entries<'a>, StoreError> {
    let (from, to) = (from.max(stream.first), to.min(stream.last));
    if from > to || stream.entries == 0 {
        return Ok(Entries(None));
    }
    let from = entry_row(stream, from);
    let to = match to.next() {
        Some(to) => entry_row(stream, to),
        None => row::sub(stream.id, kind::ENTRY + 1),
    };
    Ok(Entries(Some(rows.rows_between(&from, &to)?)))
}

/// The last entry.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn last_entry(
    rows: &impl RowSource,
    stream: &StreamValue,
) -> Result<Option<Entry>, StoreError> {
    let mut entries = range(rows, stream, StreamId::MIN, StreamId::MAX)?;
    entries.next_back().transpose()
}

fn entry(found: Result<(Bytes, Bytes), StoreError>) -> Result<Entry, StoreError> {
    let (key, value) = found?;
    let fields = Packed::from_bytes(value).ok_or_else(|| bad_row(&key))?;
    Ok(Entry {
        id: id_of_row(&key)?,
        fields,
    })
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.as_mut()?.next().map(entry)
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.as_mut()?.next_back().map(entry)
    }
}

/// Ids of entries from one on, before another one if there is one, at most `max`.
fn ids_between(
    rows: &Rows,
    stream: &StreamValue,
    from: StreamId,
    before: Option<StreamId>,
    max: u64,
) -> Result<Vec<StreamId>, StoreError> {
    let from = entry_row(stream, from);
    let to = match before {
        Some(before) => entry_row(stream, before),
        None => row::sub(stream.id, kind::ENTRY + 1),
    };
    let ids = rows
        .rows_between(&from, &to)?
        .map(|found| id_of_row(&found?.0));
    ids.take(usize::try_from(max).unwrap_or(usize::MAX))
        .collect()
}

/// The id of the first entry behind another one; 0-0 if there is none.
fn first_behind(rows: &Rows, stream: &StreamValue, id: StreamId) -> Result<StreamId, StoreError> {
    match id.next() {
        Some(next) => Ok(ids_between(rows, stream, next, None, 1)?
            .first()
            .copied()
            .unwrap_or_default()),
        None => Ok(StreamId::MIN),
    }
}

/// Deletes an entry by XDEL; false if there is none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn delete(rows: &mut Rows, stream: &mut StreamValue, id: StreamId) -> Result<bool, StoreError> {
    let key = entry_row(stream, id);
    if rows.row(&key)?.is_none() {
        return Ok(false);
    }
    // Nothing may fail once something is changed.
    if id == stream.first {
        stream.first = first_behind(rows, stream, id)?;
    }
    rows.delete(&key);
    stream.entries = stream.entries.saturating_sub(1);
    stream.max_deleted = stream.max_deleted.max(id);
    Ok(true)
}

/// Lets go of the oldest entries: how many.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn trim(
    rows: &mut Rows,
    stream: &mut StreamValue,
    to: Trim,
    measure: Measure,
) -> Result<u64, StoreError> {
    let (by, limit) = match measure {
        Measure::Exact => (1, u64::MAX),
        Measure::About { by, limit } => (by.max(1), limit),
    };
    let whole = |count: u64| {
        if count < stream.entries {
            count - count % by
        } else {
            count
        }
    };
    let (max, before) = match to {
        Trim::Length(len) => (whole(stream.entries.saturating_sub(len).min(limit)), None),
        Trim::Before(id) => (stream.entries.min(limit), Some(id)),
    };
    if max == 0 || before.is_some_and(|before| stream.first >= before) {
        return Ok(0);
    }
    let mut ids = ids_between(rows, stream, stream.first, before, max)?;
    ids.truncate(usize::try_from(whole(ids.len() as u64)).unwrap_or(usize::MAX));
    let Some(last) = ids.last() else {
        return Ok(0);
    };
    // Nothing may fail once something is changed.
    stream.first = first_behind(rows, stream, *last)?;
    for id in &ids {
        rows.delete(&entry_row(stream, *id));
    }
    stream.entries = stream.entries.saturating_sub(ids.len() as u64);
    Ok(ids.len() as u64)
}

#[cfg(test)]
mod tests;
