//! The tap itself: a link, what it has come to, and the next event.
//!
//! ```text
//! attach -> Snapshot -> Stream        (full resync)
//!        '------------> Stream        (resumed)
//! ```
//!
//! The socket is read only inside [`Tap::next`], and as fast as that is
//! called: a caller that is slower than the source makes the source's buffers
//! grow until it drops us, so it should queue or spool.

use super::config::{ResumePoint, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::event::TapEvent;
use super::handshake::{self, Answer, Link};
use super::snapshot::{self, Snapshot};
use super::stream::{self, CommandStream};
use super::voice::Voice;
use super::wire::Wire;
use crate::upstream::ShardAddress;

/// How much of a snapshot has been handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// Bytes of the RDB taken so far.
    pub read_bytes: u64,
    /// Bytes it has; a diskless snapshot does not say.
    pub total_bytes: Option<u64>,
}

/// Our connection posing as a replica of one server.
#[derive(Debug)]
pub struct Tap {
    address: ShardAddress,
    wire: Wire,
    voice: Voice,
    phase: Phase,
    /// How PSYNC was answered, until the caller was told.
    answer: Option<TapEvent>,
}

#[derive(Debug)]
enum Phase {
    Snapshot {
        snapshot: Box<Snapshot>,
        offset: u64,
    },
    Stream(Box<CommandStream>),
}

impl Tap {
    /// Becomes a replica of `config.address`: from scratch, or going on after
    /// `resume`. Whether the source could go on is the first event:
    /// [`TapEvent::Continue`], or [`TapEvent::FullResync`] and a snapshot.
    ///
    /// Takes as long as the source needs to fork, but not longer than
    /// `silence_max` without a byte from it.
    ///
    /// # Errors
    /// Says the server, the step and the reason; [`TapError::retry`] says
    /// whether to come back.
    pub async fn attach(config: TapConfig, resume: Option<ResumePoint>) -> Result<Tap, TapError> {
        let Link {
            wire,
            write,
            answer,
        } = handshake::attach(&config, resume.as_ref()).await?;
        let start = |offset| Voice::start(write, config.ack_every, offset);
        let (voice, phase, event) = match (answer, resume) {
            (Answer::Continue { replid }, Some(point)) => {
                let voice = start(point.offset);
                voice.ack_now();
                let stream = CommandStream::new(point.offset, point.db);
                (
                    voice,
                    Phase::Stream(Box::new(stream)),
                    TapEvent::Continue { replid },
                )
            }
            (Answer::Full { replid, offset }, _) => {
                let snapshot = Box::new(Snapshot::new(config.scanner_limits()));
                let phase = Phase::Snapshot { snapshot, offset };
                (
                    start(offset),
                    phase,
                    TapEvent::FullResync { replid, offset },
                )
            }
            (Answer::Continue { .. }, None) => {
                let kind = TapErrorKind::UnexpectedAnswer("+CONTINUE".to_owned());
                return Err(kind.at(&config.address, TapStep::Psync));
            }
        };
        Ok(Tap {
            address: config.address,
            wire,
            voice,
            phase,
            answer: Some(event),
        })
    }

    /// The next event. Cancel safe: an event is either returned or still there.
    ///
    /// # Errors
    /// The link is over; attach again with the last resume point if
    /// [`TapError::retry`] allows it.
    pub async fn next(&mut self) -> Result<TapEvent, TapError> {
        loop {
            match self.buffered() {
                Ok(Some(event)) => {
                    self.wire.caller_is_busy();
                    return Ok(event);
                }
                Ok(None) => {}
                Err(kind) => return Err(self.error(kind)),
            }
            if let Err(kind) = self.wire.fill().await {
                return Err(self.error(kind));
            }
        }
    }

    /// From now on ACKs carry `offset`, unless they carry a higher one already.
    /// Say only what must not be sent again: it also counts for the source's
    /// WAIT and `min-replicas-to-write`.
    pub fn acknowledge(&self, offset: u64) {
        self.voice.acknowledge(offset);
    }

    /// How far the snapshot is; `None` while following the stream.
    #[must_use]
    pub fn snapshot_progress(&self) -> Option<SnapshotProgress> {
        match &self.phase {
            Phase::Snapshot { snapshot, .. } => Some(SnapshotProgress {
                read_bytes: snapshot.read_bytes(),
                total_bytes: snapshot.total_bytes(),
            }),
            Phase::Stream(_) => None,
        }
    }

    /// The server this tap is attached to.
    #[must_use]
    pub fn address(&self) -> &ShardAddress {
        &self.address
    }

    /// Leaves the source; returns when the task that sends ACKs has ended.
    pub async fn close(self) {
        self.voice.stop().await;
    }

    /// The next event of what has been received.
    fn buffered(&mut self) -> Result<Option<TapEvent>, TapErrorKind> {
        if let Some(event) = self.answer.take() {
            return Ok(Some(event));
        }
        loop {
            let buffer = &mut self.wire.buffer;
            match &mut self.phase {
                Phase::Snapshot { snapshot, offset } => match snapshot.next(buffer)? {
                    snapshot::Progress::Event(event) => return Ok(Some(event)),
                    snapshot::Progress::NeedsBytes => return Ok(None),
                    snapshot::Progress::Ended => {
                        let stream = CommandStream::new(*offset, snapshot.stream_db);
                        self.phase = Phase::Stream(Box::new(stream));
                        // A diskless source sends nothing more before this.
                        self.voice.ack_now();
                        return Ok(Some(TapEvent::SnapshotEnd));
                    }
                },
                Phase::Stream(stream) => match stream.next(buffer)? {
                    stream::Progress::Event(event) => return Ok(Some(event)),
                    stream::Progress::AckWanted => self.voice.ack_now(),
                    stream::Progress::NeedsBytes => return Ok(None),
                },
            }
        }
    }

    fn error(&self, kind: TapErrorKind) -> TapError {
        let step = match &self.phase {
            Phase::Snapshot { .. } => TapStep::Snapshot,
            Phase::Stream(_) => TapStep::Stream,
        };
        kind.at(&self.address, step)
    }
}
