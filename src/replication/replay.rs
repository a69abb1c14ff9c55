//! What a source sends -> events, without a socket: the parsers put together as
//! [`super::intake`] and [`super::tap`] do, with nothing in between. For tests and
//! fuzz targets only; a build for use does not have it.
//!
//! ```text
//! bytes --> FrameWatch --up to the frame's end--> Snapshot ------> events
//!                '------- what is behind it ----> CommandStream -> events
//! ```
//!
//! Invariant: a snapshot is over only where the frame and its content say so both.

use bytes::BytesMut;

use super::error::TapErrorKind;
use super::event::TapEvent;
use super::framing::FrameWatch;
use super::snapshot::{self, Snapshot};
use super::stream::{self, CommandStream};
use crate::rdb::ScannerLimits;

/// What the bytes so far gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// An event, as [`super::Tap::next`] gives it.
    Event(TapEvent),
    /// The source wants an ACK at once.
    AckWanted,
}

/// A source that is replayed from memory.
#[derive(Debug)]
pub struct Replay {
    phase: Phase,
    /// What was fed and not parsed yet.
    buffer: BytesMut,
    snapshot_bytes: usize,
}

#[derive(Debug)]
enum Phase {
    Snapshot {
        watch: FrameWatch,
        parser: Box<Snapshot>,
        offset: u64,
    },
    Stream(Box<CommandStream>),
}

impl Replay {
    /// Behind +FULLRESYNC: a frame with a snapshot of `offset`, then the stream.
    pub fn full(limits: ScannerLimits, offset: u64) -> Replay {
        Replay::at(Phase::Snapshot {
            watch: FrameWatch::new(),
            parser: Box::new(Snapshot::new(limits)),
            offset,
        })
    }

    /// Behind +CONTINUE: the stream alone.
    pub fn continued(offset: u64, db: u32) -> Replay {
        Replay::at(Phase::Stream(Box::new(CommandStream::new(offset, db))))
    }

    fn at(phase: Phase) -> Replay {
        Replay {
            phase,
            buffer: BytesMut::new(),
            snapshot_bytes: 0,
        }
    }

    /// Bytes of frame and snapshot that were fed.
    pub fn snapshot_bytes(&self) -> usize {
        self.snapshot_bytes
    }

    /// Bytes that were fed and are part of nothing that was told.
    pub fn unparsed_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Takes what came next and hands on all that it made whole.
    ///
    /// # Errors
    /// As the tap's; nothing may be fed after one.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Heard)) -> Result<(), TapErrorKind> {
        let behind = match &mut self.phase {
            Phase::Stream(_) => bytes,
            Phase::Snapshot { watch, parser, .. } => {
                let fed = watch.feed(bytes)?;
                let (inside, behind) = bytes.split_at_checked(fed.bytes).unwrap_or((bytes, &[]));
                self.snapshot_bytes += inside.len();
                self.buffer.extend_from_slice(inside);
                let ended = parse_snapshot(parser, &mut self.buffer, sink)?;
                if ended != fed.ended || (ended && !self.buffer.is_empty()) {
                    return Err(TapErrorKind::EndsDiffer {
                        content_first: ended,
                        apart: self.buffer.len() as u64,
                    });
                }
                if !ended {
                    return Ok(());
                }
                behind
            }
        };
        if let Phase::Snapshot { parser, offset, .. } = &self.phase {
            sink(Heard::Event(TapEvent::SnapshotEnd));
            let stream = CommandStream::new(*offset, parser.stream_db);
            self.phase = Phase::Stream(Box::new(stream));
        }
        self.buffer.extend_from_slice(behind);
        match &mut self.phase {
            Phase::Stream(stream) => parse_stream(stream, &mut self.buffer, sink),
            Phase::Snapshot { .. } => Ok(()),
        }
    }
}

/// Whether the snapshot's content is whole.
fn parse_snapshot(
    parser: &mut Snapshot,
    buffer: &mut BytesMut,
    sink: &mut impl FnMut(Heard),
) -> Result<bool, TapErrorKind> {
    loop {
        match parser.next(buffer)? {
            snapshot::Progress::Event(event) => sink(Heard::Event(event)),
            snapshot::Progress::NeedsBytes => return Ok(false),
            snapshot::Progress::Ended => return Ok(true),
        }
    }
}

fn parse_stream(
    stream: &mut CommandStream,
    buffer: &mut BytesMut,
    sink: &mut impl FnMut(Heard),
) -> Result<(), TapErrorKind> {
    loop {
        match stream.next(buffer)? {
            stream::Progress::Event(event) => sink(Heard::Event(event)),
            stream::Progress::AckWanted => sink(Heard::AckWanted),
            stream::Progress::NeedsBytes => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Vec<u8> {
        let mut rdb = b"REDIS0011\xfe\x00\x00\x01k\x01v\xff".to_vec();
        rdb.extend_from_slice(&crate::rdb::crc64(0, &rdb).to_le_bytes());
        let mark = [b'm'; 40];
        let stream = b"\n*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n";
        [b"\n$EOF:", &mark[..], b"\r\n", &rdb, &mark, stream].concat()
    }

    fn events(pieces: &[&[u8]]) -> Result<Vec<TapEvent>, TapErrorKind> {
        let (mut replay, mut events) = (Replay::full(ScannerLimits::default(), 7), Vec::new());
        for piece in pieces {
            replay.feed(piece, &mut |heard| match heard {
                // Told wherever the bytes happen to end.
                Heard::Event(TapEvent::Idle { .. }) | Heard::AckWanted => {}
                Heard::Event(event) => events.push(event),
            })?;
        }
        assert_eq!(replay.unparsed_bytes(), 0);
        Ok(events)
    }

    #[test]
    fn pieces_make_the_events_of_the_whole() {
        let source = source();
        let whole = events(&[&source]).unwrap();
        assert!(matches!(
            whole.as_slice(),
            [
                TapEvent::Snapshot(_),
                TapEvent::SnapshotEnd,
                TapEvent::Command(command)
            ] if command.offset_end == 7 + 34
        ));
        for cut in 0..source.len() {
            let (first, second) = source.split_at(cut);
            assert_eq!(events(&[first, second]).unwrap(), whole);
        }
    }

    #[test]
    fn a_mark_that_stands_too_early_or_too_late_is_an_error() {
        let source = source();
        let mut early = source.clone();
        early.drain(48 + 10..48 + 14);
        assert!(events(&[&early]).is_err());
        let mut late = source.clone();
        late.splice(70..70, *b"late");
        assert!(events(&[&late]).is_err());
    }
}
