//! What the journal remembers: each record is one thing that happened to the job.
//!
//! Records are the events of the job's state machine (`state.rs`): replaying
//! them gives the state the job is in. Times are milliseconds since 1970 UTC.
//! A record of an unknown kind or with an unknown field is refused, never skipped.

use serde::{Deserialize, Serialize};

use super::fence::FenceLevel;
use super::fence::min_replicas::KeptSettings;
use super::mover::{Position, SourceProof};
use super::refreshes::SourceRefreshes;
use crate::router::spec::LayoutSpec;

/// One event of a job, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// The job exists: what it will do. The first record of every journal.
    Planned {
        /// When.
        at_ms: u64,
        /// What the job is to do.
        job: PlannedJob,
    },
    /// A coordinator process took the job over.
    Started {
        /// Grows with every process and every switch try; proxies refuse lower ones.
        incarnation: u64,
        /// When.
        at_ms: u64,
    },
    /// From here on targets may hold keys that this job wrote.
    CopyingBegan {
        /// When.
        at_ms: u64,
        /// They hold moving keys of others as well (`--on-conflict skip`).
        #[serde(default, skip_serializing_if = "is_false")]
        beside_others: bool,
    },
    /// Every source's snapshot is in its targets; the live stream is followed.
    FollowingBegan {
        /// When.
        at_ms: u64,
        /// How much was copied.
        copied: Copied,
    },
    /// A source could not go on where its stream was left: its keys are copied anew.
    SourceRestarted {
        /// When it was noticed.
        at_ms: u64,
        /// The source's address.
        source: String,
    },
    /// A full verify found every moving key equal.
    Verified {
        /// When this verify ended.
        at_ms: u64,
        /// Keys compared.
        keys: u64,
        /// What was found equal, by source.
        #[serde(default)]
        proof: Vec<SourceProof>,
    },
    /// What the newest process has read from sources a second time, on the way to the
    /// new layout; it takes the place of what that process said before.
    Refreshed {
        /// When.
        at_ms: u64,
        /// By source, but for those without any.
        sources: Vec<SourceRefreshes>,
    },
    /// A verify found keys that differ, or a clean one no longer holds.
    VerifyDiffered {
        /// When.
        at_ms: u64,
        /// Keys that differ.
        differing: u64,
    },
    /// The operator keeps the job from switching.
    Paused {
        /// When.
        at_ms: u64,
    },
    /// The operator lets the job switch again.
    Resumed {
        /// When.
        at_ms: u64,
    },
    /// A switch is about to be asked of the proxies.
    SwitchIntended {
        /// When.
        at_ms: u64,
        /// The incarnation all calls of this try carry.
        incarnation: u64,
        /// What the sources' fence can do.
        #[serde(default, skip_serializing_if = "is_proxies_only")]
        fence: FenceLevel,
        /// To the new layout, or back to the old one.
        #[serde(default, skip_serializing_if = "Direction::is_forward")]
        direction: Direction,
        /// What the sources are to be set to again, where settings are their fence.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settings: Vec<KeptSettings>,
    },
    /// Every proxy is armed; the next thing sent is a commit.
    SwitchDecided {
        /// When.
        at_ms: u64,
        /// Where the way back can begin, one a new shard; empty when it is not known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        positions: Vec<StreamPosition>,
    },
    /// Every proxy released on the old route.
    SwitchAborted {
        /// When.
        at_ms: u64,
        /// What made it impossible.
        why: String,
    },
    /// Every proxy routes by the new epoch.
    SwitchCommitted {
        /// When.
        at_ms: u64,
        /// What each proxy said.
        proxies: Vec<ProxyPause>,
        /// Admin addresses of proxies that had not confirmed it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        late: Vec<String>,
        /// Connections that wrote to old shards, round the proxies, while it was made.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        bypass: Vec<String>,
    },
    /// After the switch somebody wrote to shards that keys had left, round the proxies.
    BypassSeen {
        /// When it was seen.
        at_ms: u64,
        /// Connections, in words.
        writers: Vec<String>,
    },
    /// The operator ended the job after its switch.
    Completed {
        /// When.
        at_ms: u64,
        /// Keys deleted from the old shards; `None` when `--purge` was not given.
        purged_keys: Option<u64>,
    },
    /// The job stopped on an error; it may be resumed.
    Failed {
        /// When.
        at_ms: u64,
        /// The error's words.
        why: String,
    },
    /// `rollback` before the switch: the old route was never left. A rollback after
    /// it is a switch with the direction `back`.
    RolledBack {
        /// When.
        at_ms: u64,
    },
    /// What a job that was taken back had copied is gone from the new shards.
    CopiesRemoved {
        /// When.
        at_ms: u64,
        /// How many keys.
        keys: u64,
    },
    /// The operator gave the job up before its switch, or it was refused at its start.
    Cancelled {
        /// When.
        at_ms: u64,
        /// Who or what.
        why: String,
    },
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_proxies_only(fence: &FenceLevel) -> bool {
    *fence == FenceLevel::ProxiesOnly
}

/// Which way keys and routes go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the old layout to the new one.
    #[default]
    Forward,
    /// From the new layout to the old one.
    Back,
}

impl Direction {
    /// Whether it is the way to the new layout.
    pub fn is_forward(&self) -> bool {
        *self == Self::Forward
    }
}

/// A place in a new shard's stream: everything before it was written by the job,
/// what comes after it by clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPosition {
    /// The shard's address.
    pub source: String,
    /// Replication id of the history that the offset counts in.
    pub replid: String,
    /// The last byte before the place.
    pub offset: u64,
    /// The database that is selected there.
    pub db: u32,
}

impl StreamPosition {
    /// What the mover said.
    pub fn of(position: &Position) -> Self {
        Self {
            source: position.source.to_string(),
            replid: position.replid.clone(),
            offset: position.offset,
            db: position.db,
        }
    }

    /// What the mover is told; `None` when the address is none.
    pub fn position(&self) -> Option<Position> {
        Some(Position {
            source: self.source.parse().ok()?,
            replid: self.replid.clone(),
            offset: self.offset,
            db: self.db,
        })
    }
}

/// Where a switch leads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal<'a> {
    /// Epoch of the layout that is to come into force.
    pub epoch: u64,
    /// The layout that is left.
    pub from: &'a LayoutSpec,
    /// The layout that comes.
    pub to: &'a LayoutSpec,
}

/// What a job is to do; fixed at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    /// Unique name of the job.
    pub job: String,
    /// The pool whose keys move.
    pub pool: String,
    /// The layout the proxies had.
    pub from: LayoutSpec,
    /// The layout they get.
    pub to: LayoutSpec,
    /// Epoch of the new layout: the proxies' epoch plus one.
    pub epoch: u64,
    /// Admin addresses of every proxy of the pool.
    pub proxies: Vec<String>,
}

impl PlannedJob {
    /// Where a switch in this direction leads.
    pub fn goal(&self, direction: Direction) -> Goal<'_> {
        match direction {
            Direction::Forward => Goal {
                epoch: self.epoch,
                from: &self.from,
                to: &self.to,
            },
            Direction::Back => Goal {
                epoch: self.epoch + 1,
                from: &self.to,
                to: &self.from,
            },
        }
    }
}

/// How much a copy wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copied {
    /// Keys.
    pub keys: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// What one proxy's clients felt of the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyPause {
    /// The proxy's admin address.
    pub proxy: String,
    /// Requests that waited.
    pub held_requests: u64,
    /// Longest wait, microseconds.
    pub held_us_max: u64,
}

impl Record {
    /// The record in words, for messages: "recording {name} failed".
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "the plan",
            Self::Started { .. } => "the start",
            Self::CopyingBegan { .. } => "the start of the copy",
            Self::FollowingBegan { .. } => "the end of the copy",
            Self::SourceRestarted { .. } => "the new copy of a source",
            Self::Verified { .. } => "the clean verify",
            Self::Refreshed { .. } => "what was read again",
            Self::VerifyDiffered { .. } => "the verify's differences",
            Self::Paused { .. } => "the pause",
            Self::Resumed { .. } => "the end of the pause",
            Self::SwitchIntended { .. } => "the switch's intent",
            Self::SwitchDecided { .. } => "the switch's decision",
            Self::SwitchAborted { .. } => "the switch's abort",
            Self::SwitchCommitted { .. } => "the switch",
            Self::BypassSeen { .. } => "the writers round the proxies",
            Self::Completed { .. } => "the completion",
            Self::Failed { .. } => "the failure",
            Self::RolledBack { .. } => "the rollback",
            Self::CopiesRemoved { .. } => "the end of the copies",
            Self::Cancelled { .. } => "the cancel",
        }
    }

    /// When it happened, milliseconds since 1970 UTC.
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::Planned { at_ms, .. }
            | Self::Started { at_ms, .. }
            | Self::CopyingBegan { at_ms, .. }
            | Self::FollowingBegan { at_ms, .. }
            | Self::SourceRestarted { at_ms, .. }
            | Self::Verified { at_ms, .. }
            | Self::Refreshed { at_ms, .. }
            | Self::VerifyDiffered { at_ms, .. }
            | Self::Paused { at_ms }
            | Self::Resumed { at_ms }
            | Self::SwitchIntended { at_ms, .. }
            | Self::SwitchDecided { at_ms, .. }
            | Self::SwitchAborted { at_ms, .. }
            | Self::SwitchCommitted { at_ms, .. }
            | Self::BypassSeen { at_ms, .. }
            | Self::Completed { at_ms, .. }
            | Self::Failed { at_ms, .. }
            | Self::RolledBack { at_ms }
            | Self::CopiesRemoved { at_ms, .. }
            | Self::Cancelled { at_ms, .. } => *at_ms,
        }
    }
}
