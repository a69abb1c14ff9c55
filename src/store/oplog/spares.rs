//! Files for segments to come.
//!
//! ```text
//! created --zeros, a piece with every few appends--> ready --> the next segment
//!                                                      ^             | retired
//!                                                      '-- renamed <-'
//! ```
//! Overwriting written blocks syncs twice as fast as growing a file does, and a disk that
//! is full is noticed here, long before the active segment is.
//!
//! Invariant: a file that was a segment is used again only when its name as a spare is
//! durable; else a power loss could bring it back under its old name with new bytes in it.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::LogError;
use super::layout::FRAMES_AT;
use super::segment::Segment;
use super::shared::Shared;
use super::sync::sync_names;
use crate::store::disk::{DiskFile, write_all_at};

/// Files kept for later; more of them are removed.
const SPARES_MAX: usize = 2;

/// Written at once.
const ZEROS: &[u8] = &[0; 128 * 1024];

#[derive(Debug)]
pub(super) struct Spare {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) capacity: u64,
    /// It may be used when so many changes of names are synced.
    usable_from: u64,
}

#[derive(Debug)]
struct Growing {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    zeroed: u64,
    capacity: u64,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Spares {
    /// Length of an ordinary segment.
    segment_bytes: u64,
    ready: Vec<Spare>,
    growing: Option<Growing>,
    next_number: u64,
}

impl Spares {
    pub(super) fn new(segment_bytes: u64, next_number: u64) -> Self {
        Self {
            segment_bytes,
            ready: Vec::with_capacity(SPARES_MAX),
            growing: None,
            next_number,
        }
    }

    /// Whether an ordinary segment could follow at once.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Files that are here, ready or not.
    pub(super) fn count(&self) -> usize {
        self.ready.len() + usize::from(self.growing.is_some())
    }

    /// Takes in a file that was a spare before the log was opened.
    pub(super) fn adopt(&mut self, shared: &Shared, path: &Path) -> Result<(), LogError> {
        let failed = |doing| {
            move |source| LogError::Io {
                file: path.to_path_buf(),
                doing,
                source,
            }
        };
        let file = shared.files.open(path).map_err(failed("opened"))?;
        let length = file.length().map_err(failed("measured"))?;
        if length != self.segment_bytes || self.ready.len() >= SPARES_MAX {
            return shared.files.remove(path).map_err(failed("removed"));
        }
        self.ready.push(Spare {
            file,
            path: path.to_path_buf(),
            capacity: length,
            usable_from: 0,
        });
        Ok(())
    }

    /// Writes some of the zeros of the next segment, about `bytes`.
    pub(super) fn grow(&mut self, shared: &Shared, bytes: u64) -> Result<(), LogError> {
        let mut growing = match self.growing.take() {
            Some(growing) => growing,
            None => self.create(shared, self.segment_bytes)?,
        };
        let goal = growing.zeroed.saturating_add(bytes).min(self.segment_bytes);
        let grown = growing.grow_to(shared, goal);
        if growing.zeroed < self.segment_bytes {
            self.growing = Some(growing);
        } else {
            self.ready.push(growing.into_spare());
        }
        grown
    }

    /// A file that has room for `frame_bytes`, no longer a spare.
    pub(super) fn for_frame(
        &mut self,
        shared: &Shared,
        frame_bytes: u64,
    ) -> Result<Spare, LogError> {
        let capacity = FRAMES_AT + frame_bytes;
        if capacity > self.segment_bytes {
            let mut growing = self.create(shared, capacity.next_multiple_of(FRAMES_AT))?;
            return match growing.grow_to(shared, growing.capacity) {
                Ok(()) => Ok(growing.into_spare()),
                Err(error) => {
                    // It would only keep the room that is missing.
                    let _ = shared.files.remove(&growing.path);
                    Err(error)
                }
            };
        }
        while self.ready.is_empty() {
            self.grow(shared, u64::MAX)?;
        }
        let (synced, changed) = {
            let unsynced = shared.unsynced();
            (unsynced.names_synced, unsynced.names_changed)
        };
        let mut ready = self.ready.iter();
        let at = match ready.position(|spare| spare.usable_from <= synced) {
            Some(at) => at,
            None => {
                sync_names(shared, changed)?;
                0
            }
        };
        Ok(self.ready.swap_remove(at))
    }

    /// Takes a segment that nobody needs any more: its file becomes a spare, or goes.
    /// Readers that are in it keep it to themselves.
    pub(super) fn retire(
        &mut self,
        shared: &Shared,
        segment: Arc<Segment>,
    ) -> Result<(), (Arc<Segment>, LogError)> {
        let is_ordinary = segment.capacity == self.segment_bytes;
        let is_wanted = is_ordinary && self.ready.len() < SPARES_MAX;
        // The list no longer has it: whoever holds it besides us is a reader.
        let is_free = Arc::strong_count(&segment) == 1;
        let done = if is_wanted && is_free {
            let path = self.next_path(shared);
            let renamed = shared.files.rename(&segment.path, &path);
            renamed.map(|()| Some(path))
        } else {
            shared.files.remove(&segment.path).map(|()| None)
        };
        let reused = match done {
            Ok(reused) => reused,
            Err(source) => {
                let error = shared.write_failed(&segment.path, "retired", source);
                return Err((segment, error));
            }
        };
        let mut unsynced = shared.unsynced();
        unsynced.names_changed += 1;
        if let Some(path) = reused {
            self.ready.push(Spare {
                file: segment.file.clone(),
                path,
                capacity: segment.capacity,
                usable_from: unsynced.names_changed,
            });
        }
        Ok(())
    }

    fn create(&mut self, shared: &Shared, capacity: u64) -> Result<Growing, LogError> {
        let path = self.next_path(shared);
        let file = shared
            .files
            .create(&path)
            .map_err(|source| shared.write_failed(&path, "created", source))?;
        shared.unsynced().names_changed += 1;
        Ok(Growing {
            file,
            path,
            zeroed: 0,
            capacity,
        })
    }

    fn next_path(&mut self, shared: &Shared) -> PathBuf {
        let number = self.next_number;
        self.next_number += 1;
        shared.dir.join(spare_name(number))
    }
}

impl Growing {
    fn grow_to(&mut self, shared: &Shared, goal: u64) -> Result<(), LogError> {
        while self.zeroed < goal {
            let left = self.capacity.min(goal.next_multiple_of(FRAMES_AT)) - self.zeroed;
            let count = left.min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..count as usize).unwrap_or(ZEROS);
            write_all_at(&*self.file, &mut [IoSlice::new(zeros)], self.zeroed)
                .map_err(|source| shared.write_failed(&self.path, "filled", source))?;
            self.zeroed += count;
            let mut unsynced = shared.unsynced();
            match &mut unsynced.zeros {
                Some((file, bytes)) if Arc::ptr_eq(file, &self.file) => *bytes += count,
                zeros => *zeros = Some((self.file.clone(), count)),
            }
        }
        Ok(())
    }

    fn into_spare(self) -> Spare {
        Spare {
            file: self.file,
            path: self.path,
            capacity: self.capacity,
            usable_from: 0,
        }
    }
}

/// Name of a spare file.
pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:020}")
}

/// The number in a spare file's name.
pub(super) fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.parse().ok()
}

/// Name of a segment's file. A crash may undo the naming of a segment, and its sequence is
/// used again then, perhaps for the same file: the incarnation tells the two apart, should
/// the second header not reach the disk.
pub(super) fn segment_name(sequence: u64, incarnation: u32) -> String {
    format!("segment-{sequence:020}-{incarnation:010}")
}

/// Sequence and incarnation in a segment file's name.
pub(super) fn segment_number(name: &str) -> Option<(u64, u32)> {
    let (sequence, incarnation) = name.strip_prefix("segment-")?.split_once('-')?;
    Some((sequence.parse().ok()?, incarnation.parse().ok()?))
}
