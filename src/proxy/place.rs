//! What an event of a worker's poll is about.

use mio::Token;

/// The inbox has something.
pub const WAKE: Token = Token(usize::MAX - 1);

/// What a token stands for: kind in bits 62-63, pool in 32-61, index in 0-31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A listening socket.
    Listener { pool: usize, index: u32 },
    /// A client.
    Client { pool: usize, key: u32 },
    /// A connection to a shard.
    Pipe { pool: usize, key: u32 },
}

impl Place {
    /// The token of this place.
    pub fn token(self) -> Token {
        let (kind, pool, index) = match self {
            Self::Listener { pool, index } => (0, pool, index),
            Self::Client { pool, key } => (1, pool, key),
            Self::Pipe { pool, key } => (2, pool, key),
        };
        Token((kind << 62) | (pool << 32) | index as usize)
    }

    pub fn of(Token(bits): Token) -> Option<Self> {
        let pool = (bits >> 32) & 0x3fff_ffff;
        let index = bits as u32;
        match bits >> 62 {
            0 => Some(Self::Listener { pool, index }),
            1 => Some(Self::Client { pool, key: index }),
            2 => Some(Self::Pipe { pool, key: index }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_places() {
        for place in [
            Place::Listener { pool: 0, index: 0 },
            Place::Client {
                pool: 3,
                key: u32::MAX,
            },
            Place::Pipe {
                pool: 0x3fff_ffff,
                key: 7,
            },
        ] {
            assert_eq!(Place::of(place.token()), Some(place));
        }
        assert_eq!(Place::of(WAKE), None);
    }
}
