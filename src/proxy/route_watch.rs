//! The decided route, asked of the servers themselves when nobody told it: a
//! worker's requests are refused because their epoch is over, or the pool is
//! fenced because it found a switch undecided.
//!
//! ```text
//! workers --address--> watch_route --GET route record--> a later one: taken, as a commit is
//!                          |       --GET fence---------> none: the refusal was meant (NotFenced)
//!                          |                             there: asked again
//!                          '-- a user that the server does not know, no job, no fence, no switch
//!                              pending: the job is over; back to the configured credentials
//! ```
//! A user of an epoch that is over may still read keys that begin with
//! `__keyferry:`.
//!
//! Invariant: the old route is never taken up again with other credentials before
//! the server was asked for a later one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::epoch::Gate;
use crate::router::route_record::RouteRecord;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::error::{SessionError, SessionErrorKind};
use crate::upstream::session::Session;

use super::announcing::as_user;
use super::control::{GateStatus, SwitchRefusal};
use super::orders::Order;
use super::pool::PoolHandle;

/// Addresses that wait to be asked; workers tell again what finds no room.
pub const REFUSING_MAX: usize = 256;
/// A server is not asked again earlier, whoever tells of it.
const ASK_AGAIN: Duration = Duration::from_millis(40);
/// How often a fenced pool asks.
const FENCED_POLL: Duration = Duration::from_millis(200);
/// Longest wait for a connection and for each answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// The task that asks; ends when this is dropped.
pub(super) struct RouteWatch(JoinHandle<()>);

impl RouteWatch {
    pub(super) fn start(pool: PoolHandle, refusing: Receiver<ShardAddress>) -> Self {
        Self(tokio::spawn(watch_route(pool, refusing)))
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a server says.
struct Told {
    /// The route record, as it stands there.
    record: Option<Vec<u8>>,
    is_fenced: bool,
    /// It does not know the user that we log in as.
    is_unknown: bool,
}

/// Connections of our own that are kept between two questions.
#[derive(Default)]
struct Asked {
    sessions: BTreeMap<ShardAddress, Session>,
    last: BTreeMap<ShardAddress, Instant>,
}

async fn watch_route(pool: PoolHandle, mut refusing: Receiver<ShardAddress>) {
    let mut asked = Asked::default();
    loop {
        let mut addresses = BTreeSet::new();
        tokio::select! {
            told = refusing.recv() => match told {
                Some(address) => _ = addresses.insert(address),
                None => return, // the pool is gone
            },
            () = sleep(FENCED_POLL), if pool.is_fenced() => addresses.extend(pool.addresses()),
            () = pool.shared.rerouted.notified() => {
                asked.sessions.clear(); // logins may be other ones
                continue;
            }
        }
        while let Ok(address) = refusing.try_recv() {
            addresses.insert(address);
        }
        pool.look_up(&mut asked, addresses).await;
    }
}

impl PoolHandle {
    fn is_fenced(&self) -> bool {
        matches!(self.routing().gate, Gate::Fenced(_))
    }

    /// Every server of the layout in use, and of the coming one.
    fn addresses(&self) -> BTreeSet<ShardAddress> {
        let routing = self.routing();
        let coming = routing.gate.moves().map(|moves| moves.to());
        let layouts = [Some(&routing.layout), coming].into_iter().flatten();
        let shards = layouts.flat_map(|layout| layout.shards());
        shards.map(|shard| shard.address.clone()).collect()
    }

    /// Asks servers, all at once, and does what follows from their answers.
    async fn look_up(&self, asked: &mut Asked, addresses: BTreeSet<ShardAddress>) {
        let mut answers = JoinSet::new();
        for address in addresses {
            let last = asked.last.get(&address);
            if last.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
                continue; // who tells of it does so again
            }
            asked.last.insert(address.clone(), Instant::now());
            let (pool, session) = (self.clone(), asked.sessions.remove(&address));
            answers.spawn(async move {
                let told = pool.ask(session, &address).await;
                (address, told)
            });
        }
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok((address, Ok((told, session)))) => {
                    if let Some(session) = session {
                        asked.sessions.insert(address.clone(), session);
                    }
                    if self.follow(&address, told).await {
                        return; // a later route: the others have nothing to add
                    }
                }
                Ok((_, Err(error))) => {
                    info!(pool = self.shared.name, %error, "can't ask for the route");
                }
                Err(ended) => warn!(pool = self.shared.name, %ended, "a question ended early"),
            }
        }
    }

    /// Does what follows from what a server said; true if the pool has a later
    /// route now.
    async fn follow(&self, address: &ShardAddress, told: Told) -> bool {
        let record = told
            .record
            .map(|text| RouteRecord::parse(&self.shared.name, &text));
        match record {
            Some(Ok(record)) => match self.adopt(&record).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(refused) => {
                    warn!(pool = self.shared.name, %address, %refused, "can't take the decided route");
                    return false;
                }
            },
            Some(Err(bad)) => {
                warn!(pool = self.shared.name, %address, %bad, "a route record can't be read");
                return false;
            }
            None => {}
        }
        if told.is_fenced {
            return false;
        }
        if told.is_unknown && !self.forget_login(address).await {
            return false;
        }
        for worker in self.shared.workers.iter() {
            worker.send(Order::NotFenced {
                pool: self.shared.place,
                address: address.clone(),
            });
        }
        false
    }

    /// The settings of our own connections, without a user.
    async fn asking_config(&self) -> UpstreamConfig {
        let state = self.shared.state.lock().await;
        UpstreamConfig {
            connect_timeout: ASK_TIMEOUT,
            request_timeout: Some(ASK_TIMEOUT),
            ..state.config.upstream.clone()
        }
    }

    /// Asks on a connection of before, or a new one, which comes back if it is of use
    /// for the next question.
    async fn ask(
        &self,
        session: Option<Session>,
        address: &ShardAddress,
    ) -> Result<(Told, Option<Session>), SessionError> {
        let (mut session, is_unknown) = match session {
            Some(session) => (session, false),
            None => self.connect(address).await?,
        };
        let pool = &self.shared.name;
        let key = RouteRecord::key(pool);
        let record = session.call(&[b"GET", key.as_bytes()]).await?;
        let key = RouteRecord::fence_key(pool);
        let fence = session.call(&[b"GET", key.as_bytes()]).await?;
        let told = Told {
            record: match record {
                Value::Bulk(text) => Some(text),
                _ => None,
            },
            is_fenced: match &fence {
                Value::Null => false,
                // After its switch a server keeps the key, which shuts out others.
                Value::Bulk(text) => RouteRecord::shuts_out(text, self.routing().epoch.0),
                // What can't be read may well be fenced.
                _ => true,
            },
            is_unknown,
        };
        Ok((told, (!is_unknown).then_some(session)))
    }

    /// As the epoch's user, or as configured where that is not known any more.
    async fn connect(&self, address: &ShardAddress) -> Result<(Session, bool), SessionError> {
        let config = self.asking_config().await;
        let Some(login) = self.shared.logins.load().of(address).cloned() else {
            return Ok((Session::connect(address, &config).await?, false));
        };
        match Session::connect(address, &as_user(&config, login)).await {
            Ok(session) => Ok((session, false)),
            Err(error) if matches!(error.kind, SessionErrorKind::AuthRefused(_)) => {
                Ok((Session::connect(address, &config).await?, true))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a decided route that is later than the pool's.
    async fn adopt(&self, record: &RouteRecord) -> Result<bool, SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        let epoch = self.routing().epoch;
        let Some(switch) = state.switching.check_record(record, epoch) else {
            return Ok(false);
        };
        info!(
            pool = self.shared.name,
            job = record.job,
            epoch = record.epoch,
            "found the decided route on a server"
        );
        self.decide(&mut state, switch).await?;
        Ok(true)
    }

    /// The job is over that gave us a user which the server does not know any
    /// more; false while it may not be.
    async fn forget_login(&self, address: &ShardAddress) -> bool {
        let mut state = self.shared.state.lock().await;
        let is_calm =
            state.switching.gate() == GateStatus::Open && state.switching.pending().is_none();
        if state.job().is_some() || !is_calm {
            return false;
        }
        let name = address.to_string();
        state.record.logins.retain(|login| login.addr != name);
        if let Err(error) = self.save(&mut state).await {
            warn!(pool = self.shared.name, %error, "a login that is over stays on disk");
        }
        warn!(
            pool = self.shared.name,
            %address,
            "the server does not know the user that a job made there, and no job is at work: \
             logging in with the configured credentials"
        );
        self.log_in_as(&state.record.logins);
        let routing = self.routing();
        self.publish((*routing).clone()).await;
        true
    }
}
