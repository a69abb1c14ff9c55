//! Applying a changed config to a running proxy. What did not change is not
//! touched: no client connection closes.

use std::sync::Arc;

use tracing::{info, warn};

use crate::reuseport::address::ListenAddress;
use crate::router::epoch::{Epoch, Routing};
use crate::router::layout::Layout;
use crate::router::moves::{ESTIMATE_SAMPLES, Moves};

use super::config::PoolConfig;
use super::epochs::EpochFileError;
use super::orders::Order;
use super::pool::PoolHandle;
use super::process::{Proxy, Sockets, StartError};

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
    /// A job works on the pool, or its switch is not decided.
    #[error(
        "pool {pool}: its layout can't be changed while job {job} works on it; finish or cancel \
         the job first"
    )]
    JobRuns {
        /// The pool.
        pool: String,
        /// The job.
        job: String,
    },
    /// The pool moves shard after shard and is between two steps.
    #[error(
        "pool {pool}: its layout can't be changed while its keys are on the way from one layout to \
         another; go on with `keyferry reshard start --step shard`, or go back with a job that has \
         the old layout as --to"
    )]
    OnTheWay {
        /// The pool.
        pool: String,
    },
    /// A pool would speak something else.
    #[error(
        "pool {pool}: its protocol can't change from {from} to {to} while it runs; give the pool \
         another name, or restart"
    )]
    Protocol {
        /// The pool.
        pool: String,
        /// What it speaks.
        from: &'static str,
        /// What the config says now.
        to: &'static str,
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
    /// Brings the pools to what the config says now. Whatever can be refused is
    /// looked at first: new addresses are bound and layouts checked before
    /// anything changes.
    ///
    /// # Errors
    /// The first pool that can't be changed. Only a disk or a state file that
    /// fails then can leave a part of the pools changed.
    pub async fn reload(&self, configs: Vec<PoolConfig>) -> Result<ReloadReport, ReloadError> {
        let mut report = ReloadReport::default();
        let own: Vec<ListenAddress> = self.addresses().into_iter().map(|(_, at)| at).collect();
        let mut changes = Vec::with_capacity(configs.len());
        for config in configs {
            let known = self.handle(&config.name);
            let before = match &known {
                Some(handle) => {
                    handle.check_protocol(&config).await?;
                    handle.check_relayout(&config).await?;
                    handle.shared.state.lock().await.config.listen.clone()
                }
                None => Vec::new(),
            };
            let come: Vec<ListenAddress> = config
                .listen
                .iter()
                .filter(|at| !before.contains(at))
                .cloned()
                .collect();
            let sockets = self.bind(&config, &come, &own)?;
            changes.push((config, known, come, sockets));
        }
        let names: Vec<String> = changes.iter().map(|change| change.0.name.clone()).collect();
        self.close_missing(&names, &mut report);
        for (config, known, come, sockets) in changes {
            match known {
                Some(handle) => {
                    self.reconfigure(&handle, config, (come, sockets), &mut report)
                        .await?;
                }
                None => {
                    report.opened.push(config.name.clone());
                    self.open_pool(config, sockets)?;
                }
            }
        }
        Ok(report)
    }

    fn handle(&self, name: &str) -> Option<PoolHandle> {
        self.lock_pools()
            .get(name)
            .map(|entry| entry.handle.clone())
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
        (come, sockets): (Vec<ListenAddress>, Sockets),
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
        if (PoolConfig {
            layout: old.layout.clone(),
            ..config.clone()
        }) != *old
        {
            report.changed.push(name.clone());
        }
        let leave: Vec<ListenAddress> = old
            .listen
            .iter()
            .filter(|at| !config.listen.contains(at))
            .cloned()
            .collect();
        if let Some(entry) = self.lock_pools().get_mut(&name) {
            entry.listen.retain(|(at, _)| !leave.contains(at));
            entry.listen.extend(come.into_iter().zip(sockets.bound));
        }
        let config = Arc::new(config);
        handle.shared.state.lock().await.config = Arc::clone(&config);
        handle.follow_eject_config().await;
        for (worker, listen) in handle.shared.workers.iter().zip(sockets.of_workers) {
            worker.send(Order::Configure {
                pool: handle.shared.place,
                config: Arc::clone(&config),
                listen,
                leave: leave.clone(),
            });
        }
        Ok(())
    }
}

impl PoolHandle {
    /// Its clients are in the middle of what they say.
    async fn check_protocol(&self, config: &PoolConfig) -> Result<(), ReloadError> {
        let from = self.shared.state.lock().await.config.protocol;
        if from == config.protocol {
            return Ok(());
        }
        Err(ReloadError::Protocol {
            pool: config.name.clone(),
            from: from.name(),
            to: config.protocol.name(),
        })
    }

    /// Whether the config's layout could be taken now.
    async fn check_relayout(&self, config: &PoolConfig) -> Result<(), ReloadError> {
        let pool = || config.name.clone();
        let layout = Layout::new(config.layout.clone()).map_err(|source| StartError::Layout {
            pool: pool(),
            source,
        })?;
        let fingerprint = layout.fingerprint();
        let state = self.shared.state.lock().await;
        let is_new = state.record.configured != fingerprint
            && self.routing().layout.fingerprint() != fingerprint;
        let pending = state.switching.pending().map(|switch| switch.job.as_str());
        match state.job().or(pending) {
            Some(job) if is_new => Err(ReloadError::JobRuns {
                pool: pool(),
                job: job.to_owned(),
            }),
            // No config can say this layout: a changed one is at best where it leads.
            None if is_new && self.routing().layout.on_the_way().is_some() => {
                Err(ReloadError::OnTheWay { pool: pool() })
            }
            _ => Ok(()),
        }
    }

    /// Takes the config's layout if the operator changed it since the state
    /// file was written; true when a new epoch began.
    async fn relayout(&self, config: &PoolConfig) -> Result<bool, ReloadError> {
        self.check_relayout(config).await?;
        let pool = || config.name.clone();
        let layout = Layout::new(config.layout.clone()).map_err(|source| StartError::Layout {
            pool: pool(),
            source,
        })?;
        let fingerprint = layout.fingerprint();
        let mut state = self.shared.state.lock().await;
        if state.record.configured == fingerprint {
            return Ok(false);
        }
        let routing = self.routing();
        let same_layout = routing.layout.fingerprint() == fingerprint;
        let before = state.record.clone();
        state.record.configured = fingerprint;
        if !same_layout {
            state.record.epoch += 1;
            state.record.layout = config.layout.clone();
            state.record.decided_by = None;
        }
        if let Err(source) = self.save(&mut state).await {
            state.record = before;
            return Err(ReloadError::State {
                pool: pool(),
                source,
            });
        }
        if same_layout {
            return Ok(false);
        }
        let layout = Arc::new(self.carry_ejections(&mut state, &layout));
        let epoch = Epoch(state.record.epoch);
        match Moves::between(Arc::clone(&routing.layout), Arc::clone(&layout)) {
            Ok(moves) => warn!(
                pool = pool(),
                %epoch,
                percent = moves.estimate(ESTIMATE_SAMPLES).moving_percent,
                "new layout from the config: this part of the key space is now looked for on \
                 another shard; nothing was moved"
            ),
            Err(error) => warn!(pool = pool(), %epoch, %error, "new layout from the config"),
        }
        self.publish(Routing::open(epoch, layout)).await;
        Ok(true)
    }
}
