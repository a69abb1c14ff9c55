//! What a tap is told: where to attach and within which bounds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::rdb::ScannerLimits;
use crate::upstream::{ShardAddress, UpstreamConfig};

/// Bytes of one source that are kept in memory before they go to disk.
const MEMORY_BYTES_MAX_DEFAULT: usize = 4 * 1024 * 1024;

/// How long a source may be gone before the tap gives up.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(60);

/// Settings of one tap.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// The server to pose as a replica of: the first one to try.
    pub address: ShardAddress,
    /// Other servers of the same history (its replicas, its master), tried in
    /// this order when the first does not answer or cannot go on.
    pub alternates: Vec<ShardAddress>,
    /// How to connect: timeout, keepalive, credentials. For all addresses.
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
    /// How long to try again when no address can be attached to, at the start
    /// or after a lost link. Zero: the first failure is the end.
    pub patience: Duration,
    /// Largest record of a snapshot, in bytes: one is held in memory.
    pub record_bytes_max: usize,
    /// Values of more bytes come in parts, if they can be cut.
    pub whole_bytes_max: usize,
    /// So do values with more outermost elements.
    pub whole_elements_max: u64,
    /// Where bytes wait that the caller has not taken.
    pub spool: SpoolConfig,
    /// What a snapshot is to hold.
    pub snapshot: SnapshotWanted,
    /// Whether to offer the two-socket sync of Redis 8.0 and Valkey 8.0: the
    /// stream then comes beside the snapshot instead of waiting for its end in
    /// the source's memory.
    pub two_sockets: bool,
    /// How long the stream is left alone after a small read, so that more of it
    /// comes with the next one: a busy source writes after every few commands, and
    /// a read for each of these writes costs more than what it brings. Zero: each
    /// is read at once.
    pub rest: Duration,
    /// Who is waited for takes no rest.
    pub haste: Haste,
}

/// Whether what taps read is waited for, to be switched while they work. Clones
/// are one switch.
#[derive(Clone, Debug, Default)]
pub struct Haste(Arc<AtomicBool>);

impl Haste {
    /// From now on the stream is read as soon as something of it comes; a rest
    /// that was begun is taken to its end.
    pub fn hurry(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// From now on there are rests again.
    pub fn relax(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_hurried(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a snapshot is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotWanted {
    /// Everything.
    Whole,
    /// Nothing: the stream is all that is wanted. Servers before Redis 7.0 send
    /// everything all the same.
    Empty,
}

/// Where bytes wait between the source and the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// A directory of this tap alone, made if it is missing; spool files found
    /// in it are deleted. `None`: memory only, and when that is full the socket
    /// is not read.
    pub dir: Option<PathBuf>,
    /// Bytes kept in memory; half for a snapshot, half for the stream after it.
    pub memory_bytes_max: usize,
    /// Bytes kept on disk, of snapshot and stream together.
    pub disk_bytes_max: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            dir: None,
            memory_bytes_max: MEMORY_BYTES_MAX_DEFAULT,
            disk_bytes_max: u64::MAX,
        }
    }
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

    /// A tap with the bounds a Redis replica has, that spools to memory only.
    #[must_use]
    pub fn new(address: ShardAddress, upstream: UpstreamConfig) -> Self {
        Self {
            address,
            alternates: Vec::new(),
            upstream,
            listening_port: 0,
            ack_every: Duration::from_millis(100),
            silence_max: Duration::from_secs(60),
            patience: PATIENCE_DEFAULT,
            record_bytes_max: 1 << 30,
            whole_bytes_max: usize::MAX,
            whole_elements_max: u64::MAX,
            spool: SpoolConfig::default(),
            snapshot: SnapshotWanted::Whole,
            two_sockets: true,
            rest: Duration::ZERO,
            haste: Haste::default(),
        }
    }

    /// All addresses, in the order they are tried.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &ShardAddress> {
        std::iter::once(&self.address).chain(&self.alternates)
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
