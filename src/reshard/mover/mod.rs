//! The part of a job that moves data: copy, follow, mark, verify, purge.
//!
//! ```text
//!              tap            filter               lane (one connection, in order)
//! source S ---------> Source task ---- moving keys ----> target T
//!    ^  PUBLISH marker        |  '---- barrier, reads ------'
//!    '------------------ Publisher, verify
//! ```
//!
//! - `preflight` looks at every server and changes nothing.
//! - `check_targets` applies the conflict policy.
//! - `start` attaches one tap to every old shard and opens one lane from it to
//!   every new shard. Where there is no PSYNC, a `walk` does what it can instead.
//! - Only keys with old(k) = S and new(k) != S go into S's lanes, from the
//!   snapshot as RESTORE, from the stream as they come (`route`).
//! - `marker` tells when everything before a moment has reached the targets.
//! - `verify` compares both sides as of a marker, while writes go on.
//!
//! Invariants: the operations of one key reach its target in the source's
//! order, each once in a run; nothing is deleted from a source before `purge`;
//! every task is owned by `Tasks` and ends with it.

mod begin;
mod canary;
mod checkpoint;
mod client_list;
mod clocks;
mod compare;
mod config;
mod conflict;
mod error;
mod far;
mod feed;
mod governor;
mod guard;
mod keeper;
mod key_text;
mod keyspace;
mod lane;
mod link;
mod marker;
mod pace;
mod pending;
mod placement;
mod preflight;
mod present;
mod progress;
mod proof;
mod publisher;
mod queue;
mod reads;
mod refresh;
mod removal;
mod route;
mod running;
mod settle;
mod shortfall;
mod source;
mod start;
mod strain;
mod tasks;
mod throttle;
mod times;
mod translate;
mod verify;
mod walk;

pub use begin::{Begin, Position};
pub use canary::CanaryFigures;
pub use client_list::{client_field, client_ids};
pub use compare::{Difference, DifferenceKind, EXPIRY_SLACK_MS};
pub use config::{
    Attach, MoverConfig, MoverLimits, OnConflict, Tapping, UnknownAttach, UnknownPolicy,
};
pub use conflict::{TargetsChecked, check_targets};
pub use error::{KeyAt, MoveError, Retry, Role, Unfollowable};
pub use keeper::{KeeperConfig, Keepers};
pub use preflight::{PreflightReport, ServerReport, preflight};
pub use progress::{MoverProgress, Phase, SourceProgress};
pub use proof::{SourceProof, Verified};
pub use removal::{PurgeReport, purge, remove_copies, remove_notes};
pub use running::{Herald, MarkerReport, Mover};
pub use shortfall::{Short, Shortfall, Shortfalls};
pub use start::start;
pub use strain::Held;
pub use throttle::{Bound, Throttle, ThrottleChange, ThrottleDial};
pub use verify::{VerifyOptions, VerifyReport};
pub use walk::WalkFigures;
