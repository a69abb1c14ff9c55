//! What reads look at, so that they never wait for fjall.
//!
//! fjall writes down a new list of tables, with four syncs, while it holds the lock that
//! each of its reads takes: hundreds of milliseconds on a busy disk, after every flush
//! and compaction. So the writing thread takes that lock, and leaves here what it found:
//!
//! ```text
//!   active memtable > sealed ones, newest first > tables
//! ```
//!
//! A view stays right when it gets old: what is flushed or compacted since is in its
//! memtables and tables, too. Only a new active memtable makes it incomplete, and that
//! comes from the writing thread alone, which makes a new view before anybody is told of
//! a row in it. Until then an old view keeps memory and files, so it is also renewed now
//! and then.
//!
//! Invariant: a view has all memtables that were not flushed when it was made; fjall
//! numbers them without gaps. Where one is not known (after a restart), there is no view,
//! and reads go the usual way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use fjall::{AbstractTree, AnyTree};
use lsm_tree::table::filter::standard_bloom::Builder as Bloom;
use lsm_tree::{InternalValue, Memtable, SeqNo, Tree};

type Read<T> = lsm_tree::Result<T>;
type Walk = Box<dyn DoubleEndedIterator<Item = Read<InternalValue>> + Send>;
type InTables = dyn Fn(&[u8]) -> Read<Option<InternalValue>> + Send + Sync;
type Walks = dyn Fn(&[u8], &[u8], SeqNo) -> Walk + Send + Sync;

/// All rows, without a lock. The types of what the closures hold have no names.
pub(super) struct View {
    memtables: Vec<Arc<Memtable>>,
    in_tables: Box<InTables>,
    walk: Box<Walks>,
}

impl View {
    pub(super) fn get(&self, row: &[u8]) -> Read<Option<Bytes>> {
        let mut in_memory = self.memtables.iter();
        let found = match in_memory.find_map(|memtable| memtable.get(row, SeqNo::MAX)) {
            Some(found) => Some(found),
            None => (self.in_tables)(row)?,
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
#[derive(Default)]
pub(super) struct Views {
    current: ArcSwapOption<View>,
    /// Newest first; the first is the active one.
    memtables: Mutex<VecDeque<Arc<Memtable>>>,
}

impl Views {
    pub(super) fn current(&self) -> Option<Arc<View>> {
        self.current.load_full()
    }

    /// Makes a new one if there is a new active memtable. To be called after each write:
    /// another thread may have asked for a flush.
    pub(super) fn renew_if_rotated(&self, tree: &AnyTree) {
        let active = tree.active_memtable().id();
        let is_known = {
            let memtables = self
                .memtables
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            memtables.front().is_some_and(|first| first.id() == active)
        };
        if !is_known {
            self.renew(tree);
        }
    }

    /// Makes a new one; may wait for fjall.
    pub(super) fn renew(&self, tree: &AnyTree) {
        // The other kind is for separated values, which we never have.
        let AnyTree::Standard(tree) = tree else {
            return;
        };
        let mut memtables = self
            .memtables
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let whole = tree.get_version_history_lock().latest_version();
        let active = Arc::clone(&whole.active_memtable);
        // In this order: what is flushed in between is then in both.
        let sealed = tree.sealed_memtable_count();
        let tables = tree.current_version();
        if memtables
            .front()
            .is_none_or(|first| first.id() != active.id())
        {
            memtables.push_front(active);
        }
        memtables.truncate(sealed + 1);
        let ids = || memtables.iter().map(|memtable| memtable.id());
        let is_whole = memtables.len() == sealed + 1
            && ids()
                .zip(ids().skip(1))
                .all(|(newer, older)| newer == older + 1);
        let view = is_whole.then(|| {
            Arc::new(View {
                memtables: memtables.iter().cloned().collect(),
                in_tables: Box::new(move |row| {
                    let hash = Bloom::get_hash(row);
                    let runs = tables.iter_levels().flat_map(|level| level.iter());
                    for table in runs.filter_map(|run| run.get_for_key(row)) {
                        if let Some(found) = table.get(row, SeqNo::MAX, hash)? {
                            return Ok(Some(found));
                        }
                    }
                    Ok(None)
                }),
                walk: Box::new(move |from, to, seqno| {
                    let (range, whole) = (from..to, whole.clone());
                    Box::new(Tree::create_internal_range(whole, &range, seqno, None))
                }),
            })
        });
        self.current.store(view);
    }
}
