//! The tap itself: what came, parsed into events.
//!
//! ```text
//! intake.rs ==> snapshot queue ==> Snapshot --end--> Stream <== stream queue <== intake.rs
//!                                     ^                 |
//!                                     '-- FullResync ---'
//! ```
//!
//! The socket is read by the intake, whether or not [`Tap::next`] is called: a
//! caller that is slower than the source makes the queues grow, first in memory,
//! then on disk. Invariants: the caller sees one history at a time, each from its
//! [`TapEvent::FullResync`] on; [`TapEvent::SnapshotEnd`] comes only if the parser
//! and the intake saw the end at the same byte.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::config::{ResumePoint, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::event::TapEvent;
use super::handshake::Start;
use super::intake::{Intake, Shared};
use super::meter::{TapMeter, TapMode};
use super::queue::{Mark, Popped};
use super::snapshot::{self, Snapshot};
use super::stream::{self, CommandStream};
use crate::rdb::ScannerLimits;
use crate::upstream::ShardAddress;

/// Longest wait for the spool's files to be deleted on close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// How large what comes whole may be.
    limits: ScannerLimits,
    shared: Arc<Shared>,
    intake: JoinHandle<()>,
    /// Ends the intake when it is sent or dropped.
    stop: Option<oneshot::Sender<()>>,
    /// The history the caller is told of.
    history: u64,
    /// What was taken from the queues and not parsed yet.
    buffer: BytesMut,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A history is about to begin.
    Awaiting,
    Snapshot {
        snapshot: Box<Snapshot>,
        offset: u64,
        /// The parser saw its end.
        ended: bool,
    },
    Stream(Box<CommandStream>),
}

impl Tap {
    /// Becomes a replica of `config.address` or one of its alternates: from
    /// scratch, or going on after `resume`. Whether the source could go on is the
    /// first event: [`TapEvent::Continue`], or [`TapEvent::FullResync`] and a
    /// snapshot. Both may come again when a link is lost: after the one the
    /// stream goes on as if nothing had happened, with the other everything that
    /// was told before is void.
    ///
    /// Takes as long as the source needs to fork, but not longer than
    /// `silence_max` without a byte from it. Needs a tokio runtime with time and
    /// network, which also runs the intake.
    ///
    /// # Errors
    /// Says the server, the step and the reason; what may pass was tried again
    /// for `config.patience`.
    pub async fn attach(config: TapConfig, resume: Option<ResumePoint>) -> Result<Tap, TapError> {
        let shared =
            Shared::new(&config).map_err(|kind| kind.at(&config.address, TapStep::Connect))?;
        let shared = Arc::new(shared);
        let limits = config.scanner_limits();
        let mut intake = Intake::new(config, Arc::clone(&shared), resume.as_ref());
        let link = intake.link(None).await?;
        let phase = match (&link.start, resume) {
            (Start::Continue { .. }, Some(point)) => {
                Phase::Stream(Box::new(CommandStream::new(point.offset, point.db)))
            }
            _ => Phase::Awaiting,
        };
        let address = link.address.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let intake = tokio::spawn(async move {
            tokio::select! {
                // Told to stop, or the tap was dropped.
                _ = stopped => {}
                () = intake.run(link) => {}
            }
        });
        Ok(Tap {
            address,
            limits,
            shared,
            intake,
            stop: Some(stop),
            history: 0,
            buffer: BytesMut::new(),
            phase,
        })
    }

    /// The next event. Cancel safe: an event is either returned or still there.
    ///
    /// # Errors
    /// The tap is over: the source was gone for longer than `config.patience`, or
    /// what it sent makes no sense. Attach again with the last resume point if
    /// [`TapError::retry`] allows it.
    pub async fn next(&mut self) -> Result<TapEvent, TapError> {
        loop {
            match self.parsed() {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(kind) => return Err(self.error(kind)),
            }
            let queue = match &self.phase {
                Phase::Awaiting | Phase::Snapshot { .. } => &self.shared.snapshot,
                Phase::Stream(_) => &self.shared.stream,
            };
            let taken = match queue.pop(self.history).await {
                Popped::Bytes(bytes) => self.take(bytes),
                Popped::Mark(mark) => self.reach(mark),
                Popped::Void(history) => {
                    self.history = history;
                    self.buffer.clear();
                    self.phase = Phase::Awaiting;
                    Ok(None)
                }
                Popped::Ended => return Err(self.end()),
            };
            match taken {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(kind) => return Err(self.error(kind)),
            }
        }
    }

    /// From now on ACKs carry `offset`, unless they carry a higher one already.
    /// Say only what must not be sent again: it also counts for the source's
    /// WAIT and `min-replicas-to-write`. An offset of a history that is over by
    /// now is not sent.
    pub fn acknowledge(&self, offset: u64) {
        self.shared.acks.acknowledge(self.history, offset);
    }

    /// How far the snapshot is; `None` while following the stream.
    #[must_use]
    pub fn snapshot_progress(&self) -> Option<SnapshotProgress> {
        match &self.phase {
            Phase::Snapshot { snapshot, .. } => Some(SnapshotProgress {
                read_bytes: snapshot.read_bytes(),
                total_bytes: snapshot.total_bytes(),
            }),
            Phase::Awaiting | Phase::Stream(_) => None,
        }
    }

    /// The server that sent what was told last.
    #[must_use]
    pub fn address(&self) -> &ShardAddress {
        &self.address
    }

    /// Counters of this tap, to be read by anybody at any time.
    #[must_use]
    pub fn meter(&self) -> Arc<TapMeter> {
        Arc::clone(&self.shared.meter)
    }

    /// How the source sends; with [`TapMode::Sync`] nothing can be resumed.
    #[must_use]
    pub fn mode(&self) -> TapMode {
        self.shared.meter.mode()
    }

    /// Leaves the source; returns when the intake has ended and the spool's files
    /// are gone.
    pub async fn close(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.intake).await;
        let queues = [&self.shared.snapshot, &self.shared.stream];
        let threads: Vec<_> = queues.iter().filter_map(|queue| queue.stop()).collect();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        // A disk that hangs is not waited for.
        let _ = timeout(CLOSE_TIMEOUT, joined).await;
    }

    /// The next event of what was taken from the queues.
    fn parsed(&mut self) -> Result<Option<TapEvent>, TapErrorKind> {
        loop {
            match &mut self.phase {
                Phase::Awaiting => return Ok(None),
                Phase::Snapshot { ended: true, .. } => return Ok(None),
                Phase::Snapshot {
                    snapshot, ended, ..
                } => match snapshot.next(&mut self.buffer)? {
                    snapshot::Progress::Event(event) => return Ok(Some(event)),
                    snapshot::Progress::NeedsBytes => return Ok(None),
                    snapshot::Progress::Ended => *ended = true,
                },
                Phase::Stream(stream) => match stream.next(&mut self.buffer)? {
                    stream::Progress::Event(event) => return Ok(Some(event)),
                    stream::Progress::AckWanted => self.shared.acks.ask(),
                    stream::Progress::NeedsBytes => return Ok(None),
                },
            }
        }
    }

    /// More bytes to parse.
    fn take(&mut self, bytes: BytesMut) -> Result<Option<TapEvent>, TapErrorKind> {
        if let Phase::Snapshot { ended: true, .. } = self.phase {
            return Err(TapErrorKind::EndsDiffer {
                content_first: true,
                apart: (self.buffer.len() + bytes.len()) as u64,
            });
        }
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            // Without a copy, if they are neighbours in one allocation.
            self.buffer.unsplit(bytes);
        }
        Ok(None)
    }

    /// Everything before `mark` was taken.
    fn reach(&mut self, mark: Mark) -> Result<Option<TapEvent>, TapErrorKind> {
        match (mark, &self.phase) {
            (
                Mark::FullResync {
                    address,
                    replid,
                    offset,
                },
                _,
            ) => {
                self.address = address;
                self.phase = Phase::Snapshot {
                    snapshot: Box::new(Snapshot::new(self.limits)),
                    offset,
                    ended: false,
                };
                Ok(Some(TapEvent::FullResync { replid, offset }))
            }
            (Mark::Continue { address, replid }, _) => {
                self.address = address;
                Ok(Some(TapEvent::Continue { replid }))
            }
            (
                Mark::SnapshotEnd,
                Phase::Snapshot {
                    snapshot,
                    offset,
                    ended: true,
                },
            ) if self.buffer.is_empty() => {
                let stream = CommandStream::new(*offset, snapshot.stream_db);
                self.phase = Phase::Stream(Box::new(stream));
                Ok(Some(TapEvent::SnapshotEnd))
            }
            (Mark::SnapshotEnd, phase) => Err(TapErrorKind::EndsDiffer {
                content_first: matches!(phase, Phase::Snapshot { ended: true, .. }),
                apart: self.buffer.len() as u64,
            }),
        }
    }

    /// Why nothing comes any more.
    fn end(&self) -> TapError {
        let mut end = self
            .shared
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match end.take() {
            Some(error) => error,
            None => self.error(TapErrorKind::Closed),
        }
    }

    fn error(&self, kind: TapErrorKind) -> TapError {
        let step = match &self.phase {
            Phase::Awaiting | Phase::Snapshot { .. } => TapStep::Snapshot,
            Phase::Stream(_) => TapStep::Stream,
        };
        kind.at(&self.address, step)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Dropping `stop` ends the intake; the threads end on their own.
        for queue in [&self.shared.snapshot, &self.shared.stream] {
            drop(queue.stop());
        }
    }
}
