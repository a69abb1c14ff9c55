//! `[store]`: the built-in shard.

use std::path::PathBuf;

use crate::reuseport::address::ListenAddress;
use crate::store::server::{Durability, MEMORY_BYTES_MIN};
use crate::upstream::config::Secret;

use super::document::Section;
use super::layout::one_of;
use super::process::{LogConfig, log};
use super::secret::{Environment, resolve};

/// Most memory that may be given to a shard: more than machines have.
const MEMORY_BYTES_MAX: usize = 1 << 44;
/// Least and most of the stream that is kept for replicas.
const BACKLOG_BYTES: (usize, usize) = (16 * 1024, 1 << 44);

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
    /// Its log for people.
    pub log: LogConfig,
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
    let durability = section.take("durability").and_then(|item| {
        Durability::parse(one_of(&item, "durability", &["always", "everysec", "no"])?)
    });
    let size = |key: &'static str, min, max| {
        let size = section.take(key).and_then(|item| item.size(min, max));
        size.map(|size| size as u64)
    };
    let memory_bytes = size("memory", MEMORY_BYTES_MIN as usize, MEMORY_BYTES_MAX);
    let backlog_bytes = size("backlog", BACKLOG_BYTES.0, BACKLOG_BYTES.1);
    let written = section.take("password");
    let password = written
        .and_then(|item| resolve(&item, environment))
        .map(Secret::new);
    section.close();
    StoreConfig {
        dir: dir.map(PathBuf::from),
        listen,
        durability,
        memory_bytes,
        backlog_bytes,
        password,
        log,
    }
}
