//! Value types: the byte before each key, named by (magic, version, byte).

use super::version::{FileVersion, Magic};

/// How one value is laid out. Two layouts share byte 22: Redis 7.4 release
/// candidates and Valkey 9 gave it different meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "each variant is named after the format's own word for it"
)]
pub enum ValueType {
    String,
    List,
    Set,
    /// Scores as text.
    Zset,
    Hash,
    /// Scores as little-endian doubles.
    Zset2,
    Module2,
    HashZipmap,
    ListZiplist,
    SetIntset,
    ZsetZiplist,
    HashZiplist,
    ListQuicklist,
    StreamListpacks,
    HashListpack,
    ZsetListpack,
    ListQuicklist2,
    StreamListpacks2,
    SetListpack,
    StreamListpacks3,
    /// Field expiry as absolute ms before each pair; Redis 7.4 release candidates.
    HashMetadataPreGa,
    HashListpackExPreGa,
    /// Field expiry relative to the smallest one.
    HashMetadata,
    HashListpackEx,
    /// Field expiry as absolute ms after each pair; Valkey 9.
    HashValkey2,
    /// With what XADD remembers of producers; Redis 8.6.
    StreamListpacks4,
    /// With entries given back by XNACK; Redis 8.8.
    StreamListpacks5,
    /// Sparse, by 64-bit index; Redis 8.8.
    Array,
    /// Field names, then values in one listpack; Redis 8.10, DUMP only.
    HashTemplateListpack,
    /// Field names, then values one by one; Redis 8.10, DUMP only.
    HashTemplateArray,
    /// State of a rate limiter; Redis 8.10, not in its releases.
    Gcra,
}

/// What a value is to a client, whatever its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the kind that TYPE would name")]
pub enum ValueKind {
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
    Module,
    Array,
    RateLimiter,
}

impl ValueType {
    /// The layout that `byte` names in a file of this version; `None` if unknown.
    pub fn known(version: FileVersion, byte: u8) -> Option<Self> {
        let redis = |number| version.magic() == Magic::Redis && version.number() >= number;
        Some(match byte {
            0 => Self::String,
            1 => Self::List,
            2 => Self::Set,
            3 => Self::Zset,
            4 => Self::Hash,
            5 => Self::Zset2,
            7 => Self::Module2,
            9 => Self::HashZipmap,
            10 => Self::ListZiplist,
            11 => Self::SetIntset,
            12 => Self::ZsetZiplist,
            13 => Self::HashZiplist,
            14 => Self::ListQuicklist,
            15 => Self::StreamListpacks,
            16 => Self::HashListpack,
            17 => Self::ZsetListpack,
            18 => Self::ListQuicklist2,
            19 => Self::StreamListpacks2,
            20 => Self::SetListpack,
            21 => Self::StreamListpacks3,
            22 if version.magic() == Magic::Valkey => Self::HashValkey2,
            22 if redis(12) => Self::HashMetadataPreGa,
            23 if redis(12) => Self::HashListpackExPreGa,
            24 if redis(12) => Self::HashMetadata,
            25 if redis(12) => Self::HashListpackEx,
            26 if redis(13) => Self::StreamListpacks4,
            27 if redis(14) => Self::StreamListpacks5,
            28 if redis(14) => Self::Array,
            29 if redis(15) => Self::HashTemplateListpack,
            31 if redis(15) => Self::HashTemplateArray,
            33 if redis(15) => Self::Gcra,
            _ => return None,
        })
    }

    /// The byte that names this layout, in files and in DUMP payloads.
    pub fn byte(self) -> u8 {
        match self {
            Self::String => 0,
            Self::List => 1,
            Self::Set => 2,
            Self::Zset => 3,
            Self::Hash => 4,
            Self::Zset2 => 5,
            Self::Module2 => 7,
            Self::HashZipmap => 9,
            Self::ListZiplist => 10,
            Self::SetIntset => 11,
            Self::ZsetZiplist => 12,
            Self::HashZiplist => 13,
            Self::ListQuicklist => 14,
            Self::StreamListpacks => 15,
            Self::HashListpack => 16,
            Self::ZsetListpack => 17,
            Self::ListQuicklist2 => 18,
            Self::StreamListpacks2 => 19,
            Self::SetListpack => 20,
            Self::StreamListpacks3 => 21,
            Self::HashMetadataPreGa | Self::HashValkey2 => 22,
            Self::HashListpackExPreGa => 23,
            Self::HashMetadata => 24,
            Self::HashListpackEx => 25,
            Self::StreamListpacks4 => 26,
            Self::StreamListpacks5 => 27,
            Self::Array => 28,
            Self::HashTemplateListpack => 29,
            Self::HashTemplateArray => 31,
            Self::Gcra => 33,
        }
    }

    /// What a client sees.
    pub fn kind(self) -> ValueKind {
        match self {
            Self::String => ValueKind::String,
            Self::List | Self::ListZiplist | Self::ListQuicklist | Self::ListQuicklist2 => {
                ValueKind::List
            }
            Self::Set | Self::SetIntset | Self::SetListpack => ValueKind::Set,
            Self::Zset | Self::Zset2 | Self::ZsetZiplist | Self::ZsetListpack => {
                ValueKind::SortedSet
            }
            Self::Hash
            | Self::HashZipmap
            | Self::HashZiplist
            | Self::HashListpack
            | Self::HashMetadataPreGa
            | Self::HashListpackExPreGa
            | Self::HashMetadata
            | Self::HashListpackEx
            | Self::HashValkey2
            | Self::HashTemplateListpack
            | Self::HashTemplateArray => ValueKind::Hash,
            Self::StreamListpacks
            | Self::StreamListpacks2
            | Self::StreamListpacks3
            | Self::StreamListpacks4
            | Self::StreamListpacks5 => ValueKind::Stream,
            Self::Module2 => ValueKind::Module,
            Self::Array => ValueKind::Array,
            Self::Gcra => ValueKind::RateLimiter,
        }
    }

    /// The lowest RDB version that knows the layout. RESTORE only compares the
    /// version with its own and then goes by the type byte, so the lowest one
    /// is restorable on the widest range of servers.
    pub fn lowest_version(self) -> u16 {
        match self {
            Self::String
            | Self::List
            | Self::Set
            | Self::Zset
            | Self::Hash
            | Self::HashZipmap
            | Self::ListZiplist
            | Self::SetIntset
            | Self::ZsetZiplist
            | Self::HashZiplist => 6,
            Self::ListQuicklist => 7,
            Self::Zset2 | Self::Module2 => 8,
            Self::StreamListpacks => 9,
            Self::HashListpack
            | Self::ZsetListpack
            | Self::ListQuicklist2
            | Self::StreamListpacks2 => 10,
            Self::SetListpack | Self::StreamListpacks3 => 11,
            Self::HashMetadataPreGa
            | Self::HashListpackExPreGa
            | Self::HashMetadata
            | Self::HashListpackEx => 12,
            Self::StreamListpacks4 => 13,
            Self::StreamListpacks5 | Self::Array => 14,
            Self::HashTemplateListpack | Self::HashTemplateArray | Self::Gcra => 15,
            Self::HashValkey2 => 80,
        }
    }
}

/// A value as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawValue<'a> {
    /// Its layout.
    pub type_id: ValueType,
    /// Its bytes exactly as in the RDB, without the type byte.
    pub bytes: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(magic: Magic, number: u16) -> FileVersion {
        FileVersion::known(magic, number).unwrap()
    }

    #[test]
    fn byte_22_is_named_by_magic_and_version() {
        let valkey = version(Magic::Valkey, 80);
        let redis = version(Magic::Redis, 12);
        assert_eq!(ValueType::known(valkey, 22), Some(ValueType::HashValkey2));
        assert_eq!(
            ValueType::known(redis, 22),
            Some(ValueType::HashMetadataPreGa)
        );
        assert_eq!(ValueType::known(version(Magic::Redis, 11), 22), None);
        assert_eq!(ValueType::known(valkey, 24), None);
    }

    #[test]
    fn newer_types_are_unknown_before_their_version() {
        for (byte, first) in [
            (24, 12),
            (26, 13),
            (27, 14),
            (28, 14),
            (29, 15),
            (31, 15),
            (33, 15),
        ] {
            assert_eq!(
                ValueType::known(version(Magic::Redis, first - 1), byte),
                None
            );
            assert!(ValueType::known(version(Magic::Redis, first), byte).is_some());
            assert_eq!(ValueType::known(version(Magic::Valkey, 81), byte), None);
        }
        // References to templates are for the scanner, which replaces them.
        for byte in [30, 32, 64] {
            assert_eq!(ValueType::known(version(Magic::Redis, 15), byte), None);
        }
    }

    #[test]
    fn bytes_go_both_ways_and_the_stamp_knows_its_type() {
        for newest in [version(Magic::Redis, 15), version(Magic::Valkey, 80)] {
            for byte in 0..=255 {
                let Some(known) = ValueType::known(newest, byte) else {
                    continue;
                };
                assert_eq!(known.byte(), byte);
                let stamp = FileVersion::of_dump(known.lowest_version()).unwrap();
                assert_eq!(ValueType::known(stamp, byte), Some(known));
            }
        }
    }
}
