//! How far the mover is, as others see it.
//!
//! Each source task writes its own row; a reporting task puts the rows together
//! every `PROGRESS_MS` and publishes them through a watch channel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::replication::TapFigures;
use crate::router::address::ShardAddress;

use super::canary::CanaryFigures;
use super::config::PROGRESS_MS;
use super::lane::LaneMeter;
use super::shortfall::{ShortfallLog, Shortfalls};
use super::strain::Held;
use super::walk::WalkFigures;

/// Where a source is: each phase ends before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Handshake with the source; it may be preparing its snapshot.
    Connecting,
    /// The snapshot is read and sent.
    Snapshot,
    /// The snapshot was read; targets still owe replies for it.
    Draining,
    /// The snapshot is applied and the live stream is followed.
    Following,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProgress {
    /// Its address.
    pub source: ShardAddress,
    /// Where it is.
    pub phase: Phase,
    /// Keys seen in the snapshot, whoever owns them.
    pub keys_scanned: u64,
    /// Keys sent to targets.
    pub keys_sent: u64,
    /// Keys that targets confirmed.
    pub keys_acked: u64,
    /// Bytes sent to targets, snapshot and stream together.
    pub bytes_sent: u64,
    /// Keys the source held when the mover started: what `keys_scanned` will be, about.
    pub keys_hint: u64,
    /// Bytes of the snapshot read so far.
    pub snapshot_bytes: u64,
    /// Bytes the snapshot has; a diskless one does not say.
    pub snapshot_bytes_total: Option<u64>,
    /// Commands of the live stream sent to targets.
    pub commands_sent: u64,
    /// Near expiry times that went out unguarded, for want of room: if the
    /// source renewed such a key in time, its target may have ended it.
    pub times_unguarded: u64,
    /// How often its stream was lost for good and it was copied anew.
    pub restarts: u64,
    /// How often its databases were flushed or swapped (FLUSHDB, FLUSHALL, SWAPDB).
    pub flushes: u64,
    /// Keys that were read from the source again, since a command on them could
    /// not be applied.
    pub keys_refreshed: u64,
    /// Commands of the stream whose keys go to different servers, by name.
    pub spanning_commands: BTreeMap<&'static str, u64>,
    /// Keys that had expired before the snapshot was taken, and were not sent.
    pub keys_expired: u64,
    /// Keys whose value was built by commands, being large or of no layout that
    /// their target reads.
    pub keys_by_commands: u64,
    /// What targets could not be given.
    pub shortfalls: Shortfalls,
    /// How its tap is: links, and what waits to be applied. `None` before it is
    /// attached.
    pub tap: Option<TapFigures>,
    /// How its walk is, if it has no tap.
    pub walk: Option<WalkFigures>,
    /// What is compared all the time while it is followed.
    pub canary: CanaryFigures,
    /// Offset up to which the stream was read, in bytes.
    pub offset_read: u64,
    /// Offset up to which every target has applied what concerns it.
    pub offset_applied: u64,
}

impl SourceProgress {
    pub(super) fn new(source: ShardAddress, keys_hint: u64) -> SourceProgress {
        SourceProgress {
            source,
            phase: Phase::Connecting,
            keys_scanned: 0,
            keys_sent: 0,
            keys_acked: 0,
            bytes_sent: 0,
            keys_hint,
            snapshot_bytes: 0,
            snapshot_bytes_total: None,
            commands_sent: 0,
            times_unguarded: 0,
            restarts: 0,
            flushes: 0,
            keys_refreshed: 0,
            spanning_commands: BTreeMap::new(),
            tap: None,
            walk: None,
            canary: CanaryFigures::default(),
            keys_expired: 0,
            keys_by_commands: 0,
            shortfalls: Shortfalls::default(),
            offset_read: 0,
            offset_applied: 0,
        }
    }

    /// That of a source which is followed, and of which nothing was done.
    #[cfg(test)]
    pub fn idle(source: ShardAddress) -> SourceProgress {
        SourceProgress {
            phase: Phase::Following,
            ..SourceProgress::new(source, 0)
        }
    }

    /// Stream bytes read but not applied.
    pub fn lag_bytes(&self) -> u64 {
        self.offset_read.saturating_sub(self.offset_applied)
    }
}

/// Every source, in the order of the old layout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoverProgress {
    /// One row a source.
    pub sources: Vec<SourceProgress>,
    /// What bounds the copy's speed at this moment.
    pub held: Held,
}

impl MoverProgress {
    /// How often sources were copied anew, all together.
    pub fn restarts(&self) -> u64 {
        self.sources.iter().map(|row| row.restarts).sum()
    }

    /// Keys that canaries found to differ, all together.
    pub fn canary_differences(&self) -> u64 {
        self.sources.iter().map(|row| row.canary.differences).sum()
    }

    /// How long the slowest source's last marker took, in milliseconds.
    pub fn lag_ms(&self) -> Option<u64> {
        self.sources
            .iter()
            .filter_map(|row| row.canary.lag_ms)
            .max()
    }

    /// The longest pass over a source's keys, where changes are found by repeated
    /// passes: a marker, and with it the switch, takes at least as long.
    pub fn pass_ms(&self) -> Option<u64> {
        let walks = self.sources.iter().filter_map(|row| row.walk.as_ref());
        walks.filter_map(|walk| walk.pass_ms).max()
    }

    /// Whether changes of a source are found by repeated passes.
    pub fn is_by_passes(&self) -> bool {
        let mut walks = self.sources.iter().filter_map(|row| row.walk.as_ref());
        walks.any(|walk| walk.passes_because.is_some())
    }

    /// True when every source has its snapshot applied and follows the stream.
    pub fn is_following(&self) -> bool {
        !self.sources.is_empty() && self.sources.iter().all(|row| row.phase == Phase::Following)
    }
}

/// The row that a source task writes and the reporter reads.
#[derive(Debug)]
pub(super) struct SourceRow {
    row: Mutex<SourceProgress>,
    lanes: Vec<Arc<LaneMeter>>,
    shortfalls: ShortfallLog,
}

impl SourceRow {
    pub(super) fn new(
        source: ShardAddress,
        keys_hint: u64,
        lanes: Vec<Arc<LaneMeter>>,
        shortfalls: ShortfallLog,
    ) -> SourceRow {
        SourceRow {
            row: Mutex::new(SourceProgress::new(source, keys_hint)),
            lanes,
            shortfalls,
        }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut SourceProgress)) {
        change(&mut self.row.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The row as of now, with what the lanes have confirmed since.
    pub(super) fn read(&self) -> SourceProgress {
        let mut row = self
            .row
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        row.keys_acked = self.lanes.iter().map(|lane| lane.keys_acked()).sum();
        row.shortfalls = self.shortfalls.read();
        row.offset_applied = applied_offset(&self.lanes, row.offset_read);
        row
    }
}

/// The offset that all lanes have applied, when `read` is how far we sent.
pub(super) fn applied_offset(lanes: &[Arc<LaneMeter>], read: u64) -> u64 {
    lanes
        .iter()
        .map(|lane| lane.applied_offset(read))
        .min()
        .unwrap_or(read)
}

/// Publishes all rows until told to stop.
pub(super) async fn report(
    rows: Vec<Arc<SourceRow>>,
    held: watch::Receiver<Held>,
    out: watch::Sender<MoverProgress>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(Duration::from_millis(PROGRESS_MS));
    loop {
        out.send_replace(MoverProgress {
            sources: rows.iter().map(|row| row.read()).collect(),
            held: held.borrow().clone(),
        });
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
