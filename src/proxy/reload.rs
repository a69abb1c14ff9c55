//! Applying a changed config to a running proxy. What did not change is not
//! touched: no client connection closes.

use std::sync::Arc;

use tracing::{info, warn};

use crate::router::epoch::{Epoch, Routing};
use crate::router::layout::Layout;
use crate::router::moves::{ESTIMATE_SAMPLES, Moves};

use super::config::PoolConfig;
use super::epochs::{EpochFileError, EpochRecord};
use super::orders::Order;
use super::pool::PoolHandle;
use super::process::{Proxy, StartError};
use super::switching::Switching;

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Pools that are new.
    pub opened: Vec<String>,
    /// Pools that are gone.
    pub closed: Vec<String>,
    /// Pools with some other setting than before.
    pub changed: Vec<String>,
    /// Pools with a new layout.
    pub switched: Vec<String>,
}

/// Why a reload was not applied, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A job's switch is pending on the pool.
    #[error(
        "pool {pool}: its layout can't be changed while a reshard is at its switch; finish or \
         cancel the job first"
    )]
    SwitchPending {
        /// The pool.
        pool: String,
    },
    /// A pool could not be opened or bound.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The new epoch could not be saved; the old layout stays.
    #[error("pool {pool}: {source}")]
    State {
        /// The pool.
        pool: String,
        /// What was wrong.
        source: EpochFileError,
    },
}

impl Proxy {
    /// Brings the pools to what the config says now.
    ///
    /// # Errors
    /// The first pool that can't be changed; pools handled before it are changed.
    pub async fn reload(&self, configs: Vec<PoolConfig>) -> Result<ReloadReport, ReloadError> {
        let mut report = ReloadReport::default();
        let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
        self.close_missing(&names, &mut report);
        for config in configs {
            let name = config.name.clone();
            let known = self.lock_pools().get(&name).map(|entry| entry.handle.clone());
            match known {
                Some(handle) => self.reconfigure(&handle, config, &mut report).await?,
                None => {
                    self.open_pool(config)?;
                    report.opened.push(name);
                }
            }
        }
        Ok(report)
    }

    fn close_missing(&self, names: &[String], report: &mut ReloadReport) {
        let mut pools = self.lock_pools();
        pools.retain(|name, entry| {
            let stays = names.contains(name);
            if !stays {
                let shared = &entry.handle.shared;
                for worker in shared.workers.iter() {
                    worker.send(Order::RemovePool { pool: shared.place });
                }
                info!(pool = name, "closing: it is no longer in the config");
                report.closed.push(name.clone());
            }
            stays
        });
    }

    async fn reconfigure(
        &self,
        handle: &PoolHandle,
        config: PoolConfig,
        report: &mut ReloadReport,
    ) -> Result<(), ReloadError> {
        let name = config.name.clone();
        let old = Arc::clone(&handle.shared.state.lock().await.config);
        if handle.relayout(&config).await? {
            report.switched.push(name.clone());
        }
        if *old == config {
            return Ok(());
        }
        let only_layout = PoolConfig { layout: old.layout.clone(), ..config.clone() } == *old;
        let listeners = if old.listen == config.listen {
            None
        } else {
            let kept: Vec<_> = config.listen.iter().filter(|at| old.listen.contains(at)).collect();
            if !kept.is_empty() {
                warn!(pool = name, "addresses that stay are kept only if none of the pool's changes: \
                       all of them are bound anew");
            }
            // The old sockets must go before the same address can be checked and bound.
            for worker in handle.shared.workers.iter() {
                let config = Arc::clone(&old);
                let listeners = Some(Vec::new());
                worker.send(Order::Configure { pool: handle.shared.place, config, listeners });
            }
            Some(self.bind_again(&name, &config).await?)
        };
        if !only_layout {
            report.changed.push(name.clone());
        }
        let config = Arc::new(config);
        handle.shared.state.lock().await.config = Arc::clone(&config);
        let mut sockets = listeners.map(Vec::into_iter);
        for worker in handle.shared.workers.iter() {
            let listeners = sockets.as_mut().and_then(Iterator::next);
            let config = Arc::clone(&config);
            worker.send(Order::Configure { pool: handle.shared.place, config, listeners });
        }
        Ok(())
    }
}
