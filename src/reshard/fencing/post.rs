//! Our post at one server: a connection that keeps users and keys of the job
//! there, raises the fence and lowers it.
//!
//! ```text
//! idle -- order --> asking -- reply --> idle
//!   '-- link lost --> dialling --> all that is to be there, again --> idle
//! ```
//! One task, one connection, one order at a time: what was ordered first is
//! there first. A server that restarts has forgotten the users; the lost link
//! tells us, and they are made anew with the rights they are to have then.
//!
//! A fence that was sent and not confirmed may still arrive. So its transaction
//! watches the fence key, and what lowers the fence writes that key: whichever
//! is executed last, the fence is down after it was lowered.
//!
//! Invariants: at most [`ORDERS_MAX`] orders wait; while a fence is neither
//! confirmed nor given up, nothing else is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::reshard::fence::{EpochUser, Rights, Rules, Words, words};
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{Session, SessionError, SessionReader, SessionWriter};

/// Orders that wait at one post.
pub const ORDERS_MAX: usize = 16;

/// Longest wait for a reply: a server that is stopped keeps no order for ever.
const REPLY_MS_MAX: u64 = 2_000;

/// How often an idle link is tried.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Pause before the first try to dial again; it doubles.
const REDIAL_MS_MIN: u64 = 10;

/// Longest pause between two tries.
const REDIAL_MS_MAX: u64 = 250;

/// What servers say that start, or are kept busy by a script.
const PASSING: [&str; 3] = ["LOADING", "BUSY ", "MASTERDOWN"];

/// What our connections are called, to be told from those of others.
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
    /// The post is gone.
    #[error("server {0}: the job lets go of it")]
    Gone(ShardAddress),
}

impl PostError {
    /// Whether the same order may be carried out a little later.
    fn is_of_a_moment(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Refused { reply, .. } => PASSING.iter().any(|code| reply.starts_with(code)),
            Self::GivenUp(_) | Self::Gone(_) => false,
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
}

/// A fence and its marker.
#[derive(Debug, Clone)]
pub struct Raise {
    /// Whose rights end.
    pub user: EpochUser,
    /// The fence key and its value.
    pub key: (String, String),
    /// Channel and message of the marker.
    pub marker: (Vec<u8>, Vec<u8>),
    /// False once nobody wants the fence any more.
    pub is_wanted: watch::Receiver<bool>,
}

type Done<T> = oneshot::Sender<Result<T, PostError>>;

enum Order {
    Keep(Wanted, Done<()>),
    Raise(Box<Raise>, Done<()>),
    Forget(Gone, Done<()>),
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
    /// A post at `server`; `rules` are what epoch users get there, `None` where
    /// there are none.
    pub fn at(server: ShardAddress, upstream: &UpstreamConfig, rules: Option<Rules>) -> Self {
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let guard = Guard {
            server: server.clone(),
            upstream: settings(upstream),
            rules,
            wanted: Wanted::default(),
            link: None,
        };
        Self {
            server,
            orders,
            task: tokio::spawn(guard.run(taken)),
        }
    }

    /// From now on these are there too; again after every lost link. A server
    /// that is out of reach is tried until it is not.
    pub fn keep(&self, wanted: Wanted) -> Answer<()> {
        self.order(|done| Order::Keep(wanted, done))
    }

    /// Raises the fence together with its marker; tries as long as it is wanted.
    pub fn raise(&self, raise: Raise) -> Answer<()> {
        self.order(|done| Order::Raise(Box::new(raise), done))
    }

    /// Removes users and keys; tried once.
    pub fn forget(&self, gone: Gone) -> Answer<()> {
        self.order(|done| Order::Forget(gone, done))
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

struct Guard {
    server: ShardAddress,
    upstream: UpstreamConfig,
    rules: Option<Rules>,
    wanted: Wanted,
    link: Option<(SessionReader, SessionWriter)>,
}

impl Guard {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = self.next(&mut orders).await {
            // Whoever asked may have left; what was ordered is done all the same.
            match order {
                Order::Keep(wanted, done) => {
                    let kept = self.keep(wanted).await;
                    let _ = done.send(kept);
                }
                Order::Raise(raise, done) => {
                    let raised = self.raise(*raise).await;
                    let _ = done.send(raised);
                }
                Order::Forget(gone, done) => {
                    let forgotten = self.forget(&gone).await;
                    let _ = done.send(forgotten);
                }
                Order::Ask(requests, done) => {
                    let answers = self.once("a question", &requests).await;
                    let _ = done.send(answers);
                }
            }
        }
    }

    /// The next order; meanwhile the link is watched, and a lost one is made anew
    /// where something is to be kept behind it.
    async fn next(&mut self, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
        let mut pause = Duration::from_millis(REDIAL_MS_MIN);
        loop {
            let idle = async {
                match &mut self.link {
                    // Nothing is owed: what comes is the link's end.
                    Some((reader, _)) => {
                        tokio::select! {
                            _ = reader.read_reply() => false,
                            () = sleep(PING_EVERY) => true,
                        }
                    }
                    None => {
                        sleep(pause).await;
                        false
                    }
                }
            };
            let is_alive = tokio::select! {
                biased;
                order = orders.recv() => return order,
                is_alive = idle => is_alive,
            };
            if is_alive && self.once("PING", &[words(&["PING"])]).await.is_ok() {
                continue;
            }
            self.link = None;
            if self.wanted.is_empty() {
                pause = PING_EVERY;
            } else if self.apply().await.is_ok() {
                pause = Duration::from_millis(REDIAL_MS_MIN);
                tracing::info!(server = %self.server, "the link was lost; users and keys of the job are there again");
            } else {
                // Also after a refusal: a server that still loads has to be asked again.
                self.link = None;
                pause = (pause * 2).min(Duration::from_millis(REDIAL_MS_MAX));
            }
        }
    }

    /// What a server says no to is not wanted any longer.
    async fn keep(&mut self, wanted: Wanted) -> Result<(), PostError> {
        let before = self.wanted.clone();
        self.wanted.users.extend(wanted.users);
        self.wanted.keys.extend(wanted.keys);
        let kept = self.keep_trying().await;
        if kept.is_err() {
            self.wanted = before;
        }
        kept
    }

    /// Applies what is wanted until the server takes it; a no of the server ends it,
    /// unless it is one of a moment.
    async fn keep_trying(&mut self) -> Result<(), PostError> {
        let mut pause = Duration::from_millis(REDIAL_MS_MIN);
        loop {
            match self.apply().await {
                Err(error) if error.is_of_a_moment() => {
                    tracing::debug!(%error, "not there yet");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(REDIAL_MS_MAX));
                }
                done => return done,
            }
        }
    }

    async fn apply(&mut self) -> Result<(), PostError> {
        let mut block = Vec::new();
        if let Some(rules) = &self.rules {
            let users = self.wanted.users.values();
            block.extend(users.map(|(user, rights)| rules.set_user(user, *rights)));
        }
        for (key, value) in &self.wanted.keys {
            // Written even where it is to go: a fence under way must find it changed.
            block.push(words(&["SET", key, value.as_deref().unwrap_or("-")]));
            if value.is_none() {
                block.push(words(&["DEL", key]));
            }
        }
        if block.is_empty() {
            return Ok(());
        }
        self.block("users and keys of the job", block).await
    }

    /// A fence that is not confirmed is sent again, as long as it is wanted.
    async fn raise(&mut self, mut raise: Raise) -> Result<(), PostError> {
        let mut pause = Duration::from_millis(REDIAL_MS_MIN);
        loop {
            match self.raise_once(&raise).await {
                Ok(()) => {
                    let user = raise.user.clone();
                    self.wanted
                        .users
                        .insert(user.name.clone(), (user, Rights::Fenced));
                    let (key, value) = raise.key;
                    self.wanted.keys.insert(key, Some(value));
                    return Ok(());
                }
                Err(PostError::Link(error)) => {
                    self.link = None;
                    tracing::debug!(%error, "the fence is not confirmed yet");
                }
                Err(error) => return Err(error),
            }
            if !*raise.is_wanted.borrow() {
                // What lowers it writes the key that a late fence watches.
                return Err(PostError::GivenUp(self.server.clone()));
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = raise.is_wanted.wait_for(|wanted| !*wanted) => {}
            }
            pause = (pause * 2).min(Duration::from_millis(REDIAL_MS_MAX));
        }
    }

    async fn raise_once(&mut self, raise: &Raise) -> Result<(), PostError> {
        let rules = self.rules.as_ref();
        let fenced = rules.map(|rules| rules.set_user(&raise.user, Rights::Fenced));
        let (key, value) = &raise.key;
        let (channel, message) = &raise.marker;
        let watch = words(&["WATCH", key]);
        self.once("watch the fence key", &[watch]).await?;
        // From here on a fence that is lowered changes the key behind our WATCH.
        if !*raise.is_wanted.borrow() {
            return Err(PostError::GivenUp(self.server.clone()));
        }
        let mut block: Vec<Words> = fenced.into_iter().collect();
        block.push(words(&["SET", key, value]));
        block.push(vec![b"PUBLISH".to_vec(), channel.clone(), message.clone()]);
        self.block("the fence", block).await
    }

    async fn forget(&mut self, gone: &Gone) -> Result<(), PostError> {
        const DOING: &str = "remove users and keys of the job";
        let Gone { users, keys } = gone;
        for user in users {
            self.wanted.users.remove(user);
        }
        for key in keys {
            self.wanted.keys.remove(key);
        }
        let mut requests = Vec::new();
        if !keys.is_empty() {
            let mut del = words(&["DEL"]);
            del.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
            requests.push(del);
        }
        if !users.is_empty() && self.rules.is_some() {
            let mut del = words(&["ACL", "DELUSER"]);
            del.extend(users.iter().map(|user| user.as_bytes().to_vec()));
            requests.push(del);
        }
        let replies = self.once(DOING, &requests).await?;
        replies
            .into_iter()
            .try_for_each(|reply| self.accepted(DOING, reply))
    }

    /// All of it or nothing.
    async fn block(&mut self, doing: &'static str, block: Vec<Words>) -> Result<(), PostError> {
        let mut requests = vec![words(&["MULTI"])];
        requests.extend(block);
        requests.push(words(&["EXEC"]));
        let mut replies = self.once(doing, &requests).await?;
        let last = replies.pop();
        for reply in replies {
            self.accepted(doing, reply)?;
        }
        match last {
            Some(Value::Array(items)) => items
                .into_iter()
                .try_for_each(|item| self.accepted(doing, item)),
            Some(Value::Error(text)) => self.accepted(doing, Value::Error(text)),
            _ => Err(self.refused(
                doing,
                "EXEC did nothing: the fence key was changed meanwhile",
            )),
        }
    }

    fn accepted(&self, doing: &'static str, reply: Value) -> Result<(), PostError> {
        match reply {
            Value::Error(text) => Err(self.refused(doing, &String::from_utf8_lossy(&text))),
            _ => Ok(()),
        }
    }

    fn refused(&self, doing: &'static str, reply: &str) -> PostError {
        PostError::Refused {
            server: self.server.clone(),
            doing,
            reply: reply.to_owned(),
        }
    }

    /// Sends the requests and reads their replies, over a new link if need be.
    async fn once(
        &mut self,
        doing: &'static str,
        requests: &[Words],
    ) -> Result<Vec<Value>, PostError> {
        let (mut reader, mut writer) = match self.link.take() {
            Some(link) => link,
            None => self.dial(doing).await?,
        };
        for request in requests {
            let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            writer.queue(&args);
        }
        writer.flush().await?;
        let mut replies = Vec::with_capacity(requests.len());
        for _ in requests {
            replies.push(reader.read_reply().await?);
        }
        self.link = Some((reader, writer));
        Ok(replies)
    }

    async fn dial(&self, doing: &'static str) -> Result<(SessionReader, SessionWriter), PostError> {
        tracing::debug!(server = %self.server, doing, "dialling");
        let mut session = Session::connect(&self.server, &self.upstream).await?;
        // Older servers have no names; then ours cannot be told apart, which is all.
        session
            .call(&[b"CLIENT", b"SETNAME", CONNECTION_NAME.as_bytes()])
            .await?;
        Ok(session.split())
    }
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.keys.is_empty()
    }
}
