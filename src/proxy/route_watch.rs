//! The decided route, asked of the servers themselves when nobody told it: a
//! worker's requests are refused because their epoch is over, or the pool is
//! fenced because it found a switch undecided.
//!
//! ```text
//! workers --address--> watch_route --GET route record--> a later one: taken, as a commit is
//!                          |                             the pool's own, left by the job of
//!                          |                             the pending switch: taken back
//!                          |       --GET fence---------> none: the refusal was meant (NotFenced)
//!                          |                             there: asked again
//!                          '-- a user that the server does not know: all servers are asked
//!                                all answered, none has a later route, a fence, or knows its
//!                                user, no job, no switch pending: the job is over; back to
//!                                the configured credentials everywhere
//!                                one did not answer, or remembers: asked again
//! ```
//! A user of an epoch that is over may still read keys that begin with
//! `__keyferry:`. A server that was started anew may have forgotten its users and
//! the decision, so that one alone is never believed.
//!
//! Invariants
//! - The old route is never taken up again with other credentials before every
//!   server was asked for a later one.
//! - A server that does not answer keeps no other one from being asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::epoch::Gate;
use crate::router::route_record::RouteRecord;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::error::{SessionError, SessionErrorKind, SessionStep};
use crate::upstream::session::Session;

use super::announcing::as_user;
use super::control::{GateStatus, SwitchRefusal};
use super::orders::Order;
use super::pool::PoolHandle;

/// Addresses that wait to be asked; workers tell again what finds no room.
pub const REFUSING_MAX: usize = 256;
/// Servers that are asked at the same time; the others wait for their turn.
const ASKING_MAX: usize = 64;
/// A server is not asked again earlier, whoever tells of it.
const ASK_AGAIN: Duration = Duration::from_millis(40);
/// How often a fenced pool asks.
const FENCED_POLL: Duration = Duration::from_millis(200);
/// Longest time for one server, from dialling to its last answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How often it is said why a login that a server does not know is kept.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// What a server says of a user it does not know, or of another password.
const NO_SUCH_USER: &str = "WRONGPASS";

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
    user: User,
}

/// What a server knows of the user that we log in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// It let it in.
    Known,
    /// There is none for this server.
    None,
    /// It has one of that name, with another password.
    Changed,
    /// It has none.
    Unknown,
}

type Answer = (ShardAddress, Result<(Told, Option<Session>), SessionError>);

/// What is asked, and connections of our own that are kept between two questions.
#[derive(Default)]
struct Asked {
    /// Servers to ask.
    waiting: BTreeSet<ShardAddress>,
    asking: BTreeSet<ShardAddress>,
    answers: JoinSet<Answer>,
    sessions: BTreeMap<ShardAddress, Session>,
    last: BTreeMap<ShardAddress, Instant>,
    /// Servers that have not said yet that they remember nothing.
    survey: Option<BTreeSet<ShardAddress>>,
    said: Option<Instant>,
}

impl Asked {
    /// Wants these asked; who was asked just now is not.
    fn want(&mut self, addresses: impl IntoIterator<Item = ShardAddress>) {
        for address in addresses {
            let last = self.last.get(&address);
            if last.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                self.waiting.insert(address); // else who tells of it does so again
            }
        }
    }

    /// Asks as many as may be asked at once.
    fn go_on(&mut self, pool: &PoolHandle) {
        while self.asking.len() < ASKING_MAX {
            let free = |address: &&ShardAddress| !self.asking.contains(*address);
            let Some(address) = self.waiting.iter().find(free).cloned() else {
                return;
            };
            self.waiting.remove(&address);
            self.asking.insert(address.clone());
            self.last.insert(address.clone(), Instant::now());
            let (pool, session) = (pool.clone(), self.sessions.remove(&address));
            self.answers.spawn(async move {
                let told = pool.ask_in_time(session, &address).await;
                (address, told)
            });
        }
    }

    /// All of these must say that they remember nothing.
    fn begin_survey(&mut self, all: BTreeSet<ShardAddress>) {
        if self.survey.is_none() {
            self.waiting.extend(all.iter().cloned());
            self.survey = Some(all);
        }
    }

    /// One remembers, or does not answer: nothing is forgotten.
    fn end_survey(&mut self, pool: &str, address: &ShardAddress, why: &str) {
        if self.survey.take().is_some() {
            self.say_kept(pool, address, why);
        }
    }

    fn say_kept(&mut self, pool: &str, address: &ShardAddress, why: &str) {
        if self.said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            warn!(
                pool,
                %address,
                why,
                "a server does not know the user that a job made there, and it is not certain that \
                 the job is over: keys there are answered by -TRYAGAIN; start the job again, or \
                 see to it that every server of the pool answers"
            );
        }
    }
}

async fn watch_route(pool: PoolHandle, mut refusing: Receiver<ShardAddress>) {
    let mut asked = Asked::default();
    loop {
        tokio::select! {
            told = refusing.recv() => match told {
                Some(address) => asked.want([address]),
                None => return, // the pool is gone
            },
            Some(answer) = asked.answers.join_next() => match answer {
                Ok(answer) => pool.take_answer(&mut asked, answer).await,
                Err(ended) => {
                    warn!(pool = pool.shared.name, %ended, "a question ended early");
                    asked = Asked::default(); // whose it was is not known
                }
            },
            () = sleep(FENCED_POLL), if pool.is_fenced() => asked.want(pool.addresses()),
            // Logins may be other ones: what was asked as the old ones says nothing.
            () = pool.shared.rerouted.notified() => asked = Asked::default(),
        }
        while let Ok(address) = refusing.try_recv() {
            asked.want([address]);
        }
        asked.go_on(&pool);
    }
}

impl PoolHandle {
    fn is_fenced(&self) -> bool {
        matches!(self.routing().gate, Gate::Fenced(_))
    }

    /// Every server of the layout in use and of the coming one, and those that a
    /// job made users on.
    fn addresses(&self) -> BTreeSet<ShardAddress> {
        let routing = self.routing();
        let coming = routing.gate.moves().map(|moves| moves.to());
        let layouts = [Some(&routing.layout), coming].into_iter().flatten();
        let shards = layouts.flat_map(|layout| layout.shards());
        let mut all: BTreeSet<_> = shards.map(|shard| shard.address.clone()).collect();
        let logins = self.shared.logins.load();
        all.extend(logins.iter().map(|(address, _)| address.clone()));
        all
    }

    /// Does what follows from a server's answer.
    async fn take_answer(&self, asked: &mut Asked, (address, answer): Answer) {
        asked.asking.remove(&address);
        let pool = &self.shared.name;
        match answer {
            Ok((told, session)) => {
                if let Some(session) = session {
                    asked.sessions.insert(address.clone(), session);
                }
                self.follow(asked, &address, told).await;
            }
            Err(error) => {
                info!(pool, %error, "can't ask for the route");
                asked.end_survey(pool, &address, "it does not answer");
            }
        }
    }

    /// Does what follows from what a server said.
    async fn follow(&self, asked: &mut Asked, address: &ShardAddress, told: Told) {
        let pool = &self.shared.name;
        let record = told.record.map(|text| RouteRecord::parse(pool, &text));
        match record {
            Some(Ok(record)) => match self.adopt(&record).await {
                // The others have nothing to add.
                Ok(true) => return *asked = Asked::default(),
                Ok(false) => {}
                Err(refused) => {
                    warn!(pool, %address, %refused, "can't take the decided route");
                    return asked.end_survey(pool, address, "it has a later route");
                }
            },
            Some(Err(bad)) => {
                warn!(pool, %address, %bad, "a route record can't be read");
                return asked.end_survey(pool, address, "its route record can't be read");
            }
            None => {}
        }
        if told.is_fenced {
            return asked.end_survey(pool, address, "it is fenced");
        }
        match told.user {
            User::Known => asked.end_survey(pool, address, "it knows its user"),
            User::Changed => {
                asked.survey = None;
                return asked.say_kept(pool, address, "its user has another password");
            }
            User::None => {}
            User::Unknown => asked.begin_survey(self.addresses()),
        }
        if let Some(missing) = &mut asked.survey {
            missing.remove(address);
            if missing.is_empty() {
                asked.survey = None;
                if self.forget_logins().await {
                    return *asked = Asked::default();
                }
            }
        }
        if told.user != User::Unknown {
            self.tell_not_fenced(address);
        }
    }

    fn tell_not_fenced(&self, address: &ShardAddress) {
        for worker in self.shared.workers.iter() {
            worker.send(Order::NotFenced {
                pool: self.shared.place,
                address: address.clone(),
            });
        }
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

    /// As [`PoolHandle::ask`], within [`ASK_TIMEOUT`].
    async fn ask_in_time(
        &self,
        session: Option<Session>,
        address: &ShardAddress,
    ) -> Result<(Told, Option<Session>), SessionError> {
        match timeout(ASK_TIMEOUT, self.ask(session, address)).await {
            Ok(told) => told,
            Err(_) => Err(SessionError {
                address: address.clone(),
                step: SessionStep::Receive,
                kind: SessionErrorKind::TimedOut(ASK_TIMEOUT),
            }),
        }
    }

    /// Asks on a connection of before, or a new one, which comes back if it is of use
    /// for the next question.
    async fn ask(
        &self,
        session: Option<Session>,
        address: &ShardAddress,
    ) -> Result<(Told, Option<Session>), SessionError> {
        let (mut session, user) = match session {
            Some(session) => (session, User::Known),
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
            user,
        };
        Ok((told, (user == User::Known).then_some(session)))
    }

    /// As the epoch's user, or as configured where that is not known any more.
    async fn connect(&self, address: &ShardAddress) -> Result<(Session, User), SessionError> {
        let config = self.asking_config().await;
        let Some(login) = self.shared.logins.load().of(address).cloned() else {
            return Ok((Session::connect(address, &config).await?, User::None));
        };
        let name = login.username.clone().unwrap_or_default();
        match Session::connect(address, &as_user(&config, login)).await {
            Ok(session) => Ok((session, User::Known)),
            Err(SessionError {
                kind: SessionErrorKind::AuthRefused(words),
                ..
            }) if words.starts_with(NO_SUCH_USER) => {
                let mut session = Session::connect(address, &config).await?;
                // A job that was started again has set another password. Who may not
                // ask for users learns nothing by this.
                let asked = session.call(&[b"ACL", b"GETUSER", name.as_bytes()]).await?;
                let user = match asked {
                    Value::Null | Value::Error(_) => User::Unknown,
                    _ => User::Changed,
                };
                Ok((session, user))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a decided route that is later than the pool's, or one that says that the
    /// pending switch does not come; true if it did.
    async fn adopt(&self, record: &RouteRecord) -> Result<bool, SwitchRefusal> {
        let mut state = self.shared.state.lock().await;
        let epoch = self.routing().epoch;
        let decided_by = state.record.decided_by.clone();
        if state
            .switching
            .is_taken_back(record, epoch, decided_by.as_deref())
        {
            info!(
                pool = self.shared.name,
                job = record.job,
                "a server says that the job took its switch back"
            );
            self.take_back(&mut state).await;
            self.save(&mut state).await?;
            return Ok(true);
        }
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

    /// The job is over that gave us users which no server knows any more; false
    /// while it may not be.
    async fn forget_logins(&self) -> bool {
        let mut state = self.shared.state.lock().await;
        let is_calm =
            state.switching.gate() == GateStatus::Open && state.switching.pending().is_none();
        if state.job().is_some() || !is_calm {
            return false;
        }
        state.record.logins.clear();
        if let Err(error) = self.save(&mut state).await {
            warn!(pool = self.shared.name, %error, "logins that are over stay on disk");
        }
        warn!(
            pool = self.shared.name,
            "no server knows the users that a job made, and no job is at work: logging in with \
             the configured credentials"
        );
        self.log_in_as(&[]);
        let routing = self.routing();
        self.publish((*routing).clone()).await;
        for address in self.addresses() {
            self.tell_not_fenced(&address);
        }
        true
    }
}
