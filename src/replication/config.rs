//! What a tap is told: where to attach and within which bounds.

use std::time::Duration;

use crate::upstream::{ShardAddress, UpstreamConfig};

/// Settings of one tap.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// The server to pose as a replica of.
    pub address: ShardAddress,
    /// How to connect: timeout, keepalive, credentials.
    pub upstream: UpstreamConfig,
    /// What INFO and Sentinel on the source show as our port. 0: nobody can
    /// be sent there.
    pub listening_port: u16,
    /// How often the acknowledged offset is sent.
    pub ack_every: Duration,
    /// Longest time without a byte from the source. It must exceed the
    /// source's `repl-ping-replica-period` (10 s): an idle stream has nothing else.
    pub silence_max: Duration,
    /// Largest record of a snapshot, in bytes: one is held in memory.
    pub record_bytes_max: usize,
}

impl TapConfig {
    /// A tap with the bounds a Redis replica has.
    #[must_use]
    pub fn new(address: ShardAddress, upstream: UpstreamConfig) -> Self {
        Self {
            address,
            upstream,
            listening_port: 0,
            ack_every: Duration::from_millis(100),
            silence_max: Duration::from_secs(60),
            record_bytes_max: 1 << 30,
        }
    }
}

/// Where a stream was left, at the boundary of a command or transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Replication id of the history the offset counts in.
    pub replid: String,
    /// The last byte that was dealt with.
    pub offset: u64,
    /// The database selected there: the source does not repeat it.
    pub db: u32,
}
