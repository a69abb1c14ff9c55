//! The wish that a job stops, from SIGINT, SIGTERM or a test.

use tokio::sync::watch;

/// The side that asks.
#[derive(Debug)]
pub struct StopSource(watch::Sender<u32>);

/// The side that is asked; clones hear the same wish.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<u32>);

/// A wish that can be made and heard.
pub fn stop_channel() -> (StopSource, Stop) {
    let (sender, receiver) = watch::channel(0);
    (StopSource(sender), Stop(receiver))
}

impl StopSource {
    /// Asks; a second time is stronger than the first.
    pub fn request(&self) {
        self.0.send_modify(|times| *times = times.saturating_add(1));
    }
}

impl Stop {
    /// Returns when a stop was asked for; never if nobody can ask any more.
    pub async fn requested(&mut self) {
        self.times(1).await;
    }

    /// Returns when a stop was asked for twice.
    pub async fn insisted(&mut self) {
        self.times(2).await;
    }

    async fn times(&mut self, wanted: u32) {
        if self.0.wait_for(|times| *times >= wanted).await.is_err() {
            std::future::pending().await
        }
    }
}
