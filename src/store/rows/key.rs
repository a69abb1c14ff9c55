//! Key of a row in the overlay.
//!
//! Most keys of an overlay differ in their first 16 bytes (space, namespace or object, a
//! piece of a hash): those are compared as one number. Short keys stand where they are
//! looked for: comparing them touches no other memory.

use std::borrow::Borrow;
use std::cmp::Ordering;

use crate::store::format::row::RowBuf;

const PREFIX_BYTES: usize = 16;

/// Ordered as its bytes are.
pub(super) struct RowKey {
    bytes: RowBuf,
}

/// The same, borrowed.
pub(super) struct RowKeyRef<'a> {
    prefix: u128,
    bytes: &'a [u8],
}

/// What both are compared as.
pub(super) trait Ordered {
    fn parts(&self) -> (u128, &[u8]);
}

impl RowKey {
    pub(super) fn new(bytes: RowBuf) -> Self {
        Self { bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> RowKeyRef<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            prefix: prefix(bytes),
            bytes,
        }
    }
}

/// Short keys are filled with zeros: where that makes two alike, the bytes decide.
pub(super) fn prefix(bytes: &[u8]) -> u128 {
    let mut first = [0; PREFIX_BYTES];
    match bytes.first_chunk::<PREFIX_BYTES>() {
        Some(chunk) => first = *chunk,
        None => first[..bytes.len()].copy_from_slice(bytes),
    }
    u128::from_be_bytes(first)
}

impl Ordered for RowKey {
    fn parts(&self) -> (u128, &[u8]) {
        (prefix(&self.bytes), &self.bytes)
    }
}

impl Ordered for RowKeyRef<'_> {
    fn parts(&self) -> (u128, &[u8]) {
        (self.prefix, self.bytes)
    }
}

impl<'a> Borrow<dyn Ordered + 'a> for RowKey {
    fn borrow(&self) -> &(dyn Ordered + 'a) {
        self
    }
}

impl Ord for dyn Ordered + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for dyn Ordered + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Ordered + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Ordered + '_ {}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for RowKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_their_bytes() {
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], vec![1]];
        for length in 14..19 {
            for last in [0, 1, 255] {
                let mut key = vec![7; length];
                key.push(last);
                keys.push(key);
            }
        }
        for one in &keys {
            for other in &keys {
                let key = |bytes: &Vec<u8>| RowKey::new(bytes.clone().into());
                let order = key(one).cmp(&key(other));
                assert_eq!(order, one.cmp(other), "{one:?} {other:?}");
            }
        }
    }
}
