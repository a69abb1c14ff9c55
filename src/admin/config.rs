//! What the HTTP side means, after its config was checked.
//!
//! Invariant: whoever makes an `AdminConfig` gives a token to every address
//! that other machines can reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `admin.http` when none is written.
pub const HTTP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Shortest token: 128 bits, when its characters are drawn from 256.
pub const TOKEN_BYTES_MIN: usize = 16;

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    /// Where to listen; `None` for not at all.
    pub http: Option<SocketAddr>,
    /// What a caller must know; `None` asks for nothing.
    pub token: Option<Token>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            http: Some(HTTP_DEFAULT),
            token: None,
        }
    }
}

/// A bearer token; never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// `None` unless `text` is at least [`TOKEN_BYTES_MIN`] printable ASCII
    /// characters without spaces, as a header can carry.
    pub fn new(text: String) -> Option<Self> {
        let sound =
            text.len() >= TOKEN_BYTES_MIN && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then_some(Self(text))
    }

    /// Whether `given` is this token. The time it takes tells nothing about
    /// the bytes, only whether the length is right.
    pub fn matches(&self, given: &[u8]) -> bool {
        let differences = self
            .0
            .bytes()
            .zip(given)
            .fold(0, |seen, (a, b)| seen | (a ^ b));
        self.0.len() == given.len() && std::hint::black_box(differences) == 0
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
