//! Built-in shards inside the process that needs them: `addr = "store:/dir"`.
//!
//! A directory that another process serves (`keyferry store --dir`) is left to it: both
//! reach it by the socket in the directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::config::StoresConfig;
use crate::proxy::config::PoolConfig;
use crate::router::address::ShardAddress;
use crate::store::commands::Settings;
use crate::store::oplog::LogError;
use crate::store::server::{self, Running, StartError, StoreOptions};

use super::store::serve::own_socket;

/// A built-in shard could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the built-in shard in {} does not start: {cause}", dir.display())]
pub struct StoresError {
    dir: PathBuf,
    cause: StartError,
}

/// The shards that run in this process.
#[derive(Debug, Default)]
pub struct Stores {
    running: BTreeMap<PathBuf, Running>,
}

impl Stores {
    /// Starts what pools name and does not run yet. What no pool names any more goes on:
    /// somebody may still want what is in it.
    ///
    /// # Errors
    /// One does not start; those before it run.
    pub fn start_for(
        &mut self,
        pools: &[PoolConfig],
        config: &StoresConfig,
    ) -> Result<(), StoresError> {
        let shards = pools.iter().flat_map(|pool| &pool.layout.shards);
        for shard in shards {
            if let Ok(ShardAddress::Store(dir)) = shard.addr.parse() {
                self.start(&dir, config)?;
            }
        }
        Ok(())
    }

    /// Starts the one in a directory, if it does not run.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, dir: &Path, config: &StoresConfig) -> Result<(), StoresError> {
        if self
            .running
            .get(dir)
            .is_some_and(|running| !running.has_ended())
        {
            return Ok(());
        }
        let options = StoreOptions {
            dir: dir.to_owned(),
            listen: vec![own_socket(dir)],
            durability: config.durability,
            memory_bytes: config.memory_bytes,
            backlog_bytes: config.backlog_bytes,
            password: None,
            settings: Settings::default(),
            replicaof: None,
        };
        match server::start(&options) {
            Ok(running) => {
                info!(dir = %dir.display(), "a built-in shard runs");
                self.running.insert(dir.to_owned(), running);
                Ok(())
            }
            Err(StartError::Log(LogError::InUse { .. })) => {
                warn!(dir = %dir.display(), "another process serves this built-in shard");
                Ok(())
            }
            Err(cause) => Err(StoresError {
                dir: dir.to_owned(),
                cause,
            }),
        }
    }

    /// Ends all; what they have is on disk then.
    pub fn stop(self) {
        for (dir, running) in self.running {
            if let Err(error) = running.stop() {
                tracing::error!(dir = %dir.display(), %error, "a built-in shard ended badly");
            }
        }
    }
}
