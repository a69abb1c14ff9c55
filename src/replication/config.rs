//! What a tap is told: where to attach and within which bounds.

use std::time::Duration;

use crate::rdb::ScannerLimits;
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
    /// How often the acknowledged offset is sent. A diskless source starts its
    /// stream at the first ACK after it noticed the end of its child, which may be
    /// later than the ACK we send at the snapshot's end: keep this well below 1 s.
    pub ack_every: Duration,
    /// Longest time without a byte from the source. It must exceed the
    /// source's `repl-ping-replica-period` (10 s): an idle stream has nothing else.
    pub silence_max: Duration,
    /// Largest record of a snapshot, in bytes: one is held in memory.
    pub record_bytes_max: usize,
    /// Values of more bytes come in parts, if they can be cut.
    pub whole_bytes_max: usize,
    /// So do values with more outermost elements.
    pub whole_elements_max: u64,
}

impl TapConfig {
    /// What the scanner of a snapshot is told.
    #[must_use]
    pub(super) fn scanner_limits(&self) -> ScannerLimits {
        ScannerLimits {
            record_bytes_max: self.record_bytes_max,
            whole_bytes_max: self.whole_bytes_max,
            whole_elements_max: self.whole_elements_max,
        }
    }

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
            whole_bytes_max: usize::MAX,
            whole_elements_max: u64::MAX,
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
