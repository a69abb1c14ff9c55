//! A generation: what was put and deleted since the one before it was frozen. It
//! becomes one atomic batch of the engine.
//!
//! Objects and their parts are found by hash, see `hashed`; all others stand in a tree. So
//! do the parts, once somebody walked them: who walks them does so again and again, between
//! writes (a sorted set that is a queue), and sorting a few each time costs more.
//!
//! ```text
//!   parts by hash ---walked, then written---> parts in the tree
//!        the next generation: in the tree if this one was walked
//! ```

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::hashed::{Hashed, HashedWithin};
use super::key::{Ordered, RowKey, RowKeyRef};
use super::key_hash::KeyHash;
use crate::store::engine::{Change, DeadId, META, SUB};
use crate::store::format::row::RowBuf;

/// What a row takes up besides its bytes: its place in a table or a tree, and what the
/// allocator adds to two allocations.
const ROW_OVERHEAD_BYTES: usize = 128;

/// Rows in order; `None` is a deletion that hides what is below.
#[derive(Default)]
pub(super) struct Generation {
    metas: Hashed,
    /// Parts of objects, if they are not among the others.
    parts: Hashed,
    others: BTreeMap<RowKey, Option<Bytes>>,
    has_parts_in_tree: bool,
    /// Somebody walked parts.
    is_walked: AtomicBool,
    bytes: usize,
    buried: Vec<DeadId>,
}

/// Rows of a generation within a range.
pub(super) enum Within<'a> {
    Hashed(HashedWithin<'a>),
    Others(btree_map::Range<'a, RowKey, Option<Bytes>>),
}

impl Generation {
    /// The next one, which will be about as large, and of the same kind.
    pub(super) fn after(before: &Self) -> Self {
        Self {
            metas: Hashed::like(&before.metas),
            parts: Hashed::like(&before.parts),
            has_parts_in_tree: before.is_walked.load(Ordering::Relaxed),
            ..Self::default()
        }
    }

    pub(super) fn key_hash(&self) -> KeyHash {
        self.metas.key_hash()
    }

    /// See [`Hashed::warm`]: of objects.
    pub(super) fn warm(&self, hashes: &[u32]) {
        self.metas.warm(hashes);
    }

    pub(super) fn set(&mut self, row: &[u8], value: Option<Bytes>) {
        self.set_as(row, value, RowBuf::from_slice);
    }

    /// The same, with a key that need not be copied.
    pub(super) fn set_owned(&mut self, row: RowBuf, value: Option<Bytes>) {
        self.set_as(row, value, |row| row);
    }

    fn set_as<K: AsRef<[u8]>>(
        &mut self,
        key: K,
        value: Option<Bytes>,
        own: impl FnOnce(K) -> RowBuf,
    ) {
        let row = key.as_ref();
        let (row_bytes, value_bytes) = (row.len(), value.as_ref().map_or(0, Bytes::len));
        self.bytes += value_bytes;
        if *self.is_walked.get_mut() && !self.has_parts_in_tree {
            self.has_parts_in_tree = true;
            let mut parts = self.parts.take_all().collect();
            self.others.append(&mut parts);
        }
        let hashed = match row.first() {
            Some(&META) => Some(&mut self.metas),
            Some(&SUB) if !self.has_parts_in_tree => Some(&mut self.parts),
            _ => None,
        };
        let slot = match hashed {
            Some(hashed) => {
                let hash = hashed.hash_of(row);
                let Some(number) = hashed.find(row, hash) else {
                    self.bytes += row_bytes + ROW_OVERHEAD_BYTES;
                    return hashed.add(RowKey::new(own(key)), hash, value);
                };
                hashed.value_mut(number)
            }
            None => self.others.get_mut::<dyn Ordered>(&RowKeyRef::new(row)),
        };
        match slot {
            Some(slot) => {
                self.bytes -= slot.as_ref().map_or(0, Bytes::len);
                *slot = value;
            }
            None => {
                self.bytes += row_bytes + ROW_OVERHEAD_BYTES;
                self.others.insert(RowKey::new(own(key)), value);
            }
        }
    }

    pub(super) fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        match row.first() {
            Some(&META) => self.metas.get(row),
            Some(&SUB) if !self.has_parts_in_tree => self.parts.get(row),
            _ => self.others.get::<dyn Ordered>(&RowKeyRef::new(row)),
        }
    }

    /// `from` is below `to`. Rows come in several runs, each in order.
    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Within<'a>> + use<'a> {
        let meets = |space: u8| from < &[space + 1][..] && to > &[space][..];
        if meets(SUB) {
            self.is_walked.store(true, Ordering::Relaxed);
        }
        let hashed = |rows: &'a Hashed, space| {
            let is_any = !rows.is_empty() && meets(space);
            is_any.then(|| Within::Hashed(rows.range(from, to)))
        };
        let (metas, parts) = (hashed(&self.metas, META), hashed(&self.parts, SUB));
        let others = (!self.others.is_empty()).then(|| Within::Others(self.others(from, to)));
        metas.into_iter().chain(parts).chain(others)
    }

    fn others(&self, from: &[u8], to: &[u8]) -> btree_map::Range<'_, RowKey, Option<Bytes>> {
        let (from, to) = (RowKeyRef::new(from), RowKeyRef::new(to));
        let (from, to): (&dyn Ordered, &dyn Ordered) = (&from, &to);
        self.others
            .range::<dyn Ordered, _>((Bound::Included(from), Bound::Excluded(to)))
    }

    pub(super) fn bury(&mut self, id: DeadId) {
        self.set(&id.row(), Some(Bytes::new()));
        self.buried.push(id);
    }

    pub(super) fn buried(&self) -> &[DeadId] {
        &self.buried
    }

    /// All rows in order, and `row` among them, in place of what it had. It stands behind
    /// objects and their parts.
    pub(super) fn changes_and<'a>(
        &'a self,
        row: &'a [u8],
        value: &'a Bytes,
    ) -> impl Iterator<Item = Change<'a>> {
        let others = |from: &[u8], to: &[u8]| {
            let rows = self.others(from, to);
            rows.map(|(key, value)| (key.bytes(), value.as_ref()))
        };
        others(&[], &[META])
            .chain(self.metas.all())
            .chain(others(&[META], &[SUB]))
            .chain(self.parts.all())
            .chain(others(&[SUB], row))
            .chain(std::iter::once((row, Some(value))))
            .chain(others(row, &[u8::MAX]).skip_while(move |(key, _)| *key == row))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.metas.is_empty() && self.parts.is_empty() && self.others.is_empty()
    }
}

impl<'a> Iterator for Within<'a> {
    type Item = (&'a [u8], Option<&'a Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Within::Hashed(rows) => rows.next(),
            Within::Others(rows) => rows
                .next()
                .map(|(key, value)| (key.bytes(), value.as_ref())),
        }
    }
}

impl DoubleEndedIterator for Within<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Within::Hashed(rows) => rows.next_back(),
            Within::Others(rows) => rows
                .next_back()
                .map(|(key, value)| (key.bytes(), value.as_ref())),
        }
    }
}
