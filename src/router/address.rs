//! Where a shard is: `host:port`, `unix:/path`, or `store:/dir` for a built-in one.
//!
//! The address is the server's identity when two layouts are compared (its
//! name is only its place on the ring). Addresses are compared as text:
//! `localhost` and `127.0.0.1` are two servers here, since a name's meaning
//! may change and this layer does no I/O.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Address of one Redis-protocol server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ShardAddress {
    /// Written `host:port`; an IPv6 host may stand in brackets.
    Tcp {
        /// Host name or IP address, IPv6 without brackets.
        host: String,
        /// 1..=65535.
        port: u16,
    },
    /// Written `unix:/path`.
    Unix(PathBuf),
    /// Written `store:/dir`: the built-in shard whose files are there.
    Store(PathBuf),
}

/// Name of the socket that a built-in shard listens at, in its directory.
pub const STORE_SOCKET: &str = "shard.sock";

/// Why a text is no shard address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither form.
    #[error("\"{0}\" is not an address; write host:port, unix:/path or store:/dir")]
    Form(String),
    /// The host is empty or holds what no host name holds.
    #[error("\"{0}\" has an invalid host; write host:port, an IPv6 host as [::1]:port")]
    Host(String),
    /// The port is not a number of 1..=65535.
    #[error("\"{0}\" has an invalid port; it is a number from 1 to 65535")]
    Port(String),
    /// A socket path must be absolute, since the working directory may change.
    #[error("\"{0}\" has no absolute path; write unix:/path/to/socket")]
    SocketPath(String),
    /// A store's directory must be absolute, too.
    #[error("\"{0}\" has no absolute path; write store:/path/to/directory")]
    StorePath(String),
}

impl ShardAddress {
    /// The unix socket to connect to, if it is one.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix(path) => Some(path.clone()),
            Self::Store(dir) => Some(dir.join(STORE_SOCKET)),
        }
    }
}

impl FromStr for ShardAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let sound = path.starts_with('/') && path.len() > 1 && !path.contains('\0');
            return if sound {
                Ok(Self::Unix(path.into()))
            } else {
                Err(AddressError::SocketPath(text.to_owned()))
            };
        }
        if let Some(path) = text.strip_prefix("store:") {
            let sound = path.starts_with('/') && path.len() > 1 && !path.contains('\0');
            return if sound {
                Ok(Self::Store(path.into()))
            } else {
                Err(AddressError::StorePath(text.to_owned()))
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| AddressError::Form(text.to_owned()))?;
        Ok(Self::Tcp {
            host: parse_host(host).ok_or_else(|| AddressError::Host(text.to_owned()))?,
            port: parse_port(port).ok_or_else(|| AddressError::Port(text.to_owned()))?,
        })
    }
}

/// Splits at the last colon leave IPv6 hosts either bare (twemproxy's form) or
/// in brackets; both mean the same server.
fn parse_host(host: &str) -> Option<String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some() || host.contains(':') {
        let bare = bare.unwrap_or(host);
        let (ip, _zone) = bare.split_once('%').unwrap_or((bare, ""));
        return ip.parse::<Ipv6Addr>().is_ok().then(|| bare.to_owned());
    }
    let sound = !host.is_empty()
        && host
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '[' | ']' | '@'));
    sound.then(|| host.to_owned())
}

/// Leading zeros are twemproxy's liberty: they are part of the ring name.
fn parse_port(port: &str) -> Option<u16> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| port.parse().ok())
        .flatten()
        .filter(|&port| port > 0)
}

impl fmt::Display for ShardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Store(path) => write!(f, "store:{}", path.display()),
        }
    }
}

impl TryFrom<String> for ShardAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ShardAddress> for String {
    fn from(address: ShardAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_round_trip() {
        for text in [
            "127.0.0.1:6379",
            "redis-1.example:1",
            "[::1]:6379",
            "unix:/run/r.sock",
            "store:/var/lib/shard-1",
            "[fe80::1%eth0]:7000",
        ] {
            assert_eq!(text.parse::<ShardAddress>().unwrap().to_string(), text);
        }
        let bare: ShardAddress = "::1:6379".parse().unwrap();
        assert_eq!(bare, "[::1]:6379".parse().unwrap());
        assert_eq!(
            "h:06379".parse::<ShardAddress>().unwrap().to_string(),
            "h:6379"
        );
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let error = |text: &str| text.parse::<ShardAddress>().unwrap_err();
        assert!(matches!(error("localhost"), AddressError::Form(_)));
        for text in [":6379", "::1", "a b:1", "[::1:1", "[x]:1", "redis://h:1"] {
            assert!(matches!(error(text), AddressError::Host(_)), "{text}");
        }
        for text in ["h:", "h:0", "h:65536", "h:+1", "h:x", "h:99999999999"] {
            assert!(matches!(error(text), AddressError::Port(_)), "{text}");
        }
        for text in ["unix:", "unix:r.sock", "unix:/"] {
            assert!(matches!(error(text), AddressError::SocketPath(_)), "{text}");
        }
        for text in ["store:", "store:d", "store:/"] {
            assert!(matches!(error(text), AddressError::StorePath(_)), "{text}");
        }
    }
}
