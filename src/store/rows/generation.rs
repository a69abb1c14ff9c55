//! A generation: what was put and deleted since the one before it was frozen. It
//! becomes one atomic batch of the engine.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use bytes::Bytes;

use super::key::{Ordered, RowKey, RowKeyRef};
use crate::store::engine::{Change, DeadId};

/// What a row takes up besides its bytes: its part of a tree node, and what the
/// allocator adds to two allocations.
const ROW_OVERHEAD_BYTES: usize = 128;

/// Rows in order; `None` is a deletion that hides what is below.
#[derive(Default)]
pub(super) struct Generation {
    rows: BTreeMap<RowKey, Option<Bytes>>,
    bytes: usize,
    buried: Vec<DeadId>,
}

/// Rows of a generation within a range.
pub(super) type Within<'a> = btree_map::Range<'a, RowKey, Option<Bytes>>;

impl Generation {
    pub(super) fn set(&mut self, row: &[u8], value: Option<Bytes>) {
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        if let Some(slot) = self.rows.get_mut::<dyn Ordered>(&RowKeyRef::new(row)) {
            self.bytes -= slot.as_ref().map_or(0, Bytes::len);
            *slot = value;
        } else {
            self.bytes += row.len() + ROW_OVERHEAD_BYTES;
            self.rows.insert(RowKey::new(row), value);
        }
        self.bytes += value_bytes;
    }

    pub(super) fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        self.rows.get::<dyn Ordered>(&RowKeyRef::new(row))
    }

    /// `from` is below `to`.
    pub(super) fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Within<'a> {
        let (from, to) = (RowKeyRef::new(from), RowKeyRef::new(to));
        let (from, to): (&dyn Ordered, &dyn Ordered) = (&from, &to);
        self.rows
            .range::<dyn Ordered, _>((Bound::Included(from), Bound::Excluded(to)))
    }

    pub(super) fn bury(&mut self, id: DeadId) {
        self.set(&id.row(), Some(Bytes::new()));
        self.buried.push(id);
    }

    pub(super) fn buried(&self) -> &[DeadId] {
        &self.buried
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.rows
            .iter()
            .map(|(row, value)| (row.bytes(), value.as_ref()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
