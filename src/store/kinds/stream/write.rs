//! A stream as an RDB has it: type 15, which Redis 5 and later read, if that says all there
//! is to say, else type 19, which Redis 7.0 and later read.
//!
//! ```text
//! nodes: n, n x (master id, listpack) | length | last id
//! | 19: first id, largest deleted id, entries added
//! groups: n, n x (name, last id, [19: entries read],
//!   pending:   n, n x (id 16, delivered at 8 LE, times)
//!   consumers: n, n x (name, seen at 8 LE, n x id 16))
//! ```
//! Type 15 leaves it to the loader to reckon how many entries were ever added, and read.
//!
//! Invariant: as many of each are written as the counts say, or it is an error.

use crate::rdb::{NodeFill, NodeWriter, StreamId, ValueType, write_length, write_string};
use crate::store::format::object::StreamValue;
use crate::store::kinds::source::RowSource;
use crate::store::rows::StoreError;

use super::{Entry, Group, counters, group, range};

/// Takes away what was written, if that has become long.
pub type Full<'a, E> = dyn FnMut(&mut Vec<u8>) -> Result<(), E> + 'a;

/// What RDBs have in place of a count that nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// The oldest type that says all there is to say.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn type_of(rows: &impl RowSource, stream: &StreamValue) -> Result<ValueType, StoreError> {
    let is_whole = stream.added == stream.entries && stream.max_deleted == StreamId::MIN;
    if !is_whole {
        return Ok(ValueType::StreamListpacks2);
    }
    let groups = group::groups(rows, stream)?;
    // Where a group does not know what it has read, as XGROUP CREATE leaves it, what the loader
    // reckons is true: entries were only added.
    let is_reckoned = |group: &Group| {
        group.entries_read.is_none() || group.entries_read == counters::place(stream, group.last)
    };
    Ok(match groups.iter().all(is_reckoned) {
        true => ValueType::StreamListpacks,
        false => ValueType::StreamListpacks2,
    })
}

/// Writes the value as [`type_of`] says it is.
///
/// # Errors
/// What `full` says; [`StoreError`] of the engine, or of rows that are not what the
/// object says.
pub fn write<E: From<StoreError>>(
    rows: &impl RowSource,
    stream: &StreamValue,
    out: &mut Vec<u8>,
    full: &mut Full<'_, E>,
) -> Result<(), E> {
    let has_counters = type_of(rows, stream)? == ValueType::StreamListpacks2;
    write_nodes(rows, stream, out, full)?;
    write_length(out, stream.entries);
    write_id(out, stream.last);
    if has_counters {
        write_id(out, stream.first);
        write_id(out, stream.max_deleted);
        write_length(out, stream.added);
    }
    let groups = group::groups(rows, stream)?;
    checked(stream, groups.len() as u64, stream.groups, "groups")?;
    write_length(out, stream.groups);
    for group in &groups {
        write_string(out, &group.name);
        write_id(out, group.last);
        if has_counters {
            write_length(out, group.entries_read.unwrap_or(UNKNOWN));
        }
        write_group(rows, stream, group, out, full)?;
    }
    Ok(())
}

fn write_id(out: &mut Vec<u8>, id: StreamId) {
    write_length(out, id.ms);
    write_length(out, id.seq);
}

fn bytes_of(entry: &Entry) -> usize {
    entry.fields.as_bytes().len()
}

/// Twice through all entries: how many nodes there are stands before the first one.
fn write_nodes<E: From<StoreError>>(
    rows: &impl RowSource,
    stream: &StreamValue,
    out: &mut Vec<u8>,
    full: &mut Full<'_, E>,
) -> Result<(), E> {
    let all = || range(rows, stream, StreamId::MIN, StreamId::MAX);
    let (mut fill, mut nodes, mut entries) = (NodeFill::default(), 0, 0);
    for entry in all()? {
        nodes += u64::from(fill.begins(bytes_of(&entry?)));
        entries += 1;
    }
    checked(stream, entries, stream.entries, "entries")?;
    write_length(out, nodes);
    let (mut fill, mut node) = (NodeFill::default(), None::<NodeWriter>);
    for entry in all()? {
        let entry = entry?;
        let Entry { id, fields } = &entry;
        if fill.begins(bytes_of(&entry)) {
            if let Some(node) = node.take() {
                node.finish(out);
                full(out)?;
            }
            node = Some(NodeWriter::new(*id, fields.iter().step_by(2)));
        }
        if let Some(node) = &mut node {
            node.push(*id, fields.iter());
        }
    }
    if let Some(node) = node {
        node.finish(out);
        full(out)?;
    }
    Ok(())
}

fn write_group<E: From<StoreError>>(
    rows: &impl RowSource,
    stream: &StreamValue,
    group: &Group,
    out: &mut Vec<u8>,
    full: &mut Full<'_, E>,
) -> Result<(), E> {
    write_length(out, group.pending);
    let mut written = 0;
    for pending in group::pending_between(rows, stream, group, StreamId::MIN, StreamId::MAX)? {
        let pending = pending?;
        out.extend_from_slice(&pending.id.to_bytes());
        out.extend_from_slice(&pending.delivered_ms.to_le_bytes());
        write_length(out, pending.times);
        written += 1;
        full(out)?;
    }
    checked(stream, written, group.pending, "pending entries")?;
    let consumers = group::consumers(rows, stream, group)?;
    checked(stream, consumers.len() as u64, group.consumers, "consumers")?;
    write_length(out, group.consumers);
    for consumer in &consumers {
        write_string(out, &consumer.name);
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        write_length(out, consumer.pending);
        let (from, to) = (StreamId::MIN, StreamId::MAX);
        let mut written = 0;
        for id in group::owned_between(rows, stream, group, consumer, from, to)? {
            out.extend_from_slice(&id?.to_bytes());
            written += 1;
            full(out)?;
        }
        checked(stream, written, consumer.pending, "entries of a consumer")?;
    }
    Ok(())
}

fn checked(stream: &StreamValue, found: u64, told: u64, of: &str) -> Result<(), StoreError> {
    match found == told {
        true => Ok(()),
        false => Err(StoreError::BadRow {
            row: format!(
                "of stream {}, which has {found} {of} and should have {told}",
                stream.id.0
            ),
        }),
    }
}
