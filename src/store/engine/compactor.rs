//! The threads that compact the tree, whenever something was added to it.
//!
//! ```text
//!   wait --wake--> choose and merge, until there is nothing to do --> wait
//!                       `-- an error --> told to the next write
//! ```
//! Merges go by sizes, and a deletion is small: so rows that were deleted would take their
//! room until as much else was written. With many deletions, levels are held smaller for one
//! round (*squeezed*), which brings deletions down to what they delete.
//!
//! A full disk is not told: a merge that failed of it has changed nothing, and the writer
//! looks for room by itself.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use lsm_tree::compaction::Leveled;
use lsm_tree::{AbstractTree, SequenceNumberCounter, Tree};

use super::EngineError;
use super::opening::told;

/// Size of a table, as it is aimed at.
pub(super) const TABLE_BYTES: u64 = 64 << 20;

/// Tables of level 0 from which on they are merged into the next.
const L0_TABLES_MAX: u8 = 6;

/// Deletions that are not worth a squeeze.
const DELETIONS_MIN: u64 = 1_024;

/// A squeeze is due when, since the last one, so many rows in a hundred are deletions.
const DELETIONS_PERCENT: u64 = 20;

pub(super) struct Compactor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    running: AtomicUsize,
    /// Deletions that the last squeeze left, since nothing below was theirs to delete.
    deletions_left: AtomicU64,
    /// Told to the filters, which end a merge that is under way.
    stop: Arc<AtomicBool>,
    dir: PathBuf,
}

#[derive(Default)]
struct State {
    /// How often somebody called [`Compactor::wake`].
    wakes: u64,
    failure: Option<EngineError>,
}

impl Compactor {
    pub(super) fn start(
        tree: &Tree,
        seqno: &SequenceNumberCounter,
        threads: usize,
        stop: Arc<AtomicBool>,
        dir: &Path,
    ) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            running: AtomicUsize::new(0),
            deletions_left: AtomicU64::new(0),
            stop,
            dir: dir.to_owned(),
        });
        let mut compactor = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        for _ in 0..threads.max(1) {
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
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
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
        while !self.stop.load(Ordering::Acquire) {
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
            if self.stop.load(Ordering::Acquire) {
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
        let usual = Leveled::default().with_table_target_size(TABLE_BYTES);
        let (usual, squeezing) = (
            usual.clone().with_l0_threshold(L0_TABLES_MAX),
            usual.with_l0_threshold(1),
        );
        self.merge_by(usual, tree, seqno)?;
        if self.is_squeeze_due(tree) {
            self.merge_by(squeezing, tree, seqno)?;
            let left = tree.tombstone_count();
            self.deletions_left.store(left, Ordering::Release);
        }
        Ok(())
    }

    fn is_squeeze_due(&self, tree: &Tree) -> bool {
        let deletions = tree.tombstone_count();
        let left = self.deletions_left.load(Ordering::Acquire);
        let new = deletions.saturating_sub(left);
        // Fewer than were left: those went in usual merges.
        self.deletions_left.fetch_min(deletions, Ordering::AcqRel);
        let rows = tree.approximate_len() as u64;
        new >= DELETIONS_MIN && new.saturating_mul(100) >= rows.saturating_mul(DELETIONS_PERCENT)
    }

    fn merge_by(
        &self,
        strategy: Leveled,
        tree: &Tree,
        seqno: &SequenceNumberCounter,
    ) -> lsm_tree::Result<()> {
        let strategy = Arc::new(strategy);
        while !self.stop.load(Ordering::Acquire) {
            let before = tree.current_version().id();
            self.running.fetch_add(1, Ordering::AcqRel);
            // Who reads holds the tables of its time: older versions need not be kept.
            let merged = tree.compact(strategy.clone(), seqno.get());
            self.running.fetch_sub(1, Ordering::AcqRel);
            merged?;
            if tree.current_version().id() == before {
                return Ok(());
            }
        }
        Ok(())
    }
}
