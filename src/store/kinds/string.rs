//! Strings: whole in the object, or in rows of one chunk each.
//!
//! ```text
//! ..= 64 KiB   the object
//! longer       rows S | id | C | number: bytes number * 16 KiB .. of the string
//! ```
//! A chunk that is not there, or ends early, is zeros from there on: SETBIT far behind the
//! end writes one row. Once in chunks, a string stays so until it is set anew.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::source::RowSource;
use crate::store::format::numbers;
use crate::store::format::object::{StringStored, StringValue, WHOLE_BYTES_MAX, Written};
use crate::store::format::row::{self, ObjectId};
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

/// Bytes of a chunk, but the last.
const CHUNK_BYTES: usize = 16 * 1024;

/// Longer ones are raw.
const EMBSTR_BYTES_MAX: u64 = 44;

static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// A string as it was given.
pub fn store(keyspace: &mut Keyspace, bytes: &[u8], written: Written) -> StringValue {
    let stored = match bytes.len() as u64 {
        ..=WHOLE_BYTES_MAX => StringStored::Whole(Bytes::copy_from_slice(bytes)),
        len => {
            let id = keyspace.new_object_id();
            for (number, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
                let chunk = Bytes::copy_from_slice(chunk);
                keyspace.rows().put(&row::chunk(id, number), chunk);
            }
            StringStored::Chunks { id, len }
        }
    };
    StringValue { stored, written }
}

/// All bytes.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn read_all(rows: &Rows, string: &StringValue) -> Result<Bytes, StoreError> {
    read(rows, string, 0, string.len())
}

/// The bytes `from..to`, as far as there are.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn read(rows: &Rows, string: &StringValue, from: u64, to: u64) -> Result<Bytes, StoreError> {
    let to = to.min(string.len());
    let from = from.min(to);
    if let StringStored::Whole(bytes) = &string.stored {
        return Ok(bytes.slice(from as usize..to as usize));
    }
    let mut all = Vec::with_capacity((to - from) as usize);
    visit(rows, string, from, to, &mut |piece| {
        all.extend_from_slice(piece);
        ControlFlow::Continue(())
    })?;
    Ok(Bytes::from(all))
}

/// Hands over the bytes `from..to`, as far as there are, piece by piece.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn visit(
    rows: &impl RowSource,
    string: &StringValue,
    from: u64,
    to: u64,
    each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let to = to.min(string.len());
    if from >= to {
        return Ok(());
    }
    let id = match &string.stored {
        StringStored::Whole(bytes) => {
            let _ = each(bytes.get(from as usize..to as usize).unwrap_or(&[]));
            return Ok(());
        }
        StringStored::Chunks { id, .. } => *id,
    };
    let mut at = from;
    while at < to {
        let (number, start) = place_of(at);
        let end = CHUNK_BYTES.min(start + (to - at) as usize);
        let chunk = rows.row(&row::chunk(id, number))?.unwrap_or_default();
        let known = chunk.get(start..end.min(chunk.len())).unwrap_or(&[]);
        let zeros = ZEROS.get(..end - start - known.len()).unwrap_or(&[]);
        for piece in [known, zeros] {
            if !piece.is_empty() && each(piece).is_break() {
                return Ok(());
            }
        }
        at += (end - start) as u64;
    }
    Ok(())
}

/// Writes bytes at a place, and zeros between the end and it. The string, whose encoding
/// is raw from now on.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn write(
    keyspace: &mut Keyspace,
    string: &StringValue,
    at: u64,
    bytes: &[u8],
) -> Result<StringValue, StoreError> {
    let end = at + bytes.len() as u64;
    let len = string.len().max(end);
    let stored = match &string.stored {
        StringStored::Whole(old) if len <= WHOLE_BYTES_MAX => {
            let mut new = Vec::with_capacity(len as usize);
            new.extend_from_slice(old);
            new.resize(len as usize, 0);
            if let Some(place) = new.get_mut(at as usize..end as usize) {
                place.copy_from_slice(bytes);
            }
            StringStored::Whole(Bytes::from(new))
        }
        StringStored::Whole(old) => {
            let id = keyspace.new_object_id();
            write_chunks(keyspace.rows(), id, 0, old)?;
            write_chunks(keyspace.rows(), id, at, bytes)?;
            StringStored::Chunks { id, len }
        }
        StringStored::Chunks { id, .. } => {
            write_chunks(keyspace.rows(), *id, at, bytes)?;
            StringStored::Chunks { id: *id, len }
        }
    };
    Ok(StringValue {
        stored,
        written: Written::Pieces,
    })
}

fn write_chunks(rows: &mut Rows, id: ObjectId, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let (number, start) = place_of(at);
    let first_len = bytes.len().min(CHUNK_BYTES - start);
    let (first, others) = bytes.split_at(first_len);
    // What is read first is all that may fail: the last chunk is read before any is written.
    let mut changed = Vec::with_capacity(2 + others.len() / CHUNK_BYTES);
    let pieces = std::iter::once(first).chain(others.chunks(CHUNK_BYTES));
    for (number, piece) in (number..).zip(pieces) {
        let start = if changed.is_empty() { start } else { 0 };
        let key = row::chunk(id, number);
        if piece.len() == CHUNK_BYTES {
            changed.push((key, Bytes::copy_from_slice(piece)));
            continue;
        }
        let old = rows.get(&key)?.unwrap_or_default();
        let end = start + piece.len();
        let mut chunk = Vec::with_capacity(end.max(old.len()));
        chunk.extend_from_slice(&old);
        chunk.resize(end.max(old.len()), 0);
        if let Some(place) = chunk.get_mut(start..end) {
            place.copy_from_slice(piece);
        }
        changed.push((key, Bytes::from(chunk)));
    }
    for (key, chunk) in changed {
        rows.put(&key, chunk);
    }
    Ok(())
}

/// Number of a byte's chunk, and where it is in there.
fn place_of(at: u64) -> (u32, usize) {
    let chunk = CHUNK_BYTES as u64;
    (
        u32::try_from(at / chunk).unwrap_or(u32::MAX),
        (at % chunk) as usize,
    )
}

/// The integer that a string is told to be: its encoding is int.
pub fn as_int(string: &StringValue) -> Option<i64> {
    match (&string.stored, string.written) {
        (StringStored::Whole(bytes), Written::Whole) => numbers::parse_integer(bytes),
        _ => None,
    }
}

/// What OBJECT ENCODING tells.
pub fn encoding(string: &StringValue) -> &'static str {
    if as_int(string).is_some() {
        "int"
    } else if string.written != Written::Pieces && string.len() <= EMBSTR_BYTES_MAX {
        "embstr"
    } else {
        "raw"
    }
}

#[cfg(test)]
mod tests;
