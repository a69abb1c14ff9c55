//! Why a connection to a shard ended, in the words that its clients read.

use super::dialect::Unreadable;

/// Why a pipe's requests could not be answered by the shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// The connection could not be made or broke; the text is the system's.
    #[error("{0}")]
    Link(String),
    /// The shard's host name has no address.
    #[error("{0}")]
    Unresolved(String),
    /// The shard closed the connection.
    #[error("connection closed by the shard")]
    Closed,
    /// No connection within `timeout.connect`.
    #[error("connecting timed out")]
    ConnectTimeout,
    /// No reply within `timeout.request`.
    #[error("request timed out")]
    RequestTimeout,
    /// The shard refused AUTH, HELLO or SELECT; the text is the shard's.
    #[error("handshake refused: {0}")]
    Refused(String),
    /// The shard sent bytes that are no reply.
    #[error("unreadable reply: {0}")]
    Garbled(#[from] Unreadable),
    /// The shard sent a reply that nobody asked for.
    #[error("a reply without a request")]
    Unasked,
    /// The layout no longer has the shard.
    #[error("the shard left the layout")]
    Retired,
    /// The shard failed too often.
    #[error("ejected after it failed too often; a health probe lets it in again")]
    Ejected,
    /// The key that a request waits for is looked for at another shard now.
    #[error("force unblock from blocking operation, the key is on another shard now")]
    Misplaced,
    /// The system gave us no socket; the shard has no part in it.
    #[error("{0}")]
    NoSocket(String),
}

impl PipeError {
    /// Whether the connection ended for a reason that is not the shard's.
    pub fn is_our_doing(&self) -> bool {
        matches!(
            self,
            Self::Retired | Self::Ejected | Self::Misplaced | Self::NoSocket(_)
        )
    }
}
