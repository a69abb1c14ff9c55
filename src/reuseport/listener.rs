//! Binding a pool's addresses, once for each worker.
//!
//! TCP: every worker has a socket of its own with SO_REUSEPORT, so the kernel
//! spreads connections and no lock is shared. Unix sockets have no such
//! option: one socket is bound and each worker gets a duplicate of it. Neither
//! spreads evenly; `proxy::balance` does.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::address::ListenAddress;

/// Connections the kernel keeps for a worker that has not accepted them yet,
/// where a pool does not say.
pub const BACKLOG_DEFAULT: u32 = 1024;

/// One worker's listening socket, non-blocking.
#[derive(Debug)]
pub enum Listener {
    /// Its own socket of a shared port.
    Tcp(TcpListener),
    /// A duplicate of the one socket.
    Unix(UnixListener),
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}")]
pub struct BindError {
    /// What the config names.
    pub address: ListenAddress,
    /// What the system said.
    pub source: io::Error,
}

/// Binds `address` for `workers` workers. A port of 0 is chosen by the system
/// and is the same for all; the address that was really bound comes back.
/// `ours`: this process listens on (a part of) it already, so that being in
/// use says nothing. `backlog`: see [`BACKLOG_DEFAULT`].
///
/// # Errors
/// Names the address. Nothing stays bound then.
pub fn bind(
    address: &ListenAddress,
    workers: usize,
    backlog: u32,
    ours: bool,
) -> Result<(ListenAddress, Vec<Listener>), BindError> {
    let error = |source| BindError {
        address: address.clone(),
        source,
    };
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    match address {
        ListenAddress::Tcp(tcp) => {
            let (bound, listeners) = bind_tcp(*tcp, workers, backlog, ours).map_err(error)?;
            Ok((ListenAddress::Tcp(bound), listeners))
        }
        ListenAddress::Unix { path, mode } => {
            let listeners = bind_unix(path, *mode, workers, backlog, ours).map_err(error)?;
            Ok((address.clone(), listeners))
        }
    }
}

fn bind_tcp(
    address: SocketAddr,
    workers: usize,
    backlog: i32,
    ours: bool,
) -> io::Result<(SocketAddr, Vec<Listener>)> {
    if !ours {
        refuse_foreign_listener(address)?;
    }
    let mut bound = address;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = Socket::new(
            Domain::for_address(bound),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if bound.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&bound.into())?;
        socket.listen(backlog)?;
        let listener = TcpListener::from(socket);
        bound = listener.local_addr()?;
        listeners.push(Listener::Tcp(listener));
    }
    Ok((bound, listeners))
}

/// SO_REUSEPORT would let a second proxy of the same user bind the same port
/// in silence and take half of the connections. A bind without it tells.
fn refuse_foreign_listener(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let probe = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    probe.set_reuse_address(true)?;
    if address.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    probe.bind(&address.into())
}

fn bind_unix(
    path: &Path,
    mode: u32,
    workers: usize,
    backlog: i32,
    ours: bool,
) -> io::Result<Vec<Listener>> {
    if ours {
        fs::remove_file(path)?;
    } else {
        remove_stale_socket(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.set_nonblocking(true)?;
    socket.listen(backlog)?;
    let first = UnixListener::from(socket);
    let mut listeners = Vec::with_capacity(workers);
    for _ in 1..workers {
        listeners.push(Listener::Unix(first.try_clone()?));
    }
    listeners.push(Listener::Unix(first));
    Ok(listeners)
}

/// A socket file nobody listens on is left over; anything else stays.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
            Err(_) => fs::remove_file(path),
        },
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is there",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_and_strangers_are_refused() {
        let any: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let (bound, listeners) = bind(&any, 3, BACKLOG_DEFAULT, false).unwrap();
        assert_eq!(listeners.len(), 3);
        let error = bind(&bound, 1, BACKLOG_DEFAULT, false).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse, "{error}");
        bind(&bound, 1, BACKLOG_DEFAULT, true).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let address = ListenAddress::Unix {
            path: path.clone(),
            mode: 0o600,
        };
        let (_, listeners) = bind(&address, 2, BACKLOG_DEFAULT, false).unwrap();
        assert!(bind(&address, 1, BACKLOG_DEFAULT, false).is_err());
        drop(listeners);
        bind(&address, 1, BACKLOG_DEFAULT, false).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"data").unwrap();
        assert!(bind(&address, 1, BACKLOG_DEFAULT, false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
