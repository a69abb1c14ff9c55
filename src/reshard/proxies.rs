//! The admin API of every proxy of the pool, as the job calls it.
//!
//! One kept-alive HTTP/1.1 connection to each proxy; calls to different
//! proxies run at the same time, one at a time to each. A call that is asked
//! while another is under way at that proxy takes its place: the connection is
//! dropped, so an abort never waits behind a hold (only behind a stage, see
//! [`Fleet::ask`]).
//!
//! Invariant: every wait is bounded; what was asked but not answered is
//! reported as lost, never as refused.

mod agreement;
mod connection;
mod wire;

use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::cutover::{Call, CallFailure, Event, Pause, ProxyIndex};
use crate::router::spec::LayoutSpec;
use crate::upstream::config::Secret;

pub use agreement::{Agreed, Disagreement};
pub use connection::{ProxyUrl, UrlError};
pub use wire::{GateView, PendingView, PoolView, ShardLogin};

pub(super) use connection::Connection;

/// Longest wait for a TCP connection to a proxy.
pub const CONNECT_MS_MAX: u64 = 1_000;

/// Longest wait for the answer to a question that changes nothing.
pub const ASK_MS_MAX: u64 = 5_000;

/// Longest wait for a stage: the proxy syncs a file before it answers.
pub const STAGE_MS_MAX: u64 = 5_000;

/// Longest wait for an arm, a commit or an abort.
pub const CALL_MS_MAX: u64 = 2_000;

/// Pause before the first repetition of a commit or an abort; it doubles.
pub const REPEAT_MS_MIN: u64 = 50;

/// Longest pause between two repetitions.
pub const REPEAT_MS_MAX: u64 = 2_000;

/// Why a proxy's answer is missing or of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be reached or broke off.
    #[error("proxy {proxy}: {doing}: {what}; is it running, and is [admin].http this address?")]
    Unreachable {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was asked.
        doing: &'static str,
        /// What the connection said.
        what: String,
    },
    /// It did not answer in time.
    #[error("proxy {proxy}: {doing}: no answer within {waited_ms} ms")]
    Late {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was asked.
        doing: &'static str,
        /// How long we waited.
        waited_ms: u64,
    },
    /// It said no.
    #[error("proxy {proxy}: {doing} refused: {message}{}", reason_text(.reason))]
    Refused {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was asked.
        doing: &'static str,
        /// Its words.
        message: String,
        /// Its reason, a word of the admin API; empty if it gave none.
        reason: String,
    },
    /// It failed at it.
    #[error("proxy {proxy}: {doing} failed there: {message}{}", reason_text(.reason))]
    Failed {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was asked.
        doing: &'static str,
        /// Its words.
        message: String,
        /// Its reason, a word of the admin API; empty if it gave none.
        reason: String,
    },
    /// It does not know the token.
    #[error("proxy {proxy}: {doing}: the token is missing or wrong; give --proxy-token-file")]
    Unauthorized {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was asked.
        doing: &'static str,
    },
    /// It has no such pool.
    #[error("proxy {proxy} has no pool \"{pool}\"{}", known_pools(.known))]
    UnknownPool {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was looked for.
        pool: String,
        /// What it has.
        known: Vec<String>,
    },
    /// It answered something that is not the admin API.
    #[error(
        "proxy {proxy}: {doing}: the answer makes no sense: {what}; is this keyferry's [admin].http?"
    )]
    BadAnswer {
        /// Its admin address.
        proxy: ProxyUrl,
        /// What was asked.
        doing: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

fn reason_text(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

fn known_pools(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!("; it has {}", known.join(", "))
    }
}

impl ProxyError {
    /// Whether the same question may be answered well a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Late { .. } | Self::Failed { .. }
        )
    }

    /// Whether the proxy refused because it does not know the path at all.
    pub(super) fn is_unknown_path(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason.is_empty())
    }

    /// Whether the proxy refused because one of its shards is ejected.
    pub(super) fn is_for_ejected_shard(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == "shard_ejected")
    }

    fn into_failure(self) -> CallFailure {
        match self {
            Self::Refused { .. } | Self::Unauthorized { .. } | Self::UnknownPool { .. } => {
                CallFailure::Refused(self.to_string())
            }
            // A proxy that failed half-way may have done it: as good as silent.
            Self::Unreachable { .. }
            | Self::Late { .. }
            | Self::Failed { .. }
            | Self::BadAnswer { .. } => CallFailure::Lost(self.to_string()),
        }
    }
}

/// What every call of one switch try says.
#[derive(Debug, Clone)]
pub struct SwitchTerms {
    /// The job's name.
    pub job: String,
    /// Epoch of the new layout.
    pub epoch: u64,
    /// Which process and try is speaking; proxies refuse lower ones.
    pub incarnation: u64,
    /// Fingerprint of the layout that is to be left.
    pub from_fingerprint: u64,
    /// The new layout.
    pub to: LayoutSpec,
    /// How long a proxy keeps a hold, or an arm, that nobody follows up.
    pub lease: Duration,
    /// The sources refuse the old epoch's logins from the marker on: proxies may
    /// commit in whatever state they are.
    pub fenced: bool,
    /// The new epoch's logins; empty without a fence.
    pub logins: Vec<ShardLogin>,
}

/// Every proxy of one pool.
#[derive(Debug)]
pub struct Fleet {
    pool: String,
    token: Option<Secret>,
    seats: Vec<Seat>,
    calls: JoinSet<Done>,
}

/// One proxy: its connection is away while a call is under way.
#[derive(Debug)]
struct Seat {
    url: ProxyUrl,
    connection: Option<Connection>,
    call: Option<(Call, AbortHandle)>,
    /// What is asked as soon as the stage under way is answered.
    deferred: Option<(Call, u32, SwitchTerms)>,
}

#[derive(Debug)]
struct Done {
    proxy: ProxyIndex,
    call: Call,
    connection: Connection,
    outcome: Result<Pause, ProxyError>,
}

impl Fleet {
    /// Proxies at `urls` that serve `pool`; nothing is dialled yet.
    pub fn new(pool: &str, urls: Vec<ProxyUrl>, token: Option<Secret>) -> Self {
        let seats = urls.into_iter().map(Seat::new).collect();
        Self {
            pool: pool.to_owned(),
            token,
            seats,
            calls: JoinSet::new(),
        }
    }

    /// How many proxies there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there is no proxy at all.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The admin address of a proxy; empty for an index that is none.
    pub fn name(&self, proxy: ProxyIndex) -> String {
        self.seats
            .get(proxy.0)
            .map(|seat| seat.url.to_string())
            .unwrap_or_default()
    }

    /// A connection of its own to each proxy, and the pool's name.
    pub(super) fn connections(&self) -> (String, Vec<Connection>) {
        let seats = self.seats.iter();
        let connections = seats.map(|seat| Connection::new(seat.url.clone(), self.token.clone()));
        (self.pool.clone(), connections.collect())
    }

    /// What every proxy says of the pool, in the order of the list.
    pub async fn views(&mut self) -> Vec<Result<PoolView, ProxyError>> {
        let mut asked = JoinSet::new();
        for (at, seat) in self.seats.iter_mut().enumerate() {
            let mut connection = seat.take_connection(self.token.as_ref());
            let pool = self.pool.clone();
            asked.spawn(async move {
                let view = connection.pool(&pool).await;
                (at, connection, view)
            });
        }
        let mut views: Vec<_> = self.seats.iter().map(Seat::unanswered).collect();
        while let Some(joined) = asked.join_next().await {
            let Ok((at, connection, view)) = joined else {
                continue;
            };
            if let (Some(seat), Some(slot)) = (self.seats.get_mut(at), views.get_mut(at)) {
                seat.connection = Some(connection);
                *slot = view;
            }
        }
        views
    }

    /// Tells `proxies` as whom to log in from now on, without any as their config
    /// says; what each answered.
    pub async fn tell_logins(
        &self,
        proxies: &[ProxyIndex],
        (job, incarnation): (&str, u64),
        lease: Duration,
        logins: &[ShardLogin],
    ) -> Vec<Result<(), ProxyError>> {
        let mut asked = JoinSet::new();
        for (pool, mut connection) in proxies.iter().filter_map(|at| self.connection(*at)) {
            let (job, logins) = (job.to_owned(), logins.to_vec());
            asked.spawn(async move {
                let said = (job.as_str(), incarnation);
                connection.announce(&pool, said, lease, Some(&logins)).await
            });
        }
        asked.join_all().await
    }

    /// All proxies.
    pub fn everybody(&self) -> Vec<ProxyIndex> {
        (0..self.seats.len()).map(ProxyIndex).collect()
    }

    /// A connection of its own to one proxy, and the pool's name.
    pub(super) fn connection(&self, proxy: ProxyIndex) -> Option<(String, Connection)> {
        let seat = self.seats.get(proxy.0)?;
        let connection = Connection::new(seat.url.clone(), self.token.clone());
        Some((self.pool.clone(), connection))
    }

    /// Asks one proxy; its answer comes out of [`Fleet::next`].
    ///
    /// What is under way at that proxy is given up, but for a stage: its answer
    /// is awaited first, or a stage that arrives late would stay behind the
    /// abort. Nobody is held while a proxy stages, so there is no hurry.
    pub fn ask(&mut self, proxy: ProxyIndex, call: Call, attempt: u32, terms: &SwitchTerms) {
        let Some(seat) = self.seats.get_mut(proxy.0) else {
            return;
        };
        match seat.call.take() {
            Some((Call::Stage, running)) => {
                seat.call = Some((Call::Stage, running));
                seat.deferred = Some((call, attempt, terms.clone()));
            }
            Some((_, running)) => {
                running.abort();
                self.begin(proxy, call, attempt, terms.clone());
            }
            None => self.begin(proxy, call, attempt, terms.clone()),
        }
    }

    fn begin(&mut self, proxy: ProxyIndex, call: Call, attempt: u32, terms: SwitchTerms) {
        let Some(seat) = self.seats.get_mut(proxy.0) else {
            return;
        };
        let mut connection = seat.take_connection(self.token.as_ref());
        let pool = self.pool.clone();
        let handle = self.calls.spawn(async move {
            // A sleep of nothing lasts until the timer's next millisecond, and clients wait.
            if attempt > 0 {
                tokio::time::sleep(repeat_pause(attempt)).await;
            }
            let outcome = connection.switch(&pool, call, &terms).await;
            Done {
                proxy,
                call,
                connection,
                outcome,
            }
        });
        seat.call = Some((call, handle));
    }

    /// The next answer of any proxy; waits for ever when nothing was asked.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.calls.join_next().await {
                Some(Ok(done)) => {
                    if let Some(event) = self.answered(done) {
                        return event;
                    }
                }
                // Overtaken by another call; that one's answer is what counts.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn answered(&mut self, done: Done) -> Option<Event> {
        let seat = self.seats.get_mut(done.proxy.0)?;
        let (asked, _) = seat.call.as_ref()?;
        if *asked != done.call {
            return None;
        }
        seat.call = None;
        seat.connection = Some(done.connection);
        if let Some((call, attempt, terms)) = seat.deferred.take() {
            self.begin(done.proxy, call, attempt, terms);
            return None;
        }
        Some(Event::Answered {
            proxy: done.proxy,
            call: done.call,
            outcome: done.outcome.map_err(ProxyError::into_failure),
        })
    }
}

impl Seat {
    fn new(url: ProxyUrl) -> Self {
        Self {
            url,
            connection: None,
            call: None,
            deferred: None,
        }
    }

    fn take_connection(&mut self, token: Option<&Secret>) -> Connection {
        self.connection
            .take()
            .unwrap_or_else(|| Connection::new(self.url.clone(), token.cloned()))
    }

    fn unanswered(&self) -> Result<PoolView, ProxyError> {
        Err(ProxyError::Unreachable {
            proxy: self.url.clone(),
            doing: "GET pools",
            what: "the call ended without an answer".to_owned(),
        })
    }
}

/// The first attempt goes out at once.
pub(super) fn repeat_pause(attempt: u32) -> Duration {
    if attempt == 0 {
        return Duration::ZERO;
    }
    let doubled = REPEAT_MS_MIN.saturating_mul(1 << (attempt - 1).min(16));
    Duration::from_millis(doubled.min(REPEAT_MS_MAX))
}
