//! Our post at one server: who gives orders there, and what an order is. The task
//! that carries them out is in `fencing/guard.rs`.
//!
//! Invariant: at most [`ORDERS_MAX`] orders wait; they are carried out in the order
//! in which they were given, whether anybody waits for it or not.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::OwnNames;
use super::guard::Guard;
use super::waiters::Waiters;
use crate::reshard::fence::min_replicas::MinReplicas;
use crate::reshard::fence::{EpochUser, Rights, Rules, Words};
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::SessionError;
use crate::upstream::config::UpstreamConfig;

/// Orders that wait at one post.
pub const ORDERS_MAX: usize = 16;

/// Longest wait for a reply: a server that is stopped keeps no order for ever.
const REPLY_MS_MAX: u64 = 2_000;

/// What servers say that start, are kept busy by a script, have lost their disk or
/// their memory, or are replicas for a while: the same order is taken later.
const PASSING: [&str; 8] = [
    "LOADING",
    "BUSY ",
    "MASTERDOWN",
    "MISCONF",
    "OOM ",
    "READONLY",
    "NOREPLICAS",
    "TRYAGAIN",
];

/// What our connections are called, with the job's name behind it, to be told from
/// those of others.
pub const CONNECTION_NAME: &str = "keyferry:job";

/// Why a server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// No connection, or none any more.
    #[error("{0}")]
    Link(#[from] SessionError),
    /// It said no.
    #[error("server {server}: {doing}: {reply}")]
    Refused {
        /// Which server.
        server: ShardAddress,
        /// What was asked.
        doing: &'static str,
        /// Its words.
        reply: String,
    },
    /// The fence was given up before the server had confirmed it.
    #[error("server {0}: the fence was given up")]
    GivenUp(ShardAddress),
    /// It has not done it in time; it may yet.
    #[error("server {server}: no answer within {waited_ms} ms")]
    Silent {
        /// Which server.
        server: ShardAddress,
        /// How long we waited.
        waited_ms: u64,
    },
    /// The post is gone.
    #[error("server {0}: the job lets go of it")]
    Gone(ShardAddress),
}

/// How long an order is tried that a server refuses for reasons that pass. One that
/// is out of reach is tried without end in any case: it may have done it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until this time is over; then the refusal is the answer.
    For(Duration),
    /// There is no other way.
    Endless,
}

/// What a server can be fenced with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// Nothing; its keys can be kept.
    Keys,
    /// Epoch users, with these rules.
    Users(Rules),
    /// Its refusal of all writes.
    MinReplicas(MinReplicas),
}

impl PostError {
    /// Whether the same order may be carried out a little later.
    pub(super) fn is_of_a_moment(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Refused { reply, .. } => PASSING.iter().any(|code| reply.starts_with(code)),
            Self::GivenUp(_) | Self::Gone(_) | Self::Silent { .. } => false,
        }
    }
}

/// Users and keys that are to be on a server.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// By name.
    pub users: BTreeMap<String, (EpochUser, Rights)>,
    /// Keys in database 0; `None` for one that is not to be there.
    pub keys: BTreeMap<String, Option<String>>,
    /// Whether writes are taken, where that is the fence.
    pub writes: Option<Rights>,
}

impl Wanted {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.keys.is_empty() && self.writes.is_none()
    }

    /// These too, in the place of what was wanted of the same.
    pub(super) fn extend(&mut self, more: Self) {
        self.users.extend(more.users);
        self.keys.extend(more.keys);
        self.writes = more.writes.or(self.writes);
    }
}

/// A fence and its marker.
#[derive(Debug, Clone)]
pub struct Raise {
    /// Whose rights end, where there are users.
    pub user: Option<EpochUser>,
    /// The fence key and its value.
    pub key: (String, String),
    /// Channel and message of the marker.
    pub marker: (Vec<u8>, Vec<u8>),
    /// False once nobody wants the fence any more.
    pub is_wanted: watch::Receiver<bool>,
}

type Done<T> = oneshot::Sender<Result<T, PostError>>;

/// What is to be done.
pub(super) enum Order {
    Keep(Wanted, Patience, Done<()>),
    Raise(Box<Raise>, Done<()>),
    Forget(Gone, Done<()>),
    Wake(Waiters, OwnNames, Done<()>),
    Ask(Vec<Words>, Done<Vec<Value>>),
}

/// Users and keys that are to leave a server.
#[derive(Debug, Clone, Default)]
pub struct Gone {
    /// Names of users.
    pub users: Vec<String>,
    /// Keys in database 0.
    pub keys: Vec<String>,
}

/// What comes of an order, which is carried out whether it is awaited or not.
#[derive(Debug)]
pub struct Answer<T> {
    server: ShardAddress,
    receiver: Option<oneshot::Receiver<Result<T, PostError>>>,
}

impl<T> Answer<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn done(self) -> Result<T, PostError> {
        let gone = || PostError::Gone(self.server.clone());
        match self.receiver {
            Some(receiver) => receiver.await.map_err(|_| gone())?,
            None => Err(gone()),
        }
    }

    /// The same, but not for longer than until `deadline`.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn done_by(self, deadline: Instant) -> Result<T, PostError> {
        let (server, begun) = (self.server.clone(), Instant::now());
        let done = tokio::time::timeout_at(deadline, self.done()).await;
        done.unwrap_or_else(|_| {
            Err(PostError::Silent {
                server,
                waited_ms: begun.elapsed().as_millis() as u64,
            })
        })
    }
}

/// The side that gives orders; the post ends when it is dropped.
#[derive(Debug)]
pub struct Post {
    server: ShardAddress,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Post {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Post {
    /// A post of `job` at `server`, and what that has for a fence.
    pub fn at(job: &str, server: ShardAddress, upstream: &UpstreamConfig, means: Means) -> Self {
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let guard = Guard::new(job, server.clone(), settings(upstream), means);
        Self {
            server,
            orders,
            task: tokio::spawn(guard.run(taken)),
        }
    }

    /// From now on these are there too; again after every lost link. A server
    /// that is out of reach is tried until it is not.
    pub fn keep(&self, wanted: Wanted, patience: Patience) -> Answer<()> {
        self.order(|done| Order::Keep(wanted, patience, done))
    }

    /// Raises the fence together with its marker; tries as long as it is wanted.
    pub fn raise(&self, raise: Raise) -> Answer<()> {
        self.order(|done| Order::Raise(Box::new(raise), done))
    }

    /// Removes users and keys; tried once.
    pub fn forget(&self, gone: Gone) -> Answer<()> {
        self.order(|done| Order::Forget(gone, done))
    }

    /// Ends waits there; tried until the server has done it.
    pub fn wake(&self, whose: Waiters, own: OwnNames) -> Answer<()> {
        self.order(|done| Order::Wake(whose, own, done))
    }

    /// Asks once, over the post's connection.
    pub fn ask(&self, requests: Vec<Words>) -> Answer<Vec<Value>> {
        self.order(|done| Order::Ask(requests, done))
    }

    fn order<T>(&self, order: impl FnOnce(Done<T>) -> Order) -> Answer<T> {
        let (done, answered) = oneshot::channel();
        let sent = self.orders.try_send(order(done));
        Answer {
            server: self.server.clone(),
            receiver: sent.is_ok().then_some(answered),
        }
    }
}

/// A post waits for no reply as long as a client's command may take.
pub fn settings(upstream: &UpstreamConfig) -> UpstreamConfig {
    UpstreamConfig {
        request_timeout: Some(Duration::from_millis(REPLY_MS_MAX)),
        ..upstream.clone()
    }
}
