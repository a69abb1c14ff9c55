//! What the mover is told, and every bound it keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::router::address::ShardAddress;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;

use super::begin::Begin;
use super::throttle::ThrottleDial;

/// Bytes of one lane that are sent but not answered, by default.
pub const WINDOW_BYTES_DEFAULT: usize = 4 * 1024 * 1024;
/// Operations of one lane that are sent but not answered, by default.
pub const WINDOW_OPS_DEFAULT: usize = 4096;
/// Bytes that wait in one lane before reading of its source pauses, by default.
pub const QUEUE_BYTES_DEFAULT: usize = 4 * 1024 * 1024;
/// Bytes in windows and queues of all lanes together: with many lanes, each has less.
pub const LANES_BYTES_MAX: usize = 24 * 1024 * 1024;
/// The least that a lane's window and queue are each cut down to.
pub const LANE_BYTES_MIN: usize = 128 * 1024;
/// Batches that wait in one lane; small batches are what an idle stream makes.
pub const QUEUE_BATCHES_MAX: usize = 1024;
/// A lane's batch is handed over when it holds this much.
pub const BATCH_BYTES: usize = 64 * 1024;
/// A lane's batch is handed over when it holds this many operations.
pub const BATCH_OPS_MAX: usize = 512;
/// Keys that `OnConflict::Skip` remembers; more is an error.
pub const SKIPPED_KEYS_MAX: usize = 1_000_000;
/// Examples that a conflict or verification report carries.
pub const EXAMPLES_MAX: usize = 20;
/// Keys asked for by one SCAN step: a server answers nobody else meanwhile, and 1000
/// keys of a table that is in no cache take it over a millisecond.
pub const SCAN_COUNT: usize = 250;
/// How long a tap leaves a stream alone after a small read. A source writes to us
/// after each turn of its loop, thousands of times a second; read that often, a
/// stream costs several times what its commands do.
pub const TAP_REST: Duration = Duration::from_millis(1);
/// Longest silence of a target that owes us replies: it may stand still for
/// minutes (a fork, a swap, a stopped process) without being lost.
pub const TARGET_SILENCE_MS_MAX: u64 = 300_000;
/// Longest wait for a marker to come back through the stream of its source.
pub const MARKER_MS_MAX: u64 = 60_000;
/// The same for a source that is read in repeated passes: a marker waits for one.
pub const PASS_MARKER_MS_MAX: u64 = 3_600_000;
/// A marker that returns within this time means that the source is followed closely.
pub const FOLLOWING_MARKER_MS_MAX: u64 = 250;
/// Pause between two looks at the lag while waiting to follow closely.
pub const FOLLOWING_RETRY_MS: u64 = 100;
/// Clocks of servers may be this far apart: an expiry time is a moment by the
/// clock of whoever holds the key.
pub const CLOCKS_APART_MS_MAX: u64 = 100;
/// A connection without traffic for this long is sent a PING: servers close
/// idle ones after their `timeout`, which is a second at least.
pub const IDLE_PING_MS: u64 = 500;
/// Longest time that a source may be out of reach: a failover, a reboot.
pub const SOURCE_PATIENCE_MS_MAX: u64 = 60_000;
/// Longest time that a target may be out of reach: as long as it may be silent.
pub const TARGET_PATIENCE_MS_MAX: u64 = TARGET_SILENCE_MS_MAX;
/// A lane without traffic notes this often on its target how far its source's
/// stream was read, so that a restart can go on there.
pub const IDLE_CHECKPOINT_MS: u64 = 1_000;
/// Bytes of one transaction of a source that are gathered for one batch; a longer
/// one is applied in several.
pub const UNIT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Time between two progress reports.
pub const PROGRESS_MS: u64 = 200;
/// Longest wait for one task to end after it was told to.
pub const JOIN_MS_MAX: u64 = 5_000;

const _: () = assert!(
    BATCH_BYTES <= LANE_BYTES_MIN,
    "a full batch fits the smallest window"
);
const _: () = assert!(
    WINDOW_BYTES_DEFAULT <= QUEUE_BYTES_DEFAULT,
    "the queue can fill the window"
);

/// What to run, between which servers, and within which bounds.
#[derive(Debug, Clone)]
pub struct MoverConfig {
    /// The old and the new layout.
    pub moves: Arc<Moves>,
    /// How to dial sources and targets.
    pub upstream: UpstreamConfig,
    /// Memory and window bounds.
    pub limits: MoverLimits,
    /// What to do with moving keys that targets already hold.
    pub on_conflict: OnConflict,
    /// An earlier run of this job began to copy: moving keys found in targets are ours.
    pub resumed: bool,
    /// Where to begin.
    pub begin: Begin,
    /// How fast the snapshot goes; may be turned while the mover works.
    pub throttle: ThrottleDial,
    /// How the sources are read.
    pub tapping: Tapping,
    /// Where keys that targets cannot be given are written, a JSON object a line;
    /// `None`: only to the log.
    pub shortfall_file: Option<PathBuf>,
    /// The job's id: letters, digits, `-` and `_`; it marks our messages and connections.
    pub job: String,
}

impl MoverConfig {
    /// Copies and large reads take longer than a client's request may: the
    /// session's own bound holds instead of the pool's.
    pub(super) fn patient(self) -> MoverConfig {
        let upstream = UpstreamConfig {
            request_timeout: None,
            ..self.upstream
        };
        MoverConfig { upstream, ..self }
    }
}

/// How the sources are attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attach {
    /// As a replica: every command, in its order.
    #[default]
    Psync,
    /// By SCAN, DUMP and PTTL, for servers without PSYNC: see `walk` for what is
    /// promised then.
    Scan,
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Attach::Psync => "psync",
            Attach::Scan => "scan",
        })
    }
}

/// A word that is no way of attaching.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown way of attaching `{0}`: use psync or scan")]
pub struct UnknownAttach(String);

impl FromStr for Attach {
    type Err = UnknownAttach;

    fn from_str(word: &str) -> Result<Attach, UnknownAttach> {
        match word {
            "psync" => Ok(Attach::Psync),
            "scan" => Ok(Attach::Scan),
            other => Err(UnknownAttach(other.to_owned())),
        }
    }
}

/// How the sources are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tapping {
    /// The way, for all of them.
    pub attach: Attach,
    /// Source -> its replica to read from instead. Markers are published on the
    /// source all the same: their way through the replica is part of the proof.
    pub replicas: BTreeMap<ShardAddress, ShardAddress>,
    /// Directory for what sources send faster than targets take it; a directory
    /// for each source is made in it. `None`: a source that is faster waits.
    pub spool_dir: Option<PathBuf>,
    /// Bytes on disk for one source; `None`: as many as there is room for.
    pub spool_bytes_max: Option<u64>,
    /// Directory that keeps settings of sources which are changed while they are
    /// walked through, a file each, for the run after one that was killed.
    /// `None`: such a run leaves them changed.
    pub settings_dir: Option<PathBuf>,
}

/// Bounds of one (source, target) lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoverLimits {
    /// Bytes sent but not answered. One larger operation may pass alone.
    pub window_bytes: usize,
    /// Operations sent but not answered.
    pub window_ops: usize,
    /// Bytes queued behind the window; when full, the source is not read on.
    pub queue_bytes: usize,
    /// How long a target that is out of reach is dialed again.
    pub target_patience_ms: u64,
}

impl MoverLimits {
    /// The same, cut down so that `lanes` of them fit into [`LANES_BYTES_MAX`].
    pub(super) fn shared_by(self, lanes: usize) -> MoverLimits {
        let share = (LANES_BYTES_MAX / 2 / lanes.max(1)).max(LANE_BYTES_MIN);
        MoverLimits {
            window_bytes: self.window_bytes.min(share),
            queue_bytes: self.queue_bytes.min(share),
            ..self
        }
    }
}

impl Default for MoverLimits {
    fn default() -> MoverLimits {
        MoverLimits {
            window_bytes: WINDOW_BYTES_DEFAULT,
            window_ops: WINDOW_OPS_DEFAULT,
            queue_bytes: QUEUE_BYTES_DEFAULT,
            target_patience_ms: TARGET_PATIENCE_MS_MAX,
        }
    }
}

/// What happens when a target already holds a key that is to move to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse to start; nothing is changed.
    Fail,
    /// Remove the target's key, then copy the source's.
    Replace,
    /// Keep the target's key; the source's is neither copied nor followed.
    Skip,
}

impl fmt::Display for OnConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnConflict::Fail => "fail",
            OnConflict::Replace => "replace",
            OnConflict::Skip => "skip",
        })
    }
}

/// A word that is no conflict policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown conflict policy `{0}`: use fail, replace or skip")]
pub struct UnknownPolicy(String);

impl FromStr for OnConflict {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<OnConflict, UnknownPolicy> {
        match word {
            "fail" => Ok(OnConflict::Fail),
            "replace" => Ok(OnConflict::Replace),
            "skip" => Ok(OnConflict::Skip),
            other => Err(UnknownPolicy(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_reads_back_what_it_prints() {
        for policy in [OnConflict::Fail, OnConflict::Replace, OnConflict::Skip] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("merge".parse::<OnConflict>().is_err());
    }

    #[test]
    fn every_way_of_attaching_reads_back_what_it_prints() {
        for attach in [Attach::Psync, Attach::Scan] {
            assert_eq!(attach.to_string().parse(), Ok(attach));
        }
        assert!("sync".parse::<Attach>().is_err());
    }
}
