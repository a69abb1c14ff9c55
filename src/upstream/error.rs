//! What can go wrong on a connection of our own: where, whose fault, and
//! whether trying again is safe.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::resp::ReplyError;
use crate::router::address::ShardAddress;

/// Whether doing it again can help, and what it may do twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same will happen until somebody changes a setting or a server.
    Never,
    /// Nothing was executed: safe on a new connection, after a pause.
    Safe,
    /// The shard may have executed what was sent: safe only if that is idempotent.
    Uncertain,
}

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The shard, or the network to it.
    Shard,
    /// What we were told: address, credentials, limits.
    Configuration,
}

/// What the session was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStep {
    /// Connecting.
    Connect,
    /// AUTH.
    Authenticate,
    /// Writing requests.
    Send,
    /// Waiting for a reply.
    Receive,
}

impl fmt::Display for SessionStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Authenticate => "authenticating",
            Self::Send => "sending a request",
            Self::Receive => "waiting for a reply",
        })
    }
}

/// A session that cannot go on; it is dropped after the error.
#[derive(Debug, thiserror::Error)]
#[error("shard {address}: {step}: {kind}")]
pub struct SessionError {
    /// Which shard.
    pub address: ShardAddress,
    /// What the session was doing.
    pub step: SessionStep,
    /// What went wrong.
    #[source]
    pub kind: SessionErrorKind,
}

/// What went wrong on a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionErrorKind {
    /// The system's word.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A bound was reached.
    #[error("nothing within {0:?}")]
    TimedOut(Duration),
    /// The shard closed the connection.
    #[error("the shard closed the connection")]
    Closed,
    /// AUTH was answered with an error.
    #[error("credentials refused: {0}; check user and password of this shard")]
    AuthRefused(String),
    /// The shard's bytes are no RESP.
    #[error("not a Redis-protocol server: {0}")]
    NotResp(#[from] ReplyError),
    /// One reply above the bound.
    #[error("a reply of more than {0} bytes")]
    ReplyTooLong(usize),
}

impl SessionError {
    /// Whether doing it again can help, and what it may do twice.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match (&self.kind, self.step) {
            (SessionErrorKind::AuthRefused(_), _) => Retry::Never,
            (_, SessionStep::Connect | SessionStep::Authenticate) => Retry::Safe,
            // Part of what failed to be sent may have arrived.
            (_, SessionStep::Send | SessionStep::Receive) => Retry::Uncertain,
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self.kind {
            SessionErrorKind::AuthRefused(_) | SessionErrorKind::ReplyTooLong(_) => {
                Blame::Configuration
            }
            _ => Blame::Shard,
        }
    }
}
