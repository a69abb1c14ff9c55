//! One source of a running job, as its status shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reshard::mover::SourceProgress;

/// One source in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its address.
    pub addr: String,
    /// `connecting`, `snapshot`, `draining` or `following`.
    pub phase: String,
    /// Keys seen in its snapshot.
    pub keys_scanned: u64,
    /// Keys that targets confirmed.
    pub keys_copied: u64,
    /// Keys it held when the job began: about what `keys_scanned` will be.
    pub keys_hint: u64,
    /// Bytes of its snapshot that were read.
    pub snapshot_bytes: u64,
    /// Bytes of its snapshot, when the server told them beforehand.
    pub snapshot_bytes_total: Option<u64>,
    /// Bytes sent to targets.
    pub bytes_sent: u64,
    /// Stream bytes read but not applied.
    pub lag_bytes: u64,
    /// How long its last marker took through all lanes, in milliseconds.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// Commands of its live stream that were sent to targets.
    #[serde(default)]
    pub commands_applied: u64,
    /// Keys that canaries compared.
    #[serde(default)]
    pub canaries_compared: u64,
    /// Commands of its live stream whose keys go to different new shards, by name.
    #[serde(default)]
    pub spanning_commands: BTreeMap<String, u64>,
    /// Keys that were read from it again, for such commands and for times that came
    /// near.
    #[serde(default)]
    pub keys_refreshed: u64,
    /// How often databases of it were flushed or swapped.
    #[serde(default)]
    pub flushes: u64,
    /// Near expiry times that could not be guarded, for want of room.
    #[serde(default)]
    pub times_unguarded: u64,
    /// Keys that had expired before its snapshot, and were not sent.
    #[serde(default)]
    pub keys_expired: u64,
    /// Keys whose value was built by commands.
    #[serde(default)]
    pub keys_by_commands: u64,
    /// Keys that their targets cannot hold.
    #[serde(default)]
    pub keys_unheld: u64,
    /// Keys that are on their targets without something that is no content.
    #[serde(default)]
    pub keys_not_whole: u64,
    /// Bytes received that wait in memory and on disk.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Of these, bytes on disk.
    #[serde(default)]
    pub spooled_bytes: u64,
    /// Links made after the first.
    #[serde(default)]
    pub reconnects: u64,
    /// How often its stream was lost for good and it was copied anew.
    #[serde(default)]
    pub restarts: u64,
    /// What went wrong last with its link, even if it was overcome.
    #[serde(default)]
    pub last_link_error: Option<String>,
    /// With `scan`: how changes are found, `notifications` or `passes`.
    #[serde(default)]
    pub changes_by: Option<String>,
    /// With `scan`: keys that changed and are still to be read.
    #[serde(default)]
    pub waiting_keys: u64,
    /// With `passes`: how long the newest pass over all keys took. A switch takes
    /// as long.
    #[serde(default)]
    pub pass_ms: Option<u64>,
}

impl SourceStatus {
    pub(super) fn of(row: &SourceProgress) -> Self {
        let tap = row.tap.as_ref();
        let walk = row.walk.as_ref();
        let changes_by = walk.map(|walk| match walk.passes_because {
            None => "notifications",
            Some(_) => "passes",
        });
        Self {
            addr: row.source.to_string(),
            phase: format!("{:?}", row.phase).to_ascii_lowercase(),
            keys_scanned: row.keys_scanned,
            keys_copied: row.keys_acked,
            keys_hint: row.keys_hint,
            snapshot_bytes: row.snapshot_bytes,
            snapshot_bytes_total: row.snapshot_bytes_total,
            bytes_sent: row.bytes_sent,
            lag_bytes: row.lag_bytes(),
            lag_ms: row.canary.lag_ms,
            commands_applied: row.commands_sent,
            canaries_compared: row.canary.keys_compared,
            spanning_commands: row
                .spanning_commands
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            keys_refreshed: row.keys_refreshed,
            flushes: row.flushes,
            times_unguarded: row.times_unguarded,
            keys_expired: row.keys_expired,
            keys_by_commands: row.keys_by_commands,
            keys_unheld: row.shortfalls.cannot_hold,
            keys_not_whole: row.shortfalls.lose,
            waiting_bytes: tap.map_or(0, |tap| tap.memory_bytes + tap.disk_bytes),
            spooled_bytes: tap.map_or(0, |tap| tap.disk_bytes),
            reconnects: tap.map_or(0, |tap| tap.reconnects)
                + walk.map_or(0, |walk| walk.interruptions),
            restarts: row.restarts,
            last_link_error: tap
                .and_then(|tap| tap.last_error.clone())
                .or_else(|| walk.and_then(|walk| walk.last_interruption.clone())),
            changes_by: changes_by.map(str::to_owned),
            waiting_keys: walk.map_or(0, |walk| walk.waiting_keys),
            pass_ms: walk.and_then(|walk| walk.pass_ms),
        }
    }
}
