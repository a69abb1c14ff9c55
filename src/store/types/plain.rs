//! A value in RDB's plain types, which every version of every server reads.
//!
//! ```text
//! string 0  bytes                      set 2     count, member ..
//! list 1    count, item ..             hash 4    count, (field, value) ..
//!                                      zset_2 5  count, (member, score as 8 bytes, little-endian) ..
//! ```
//! Lengths and counts as `rdb` writes them. DUMP puts a type before it and a footer behind
//! it; a snapshot puts the type, the key and the expiry before it.
//!
//! Invariant: as many elements are written as the count says, or it is an error.

use std::ops::ControlFlow;

use super::source::RowSource;
use super::{hash, list, set, string, zset};
use crate::rdb::{write_length, write_string};
use crate::store::format::object::{Kind, StringValue, Value};
use crate::store::rows::StoreError;

/// Bytes after which [`write`] hands over what there is.
const PIECE_BYTES: usize = 64 * 1024;

/// Number of the type that a value is written as.
pub fn type_number(value: &Value) -> u8 {
    match value.kind() {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::Hash => 4,
        Kind::Zset => 5,
    }
}

/// What is written goes to `out`; whenever that has become long, `full` may take it away,
/// so that a large value is never whole in memory.
///
/// # Errors
/// What `full` says; [`StoreError`] of the engine, or of rows that are not what the
/// object says: what was written is of no use then.
pub fn write<E: From<StoreError>>(
    rows: &impl RowSource,
    value: &Value,
    out: &mut Vec<u8>,
    full: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let declared = match value {
        Value::String(of) => return write_text(rows, of, out, full),
        Value::List(of) => list::len(of),
        Value::Set(of) => set::len(of),
        Value::Hash(of) => hash::len(of),
        Value::Zset(of) => zset::len(of),
    };
    write_length(out, declared);
    let mut written = 0;
    let mut next = |out: &mut Vec<u8>| {
        written += 1;
        if out.len() >= PIECE_BYTES {
            full(out)
        } else {
            Ok(())
        }
    };
    match value {
        Value::String(_) => {}
        Value::List(of) => {
            for item in list::items(rows, of, 0, declared)? {
                write_string(out, &item?);
                next(out)?;
            }
        }
        Value::Set(of) => {
            for element in set::iter(rows, of)? {
                write_string(out, &element?.member);
                next(out)?;
            }
        }
        Value::Hash(of) => {
            for element in hash::iter(rows, of)? {
                let element = element?;
                write_string(out, &element.member);
                write_string(out, &element.value);
                next(out)?;
            }
        }
        Value::Zset(of) => {
            for entry in zset::walk_all(rows, of)? {
                let zset::Entry { member, score } = entry?;
                write_string(out, &member);
                out.extend_from_slice(&score.to_le_bytes());
                next(out)?;
            }
        }
    }
    if written != declared {
        let id = value.id().map_or(0, |id| id.0);
        return Err(E::from(StoreError::BadRow {
            row: format!("of object {id}, which has {written} elements and should have {declared}"),
        }));
    }
    Ok(())
}

fn write_text<E: From<StoreError>>(
    rows: &impl RowSource,
    text: &StringValue,
    out: &mut Vec<u8>,
    full: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    write_length(out, text.len());
    let mut outcome = Ok(());
    string::visit(rows, text, 0, text.len(), &mut |piece| {
        out.extend_from_slice(piece);
        if out.len() >= PIECE_BYTES {
            outcome = full(out);
        }
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    outcome
}
