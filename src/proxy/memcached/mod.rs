//! Pools whose shards are memcacheds: their requests, in memcached's text
//! protocol, on the same clients, pipes, lanes and gates as those of Redis.
//!
//! ```text
//!                        one key        as it is, in batches        forward.rs
//!  input -> intake.rs -> several keys   one part for each shard     retrieval.rs
//!                        large data     on a pipe of its own        large.rs
//!                        the rest       answered here               refusals.rs
//! ```
//!
//! Invariants
//! - Each request that goes out brings one reply: `noreply` stays here. Its
//!   request keeps its place among those of its client, and its reply, which
//!   ends that, is dropped ([`PartOf::NO_REPLY`]).
//! - What a memcached might answer otherwise is not sent (see `crate::memcached`).

use crate::memcached::write_server_error;
use crate::resp::write_error;

use super::config::Protocol;
use super::core::PartOf;

mod flush;
mod forward;
mod intake;
mod large;
mod refusals;
mod retrieval;
#[cfg(test)]
mod tests;

pub(super) use retrieval::{all_done, write_values};

impl PartOf {
    /// Of requests whose clients want no reply. No merge has this number.
    pub(super) const NO_REPLY: Self = Self {
        merge: u32::MAX,
        part: 0,
    };
}

/// Appends an error that we make, as clients of the pool read it; `text` is as
/// Redis has it.
pub(super) fn write_failure(protocol: Protocol, out: &mut Vec<u8>, text: &str) {
    match protocol {
        Protocol::Redis => write_error(out, text),
        Protocol::Memcached => {
            write_server_error(out, text.strip_prefix("ERR ").unwrap_or(text));
        }
    }
}
