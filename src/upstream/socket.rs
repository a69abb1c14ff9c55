//! One socket to a shard, TCP or Unix, and its two halves.
//!
//! An enum instead of a trait object: the halves are owned by different tasks,
//! and both kinds split without a lock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use crate::router::address::ShardAddress;

/// How long a connection may be silent before the kernel probes it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// What is read from a shard.
#[derive(Debug)]
pub enum ReadHalf {
    /// Of a TCP connection.
    Tcp(tcp::OwnedReadHalf),
    /// Of a Unix socket.
    Unix(unix::OwnedReadHalf),
}

/// What is written to a shard. Dropping it shuts the sending direction down.
#[derive(Debug)]
pub enum WriteHalf {
    /// Of a TCP connection.
    Tcp(tcp::OwnedWriteHalf),
    /// Of a Unix socket.
    Unix(unix::OwnedWriteHalf),
}

/// Connects, without a bound of its own: the caller sets one.
///
/// # Errors
/// What the system says: refused, no such host, no such socket file.
pub async fn dial(
    address: &ShardAddress,
    tcp_keepalive: bool,
) -> io::Result<(ReadHalf, WriteHalf)> {
    match address {
        ShardAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // Requests are written whole; waiting to fill a packet only adds latency.
            stream.set_nodelay(true)?;
            if tcp_keepalive {
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            }
            let (read, write) = stream.into_split();
            Ok((ReadHalf::Tcp(read), WriteHalf::Tcp(write)))
        }
        ShardAddress::Unix(_) | ShardAddress::Store(_) => {
            let path = address.socket_path().unwrap_or_default();
            let (read, write) = UnixStream::connect(path).await?.into_split();
            Ok((ReadHalf::Unix(read), WriteHalf::Unix(write)))
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(cx),
            Self::Unix(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Unix(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
