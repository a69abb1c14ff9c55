//! What a server takes: layouts that its RESTORE reads, and commands it has.
//!
//! | server            | footer | layouts                         | since that version            |
//! |-------------------|--------|---------------------------------|-------------------------------|
//! | Redis 2.6 - 3.0   | 6      | 0-4 9-13                        | RESTORE; 3.0 REPLACE          |
//! | Redis 3.2         | 7      | 14                              |                               |
//! | Redis 4.0         | 8      | 5 7                             | UNLINK                        |
//! | Redis 5.0 - 6.2   | 9      | 15                              | ABSTTL IDLETIME FREQ, streams;|
//! |                   |        |                                 | 6.2 XGROUP CREATECONSUMER     |
//! | Redis 7.0         | 10     | 16-19                           | XSETID and XGROUP counters    |
//! | Redis 7.2         | 11     | 20 21                           |                               |
//! | Redis 7.4 - 8.4   | 12     | 22R-25                          | HPEXPIREAT                    |
//! | Redis 8.6         | 13     | 26, KEY_META                    | XCFGSET, XIDMPRECORD          |
//! | Redis 8.8         | 14     | 27 28                           | arrays, XNACK                 |
//! | Redis 8.10        | 15     | 29 31                           |                               |
//! | Valkey 7.2, 8.x   | 11     | as Redis 7.2                    |                               |
//! | Valkey 9.0 -      | 80     | as Redis 7.2, and 22V           | HPEXPIREAT                    |
//! | KeyDB 5 - 6.3     | 9      | as Redis 6.2                    |                               |
//! | Dragonfly         | 11     | as Redis 7.2, no modules        |                               |
//! | Kvrocks           | 11     | as Redis 7.2, no streams, no 7  |                               |
//! | Pika              | none   | all by commands                 |                               |
//!
//! Sources: `rdb.h`, `rdb.c`, `cluster.c` (RESTORE) and the command tables of
//! Redis 2.6 to 8.10 and Valkey 7.2 to 9.1; `rdb_load.cc` of Dragonfly and
//! `rdb.cc` of Kvrocks. Footers are always the lowest that knows the layout,
//! so a server that takes more than the table says is served all the same.

use crate::rdb::{ValueKind, ValueType};

use super::identity::{ServerIdentity, UsageKept, Vendor};

/// How a server is told that a field of a hash expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiry {
    /// It has no such thing.
    None,
    /// `HPEXPIREAT key ms FIELDS n field..`
    Hpexpireat,
}

/// What one server takes. Made once, asked for every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    identity: ServerIdentity,
    /// The version of Redis whose commands it has: major and minor.
    level: (u32, u32),
    /// Highest footer of a layout it restores; `None`: no RESTORE at all.
    restores_up_to: Option<u16>,
    /// RESTORE takes REPLACE.
    pub(super) replace: bool,
    /// RESTORE takes ABSTTL, IDLETIME and FREQ.
    pub(super) absttl: bool,
    /// RESTORE takes KEY_META before the type.
    pub(super) metadata: bool,
    pub(super) field_expiry: FieldExpiry,
    pub(super) streams: bool,
    /// XSETID .. ENTRIESADDED and XGROUP CREATE .. ENTRIESREAD.
    pub(super) stream_counters: bool,
    pub(super) create_consumer: bool,
    /// XCFGSET and XIDMPRECORD.
    pub(super) stream_producers: bool,
    /// XNACK.
    pub(super) stream_nacks: bool,
    pub(super) arrays: bool,
    pub(super) unlink: bool,
    functions: bool,
}

/// Footer versions by Redis version, newest first.
const REDIS_FOOTERS: [(u32, u32, u16); 10] = [
    (8, 10, 15),
    (8, 8, 14),
    (8, 6, 13),
    (7, 4, 12),
    (7, 2, 11),
    (7, 0, 10),
    (5, 0, 9),
    (4, 0, 8),
    (3, 2, 7),
    (2, 6, 6),
];
/// Layouts under this footer mean the same to all vendors.
const SHARED_FOOTER_MAX: u16 = 11;
const VALKEY_FOOTER: u16 = 80;
/// First footer that may have KEY_META before the type.
pub(super) const METADATA_FOOTER: u16 = 13;

impl Dialect {
    /// What this server takes.
    pub fn of(identity: &ServerIdentity) -> Dialect {
        let version = identity.version;
        // The Redis version whose commands it has.
        let (major, minor) = match identity.vendor {
            Vendor::Redis | Vendor::Other => (version.major, version.minor),
            Vendor::Valkey | Vendor::Dragonfly | Vendor::Kvrocks => (7, 2),
            Vendor::KeyDb => (6, 2),
            Vendor::Pika => (5, 0),
        };
        let since = |since_major, since_minor| (major, minor) >= (since_major, since_minor);
        let footer = REDIS_FOOTERS
            .iter()
            .find(|(since_major, since_minor, _)| since(*since_major, *since_minor))
            .map(|(_, _, footer)| *footer);
        let valkey_9 = identity.vendor == Vendor::Valkey && version.since(9, 0);
        let restores_up_to = match identity.vendor {
            Vendor::Pika => None,
            _ if valkey_9 => Some(VALKEY_FOOTER),
            _ => footer,
        };
        let expires_fields = valkey_9 || since(7, 4);
        Dialect {
            identity: *identity,
            level: (major, minor),
            restores_up_to,
            replace: since(3, 0),
            absttl: since(5, 0),
            metadata: footer.is_some_and(|footer| footer >= METADATA_FOOTER),
            field_expiry: if expires_fields {
                FieldExpiry::Hpexpireat
            } else {
                FieldExpiry::None
            },
            streams: since(5, 0),
            // Kvrocks and Dragonfly have the commands of 7.0 in this.
            stream_counters: since(7, 0),
            create_consumer: since(6, 2),
            stream_producers: since(8, 6),
            stream_nacks: since(8, 8),
            arrays: since(8, 8),
            unlink: since(4, 0) && identity.vendor != Vendor::Pika,
            functions: since(7, 0) && identity.vendor != Vendor::Kvrocks,
        }
    }

    /// Whose server this is about.
    pub fn identity(&self) -> &ServerIdentity {
        &self.identity
    }

    /// Whether it has the commands of this version of Redis.
    pub fn speaks(&self, major: u32, minor: u32) -> bool {
        self.level >= (major, minor)
    }

    /// Whether it frees large values in the background (UNLINK).
    pub fn removes_in_background(&self) -> bool {
        self.unlink
    }

    /// Whether all that a server of `other` streams is understood here.
    pub fn understands(&self, other: &Dialect) -> bool {
        let fields =
            self.field_expiry == other.field_expiry || other.field_expiry == FieldExpiry::None;
        let same = self.identity.vendor == other.identity.vendor;
        fields && self.level >= other.level && (same || other.level <= (7, 2))
    }

    /// Whether RESTORE reads this layout.
    pub fn restores(&self, type_id: ValueType) -> bool {
        let Some(highest) = self.restores_up_to else {
            return false;
        };
        let footer = type_id.lowest_version();
        let known = match highest {
            VALKEY_FOOTER => footer <= SHARED_FOOTER_MAX || footer == VALKEY_FOOTER,
            highest => footer <= highest,
        };
        let refused = matches!(
            (self.identity.vendor, type_id.kind()),
            (Vendor::Dragonfly, ValueKind::Module)
                | (Vendor::Kvrocks, ValueKind::Module | ValueKind::Stream)
        );
        known && !refused
    }

    /// The layout to RESTORE a value of `type_id` in; itself if possible.
    /// `None`: no layout of it is known there.
    pub fn layout_for(&self, type_id: ValueType) -> Option<ValueType> {
        if self.restores(type_id) {
            return Some(type_id);
        }
        let stand_ins = crate::rdb::stand_ins(type_id).iter().copied();
        stand_ins.into_iter().find(|to| self.restores(*to))
    }

    /// Whether it has FUNCTION LOAD, for libraries of a snapshot.
    pub fn has_functions(&self) -> bool {
        self.functions
    }

    /// How a field's expiry is set there.
    pub fn field_expiry(&self) -> FieldExpiry {
        self.field_expiry
    }

    /// What use of keys RESTORE may set and the server keeps.
    pub fn usage_kept(&self) -> UsageKept {
        if self.absttl {
            self.identity.usage_kept
        } else {
            UsageKept::Neither
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::ServerVersion;
    use super::*;

    pub(in super::super) fn dialect(vendor: Vendor, version: &str) -> Dialect {
        Dialect::of(&ServerIdentity {
            vendor,
            version: ServerVersion::parse(version).unwrap(),
            usage_kept: UsageKept::Neither,
        })
    }

    #[test]
    fn each_layout_is_brought_to_what_the_server_reads() {
        use ValueType as T;
        for (vendor, version, from, to) in [
            (
                Vendor::Redis,
                "7.0.15",
                T::StreamListpacks3,
                Some(T::StreamListpacks2),
            ),
            (
                Vendor::Redis,
                "6.2.14",
                T::StreamListpacks3,
                Some(T::StreamListpacks),
            ),
            (Vendor::Redis, "4.0.14", T::StreamListpacks, None),
            (
                Vendor::Redis,
                "8.8.0",
                T::StreamListpacks5,
                Some(T::StreamListpacks5),
            ),
            (
                Vendor::Redis,
                "8.6.1",
                T::StreamListpacks5,
                Some(T::StreamListpacks4),
            ),
            (
                Vendor::Redis,
                "8.4.0",
                T::StreamListpacks5,
                Some(T::StreamListpacks3),
            ),
            (
                Vendor::Valkey,
                "9.1.0",
                T::StreamListpacks5,
                Some(T::StreamListpacks3),
            ),
            (Vendor::Redis, "8.8.0", T::HashTemplateArray, Some(T::Hash)),
            (
                Vendor::Redis,
                "8.10.0",
                T::HashTemplateListpack,
                Some(T::HashTemplateListpack),
            ),
            (Vendor::Redis, "8.6.0", T::Array, None),
            (Vendor::Redis, "7.0.15", T::SetListpack, Some(T::Set)),
            (Vendor::Redis, "7.2.0", T::SetListpack, Some(T::SetListpack)),
            (Vendor::Redis, "6.0.16", T::ListQuicklist2, Some(T::List)),
            (Vendor::Redis, "6.0.16", T::ZsetListpack, Some(T::Zset2)),
            (Vendor::Redis, "3.2.0", T::ZsetListpack, Some(T::Zset)),
            (Vendor::Redis, "3.0.0", T::ListQuicklist, Some(T::List)),
            (Vendor::Redis, "6.0.16", T::HashListpack, Some(T::Hash)),
            (
                Vendor::Redis,
                "8.0.2",
                T::HashMetadata,
                Some(T::HashMetadata),
            ),
            (
                Vendor::Redis,
                "8.0.2",
                T::HashValkey2,
                Some(T::HashMetadata),
            ),
            (
                Vendor::Valkey,
                "9.1.2",
                T::HashListpackEx,
                Some(T::HashValkey2),
            ),
            (
                Vendor::Valkey,
                "9.1.2",
                T::HashValkey2,
                Some(T::HashValkey2),
            ),
            (Vendor::Valkey, "8.1.1", T::HashListpackEx, Some(T::Hash)),
            (Vendor::Valkey, "8.1.1", T::HashMetadataPreGa, Some(T::Hash)),
            (
                Vendor::Valkey,
                "8.1.1",
                T::StreamListpacks3,
                Some(T::StreamListpacks3),
            ),
            (Vendor::KeyDb, "6.3.4", T::HashListpack, Some(T::Hash)),
            (Vendor::Kvrocks, "2.12.0", T::StreamListpacks, None),
            (Vendor::Dragonfly, "1.30.0", T::Module2, None),
            (Vendor::Pika, "3.5.5", T::String, None),
            (Vendor::Redis, "2.4.0", T::String, None),
        ] {
            let found = dialect(vendor, version).layout_for(from);
            assert_eq!(found, to, "{vendor:?} {version} {from:?}");
        }
    }

    #[test]
    fn options_and_commands_come_with_their_versions() {
        let old = dialect(Vendor::Redis, "4.0.14");
        assert!(old.replace && !old.absttl && !old.streams);
        let six = dialect(Vendor::Redis, "6.0.16");
        assert!(six.absttl && six.streams && !six.create_consumer && !six.stream_counters);
        let valkey = dialect(Vendor::Valkey, "9.0.0");
        assert_eq!(valkey.field_expiry(), FieldExpiry::Hpexpireat);
        assert!(valkey.has_functions() && !valkey.metadata);
        assert_eq!(
            dialect(Vendor::Valkey, "8.1.0").field_expiry(),
            FieldExpiry::None
        );
        assert!(dialect(Vendor::Redis, "8.6.0").metadata);
        assert!(dialect(Vendor::Redis, "255.255.255").metadata);
    }
}
