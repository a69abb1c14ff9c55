//! A file -> one server, or the servers of a layout.
//!
//! ```text
//!               feeder (thread)                  lane (task, one a target)
//! file -> scan -> selected? expired? -> Restorer -> Batch -> queue -> socket
//!                                                      ^               | replies
//!                    budget: bytes not yet answered <--'---------------'
//! ```
//!
//! [`prepare`] asks every target who it is and changes nothing; [`Prepared::run`]
//! loads. What one target cannot hold is kept for the report by key, and the
//! rest goes on; what makes a whole target unusable (full, read-only, gone)
//! ends the load, since going on would only report every key.
//!
//! Invariants: bytes of batches that are not answered stay within
//! [`BUDGET_BYTES`], or are one batch; no key is sent before its database was
//! selected; a key whose commands were refused in part is removed again.

mod batch;
mod error;
mod feeder;
mod lane;
mod tally;
mod target;

pub use error::LoadError;
pub use tally::{NotLoaded, Report};
pub use target::{Destination, Prepared, TargetFacts, prepare};

use crate::upstream::UpstreamConfig;

use super::selection::Selection;

/// Bytes of requests that wait or are not answered, of all targets together.
pub const BUDGET_BYTES: usize = 16 * 1024 * 1024;
/// Batches that wait for one target.
const QUEUE_BATCHES_MAX: usize = 256;
/// A batch is handed over when it holds this much.
const BATCH_BYTES: usize = 64 * 1024;
/// A batch is handed over when it holds this many requests.
const BATCH_REQUESTS_MAX: usize = 512;
/// Longest silence of a target that owes us replies.
const TARGET_SILENCE_S_MAX: u64 = 60;

/// What happens with a key that its target has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The load ends.
    Fail,
    /// The file's value replaces it.
    Replace,
    /// It stays as it is, and is counted.
    Skip,
}

/// What to load, and how.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Where to.
    pub destination: Destination,
    /// All keys go to this database; `None`: to that of their own number.
    pub database: Option<u32>,
    /// How to dial the targets.
    pub upstream: UpstreamConfig,
    /// Which keys.
    pub selection: Selection,
    /// What to do with keys that exist.
    pub on_conflict: OnConflict,
    /// Every value by commands, none by RESTORE.
    pub by_commands: bool,
    /// Request bytes a second, of all targets together; `None`: as fast as they take them.
    pub rate_bytes_per_s: Option<u64>,
    /// Part of the names under which values are built: unlike that of any
    /// other load into the same servers.
    pub tag: String,
    /// Told of each key that is not loaded, once the report is full.
    pub overflow: fn(&NotLoaded),
}
