//! The hash functions a layout may name, and their dispatch.
//!
//! The twelve of twemproxy 0.5.0 (`src/hashkit/`), bit for bit as its x86-64
//! build computes them, which means that several take a byte as a SIGNED char:
//! bytes from 0x80 up are sign-extended before they are mixed in. Three more
//! are not twemproxy's: `murmur3` (x86, 32 bits, seed 0), `crc16_slot` (Redis
//! Cluster's slot, 0..=16383) and `crc32_slot` (Codis's slot, 0..=1023).
//!
//! Invariant: a function here never changes its result; keys are placed by it.

mod crc;
mod fnv;
mod hsieh;
mod jenkins;
mod murmur;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A hash function by its config name (`hash = "fnv1a_64"`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "&'static str")]
pub enum HashKind {
    /// `one_at_a_time`: Jenkins one-at-a-time.
    OneAtATime,
    /// `md5`: first four bytes of the digest, little-endian.
    Md5,
    /// `crc16`: CRC-16/XMODEM in a 32-bit accumulator that is never masked.
    Crc16,
    /// `crc32`: libmemcached's flavour, bits 16..31 of `crc32a`: at most 32767.
    Crc32,
    /// `crc32a`: CRC-32 (IEEE), as zlib's.
    Crc32a,
    /// `fnv1_64`: low half of 64-bit FNV-1.
    Fnv1_64,
    /// `fnv1a_64`: low half of 64-bit FNV-1a. The default.
    #[default]
    Fnv1a64,
    /// `fnv1_32`: 32-bit FNV-1.
    Fnv1_32,
    /// `fnv1a_32`: 32-bit FNV-1a.
    Fnv1a32,
    /// `hsieh`: Paul Hsieh's SuperFastHash, started at 0.
    Hsieh,
    /// `murmur`: MurmurHash2, seeded by the length.
    Murmur,
    /// `jenkins`: Bob Jenkins' lookup3 `hashlittle`, initval 13.
    Jenkins,
    /// `murmur3`: MurmurHash3 x86_32, seed 0. Not in twemproxy.
    Murmur3,
    /// `crc16_slot`: Redis Cluster's slot, 0..=16383. Not in twemproxy.
    Crc16Slot,
    /// `crc32_slot`: Codis's slot, 0..=1023. Not in twemproxy.
    Crc32Slot,
}

/// A name that is no hash function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hash \"{given}\"; known are {}", HashKind::ALL.map(HashKind::name).join(", "))]
pub struct UnknownHash {
    /// What was written.
    pub given: String,
}

impl HashKind {
    /// Every hash function, twemproxy's twelve first.
    pub const ALL: [Self; 15] = [
        Self::OneAtATime,
        Self::Md5,
        Self::Crc16,
        Self::Crc32,
        Self::Crc32a,
        Self::Fnv1_64,
        Self::Fnv1a64,
        Self::Fnv1_32,
        Self::Fnv1a32,
        Self::Hsieh,
        Self::Murmur,
        Self::Jenkins,
        Self::Murmur3,
        Self::Crc16Slot,
        Self::Crc32Slot,
    ];

    /// Hashes `key` as it is: hash tags and the empty-key rule are the layout's.
    #[inline]
    pub fn hash(self, key: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => jenkins::one_at_a_time(key),
            Self::Md5 => md5_low32(key),
            Self::Crc16 => crc::crc16(key),
            Self::Crc32 => (crc32fast::hash(key) >> 16) & 0x7fff,
            Self::Crc32a => crc32fast::hash(key),
            Self::Fnv1_64 => fnv::fnv1_64(key),
            Self::Fnv1a64 => fnv::fnv1a_64(key),
            Self::Fnv1_32 => fnv::fnv1_32(key),
            Self::Fnv1a32 => fnv::fnv1a_32(key),
            Self::Hsieh => hsieh::hsieh(key),
            Self::Murmur => murmur::murmur2(key),
            Self::Jenkins => jenkins::lookup3(key),
            // Reading from a slice cannot fail.
            Self::Murmur3 => murmur3::murmur3_32(&mut &*key, 0).unwrap_or_default(),
            Self::Crc16Slot => crc::crc16(key) % CRC16_SLOTS,
            Self::Crc32Slot => crc32fast::hash(key) % CRC32_SLOTS,
        }
    }

    /// The config name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "one_at_a_time",
            Self::Md5 => "md5",
            Self::Crc16 => "crc16",
            Self::Crc32 => "crc32",
            Self::Crc32a => "crc32a",
            Self::Fnv1_64 => "fnv1_64",
            Self::Fnv1a64 => "fnv1a_64",
            Self::Fnv1_32 => "fnv1_32",
            Self::Fnv1a32 => "fnv1a_32",
            Self::Hsieh => "hsieh",
            Self::Murmur => "murmur",
            Self::Jenkins => "jenkins",
            Self::Murmur3 => "murmur3",
            Self::Crc16Slot => "crc16_slot",
            Self::Crc32Slot => "crc32_slot",
        }
    }

    /// How many slots the function counts, for the two that give slots.
    pub const fn slots(self) -> Option<u32> {
        match self {
            Self::Crc16Slot => Some(CRC16_SLOTS),
            Self::Crc32Slot => Some(CRC32_SLOTS),
            _ => None,
        }
    }

    /// Is it one of twemproxy's twelve?
    pub const fn is_twemproxy(self) -> bool {
        !matches!(self, Self::Murmur3 | Self::Crc16Slot | Self::Crc32Slot)
    }
}

fn md5_low32(key: &[u8]) -> u32 {
    let [a, b, c, d, ..] = md5::compute(key).0;
    u32::from_le_bytes([a, b, c, d])
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashKind {
    type Err = UnknownHash;

    fn from_str(text: &str) -> Result<Self, UnknownHash> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownHash {
                given: text.to_owned(),
            })
    }
}

impl TryFrom<String> for HashKind {
    type Error = UnknownHash;

    fn try_from(text: String) -> Result<Self, UnknownHash> {
        text.parse()
    }
}

impl From<HashKind> for &'static str {
    fn from(kind: HashKind) -> Self {
        kind.name()
    }
}

/// Slots of Redis Cluster.
const CRC16_SLOTS: u32 = 16_384;
/// Slots of Codis.
const CRC32_SLOTS: u32 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in HashKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<HashKind>(&json).unwrap(), kind);
        }
        let error = "fnv1a".parse::<HashKind>().unwrap_err().to_string();
        assert!(
            error.contains("\"fnv1a\"") && error.contains("fnv1a_64"),
            "{error}"
        );
    }

    #[test]
    fn murmur3_is_x86_32_with_seed_0() {
        // Vectors of the reference implementation (SMHasher).
        for (key, hash) in [
            ("", 0),
            ("hello", 0x248b_fa47),
            ("hello, world", 0x149b_bb7f),
        ] {
            assert_eq!(HashKind::Murmur3.hash(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn crc16_slot_is_redis_clusters() {
        // CLUSTER KEYSLOT of a Redis 7.0 server.
        for (key, slot) in [
            ("", 0),
            ("123456789", 12_739),
            ("foo", 12_182),
            ("bar", 5_061),
            ("somekey", 11_058),
        ] {
            assert_eq!(HashKind::Crc16Slot.hash(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn crc32_slot_is_codis() {
        // From Codis's own slot calculation; 你 checks bytes above 0x7f.
        for (key, slot) in [
            ("", 0),
            ("a", 579),
            ("b", 1017),
            ("c", 879),
            ("foo", 289),
            ("{", 825),
            ("a{b", 76),
            ("你", 627),
        ] {
            assert_eq!(HashKind::Crc32Slot.hash(key.as_bytes()), slot, "{key}");
        }
    }
}
