//! The log of effects: redo log and replication backlog in one.
//!
//! ```text
//!            start                     durable      end
//!  ...retired  | segment | segment | segm.|...frames.|          spare  spare
//!              ^ oldest reader            ^ Syncer   ^ append
//!
//! MANIFEST              whose history it is, how it was left       manifest.rs
//! segment-<sequence>-<incarnation>
//!                       frames; each is one tick's raw RESP        layout.rs, segment.rs
//! spare-<number>        files for segments to come                 spares.rs
//! ```
//! The payloads of all frames, one after the other, are the stream that replicas read; an
//! offset is a number of bytes in it, and `end` is Redis' `master_repl_offset`.
//!
//! Invariants
//! - a frame is in the log whole or not at all, wherever a crash strikes (`recovery.rs`);
//! - what a sync covered is found again, or the log refuses to open;
//! - bytes of a tail that was cut are never taken for new ones: every opening has an
//!   incarnation of its own, which is durable before the first frame that carries it;
//! - a full disk changes nothing; after any other failure of a write or sync the log is
//!   poisoned until it is opened anew, and nothing is tried again;
//! - readers see whole, checked frames, or an error.

mod error;
mod layout;
mod manifest;
mod opening;
mod reader;
mod recovery;
mod segment;
mod selected;
mod shared;
mod spares;
mod sync;

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use layout::{FRAMES_AT, FrameHeader, SegmentHeader, frame_space};
use manifest::Manifest;
use segment::{Place, Segment};
use shared::{Shared, locked};
use spares::{Spare, Spares, segment_name};
use sync::sync_names;

pub use error::LogError;
pub use layout::LogVersion;
pub use manifest::{Identity, REPLID_BYTES, fresh_replid};
pub use reader::LogReader;
pub use recovery::LostTail;
pub use selected::EachFrame;
pub use sync::Syncer;

use crate::store::disk::{DirLock, write_all_at};

/// Longest frame.
pub const FRAME_BYTES_MAX: usize = u32::MAX as usize - 64 * 1024;

/// Shortest segment: two blocks.
pub const SEGMENT_BYTES_MIN: u64 = 2 * FRAMES_AT;

/// The next segment is written with zeros this many times as fast as frames come, so that
/// it is ready, or the disk known to be full, long before it is needed.
const PREPARE_FACTOR: u64 = 4;

/// ..in pieces of at least this many bytes of frames.
const PREPARE_STEP_BYTES: u64 = 32 * 1024;

/// Sizes of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Length of a segment's file, in bytes.
    pub segment_bytes: u64,
    /// How much of the stream is kept for replicas to come, at least.
    pub retain_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            retain_bytes: 1024 * 1024,
        }
    }
}

/// What opening a log found.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready for the next frame.
    pub log: Log,
    /// It is new, or was closed at its end. Otherwise bytes that replicas have seen may be
    /// lost: see [`Log::begin_history`].
    pub is_clean: bool,
    /// There was no log in the directory.
    pub is_new: bool,
    /// What was cut off the end, as far as it left traces.
    pub lost_tail: Option<LostTail>,
}

/// Sizes as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Segments that hold frames, or will next.
    pub segments: usize,
    /// Their files' length and that of the spares, in bytes.
    pub disk_bytes: u64,
}

/// See the head of the file. Owned by the thread that appends.
pub struct Log {
    shared: Arc<Shared>,
    options: LogOptions,
    manifest: Manifest,
    active: Arc<Segment>,
    /// Where the next frame goes.
    at: u64,
    /// Selected after the last frame.
    db: u16,
    spares: Spares,
    /// Bytes appended since the next segment was last worked on.
    unprepared_bytes: u64,
    _lock: DirLock,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.shared.dir)
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Offset after the last byte: `master_repl_offset`.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.shared.end()
    }

    /// The oldest offset a reader can begin at.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.shared.start()
    }

    /// Offset up to which the log survives a power loss.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable()
    }

    /// The database that is selected after the last byte.
    #[must_use]
    pub fn selected_db(&self) -> u16 {
        self.db
    }

    /// What failed, if the log takes no more writes.
    #[must_use]
    pub fn is_poisoned(&self) -> Option<String> {
        self.shared.poisoned().map(str::to_owned)
    }

    /// Whether the disk had no room for the segment to come: appends go on until the active
    /// one is full. Taken back as soon as there is room.
    #[must_use]
    pub fn needs_room(&self) -> bool {
        self.shared.needs_room.load(Ordering::Relaxed)
    }

    /// Sizes as they are now.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let segments = self.shared.segments();
        let used: u64 = segments.iter().map(|segment| segment.capacity).sum();
        LogStats {
            segments: segments.len(),
            disk_bytes: used + self.spares.count() as u64 * self.options.segment_bytes,
        }
    }

    /// Whose history this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.manifest.identity
    }

    /// A number, 1 at first, that only [`Log::restart_at`] changes, to a greater one.
    #[must_use]
    pub fn history(&self) -> u64 {
        self.manifest.first_sequence
    }

    /// Syncs from any thread.
    #[must_use]
    pub fn syncer(&self) -> Syncer {
        Syncer {
            shared: self.shared.clone(),
        }
    }

    /// Appends one frame, the effects of a tick, after which `selected_db` is selected;
    /// answers the new end. It is written, and not synced. An empty frame is none.
    ///
    /// # Errors
    /// [`LogError::DiskFull`]: all is as before, and it may be tried again.
    /// [`LogError::FrameTooLarge`]. Any other error poisons the log.
    pub fn append(&mut self, frame: &[u8], selected_db: u16) -> Result<u64, LogError> {
        let shared = self.shared.clone();
        shared.check_poison()?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err(LogError::FrameTooLarge { bytes: frame.len() });
        }
        let start = shared.end();
        if frame.is_empty() {
            return Ok(start);
        }
        let space = frame_space(frame.len() as u64);
        if self.at + space > self.active.capacity {
            self.roll(space)?;
        }
        let header = FrameHeader {
            payload_crc: shared.seed.sum(frame),
            length: frame.len() as u32,
            start,
            durable: shared.durable(),
            incarnation: self.manifest.incarnation,
            db_before: self.db,
            db_after: selected_db,
        };
        let head = header.encode(shared.seed);
        let mut parts = [IoSlice::new(&head), IoSlice::new(frame)];
        write_all_at(&*self.active.file, &mut parts, self.at)
            .map_err(|source| shared.write_failed(&self.active.path, "written", source))?;
        let place = Place {
            offset: start,
            at: self.at,
        };
        self.active.note(place);
        self.at += space;
        self.db = selected_db;
        shared.set_end(header.end());
        self.prepare(space);
        Ok(header.end())
    }

    /// Lets go of segments that end at or before `offset`, keeping `retain_bytes`, and all
    /// that is needed to open the log after a power loss: where nothing is ever synced,
    /// nothing is let go of.
    pub fn retain_from(&mut self, offset: u64) {
        let kept = self.end().saturating_sub(self.options.retain_bytes);
        let durable = self.shared.durable();
        let limit = offset.min(kept);
        while self.shared.poisoned().is_none() {
            let mut segments = self.shared.segments();
            // The next one's header is durable once any frame of it is.
            let is_due = segments
                .get(1)
                .is_some_and(|next| next.base <= limit && next.base < durable);
            let oldest = if is_due { segments.pop_front() } else { None };
            drop(segments);
            let Some(oldest) = oldest else { return };
            if let Err((oldest, _)) = self.spares.retire(&self.shared, oldest) {
                self.shared.segments().push_front(oldest);
                return;
            }
        }
    }

    /// Sets how much of the stream is kept for replicas to come.
    pub fn set_retain_bytes(&mut self, bytes: u64) {
        self.options.retain_bytes = bytes;
    }

    /// Makes `identity` the log's own, durably, at once or not at all.
    ///
    /// # Errors
    /// [`LogError::DiskFull`]: all is as before. Any other error poisons the log.
    pub fn set_identity(&mut self, identity: Identity) -> Result<(), LogError> {
        self.write_manifest(Manifest {
            identity,
            ..self.manifest
        })
    }

    /// Begins a new history at the end: the id so far becomes the second one, valid up to
    /// here. After an unclean stop, and when a replica is promoted. A second id from before
    /// is forgotten.
    ///
    /// # Errors
    /// As [`Log::set_identity`].
    pub fn begin_history(&mut self) -> Result<Identity, LogError> {
        let identity = Identity {
            replid: fresh_replid(),
            replid2: Some((self.manifest.identity.replid, self.end())),
        };
        self.set_identity(identity)?;
        Ok(identity)
    }

    /// Begins anew at `offset`, with another's history and no bytes of it: after a full
    /// sync. Readers of what was there are told that it is gone.
    ///
    /// # Errors
    /// [`LogError::DiskFull`]: all is as before. Any other error poisons the log.
    pub fn restart_at(&mut self, offset: u64, identity: Identity) -> Result<(), LogError> {
        self.restart_in(offset, 0, identity)
    }

    /// The same, with `selected_db` selected: the stream goes on in it.
    ///
    /// # Errors
    /// As [`Log::restart_at`].
    pub fn restart_in(
        &mut self,
        offset: u64,
        selected_db: u16,
        identity: Identity,
    ) -> Result<(), LogError> {
        let shared = self.shared.clone();
        shared.check_poison()?;
        let mut marked = locked(&shared.syncing);
        let manifest = Manifest {
            identity,
            incarnation: self.manifest.incarnation.saturating_add(1),
            first_sequence: self.active.sequence + 1,
            base: offset,
            ..self.manifest
        };
        let segment = self.new_segment(&SegmentHeader {
            sequence: manifest.first_sequence,
            base: offset,
            // Offsets of the former history mean nothing in this one.
            durable: 0,
            incarnation: manifest.incarnation,
            db: selected_db,
        })?;
        segment
            .file
            .sync_data()
            .map_err(|source| shared.sync_failed(&segment.path, source))?;
        let changed = shared.unsynced().names_changed;
        sync_names(&shared, changed)?;
        let written = self.write_manifest(manifest);
        if let Err(LogError::DiskFull { .. }) = written {
            // The old manifest stands. After other errors either may, and needs its segment.
            let _ = shared.files.remove(&segment.path);
        }
        written?;
        let fresh = [segment.clone()].into();
        let old = std::mem::replace(&mut *shared.segments(), fresh);
        shared.unsynced().sealed.clear();
        shared.history.fetch_add(1, Ordering::AcqRel);
        shared.set_end(offset);
        shared.set_durable(offset);
        *marked = offset;
        self.at = segment.first().at;
        self.db = selected_db;
        self.active = segment;
        for segment in old {
            // What cannot be retired now is when the log is opened next.
            if let Err((_, LogError::Io { .. })) = self.spares.retire(&shared, segment) {
                break;
            }
        }
        Ok(())
    }

    /// Syncs everything and notes that the log ends here: it is opened as clean then.
    ///
    /// # Errors
    /// As [`Syncer::sync`] and [`Log::set_identity`]; it is opened as unclean then.
    pub fn close(mut self) -> Result<(), LogError> {
        let end = self.syncer().sync()?;
        self.write_manifest(Manifest {
            clean_end: Some(end),
            ..self.manifest
        })
    }

    fn write_manifest(&mut self, manifest: Manifest) -> Result<(), LogError> {
        let shared = &self.shared;
        shared.check_poison()?;
        manifest
            .write(&*shared.files, &shared.dir)
            .map_err(|error| shared.broken(error))?;
        self.manifest = manifest;
        Ok(())
    }

    /// Goes on in another file, which has room for `frame_bytes`.
    fn roll(&mut self, frame_bytes: u64) -> Result<(), LogError> {
        let spare = self.spares.for_frame(&self.shared, frame_bytes);
        self.note_room(&spare);
        let header = SegmentHeader {
            sequence: self.active.sequence + 1,
            base: self.end(),
            durable: self.shared.durable(),
            incarnation: self.manifest.incarnation,
            db: self.db,
        };
        let segment = self.name_segment(spare?, &header)?;
        let mut segments = self.shared.segments();
        let mut unsynced = self.shared.unsynced();
        unsynced.sealed.push(self.active.clone());
        let _ = self.active.sealed.set(segment.base);
        segments.push_back(segment.clone());
        drop(unsynced);
        drop(segments);
        self.at = segment.first().at;
        self.active = segment;
        self.unprepared_bytes = 0;
        Ok(())
    }

    fn new_segment(&mut self, header: &SegmentHeader) -> Result<Arc<Segment>, LogError> {
        let spare = self.spares.for_frame(&self.shared, 0)?;
        self.name_segment(spare, header)
    }

    /// Writes the header and gives the file its name.
    fn name_segment(
        &mut self,
        spare: Spare,
        header: &SegmentHeader,
    ) -> Result<Arc<Segment>, LogError> {
        let shared = self.shared.clone();
        let bytes = header.encode(shared.seed);
        let path = shared
            .dir
            .join(segment_name(header.sequence, header.incarnation));
        let named = write_all_at(&*spare.file, &mut [IoSlice::new(&bytes)], 0)
            .and_then(|()| shared.files.rename(&spare.path, &path));
        if let Err(source) = named {
            let error = shared.write_failed(&spare.path, "made a segment", source);
            // It may have a header by now, which must not come back under another name.
            let _ = shared.files.remove(&spare.path);
            return Err(error);
        }
        shared.unsynced().names_changed += 1;
        Ok(Arc::new(Segment::new(
            header.sequence,
            header.base,
            path,
            spare.file,
            spare.capacity,
        )))
    }

    /// Works on the next segment, in step with the `bytes` that were appended.
    fn prepare(&mut self, bytes: u64) {
        if self.spares.is_ready() {
            return;
        }
        self.unprepared_bytes += bytes;
        if self.unprepared_bytes < PREPARE_STEP_BYTES.min(self.options.segment_bytes / 8) {
            return;
        }
        let due = self.unprepared_bytes.saturating_mul(PREPARE_FACTOR);
        self.unprepared_bytes = 0;
        // The frame is in the log: a broken disk is told by the next append.
        let grown = self.spares.grow(&self.shared, due);
        self.note_room(&grown);
    }

    fn end_place(&self) -> Place {
        Place {
            offset: self.end(),
            at: self.at,
        }
    }

    fn note_room<T>(&self, result: &Result<T, LogError>) {
        let is_full = matches!(result, Err(LogError::DiskFull { .. }));
        self.shared.needs_room.store(is_full, Ordering::Relaxed);
    }
}
