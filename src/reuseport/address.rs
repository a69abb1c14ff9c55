//! Where a pool listens, as written in a config: `host:port` with a literal
//! address, or `unix:/path?mode=0660`.
//!
//! Invariant: a `ListenAddress` that exists can be bound as far as its text
//! can tell: the port is in range, the path is absolute and fits a
//! `sockaddr_un`, and the mode has no bits outside 0777.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a unix socket in bytes: `sun_path` of Linux is 108 bytes
/// with its terminating NUL.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Permission bits a unix socket gets when the address names none.
pub const UNIX_MODE_DEFAULT: u32 = 0o666;

/// One address a pool accepts clients on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An IPv4 or IPv6 address with a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket: absolute path and permission bits (at most 0777).
    Unix {
        /// Absolute path, at most [`UNIX_PATH_BYTES_MAX`] bytes.
        path: PathBuf,
        /// Permission bits set on the socket file after it is bound.
        mode: u32,
    },
}

impl ListenAddress {
    /// Whether both would bind the same socket; the mode makes no difference,
    /// and port 0 never clashes.
    pub fn clashes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let any = a.ip().is_unspecified() || b.ip().is_unspecified();
                let same_family = a.is_ipv4() == b.is_ipv4();
                a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || (any && same_family))
            }
            (Self::Unix { path: a, .. }, Self::Unix { path: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Why a text is no listen address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddressError {
    /// Neither `IP:PORT` nor `unix:/path`.
    #[error("not an address to listen on: IP:PORT or unix:/path")]
    Malformed,
    /// A host name where an IP address is needed.
    #[error("a listen address needs an IP address, not the name `{0}`")]
    Name(String),
    /// The port is not a number from 0 to 65535.
    #[error("`{0}` is no port")]
    Port(String),
    /// A relative or empty path after `unix:`.
    #[error("the path of a unix socket must be absolute")]
    RelativePath,
    /// The path does not fit a socket address.
    #[error("the path of a unix socket is at most {UNIX_PATH_BYTES_MAX} bytes, this has {0}")]
    PathTooLong(usize),
    /// `?mode=` is not three or four octal digits up to 0777.
    #[error("`{0}` is no unix mode")]
    Mode(String),
    /// Something other than `mode=` after the `?`.
    #[error("unknown option `{0}` of a unix address")]
    Option(String),
}

impl ListenAddressError {
    /// What the person who wrote the address should do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Malformed => "write \"IP:PORT\" such as \"127.0.0.1:6379\", or \"unix:/path\"",
            Self::Name(_) => {
                "use the address itself, such as \"127.0.0.1:6379\" or \"0.0.0.0:6379\""
            }
            Self::Port(_) => "a port is a number from 0 to 65535; 0 lets the system choose",
            Self::RelativePath => {
                "start the path with `/`, as in \"unix:/run/keyferry/cache.sock\""
            }
            Self::PathTooLong(_) => "choose a shorter directory",
            Self::Mode(_) => "a mode is octal and at most 0777, as in \"unix:/path?mode=0660\"",
            Self::Option(_) => "the only option is `mode`, as in \"unix:/path?mode=0660\"",
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return parse_unix(rest);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(ListenAddressError::Malformed)?;
        if port.parse::<u16>().is_err() {
            return Err(ListenAddressError::Port(port.to_owned()));
        }
        if host.is_empty() || host.contains(['/', ' ', ':', '[']) {
            return Err(ListenAddressError::Malformed);
        }
        Err(ListenAddressError::Name(host.to_owned()))
    }
}

fn parse_unix(text: &str) -> Result<ListenAddress, ListenAddressError> {
    let (path, options) = match text.split_once('?') {
        Some((path, options)) => (path, Some(options)),
        None => (text, None),
    };
    if !path.starts_with('/') || path.len() < 2 {
        return Err(ListenAddressError::RelativePath);
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(ListenAddressError::PathTooLong(path.len()));
    }
    let mode = match options {
        None => UNIX_MODE_DEFAULT,
        Some(option) => match option.strip_prefix("mode=") {
            Some(digits) => parse_mode(digits)?,
            None => return Err(ListenAddressError::Option(option.to_owned())),
        },
    };
    Ok(ListenAddress::Unix {
        path: PathBuf::from(path),
        mode,
    })
}

fn parse_mode(digits: &str) -> Result<u32, ListenAddressError> {
    let octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(ListenAddressError::Mode(digits.to_owned())),
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, mode } if *mode == UNIX_MODE_DEFAULT => {
                write!(f, "unix:{}", path.display())
            }
            Self::Unix { path, mode } => write!(f, "unix:{}?mode={mode:04o}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_read() {
        for text in [
            "127.0.0.1:6379",
            "[::1]:0",
            "unix:/run/a.sock",
            "unix:/run/a.sock?mode=0660",
        ] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong() {
        let wrong = [
            ("6379", "not an address to listen on: IP:PORT or unix:/path"),
            (
                "localhost:6379",
                "a listen address needs an IP address, not the name `localhost`",
            ),
            ("127.0.0.1:70000", "`70000` is no port"),
            ("unix:a.sock", "the path of a unix socket must be absolute"),
            ("unix:/a?mode=0999", "`0999` is no unix mode"),
            ("unix:/a?mode=4777", "`4777` is no unix mode"),
            (
                "unix:/a?owner=me",
                "unknown option `owner=me` of a unix address",
            ),
        ];
        for (text, message) in wrong {
            let error = text.parse::<ListenAddress>().expect_err(text);
            assert_eq!(error.to_string(), message, "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        assert_eq!(
            long.parse::<ListenAddress>(),
            Err(ListenAddressError::PathTooLong(UNIX_PATH_BYTES_MAX + 1))
        );
    }

    #[test]
    fn any_address_clashes_with_its_port_in_the_same_family() {
        let parse = |text: &str| text.parse::<ListenAddress>().expect(text);
        assert!(parse("0.0.0.0:1").clashes_with(&parse("127.0.0.1:1")));
        assert!(!parse("0.0.0.0:1").clashes_with(&parse("[::1]:1")));
        assert!(!parse("127.0.0.1:0").clashes_with(&parse("127.0.0.1:0")));
        assert!(parse("unix:/a").clashes_with(&parse("unix:/a?mode=0600")));
    }
}
