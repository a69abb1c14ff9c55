//! The life of a job, replayed from its journal.
//!
//! ```text
//!              ,-- source restarted --.
//! planned -> copying -> following -> verified -> switching -> switched -> completed
//!    ^                   ^   ^ `--- differs ---'    |         |  ^
//!    |                   |   `------- aborted ------'  intent |  | aborted
//!    |                   |   (after a restart: planned)  back v  |
//!    |                   |                             switching (back) -> rolled_back
//!    |                   `- paused (following, verified)
//!    `--- started again <- copying following verified paused failed
//! planned..verified, paused, failed -> cancelled | rolled_back
//! planned..verified, paused         -> failed
//! ```
//! A switched job has a life of its own inside, the way back (`state/back.rs`).
//!
//! Invariants: a switch is intended only from *verified*, a switch back only from
//! a way back that is verified; a job that is switching leaves that state only by
//! an abort or a commit, restarts included; nothing leaves switched but completion
//! and the switch back; ended states stay.

mod back;

use super::record::{Direction, Record};

pub use back::Back;

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Known, not copying: before its first copy, or taken over by a new process.
    Planned {
        /// Whether targets may already hold keys of this job.
        copied_before: bool,
    },
    /// Snapshots are being copied.
    Copying,
    /// The live stream is followed; not (or no longer) verified.
    Following {
        /// Switches tried and aborted since this process began to follow.
        aborted_switches: u32,
    },
    /// A full verify was clean; this is *ready*.
    Verified {
        /// When the verify ended, milliseconds since 1970.
        verified_at_ms: u64,
        /// Switches tried and aborted since this process began to follow.
        aborted_switches: u32,
    },
    /// The proxies are, or may have been, told to switch.
    Switching(Switching),
    /// Every proxy routes by the new layout.
    Switched {
        /// When, milliseconds since 1970.
        at_ms: u64,
        /// How far the way back is.
        back: Back,
    },
    /// Ended after a switch.
    Completed,
    /// Kept from switching by the operator; copying and following go on.
    Paused(Active),
    /// Stopped on an error.
    Failed {
        /// The error's words.
        why: String,
        /// Whether targets may hold keys of this job.
        copied_before: bool,
    },
    /// Taken back: before the switch, or by a switch to the old layout after it.
    RolledBack,
    /// Given up before the switch.
    Cancelled,
}

/// What goes on under a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// As [`JobState::Copying`].
    Copying,
    /// As [`JobState::Following`] and [`JobState::Verified`]: a pause costs the verify.
    Following {
        /// As in [`JobState::Following`].
        aborted_switches: u32,
    },
}

/// How far an unresolved switch got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switching {
    /// Whether the decision to commit was recorded.
    pub decided: bool,
    /// Whether the process that intended it still runs; else it must be recovered.
    pub live: bool,
    /// Which way it goes, and what an abort returns to.
    pub way: Way,
}

/// Which way a switch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the new layout.
    Forward {
        /// Switches aborted before this one.
        aborted_switches: u32,
    },
    /// To the old layout again.
    Back {
        /// When the job switched to the new one, milliseconds since 1970.
        switched_at_ms: u64,
    },
}

impl Way {
    /// The direction alone.
    pub fn direction(self) -> Direction {
        match self {
            Self::Forward { .. } => Direction::Forward,
            Self::Back { .. } => Direction::Back,
        }
    }
}

/// A record that cannot follow the state it met.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{record} cannot follow when a job is {state}")]
pub struct Misstep {
    /// The state's name.
    pub state: &'static str,
    /// The record's name.
    pub record: &'static str,
}

impl JobState {
    /// The state a journal's first record gives.
    ///
    /// # Errors
    /// [`Misstep`] when it is not the plan.
    pub fn first(record: &Record) -> Result<Self, Misstep> {
        match record {
            Record::Planned { .. } => Ok(Self::Planned {
                copied_before: false,
            }),
            other => Err(Misstep {
                state: "not planned",
                record: other.name(),
            }),
        }
    }

    /// The state after `record` happened.
    ///
    /// # Errors
    /// [`Misstep`] when it cannot happen in this state.
    pub fn step(self, record: &Record) -> Result<Self, Misstep> {
        match (self, record) {
            // It tells of the job and changes nothing.
            (state, Record::Refreshed { .. }) if !state.is_over() => Ok(state),
            (Self::Switching(switching), record) => switching.step(record),
            (Self::Paused(active), record) => active.step(record),
            (Self::Switched { .. }, Record::Completed { .. }) => Ok(Self::Completed),
            (Self::Switched { at_ms, back }, record) => back.step(at_ms, record),
            (state, Record::Started { .. }) if !state.is_past_return() => Ok(Self::Planned {
                copied_before: state.copied_before(),
            }),
            (Self::Planned { .. }, Record::CopyingBegan { .. }) => Ok(Self::Copying),
            (Self::Copying, Record::FollowingBegan { .. }) => Ok(Self::Following {
                aborted_switches: 0,
            }),
            (
                Self::Copying | Self::Following { .. } | Self::Verified { .. },
                Record::SourceRestarted { .. },
            ) => Ok(Self::Copying),
            (
                Self::Following { aborted_switches }
                | Self::Verified {
                    aborted_switches, ..
                },
                Record::Verified { at_ms, .. },
            ) => Ok(Self::Verified {
                verified_at_ms: *at_ms,
                aborted_switches,
            }),
            (
                Self::Following { aborted_switches }
                | Self::Verified {
                    aborted_switches, ..
                },
                Record::VerifyDiffered { .. },
            ) => Ok(Self::Following { aborted_switches }),
            (
                Self::Verified {
                    aborted_switches, ..
                },
                Record::SwitchIntended {
                    direction: Direction::Forward,
                    ..
                },
            ) => Ok(Self::Switching(Switching {
                decided: false,
                live: true,
                way: Way::Forward { aborted_switches },
            })),
            (Self::Copying, Record::Paused { .. }) => Ok(Self::Paused(Active::Copying)),
            (
                Self::Following { aborted_switches }
                | Self::Verified {
                    aborted_switches, ..
                },
                Record::Paused { .. },
            ) => Ok(Self::Paused(Active::Following { aborted_switches })),
            (state, Record::Failed { why, .. }) if state.is_running() => Ok(Self::Failed {
                why: why.clone(),
                copied_before: state.copied_before(),
            }),
            (state @ (Self::RolledBack | Self::Cancelled), Record::CopiesRemoved { .. }) => {
                Ok(state)
            }
            (state, Record::Cancelled { .. }) if !state.is_past_return() => Ok(Self::Cancelled),
            (state, Record::RolledBack { .. }) if !state.is_past_return() => Ok(Self::RolledBack),
            (state, record) => Err(Misstep {
                state: state.name(),
                record: record.name(),
            }),
        }
    }

    /// The state's word in the interface.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Copying => "copying",
            Self::Following { .. } => "following",
            Self::Verified { .. } => "verified",
            Self::Switching(_) => "switching",
            Self::Switched { .. } => "switched",
            Self::Completed => "completed",
            Self::Paused(_) => "paused",
            Self::Failed { .. } => "failed",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether targets may hold keys that this job wrote.
    pub fn copied_before(&self) -> bool {
        match self {
            Self::Planned { copied_before } | Self::Failed { copied_before, .. } => *copied_before,
            _ => true,
        }
    }

    /// Whether the job is over and its directory may be used for another.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Cancelled)
    }

    /// Which way the job's keys go now: back, once it has switched.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Switched { .. } => Direction::Back,
            Self::Switching(switching) => switching.way.direction(),
            _ => Direction::Forward,
        }
    }

    /// Switching, switched or over: no way back to copying by a mere restart.
    fn is_past_return(&self) -> bool {
        matches!(self, Self::Switching(_) | Self::Switched { .. }) || self.is_over()
    }

    fn is_running(&self) -> bool {
        matches!(
            self,
            Self::Planned { .. } | Self::Copying | Self::Following { .. } | Self::Verified { .. }
        )
    }
}

impl Switching {
    fn step(self, record: &Record) -> Result<JobState, Misstep> {
        match record {
            Record::Started { .. } => Ok(JobState::Switching(Self {
                live: false,
                ..self
            })),
            Record::SwitchDecided { .. } if !self.decided => Ok(JobState::Switching(Self {
                decided: true,
                ..self
            })),
            Record::SwitchAborted { .. } => Ok(self.aborted()),
            Record::SwitchCommitted { at_ms, .. } if self.decided || !self.live => {
                Ok(self.committed(*at_ms))
            }
            other => Err(Misstep {
                state: "switching",
                record: other.name(),
            }),
        }
    }
}

impl Switching {
    fn aborted(self) -> JobState {
        match self.way {
            Way::Forward { aborted_switches } if self.live => JobState::Following {
                aborted_switches: aborted_switches + 1,
            },
            Way::Forward { .. } => JobState::Planned {
                copied_before: true,
            },
            Way::Back { switched_at_ms } => JobState::Switched {
                at_ms: switched_at_ms,
                back: Back::Following,
            },
        }
    }

    fn committed(self, at_ms: u64) -> JobState {
        match self.way {
            Way::Forward { .. } => JobState::Switched {
                at_ms,
                back: Back::Unbegun,
            },
            Way::Back { .. } => JobState::RolledBack,
        }
    }
}

impl Active {
    fn step(self, record: &Record) -> Result<JobState, Misstep> {
        match (self, record) {
            (_, Record::Started { .. }) => Ok(JobState::Planned {
                copied_before: true,
            }),
            (Self::Copying, Record::FollowingBegan { .. }) => {
                Ok(JobState::Paused(Self::Following {
                    aborted_switches: 0,
                }))
            }
            (_, Record::SourceRestarted { .. }) => Ok(JobState::Paused(Self::Copying)),
            (Self::Copying, Record::Resumed { .. }) => Ok(JobState::Copying),
            (Self::Following { aborted_switches }, Record::Resumed { .. }) => {
                Ok(JobState::Following { aborted_switches })
            }
            // A verify may end under a pause; what it found is told, not kept.
            (Self::Following { .. }, Record::VerifyDiffered { .. }) => Ok(JobState::Paused(self)),
            (_, Record::Failed { why, .. }) => Ok(JobState::Failed {
                why: why.clone(),
                copied_before: true,
            }),
            (_, Record::Cancelled { .. }) => Ok(JobState::Cancelled),
            (_, Record::RolledBack { .. }) => Ok(JobState::RolledBack),
            (_, other) => Err(Misstep {
                state: "paused",
                record: other.name(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
