//! One value -> the requests that recreate it on one server.
//!
//! ```text
//! INFO text -> ServerIdentity -> Dialect        who it is; what it takes     identity.rs dialect.rs
//! key + value -> Restorer -> requests + replies                              restorer.rs
//!      raw layout known there           RESTORE of the bytes as they are     payload.rs
//!      another layout would do          RESTORE of `rdb::convert`
//!      large, or neither                commands under a temporary name      commands/
//!      nothing holds it                 CannotHold, with the reason
//! value in parts -> LargeValue -> commands                                   large.rs
//! a reply -> Reply::judge -> Verdict                                         reply.rs
//! ```
//!
//! Values built by commands appear under their own name only when they are
//! whole:
//!
//! ```text
//! UNLINK tmp | RPUSH tmp .. | RPUSH tmp .. | UNLINK key | RENAME tmp key | PEXPIREAT key at
//!                          (never overwrite: PEXPIREAT tmp at | RENAMENX tmp key)
//! ```
//!
//! Invariants: no value is sent in part under its own name; what a target
//! cannot be told is an error or named in the outcome, never left out in
//! silence; no request is longer than the target's longest bulk.
//!
//! Temporary names hash to other slots than their keys, so the target must be
//! a server that stands alone, not a member of a cluster.

mod commands;
mod dialect;
mod identity;
mod large;
mod payload;
mod reply;
mod restorer;

pub use commands::Unbuildable;
pub use dialect::{Dialect, FieldExpiry};
pub use identity::{ServerIdentity, ServerVersion, UsageKept, Vendor};
pub use large::LargeValue;
pub use reply::{Reply, Verdict};
pub use restorer::{
    CannotRestore, How, KeyHead, LARGE_STREAM_BYTES, LARGE_VALUE_BYTES, LARGE_VALUE_ELEMENTS,
    Outcome, Overwrite, Requests, RestoreOptions, Restorer, TEMPORARY_PREFIX,
};

#[cfg(test)]
mod tests;
