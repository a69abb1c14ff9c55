//! Rows of a generation that are found by hash, and stand in order only if somebody asks.
//!
//! Most rows are written and read by their keys, and hardly ever walked before they are
//! in the engine: a tree would cost each write what only a walk is worth. So they stand
//! in the order of their coming, and who walks sorts what came since the last walk:
//!
//! ```text
//!   entries   d b a c            table   hash of a key -> its number
//!   order     2 1 3 0            numbers of entries in the order of their keys
//! ```
//! Invariant: entries are added and changed, never removed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hashbrown::HashTable;

use super::key::{RowKey, prefix};
use super::key_hash::KeyHash;

/// As many entries at most are asked for in advance.
const RESERVED_MAX: usize = 1 << 17;

/// When so many came since the last walk, they are put to their places one by one.
const FEW: usize = 16;

/// So many rows are brought near at once when they are walked.
const WARMED: usize = 16;

/// A row's number among the entries, and its hash, so that a growing table needs no keys.
type Slot = (u32, u32);

pub(super) struct Hashed {
    entries: Vec<(RowKey, Option<Bytes>)>,
    table: HashTable<Slot>,
    hash: KeyHash,
    order: Mutex<Arc<Vec<u32>>>,
}

impl Hashed {
    /// For about as many rows as there are in `before`.
    pub(super) fn like(before: &Self) -> Self {
        let rows = before.entries.len().min(RESERVED_MAX);
        Self {
            entries: Vec::with_capacity(rows),
            table: HashTable::with_capacity(rows),
            hash: before.hash.clone(),
            order: Mutex::default(),
        }
    }

    /// The number of a row, if it is there.
    pub(super) fn find(&self, row: &[u8], hash: u64) -> Option<u32> {
        let is_it = |(of, number): &Slot| *of == hash as u32 && self.key(*number) == row;
        self.table.find(hash, is_it).map(|(_, number)| *number)
    }

    pub(super) fn value_mut(&mut self, number: u32) -> Option<&mut Option<Bytes>> {
        let entry = self.entries.get_mut(number as usize);
        entry.map(|(_, value)| value)
    }

    pub(super) fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        if self.entries.is_empty() {
            return None;
        }
        let number = self.find(row, self.hash_of(row))?;
        self.entries.get(number as usize).map(|(_, value)| value)
    }

    pub(super) fn hash_of(&self, row: &[u8]) -> u64 {
        whole(self.hash.of_row(row))
    }

    pub(super) fn key_hash(&self) -> KeyHash {
        self.hash.clone()
    }

    /// Reads something of what writes of rows with these hashes will look at, all at once.
    pub(super) fn warm(&self, hashes: &[u32]) {
        if self.entries.is_empty() {
            return;
        }
        let mut seen = 0;
        for hash in hashes {
            let is_it = |(of, _): &Slot| of == hash;
            if let Some((_, number)) = self.table.find(whole(*hash), is_it) {
                seen ^= self.key(*number).first().copied().unwrap_or(0);
            }
        }
        std::hint::black_box(seen);
    }

    /// A row that is not there yet.
    pub(super) fn add(&mut self, key: RowKey, hash: u64, value: Option<Bytes>) {
        let number = self.entries.len() as u32;
        self.entries.push((key, value));
        self.table
            .insert_unique(hash, (hash as u32, number), |(hash, _)| whole(*hash));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All rows in order, those from `from` up to `to`.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> HashedWithin<'_> {
        let order = self.order();
        let at = |key: &[u8]| order.partition_point(|number| self.key(*number) < key);
        let (front, back) = (at(from), at(to));
        HashedWithin {
            entries: &self.entries,
            order,
            front,
            back,
        }
    }

    /// All rows in order, to be put elsewhere.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (RowKey, Option<Bytes>)> {
        let hash = self.hash.clone();
        let all = std::mem::replace(
            self,
            Self {
                hash,
                ..Self::default()
            },
        );
        let mut rows = all.entries;
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        rows.into_iter()
    }

    /// All rows in order.
    pub(super) fn all(&self) -> HashedWithin<'_> {
        HashedWithin {
            entries: &self.entries,
            order: self.order(),
            front: 0,
            back: self.entries.len(),
        }
    }

    fn key(&self, number: u32) -> &[u8] {
        self.entries
            .get(number as usize)
            .map_or(&[], |(key, _)| key.bytes())
    }

    /// Numbers in the order of their keys. What keys begin with stands beside the numbers,
    /// and mostly tells: entries are looked at once, one after the other.
    fn sorted(&self, numbers: Range<u32>) -> impl Iterator<Item = u32> {
        let with_prefix = |number| (prefix(self.key(number)), number);
        let mut all: Vec<(u128, u32)> = numbers.map(with_prefix).collect();
        all.sort_unstable_by(|one, other| {
            let by_prefix = one.0.cmp(&other.0);
            by_prefix.then_with(|| self.key(one.1).cmp(self.key(other.1)))
        });
        all.into_iter().map(|(_, number)| number)
    }

    fn order(&self) -> Arc<Vec<u32>> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (sorted, all) = (order.len(), self.entries.len());
        if sorted < all {
            let numbers = Arc::make_mut(&mut order);
            if all - sorted <= FEW {
                for number in sorted as u32..all as u32 {
                    let key = self.key(number);
                    let at = numbers.partition_point(|other| self.key(*other) < key);
                    numbers.insert(at, number);
                }
            } else {
                numbers.extend(self.sorted(sorted as u32..all as u32));
                if sorted > 0 {
                    // Two runs in order: a pass.
                    numbers.sort_by(|one, other| self.key(*one).cmp(self.key(*other)));
                }
            }
        }
        Arc::clone(&order)
    }
}

impl Default for Hashed {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            table: HashTable::new(),
            hash: KeyHash::default(),
            order: Mutex::default(),
        }
    }
}

/// The table is asked by what it keeps of a hash.
fn whole(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Rows of a range, from either end.
pub(super) struct HashedWithin<'a> {
    entries: &'a [(RowKey, Option<Bytes>)],
    order: Arc<Vec<u32>>,
    front: usize,
    back: usize,
}

impl<'a> HashedWithin<'a> {
    /// Reads something of the next rows, all at once: walked in order, they are all over the
    /// memory, and each would be waited for.
    fn warm(&self, from: usize) {
        let numbers = self.order.iter().skip(from).take(WARMED);
        let entries = numbers.filter_map(|number| self.entries.get(*number as usize));
        let mut values: [&[u8]; WARMED] = [&[]; WARMED];
        for (value, (_, of)) in values.iter_mut().zip(entries) {
            *value = of.as_ref().map_or(&[], |bytes| bytes);
        }
        let read = |value: &[u8], at: usize| value.get(at).copied().unwrap_or(0);
        let seen = values.iter().fold(0, |seen, value| {
            seen ^ read(value, 0) ^ read(value, 64) ^ value.last().copied().unwrap_or(0)
        });
        std::hint::black_box(seen);
    }

    fn row(&self, at: usize) -> Option<(&'a [u8], Option<&'a Bytes>)> {
        let (key, value) = self.entries.get(*self.order.get(at)? as usize)?;
        Some((key.bytes(), value.as_ref()))
    }
}

impl<'a> Iterator for HashedWithin<'a> {
    type Item = (&'a [u8], Option<&'a Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        if self.front.is_multiple_of(WARMED) {
            self.warm(self.front);
        }
        self.front += 1;
        self.row(self.front - 1)
    }
}

impl DoubleEndedIterator for HashedWithin<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back -= 1;
        self.row(self.back)
    }
}
