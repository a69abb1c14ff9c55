//! Lists: items in order.
//!
//! ```text
//! inline   item, item, ..                          in the meta row
//! rows     L | index -> item      first..end, without a gap; the first one at 2^63
//!             <-- pushed at the head    pushed at the tail -->
//! ```
//! The rows of a list are always named by their index, so nothing is looked for where
//! items were removed. What is put in or taken out of the middle shifts the shorter side.

mod builder;
mod pops;

use bytes::Bytes;

use super::source::{RowSource, RowsBetween, bad_row};
use super::{INLINE_BYTES_MAX, INLINE_ITEMS_MAX};
use crate::store::format::object::ListValue;
use crate::store::format::packed::{Packed, PackedWriter};
use crate::store::format::row::{self, ObjectId};
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

pub use builder::Builder;
pub use pops::pop;

/// Where a list in rows begins: there is room for 2^63 items at either side.
const MIDDLE: u64 = 1 << 63;
/// Items that are shifted at once.
const SHIFTED_AT_ONCE: u64 = 256;

/// One of a list's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Index 0.
    Head,
    /// Index -1.
    Tail,
}

/// A list without items.
pub fn empty() -> ListValue {
    ListValue::Inline(Packed::default())
}

/// How many items there are.
pub fn len(list: &ListValue) -> u64 {
    match list {
        ListValue::Inline(held) => held.count() as u64,
        ListValue::Rows { first, end, .. } => end.saturating_sub(*first),
    }
}

/// One item, counted from the head.
///
/// # Errors
/// [`StoreError`] of the engine, or if the row is not there.
pub fn get(rows: &impl RowSource, list: &ListValue, at: u64) -> Result<Option<Bytes>, StoreError> {
    if at >= len(list) {
        return Ok(None);
    }
    match list {
        ListValue::Inline(held) => {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            Ok(held.iter().nth(at).map(|item| held.share(item)))
        }
        ListValue::Rows { id, first, .. } => {
            let key = row::index(*id, first + at);
            rows.row(&key)?.map(Some).ok_or_else(|| bad_row(&key))
        }
    }
}

/// Items `from..to`, from either end, as far as there are so many.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn items<'a>(
    rows: &'a impl RowSource,
    list: &ListValue,
    from: u64,
    to: u64,
) -> Result<Items<'a>, StoreError> {
    let to = to.min(len(list));
    let from = from.min(to);
    Ok(Items(match list {
        ListValue::Inline(held) => {
            let count = usize::try_from(to - from).unwrap_or(usize::MAX);
            let skipped = usize::try_from(from).unwrap_or(usize::MAX);
            let items = held.iter().skip(skipped).take(count);
            Source::Inline(
                items
                    .map(|item| held.share(item))
                    .collect::<Vec<_>>()
                    .into_iter(),
            )
        }
        ListValue::Rows { id, first, .. } => Source::Rows {
            rows: rows
                .rows_between(&row::index(*id, first + from), &row::index(*id, first + to))?,
            id: *id,
            front: first + from,
            back: first + to,
        },
    }))
}

/// See [`items`].
pub struct Items<'a>(Source<'a>);

enum Source<'a> {
    Inline(std::vec::IntoIter<Bytes>),
    Rows {
        rows: RowsBetween<'a>,
        id: ObjectId,
        /// Index of the next row from the front.
        front: u64,
        /// Index behind the next row from the back.
        back: u64,
    },
}

/// The item of a row, which must be at its index.
fn item_at(
    found: Option<Result<(Bytes, Bytes), StoreError>>,
    id: ObjectId,
    index: u64,
) -> Result<Bytes, StoreError> {
    let wanted = row::index(id, index);
    match found.transpose()? {
        Some((key, item)) if *key == *wanted => Ok(item),
        _ => Err(bad_row(&wanted)),
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Inline(items) => items.next().map(Ok),
            Source::Rows { front, back, .. } if *front >= *back => None,
            Source::Rows {
                rows,
                id,
                front,
                back,
            } => {
                let item = item_at(rows.next(), *id, *front);
                *front = if item.is_ok() { *front + 1 } else { *back };
                Some(item)
            }
        }
    }
}

impl DoubleEndedIterator for Items<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Inline(items) => items.next_back().map(Ok),
            Source::Rows { front, back, .. } if *front >= *back => None,
            Source::Rows {
                rows,
                id,
                front,
                back,
            } => {
                let item = item_at(rows.next_back(), *id, *back - 1);
                *back = if item.is_ok() { *back - 1 } else { *front };
                Some(item)
            }
        }
    }
}

/// Puts items at an end, one after the other: the last of them is outermost.
pub fn push(keyspace: &mut Keyspace, list: &mut ListValue, end: End, items: &[&[u8]]) {
    if let ListValue::Inline(held) = list {
        if let Some(joined) = joined(held, end, items) {
            *held = joined;
            return;
        }
        *list = in_rows(keyspace, held);
    }
    if let ListValue::Rows {
        id,
        first,
        end: behind,
    } = list
    {
        for item in items {
            let index = match end {
                End::Head => {
                    *first -= 1;
                    *first
                }
                End::Tail => {
                    *behind += 1;
                    *behind - 1
                }
            };
            put(keyspace.rows(), *id, index, item);
        }
    }
}

fn put(rows: &mut Rows, id: ObjectId, index: u64, item: &[u8]) {
    rows.put_owned(row::index(id, index), Bytes::copy_from_slice(item));
}

/// `None` if that is too much for a meta row.
fn joined(held: &Packed, end: End, items: &[&[u8]]) -> Option<Packed> {
    let added: usize = items.iter().map(|item| item.len() + 2).sum();
    let bytes = held.as_bytes().len() + added;
    if bytes > INLINE_BYTES_MAX || held.count() + items.len() > INLINE_ITEMS_MAX {
        return None;
    }
    let mut writer = PackedWriter::with_capacity(bytes);
    match end {
        End::Head => {
            items.iter().rev().for_each(|item| writer.push(item));
            writer.push_all(held);
        }
        End::Tail => {
            writer.push_all(held);
            items.iter().for_each(|item| writer.push(item));
        }
    }
    Some(writer.finish())
}

/// The same items, in rows.
fn in_rows(keyspace: &mut Keyspace, held: &Packed) -> ListValue {
    let id = keyspace.new_object_id();
    let mut end = MIDDLE;
    for item in held.iter() {
        put(keyspace.rows(), id, end, item);
        end += 1;
    }
    ListValue::Rows {
        id,
        first: MIDDLE,
        end,
    }
}

/// Keeps items `from..to`. If that is none of them, rows are left for the list's removal
/// to bury.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn trim(
    keyspace: &mut Keyspace,
    list: &mut ListValue,
    from: u64,
    to: u64,
) -> Result<(), StoreError> {
    let len = len(list);
    let (to, kept) = (to.min(len), to.min(len).saturating_sub(from));
    let is_mostly_removed = kept > 0 && kept < (len - kept) / 4;
    if let ListValue::Rows { .. } = list
        && is_mostly_removed
    {
        // A new list is less work, and the old one is buried as a whole.
        let mut builder = Builder::default();
        let mut at = from;
        while at < to {
            let next = to.min(at + SHIFTED_AT_ONCE);
            let some: Vec<Bytes> =
                items(keyspace.rows_read(), list, at, next)?.collect::<Result<_, _>>()?;
            some.iter().for_each(|item| builder.push(keyspace, item));
            at = next;
        }
        *list = builder.finish();
        return Ok(());
    }
    cut(keyspace.rows(), list, from, to.max(from));
    Ok(())
}

fn cut(rows: &mut Rows, list: &mut ListValue, from: u64, to: u64) {
    match list {
        ListValue::Inline(held) => {
            let skipped = usize::try_from(from).unwrap_or(usize::MAX);
            let count = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
            *held = held.iter().skip(skipped).take(count).collect();
        }
        ListValue::Rows { id, first, end } => {
            if from < to {
                let removed = (*first..*first + from).chain(*first + to..*end);
                removed.for_each(|index| rows.delete_owned(row::index(*id, index)));
            }
            (*first, *end) = (*first + from, *first + to.max(from));
        }
    }
}

/// Puts an item in the place of another. `at` is below the list's length.
pub fn set(keyspace: &mut Keyspace, list: &mut ListValue, at: u64, item: &[u8]) {
    if let ListValue::Inline(held) = list {
        let numbered = held.iter().enumerate();
        let changed: Packed = numbered
            .map(|(number, old)| if number as u64 == at { item } else { old })
            .collect();
        if changed.as_bytes().len() <= INLINE_BYTES_MAX {
            *held = changed;
            return;
        }
        *list = in_rows(keyspace, held);
    }
    if let ListValue::Rows { id, first, .. } = list {
        put(keyspace.rows(), *id, *first + at, item);
    }
}

/// Puts an item before the one at `at`, or behind the last.
///
/// # Errors
/// [`StoreError`] of the engine, or if a row is not there.
pub fn insert(
    keyspace: &mut Keyspace,
    list: &mut ListValue,
    at: u64,
    item: &[u8],
) -> Result<(), StoreError> {
    if let ListValue::Inline(held) = list {
        let mut writer = PackedWriter::with_capacity(held.as_bytes().len() + item.len() + 2);
        for (number, old) in held.iter().enumerate() {
            if number as u64 == at {
                writer.push(item);
            }
            writer.push(old);
        }
        let count = held.count();
        if count as u64 <= at {
            writer.push(item);
        }
        if writer.len() <= INLINE_BYTES_MAX && count < INLINE_ITEMS_MAX {
            *held = writer.finish();
            return Ok(());
        }
        *list = in_rows(keyspace, held);
    }
    let len = len(list);
    if let ListValue::Rows { id, first, end } = list {
        let (id, at) = (*id, at.min(len));
        if at < len - at {
            shift_down(keyspace.rows(), id, *first..*first + at, 1)?;
            *first -= 1;
        } else {
            shift_up(keyspace.rows(), id, *first + at..*end, 1)?;
            *end += 1;
        }
        put(keyspace.rows(), id, *first + at, item);
    }
    Ok(())
}

/// Removes the items at these places, which are in ascending order. If that is all of
/// them, rows are left for the list's removal to bury.
///
/// # Errors
/// [`StoreError`] of the engine, or if a row is not there.
pub fn remove(rows: &mut Rows, list: &mut ListValue, places: &[u64]) -> Result<(), StoreError> {
    let (Some(lowest), Some(highest)) = (places.first(), places.last()) else {
        return Ok(());
    };
    match list {
        ListValue::Inline(held) => {
            let numbered = held.iter().enumerate();
            *held = numbered
                .filter(|(number, _)| places.binary_search(&(*number as u64)).is_err())
                .map(|(_, item)| item)
                .collect();
        }
        ListValue::Rows { id, first, end } => {
            let (id, removed) = (*id, places.len() as u64);
            if removed == *end - *first {
                *end = *first;
                return Ok(());
            }
            if *highest < *end - *first - *lowest {
                // What stands before each removed item goes up, over all behind it.
                for (number, at) in places.iter().enumerate().rev() {
                    let before = number.checked_sub(1).and_then(|number| places.get(number));
                    let from = before.map_or(*first, |before| *first + before + 1);
                    shift_up(rows, id, from..*first + at, removed - number as u64)?;
                }
                (*first..*first + removed).for_each(|at| rows.delete(&row::index(id, at)));
                *first += removed;
            } else {
                for (number, at) in places.iter().enumerate() {
                    let to = places.get(number + 1).map_or(*end, |next| *first + next);
                    shift_down(rows, id, *first + at + 1..to, number as u64 + 1)?;
                }
                (*end - removed..*end).for_each(|at| rows.delete(&row::index(id, at)));
                *end -= removed;
            }
        }
    }
    Ok(())
}

fn shift_down(
    rows: &mut Rows,
    id: ObjectId,
    mut from: std::ops::Range<u64>,
    by: u64,
) -> Result<(), StoreError> {
    while from.start < from.end {
        let behind = from.end.min(from.start + SHIFTED_AT_ONCE);
        for (index, item) in (from.start..behind).zip(some(rows, id, from.start, behind)?) {
            rows.put(&row::index(id, index - by), item);
        }
        from.start = behind;
    }
    Ok(())
}

fn shift_up(
    rows: &mut Rows,
    id: ObjectId,
    mut from: std::ops::Range<u64>,
    by: u64,
) -> Result<(), StoreError> {
    while from.start < from.end {
        let start = from.start.max(from.end.saturating_sub(SHIFTED_AT_ONCE));
        for (index, item) in (start..from.end).zip(some(rows, id, start, from.end)?) {
            rows.put(&row::index(id, index + by), item);
        }
        from.end = start;
    }
    Ok(())
}

fn some(rows: &Rows, id: ObjectId, first: u64, end: u64) -> Result<Vec<Bytes>, StoreError> {
    let list = ListValue::Rows { id, first, end };
    let items = items(rows, &list, 0, end - first)?;
    items
        .map(|item| item.map(|item| Bytes::copy_from_slice(&item)))
        .collect()
}

#[cfg(test)]
mod tests;
