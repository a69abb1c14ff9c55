//! What reads look at, so that they never wait for the tree.
//!
//! The tree writes down a new list of tables, with four syncs, while it holds the lock
//! that each of its reads takes: hundreds of milliseconds on a busy disk, after every
//! flush and compaction. So the writing thread takes that lock, and leaves here what it
//! found:
//!
//! ```text
//!   active memtable > tables
//! ```
//!
//! A view stays right when it gets old: what is flushed or compacted since is in its
//! memtable and tables, too. Only what is written after the next flush is not in it, and
//! that comes from the writing thread alone, which makes a new view before anybody is
//! told of a row in it. Until then an old view keeps memory and files, so it is also
//! renewed now and then.
//!
//! Invariant: it is made by the writing thread, between writes: no memtable waits for its
//! flush then.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use lsm_tree::table::filter::standard_bloom::Builder as Bloom;
use lsm_tree::{AbstractTree, InternalValue, Memtable, SeqNo, Tree};

type Read<T> = lsm_tree::Result<T>;
type Walk = Box<dyn DoubleEndedIterator<Item = Read<InternalValue>> + Send>;
type InTables = dyn Fn(&[u8], SeqNo) -> Read<Option<InternalValue>> + Send + Sync;
type Walks = dyn Fn(&[u8], &[u8], SeqNo) -> Walk + Send + Sync;

/// All rows, without a lock. The types of what the closures hold have no names.
pub(super) struct View {
    memtable: Arc<Memtable>,
    in_tables: Box<InTables>,
    walk: Box<Walks>,
}

impl View {
    /// To be called by the writing thread, between writes.
    pub(super) fn of(tree: &Tree) -> Self {
        let whole = tree.get_version_history_lock().latest_version();
        let memtable = Arc::clone(&whole.active_memtable);
        let tables = tree.current_version();
        Self {
            memtable,
            in_tables: Box::new(move |row, seqno| {
                let hash = Bloom::get_hash(row);
                let runs = tables.iter_levels().flat_map(|level| level.iter());
                for table in runs.filter_map(|run| run.get_for_key(row)) {
                    if let Some(found) = table.get(row, seqno, hash)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }),
            walk: Box::new(move |from, to, seqno| {
                let (range, whole) = (from..to, whole.clone());
                Box::new(Tree::create_internal_range(whole, &range, seqno, None))
            }),
        }
    }

    /// One row, as it was before `seqno`.
    pub(super) fn get(&self, row: &[u8], seqno: SeqNo) -> Read<Option<Bytes>> {
        let in_memory = match self.memtable.is_empty() {
            true => None,
            false => self.memtable.get(row, seqno),
        };
        let found = match in_memory {
            Some(found) => Some(found),
            None => (self.in_tables)(row, seqno)?,
        };
        let found = found.filter(|found| !found.is_tombstone());
        Ok(found.map(|found| found.value.into()))
    }

    /// `from` is below `to`. Without what is written from `seqno` on: a row that comes in
    /// while both ends are walked could else be met at either.
    pub(super) fn range(&self, from: &[u8], to: &[u8], seqno: SeqNo) -> Walk {
        (self.walk)(from, to, seqno)
    }
}

/// The view of now.
pub(super) struct Views {
    current: ArcSwap<View>,
}

impl Views {
    /// As the tree is now.
    pub(super) fn of(tree: &Tree) -> Self {
        Self {
            current: ArcSwap::from_pointee(View::of(tree)),
        }
    }

    pub(super) fn current(&self) -> Arc<View> {
        self.current.load_full()
    }

    /// One row, as it is now.
    pub(super) fn get(&self, row: &[u8]) -> Read<Option<Bytes>> {
        self.current.load().get(row, SeqNo::MAX)
    }

    /// Makes a new one; may wait for the tree. As [`View::of`].
    pub(super) fn renew(&self, tree: &Tree) {
        self.current.store(Arc::new(View::of(tree)));
    }
}
