//! The 9-byte header of an RDB file: `REDIS` + 4 digits, or `VALKEY` + 3.
//!
//! Numbers 22 and up of types and 242, 243 of opcodes mean different things
//! under the two magics, so everything later asks the pair, never a number.

use std::fmt;

/// Which family of servers wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Magic {
    /// `REDIS`: Redis, KeyDB, Valkey up to 8.1, and others that keep Redis's numbers.
    Redis,
    /// `VALKEY`: Valkey 9.0 and later.
    Valkey,
}

/// Magic and version number of a file whose header we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileVersion {
    magic: Magic,
    number: u16,
}

/// Newest RDB version of Redis whose header is accepted: that of 8.10.
const REDIS_VERSION_MAX: u16 = 15;
const VALKEY_VERSIONS: std::ops::RangeInclusive<u16> = 80..=81;

impl FileVersion {
    /// Length of the header in bytes.
    pub const HEADER_BYTES: usize = 9;

    /// The pair, if it is one we know: Redis 1..=15, Valkey 80 and 81.
    pub fn known(magic: Magic, number: u16) -> Option<Self> {
        let known = match magic {
            Magic::Redis => (1..=REDIS_VERSION_MAX).contains(&number),
            Magic::Valkey => VALKEY_VERSIONS.contains(&number),
        };
        known.then_some(Self { magic, number })
    }

    /// The version named by a DUMP payload's footer, which carries no magic:
    /// Valkey has the numbers from 80 on to itself.
    pub fn of_dump(number: u16) -> Option<Self> {
        let magic = if number >= *VALKEY_VERSIONS.start() {
            Magic::Valkey
        } else {
            Magic::Redis
        };
        Self::known(magic, number)
    }

    /// Reads a header of [`Self::HEADER_BYTES`]. `None`: not an RDB file, or
    /// a version we do not know.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (magic, digits) = match header.strip_prefix(b"REDIS") {
            Some(digits) if digits.len() == 4 => (Magic::Redis, digits),
            _ => match header.strip_prefix(b"VALKEY") {
                Some(digits) if digits.len() == 3 => (Magic::Valkey, digits),
                _ => return None,
            },
        };
        let mut number = 0u16;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + u16::from(digit - b'0');
        }
        Self::known(magic, number)
    }

    /// Which family of numbers the file uses.
    pub fn magic(self) -> Magic {
        self.magic
    }

    /// The version number: 1..=15 under [`Magic::Redis`], 80 or 81 under [`Magic::Valkey`].
    pub fn number(self) -> u16 {
        self.number
    }

    /// Whether the file ends with an 8-byte checksum after its end opcode.
    pub fn has_checksum(self) -> bool {
        self.number >= 5
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.magic {
            Magic::Redis => write!(f, "REDIS{:04}", self.number),
            Magic::Valkey => write!(f, "VALKEY{:03}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_families() {
        let redis = FileVersion::parse(b"REDIS0011").unwrap();
        assert_eq!((redis.magic(), redis.number()), (Magic::Redis, 11));
        let valkey = FileVersion::parse(b"VALKEY080").unwrap();
        assert_eq!((valkey.magic(), valkey.number()), (Magic::Valkey, 80));
        assert_eq!(redis.to_string(), "REDIS0011");
        assert_eq!(valkey.to_string(), "VALKEY080");
    }

    #[test]
    fn other_headers_are_refused() {
        for header in [
            &b"REDIS0000"[..],
            b"REDIS0016",
            b"REDIS0080",
            b"VALKEY011",
            b"VALKEY987",
            b"REDIS00a1",
            b"REDIS011",
            b"",
            b"SQLITE000",
        ] {
            assert_eq!(FileVersion::parse(header), None, "{header:?}");
        }
    }
}
