//! One source: reads its feed and puts what concerns others into their lanes.
//!
//! ```text
//! Connecting --FullResync--> Snapshot --SnapshotEnd--> Draining --settled--> Following
//!    |            ^------------- FullResync again: the stream is lost (`restart`) ---'
//!    '---- Continue: begun after a position (`begin`) --> Draining
//! ```
//!
//! Draining ends when all lanes have answered for the snapshot, the stream is
//! followed closely, and guarded expiry times are right (`guard`, `settle`).
//!
//! Batches go out when they are full, or when the tap has nothing more to say
//! at this moment. The stream that follows the snapshot queues behind it in
//! the same lanes; when a lane's queue is full the tap is not read on, and the
//! source keeps what it has for us in its output buffer.
//!
//! Invariants: for each key, what is in the lanes is in the order of the
//! source's history; an offset is acknowledged only after every lane was
//! answered for everything before it.

mod cutting;
mod ending;
mod flushing;
mod live;
mod noting;
mod recall;
mod refreshing;
mod restart;
mod snapshot;
mod walked;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Interval;

use crate::replication::{StreamCommand, TapEvent};
use crate::restore::Dialect;
use crate::router::address::ShardAddress;
use crate::router::commands::KeyArg;
use crate::upstream::config::UpstreamConfig;

use super::begin::SourceBegin;
use super::checkpoint::StreamAt;
use super::config::UNIT_BYTES_MAX;
use super::error::MoveError;
use super::feed::{Feed, FeedConfig, FeedEvent};
use super::guard::{Guard, Stance};
use super::lane::{LaneMeter, Op};
use super::marker::Board;
use super::pace::Pace;
use super::pending::Pending;
use super::placement::{Placement, SourceIndex, TargetIndex};
use super::progress::{Phase, SourceRow, applied_offset};
use super::queue::LaneQueue;
use super::settle::Ask;
use super::shortfall::ShortfallLog;

pub(super) use noting::pending_key;

use cutting::{Cut, Lag};
use snapshot::Large;

/// How often offsets are acknowledged while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a source task is made of.
pub(super) struct SourceParts {
    pub(super) index: SourceIndex,
    pub(super) address: ShardAddress,
    pub(super) placement: Arc<Placement>,
    pub(super) queues: Vec<LaneQueue>,
    pub(super) meters: Vec<Arc<LaneMeter>>,
    pub(super) board: Board,
    pub(super) pending: Pending,
    /// Where it is noted on targets.
    pub(super) pending_key: Bytes,
    /// Which preparation for a cut is in force.
    pub(super) stance: Stance,
    pub(super) settler: mpsc::Sender<Ask>,
    /// The cut in force: what comes behind its marker has to wait.
    pub(super) cut: watch::Receiver<Option<u64>>,
    pub(super) row: Arc<SourceRow>,
    pub(super) pace: Arc<Pace>,
    pub(super) shortfalls: ShortfallLog,
    /// What the source itself speaks.
    pub(super) dialect: Dialect,
    /// How targets are dialed.
    pub(super) upstream: UpstreamConfig,
}

/// The task's state.
struct Source {
    parts: SourceParts,
    feed: Feed,
    look: Interval,
    phase: Phase,
    begin: SourceBegin,
    offset: u64,
    /// Name of the source's history.
    replid: Arc<str>,
    /// The newest place between two commands or transactions of the stream.
    reached: Option<StreamAt>,
    /// Whether what comes is inside a transaction of the source.
    unit: Unit,
    scanned: u64,
    sent: u64,
    expired: u64,
    by_commands: u64,
    /// When the source wrote its snapshot, by its own clock.
    snapshot_at_ms: Option<i64>,
    /// The value that comes in parts at this moment.
    large: Large,
    commands: u64,
    bytes: u64,
    /// How often databases were flushed or swapped.
    flushes: u64,
    /// Keys that were read again.
    refreshed: u64,
    /// Commands whose keys go to different servers, by name.
    spanning: BTreeMap<&'static str, u64>,
    /// That they are many was said.
    spanning_told: bool,
    /// A cut that is not through.
    cut: Option<Cut>,
    draining: Draining,
    guard: Guard,
    lag: Lag,
    /// When the source had nothing more to say, last: what came later is newer.
    idle_at: Instant,
    /// How often it began anew.
    restarts: u64,
    scratch: Vec<KeyArg>,
}

/// What is left to do between the end of the snapshot and `Following`.
#[derive(Debug)]
enum Draining {
    /// Nothing: it is over, or has not begun.
    Nothing,
    /// So many barriers of the snapshot's end are still to pass.
    Lanes(mpsc::Receiver<()>, usize),
    /// The settler is to be told.
    ToSettle,
    /// It was told, and says at a marker when it is done.
    Settling,
}

/// Where the stream is in a MULTI block of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Outside,
    /// What is gathered since its MULTI goes as one batch.
    Inside,
    /// The same, but some of it had to go before its end.
    Broken,
}

/// Follows the source until told to stop, then detaches.
pub(super) async fn follow(
    parts: SourceParts,
    feed: FeedConfig,
    begin: SourceBegin,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let feed = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        feed = Feed::attach(&parts.address, feed, begin.point().cloned()) => feed?,
    };
    let guard = Guard::new(parts.stance.clone());
    let mut source = Source {
        parts,
        feed,
        look: tokio::time::interval(LOOK_EVERY),
        phase: Phase::Connecting,
        offset: begin.point().map_or(0, |point| point.offset),
        replid: begin.point().map_or("", |point| &point.replid).into(),
        reached: begin.point().map(StreamAt::of),
        unit: Unit::Outside,
        begin,
        scanned: 0,
        sent: 0,
        expired: 0,
        by_commands: 0,
        snapshot_at_ms: None,
        large: Large::None,
        commands: 0,
        bytes: 0,
        flushes: 0,
        refreshed: 0,
        spanning: BTreeMap::new(),
        spanning_told: false,
        cut: None,
        draining: Draining::Nothing,
        restarts: 0,
        guard,
        lag: Lag::default(),
        idle_at: Instant::now(),
        scratch: Vec::new(),
    };
    let done = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = source.follow() => done,
    };
    source.feed.close().await;
    done
}

impl Source {
    async fn follow(&mut self) -> Result<(), MoveError> {
        loop {
            let event = self.next_event().await?;
            self.relax()?;
            self.on_event(event).await?;
            self.pass_cut().await?;
        }
    }

    /// The next event; what was gathered goes out before we wait for it.
    async fn next_event(&mut self) -> Result<FeedEvent, MoveError> {
        let mut next = ready_now(self.feed.next()).await;
        loop {
            if let Some(event) = next {
                return event;
            }
            self.idle_at = Instant::now();
            self.flush_all().await?;
            next = tokio::select! {
                event = self.feed.next() => Some(event),
                _ = self.look.tick() => None,
            };
        }
    }

    async fn on_event(&mut self, event: FeedEvent) -> Result<(), MoveError> {
        match event {
            FeedEvent::Tap(event) => self.on_tap_event(event).await,
            FeedEvent::Walk(event) => self.on_walk_event(event).await,
        }
    }

    async fn on_tap_event(&mut self, event: TapEvent) -> Result<(), MoveError> {
        match event {
            TapEvent::FullResync { offset, replid } => {
                self.clear_targets().await?;
                (self.offset, self.replid) = (offset, replid.into());
                (self.reached, self.unit) = (None, Unit::Outside);
                self.phase = Phase::Snapshot;
                self.show();
            }
            TapEvent::Snapshot(record) => self.on_record(&record).await?,
            TapEvent::Function(code) => self.on_library(&code).await?,
            TapEvent::SnapshotEnd => self.on_snapshot_applied().await?,
            TapEvent::Command(command) => self.on_command(&command).await?,
            TapEvent::TransactionBegin { .. } => self.unit = Unit::Inside,
            TapEvent::TransactionEnd { offset_end, db } => {
                self.unit = Unit::Outside;
                self.reach(offset_end, db);
                self.flush_full().await?;
            }
            TapEvent::Idle { offset, db } => self.reach(offset, db),
            TapEvent::LargeKey(head) => self.on_large_key(&head)?,
            TapEvent::Part { bytes, last } => self.on_part(&bytes, last).await?,
            TapEvent::Continue { replid } => {
                // The stream just goes on; a promoted replica gives it another name.
                let is_promoted = *replid != *self.replid;
                self.replid = replid.into();
                if self.phase == Phase::Connecting {
                    self.recall_all().await?;
                    self.on_snapshot_applied().await?;
                } else if is_promoted {
                    self.forget_markers();
                }
            }
            // Module data outside keys are not carried.
            TapEvent::ModuleAux(_) => {}
            TapEvent::Aux { key, value } => self.on_aux(&key, &value).await?,
        }
        Ok(())
    }

    /// All commands up to this one are in the lanes, or will be with the next flush.
    fn reach_command(&mut self, command: &StreamCommand) {
        if command.in_transaction {
            self.offset = command.offset_end;
        } else {
            self.reach(command.offset_end, command.db);
        }
    }

    /// The stream was read up to a place where it can be gone on with.
    fn reach(&mut self, offset: u64, db: u32) {
        self.offset = offset;
        let replid = Arc::clone(&self.replid);
        self.reached = Some(StreamAt { replid, offset, db });
    }

    /// Where the stream could be gone on with after a flush now.
    fn resumable_at(&self) -> Option<StreamAt> {
        // What was passed over for a pending key is not in the lanes, but noted there
        // (`noting`); only the keys that a listing finds are not, nor those that no
        // target holds.
        let whole = self.phase >= Phase::Draining
            && self.unit == Unit::Outside
            && !self.parts.pending.is_listing()
            && !self.parts.shortfalls.any_unheld();
        self.reached
            .clone()
            .filter(|_| whole && self.feed.has_stream())
    }

    async fn flush_if_full(&mut self, target: TargetIndex) -> Result<(), MoveError> {
        let queue = self.queue(target)?;
        let is_full = queue.is_full();
        let is_huge = queue.pending_bytes() >= UNIT_BYTES_MAX;
        match self.unit {
            Unit::Outside | Unit::Broken if !is_full => return Ok(()),
            Unit::Inside if !is_huge => return Ok(()),
            Unit::Inside => self.unit = Unit::Broken,
            Unit::Outside | Unit::Broken => {}
        }
        self.flush(target).await?;
        self.show();
        Ok(())
    }

    /// Hands over what waits for one target; the snapshot's share keeps the pace.
    async fn flush(&mut self, target: TargetIndex) -> Result<(), MoveError> {
        let (offset, snapshot) = (self.offset, self.phase == Phase::Snapshot);
        let bytes = self.queue(target)?.pending_bytes();
        if snapshot && bytes > 0 {
            self.parts.pace.pass(bytes).await;
        }
        self.bytes += bytes as u64;
        self.look_at_lag();
        let at = self.resumable_at();
        self.queue(target)?.flush(offset, at.as_ref()).await
    }

    /// Hands over what is worth it, at the end of a transaction.
    async fn flush_full(&mut self) -> Result<(), MoveError> {
        for at in 0..self.parts.queues.len() {
            if let Some(queue) = self.parts.queues.get(at) {
                self.flush_if_full(queue.target).await?;
            }
        }
        Ok(())
    }

    /// All of the snapshot is in the lanes, or was on the targets to begin with.
    async fn on_snapshot_applied(&mut self) -> Result<(), MoveError> {
        self.flush_all().await?;
        self.phase = Phase::Draining;
        let lanes = self.parts.queues.len();
        let (passed, draining) = mpsc::channel(lanes.max(1));
        self.barrier(&passed);
        self.draining = Draining::Lanes(draining, lanes);
        self.flush_all().await
    }

    fn barrier(&mut self, passed: &mpsc::Sender<()>) {
        for queue in &mut self.parts.queues {
            queue.push(&[], Op::Barrier(passed.clone()));
        }
    }

    /// Hands over everything, then says how far all lanes are. What is gathered of
    /// a transaction of the source waits for its end.
    async fn flush_all(&mut self) -> Result<(), MoveError> {
        let reached = self.resumable_at();
        let queues = match self.unit {
            Unit::Inside => 0,
            Unit::Outside | Unit::Broken => self.parts.queues.len(),
        };
        for at in 0..queues {
            if let (Some(queue), Some(reached)) = (self.parts.queues.get_mut(at), &reached)
                && queue.is_note_due(reached)
            {
                queue.note();
            }
            if let Some(queue) = self.parts.queues.get(at) {
                self.flush(queue.target).await?;
            }
        }
        self.drain();
        self.look_at_lag();
        if self.phase >= Phase::Draining {
            self.feed
                .acknowledge(applied_offset(&self.parts.meters, self.offset));
        }
        self.show();
        Ok(())
    }

    fn drain(&mut self) {
        if let Draining::Lanes(passed, left) = &mut self.draining {
            while *left > 0 && passed.try_recv().is_ok() {
                *left -= 1;
            }
            if *left > 0 {
                return;
            }
            if self.feed.needs_guard() {
                self.draining = Draining::ToSettle;
            } else {
                self.follow_from_here();
            }
        }
        // One that ended has its own reason; one that has no room is asked again.
        if matches!(self.draining, Draining::ToSettle)
            && self.parts.settler.try_send(Ask::Drained).is_ok()
        {
            self.draining = Draining::Settling;
        }
    }

    fn follow_from_here(&mut self) {
        (self.phase, self.draining) = (Phase::Following, Draining::Nothing);
    }

    fn show(&mut self) {
        self.parts.row.update(|row| {
            row.phase = self.phase;
            row.keys_scanned = self.scanned;
            row.keys_sent = self.sent;
            row.keys_expired = self.expired;
            row.keys_by_commands = self.by_commands;
            row.bytes_sent = self.bytes;
            row.commands_sent = self.commands;
            row.times_unguarded = self.guard.unguarded();
            row.restarts = self.restarts;
            row.flushes = self.flushes;
            row.keys_refreshed = self.refreshed;
            row.spanning_commands.clone_from(&self.spanning);
            self.feed.show(row);
            row.offset_read = self.offset;
        });
    }

    fn queue(&mut self, target: TargetIndex) -> Result<&mut LaneQueue, MoveError> {
        let found = self
            .parts
            .queues
            .iter_mut()
            .find(|queue| queue.target == target);
        found.ok_or_else(|| MoveError::TaskLost {
            task: format!("source {}", self.parts.address),
            how: format!("it has no lane to target number {}", target.0),
        })
    }
}

/// The clock, for the guard of expiry times.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The output of `work` if it is there without waiting. `work` is dropped
/// otherwise, so it must be cancel safe.
async fn ready_now<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
