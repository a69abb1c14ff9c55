//! Bytes of a sorted set's elements.

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::format::row::{self, MEMBER_BYTES_MAX, Member};
use crate::store::kinds::source::bad_row;
use crate::store::rows::StoreError;

use super::walk::Entry;

/// The order of a sorted set; -0 and 0 are one score.
pub(super) fn is_before(one: (f64, &[u8]), other: (f64, &[u8])) -> bool {
    one.0 < other.0 || (one.0 == other.0 && one.1 < other.1)
}

/// A score in a meta row or in a field's.
pub(super) fn score_of(bits: &[u8]) -> Result<f64, StoreError> {
    match <[u8; 8]>::try_from(bits) {
        Ok(bits) => Ok(f64::from_bits(u64::from_be_bytes(bits))),
        Err(_) => Err(bad_row(bits)),
    }
}

fn is_in_value(member: &[u8]) -> bool {
    member.len() > MEMBER_BYTES_MAX
}

pub(super) fn score_value(member: &[u8], score: f64) -> Bytes {
    let is_minus_zero = score == 0.0 && score.is_sign_negative();
    let is_in_value = is_in_value(member);
    if !is_in_value && !is_minus_zero {
        return Bytes::new();
    }
    let mut value = BytesMut::new();
    value.put_u8(u8::from(is_minus_zero));
    if is_in_value {
        value.put_slice(member);
    }
    value.freeze()
}

/// The element of a Z row; `share` gives a part of the key to keep.
pub(super) fn entry_of_score(
    key: &[u8],
    value: &Bytes,
    share: impl FnOnce(&[u8]) -> Bytes,
) -> Result<Entry, StoreError> {
    let (score, member) = row::split_score(key).ok_or_else(|| bad_row(key))?;
    let score = match value.first() {
        Some(1) => -0.0,
        _ => score,
    };
    let member = match member {
        Member::Whole(member) => share(member),
        Member::InValue if value.is_empty() => return Err(bad_row(key)),
        Member::InValue => value.slice(1..),
    };
    Ok(Entry { member, score })
}
