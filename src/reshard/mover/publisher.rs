//! Publishes markers on one source, over a connection kept open: at the switch
//! there is no time to dial. A source that is out of reach is waited for.

use tokio::sync::{mpsc, watch};

use super::error::MoveError;
use super::link::{Link, Patience};
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
            let args: [&[u8]; 3] = [b"PUBLISH", MARKER_CHANNEL, &message];
            let mut patience = Patience::default();
            // Published twice, a marker counts once.
            while let Err(error) = link.call(STEP, &args).await {
                link.revive(&mut patience, error).await?;
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = work => done,
    }
}
