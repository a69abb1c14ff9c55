//! Syncing, from any thread.
//!
//! An offset counts as durable after: sealed segments, the active one, and the directory
//! are synced, whatever of them changed. A failure poisons the log for ever, since the
//! system may have dropped the pages and would call the next sync a success.
//!
//! A sync that finds nothing to do writes the *mark*, once: an idle log so says how far it
//! was durable, and damage behind its last sync is told from a tail that never arrived.

use std::io::IoSlice;
use std::sync::Arc;

use super::error::LogError;
use super::layout::{MARK_AT, Mark};
use super::segment::Segment;
use super::shared::{Shared, locked};
use crate::store::disk::{DiskFile, is_full, write_all_at};

/// Zeros of the segment to come are synced in pieces of this size, so that no sync of
/// frames has to wait for a whole file of them.
const ZEROS_UNSYNCED_BYTES_MAX: u64 = 1024 * 1024;

/// Syncs a log, beside the thread that appends to it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Syncer {
    pub(super) shared: Arc<Shared>,
}

impl Syncer {
    /// Makes all that was appended before the call durable; answers the offset up to which
    /// the log survives a power loss now.
    ///
    /// # Errors
    /// [`LogError::Io`] once, [`LogError::Poisoned`] from then on.
    pub fn sync(&self) -> Result<u64, LogError> {
        let shared = &*self.shared;
        let mut marked = locked(&shared.syncing);
        shared.check_poison()?;
        let end = shared.end();
        let work = Work::take(shared);
        let durable = shared.durable();
        let Some(active) = &work.active else {
            return Ok(durable);
        };
        let is_idle = end == durable && work.sealed.is_empty() && !work.names_are_dirty;
        if is_idle && *marked == durable {
            return Ok(durable);
        }
        if is_idle {
            write_mark(shared, active, durable)?;
            *marked = durable;
        }
        for segment in work.sealed.iter().chain([active]) {
            segment
                .file
                .sync_data()
                .map_err(|source| shared.sync_failed(&segment.path, source))?;
        }
        if work.names_are_dirty {
            sync_names(shared, work.names_changed)?;
        }
        if let Some(zeros) = work.zeros {
            zeros
                .sync_data()
                .map_err(|source| shared.sync_failed(&shared.dir, source))?;
        }
        shared.set_durable(end);
        Ok(end)
    }

    /// Offset up to which the log survives a power loss.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable()
    }

    /// Whether a sync would find something to do.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shared.durable() < self.shared.end()
    }

    /// What failed, if the log is poisoned.
    #[must_use]
    pub fn is_poisoned(&self) -> Option<String> {
        self.shared.poisoned().map(str::to_owned)
    }
}

/// What one sync has to do.
struct Work {
    sealed: Vec<Arc<Segment>>,
    active: Option<Arc<Segment>>,
    zeros: Option<Arc<dyn DiskFile>>,
    names_are_dirty: bool,
    names_changed: u64,
}

impl Work {
    fn take(shared: &Shared) -> Self {
        let segments = shared.segments();
        let mut unsynced = shared.unsynced();
        let zeros = match &mut unsynced.zeros {
            Some((file, bytes)) if *bytes >= ZEROS_UNSYNCED_BYTES_MAX => {
                *bytes = 0;
                Some(file.clone())
            }
            _ => None,
        };
        Self {
            sealed: std::mem::take(&mut unsynced.sealed),
            active: segments.back().cloned(),
            zeros,
            names_are_dirty: unsynced.names_changed > unsynced.names_synced,
            names_changed: unsynced.names_changed,
        }
    }
}

/// Syncs the directory, in which `names_changed` changes were made before the call.
pub(super) fn sync_names(shared: &Shared, names_changed: u64) -> Result<(), LogError> {
    shared
        .files
        .sync_dir(&shared.dir)
        .map_err(|source| shared.sync_failed(&shared.dir, source))?;
    let mut unsynced = shared.unsynced();
    unsynced.names_synced = unsynced.names_synced.max(names_changed);
    Ok(())
}

fn write_mark(shared: &Shared, active: &Segment, durable: u64) -> Result<(), LogError> {
    let mark = Mark {
        sequence: active.sequence,
        durable,
    };
    let bytes = mark.encode(shared.seed);
    match write_all_at(&*active.file, &mut [IoSlice::new(&bytes)], MARK_AT) {
        // It only says more than the frames do.
        Err(source) if is_full(&source) => Ok(()),
        written => written.map_err(|source| shared.write_failed(&active.path, "marked", source)),
    }
}
