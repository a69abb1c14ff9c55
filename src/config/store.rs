//! `[store]`: the built-in shard.

use std::path::PathBuf;

use crate::reuseport::address::ListenAddress;
use crate::store::server::{Durability, MEMORY_BYTES_MIN, MasterAddress};
use crate::upstream::config::Secret;

use super::document::Section;
use super::layout::one_of;
use super::process::{LogConfig, log};
use super::secret::{Environment, resolve};

/// Least and most memory of a shard; the most is more than machines have.
const MEMORY_BYTES: (usize, usize) = (MEMORY_BYTES_MIN as usize, 1 << 44);
/// Memory when nothing is said.
pub const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;
/// What is kept for replicas when nothing is said.
pub const BACKLOG_BYTES_DEFAULT: u64 = 64 << 20;
/// Least and most of the stream that is kept for replicas.
const BACKLOG_BYTES: (usize, usize) = (16 * 1024, 1 << 44);

/// How the built-in shards of a proxy run: `[store]` beside `[pool]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoresConfig {
    /// When writes survive a power loss.
    pub durability: Durability,
    /// Memory of each, in bytes.
    pub memory_bytes: u64,
    /// How much of its stream each keeps for replicas, in bytes.
    pub backlog_bytes: u64,
}

impl Default for StoresConfig {
    fn default() -> Self {
        Self {
            durability: Durability::EverySecond,
            memory_bytes: MEMORY_BYTES_DEFAULT,
            backlog_bytes: BACKLOG_BYTES_DEFAULT,
        }
    }
}

impl StoresConfig {
    /// In as little memory as they run well in.
    pub fn small() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES_MIN,
            ..Self::default()
        }
    }
}

/// What a config says of a built-in shard; what is not written is left to flags and
/// defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreConfig {
    /// Where its files are.
    pub dir: Option<PathBuf>,
    /// Where clients connect.
    pub listen: Option<ListenAddress>,
    /// When writes survive a power loss.
    pub durability: Option<Durability>,
    /// Memory for all it keeps there, in bytes.
    pub memory_bytes: Option<u64>,
    /// How much of its stream it keeps for replicas, in bytes.
    pub backlog_bytes: Option<u64>,
    /// What clients must say first.
    pub password: Option<Secret>,
    /// Whom it follows, until REPLICAOF says otherwise.
    pub replicaof: Option<MasterAddress>,
    /// Its log for people.
    pub log: LogConfig,
}

/// Reads `[store]` of a proxy's config.
pub(super) fn stores(section: Option<&Section<'_, '_>>) -> StoresConfig {
    let default = StoresConfig::default();
    let Some(section) = section else {
        return default;
    };
    let durability = durability(section);
    let memory = size(section, "memory", MEMORY_BYTES);
    let backlog = size(section, "backlog", BACKLOG_BYTES);
    section.close();
    StoresConfig {
        durability: durability.unwrap_or(default.durability),
        memory_bytes: memory.unwrap_or(default.memory_bytes),
        backlog_bytes: backlog.unwrap_or(default.backlog_bytes),
    }
}

fn durability(section: &Section<'_, '_>) -> Option<Durability> {
    section.take("durability").and_then(|item| {
        Durability::parse(one_of(&item, "durability", &["always", "everysec", "no"])?)
    })
}

fn size(section: &Section<'_, '_>, key: &'static str, range: (usize, usize)) -> Option<u64> {
    let size = section
        .take(key)
        .and_then(|item| item.size(range.0, range.1));
    size.map(|size| size as u64)
}

/// Reads the root of a store's config.
pub(super) fn store(root: &Section<'_, '_>, environment: Environment<'_>) -> StoreConfig {
    let log = log(root.section("log").as_ref());
    let Some(section) = root.section("store") else {
        root.problem("there is no store", "write [store] with `dir` and `listen`");
        return StoreConfig::default();
    };
    let dir = section.take("dir").and_then(|item| item.text());
    let listen = section.take("listen").and_then(|item| {
        let parsed = item.text()?.parse::<ListenAddress>();
        parsed
            .map_err(|error| {
                item.problem(error.to_string(), "write \"IP:PORT\" or \"unix:/path\"");
            })
            .ok()
    });
    let durability = durability(&section);
    let memory_bytes = size(&section, "memory", MEMORY_BYTES);
    let backlog_bytes = size(&section, "backlog", BACKLOG_BYTES);
    let written = section.take("password");
    let password = written
        .and_then(|item| resolve(&item, environment))
        .map(Secret::new);
    let replicaof = section.take("replicaof").and_then(|item| {
        let parsed = MasterAddress::parse(item.text()?);
        if parsed.is_none() {
            item.problem("it is no address", "write \"HOST:PORT\"");
        }
        parsed
    });
    section.close();
    StoreConfig {
        dir: dir.map(PathBuf::from),
        listen,
        durability,
        memory_bytes,
        backlog_bytes,
        password,
        replicaof,
        log,
    }
}
