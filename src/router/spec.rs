//! A layout as it is written: in a pool's config, a LAYOUT file, a state file
//! or the admin API. `Layout::new` gives it its meaning and checks it.
//!
//! ```toml
//! hash = "fnv1a_64"
//! distribution = "ketama"
//! hash_tag = "{}"
//! route = [{ prefix = "bull:", shard = "s1" }]
//! [[shard]]
//! name = "s1"
//! addr = "127.0.0.1:7001"
//! weight = 1
//! ```
//!
//! Invariant: writing a spec and reading it back gives an equal spec, hence
//! the same placement of every key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::address::ShardAddress;
use super::hash::HashKind;
use super::tag::HashTag;

/// How hashes map to shards, by its config name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum DistributionKind {
    /// `ketama`: consistent hashing on a ring of MD5 points. The default.
    #[default]
    Ketama,
    /// `modula`: hash modulo the sum of weights.
    Modula,
    /// `random`: any shard, anew for each request.
    Random,
    /// `slots`: each slot of a slot hash is given to a shard.
    Slots,
}

/// A name that is no distribution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown distribution \"{given}\"; known are ketama, modula, random, slots")]
pub struct UnknownDistribution {
    /// What was written.
    pub given: String,
}

/// A whole layout as written. The order of shards has no meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutSpec {
    /// What is computed of a key.
    #[serde(default)]
    pub hash: HashKind,
    /// How that chooses a shard.
    #[serde(default)]
    pub distribution: DistributionKind,
    /// The part of the key that counts; `""` and absence mean the whole key.
    #[serde(
        default,
        deserialize_with = "tag_or_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub hash_tag: Option<HashTag>,
    /// Keys that have a shard whatever their hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<PrefixSpec>,
    /// The shards, key `shard`.
    #[serde(default, rename = "shard")]
    pub shards: Vec<ShardSpec>,
    /// Where keys are that have not moved here yet; no config says this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Box<EarlierSpec>>,
}

/// An earlier layout that still places a part of the keys: those of its shards
/// that are not named in `moved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierSpec {
    /// The earlier layout; it has none before itself.
    pub layout: LayoutSpec,
    /// Names of its shards whose keys are where the later layout has them.
    pub moved: Vec<String>,
}

/// A prefix rule as written: keys that begin so are on that shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixSpec {
    /// What the key begins with; of several that fit the longest counts.
    pub prefix: String,
    /// Name of the shard.
    pub shard: String,
}

/// One shard as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSpec {
    /// Ring identity; absent or `""` means what twemproxy makes of the address.
    #[serde(
        default,
        deserialize_with = "some_unless_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub name: Option<String>,
    /// `host:port` or `unix:/path`, kept verbatim: without a name the text itself is
    /// the ring identity, down to leading zeros of the port.
    pub addr: String,
    /// Share of the key space relative to the other shards, from 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Ranges such as `"0-8191,9000"`, with distribution `slots` only; `""` owns none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<String>,
}

impl ShardSpec {
    /// A shard of weight 1 without a name of its own.
    pub fn at(address: &ShardAddress) -> Self {
        Self {
            name: None,
            addr: address.to_string(),
            weight: 1,
            slots: None,
        }
    }

    /// The same under a name.
    pub fn named(name: &str, address: &ShardAddress) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::at(address)
        }
    }
}

impl DistributionKind {
    /// Every distribution.
    pub const ALL: [Self; 4] = [Self::Ketama, Self::Modula, Self::Random, Self::Slots];

    /// The config name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ketama => "ketama",
            Self::Modula => "modula",
            Self::Random => "random",
            Self::Slots => "slots",
        }
    }
}

impl fmt::Display for DistributionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DistributionKind {
    type Err = UnknownDistribution;

    fn from_str(text: &str) -> Result<Self, UnknownDistribution> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| UnknownDistribution {
            given: text.to_owned(),
        })
    }
}

impl TryFrom<String> for DistributionKind {
    type Error = UnknownDistribution;

    fn try_from(text: String) -> Result<Self, UnknownDistribution> {
        text.parse()
    }
}

impl From<DistributionKind> for &'static str {
    fn from(kind: DistributionKind) -> Self {
        kind.name()
    }
}

fn tag_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HashTag>, D::Error> {
    match some_unless_empty(deserializer)? {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn some_unless_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()))
}

const fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        hash = "crc16_slot"
        distribution = "slots"
        hash_tag = "{}"
        [[shard]]
        name = "s1"
        addr = "127.0.0.1:7001"
        slots = "0-8191"
        [[shard]]
        addr = "unix:/run/r.sock"
        weight = 1
        slots = "8192-16383"
    "#;

    #[test]
    fn toml_and_json_round_trip() {
        let spec: LayoutSpec = toml::from_str(TEXT).unwrap();
        assert_eq!(spec.hash, HashKind::Crc16Slot);
        assert_eq!(spec.shards[1].name, None);
        assert_eq!(spec.shards[0].weight, 1);
        assert_eq!(
            toml::from_str::<LayoutSpec>(&toml::to_string(&spec).unwrap()).unwrap(),
            spec
        );
        assert_eq!(
            serde_json::from_str::<LayoutSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(),
            spec
        );
    }

    #[test]
    fn defaults_are_twemproxys() {
        let spec: LayoutSpec =
            toml::from_str("hash_tag = ''\n[[shard]]\nname = ''\naddr = 'h:1'").unwrap();
        assert_eq!(
            (spec.hash, spec.distribution),
            (HashKind::Fnv1a64, DistributionKind::Ketama)
        );
        assert_eq!(spec.hash_tag, None);
        assert_eq!(spec.shards, [ShardSpec::at(&"h:1".parse().unwrap())]);
    }

    #[test]
    fn unknown_words_are_errors() {
        for text in [
            "hsah = 'md5'",
            "hash = 'md6'",
            "distribution = 'x'",
            "hash_tag = '{'",
            "[[shard]]\naddr='h:1'\nport=1",
        ] {
            assert!(toml::from_str::<LayoutSpec>(text).is_err(), "{text}");
        }
    }
}
