//! The threads that compact the tree, whenever something was added to it.
//!
//! ```text
//!   wait --wake--> choose and merge, until there is nothing to do --> wait
//!                       `-- an error --> told to the next write
//! ```
//! A full disk is not told: a merge that failed of it has changed nothing, and the writer
//! looks for room by itself.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

pub(super) struct Compactor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    running: AtomicUsize,
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
        let strategy = Arc::new(
            Leveled::default()
                .with_l0_threshold(L0_TABLES_MAX)
                .with_table_target_size(TABLE_BYTES),
        );
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
