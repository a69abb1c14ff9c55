//! What clients see: their requests run one after the other, whoever sent them.
//!
//! ```text
//! driver: bytes in --> Shard::receive --> table --> handler --> replies, effects
//!                                            |-- queued by MULTI until EXEC
//!                                            |-- waits for a key (BLPOP): run again later
//!         Shard::end_turn <-- effects of the turn, for the log; then replies may go out
//! ```
//! No sockets, no files, no clock: a driver brings bytes and the time, and takes away
//! replies, effects and [`Order`]s.
//!
//! Invariants
//! - Replies of a turn are handed out only after its effects were taken.
//! - What a client waits for is served in the order in which clients began to wait, before
//!   the next request of anybody is run.

mod acl;
mod admission;
mod applying;
mod busy;
mod calling;
mod channels;
mod client;
mod clients;
mod configuring;
mod connection;
mod debugging;
mod describing;
mod diagnosis;
mod execute;
mod following;
mod functions;
mod idling;
mod info;
mod kept;
mod migrating;
mod monitoring;
mod parameters;
mod pausing;
mod replicas;
mod requests;
mod rewriting;
mod roll;
mod scripting;
mod shard;
mod slowlog;
mod stats;
#[cfg(test)]
mod tests;
mod transactions;
mod waiting;
#[cfg(test)]
pub(crate) mod world;

pub use applying::ApplyError;
pub use busy::Beside;
pub use client::{Client, ClientId, CloseReason};
pub use connection::REDIS_VERSION;
pub use functions::LibraryError;
pub use info::{Facts, MasterFacts, OwnFacts, ReplicaFacts};
pub use kept::KeptTexts;
pub use migrating::{Carried, Courier, Lost};
pub use replicas::{Announced, FollowRequest, Wish};
pub use shard::{Health, MasterAddress, Order, Role, Shard, ShardLimits};

use crate::store::commands::{
    Command, bits, generic, geo, hashes, hyperloglog, lists, sets, sort, streams, strings, zsets,
};

/// All commands.
pub const FAMILIES: &[&[Command]] = &[
    acl::COMMANDS,
    bits::COMMANDS,
    connection::COMMANDS,
    following::COMMANDS,
    replicas::COMMANDS,
    scripting::COMMANDS,
    generic::COMMANDS,
    hashes::COMMANDS,
    hyperloglog::COMMANDS,
    sets::COMMANDS,
    sort::COMMANDS,
    streams::COMMANDS,
    strings::COMMANDS,
    migrating::COMMANDS,
    lists::COMMANDS,
    zsets::COMMANDS,
    geo::COMMANDS,
];
