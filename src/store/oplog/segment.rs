//! One segment: its file, and where in it which offset of the stream is.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::error::LogError;
use super::layout::{FRAME_HEADER_BYTES, FRAMES_AT, FrameHeader, Seed};
use crate::store::disk::{DiskFile, read_full_at};

/// The index knows a frame about every so many bytes of the file.
const INDEX_STEP_BYTES: u64 = 64 * 1024;

/// What is read at once.
pub(super) const WINDOW_BYTES: usize = 256 * 1024;

/// A frame's place: offset in the stream, byte in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) at: u64,
}

impl Place {
    /// Where the next frame stands.
    pub(super) fn after(self, frame: &FrameHeader) -> Self {
        Self {
            offset: frame.end(),
            at: self.at + frame.space(),
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    /// Offset of the first byte of the first frame.
    pub(super) base: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Length of the file: written with zeros before it was used.
    pub(super) capacity: u64,
    /// Offset after the last frame, once there comes no other.
    pub(super) sealed: OnceLock<u64>,
    index: Mutex<Vec<Place>>,
}

impl Segment {
    pub(super) fn new(
        sequence: u64,
        base: u64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        capacity: u64,
    ) -> Self {
        let mut index = Vec::with_capacity(1 + (capacity / INDEX_STEP_BYTES) as usize);
        index.push(Place {
            offset: base,
            at: FRAMES_AT,
        });
        Self {
            sequence,
            base,
            path,
            file,
            capacity,
            sealed: OnceLock::new(),
            index: Mutex::new(index),
        }
    }

    /// Where the first frame is, or would be.
    pub(super) fn first(&self) -> Place {
        Place {
            offset: self.base,
            at: FRAMES_AT,
        }
    }

    /// Remembers that a frame stands at `place`, if the index has none near it.
    pub(super) fn note(&self, place: Place) {
        let mut index = self.index();
        let last = index.last().map_or(0, |last| last.at);
        if place.at >= last + INDEX_STEP_BYTES {
            index.push(place);
        }
    }

    /// The frame that holds the byte at `offset`, which is below the segment's end.
    pub(super) fn seek(&self, offset: u64, seed: Seed) -> Result<Place, LogError> {
        let index = self.index();
        let behind = index.partition_point(|place| place.offset <= offset);
        let known = behind.checked_sub(1).and_then(|near| index.get(near));
        let mut place = known.copied().unwrap_or(self.first());
        drop(index);
        let mut window = Window::default();
        loop {
            let bytes = window.bytes(self, place.at, FRAME_HEADER_BYTES)?;
            let frame = FrameHeader::decode(bytes, seed);
            let frame = frame.filter(|frame| frame.start == place.offset);
            let frame = frame.ok_or_else(|| self.damaged(place, "the header of a frame"))?;
            if offset < frame.end() {
                return Ok(place);
            }
            place = place.after(&frame);
            self.note(place);
        }
    }

    pub(super) fn damaged(&self, place: Place, what: &'static str) -> LogError {
        LogError::Damaged {
            file: self.path.clone(),
            at: place.at,
            offset: place.offset,
            what,
        }
    }

    pub(super) fn failed(&self, doing: &'static str, source: io::Error) -> LogError {
        LogError::Io {
            file: self.path.clone(),
            doing,
            source,
        }
    }

    fn index(&self) -> MutexGuard<'_, Vec<Place>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that were read last of one segment's file.
#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    /// Byte of the file that `buffer` starts at, and how much of it is filled.
    from: u64,
    filled: usize,
}

impl Window {
    /// Up to `length` (at most [`WINDOW_BYTES`]) bytes at `at`; fewer at the end of the file.
    pub(super) fn bytes(
        &mut self,
        segment: &Segment,
        at: u64,
        length: usize,
    ) -> Result<&[u8], LogError> {
        let length = length.min(WINDOW_BYTES);
        let end = at + length as u64;
        if at < self.from || end > self.from + self.filled as u64 {
            self.buffer.resize(WINDOW_BYTES, 0);
            self.filled = 0;
            self.from = at;
            self.filled = read_full_at(&*segment.file, &mut self.buffer, at)
                .map_err(|source| segment.failed("read", source))?;
        }
        let skip = (at - self.from) as usize;
        let until = (skip + length).min(self.filled);
        Ok(self.buffer.get(skip..until).unwrap_or_default())
    }

    /// The next bytes come from the file.
    pub(super) fn forget(&mut self) {
        self.filled = 0;
    }

    /// Whether the payload of the frame at `place` has its checksum.
    pub(super) fn payload_is_whole(
        &mut self,
        segment: &Segment,
        place: Place,
        frame: &FrameHeader,
        seed: Seed,
    ) -> Result<bool, LogError> {
        let mut hasher = seed.hasher();
        let mut at = place.at + FRAME_HEADER_BYTES as u64;
        let mut left = frame.length as usize;
        if at + left as u64 > segment.capacity {
            return Ok(false);
        }
        while left > 0 {
            let part = self.bytes(segment, at, left)?;
            if part.is_empty() {
                return Ok(false);
            }
            hasher.update(part);
            at += part.len() as u64;
            left -= part.len();
        }
        Ok(hasher.finalize() == frame.payload_crc)
    }
}
