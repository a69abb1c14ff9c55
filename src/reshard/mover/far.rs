//! When the keys end that targets have with their exact time. Pure.
//!
//! Only a hash of each name is kept: there may be millions of them, and all that
//! is asked is whether a key that a command touches may have ended on its target.
//!
//! Invariant: a key that a target has with an exact time is here, or was counted
//! by whoever put it in; one that has none any more may still be here, which
//! costs one reading of it more than needed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Keys known at most, for each source: 16 bytes and a little more each.
const FAR_KEYS_MAX: usize = 8_000_000;

/// Times by hash of database and name.
#[derive(Debug)]
pub(super) struct Far {
    times_ms: HashMap<u64, i64>,
    /// Of its own, so that nobody can choose names that meet.
    hashing: RandomState,
    keys_max: usize,
}

/// There is no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Far {
    pub(super) fn new() -> Far {
        Far {
            times_ms: HashMap::new(),
            hashing: RandomState::new(),
            keys_max: FAR_KEYS_MAX,
        }
    }

    fn hash(&self, db: u32, key: &[u8]) -> u64 {
        self.hashing.hash_one((db, key))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.times_ms.is_empty()
    }

    pub(super) fn set(&mut self, db: u32, key: &[u8], at_ms: i64) -> Result<(), Full> {
        let hash = self.hash(db, key);
        if self.times_ms.len() >= self.keys_max && !self.times_ms.contains_key(&hash) {
            return Err(Full);
        }
        self.times_ms.insert(hash, at_ms);
        Ok(())
    }

    /// A part of it ends then: the soonest counts.
    pub(super) fn set_soonest(&mut self, db: u32, key: &[u8], at_ms: i64) -> Result<(), Full> {
        let soonest = self.get(db, key).map_or(at_ms, |known| known.min(at_ms));
        self.set(db, key, soonest)
    }

    pub(super) fn get(&self, db: u32, key: &[u8]) -> Option<i64> {
        match self.times_ms.is_empty() {
            true => None,
            false => self.times_ms.get(&self.hash(db, key)).copied(),
        }
    }

    pub(super) fn forget(&mut self, db: u32, key: &[u8]) {
        if !self.times_ms.is_empty() {
            let hash = self.hash(db, key);
            self.times_ms.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_of_a_key_counts_and_of_its_fields_the_soonest() {
        let mut far = Far::new();
        far.set(0, b"k", 5).unwrap();
        far.set(0, b"k", 9).unwrap();
        assert_eq!((far.get(0, b"k"), far.get(1, b"k")), (Some(9), None));
        far.set_soonest(0, b"k", 7).unwrap();
        far.set_soonest(0, b"k", 8).unwrap();
        assert_eq!(far.get(0, b"k"), Some(7));
        far.forget(0, b"k");
        assert_eq!(far.get(0, b"k"), None);
    }

    #[test]
    fn a_full_table_takes_what_it_knows() {
        let mut far = Far::new();
        far.keys_max = 1;
        far.set(0, b"a", 5).unwrap();
        assert_eq!(far.set(0, b"b", 5), Err(Full));
        assert_eq!(far.set(0, b"a", 6), Ok(()));
    }
}
