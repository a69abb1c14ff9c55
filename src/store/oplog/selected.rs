//! Beginning somewhere in the log: readers, replay, and which database is selected there.

use super::error::LogError;
use super::reader::LogReader;
use super::{FRAME_BYTES_MAX, Log};
use crate::resp::{RequestLimits, RequestScanner};

/// What is in the log was accepted before: no limit but the frame's own.
const LIMITS: RequestLimits = RequestLimits {
    request_bytes_max: FRAME_BYTES_MAX,
    args_max: FRAME_BYTES_MAX,
    inline_bytes_max: 64 * 1024,
    bulk_bytes_max: FRAME_BYTES_MAX,
    takes_inline: false,
};

/// Takes a frame: its offset, its bytes, and the database that is selected before it.
pub type EachFrame<'a, E> = dyn FnMut(u64, &[u8], u16) -> Result<(), E> + 'a;

impl Log {
    /// A reader whose first byte is the one at `offset`, anywhere between
    /// [`Log::start`] and [`Log::end`].
    ///
    /// # Errors
    /// [`LogError::Gone`], [`LogError::BehindEnd`], or what reading the place gave.
    pub fn reader(&self, offset: u64) -> Result<LogReader, LogError> {
        let (start, end) = (self.start(), self.end());
        if offset < start {
            return Err(LogError::Gone { offset, start });
        }
        if offset > end {
            return Err(LogError::BehindEnd { offset, end });
        }
        let segments = self.shared.segments();
        let behind = segments.partition_point(|segment| segment.base <= offset);
        let segment = behind.checked_sub(1).and_then(|at| segments.get(at));
        let segment = segment.unwrap_or(&self.active).clone();
        drop(segments);
        let place = if offset == end {
            self.end_place()
        } else {
            segment.seek(offset, self.shared.seed)?
        };
        Ok(LogReader::new(&self.shared, segment, place, offset))
    }

    /// Gives every frame from offset `from` on to `each`.
    ///
    /// # Errors
    /// [`LogError::InsideFrame`] if no frame starts at `from`; those of [`Log::reader`];
    /// and what `each` says, which ends the replay.
    pub fn replay<E: From<LogError>>(
        &self,
        from: u64,
        each: &mut EachFrame<'_, E>,
    ) -> Result<(), E> {
        let mut reader = self.reader(from)?;
        let mut bytes = Vec::new();
        while let Some(frame) = reader.checked_frame()? {
            if frame.start != reader.offset() {
                return Err(LogError::InsideFrame { offset: from }.into());
            }
            bytes.clear();
            reader.read(&mut bytes, frame.length)?;
            each(frame.start, &bytes, frame.db_before)?;
        }
        Ok(())
    }

    /// The database that is selected before the command at `offset`. Where no command
    /// starts there, the one of the last that started before it in its frame.
    ///
    /// # Errors
    /// As [`Log::reader`].
    pub fn db_at(&self, offset: u64) -> Result<u16, LogError> {
        let mut reader = self.reader(offset)?;
        let Some(frame) = reader.checked_frame()? else {
            return Ok(self.db);
        };
        if frame.start == offset {
            return Ok(frame.db_before);
        }
        let mut before = Vec::new();
        let mut reader = self.reader(frame.start)?;
        reader.read(&mut before, (offset - frame.start) as usize)?;
        Ok(selected_after(&before, frame.db_before))
    }
}

/// The database after the commands in `bytes`, of which the last may be cut.
fn selected_after(bytes: &[u8], mut db: u16) -> u16 {
    let mut scanner = RequestScanner::new(LIMITS);
    let mut rest = bytes;
    while let Ok(Some(request)) = scanner.scan(rest) {
        if request.len() == 2 && request.arg(0).eq_ignore_ascii_case(b"select") {
            let number = std::str::from_utf8(request.arg(1)).ok();
            db = number.and_then(|text| text.parse().ok()).unwrap_or(db);
        }
        let consumed = request.consumed;
        rest = rest.get(consumed..).unwrap_or_default();
    }
    db
}
