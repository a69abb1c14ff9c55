//! Rows of hashes and sets: one for each field or member.
//!
//! ```text
//! key     S | id 8 | F | h32 4 | member           see `format::row`
//! value   turn varint | value                     of a set the value is empty
//!         turn varint | length varint | member | value     if the key has a digest
//! ```
//! A *turn* orders the fields of a hash that is still called a listpack: by when they
//! came. It is 0 where nobody asks.

use bytes::{BufMut, Bytes};

use super::elements::{Element, Scanned};
use super::source::bad_row;
use crate::store::format::row::{self, Member, ObjectId, RowBuf, split_field};
use crate::store::rows::{Rows, StoreError};

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;
/// Rows that a random one is chosen from: rows stand at unequal distances.
const SAMPLED_ROWS: usize = 16;

/// All rows of an object are in this range.
pub fn range_of(id: ObjectId) -> (RowBuf, RowBuf) {
    (row::field_from(id, 0), row::field_from(id, 1 << 32))
}

/// What a row says.
///
/// # Errors
/// [`StoreError::BadRow`].
pub fn element(key: &Bytes, value: &Bytes) -> Result<Element, StoreError> {
    read(key, value).ok_or_else(|| bad_row(key))
}

fn read(key: &Bytes, value: &Bytes) -> Option<Element> {
    let (_, named) = split_field(key)?;
    let (turn, member, rest) = split_value(named, value)?;
    let member = match named {
        Member::Whole(member) => key.slice_ref(member),
        Member::InValue => value.slice_ref(member),
    };
    Some(Element {
        turn,
        member,
        value: value.slice_ref(rest),
    })
}

/// Turn, member (if the key does not have it) and value.
fn split_value<'a>(named: Member<'_>, value: &'a [u8]) -> Option<(u64, &'a [u8], &'a [u8])> {
    let (turn, rest) = split_varint(value)?;
    match named {
        Member::Whole(_) => Some((turn, &[], rest)),
        Member::InValue => {
            let (length, rest) = split_varint(rest)?;
            let (member, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((turn, member, rest))
        }
    }
}

/// What the row of a member says besides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// See the head of this file.
    pub(super) turn: u64,
    pub(super) value: Bytes,
}

/// The row of a member, if it is there.
pub(super) fn get(rows: &Rows, id: ObjectId, member: &[u8]) -> Result<Option<Found>, StoreError> {
    let key = row::field(id, member);
    let Some(bytes) = rows.get(&key)? else {
        return Ok(None);
    };
    let (_, named) = split_field(&key).ok_or_else(|| bad_row(&key))?;
    let (turn, _, value) = split_value(named, &bytes).ok_or_else(|| bad_row(&key))?;
    let value = bytes.slice_ref(value);
    Ok(Some(Found { turn, value }))
}

/// Whether a member has a row.
pub(super) fn has(rows: &Rows, id: ObjectId, member: &[u8]) -> Result<bool, StoreError> {
    Ok(rows.get(&row::field(id, member))?.is_some())
}

/// Puts the row of a member.
pub(super) fn put(rows: &mut Rows, id: ObjectId, turn: u64, member: &[u8], value: &[u8]) {
    rows.put_owned(row::field(id, member), row_value(turn, member, value));
}

fn row_value(turn: u64, member: &[u8], value: &[u8]) -> Bytes {
    let is_in_value = member.len() > row::MEMBER_BYTES_MAX;
    if turn == 0 && value.is_empty() && !is_in_value {
        // Members of a set, all alike.
        return Bytes::from_static(&[0]);
    }
    let held = match is_in_value {
        true => varint_len(member.len() as u64) + member.len(),
        false => 0,
    };
    // Exactly: what is longer than its bytes takes another piece of memory.
    let mut bytes = Vec::with_capacity(varint_len(turn) + held + value.len());
    put_varint(&mut bytes, turn);
    if is_in_value {
        put_varint(&mut bytes, member.len() as u64);
        bytes.put_slice(member);
    }
    bytes.put_slice(value);
    Bytes::from(bytes)
}

/// Deletes the row of a member.
pub(super) fn delete(rows: &mut Rows, id: ObjectId, member: &[u8]) {
    rows.delete_owned(row::field(id, member));
}

/// About `count` elements from a cursor on; what stands at one place comes at once, so the
/// cursor is a number, and good whatever changes meanwhile.
pub(super) fn scan(
    rows: &Rows,
    id: ObjectId,
    cursor: u64,
    count: usize,
) -> Result<Scanned, StoreError> {
    let mut scanned = Scanned::default();
    let mut place_before = None;
    let (_, end) = range_of(id);
    for next in rows.range(&row::field_from(id, cursor), &end)? {
        let (key, value) = next?;
        let (place, _) = split_field(&key).ok_or_else(|| bad_row(&key))?;
        if scanned.elements.len() >= count && place_before != Some(place) {
            scanned.next = u64::from(place);
            break;
        }
        place_before = Some(place);
        scanned.elements.push(element(&key, &value)?);
    }
    Ok(scanned)
}

/// An element that nobody can foretell; none if there is none.
pub(super) fn random(rows: &Rows, id: ObjectId) -> Result<Option<Element>, StoreError> {
    let from = row::field_from(id, u64::from(fastrand::u32(..)));
    let (begin, end) = range_of(id);
    let mut sample = Vec::with_capacity(SAMPLED_ROWS);
    for next in rows.range(&from, &end)?.take(SAMPLED_ROWS) {
        sample.push(next?);
    }
    if sample.len() < SAMPLED_ROWS {
        let left = SAMPLED_ROWS - sample.len();
        for next in rows.range(&begin, &from)?.take(left) {
            sample.push(next?);
        }
    }
    match fastrand::choice(&sample) {
        Some((key, value)) => element(key, value).map(Some),
        None => Ok(None),
    }
}

/// Bytes of a number as a varint.
fn varint_len(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::engine::MemoryEngine;
    use crate::store::rows::RowsOptions;

    #[test]
    fn rows_are_those_of_the_first_version() {
        let options = RowsOptions::new(crate::store::format::object::id_of_row);
        let mut rows = Rows::open(Arc::new(MemoryEngine::new()), options).expect("rows");
        let id = ObjectId(3);
        put(&mut rows, id, 300, b"m", b"v");
        let (from, to) = range_of(id);
        let held: Vec<_> = rows.range(&from, &to).expect("rows").collect();
        let (key, value) = held[0].as_ref().expect("a row");
        assert_eq!(key[..], *b"S\0\0\0\0\0\0\0\x03F\xf0\x90\x48\x07m");
        assert_eq!(value[..], *b"\xac\x02v");
        assert_eq!(element(key, value).expect("an element").turn, 300);
        let torn = Bytes::from_static(b"\xac");
        assert!(matches!(
            element(key, &torn),
            Err(StoreError::BadRow { .. })
        ));
    }

    #[test]
    fn varints_come_back_and_torn_ones_do_not() {
        for value in [0, 1, 127, 128, 300, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value));
            bytes.put_u8(7);
            assert_eq!(split_varint(&bytes), Some((value, &[7_u8][..])));
        }
        assert_eq!(split_varint(&[0x80]), None);
        assert_eq!(split_varint(&[0x80; 11]), None);
        assert_eq!(split_varint(&[]), None);
    }
}
