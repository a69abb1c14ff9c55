//! The fence on the old shards: from the marker on they themselves refuse what
//! the old epoch's logins send, whatever a proxy believes. Pure.
//!
//! ```text
//! level         needs                                  at the switch
//! acl           Redis 6 or later, and our user may     one transaction with the marker takes the
//!               ACL LIST, GETUSER, SETUSER, DELUSER    epoch's user its rights: no proxy is needed
//! min-replicas  CONFIG SET, and only servers that      the same with min-replicas-to-write: keeps
//!               leave the layout                       writers off, not readers; all proxies answer
//! proxies-only  nothing                                all proxies hold; who goes round them is not kept off
//! ```
//! A job has the lowest level of its sources.
//!
//! The epoch's user, `keyferry-POOL-eEPOCH`, may what the user of the pool's
//! config may ([`Rules`]) and read our own keys. It is never saved by us: a
//! server that restarts does not know it and so refuses it (fail-closed), until
//! the job makes it anew, with the rights that it is to have at that moment.
//!
//! Invariant: nothing here prints a password or its hash.

pub mod min_replicas;
mod rules;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::upstream::config::Secret;

pub use rules::{Rules, RulesError};

/// What keeps writers of the old epoch off a source.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub enum FenceLevel {
    /// The proxies, as long as all of them do what they are told.
    #[default]
    ProxiesOnly,
    /// The server refuses writes of everybody.
    MinReplicas,
    /// The server refuses the old epoch's logins.
    Acl,
}

impl fmt::Display for FenceLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProxiesOnly => "proxies-only",
            Self::MinReplicas => "min-replicas",
            Self::Acl => "acl",
        })
    }
}

/// `--fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FenceChoice {
    /// The best that the servers and the proxies allow.
    #[default]
    Auto,
    /// Nothing less than ACL.
    Acl,
    /// No fence on the servers.
    Proxies,
}

impl fmt::Display for FenceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Acl => "acl",
            Self::Proxies => "proxies",
        })
    }
}

/// A word that is no choice of a fence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown fence `{0}`: use auto, acl or proxies")]
pub struct UnknownFence(String);

impl FromStr for FenceChoice {
    type Err = UnknownFence;

    fn from_str(word: &str) -> Result<Self, UnknownFence> {
        match word {
            "auto" => Ok(Self::Auto),
            "acl" => Ok(Self::Acl),
            "proxies" => Ok(Self::Proxies),
            other => Err(UnknownFence(other.to_owned())),
        }
    }
}

/// As whom proxies log in during one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochUser {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Secret,
}

/// What an epoch's user may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// What the pool's user may.
    Open,
    /// Read our keys, nothing else.
    Fenced,
}

/// The name of an epoch's user. ACL names bear no blanks.
pub fn user_name(pool: &str, epoch: u64) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let pool: String = pool.chars().map(plain).collect();
    format!("keyferry-{pool}-e{epoch}")
}

/// What the fence key holds (`router::route_record`).
pub fn fence_value(job: &str, epoch: u64) -> String {
    format!("{job} {epoch}")
}

/// One request in words.
pub type Words = Vec<Vec<u8>>;

/// A request of texts.
pub fn words(texts: &[&str]) -> Words {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_reads_back_what_it_prints() {
        for choice in [FenceChoice::Auto, FenceChoice::Acl, FenceChoice::Proxies] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("none".parse::<FenceChoice>().is_err());
    }

    #[test]
    fn the_ladder_is_ordered() {
        assert!(FenceLevel::Acl > FenceLevel::MinReplicas);
        assert!(FenceLevel::MinReplicas > FenceLevel::ProxiesOnly);
    }

    #[test]
    fn a_pool_with_blanks_makes_a_name_without() {
        assert_eq!(user_name("my pool", 3), "keyferry-my_pool-e3");
    }
}
