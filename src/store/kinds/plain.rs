//! A value in RDB's plain types, which every version of every server reads; of streams, all
//! that have such values, if they can be told in the words of the first that had.
//!
//! ```text
//! string 0  bytes                      set 2     count, member ..
//! list 1    count, item ..             hash 4    count, (field, value) ..
//!                                      zset_2 5  count, (member, score as 8 bytes, little-endian) ..
//! stream 15 or 19   see `stream::write`
//! ```
//! Lengths and counts as `rdb` writes them. DUMP puts a type before it and a footer behind
//! it; a snapshot puts the type, the key and the expiry before it.
//!
//! Invariant: as many elements are written as the count says, or it is an error.

use std::ops::ControlFlow;

use super::source::RowSource;
use super::{hash, list, set, stream, string, zset};
use crate::rdb::{ValueType, write_length, write_string};
use crate::store::format::object::{StringValue, Value};
use crate::store::rows::StoreError;

/// Bytes after which [`write`] hands over what there is.
const PIECE_BYTES: usize = 64 * 1024;

/// The type that a value is written as.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn type_of(rows: &impl RowSource, value: &Value) -> Result<ValueType, StoreError> {
    Ok(match value {
        Value::String(_) => ValueType::String,
        Value::List(_) => ValueType::List,
        Value::Set(_) => ValueType::Set,
        Value::Hash(_) => ValueType::Hash,
        Value::Zset(_) => ValueType::Zset2,
        Value::Stream(of) => stream::type_of(rows, of)?,
    })
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
        Value::Stream(of) => {
            let full = &mut |out: &mut Vec<u8>| match out.len() >= PIECE_BYTES {
                true => full(out),
                false => Ok(()),
            };
            return stream::write(rows, of, out, full);
        }
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
        Value::String(_) | Value::Stream(_) => {}
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::store::engine::MemoryEngine;
    use crate::store::format::object::{Collection, Stored, Written, id_of_row};
    use crate::store::keyspace::Keyspace;
    use crate::store::rows::{Rows, RowsOptions};

    fn keyspace() -> Keyspace {
        let engine = Arc::new(MemoryEngine::new());
        let rows = Rows::open(engine, RowsOptions::new(id_of_row)).expect("rows");
        Keyspace::open(rows, 1 << 20).expect("a keyspace")
    }

    #[test]
    fn a_large_value_goes_out_in_pieces() {
        let mut keyspace = keyspace();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let text = string::store(&mut keyspace, &bytes, Written::Whole);
        let (mut out, mut all, mut longest) = (Vec::new(), Vec::new(), 0);
        write(
            keyspace.rows_read(),
            &Value::String(text),
            &mut out,
            &mut |out| {
                longest = longest.max(out.len());
                all.append(out);
                Ok::<(), StoreError>(())
            },
        )
        .expect("written");
        all.append(&mut out);
        let mut wanted = Vec::new();
        write_string(&mut wanted, &bytes);
        assert!(all == wanted, "the pieces are the string");
        assert!(longest < 2 * PIECE_BYTES, "{longest} bytes at once");
    }

    #[test]
    fn rows_that_are_not_as_many_as_the_object_says_are_an_error() {
        let mut keyspace = keyspace();
        let id = keyspace.new_object_id();
        let of = Collection {
            stored: Stored::Rows { id, count: 2 },
            is_compact: false,
        };
        for value in [
            Value::Set(of.clone()),
            Value::Hash(of.clone()),
            Value::Zset(of),
        ] {
            let mut out = Vec::new();
            let none = &mut |_: &mut Vec<u8>| Ok::<(), StoreError>(());
            let written = write(keyspace.rows_read(), &value, &mut out, none);
            assert!(
                matches!(written, Err(StoreError::BadRow { .. })),
                "{written:?}"
            );
        }
        let few = Value::string(Bytes::from_static(b"text"));
        let told = type_of(keyspace.rows_read(), &few);
        assert!(matches!(told, Ok(ValueType::String)), "{told:?}");
    }
}
