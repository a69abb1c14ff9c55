//! What one worker counts for itself, for one pool, and for each of its shards.
//!
//! Blocks are aligned to 128 bytes (two lines, as the adjacent-line prefetcher
//! of x86 pairs them), so that two workers never write the same line.

use super::counter::{Counter, Gauge};
use super::latency::ShardLatency;

/// Why a request got an error that no shard sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The client's bytes were no request.
    Protocol,
    /// The shard could not be reached or went away.
    ShardDown,
    /// No reply within the pool's `timeout.request`.
    Timeout,
    /// More was held during a switch than the bounds allow.
    HeldOverflow,
    /// A command this proxy does not take, or with wrong arguments.
    Refused,
    /// The keys are fenced: an unfinished switch waits for its decision.
    Fenced,
}

impl ErrorKind {
    /// Every kind, in the order they are rendered.
    pub const ALL: [Self; 6] = [
        Self::Protocol,
        Self::ShardDown,
        Self::Timeout,
        Self::HeldOverflow,
        Self::Refused,
        Self::Fenced,
    ];

    /// The value of the label `kind`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::ShardDown => "shard_down",
            Self::Timeout => "timeout",
            Self::HeldOverflow => "held_overflow",
            Self::Refused => "refused",
            Self::Fenced => "fenced",
        }
    }
}

/// Errors by [`ErrorKind`].
#[derive(Debug, Default)]
pub struct ErrorCounters {
    protocol: Counter,
    shard_down: Counter,
    timeout: Counter,
    held_overflow: Counter,
    refused: Counter,
    fenced: Counter,
}

impl ErrorCounters {
    /// The counter of one kind.
    #[inline]
    pub fn of(&self, kind: ErrorKind) -> &Counter {
        match kind {
            ErrorKind::Protocol => &self.protocol,
            ErrorKind::ShardDown => &self.shard_down,
            ErrorKind::Timeout => &self.timeout,
            ErrorKind::HeldOverflow => &self.held_overflow,
            ErrorKind::Refused => &self.refused,
            ErrorKind::Fenced => &self.fenced,
        }
    }
}

/// The system calls of a worker's turns, by what they do. Those that come once
/// for a connection (making, registering, closing it) are not counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCalls {
    /// Waiting for events.
    pub polls: Counter,
    /// Reading from a client or a shard, also when nothing was there.
    pub reads: Counter,
    /// Writing to a client or a shard, also when nothing was taken.
    pub writes: Counter,
    /// Asking for a new client.
    pub accepts: Counter,
}

impl WorkerCalls {
    /// Each counter with the value of its label `op`.
    pub(super) fn by_op(&self) -> [(&'static str, &Counter); 4] {
        [
            ("poll", &self.polls),
            ("read", &self.reads),
            ("write", &self.writes),
            ("accept", &self.accepts),
        ]
    }
}

/// What a worker counts for one pool, on the clients' side.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolCounters {
    /// Which worker counts here.
    pub worker: u64,
    /// Clients connected now.
    pub clients: Gauge,
    /// Clients accepted since start.
    pub clients_total: Counter,
    /// Clients accepted here and handed to another worker.
    pub clients_handed_over: Counter,
    /// Clients closed because they did not read what they were owed.
    pub clients_overrun_total: Counter,
    /// Clients that closed their side first.
    pub client_eofs_total: Counter,
    /// Clients whose connection broke.
    pub client_errors_total: Counter,
    /// Requests read from clients.
    pub requests_total: Counter,
    /// Replies written to clients.
    pub replies_total: Counter,
    /// Requests that were passed on while they arrived.
    pub large_requests_total: Counter,
    /// Replies that were passed on while they arrived.
    pub large_replies_total: Counter,
    /// Errors that we made, by kind.
    pub errors: ErrorCounters,
    /// Bytes read from clients.
    pub client_bytes_in: Counter,
    /// Bytes written to clients.
    pub client_bytes_out: Counter,
    /// Requests parked now, because a switch holds their keys.
    pub held_requests: Gauge,
    /// Bytes of the requests parked now.
    pub held_bytes: Gauge,
}

/// What a worker counts for one shard of a pool.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Connections that are up now.
    pub connections: Gauge,
    /// Connections made since start.
    pub connects_total: Counter,
    /// Attempts to connect that failed, and connections lost.
    pub failures_total: Counter,
    /// Connections that the shard closed, also idle ones.
    pub eofs_total: Counter,
    /// Connections lost or not made for any other reason than a timeout.
    pub errors_total: Counter,
    /// Connections ended because they or a reply took too long.
    pub timeouts_total: Counter,
    /// Requests sent.
    pub requests_total: Counter,
    /// Replies received.
    pub replies_total: Counter,
    /// Requests sent and not yet answered.
    pub in_flight: Gauge,
    /// Bytes read from the shard.
    pub bytes_in: Counter,
    /// Bytes written to the shard.
    pub bytes_out: Counter,
    /// How long it took to answer.
    pub latency: ShardLatency,
}

/// A block whose counters outlive the worker that wrote it.
pub(super) trait Block: Default {
    /// Adds the counters of a block nobody writes any more; gauges end with
    /// their worker.
    fn absorb(&self, ended: &Self);
}

impl Block for PoolCounters {
    fn absorb(&self, ended: &Self) {
        let pairs = [
            (&self.clients_total, &ended.clients_total),
            (&self.clients_overrun_total, &ended.clients_overrun_total),
            (&self.client_eofs_total, &ended.client_eofs_total),
            (&self.client_errors_total, &ended.client_errors_total),
            (&self.clients_handed_over, &ended.clients_handed_over),
            (&self.requests_total, &ended.requests_total),
            (&self.replies_total, &ended.replies_total),
            (&self.large_requests_total, &ended.large_requests_total),
            (&self.large_replies_total, &ended.large_replies_total),
            (&self.client_bytes_in, &ended.client_bytes_in),
            (&self.client_bytes_out, &ended.client_bytes_out),
        ];
        for (sum, end) in pairs {
            sum.add(end.value());
        }
        for kind in ErrorKind::ALL {
            self.errors.of(kind).add(ended.errors.of(kind).value());
        }
    }
}

impl Block for ShardCounters {
    fn absorb(&self, ended: &Self) {
        let pairs = [
            (&self.connects_total, &ended.connects_total),
            (&self.failures_total, &ended.failures_total),
            (&self.eofs_total, &ended.eofs_total),
            (&self.errors_total, &ended.errors_total),
            (&self.timeouts_total, &ended.timeouts_total),
            (&self.requests_total, &ended.requests_total),
            (&self.replies_total, &ended.replies_total),
            (&self.bytes_in, &ended.bytes_in),
            (&self.bytes_out, &ended.bytes_out),
        ];
        for (sum, end) in pairs {
            sum.add(end.value());
        }
        self.latency.absorb(&ended.latency);
    }
}
