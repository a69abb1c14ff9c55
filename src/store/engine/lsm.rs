//! The engine on disk: a log-structured merge tree without a journal, contained. The log
//! of the shard is its journal.
//!
//! ```text
//!                 large, in order
//!   write_sorted ------------------------> tables, synced
//!        '-- small --.                      ^
//!   write -----------+--> memtable ---------' full, persist, or something large comes
//! ```
//!
//! - What is in the memtable is lost with the process; [`Engine::persist`] makes a table
//!   of it. Tables appear in the order of the writes, each write in one piece: what a
//!   crash leaves is all up to one of them.
//! - Who writes flushes, too, so no memtable ever waits for a flush.
//! - Values in files of their own, weak tombstones, `clear`, FIFO: never. Their defects
//!   keep coming back.
//! - A full disk in the middle of a write ends the engine. So we look first, and answer
//!   `NoSpace`.
//! - It panics on keys of more than 65,535 bytes and on some damaged files: the first are
//!   refused, the second caught and told.
//! - Its reads wait while it syncs a list of tables. Ours do not: see `view`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lsm_tree::{
    AbstractTree, Cache, InternalValue, SeqNo, SequenceNumberCounter, Slice, Tree, ValueType,
};

use super::brake::free_bytes;
use super::compactor::{Compactor, TABLE_BYTES, room_to_merge};
use super::dead::DeadIds;
use super::filter::Told;
use super::opening::{self, told};
use super::view::{View, Views};
use super::{Change, Engine, EngineError, EngineSnapshot, EngineStats, RowIter, check_row};

/// Runs in level 0 at which nothing more is written, until some are merged.
const L0_RUNS_MAX: usize = 24;

/// Runs in level 0 from which on a merge of the whole tree makes way for others.
const L0_RUNS_BESIDE_WHOLE: usize = 14;

/// Nobody has written for so long: it is time to tidy up.
const IDLE: Duration = Duration::from_secs(30);

/// What a byte in memory may become before anything is freed.
const SPACE_AMPLIFICATION: u64 = 2;

/// How the engine on disk shares out what it has.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Memory for blocks of tables.
    pub cache_bytes: u64,
    /// Size of the memtable. A batch in order that is half as large becomes tables at once.
    pub memtable_bytes: u64,
    /// Threads that compact.
    pub worker_threads: usize,
    /// Nothing is written unless as much stays free on the disk, besides what flushes and
    /// compactions need.
    pub free_bytes_min: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            worker_threads: 2,
            free_bytes_min: 256 << 20,
        }
    }
}

/// Ordered rows on disk. See [`open_lsm`].
pub struct LsmEngine {
    // Dropped first: it waits for its threads, which use the tree.
    compactor: Compactor,
    tree: Tree,
    cache: Arc<Cache>,
    views: Views,
    /// Held by who writes or flushes: nothing may come into a memtable while a table is
    /// made of it.
    writing: Arc<Mutex<()>>,
    /// Up to where it was written when it was last looked at, and since when.
    seen: Mutex<(SeqNo, Instant)>,
    /// The next sequence number; compactions take some, too.
    seqno: SequenceNumberCounter,
    /// All batches below this sequence number are whole.
    whole_below: AtomicU64,
    /// A write failed: what is on disk is not known.
    is_poisoned: AtomicBool,
    told: Told,
    dir: PathBuf,
    options: EngineOptions,
    lock: Arc<File>,
}

/// Opens the engine in `dir`, or makes it if there is nothing yet.
pub fn open_lsm(dir: &Path, options: &EngineOptions) -> Result<LsmEngine, EngineError> {
    let opening::Opened {
        tree,
        cache,
        seqno,
        told,
        brake,
        lock,
    } = opening::open(dir, options)?;
    let writing = Arc::default();
    Ok(LsmEngine {
        compactor: Compactor::start(&tree, &seqno, options, brake, Arc::clone(&writing), dir)?,
        views: Views::of(&tree),
        writing,
        seen: Mutex::new((0, Instant::now())),
        whole_below: AtomicU64::new(seqno.get()),
        tree,
        cache,
        seqno,
        is_poisoned: AtomicBool::new(false),
        told,
        dir: dir.to_owned(),
        options: options.clone(),
        lock,
    })
}

impl LsmEngine {
    /// Flushes what is in memory, and compacts all tables into one level. Waits for it.
    pub fn compact_all(&self) -> Result<(), EngineError> {
        self.flush()?;
        let alone = self.compactor.alone();
        self.tree
            .major_compact(TABLE_BYTES, self.seqno.get())
            .map_err(|e| told("compact", &self.dir, e))?;
        drop(alone);
        self.rest();
        Ok(())
    }

    /// Makes a table of the memtable.
    pub fn flush(&self) -> Result<(), EngineError> {
        self.flush_in(&self.writing())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_in(&self, writing: &MutexGuard<'_, ()>) -> Result<(), EngineError> {
        if self.tree.active_memtable().is_empty() {
            return Ok(());
        }
        self.check_poison()?;
        let flushed = self.tree.flush_active_memtable(self.seqno.get());
        self.written("flush rows", flushed)?;
        self.renew_view(writing);
        self.compactor.wake();
        Ok(())
    }

    /// Notes that nothing may be written any more if it failed.
    fn written<T>(
        &self,
        doing: &'static str,
        result: lsm_tree::Result<T>,
    ) -> Result<T, EngineError> {
        result.map_err(|error| {
            self.is_poisoned.store(true, Ordering::Release);
            // What it wrote down may count at the next start: it must not be written over.
            self.compactor.stop();
            told(doing, &self.dir, error)
        })
    }

    fn check_poison(&self) -> Result<(), EngineError> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(EngineError::Poisoned);
        }
        self.compactor.failure().map_or(Ok(()), Err)
    }

    /// Says why the next write would have to wait.
    fn check_room(&self, batch_bytes: u64) -> Result<(), EngineError> {
        self.check_poison()?;
        let l0_runs = self.tree.l0_run_count();
        if l0_runs >= L0_RUNS_BESIDE_WHOLE {
            self.compactor.make_way();
        }
        if l0_runs >= L0_RUNS_MAX {
            self.compactor.wake();
            return Err(EngineError::Busy { l0_runs });
        }
        let free_bytes = free_bytes(&self.dir)?;
        let needed_bytes = batch_bytes
            .saturating_add(self.tree.active_memtable().size())
            .saturating_mul(SPACE_AMPLIFICATION)
            .saturating_add(room_to_merge(&self.tree))
            .saturating_add(self.options.free_bytes_min);
        if free_bytes < needed_bytes {
            return Err(EngineError::NoSpace {
                free_bytes,
                needed_bytes,
            });
        }
        Ok(())
    }

    fn renew_view(&self, _: &MutexGuard<'_, ()>) {
        self.views.renew(&self.tree);
    }

    /// Whether nobody has written for a while.
    fn is_idle(&self) -> bool {
        let written = self.whole_below.load(Ordering::Acquire);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != written {
            *seen = (written, Instant::now());
        }
        seen.1.elapsed() >= IDLE
    }

    fn is_whole_below(&self, seqno: SeqNo) {
        self.whole_below.store(seqno, Ordering::Release);
    }
}

fn item((key, value): Change<'_>, seqno: SeqNo) -> InternalValue {
    match value {
        Some(value) => {
            let value = Slice::from(value.clone());
            InternalValue::from_components(key, value, seqno, ValueType::Value)
        }
        None => InternalValue::new_tombstone(key, seqno),
    }
}

impl Engine for LsmEngine {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.views
            .get(row)
            .map_err(|e| told("read a row", &self.dir, e))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        let view = self.views.current();
        // After the view: what that has merged away must be below it.
        let seqno = self.whole_below.load(Ordering::Acquire);
        rows_of(&view, from, to, seqno, &self.dir)
    }

    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        Ok(Box::new(Moment {
            view: self.views.current(),
            seqno: self.whole_below.load(Ordering::Acquire),
            dir: self.dir.clone(),
            _lock: Arc::clone(&self.lock),
        }))
    }

    fn write<'a>(&self, batch: &mut dyn Iterator<Item = Change<'a>>) -> Result<(), EngineError> {
        let writing = self.writing();
        let seqno = self.seqno.next();
        let mut items = Vec::new();
        let mut bytes = 0u64;
        for (key, value) in batch {
            check_row(key, value)?;
            bytes += (key.len() + value.map_or(0, Bytes::len)) as u64;
            items.push(item((key, value), seqno));
        }
        self.check_room(bytes)?;
        let memtable = self.tree.active_memtable();
        for item in items {
            memtable.insert(item);
        }
        self.is_whole_below(seqno + 1);
        if memtable.size() >= self.options.memtable_bytes {
            self.flush_in(&writing)?;
        }
        Ok(())
    }

    fn write_sorted<'a>(
        &self,
        batch: &mut dyn Iterator<Item = Change<'a>>,
        bytes: usize,
    ) -> Result<(), EngineError> {
        let bytes = bytes as u64;
        if bytes < self.options.memtable_bytes / 2 {
            return self.write(batch);
        }
        let writing = self.writing();
        self.check_room(bytes)?;
        // Its rows are older, and would be found first.
        self.flush_in(&writing)?;
        let seqno = self.seqno.next();
        let (mut refused, mut last) = (None, Slice::from(&[][..]));
        let items = batch.map(|(key, value)| {
            let checked = check_row(key, value).and_then(|()| match *last < *key {
                true => Ok(()),
                false => Err(EngineError::Unsorted),
            });
            checked.map_err(|error| {
                refused = Some(error);
                lsm_tree::Error::Unrecoverable
            })?;
            let item = item((key, value), seqno);
            last = item.key.user_key.clone();
            Ok(item)
        });
        let made = self.tree.flush_to_tables(items);
        if let Some(error) = refused {
            return Err(error);
        }
        let (tables, _) = self.written("write rows", made)?.unwrap_or_default();
        let registered = self
            .tree
            .register_tables(&tables, None, None, &[], self.seqno.get());
        self.written("write the list of tables", registered)?;
        self.is_whole_below(seqno + 1);
        self.renew_view(&writing);
        self.compactor.wake();
        Ok(())
    }

    fn persist(&self) -> Result<(), EngineError> {
        self.flush()
    }

    fn rest(&self) {
        let writing = self.writing();
        // The tree forgets its former lists of tables, and with them the tables, when it
        // makes a new one: after the last merge nobody does.
        let forgotten = self
            .tree
            .get_version_history_lock()
            .maintenance(&self.dir, self.seqno.get());
        if let Err(error) = forgotten {
            tracing::warn!(%error, "former tables are kept for a while");
        }
        self.renew_view(&writing);
        drop(writing);
        self.compactor.tidy(&self.tree, self.is_idle());
    }

    fn mark_dead(&self, dead: Arc<DeadIds>) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = Some(dead);
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            disk_bytes: self.tree.disk_space(),
            tables: self.tree.table_count(),
            l0_runs: self.tree.l0_run_count(),
            memtable_bytes: self.tree.active_memtable().size(),
            cache_bytes: self.cache.size(),
            compactions: self.compactor.running(),
        }
    }
}

/// What is seen of one moment.
struct Moment {
    view: Arc<View>,
    seqno: SeqNo,
    dir: PathBuf,
    /// Dropped last: its tables are in the directory.
    _lock: Arc<File>,
}

impl EngineSnapshot for Moment {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.view
            .get(row, self.seqno)
            .map_err(|e| told("read a row", &self.dir, e))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        rows_of(&self.view, from, to, self.seqno, &self.dir)
    }
}

fn rows_of(view: &View, from: &[u8], to: &[u8], seqno: SeqNo, dir: &Path) -> RowIter {
    if from >= to {
        return Box::new(std::iter::empty());
    }
    let dir = dir.to_owned();
    Box::new(view.range(from, to, seqno).map(move |row| match row {
        Ok(row) => Ok((row.key.user_key.into(), row.value.into())),
        Err(error) => Err(told("read rows", &dir, error)),
    }))
}
