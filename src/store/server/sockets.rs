//! Listening and connected sockets, TCP or Unix.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net;
use std::path::PathBuf;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    /// Address and port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A file.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Permission bits it gets.
        mode: u32,
    },
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAt::Tcp(address) => write!(f, "{address}"),
            ListenAt::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether it could be listened at, before any file is made or read for it. Somebody may
/// still be faster.
pub(super) fn check(at: &ListenAt) -> io::Result<()> {
    match at {
        ListenAt::Tcp(address) if address.port() == 0 => Ok(()),
        ListenAt::Tcp(address) => TcpListener::bind(*address).map(drop),
        // Its directory may be the shard's, which is still to be made.
        ListenAt::Unix { path, .. } => net::SocketAddr::from_pathname(path).map(drop),
    }
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// A file that is left of a process that was killed is replaced, one that somebody
    /// listens at is not.
    pub(super) fn bind(at: &ListenAt) -> io::Result<Self> {
        match at {
            ListenAt::Tcp(address) => TcpListener::bind(*address).map(Listener::Tcp),
            ListenAt::Unix { path, mode } => {
                let is_left = path.exists() && net::UnixStream::connect(path).is_err();
                if is_left {
                    fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
                Ok(Listener::Unix(listener))
            }
        }
    }

    pub(super) fn address(&self, asked: &ListenAt) -> io::Result<ListenAt> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(ListenAt::Tcp),
            Listener::Unix(_) => Ok(asked.clone()),
        }
    }

    /// A connection, with its two ends' names.
    pub(super) fn accept(&self) -> io::Result<(Connection, String, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept()?;
                stream.set_nodelay(true)?;
                let to = stream.local_addr()?.to_string();
                Ok((Connection::Tcp(stream), from.to_string(), to))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let path = listener.local_addr()?;
                let path = path
                    .as_pathname()
                    .map_or_else(String::new, |p| p.display().to_string());
                let name = format!("{path}:0");
                Ok((Connection::Unix(stream), name.clone(), name))
            }
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Listener::Tcp(listener) => listener,
            Listener::Unix(listener) => listener,
        }
    }
}

impl Source for Connection {
    fn register(&mut self, registry: &Registry, token: Token, on: Interest) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => stream.register(registry, token, on),
            Connection::Unix(stream) => stream.register(registry, token, on),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, on: Interest) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => stream.reregister(registry, token, on),
            Connection::Unix(stream) => stream.reregister(registry, token, on),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => stream.deregister(registry),
            Connection::Unix(stream) => stream.deregister(registry),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.read(into),
            Connection::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.write(bytes),
            Connection::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
