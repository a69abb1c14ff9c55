//! What one pool of the proxy means, after its config was checked.
//!
//! Invariants (whoever makes a `PoolConfig` keeps them): at least one listen
//! address; the layout passed `Layout::new`; durations that are `Some` are
//! longer than zero.

use std::time::Duration;

use crate::reuseport::address::ListenAddress;
use crate::router::spec::LayoutSpec;
use crate::upstream::config::{Credentials, UpstreamConfig};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Largest value Redis itself accepts in one argument (`proto-max-bulk-len`).
pub const BULK_BYTES_MAX: usize = 512 * MIB;

/// Room for a command's name, key and headers beside the largest value.
pub const REQUEST_HEADROOM_BYTES: usize = 64 * KIB;

/// Databases of a shard, as many as Redis has by default.
pub const DATABASES: u16 = 16;

/// `limits.max_request` when none is written.
pub const REQUEST_BYTES_DEFAULT: usize = BULK_BYTES_MAX + REQUEST_HEADROOM_BYTES;

/// `limits.max_client_buffer` when none is written.
pub const CLIENT_BUFFER_BYTES_DEFAULT: usize = 64 * MIB;

/// `limits.large_bytes_per_second` when none is written: what a gigabit link brings.
pub const LARGE_BYTES_PER_SECOND_DEFAULT: u64 = 100 * MIB as u64;

/// `limits.max_hold` when none is written.
pub const HELD_DEFAULT: Duration = Duration::from_millis(250);

/// One pool: where clients connect, which shards own which keys, and bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// The name after `pool.` in the config; unique in a process.
    pub name: String,
    /// What clients and shards speak.
    pub protocol: Protocol,
    /// Where clients connect; never empty.
    pub listen: Vec<ListenAddress>,
    /// Connections the kernel keeps, for each worker, that nobody accepted yet.
    pub backlog: u32,
    /// The layout at start; after a reshard the one in `state_dir` wins.
    pub layout: LayoutSpec,
    /// Which database a client begins in; below [`DATABASES`].
    pub database: u16,
    /// Client-side timeouts; the upstream's own are in `upstream`.
    pub timeouts: Timeouts,
    /// When a failing shard leaves the ring.
    pub eject: EjectConfig,
    /// How connections to shards are made.
    pub upstream: UpstreamConfig,
    /// Bounds on what one client may make us hold.
    pub limits: PoolLimits,
    /// Whose habits errors follow.
    pub compat: Compat,
    /// What clients must say before anything else; `None` lets all in.
    pub auth: Option<Credentials>,
    /// Whether FLUSHALL and FLUSHDB empty the shards; refused else.
    pub allow_flush: bool,
}

/// The three waits of a pool; `None` waits for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest time a shard may take to accept a connection.
    pub connect: Duration,
    /// Longest time from sending a request to its reply.
    pub request: Option<Duration>,
    /// A client that sent nothing for this long is closed.
    pub idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request: None,
            idle: None,
        }
    }
}

/// `auto_eject_hosts` of twemproxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectConfig {
    /// Whether failing shards leave the ring at all.
    pub enabled: bool,
    /// How many failures in a row eject a shard; at least 1.
    pub failures: u32,
    /// How long an ejected shard stays out before it is tried again.
    pub retry_after: Duration,
}

impl Default for EjectConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            failures: 2,
            retry_after: Duration::from_secs(30),
        }
    }
}

/// Bounds for one client, in bytes, and for all clients of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Longest request, all arguments and headers together.
    pub request_bytes_max: usize,
    /// Most bytes of replies kept for a client that does not read.
    pub client_buffer_bytes_max: usize,
    /// Most clients of the pool; `None`: as many as the process may have.
    pub clients_max: Option<usize>,
    /// What very large values may take together in each worker while other
    /// clients are busy; `None`: as much as they get.
    pub large_bytes_per_second: Option<u64>,
    /// Longest time that a switch holds requests; then they get `-TRYAGAIN`.
    pub held_max: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            request_bytes_max: REQUEST_BYTES_DEFAULT,
            client_buffer_bytes_max: CLIENT_BUFFER_BYTES_DEFAULT,
            clients_max: None,
            large_bytes_per_second: Some(LARGE_BYTES_PER_SECOND_DEFAULT),
            held_max: HELD_DEFAULT,
        }
    }
}

/// What the clients and the shards of a pool speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP, versions 2 and 3.
    #[default]
    Redis,
    /// memcached's text protocol. Such a pool has no database and no password.
    Memcached,
}

impl Protocol {
    /// The word for it in a config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        }
    }
}

/// What a client sees when something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compat {
    /// Errors as Redis words them; the connection stays open where Redis's would.
    #[default]
    Redis,
    /// Close where twemproxy closes.
    Twemproxy,
}
