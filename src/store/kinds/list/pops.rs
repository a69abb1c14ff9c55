//! Items are taken from an end of a list.

use bytes::Bytes;

use super::{End, cut, items, len};
use crate::store::format::object::ListValue;
use crate::store::format::row::{self, ObjectId};
use crate::store::kinds::source::bad_row;
use crate::store::rows::{self, OUTERMOST_MAX, Rows, StoreError};

/// Takes up to `count` items from an end, outermost first. If that is all of them, rows
/// are left for the list's removal to bury.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn pop(
    rows: &mut Rows,
    list: &mut ListValue,
    end: End,
    count: u64,
) -> Result<Vec<Bytes>, StoreError> {
    let len = len(list);
    let count = count.min(len);
    if let ListValue::Rows {
        id,
        first,
        end: behind,
    } = list
        && (1..len).contains(&count)
        && count <= OUTERMOST_MAX as u64
    {
        return pop_few(rows, *id, (first, behind), end, count);
    }
    let popped: Vec<Bytes> = match (end, count) {
        (End::Head, _) => items(rows, list, 0, count)?.collect::<Result<_, _>>()?,
        (End::Tail, _) => items(rows, list, len - count, len)?
            .rev()
            .collect::<Result<_, _>>()?,
    };
    let (from, to) = match end {
        End::Head => (count, len),
        End::Tail => (0, len - count),
    };
    cut(rows, list, from, to);
    Ok(popped)
}

/// Of a list in rows, not all: a few at once are mostly known, without a walk.
fn pop_few(
    rows: &mut Rows,
    id: ObjectId,
    (first, behind): (&mut u64, &mut u64),
    end: End,
    count: u64,
) -> Result<Vec<Bytes>, StoreError> {
    let (from, to) = (row::index(id, *first), row::index(id, *behind));
    let outer = match end {
        End::Head => rows::End::Front,
        End::Tail => rows::End::Back,
    };
    let found = rows.outermost(&from, &to, outer, count as usize)?;
    let index = |number: u64| match end {
        End::Head => *first + number,
        End::Tail => *behind - 1 - number,
    };
    for number in 0..count {
        let wanted = row::index(id, index(number));
        let found = found.get(number as usize);
        if found.is_none_or(|(key, _)| *key != wanted) {
            return Err(bad_row(&wanted));
        }
    }
    match end {
        End::Head => *first += count,
        End::Tail => *behind -= count,
    }
    let popped = found.into_iter().map(|(key, item)| {
        rows.delete_owned(key);
        item
    });
    Ok(popped.collect())
}
