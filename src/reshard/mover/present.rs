//! Keys that targets are known to follow their source in, while a stream is taken
//! up that an earlier run, or a position, has left. Pure.
//!
//! What is not here may have ended on its target while nobody followed, although
//! its source has renewed it since: the renewal comes with the stream, and would
//! find nothing. So commands that need such a key have it read again.
//!
//! Only hashes of names are kept, and no more than a bound: a key that is missing
//! here costs one reading of it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Keys known at most, for each source.
const PRESENT_KEYS_MAX: usize = 8_000_000;

/// Hashes of database and name.
#[derive(Debug, Default)]
pub(super) struct Present {
    hashes: HashSet<u64>,
    /// Of its own, so that nobody can choose names that meet.
    hashing: RandomState,
}

impl Present {
    pub(super) fn add(&mut self, db: u32, key: &[u8]) {
        if self.hashes.len() < PRESENT_KEYS_MAX {
            self.hashes.insert(self.hashing.hash_one((db, key)));
        }
    }

    pub(super) fn has(&self, db: u32, key: &[u8]) -> bool {
        self.hashes.contains(&self.hashing.hash_one((db, key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_database_and_name() {
        let mut present = Present::default();
        present.add(3, b"k");
        assert!(present.has(3, b"k") && !present.has(0, b"k") && !present.has(3, b"l"));
    }
}
