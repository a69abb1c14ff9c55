//! A job says that it works on the pool, and as whom to log in.
//!
//! ```text
//! logins:  try each one on a connection of our own -> write them down -> tell the
//!          workers -> every connection has said AUTH -> answer
//!               |                                            | refused, or too late
//!               v refused: nothing has changed               v
//!                                         back to those before, on disk and in the workers
//! ```
//! Invariant: what the workers log in as is on disk: a restart logs in likewise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::upstream::config::{Credentials, UpstreamConfig};
use crate::upstream::session::Session;

use super::config::Protocol;
use super::control::{JobAnnounce, RefusalReason, ShardLogin, SwitchRefusal};
use super::orders::Order;
use super::pool::{PoolCoreState, PoolHandle};
use super::shard_logins::Logins;
use super::switching::Switching;

/// Longest time a job is believed to work on a pool without saying so again.
const ANNOUNCE_MS_MAX: u64 = 60_000;
/// Longest time until every connection has logged in: large requests that are
/// arriving must end first.
const LOG_IN_PATIENCE: Duration = Duration::from_secs(10);

/// A job that works on the pool.
pub(super) struct Announced {
    job: String,
    incarnation: u64,
    until: Instant,
}

impl PoolCoreState {
    /// The job that works on the pool now.
    pub(super) fn job(&self) -> Option<&str> {
        let announced = self.announced.as_ref()?;
        (Instant::now() < announced.until).then_some(announced.job.as_str())
    }

    fn check_announce(&self, ask: &JobAnnounce, pool: &str) -> Result<(), SwitchRefusal> {
        let refuse = |reason, error: String| Err(SwitchRefusal { reason, error });
        if let Some(other) = self.job().filter(|job| *job != ask.job) {
            let error = format!("job {other} works on pool {pool}");
            return refuse(RefusalReason::OtherJob, error);
        }
        if let Some(known) = &self.announced
            && known.job == ask.job
            && ask.incarnation < known.incarnation
        {
            let error = format!("a later start of job {} has spoken already", ask.job);
            return refuse(RefusalReason::StaleIncarnation, error);
        }
        Ok(())
    }
}

fn login_refused(error: String) -> SwitchRefusal {
    SwitchRefusal {
        reason: RefusalReason::LoginRefused,
        error,
    }
}

impl PoolHandle {
    pub(super) async fn take_announce(&self, ask: JobAnnounce) -> Result<(), SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        state.check_announce(&ask, &self.shared.name)?;
        if ask.lease_ms > 0 {
            let layout = &self.routing().layout;
            state.ejections.check_none(&self.shared.name, layout)?;
        }
        if let Some(logins) = &ask.logins {
            self.change_logins(&mut state, logins).await?;
        }
        state.announced = Some(Announced {
            job: ask.job,
            incarnation: ask.incarnation,
            until: Instant::now() + Duration::from_millis(ask.lease_ms.min(ANNOUNCE_MS_MAX)),
        });
        Ok(())
    }

    /// Logs in as these from now on. A switch that is under way has logins of its
    /// own, which come first until it is decided.
    pub(super) async fn change_logins(
        &self,
        state: &mut PoolCoreState,
        list: &[ShardLogin],
    ) -> Result<(), SwitchRefusal> {
        let logins = self.check_logins(state, list).await?;
        let before = std::mem::replace(&mut state.record.logins, list.to_vec());
        if before != state.record.logins
            && let Err(error) = self.save(state).await
        {
            state.record.logins = before;
            return Err(error.into());
        }
        let coming = state
            .switching
            .pending()
            .map(|switch| Logins::read(&switch.logins));
        let logins = match (coming.transpose()?, &state.switching) {
            (Some(coming), Switching::Staged(_)) => {
                logins.with_new(&coming, &self.routing().layout)
            }
            (Some(coming), _) => logins.with(&coming),
            (None, _) => logins,
        };
        let confirmed = self.tell_logins(self.use_logins(logins)).await;
        if confirmed.is_ok() {
            if before != state.record.logins {
                info!(
                    pool = self.shared.name,
                    servers = list.len(),
                    "connections to the shards log in as the job said"
                );
            }
            return Ok(());
        }
        state.record.logins = before;
        self.log_in_as(&state.record.logins);
        if let Err(error) = self.save(state).await {
            error!(pool = self.shared.name, %error, "logins that a shard refused stay on disk");
        }
        // Who was refused is logged in as before; the others log in again.
        if let Err(again) = self.tell_logins(self.shared.logins.load_full()).await {
            error!(pool = self.shared.name, error = %again.error, "can't log in as before");
        }
        confirmed
    }

    /// Reads logins, and tries each one on a connection of our own.
    pub(super) async fn check_logins(
        &self,
        state: &PoolCoreState,
        list: &[ShardLogin],
    ) -> Result<Logins, SwitchRefusal> {
        let logins = Logins::read(list)?;
        if state.config.protocol != Protocol::Redis && !list.is_empty() {
            return Err(login_refused(
                "a memcached has no users to log in as".into(),
            ));
        }
        let known = self.shared.logins.load();
        let mut tries = JoinSet::new();
        for (address, login) in logins.iter() {
            if known.of(address) == Some(login) {
                continue;
            }
            let (address, login) = (address.clone(), login.clone());
            let config = as_user(&state.config.upstream, login);
            tries.spawn(async move { Session::connect(&address, &config).await.map(drop) });
        }
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = format!("pool {}: {error}", self.shared.name);
                    return Err(login_refused(error));
                }
                Err(ended) => return Err(login_refused(ended.to_string())),
            }
        }
        Ok(logins)
    }

    /// What the next routing that is published logs in as.
    pub(super) fn use_logins(&self, logins: Logins) -> Arc<Logins> {
        let logins = Arc::new(logins);
        self.shared.logins.store(Arc::clone(&logins));
        logins
    }

    /// The same of a list that was read before.
    pub(super) fn log_in_as(&self, list: &[ShardLogin]) {
        match Logins::read(list) {
            Ok(logins) => drop(self.use_logins(logins)),
            Err(refused) => error!(pool = self.shared.name, %refused, "logins make no sense"),
        }
    }

    /// Tells the workers, and waits until every connection has logged in.
    async fn tell_logins(&self, logins: Arc<Logins>) -> Result<(), SwitchRefusal> {
        let mut answers = Vec::with_capacity(self.shared.workers.len());
        for worker in self.shared.workers.iter() {
            let (done, answer) = oneshot::channel();
            worker.send(Order::LogIn {
                pool: self.shared.place,
                logins: Arc::clone(&logins),
                done,
            });
            answers.push(answer);
        }
        let all = async {
            let mut all = Ok(());
            for answer in answers {
                // A worker that ended has no connections.
                all = all.and(answer.await.unwrap_or(Ok(())));
            }
            all
        };
        match tokio::time::timeout(LOG_IN_PATIENCE, all).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(words)) => Err(login_refused(format!("pool {}: {words}", self.shared.name))),
            Err(_) => Err(login_refused(format!(
                "pool {}: not every connection has logged in within {} s",
                self.shared.name,
                LOG_IN_PATIENCE.as_secs()
            ))),
        }
    }
}

/// The settings of a pool's connections with another user.
pub(super) fn as_user(config: &UpstreamConfig, login: Credentials) -> UpstreamConfig {
    UpstreamConfig {
        credentials: Some(login),
        ..config.clone()
    }
}
