//! What ends a merge before it is done: the end of the engine; for a merge of the whole
//! tree also writers who would have to wait for it, and a disk that gets full.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::EngineError;

/// Asked by the filter for each row that a merge meets.
pub(super) struct Brake {
    is_stopped: AtomicBool,
    /// What has to stay free while a merge of the whole tree runs; 0 if none does.
    keep_free: AtomicU64,
    /// That merge has to end: writers would have to wait for it, or the disk gets full.
    is_asked: AtomicBool,
    dir: PathBuf,
}

impl Brake {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            is_stopped: AtomicBool::new(false),
            keep_free: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            dir: dir.to_owned(),
        }
    }

    /// All merges end, for good.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// From now on, the one merge that runs is of the whole tree.
    pub(super) fn begin_whole(&self, keep_free: u64) {
        self.is_asked.store(false, Ordering::Release);
        self.keep_free.store(keep_free.max(1), Ordering::Release);
    }

    pub(super) fn end_whole(&self) {
        self.keep_free.store(0, Ordering::Release);
    }

    /// A merge of the whole tree, if one runs, makes way.
    pub(super) fn ask(&self) {
        self.is_asked.store(true, Ordering::Release);
    }

    /// Whether a merge of the whole tree runs that has to end.
    pub(super) fn ends_whole(&self) -> bool {
        let keep_free = self.keep_free.load(Ordering::Acquire);
        if keep_free == 0 {
            return false;
        }
        // If it cannot be told, the merge will meet it.
        if free_bytes(&self.dir).is_ok_and(|free| free < keep_free) {
            self.ask();
        }
        self.is_asked.load(Ordering::Acquire)
    }
}

/// What the disk has left for us.
pub(super) fn free_bytes(dir: &Path) -> Result<u64, EngineError> {
    let disk = rustix::fs::statvfs(dir)
        .map_err(|e| EngineError::io("ask for the free space", &e.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
