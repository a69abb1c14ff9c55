//! Who a server is, from the text of INFO.
//!
//! ```text
//! Redis      redis_version:7.0.15
//! Valkey     redis_version:7.2.4   server_name:valkey   valkey_version:8.1.1
//! KeyDB      redis_version:6.3.4   mvcc_depth:0  (section KeyDB)
//! Dragonfly  redis_version:7.4.0   dragonfly_version:df-v1.30.0
//! Kvrocks    redis_version:7.0.0   kvrocks_version:2.12.0
//! Pika       redis_version:3.2.7   pika_version:3.5.5
//! ```
//!
//! `redis_version` of all but Redis only says what their clients may expect.

use std::fmt;

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// KeyDB.
    KeyDb,
    /// Dragonfly.
    Dragonfly,
    /// Apache Kvrocks.
    Kvrocks,
    /// Pika.
    Pika,
    /// None of these; it is taken by the `redis_version` it states.
    Other,
}

/// A version of a vendor's own count, such as 7.0.15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl ServerVersion {
    /// Reads `8.1.2`, `df-v1.30.0`, `2.12.0-rc1` and the like; numbers that
    /// are missing are 0. `None` without a leading number.
    pub fn parse(text: &str) -> Option<ServerVersion> {
        let digits = text.find(|c: char| c.is_ascii_digit())?;
        let mut numbers = text.get(digits..)?.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit());
            part.get(..end.unwrap_or(part.len()))?.parse::<u32>().ok()
        });
        Some(ServerVersion {
            major: numbers.next()??,
            minor: numbers.next().flatten().unwrap_or(0),
            patch: numbers.next().flatten().unwrap_or(0),
        })
    }

    /// At least this `major.minor`.
    pub fn since(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Which use of keys a server keeps account of, by its `maxmemory-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UsageKept {
    /// None that matters to what it evicts.
    #[default]
    Neither,
    /// How long ago a key was used (LRU policies).
    Idle,
    /// How often it is used (LFU policies).
    Frequency,
}

/// A server as INFO shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// Whose it is.
    pub vendor: Vendor,
    /// Its version by its vendor's count.
    pub version: ServerVersion,
    /// What its `maxmemory-policy` keeps account of.
    pub usage_kept: UsageKept,
}

/// Fields that only one vendor's INFO has, and whether the field is its version.
const MARKS: [(&str, Vendor, bool); 8] = [
    ("valkey_version", Vendor::Valkey, true),
    ("dragonfly_version", Vendor::Dragonfly, true),
    ("kvrocks_version", Vendor::Kvrocks, true),
    ("pika_version", Vendor::Pika, true),
    ("keydb_version", Vendor::KeyDb, true),
    ("mvcc_depth", Vendor::KeyDb, false),
    // KeyDB and Valkey have it, too: last, after their own marks.
    ("redis_build_id", Vendor::Redis, false),
    ("redis_version", Vendor::Other, false),
];

impl ServerIdentity {
    /// Reads the reply of INFO. `None` if it states no version at all: the
    /// server is unknown, and asking a user is better than guessing.
    pub fn of_info(info: &str) -> Option<ServerIdentity> {
        let (vendor, own) = MARKS.iter().find_map(|(name, vendor, versioned)| {
            let text = field(info, name)?;
            Some((*vendor, if *versioned { text } else { "" }))
        })?;
        let stated = || field(info, "redis_version").and_then(ServerVersion::parse);
        let version = ServerVersion::parse(own).or_else(stated)?;
        let policy = field(info, "maxmemory_policy").unwrap_or_default();
        let usage_kept = if policy.ends_with("-lru") {
            UsageKept::Idle
        } else if policy.ends_with("-lfu") {
            UsageKept::Frequency
        } else {
            UsageKept::Neither
        };
        Some(ServerIdentity {
            vendor,
            version,
            usage_kept,
        })
    }
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.vendor {
            Vendor::Redis => "Redis",
            Vendor::Valkey => "Valkey",
            Vendor::KeyDb => "KeyDB",
            Vendor::Dragonfly => "Dragonfly",
            Vendor::Kvrocks => "Kvrocks",
            Vendor::Pika => "Pika",
            Vendor::Other => "a server like Redis",
        };
        write!(f, "{name} {}", self.version)
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(info: &str) -> Option<(Vendor, String)> {
        let found = ServerIdentity::of_info(info)?;
        Some((found.vendor, found.version.to_string()))
    }

    #[test]
    fn every_vendor_is_known_by_its_own_fields() {
        for (info, vendor, version) in [
            (
                "# Server\r\nredis_version:7.0.15\r\nredis_build_id:ae4d\r\n",
                Vendor::Redis,
                "7.0.15",
            ),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nredis_build_id:1\r\n",
                Vendor::Valkey,
                "8.1.1",
            ),
            (
                "redis_version:6.3.4\r\nredis_build_id:1\r\n# KeyDB\r\nmvcc_depth:0\r\n",
                Vendor::KeyDb,
                "6.3.4",
            ),
            (
                "redis_version:7.4.0\r\ndragonfly_version:df-v1.30.1\r\n",
                Vendor::Dragonfly,
                "1.30.1",
            ),
            (
                "version:2.12.0\r\nkvrocks_version:2.12.0\r\nredis_version:7.0.0\r\n",
                Vendor::Kvrocks,
                "2.12.0",
            ),
            (
                "# Server\npika_version:3.5.5\nredis_version:3.2.7\n",
                Vendor::Pika,
                "3.5.5",
            ),
            ("redis_version:6.2.1\r\n", Vendor::Other, "6.2.1"),
        ] {
            assert_eq!(identity(info), Some((vendor, version.to_owned())), "{info}");
        }
        assert_eq!(identity("role:master\r\n"), None);
        // A build without a number still says what its clients may expect.
        assert_eq!(
            identity("kvrocks_version:unstable\r\nredis_version:7.0.0\r\n"),
            Some((Vendor::Kvrocks, "7.0.0".to_owned()))
        );
    }

    #[test]
    fn versions_of_every_spelling() {
        for (text, version) in [
            ("8.10.0", "8.10.0"),
            ("255.255.255", "255.255.255"),
            ("df-v1.2.3", "1.2.3"),
            ("2.6.17-rc1", "2.6.17"),
            ("7", "7.0.0"),
            ("7.x", "7.0.0"),
        ] {
            assert_eq!(ServerVersion::parse(text).unwrap().to_string(), version);
        }
        assert_eq!(ServerVersion::parse("unstable"), None);
        assert_eq!(ServerVersion::parse("99999999999.1"), None);
        assert!(ServerVersion::parse("8.10.0").unwrap().since(8, 6));
    }

    #[test]
    fn the_policy_says_what_use_is_kept() {
        for (policy, kept) in [
            ("noeviction", UsageKept::Neither),
            ("volatile-ttl", UsageKept::Neither),
            ("allkeys-lru", UsageKept::Idle),
            ("volatile-lfu", UsageKept::Frequency),
        ] {
            let info = format!("redis_version:7.0.0\r\nmaxmemory_policy:{policy}\r\n");
            assert_eq!(ServerIdentity::of_info(&info).unwrap().usage_kept, kept);
        }
    }
}
