//! The threads that compact the tree, whenever something was added to it.
//!
//! ```text
//!   wait --wake--> choose and merge, until there is nothing to do --> wait
//!                |      `-- an error --> told to the next write
//!                '-- all of it, if that is worth it: see `whole`
//! ```
//! A full disk is not told: a merge that failed of it has changed nothing, and the writer
//! looks for room by itself.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use lsm_tree::compaction::Leveled;
use lsm_tree::{AbstractTree, SequenceNumberCounter, Tree};

use super::brake::Brake;
use super::opening::told;
use super::whole::{self, Pause};
use super::{EngineError, EngineOptions};

/// Size of a table, as it is aimed at.
pub(super) const TABLE_BYTES: u64 = 64 << 20;

/// Tables of level 0 from which on they are merged into the next.
const L0_TABLES_MAX: u8 = 6;

/// A compaction writes its tables anew before it frees the old ones: all of them, but
/// hardly more than this at a time.
const COMPACTION_BYTES_MAX: u64 = 1 << 30;

/// What a compaction may need before it frees anything.
pub(super) fn room_to_merge(tree: &Tree) -> u64 {
    tree.disk_space().min(COMPACTION_BYTES_MAX)
}

pub(super) struct Compactor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    running: AtomicUsize,
    brake: Arc<Brake>,
    /// Held alone by who merges the whole tree.
    merging: RwLock<()>,
    /// Held by who makes tables elsewhere.
    writing: Arc<Mutex<()>>,
    /// What stays free on the disk in any case.
    free_bytes_min: u64,
    dir: PathBuf,
}

#[derive(Default)]
struct State {
    /// How often somebody called [`Compactor::wake`].
    wakes: u64,
    /// Nobody has written for a while.
    is_idle: bool,
    /// After a merge of the whole tree.
    pause: Pause,
    failure: Option<EngineError>,
}

impl Compactor {
    pub(super) fn start(
        tree: &Tree,
        seqno: &SequenceNumberCounter,
        options: &EngineOptions,
        brake: Arc<Brake>,
        writing: Arc<Mutex<()>>,
        dir: &Path,
    ) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            running: AtomicUsize::new(0),
            brake,
            merging: RwLock::default(),
            writing,
            free_bytes_min: options.free_bytes_min,
            dir: dir.to_owned(),
        });
        let mut compactor = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        for _ in 0..options.worker_threads.max(1) {
            let (shared, tree, seqno) = (Arc::clone(&shared), tree.clone(), seqno.clone());
            let thread = Builder::new()
                .name("store-compactor".to_owned())
                .spawn(move || shared.run(&tree, &seqno))
                .map_err(|e| EngineError::io("start a thread that compacts", &e))?;
            compactor.threads.push(thread);
        }
        // What a crash kept from being merged.
        compactor.wake();
        Ok(compactor)
    }

    /// Tables were added.
    pub(super) fn wake(&self) {
        self.shared.state().wakes += 1;
        self.shared.changed.notify_all();
    }

    /// Nothing is merged any more.
    pub(super) fn stop(&self) {
        self.shared.brake.stop();
        self.wake();
    }

    /// A merge of the whole tree makes way, if one runs.
    pub(super) fn make_way(&self) {
        self.shared.brake.ask();
    }

    /// To be called now and then; begins a merge of the whole tree if it is due.
    pub(super) fn tidy(&self, tree: &Tree, is_idle: bool) {
        self.shared.state().is_idle = is_idle;
        if self.shared.is_whole_due(tree) {
            self.wake();
        }
    }

    /// Nobody merges as long as it is held.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.alone()
    }

    pub(super) fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Why a merge failed, if one did.
    pub(super) fn failure(&self) -> Option<EngineError> {
        self.shared.state().failure.clone()
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            // What it panicked of was told.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, tree: &Tree, seqno: &SequenceNumberCounter) {
        let mut seen = 0;
        while !self.brake.is_stopped() {
            let mut state = self.state();
            while state.wakes == seen {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
            seen = state.wakes;
            drop(state);
            let merged = catch_unwind(AssertUnwindSafe(|| self.merge(tree, seqno)));
            let error = match merged {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => told("compact", &self.dir, error),
                Err(_) => EngineError::Corrupt {
                    path: self.dir.clone(),
                    what: "a compaction panicked".to_owned(),
                },
            };
            let is_full = matches!(&error, EngineError::Io { kind, .. }
                if *kind == io::ErrorKind::StorageFull);
            if self.brake.is_stopped() {
                return;
            }
            tracing::warn!(%error, "a compaction failed");
            if !is_full {
                self.state().failure.get_or_insert(error);
                return;
            }
        }
    }

    fn merge(&self, tree: &Tree, seqno: &SequenceNumberCounter) -> lsm_tree::Result<()> {
        let strategy = Arc::new(
            Leveled::default()
                .with_l0_threshold(L0_TABLES_MAX)
                .with_table_target_size(TABLE_BYTES),
        );
        while !self.brake.is_stopped() {
            let merging = self.merging.read().unwrap_or_else(PoisonError::into_inner);
            let before = tree.current_version().id();
            self.running.fetch_add(1, Ordering::AcqRel);
            // Who reads holds the tables of its time: older versions need not be kept.
            let merged = tree.compact(strategy.clone(), seqno.get());
            self.running.fetch_sub(1, Ordering::AcqRel);
            merged?;
            let is_done = tree.current_version().id() == before;
            drop(merging);
            if is_done {
                break;
            }
        }
        self.merge_whole(tree, seqno)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.merging.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_whole_due(&self, tree: &Tree) -> bool {
        let state = self.state();
        let (is_idle, may_begin) = (state.is_idle, state.pause.is_over());
        drop(state);
        may_begin && !self.brake.is_stopped() && whole::is_worth_it(tree, is_idle)
    }

    fn merge_whole(&self, tree: &Tree, seqno: &SequenceNumberCounter) -> lsm_tree::Result<()> {
        if !self.is_whole_due(tree) {
            return Ok(());
        }
        let _alone = self.alone();
        // Somebody else may have done it meanwhile.
        if !self.is_whole_due(tree) {
            return Ok(());
        }
        let keep_free = room_to_merge(tree)
            .saturating_mul(2)
            .saturating_add(self.free_bytes_min);
        let began = Instant::now();
        self.running.fetch_add(1, Ordering::AcqRel);
        let merged = whole::merge(
            tree,
            seqno,
            &self.brake,
            keep_free,
            &self.writing,
            &self.dir,
        );
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.state().pause = Pause::after(began.elapsed());
        merged
    }
}
