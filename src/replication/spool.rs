//! The part of a queue that is on disk: blocks in segment files, appended at
//! one end, read and deleted at the other.
//!
//! ```text
//! DIR/snapshot-00000001.spool   bytes of a snapshot, segment 1
//! DIR/stream-00000001.spool     bytes of the stream after it
//!
//! segment, version 1, little-endian:
//! | "KFSPOOL" 7 | version 1 | number 8 |            block | block | ...
//! block:  | length 4 | crc32 4 | bytes |            crc32 of length and bytes
//! ```
//!
//! Drawn in docs/formats.md, too. Invariants: blocks come back in the order
//! they went in; a segment is deleted when its last block was read; a block that
//! was not written whole is overwritten by the next one. Nothing is synced to
//! the disk: the spool does not outlive its process, and what an earlier
//! process left is deleted by [`sweep`].
//!
//! All calls block; they are made from the queue's own thread.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;

use super::error::TapErrorKind;

const MAGIC: &[u8; 7] = b"KFSPOOL";
const VERSION: u8 = 1;
const SEGMENT_HEAD_BYTES: u64 = 16;
const BLOCK_HEAD_BYTES: u64 = 8;
const SUFFIX: &str = ".spool";

/// A segment is closed once it has this many bytes.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Smaller segments are used where the bound on disk is small, so that room is
/// given back before everything was read.
const SEGMENTS_MIN: u64 = 4;

/// Larger blocks are damage: none is written.
pub(super) const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that the spools of one tap may have on disk together.
#[derive(Debug)]
pub(super) struct DiskRoom {
    used_bytes: AtomicU64,
    bytes_max: u64,
}

impl DiskRoom {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            used_bytes: AtomicU64::new(0),
            bytes_max,
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    fn give(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why a block was not written; it can be tried again later.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSpooled {
    #[error("the spool has its {0} bytes on disk and takes no more")]
    BoundReached(u64),
    #[error("cannot write to {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// Blocks on disk, oldest first.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    name: &'static str,
    room: Arc<DiskRoom>,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// The last segment, open for writing.
    writer: Option<File>,
    /// The first segment, open for reading, and where its next block is.
    reader: Option<File>,
    read_at: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    len: u64,
}

/// Makes the directory if it is missing and deletes the spool files in it.
///
/// # Errors
/// The directory cannot be used; the error names it.
pub(super) fn sweep(dir: &Path) -> Result<(), TapErrorKind> {
    let unusable = |error| TapErrorKind::SpoolUnusable {
        path: dir.to_owned(),
        error,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(unusable)?;
    for entry in fs::read_dir(dir).map_err(unusable)? {
        let name = entry.map_err(unusable)?.file_name();
        let is_ours = name.to_str().is_some_and(|name| {
            name.ends_with(SUFFIX) && (name.starts_with("snapshot-") || name.starts_with("stream-"))
        });
        if is_ours {
            fs::remove_file(dir.join(name)).map_err(unusable)?;
        }
    }
    Ok(())
}

impl Spool {
    pub(super) fn new(dir: PathBuf, name: &'static str, room: Arc<DiskRoom>) -> Self {
        let segment_bytes = SEGMENT_BYTES.min((room.bytes_max / SEGMENTS_MIN).max(1));
        Self {
            dir,
            name,
            room,
            segment_bytes,
            segments: VecDeque::new(),
            next_number: 1,
            writer: None,
            reader: None,
            read_at: 0,
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}-{number:08}{SUFFIX}", self.name))
    }

    /// Appends `chunks` as one block.
    ///
    /// # Errors
    /// Nothing was appended, and it may be tried again.
    pub(super) fn append(&mut self, chunks: &[BytesMut]) -> Result<(), NotSpooled> {
        let open = self.segments.back();
        if open.is_none_or(|segment| segment.len >= self.segment_bytes) {
            let number = self.next_number;
            self.within_room(SEGMENT_HEAD_BYTES, number, |spool| {
                spool.open_segment(number)
            })?;
        }
        let number = self.segments.back().map_or(0, |segment| segment.number);
        let len: usize = chunks.iter().map(BytesMut::len).sum();
        self.within_room(BLOCK_HEAD_BYTES + len as u64, number, |spool| {
            spool.write_block(chunks, len)
        })
    }

    /// Does `work`, which makes segment `number` so many bytes longer.
    fn within_room(
        &mut self,
        bytes: u64,
        number: u64,
        work: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<(), NotSpooled> {
        if !self.room.take(bytes) {
            return Err(NotSpooled::BoundReached(self.room.bytes_max));
        }
        work(self).map_err(|error| {
            self.room.give(bytes);
            let path = self.path(number);
            NotSpooled::Io { path, error }
        })
    }

    fn write_block(&mut self, chunks: &[BytesMut], len: usize) -> io::Result<()> {
        let (Some(file), Some(segment)) = (&self.writer, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment is open for writing"));
        };
        let length = u32::try_from(len).map_err(io::Error::other)?.to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&length);
        let mut at = segment.len + BLOCK_HEAD_BYTES;
        for chunk in chunks {
            crc.update(chunk);
            file.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
        }
        let [a, b, c, d] = length;
        let [e, f, g, h] = crc.finalize().to_le_bytes();
        file.write_all_at(&[a, b, c, d, e, f, g, h], segment.len)?;
        segment.len = at;
        Ok(())
    }

    fn open_segment(&mut self, number: u64) -> io::Result<()> {
        let path = self.path(number);
        // `create` and not `create_new`: the file of a try that failed is there.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut head = [0; SEGMENT_HEAD_BYTES as usize];
        head[..7].copy_from_slice(MAGIC);
        head[7] = VERSION;
        head[8..].copy_from_slice(&number.to_le_bytes());
        file.write_all_at(&head, 0)?;
        self.writer = Some(file);
        self.next_number = number + 1;
        let len = SEGMENT_HEAD_BYTES;
        self.segments.push_back(Segment { number, len });
        Ok(())
    }

    /// The oldest block, which is no longer on disk afterwards. There must be one.
    ///
    /// # Errors
    /// What is on disk is not what was written.
    pub(super) fn read(&mut self) -> Result<BytesMut, TapErrorKind> {
        let Some(first) = self.segments.front() else {
            return Err(self.damaged(0, "there is no block"));
        };
        let (number, segment_len) = (first.number, first.len);
        let mut head = [0; BLOCK_HEAD_BYTES as usize];
        self.open_first(number)?;
        let at = self.read_at;
        let read = self.open_first(number)?.read_exact_at(&mut head, at);
        read.map_err(|error| self.unreadable(number, error))?;
        let [a, b, c, d, e, f, g, h] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let end = at + BLOCK_HEAD_BYTES + len as u64;
        if len > BLOCK_BYTES_MAX || end > segment_len {
            return Err(self.damaged(number, "its length cannot be"));
        }
        let mut bytes = BytesMut::zeroed(len);
        let from = at + BLOCK_HEAD_BYTES;
        let read = self.open_first(number)?.read_exact_at(&mut bytes, from);
        read.map_err(|error| self.unreadable(number, error))?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&[a, b, c, d]);
        crc.update(&bytes);
        if crc.finalize() != u32::from_le_bytes([e, f, g, h]) {
            return Err(self.damaged(number, "its checksum is wrong"));
        }
        self.read_at = end;
        if end == segment_len {
            self.drop_first();
        }
        Ok(bytes)
    }

    fn open_first(&mut self, number: u64) -> Result<&File, TapErrorKind> {
        if self.reader.is_none() {
            let mut head = [0; SEGMENT_HEAD_BYTES as usize];
            let opened = File::open(self.path(number)).and_then(|file| {
                file.read_exact_at(&mut head, 0)?;
                Ok(file)
            });
            let file = opened.map_err(|error| self.unreadable(number, error))?;
            let (magic, rest) = head.split_at(MAGIC.len());
            let (version, stored) = rest.split_at(1);
            if magic != MAGIC || version != [VERSION] || stored != number.to_le_bytes() {
                return Err(self.damaged(number, "it does not start as a segment does"));
            }
            self.read_at = SEGMENT_HEAD_BYTES;
            self.reader = Some(file);
        }
        match &self.reader {
            Some(file) => Ok(file),
            None => Err(self.damaged(number, "it is not open")),
        }
    }

    /// Deletes the first segment. If it is also the one that is written to, the
    /// next block starts a new one.
    fn drop_first(&mut self) {
        self.reader = None;
        self.read_at = 0;
        if let Some(segment) = self.segments.pop_front() {
            if self.segments.is_empty() {
                self.writer = None;
            }
            self.delete(&segment);
        }
    }

    fn delete(&self, segment: &Segment) {
        let path = self.path(segment.number);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a spool file that is done with cannot be deleted");
        }
        self.room.give(segment.len);
    }

    /// Deletes everything.
    pub(super) fn clear(&mut self) {
        while !self.segments.is_empty() {
            self.drop_first();
        }
    }

    fn damaged(&self, number: u64, why: &'static str) -> TapErrorKind {
        TapErrorKind::SpoolDamaged {
            path: self.path(number),
            at: self.read_at,
            why,
        }
    }

    fn unreadable(&self, number: u64, error: io::Error) -> TapErrorKind {
        TapErrorKind::SpoolUnreadable {
            path: self.path(number),
            error,
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests;
