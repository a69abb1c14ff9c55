//! The snapshot: its frame, its records, its end. No I/O.
//!
//! ```text
//! disk       $<length>\r\n   RDB of exactly that length          (no CR LF after it)
//! diskless   $EOF:<mark>\r\n RDB   <mark>                        40 bytes
//! ```
//!
//! The end is found by parsing the RDB, never by looking for the mark: the
//! mark may lie across two reads, and bytes after it belong to the stream.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::error::TapErrorKind;
use super::event::{LargeKeyHead, SnapshotRecord, TapEvent};
use super::wire::{take_line, unexpected};
use crate::rdb::{KeyRecord, LargeKey, Record, Scanner, ScannerLimits, ValueType};

const MARK_BYTES: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// The frame's line has not come.
    Awaited,
    Length(u64),
    Mark([u8; MARK_BYTES]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Records,
    /// The RDB is over; the mark is missing.
    Trailer,
}

/// What a look at the buffer gave.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    Event(TapEvent),
    NeedsBytes,
    Ended,
}

/// A snapshot being received.
#[derive(Debug)]
pub(super) struct Snapshot {
    frame: Frame,
    state: State,
    scanner: Scanner,
    /// The database selected when the snapshot was taken.
    pub(super) stream_db: u32,
}

impl Snapshot {
    pub(super) fn new(limits: ScannerLimits) -> Self {
        Self {
            frame: Frame::Awaited,
            state: State::Records,
            scanner: Scanner::new(limits),
            stream_db: 0,
        }
    }

    /// Bytes of the RDB that were taken.
    pub(super) fn read_bytes(&self) -> u64 {
        self.scanner.offset()
    }

    /// Bytes the RDB will have, where the source said so.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        match self.frame {
            Frame::Length(length) => Some(length),
            Frame::Awaited | Frame::Mark(_) => None,
        }
    }

    /// Takes from the buffer what makes one event.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Progress, TapErrorKind> {
        if self.frame == Frame::Awaited {
            match take_line(buffer)? {
                Some(line) => self.frame = parse_frame(&line)?,
                None => return Ok(Progress::NeedsBytes),
            }
        }
        if self.state == State::Trailer {
            return self.trailer(buffer);
        }
        loop {
            match self.record(buffer)? {
                Step::Event(event) => return Ok(Progress::Event(event)),
                Step::Silent => {}
                Step::NeedsBytes => return Ok(Progress::NeedsBytes),
                Step::RdbEnd => {
                    self.state = State::Trailer;
                    return self.trailer(buffer);
                }
            }
        }
    }

    fn record(&mut self, buffer: &mut BytesMut) -> Result<Step, TapErrorKind> {
        let framed = match self.frame {
            // Bytes after the frame are the stream's.
            Frame::Length(length) => {
                let left = length.saturating_sub(self.scanner.offset());
                buffer
                    .get(..usize::try_from(left).unwrap_or(usize::MAX))
                    .unwrap_or(buffer)
            }
            Frame::Awaited | Frame::Mark(_) => buffer,
        };
        let whole_frame =
            self.frame == Frame::Length(self.scanner.offset().saturating_add(framed.len() as u64));
        let event = match self.scanner.next(framed) {
            Ok(Some(event)) => event,
            Ok(None) if whole_frame => return Err(self.wrong_length()),
            Ok(None) => return Ok(Step::NeedsBytes),
            Err(error) => return Err(TapErrorKind::Rdb(Box::new(error))),
        };
        let consumed = event.consumed;
        let found = Found::of(event.record, framed)?;
        let taken = buffer.split_to(consumed);
        Ok(match found {
            Found::Skipped => Step::Silent,
            Found::End => Step::RdbEnd,
            Found::Aux { key, value } => {
                let taken = taken.freeze();
                let (key, value) = (key.take(&taken), value.take(&taken));
                if *key == *b"repl-stream-db" {
                    self.stream_db = database(&value).unwrap_or(0);
                }
                Step::Event(TapEvent::Aux { key, value })
            }
            Found::Function(code) => Step::Event(TapEvent::Function(code.take(&taken.freeze()))),
            Found::ModuleAux(bytes) => {
                Step::Event(TapEvent::ModuleAux(bytes.take(&taken.freeze())))
            }
            Found::LargeKey(found) => Step::Event(TapEvent::LargeKey(found.take(&taken.freeze()))),
            Found::Part { bytes, last } => Step::Event(TapEvent::Part {
                bytes: bytes.take(&taken.freeze()),
                last,
            }),
            Found::Key(found) => Step::Event(TapEvent::Snapshot(found.take(&taken.freeze()))),
        })
    }

    fn trailer(&self, buffer: &mut BytesMut) -> Result<Progress, TapErrorKind> {
        match self.frame {
            Frame::Length(length) if length == self.scanner.offset() => Ok(Progress::Ended),
            Frame::Length(_) | Frame::Awaited => Err(self.wrong_length()),
            Frame::Mark(mark) => match buffer.get(..MARK_BYTES) {
                Some(found) if found == mark => {
                    buffer.advance(MARK_BYTES);
                    Ok(Progress::Ended)
                }
                Some(_) => Err(TapErrorKind::FrameMark),
                None => Ok(Progress::NeedsBytes),
            },
        }
    }

    fn wrong_length(&self) -> TapErrorKind {
        TapErrorKind::FrameLength {
            promised: self.total_bytes().unwrap_or(0),
            read: self.scanner.offset(),
        }
    }
}

/// -1 stands for "none selected".
fn database(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_frame(line: &[u8]) -> Result<Frame, TapErrorKind> {
    if let Some(error) = line.strip_prefix(b"-") {
        return Err(TapErrorKind::Aborted(
            String::from_utf8_lossy(error).into_owned(),
        ));
    }
    let body = line.strip_prefix(b"$").ok_or_else(|| unexpected(line))?;
    if let Some(mark) = body.strip_prefix(b"EOF:") {
        return mark
            .try_into()
            .map(Frame::Mark)
            .map_err(|_| unexpected(line));
    }
    std::str::from_utf8(body)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .map(Frame::Length)
        .ok_or_else(|| unexpected(line))
}

enum Step {
    Event(TapEvent),
    Silent,
    NeedsBytes,
    RdbEnd,
}

/// Bytes of a record: where they are in it, or made apart (unpacked, digits).
enum Part {
    Inside(Range<usize>),
    Made(Vec<u8>),
}

impl Part {
    fn of(bytes: Cow<'_, [u8]>, input: &[u8]) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => Self::inside(bytes, input),
            Cow::Owned(bytes) => Self::Made(bytes),
        }
    }

    /// `bytes` is a slice of `input`: its place follows from the addresses.
    fn inside(bytes: &[u8], input: &[u8]) -> Self {
        let start = (bytes.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
        match input.get(start..start.wrapping_add(bytes.len())) {
            Some(found) if std::ptr::eq(found, bytes) => Self::Inside(start..start + bytes.len()),
            // A slice of something else, such as a constant.
            _ => Self::Made(bytes.to_vec()),
        }
    }

    fn take(self, record: &Bytes) -> Bytes {
        match self {
            Self::Inside(range) if range.end <= record.len() => record.slice(range),
            Self::Inside(_) => Bytes::new(),
            Self::Made(bytes) => Bytes::from(bytes),
        }
    }
}

/// A record that no longer borrows the buffer.
enum Found {
    Skipped,
    End,
    Aux { key: Part, value: Part },
    Function(Part),
    ModuleAux(Part),
    Key(FoundKey),
    LargeKey(FoundHead),
    Part { bytes: Part, last: bool },
}

struct FoundHead {
    db: u32,
    key: Part,
    expires_at_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
    metadata: Option<Part>,
    type_id: ValueType,
}

struct FoundKey {
    head: FoundHead,
    value: Part,
}

impl Found {
    fn of(record: Record<'_>, input: &[u8]) -> Result<Self, TapErrorKind> {
        Ok(match record {
            Record::Header(_)
            | Record::SelectDb(_)
            | Record::ResizeDb { .. }
            | Record::HashTemplate { .. }
            | Record::SlotInfo { .. } => Self::Skipped,
            Record::Aux { key, value } => Self::Aux {
                key: Part::of(key, input),
                value: Part::of(value, input),
            },
            Record::Function(code) => Self::Function(Part::of(code, input)),
            Record::ModuleAux(bytes) => Self::ModuleAux(Part::inside(bytes, input)),
            Record::SlotImport { .. } => return Err(TapErrorKind::SlotImport),
            Record::Key(key) => Self::Key(FoundKey::of(key, input)),
            Record::LargeKey(key) => Self::LargeKey(FoundHead::of(key, input)),
            Record::Part(part) => Self::Part {
                bytes: Part::inside(part.bytes, input),
                last: part.last,
            },
            Record::End { .. } => Self::End,
        })
    }
}

impl FoundHead {
    fn of(record: LargeKey<'_>, input: &[u8]) -> Self {
        Self {
            db: record.db,
            key: Part::of(record.key, input),
            expires_at_ms: record.expires_at_ms,
            idle_s: record.idle_s,
            freq: record.freq,
            metadata: record.metadata.map(|bytes| Part::inside(bytes, input)),
            type_id: record.type_id,
        }
    }

    fn take(self, record: &Bytes) -> LargeKeyHead {
        LargeKeyHead {
            db: self.db,
            key: self.key.take(record),
            expires_at_ms: self.expires_at_ms,
            idle_s: self.idle_s,
            freq: self.freq,
            metadata: self.metadata.map(|bytes| bytes.take(record)),
            type_id: self.type_id,
        }
    }
}

impl FoundKey {
    fn of(record: KeyRecord<'_>, input: &[u8]) -> Self {
        let value = Part::inside(record.value.bytes, input);
        let head = LargeKey {
            db: record.db,
            key: record.key,
            expires_at_ms: record.expires_at_ms,
            idle_s: record.idle_s,
            freq: record.freq,
            metadata: record.metadata,
            type_id: record.value.type_id,
        };
        Self {
            head: FoundHead::of(head, input),
            value,
        }
    }

    fn take(self, record: &Bytes) -> SnapshotRecord {
        let head = self.head.take(record);
        SnapshotRecord {
            db: head.db,
            key: head.key,
            expires_at_ms: head.expires_at_ms,
            idle_s: head.idle_s,
            freq: head.freq,
            metadata: head.metadata,
            type_id: head.type_id,
            value: self.value.take(record),
        }
    }
}

#[cfg(test)]
mod tests;
