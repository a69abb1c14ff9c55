//! What a clean verify leaves as its proof: for each source, how many moving keys
//! were found equal at both ends and a digest of all of them.
//!
//! The digest is the wrapping sum of `rdb::key_digest`, so it depends neither on
//! the order nor on how servers lay values out. Each key counts as it was at its
//! own marker; a key that SCAN lists twice counts twice.
//!
//! Invariant: [`Verified`] is made here only, from sums in which nothing differed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rdb::{ContentDigest, key_digest};
use crate::router::address::ShardAddress;

/// What one source's keys came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceProof {
    /// The source's address.
    pub source: String,
    /// Keys that both ends had, and had the same.
    pub keys: u64,
    /// Of these, keys whose value has no digest: their payloads are the same bytes.
    pub keys_by_bytes: u64,
    /// 32 hexadecimal digits: the sum over the keys with a digest.
    pub digest: String,
}

impl fmt::Display for SourceProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} keys, digest {}",
            self.source, self.keys, self.digest
        )
    }
}

/// The sum so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    keys: u64,
    keys_by_bytes: u64,
    digest: u128,
}

impl Sum {
    /// Both ends have this key, with this content.
    pub(super) fn add(&mut self, db: u32, key: &[u8], content: Option<&ContentDigest>) {
        self.keys += 1;
        match content {
            Some(content) => self.digest = self.digest.wrapping_add(key_digest(db, key, content)),
            None => self.keys_by_bytes += 1,
        }
    }

    /// The sum as it is kept.
    pub(super) fn of_source(self, source: &ShardAddress) -> SourceProof {
        SourceProof {
            source: source.to_string(),
            keys: self.keys,
            keys_by_bytes: self.keys_by_bytes,
            digest: format!("{:032x}", self.digest),
        }
    }
}

/// Every moving key was compared at a marker, and none differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Vec<SourceProof>);

impl Verified {
    /// The proof that is in `sources`, if there was no difference.
    pub(super) fn of(differences: u64, mut sources: Vec<SourceProof>) -> Option<Verified> {
        sources.sort_by(|one, other| one.source.cmp(&other.source));
        (differences == 0).then_some(Verified(sources))
    }

    /// By source, in the order of their names.
    pub fn sources(&self) -> &[SourceProof] {
        &self.0
    }

    #[cfg(test)]
    pub(in crate::reshard) fn for_test() -> Verified {
        Verified(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::value_type::ValueKind;

    fn content(digest: u8) -> ContentDigest {
        ContentDigest {
            kind: ValueKind::String,
            length: 1,
            digest: [digest; 16],
        }
    }

    #[test]
    fn a_sum_has_no_order_and_misses_nothing() {
        let sum = |keys: &[(u32, &[u8], u8)]| {
            let mut sum = Sum::default();
            for (db, key, digest) in keys {
                sum.add(*db, key, Some(&content(*digest)));
            }
            sum
        };
        let whole = sum(&[(0, b"a", 1), (3, b"b", 2)]);
        assert_eq!(whole, sum(&[(3, b"b", 2), (0, b"a", 1)]));
        for other in [
            sum(&[(0, b"a", 1)]),
            sum(&[(0, b"a", 1), (3, b"b", 3)]),
            sum(&[(0, b"a", 1), (4, b"b", 2)]),
            sum(&[(0, b"a", 2), (3, b"b", 1)]),
        ] {
            assert_ne!(whole.digest, other.digest);
        }
    }

    #[test]
    fn a_difference_is_no_proof() {
        let source = "h:1".parse().unwrap();
        let proofs = || vec![Sum::default().of_source(&source)];
        assert!(Verified::of(1, proofs()).is_none());
        assert_eq!(Verified::of(0, proofs()).unwrap().sources(), proofs());
    }
}
