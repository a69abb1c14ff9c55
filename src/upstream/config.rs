//! How a connection to a shard is made.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq;

/// Settings of every connection to the shards of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Longest time for connecting and authenticating.
    pub connect_timeout: Duration,
    /// Longest time from a request to its reply; `None` waits for ever.
    pub request_timeout: Option<Duration>,
    /// Connections a worker keeps to each shard; at least 1.
    pub connections: u16,
    /// Whether connections are made at start instead of at the first request.
    pub preconnect: bool,
    /// Whether the kernel probes idle connections.
    pub tcp_keepalive: bool,
    /// What to say in AUTH; `None` says nothing.
    pub credentials: Option<Credentials>,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            request_timeout: None,
            connections: 1,
            preconnect: false,
            tcp_keepalive: true,
            credentials: None,
        }
    }
}

/// The arguments of AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user; `None` is the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Secret,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether somebody said this text. The time it takes tells its length, and
    /// nothing else of it.
    pub fn is(&self, said: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(said).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
