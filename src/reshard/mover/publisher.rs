//! Publishes markers on one source, over a connection kept open: at the switch
//! there is no time to dial.

use tokio::sync::{mpsc, watch};

use super::error::MoveError;
use super::link::Link;
use super::marker::MARKER_CHANNEL;

const STEP: &str = "publish a marker";
/// Markers that may wait; one job rarely has two.
pub(super) const PUBLISH_QUEUE_MAX: usize = 16;

/// Publishes each message until told to stop.
pub(super) async fn publish(
    mut link: Link,
    mut requests: mpsc::Receiver<Vec<u8>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let work = async {
        while let Some(message) = link.keep_until(requests.recv()).await? {
            link.call(STEP, &[b"PUBLISH", MARKER_CHANNEL, &message])
                .await?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = work => done,
    }
}
