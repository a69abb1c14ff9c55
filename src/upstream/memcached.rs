//! Whether a shard is a memcached, and which version of it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::router::address::ShardAddress;

use super::config::UpstreamConfig;
use super::error::SessionStep;
use super::socket::dial;

/// Longest answer that is looked at.
const ANSWER_BYTES_MAX: u64 = 256;
/// Bound of a wait where the configuration sets none.
const ANSWER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// A shard that does not tell the version of a memcached.
#[derive(Debug, thiserror::Error)]
#[error("shard {address}: {step}: {kind}")]
pub struct NoVersion {
    /// Which shard.
    pub address: ShardAddress,
    /// What was being done.
    pub step: SessionStep,
    /// What went wrong.
    #[source]
    pub kind: NoVersionKind,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum NoVersionKind {
    /// The system's word.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A bound was reached.
    #[error("nothing within {0:?}")]
    TimedOut(Duration),
    /// The shard closed the connection.
    #[error("the shard closed the connection")]
    Closed,
    /// Something else answered.
    #[error("not a memcached: it answered {0:?} to `version`")]
    NotMemcached(String),
}

/// Connects, asks for the version, and hangs up.
///
/// # Errors
/// No connection, no answer in time, or one that no memcached gives.
pub async fn memcached_version(
    address: &ShardAddress,
    config: &UpstreamConfig,
) -> Result<String, NoVersion> {
    let error = |step, kind| NoVersion {
        address: address.clone(),
        step,
        kind,
    };
    let limit = config.connect_timeout;
    let (read, mut write) = timeout(limit, dial(address, config.tcp_keepalive))
        .await
        .map_err(|_| error(SessionStep::Connect, NoVersionKind::TimedOut(limit)))?
        .map_err(|cause| error(SessionStep::Connect, cause.into()))?;
    let limit = config.request_timeout.unwrap_or(ANSWER_TIMEOUT_DEFAULT);
    let mut answer = Vec::new();
    // `quit` makes the shard close, so that its answer has an end.
    timeout(limit, async {
        write.write_all(b"version\r\nquit\r\n").await?;
        read.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await
    })
    .await
    .map_err(|_| error(SessionStep::Receive, NoVersionKind::TimedOut(limit)))?
    .map_err(|cause| error(SessionStep::Receive, cause.into()))?;
    let text = String::from_utf8_lossy(&answer);
    match text.trim_end().strip_prefix("VERSION ") {
        Some(version) => Ok(version.to_owned()),
        None if answer.is_empty() => Err(error(SessionStep::Receive, NoVersionKind::Closed)),
        None => {
            let kind = NoVersionKind::NotMemcached(text.trim_end().to_owned());
            Err(error(SessionStep::Receive, kind))
        }
    }
}
