//! The statistics port of twemproxy: whoever connects gets one JSON object and
//! a newline, and is closed. Nothing is read, and nobody is asked for a token.
//!
//! Invariant: one caller at a time, and none for longer than
//! [`WRITE_MAX`], so that the port costs nothing however it is used.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::metrics::nutcracker::StatsSource;
use crate::metrics::registry::Registry;

/// Longest time a caller gets for taking its object.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// The version that callers are told: the one whose object this is.
const VERSION: &str = "0.5.0";

/// Pause after a failed accept, when descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for statistics: {cause}")]
pub struct StatsPortError {
    /// As configured.
    pub address: SocketAddr,
    /// What the system said.
    pub cause: io::Error,
}

/// The bound port.
pub struct StatsPort {
    listener: TcpListener,
    host: String,
    started: Instant,
}

impl StatsPort {
    /// Opens the port; `host` is what this machine is called.
    ///
    /// # Errors
    /// The system refuses the address.
    pub async fn bind(address: SocketAddr, host: String) -> Result<Self, StatsPortError> {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|cause| StatsPortError { address, cause })?;
        Ok(Self {
            listener,
            host,
            started: Instant::now(),
        })
    }

    /// Answers callers until `stop` is true or its sender is gone.
    pub async fn serve(self, registry: Arc<Registry>, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let text = self.object(&registry);
                    // A caller that does not take it has gone.
                    let _ = tokio::time::timeout(WRITE_MAX, answer(stream, &text)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a caller of the statistics port failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn object(&self, registry: &Registry) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        registry.nutcracker_stats(&StatsSource {
            host: &self.host,
            version: VERSION,
            uptime_s: self.started.elapsed().as_secs(),
            now_s: now.map_or(0, |now| now.as_secs()),
        })
    }
}

async fn answer(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
