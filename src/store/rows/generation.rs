//! A generation: what was put and deleted since the one before it was frozen. It
//! becomes one atomic batch of the engine.
//!
//! Objects and their parts are found by hash, see `hashed`; all others stand in a tree. So
//! do parts of a kind, once somebody walked them: who walks them does so again and again,
//! between writes (a sorted set that is a queue), and sorting a few each time costs more.
//! Fields and members are a kind of their own: of a queue, those are never walked.
//!
//! ```text
//!   parts by hash ---walked, then written---> parts in the tree
//!        the next generation: in the tree if this one was walked
//! ```

use std::collections::btree_map::{self, BTreeMap, Entry};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::hashed::{Hashed, HashedWithin};
use super::key::{Ordered, RowKey, RowKeyRef};
use super::key_hash::KeyHash;
use crate::store::engine::{Change, DeadId, META, SUB};
use crate::store::format::row::{RowBuf, kind};

/// What a row takes up besides its bytes: its place in a table or a tree, and what the
/// allocator adds to two allocations.
const ROW_OVERHEAD_BYTES: usize = 128;

/// Space and object: what a part's key begins with; its kind is next.
const PART_PREFIX_BYTES: usize = 9;

/// Rows in order; `None` is a deletion that hides what is below.
#[derive(Default)]
pub(super) struct Generation {
    metas: Hashed,
    fields: Parts,
    /// All parts of objects that are no fields.
    parts: Parts,
    others: BTreeMap<RowKey, Option<Bytes>>,
    bytes: usize,
    buried: Vec<DeadId>,
}

/// Parts of objects, if they are not among the others.
#[derive(Default)]
struct Parts {
    rows: Hashed,
    are_in_tree: bool,
    /// Somebody walked them.
    are_walked: AtomicBool,
}

impl Parts {
    fn after(before: &Self) -> Self {
        Self {
            rows: Hashed::like(&before.rows),
            are_in_tree: before.are_walked.load(Ordering::Relaxed),
            are_walked: AtomicBool::default(),
        }
    }

    /// Where a row is to be written, if not among the others.
    fn writable(&mut self, others: &mut BTreeMap<RowKey, Option<Bytes>>) -> Option<&mut Hashed> {
        if *self.are_walked.get_mut() && !self.are_in_tree {
            self.are_in_tree = true;
            let mut rows = self.rows.take_all().collect();
            others.append(&mut rows);
        }
        (!self.are_in_tree).then_some(&mut self.rows)
    }

    fn walked(&self, from: &[u8], to: &[u8]) -> Option<HashedWithin<'_>> {
        self.are_walked.store(true, Ordering::Relaxed);
        (!self.rows.is_empty()).then(|| self.rows.range(from, to))
    }
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
            fields: Parts::after(&before.fields),
            parts: Parts::after(&before.parts),
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
        let hashed = match row.first() {
            Some(&META) => Some(&mut self.metas),
            Some(&SUB) if is_field(row) => self.fields.writable(&mut self.others),
            Some(&SUB) => self.parts.writable(&mut self.others),
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
            None => match self.others.entry(RowKey::new(own(key))) {
                Entry::Occupied(row) => Some(row.into_mut()),
                Entry::Vacant(place) => {
                    self.bytes += row_bytes + ROW_OVERHEAD_BYTES;
                    place.insert(value);
                    return;
                }
            },
        };
        if let Some(slot) = slot {
            self.bytes -= slot.as_ref().map_or(0, Bytes::len);
            *slot = value;
        }
    }

    pub(super) fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        let parts = match row.first() {
            Some(&META) => return self.metas.get(row),
            Some(&SUB) if is_field(row) => Some(&self.fields),
            Some(&SUB) => Some(&self.parts),
            _ => None,
        };
        match parts.filter(|parts| !parts.are_in_tree) {
            Some(parts) => parts.rows.get(row),
            None => self.others.get::<dyn Ordered>(&RowKeyRef::new(row)),
        }
    }

    /// `from` is below `to`. Rows come in several runs, each in order.
    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Within<'a>> + use<'a> {
        let meets = |space: u8| from < &[space + 1][..] && to > &[space][..];
        let are_metas = meets(META) && !self.metas.is_empty();
        let metas = are_metas.then(|| self.metas.range(from, to));
        let [has_fields, has_parts] = match meets(SUB) {
            true => meets_parts(from, to),
            false => [false, false],
        };
        let fields = has_fields.then(|| self.fields.walked(from, to)).flatten();
        let parts = has_parts.then(|| self.parts.walked(from, to)).flatten();
        let others = (!self.others.is_empty()).then(|| Within::Others(self.others(from, to)));
        let hashed = [metas, fields, parts].into_iter().flatten();
        hashed.map(Within::Hashed).chain(others)
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
        let hashed = Merged::of(self.fields.rows.all(), self.parts.rows.all());
        let parts = Merged::of(hashed, others(&[SUB], &[SUB + 1]));
        others(&[], &[META])
            .chain(self.metas.all())
            .chain(others(&[META], &[SUB]))
            .chain(parts)
            .chain(others(&[SUB + 1], row))
            .chain(std::iter::once((row, Some(value))))
            .chain(others(row, &[u8::MAX]).skip_while(move |(key, _)| *key == row))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        let hashed = [&self.metas, &self.fields.rows, &self.parts.rows];
        hashed.into_iter().all(Hashed::is_empty) && self.others.is_empty()
    }
}

fn is_field(part: &[u8]) -> bool {
    part.get(PART_PREFIX_BYTES) == Some(&kind::FIELD)
}

/// Whether there are fields within a range, and whether there are other parts.
fn meets_parts(from: &[u8], to: &[u8]) -> [bool; 2] {
    let object = match (from.get(..PART_PREFIX_BYTES), to.get(..PART_PREFIX_BYTES)) {
        (Some(from), Some(to)) if from == to => from,
        _ => return [true, true],
    };
    let kind_at = |row: &[u8], kind: u8| row.strip_prefix(object).cmp(&Some(&[kind][..]));
    let is_before_fields = kind_at(from, kind::FIELD).is_lt();
    let is_before_others = kind_at(from, kind::FIELD + 1).is_lt();
    let is_behind_fields = kind_at(to, kind::FIELD).is_gt();
    let is_behind_others = kind_at(to, kind::FIELD + 1).is_gt();
    [
        is_before_others && is_behind_fields,
        is_before_fields || is_behind_others,
    ]
}

/// Two runs of rows in order, of which none is in both, as one.
struct Merged<A: Iterator, B: Iterator> {
    one: Peekable<A>,
    other: Peekable<B>,
}

impl<'a, A: Iterator<Item = Change<'a>>, B: Iterator<Item = Change<'a>>> Merged<A, B> {
    fn of(one: A, other: B) -> Self {
        Self {
            one: one.peekable(),
            other: other.peekable(),
        }
    }
}

impl<'a, A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = Change<'a>>,
    B: Iterator<Item = Change<'a>>,
{
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        match (self.one.peek(), self.other.peek()) {
            (Some((one, _)), Some((other, _))) if one > other => self.other.next(),
            (Some(_), _) => self.one.next(),
            (None, _) => self.other.next(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::row::{self, ObjectId};

    #[test]
    fn ranges_meet_the_kinds_that_they_have() {
        let id = ObjectId(7);
        let of = |kind| (row::sub(id, kind), row::sub(id, kind + 1));
        let meets = |(from, to): (RowBuf, RowBuf)| meets_parts(&from, &to);
        assert_eq!(meets(of(kind::FIELD)), [true, false]);
        for kind in [
            kind::SCORE,
            kind::INDEX,
            kind::CHUNK,
            kind::ENTRY,
            kind::GROUP,
        ] {
            assert_eq!(meets(of(kind)), [false, true], "{kind}");
        }
        let member = row::field(id, b"m");
        assert_eq!(meets((member.clone(), row::behind(&member))), [true, false]);
        assert_eq!(meets((row::sub(id, kind::ENTRY), member)), [true, true]);
        let other = row::sub(ObjectId(8), kind::FIELD);
        assert_eq!(meets((row::sub(id, kind::FIELD), other)), [true, true]);
    }
}
