//! What a source task reads from: a tap, or a walk where there is no PSYNC.

use std::sync::Arc;

use crate::replication::{ResumePoint, Tap, TapConfig, TapError, TapEvent, TapMode};
use crate::router::address::ShardAddress;

use super::error::MoveError;
use super::progress::SourceProgress;
use super::walk::{Walk, WalkConfig, WalkEvent};

/// How a source is attached to.
pub(super) enum FeedConfig {
    Tap(Box<TapConfig>),
    Walk(Box<WalkConfig>),
}

/// What came.
pub(super) enum FeedEvent {
    Tap(TapEvent),
    Walk(WalkEvent),
}

/// A source that is attached to.
pub(super) enum Feed {
    Tap(Box<Tap>, ShardAddress),
    Walk(Box<Walk>),
}

impl Feed {
    /// Attaches to `address`, or to what the configuration names instead; a tap
    /// goes on after `resume`, if its source can.
    pub(super) async fn attach(
        address: &ShardAddress,
        config: FeedConfig,
        resume: Option<ResumePoint>,
    ) -> Result<Feed, MoveError> {
        match config {
            FeedConfig::Tap(config) => {
                let tap = Tap::attach(*config, resume).await;
                let tap = tap.map_err(|cause| tap_error(address, cause))?;
                Ok(Feed::Tap(Box::new(tap), address.clone()))
            }
            FeedConfig::Walk(config) => Ok(Feed::Walk(Box::new(Walk::attach(*config).await?))),
        }
    }

    /// The next event. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<FeedEvent, MoveError> {
        match self {
            Feed::Tap(tap, address) => {
                let event = tap.next().await;
                let event = event.map_err(|cause| tap_error(address, cause))?;
                Ok(FeedEvent::Tap(event))
            }
            Feed::Walk(walk) => walk.next().await.map(FeedEvent::Walk),
        }
    }

    /// Whether times of expiry need the guard and the settler: a walk reads a key
    /// whole again when it is renewed, so nothing is lost that ended too early.
    pub(super) fn needs_guard(&self) -> bool {
        matches!(self, Feed::Tap(..))
    }

    /// Whether there are places in it that can be gone on from.
    pub(super) fn has_stream(&self) -> bool {
        matches!(self, Feed::Tap(tap, _) if tap.mode() != TapMode::Sync)
    }

    /// Everything up to `offset` is applied.
    pub(super) fn acknowledge(&self, offset: u64) {
        match self {
            Feed::Tap(tap, _) => tap.acknowledge(offset),
            // Nobody at the source waits for it.
            Feed::Walk(_) => {}
        }
    }

    /// Writes its part of the source's row.
    pub(super) fn show(&self, row: &mut SourceProgress) {
        match self {
            Feed::Tap(tap, _) => {
                if let Some(snapshot) = tap.snapshot_progress() {
                    row.snapshot_bytes = snapshot.read_bytes;
                    row.snapshot_bytes_total = snapshot.total_bytes;
                }
                row.tap = Some(tap.meter().figures());
            }
            Feed::Walk(walk) => row.walk = Some(walk.figures()),
        }
    }

    /// Leaves the source.
    pub(super) async fn close(self) {
        match self {
            Feed::Tap(tap, _) => tap.close().await,
            Feed::Walk(walk) => walk.close().await,
        }
    }
}

pub(super) fn tap_error(address: &ShardAddress, cause: TapError) -> MoveError {
    MoveError::Tap {
        source_server: address.clone(),
        cause: Arc::new(cause),
    }
}
