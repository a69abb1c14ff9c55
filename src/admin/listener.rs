//! The admin port, bounded: so many connections, and each may be silent for so
//! long, so that neither a leak nor a slow caller takes our descriptors.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Most connections at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 256;

/// Longest silence of a connection. A job keeps one open between its calls.
const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);

/// Pause after a failed accept: what fails is usually a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket whose connections are bounded.
pub struct BoundedListener {
    inner: TcpListener,
    slots: Arc<Semaphore>,
}

impl BoundedListener {
    /// Bounds the connections of `inner`.
    pub fn new(inner: TcpListener) -> Self {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { inner, slots }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        // We never close the semaphore, so waiting for it always ends well.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            match self.inner.accept().await {
                Ok((inner, peer)) => {
                    let silence = Box::pin(sleep(SILENCE_MAX));
                    return (
                        BoundedStream {
                            inner,
                            silence,
                            _slot: slot,
                        },
                        peer,
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin port; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that ends after [`SILENCE_MAX`] without a byte.
pub struct BoundedStream {
    inner: TcpStream,
    silence: Pin<Box<Sleep>>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(done) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            return Poll::Ready(done);
        }
        match self.silence.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
