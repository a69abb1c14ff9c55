//! Names of servers, resolved with a bound: the system's resolver has none that we set.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How often it is looked meanwhile whether the address is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// The first address of a name, if it is there in time and wanted for as long. A name is
/// asked for by a thread of its own, which ends when the system has answered it; nobody
/// waits for it longer.
///
/// # Errors
/// The system's, `NotFound`, `TimedOut`, or `Interrupted` if it is wanted no longer.
pub fn resolve(
    host: &str,
    port: u16,
    longest: Duration,
    is_wanted: &dyn Fn() -> bool,
) -> io::Result<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let (tell, told) = sync_channel(1);
    let at = (host.to_owned(), port);
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            let address = at.to_socket_addrs().map(|mut all| all.next());
            // Nobody may want it any more.
            let _ = tell.send(address);
        })?;
    let begun = Instant::now();
    while is_wanted() {
        match told.recv_timeout(LOOK.min(longest)) {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Err(cause)) => return Err(cause),
            Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < longest => {}
            Err(RecvTimeoutError::Timeout) => {
                let why = "its name is not resolved in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_found_while_they_are_wanted() {
        let longest = Duration::from_secs(30);
        let found = |host: &str| resolve(host, 7, longest, &|| true);
        assert_eq!(found("::1").expect("an address").port(), 7);
        assert!(found("localhost").expect("known").ip().is_loopback());
        let unwanted = resolve("localhost", 7, longest, &|| false);
        let kind = unwanted.expect_err("nobody wants it").kind();
        assert_eq!(kind, io::ErrorKind::Interrupted);
    }
}
