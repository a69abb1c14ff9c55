//! The intake: a task that takes what the source sends at the speed it is sent,
//! and gets a new link when one is lost.
//!
//! ```text
//!            .--------------- +CONTINUE ----------------.
//! link --> Snapshot --its end, ACK--> Stream --lost--> regain
//!            '------lost----------> regain (full resync)  '--- +FULLRESYNC --> Snapshot
//! ```
//!
//! Snapshot and stream go into a queue each: with two sockets they come at the
//! same time, and the caller takes the snapshot first. Invariants: the offset is
//! that of the last stream byte pushed, so that PSYNC asks for exactly the next
//! one, wherever in a command that is; a new history begins only after both
//! queues were emptied of the old one.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use tokio::sync::Notify;

use super::config::{ResumePoint, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::framing::FrameWatch;
use super::handshake::{Link, Start, Talk};
use super::meter::{TapMeter, TapMode};
use super::queue::{Mark, Queue};
use super::regain::Regain;
use super::spool::{DiskRoom, Spool, sweep};
use super::voice::{AckBoard, Say, Voice};
use super::wire::{Wire, unexpected};
use crate::upstream::ShardAddress;

/// A read of more is worth its cost by itself, and whoever has so much to say is not
/// to wait.
const REST_BELOW_BYTES: usize = 32 * 1024;

/// What intake and caller have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) snapshot: Arc<Queue>,
    pub(super) stream: Arc<Queue>,
    pub(super) acks: Arc<AckBoard>,
    pub(super) meter: Arc<TapMeter>,
    damage: Arc<Notify>,
    /// Why nothing comes any more.
    pub(super) end: Mutex<Option<TapError>>,
}

impl Shared {
    /// Empty queues. Deletes what an earlier process left in the spool's directory.
    pub(super) fn new(config: &TapConfig) -> Result<Self, TapErrorKind> {
        let (meter, damage) = (Arc::new(TapMeter::default()), Arc::new(Notify::new()));
        if let Some(dir) = &config.spool.dir {
            sweep(dir)?;
        }
        let room = Arc::new(DiskRoom::new(config.spool.disk_bytes_max));
        let queue = |name| {
            let dir = config.spool.dir.clone();
            let spool = dir.map(|dir| Spool::new(dir, name, Arc::clone(&room)));
            let memory = config.spool.memory_bytes_max / 2;
            let (meter, damage) = (Arc::clone(&meter), Arc::clone(&damage));
            Arc::new(Queue::new(memory, spool, meter, damage))
        };
        Ok(Self {
            snapshot: queue("snapshot"),
            stream: queue("stream"),
            acks: Arc::new(AckBoard::default()),
            meter,
            damage,
            end: Mutex::new(None),
        })
    }

    /// Returns when a spool is damaged.
    async fn damaged(&self) -> TapErrorKind {
        loop {
            let queues = [&self.snapshot, &self.stream];
            if let Some(damage) = queues.iter().find_map(|queue| queue.take_damage()) {
                return damage;
            }
            self.damage.notified().await;
        }
    }

    fn finish(&self, error: TapError) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.snapshot.end();
        self.stream.end();
    }
}

/// Where the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    /// `None`: the source numbers nothing (SYNC).
    replid: Option<String>,
    /// Of the last byte pushed.
    offset: u64,
    /// Newlines before the first byte are keepalives and do not count.
    started: bool,
}

/// The task's state.
#[derive(Debug)]
pub(super) struct Intake {
    config: TapConfig,
    shared: Arc<Shared>,
    regain: Regain,
    history: u64,
    position: Option<Position>,
    /// Before that, only a new snapshot can follow a lost link.
    snapshot_whole: bool,
}

impl Intake {
    pub(super) fn new(
        config: TapConfig,
        shared: Arc<Shared>,
        resume: Option<&ResumePoint>,
    ) -> Self {
        let position = resume.map(|point| Position {
            replid: Some(point.replid.clone()),
            offset: point.offset,
            started: false,
        });
        if let Some(position) = &position {
            shared.acks.begin(0, position.offset);
        }
        Self {
            regain: Regain::new(config.clone()),
            config,
            shared,
            history: 0,
            snapshot_whole: position.is_some(),
            position,
        }
    }

    /// The next link, to go on where the last one was lost.
    pub(super) async fn link(&mut self, lost: Option<TapError>) -> Result<Link, TapError> {
        let position = self.position.as_ref().filter(|_| self.snapshot_whole);
        let resume = position.and_then(|position| {
            Some(ResumePoint {
                replid: position.replid.clone()?,
                offset: position.offset,
                // The parser keeps it.
                db: 0,
            })
        });
        self.regain.link(resume.as_ref(), lost).await
    }

    /// Takes everything from `link` and its successors until there is none.
    pub(super) async fn run(mut self, mut link: Link) {
        loop {
            let shared = Arc::clone(&self.shared);
            let (address, before) = (link.address.clone(), self.offset());
            let goes_on = link.continues();
            let lost = tokio::select! {
                lost = self.follow(link) => lost,
                damage = shared.damaged() => {
                    self.snapshot_whole = false;
                    damage
                }
            };
            if goes_on && self.offset() != before {
                self.regain.made_progress();
            }
            let step = if self.snapshot_whole {
                TapStep::Stream
            } else {
                TapStep::Snapshot
            };
            let lost = lost.at(&address, step);
            self.shared.meter.note_error(lost.to_string());
            tracing::info!(%lost, "the link to the source is lost");
            match self.link(Some(lost)).await {
                Ok(next) => link = next,
                Err(error) => {
                    self.shared.meter.note_error(error.to_string());
                    return self.shared.finish(error);
                }
            }
            self.shared.meter.reconnected();
        }
    }

    fn offset(&self) -> Option<u64> {
        self.position.as_ref().map(|position| position.offset)
    }

    /// Takes everything from one link; returns how it was lost.
    async fn follow(&mut self, link: Link) -> TapErrorKind {
        let Link {
            address,
            mut wire,
            write,
            start,
        } = link;
        let voice = Voice::start(write, self.config.ack_every, Arc::clone(&self.shared.acks));
        match start {
            Start::Continue { replid } => {
                if let Some(position) = &mut self.position {
                    position.replid = Some(replid.clone());
                }
                let mark = Mark::Continue { address, replid };
                self.shared.stream.mark(mark);
                voice.say(Say::Acks);
                stream(&self.config, &mut wire, &self.shared, &mut self.position).await
            }
            Start::Full { replid, offset } => {
                self.begin(address, Some(replid), offset, TapMode::Psync);
                self.snapshot_then_stream(&mut wire, &voice, Say::Acks)
                    .await
            }
            Start::Unnumbered => {
                self.begin(address, None, 0, TapMode::Sync);
                self.snapshot_then_stream(&mut wire, &voice, Say::Nothing)
                    .await
            }
            Start::FullApart {
                replid,
                offset,
                snapshot,
            } => {
                self.begin(address, Some(replid), offset, TapMode::TwoSockets);
                self.snapshot_beside_stream(&mut wire, *snapshot, &voice)
                    .await
            }
        }
    }

    /// A new history: all that is left of the old one is dropped.
    fn begin(&mut self, address: ShardAddress, replid: Option<String>, offset: u64, mode: TapMode) {
        self.history += 1;
        let shared = &self.shared;
        shared.meter.set_mode(mode);
        shared.meter.set_offset(offset);
        shared.meter.full_resync();
        shared.acks.begin(self.history, offset);
        shared.stream.reset(self.history, None);
        let first = Mark::FullResync {
            address,
            replid: replid.clone().unwrap_or_default(),
            offset,
        };
        shared.snapshot.reset(self.history, Some(first));
        self.snapshot_whole = false;
        self.position = Some(Position {
            replid,
            offset,
            started: false,
        });
    }

    /// One socket: what is behind the snapshot's end is the stream's.
    async fn snapshot_then_stream(
        &mut self,
        wire: &mut Wire,
        voice: &Voice,
        say: Say,
    ) -> TapErrorKind {
        let rest = match snapshot(wire, &self.shared).await {
            Ok(rest) => rest,
            Err(lost) => return lost,
        };
        // A diskless source sends nothing more before this.
        voice.say(say);
        self.shared.snapshot.mark(Mark::SnapshotEnd);
        self.snapshot_whole = true;
        self.regain.made_progress();
        push_stream(&self.shared, &mut self.position, rest).await;
        stream(&self.config, wire, &self.shared, &mut self.position).await
    }

    /// Two sockets: both are read at the same time until the snapshot is whole.
    async fn snapshot_beside_stream(
        &mut self,
        wire: &mut Wire,
        mut apart: Talk,
        voice: &Voice,
    ) -> TapErrorKind {
        let mut stream = pin!(stream(&self.config, wire, &self.shared, &mut self.position));
        let rest = {
            let snapshot = pin!(snapshot(&mut apart.wire, &self.shared));
            tokio::select! {
                rest = snapshot => rest,
                lost = &mut stream => Err(lost),
            }
        };
        match rest {
            Ok(rest) if rest.is_empty() => {}
            Ok(rest) => return unexpected(&rest),
            Err(lost) => return lost,
        }
        drop(apart);
        voice.say(Say::Acks);
        self.shared.snapshot.mark(Mark::SnapshotEnd);
        self.snapshot_whole = true;
        self.regain.made_progress();
        stream.await
    }
}

/// Takes a snapshot; what came after it is the answer.
async fn snapshot(wire: &mut Wire, shared: &Shared) -> Result<BytesMut, TapErrorKind> {
    let mut watch = FrameWatch::new();
    loop {
        let mut chunk = wire.chunk().await?;
        let fed = watch.feed(&chunk)?;
        let rest = chunk.split_off(fed.bytes);
        shared.meter.received(chunk.len());
        shared.snapshot.push(chunk).await;
        if fed.ended {
            return Ok(rest);
        }
    }
}

/// Takes the stream until the link is lost.
async fn stream(
    config: &TapConfig,
    wire: &mut Wire,
    shared: &Shared,
    position: &mut Option<Position>,
) -> TapErrorKind {
    loop {
        let chunk = match wire.chunk().await {
            Ok(chunk) => chunk,
            Err(lost) => return lost,
        };
        let is_small = chunk.len() < REST_BELOW_BYTES;
        push_stream(shared, position, chunk).await;
        if is_small && !config.rest.is_zero() && !config.haste.is_hurried() {
            tokio::time::sleep(config.rest).await;
        }
    }
}

async fn push_stream(shared: &Shared, position: &mut Option<Position>, mut chunk: BytesMut) {
    let Some(position) = position else {
        return;
    };
    if !position.started {
        let keepalives = chunk.iter().take_while(|&&byte| byte == b'\n').count();
        chunk.advance(keepalives);
        position.started = !chunk.is_empty();
    }
    let len = chunk.len();
    shared.meter.received(len);
    shared.stream.push(chunk).await;
    position.offset += len as u64;
    shared.meter.set_offset(position.offset);
}
