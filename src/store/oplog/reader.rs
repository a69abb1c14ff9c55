//! Reading the stream from any byte of it, while it grows.
//!
//! A reader holds the segment it is in: that file is not used again while it does. If the
//! next one has gone meanwhile, or the log has begun anew, it says [`LogError::Gone`].
//!
//! Invariant: bytes of a frame are handed out only after its checksum was found right.

use std::sync::Arc;

use super::error::LogError;
use super::layout::{FRAME_HEADER_BYTES, FrameHeader};
use super::segment::{Place, Segment, Window};
use super::shared::Shared;

/// See the head of the file.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    history: u64,
    segment: Arc<Segment>,
    /// The frame that holds the byte at `offset`, or comes there.
    place: Place,
    /// That frame, once it was checked.
    current: Option<FrameHeader>,
    offset: u64,
    window: Window,
    /// Bytes of the window behind the frame that starts here may be older than the frame.
    fresh_to: u64,
}

/// A frame that was checked, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) start: u64,
    pub(super) length: usize,
    pub(super) db_before: u16,
}

impl LogReader {
    /// A reader at `offset`, which the frame at `place` holds.
    pub(super) fn new(
        shared: &Arc<Shared>,
        segment: Arc<Segment>,
        place: Place,
        offset: u64,
    ) -> Self {
        Self {
            shared: shared.clone(),
            history: shared.history(),
            segment,
            place,
            current: None,
            offset,
            window: Window::default(),
            fresh_to: 0,
        }
    }

    /// Offset of the byte that is read next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes were appended and not read here.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        self.shared.end().saturating_sub(self.offset)
    }

    /// Appends up to `max` bytes of the stream to `out` and says how many; 0 at the end,
    /// where later calls find what is appended meanwhile.
    ///
    /// # Errors
    /// [`LogError::Gone`], [`LogError::Damaged`], [`LogError::Io`]; what was appended to
    /// `out` before is right and counted in [`LogReader::offset`].
    pub fn read(&mut self, out: &mut Vec<u8>, max: usize) -> Result<usize, LogError> {
        let before = self.offset;
        let mut left = max;
        while left > 0 {
            let Some(frame) = self.checked_frame()? else {
                break;
            };
            let within = (self.offset - frame.start) as usize;
            let wanted = left.min(frame.length - within);
            let at = self.place.at + (FRAME_HEADER_BYTES + within) as u64;
            let bytes = self.window.bytes(&self.segment, at, wanted)?;
            if bytes.is_empty() {
                return Err(self.segment.damaged(self.place, "the file is too short"));
            }
            out.extend_from_slice(bytes);
            left -= bytes.len();
            self.offset += bytes.len() as u64;
            self.pass_frame();
        }
        Ok((self.offset - before) as usize)
    }

    /// The frame that holds the next byte; `None` at the end.
    pub(super) fn checked_frame(&mut self) -> Result<Option<Checked>, LogError> {
        loop {
            if self.history != self.shared.history() {
                return Err(self.gone());
            }
            if let Some(frame) = &self.current {
                return Ok(Some(Checked {
                    start: frame.start,
                    length: frame.length as usize,
                    db_before: frame.db_before,
                }));
            }
            let end = self.shared.end();
            if self.place.offset >= end {
                return Ok(None);
            }
            if self.segment.sealed.get() == Some(&self.place.offset) {
                self.next_segment()?;
                continue;
            }
            if self.place.offset >= self.fresh_to {
                self.window.forget();
                self.fresh_to = end;
            }
            self.check_frame()?;
        }
    }

    fn check_frame(&mut self) -> Result<(), LogError> {
        let (segment, place, seed) = (&self.segment, self.place, self.shared.seed);
        let bytes = self.window.bytes(segment, place.at, FRAME_HEADER_BYTES)?;
        let frame = FrameHeader::decode(bytes, seed);
        let frame = frame.filter(|frame| frame.start == place.offset);
        let frame = frame.ok_or_else(|| segment.damaged(place, "the header of a frame"))?;
        if !self.window.payload_is_whole(segment, place, &frame, seed)? {
            return Err(segment.damaged(place, "the checksum of a frame"));
        }
        self.current = Some(frame);
        Ok(())
    }

    /// Goes to the next frame if this one was read.
    fn pass_frame(&mut self) {
        if let Some(frame) = &self.current
            && self.offset == frame.end()
        {
            self.place = self.place.after(frame);
            self.current = None;
        }
    }

    fn next_segment(&mut self) -> Result<(), LogError> {
        let segments = self.shared.segments();
        let wanted = self.segment.sequence + 1;
        let next = segments.iter().find(|one| one.sequence == wanted).cloned();
        drop(segments);
        let next = next.ok_or_else(|| self.gone())?;
        self.place = next.first();
        self.segment = next;
        self.window.forget();
        Ok(())
    }

    fn gone(&self) -> LogError {
        LogError::Gone {
            offset: self.offset,
            start: self.shared.start(),
        }
    }
}
