//! The way back of a switched job: old shards are kept as the new ones are, so
//! that the job can be rolled back without losing a write.
//!
//! ```text
//! unbegun -> copying -> following -> verified -> (switching, back)
//!               ^           | ^-- differs -' |
//!               `- restarted, begun anew ----'
//! ```
//! It begins after the positions that were taken in the switch, if they are
//! known, and copies everything backwards else. The records are those of the way
//! there: what they mean is told by the state they meet.

use super::{JobState, Misstep, Switching, Way};
use crate::reshard::record::{Direction, Record};

/// How far the way back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Nothing of it was begun: old shards hold what they held at the switch.
    Unbegun,
    /// Old shards are brought up to date.
    Copying,
    /// Old shards are kept exact, or were until the process ended.
    Following,
    /// A full verify was clean: the job can be rolled back.
    Verified {
        /// When the verify ended, milliseconds since 1970.
        verified_at_ms: u64,
    },
}

impl Back {
    /// The state of a job that switched at `at_ms`, after `record`.
    pub(super) fn step(self, at_ms: u64, record: &Record) -> Result<JobState, Misstep> {
        let back = match (self, record) {
            // Whoever takes over has not verified.
            (Self::Verified { .. }, Record::Started { .. }) => Self::Following,
            (back, Record::Started { .. } | Record::BypassSeen { .. }) => back,
            (_, Record::CopyingBegan { .. }) => Self::Copying,
            (Self::Copying, Record::FollowingBegan { .. }) => Self::Following,
            (
                Self::Copying | Self::Following | Self::Verified { .. },
                Record::SourceRestarted { .. },
            ) => Self::Copying,
            (Self::Following | Self::Verified { .. }, Record::Verified { at_ms, .. }) => {
                Self::Verified {
                    verified_at_ms: *at_ms,
                }
            }
            (Self::Following | Self::Verified { .. }, Record::VerifyDiffered { .. }) => {
                Self::Following
            }
            (
                Self::Verified { .. },
                Record::SwitchIntended {
                    direction: Direction::Back,
                    ..
                },
            ) => {
                return Ok(JobState::Switching(Switching {
                    decided: false,
                    live: true,
                    way: Way::Back {
                        switched_at_ms: at_ms,
                    },
                }));
            }
            (_, other) => {
                return Err(Misstep {
                    state: "switched",
                    record: other.name(),
                });
            }
        };
        Ok(JobState::Switched { at_ms, back })
    }
}
