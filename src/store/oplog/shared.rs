//! What the log's owner, its syncers and its readers all see.
//!
//! Invariants
//! - `end` is raised after the frame before it was written: who has loaded it may read;
//! - the list's segments follow each other: a sealed one ends where the next begins;
//! - whoever takes both locks takes `segments` first;
//! - `poison` is set once and never taken back.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::error::LogError;
use super::layout::Seed;
use super::segment::Segment;
use crate::store::disk::{DiskFile, Files, is_full};

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    pub(super) seed: Seed,
    /// Offset after the last byte.
    end: AtomicU64,
    /// Offset up to which all is synced.
    durable: AtomicU64,
    /// Grows when the log begins anew at another offset.
    pub(super) history: AtomicU64,
    poison: OnceLock<String>,
    segments: Mutex<VecDeque<Arc<Segment>>>,
    unsynced: Mutex<Unsynced>,
    /// Held while somebody syncs; how far the last mark went.
    pub(super) syncing: Mutex<u64>,
    /// The disk had no room for the segment to come.
    pub(super) needs_room: AtomicBool,
}

/// What the next sync has to do besides the active segment.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Segments that were sealed since.
    pub(super) sealed: Vec<Arc<Segment>>,
    /// The spare that is filled with zeros, and how many of them are not synced.
    pub(super) zeros: Option<(Arc<dyn DiskFile>, u64)>,
    /// Changes of names so far, and how many of them are synced.
    pub(super) names_changed: u64,
    pub(super) names_synced: u64,
}

impl Shared {
    pub(super) fn new(
        files: Arc<dyn Files>,
        dir: &Path,
        seed: Seed,
        segments: VecDeque<Arc<Segment>>,
        end: u64,
    ) -> Self {
        Self {
            files,
            dir: dir.to_path_buf(),
            seed,
            end: AtomicU64::new(end),
            durable: AtomicU64::new(end),
            history: AtomicU64::new(0),
            poison: OnceLock::new(),
            segments: Mutex::new(segments),
            unsynced: Mutex::new(Unsynced::default()),
            syncing: Mutex::new(end),
            needs_room: AtomicBool::new(false),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(super) fn set_durable(&self, offset: u64) {
        self.durable.store(offset, Ordering::Release);
    }

    pub(super) fn history(&self) -> u64 {
        self.history.load(Ordering::Acquire)
    }

    /// The oldest offset that is still there.
    pub(super) fn start(&self) -> u64 {
        let front = self.segments().front().map(|segment| segment.base);
        front.unwrap_or_else(|| self.end())
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, VecDeque<Arc<Segment>>> {
        locked(&self.segments)
    }

    pub(super) fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        locked(&self.unsynced)
    }

    pub(super) fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    /// # Errors
    /// [`LogError::Poisoned`] if something failed before.
    pub(super) fn check_poison(&self) -> Result<(), LogError> {
        match self.poison.get() {
            None => Ok(()),
            Some(why) => Err(LogError::Poisoned { why: why.clone() }),
        }
    }

    /// What is to be said after a write to `file` failed: the disk is full and all is as
    /// before; or it is broken, and the log with it.
    pub(super) fn write_failed(
        &self,
        file: &Path,
        doing: &'static str,
        source: io::Error,
    ) -> LogError {
        let file = file.to_path_buf();
        if is_full(&source) {
            return LogError::DiskFull { file, source };
        }
        self.broken(LogError::Io {
            file,
            doing,
            source,
        })
    }

    /// What is to be said after a sync of `file` failed, whatever the reason.
    pub(super) fn sync_failed(&self, file: &Path, source: io::Error) -> LogError {
        self.broken(LogError::Io {
            file: file.to_path_buf(),
            doing: "synced",
            source,
        })
    }

    /// Poisons the log, unless `error` is one that passes.
    pub(super) fn broken(&self, error: LogError) -> LogError {
        if !matches!(error, LogError::DiskFull { .. }) {
            let _ = self.poison.set(error.to_string());
        }
        error
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
