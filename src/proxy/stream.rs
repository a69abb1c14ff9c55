//! A connected socket of either kind, registered with the worker's poll once
//! for both directions (edge-triggered: no call is needed to re-arm it).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};

use crate::upstream::pipe::PipeError;

/// A connected socket, or one that is being connected.
pub struct Stream {
    socket: Socket,
    /// It took less than it was given: it says when it takes more.
    blocked: bool,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Begins to connect; the socket becomes writable when it is done.
    pub fn dial_tcp(address: SocketAddr, keepalive: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        if keepalive {
            SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new())?;
        }
        Ok(stream.into())
    }

    /// Connects to a Unix socket.
    pub fn dial_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::from)
    }

    /// Whether the connection that was dialled stands, is still being made
    /// (`Ok(false)`), or failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        match &self.socket {
            Socket::Tcp(stream) => {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                match stream.peer_addr() {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Socket::Unix(stream) => match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(true),
            },
        }
    }

    /// Nothing more is written; what the other side has sent may still be read.
    pub fn shut(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Whether there is no use in writing until the socket says so.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Notes that the socket took less than it was given, or takes more again.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// Registers the socket for reading and writing.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut self.socket {
            Socket::Tcp(stream) => stream.register(registry, token, both),
            Socket::Unix(stream) => stream.register(registry, token, both),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self {
            socket: Socket::Tcp(socket),
            blocked: false,
        }
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self {
            socket: Socket::Unix(socket),
            blocked: false,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The system's words without its error number.
pub fn link_error(error: &io::Error) -> PipeError {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let words = words.to_lowercase();
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            PipeError::NoSocket(words)
        }
        _ => PipeError::Link(words),
    }
}
