//! What carries a post's orders out: one task, one connection, one order at a time.
//!
//! ```text
//! idle -- order --> asking -- reply --> idle
//!   '-- link lost --> dialling --> all that is to be there, again --> idle
//! ```
//! What was ordered first is there first. A server that restarts has forgotten the
//! users; the lost link tells us, and they are made anew with the rights they are
//! to have then.
//!
//! A fence that was sent and not confirmed may still arrive. So its transaction
//! watches the fence key, and what lowers the fence writes that key: whichever
//! is executed last, the fence is down after it was lowered. A server that is kept
//! from writes takes no key: there the settings go first, and once more after it.
//!
//! What a lost connection was sent may lie in its socket and be executed behind what
//! comes later. So a new one first ends those of its name, at the server.
//!
//! Invariant: while a fence is neither confirmed nor given up, nothing else is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::OwnNames;
use super::post::{CONNECTION_NAME, Gone, Means, Order, Patience, PostError, Raise, Wanted};
use super::waiters::{Waiters, waiting};
use crate::reshard::fence::{EpochUser, Rights, Words, words};
use crate::reshard::mover::client_ids;
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{Session, SessionReader, SessionWriter};

/// How often an idle link is tried.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Pause before the first try to dial again; it doubles.
const REDIAL_MS_MIN: u64 = 10;

/// Longest pause between two tries.
const REDIAL_MS_MAX: u64 = 250;

/// The task's state.
pub(super) struct Guard {
    /// What its connections are called.
    name: String,
    server: ShardAddress,
    upstream: UpstreamConfig,
    means: Means,
    wanted: Wanted,
    link: Option<(SessionReader, SessionWriter)>,
}

impl Guard {
    pub(super) fn new(
        job: &str,
        server: ShardAddress,
        upstream: UpstreamConfig,
        means: Means,
    ) -> Self {
        Self {
            name: format!("{CONNECTION_NAME}:{job}"),
            server,
            upstream,
            means,
            wanted: Wanted::default(),
            link: None,
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = self.next(&mut orders).await {
            // Whoever asked may have left; what was ordered is done all the same.
            match order {
                Order::Keep(wanted, patience, done) => {
                    let kept = self.keep(wanted, patience).await;
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
                Order::Wake(whose, own, done) => {
                    let woken = self.wake(&whose, &own).await;
                    let _ = done.send(woken);
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
    async fn keep(&mut self, wanted: Wanted, patience: Patience) -> Result<(), PostError> {
        let before = self.wanted.clone();
        let are_open = wanted
            .users
            .values()
            .all(|(_, rights)| *rights == Rights::Open);
        let opening = match are_open {
            true => wanted.users.clone(),
            false => Default::default(),
        };
        self.wanted.extend(wanted);
        let kept = self.keep_trying(patience, &opening).await;
        if kept.is_err() {
            self.wanted = before;
        }
        kept
    }

    /// Applies what is wanted until the server takes it; a no of the server ends it,
    /// unless it is one that passes. Users that are to be let in are, though the server
    /// takes no key.
    async fn keep_trying(
        &mut self,
        patience: Patience,
        opening: &BTreeMap<String, (EpochUser, Rights)>,
    ) -> Result<(), PostError> {
        let mut pause = Duration::from_millis(REDIAL_MS_MIN);
        let begun = Instant::now();
        let mut was_refused = false;
        loop {
            let error = match self.apply().await {
                Err(error) if error.is_of_a_moment() => error,
                done => return done,
            };
            if let PostError::Refused { .. } = &error {
                if let Patience::For(longest) = patience
                    && begun.elapsed() >= longest
                {
                    return Err(error);
                }
                if !was_refused {
                    tracing::warn!(%error, "trying again");
                }
                was_refused = true;
                let users = self.set_users(opening);
                if !users.is_empty() {
                    // What comes of it is seen when all of it is tried again.
                    drop(self.once("users of the job", &users).await);
                }
            } else {
                tracing::debug!(%error, "not there yet");
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(REDIAL_MS_MAX));
        }
    }

    fn set_users(&self, users: &BTreeMap<String, (EpochUser, Rights)>) -> Vec<Words> {
        let Means::Users(rules) = &self.means else {
            return Vec::new();
        };
        let users = users.values();
        users
            .map(|(user, rights)| rules.set_user(user, *rights))
            .collect()
    }

    async fn apply(&mut self) -> Result<(), PostError> {
        const SETTINGS: &str = "set how many replicas a write takes";
        let (first, last) = match (&self.means, self.wanted.writes) {
            (Means::MinReplicas(settings), Some(Rights::Open)) => {
                (settings.restored(), settings.restored())
            }
            (Means::MinReplicas(settings), Some(Rights::Fenced)) => (Vec::new(), settings.raised()),
            _ => (Vec::new(), Vec::new()),
        };
        self.each(SETTINGS, &first).await?;
        let mut block = self.set_users(&self.wanted.users);
        for (key, value) in &self.wanted.keys {
            // Written even where it is to go: a fence under way must find it changed.
            block.push(words(&["SET", key, value.as_deref().unwrap_or("-")]));
            if value.is_none() {
                block.push(words(&["DEL", key]));
            }
        }
        if !block.is_empty() {
            self.block("users and keys of the job", block).await?;
        }
        self.each(SETTINGS, &last).await
    }

    /// One after the other, each accepted.
    async fn each(&mut self, doing: &'static str, requests: &[Words]) -> Result<(), PostError> {
        if requests.is_empty() {
            return Ok(());
        }
        let replies = self.once(doing, requests).await?;
        replies
            .into_iter()
            .try_for_each(|reply| self.accepted(doing, reply))
    }

    /// A fence that is not confirmed is sent again, as long as it is wanted.
    async fn raise(&mut self, mut raise: Raise) -> Result<(), PostError> {
        let mut pause = Duration::from_millis(REDIAL_MS_MIN);
        loop {
            match self.raise_once(&raise).await {
                Ok(()) => {
                    self.wanted.extend(self.raised(raise));
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

    /// What is to be kept of a fence.
    fn raised(&self, raise: Raise) -> Wanted {
        let mut wanted = Wanted::default();
        match self.means {
            Means::MinReplicas(_) => wanted.writes = Some(Rights::Fenced),
            Means::Users(_) | Means::Keys => {
                let (key, value) = raise.key;
                wanted.keys.insert(key, Some(value));
                let user = raise.user.into_iter();
                let user = user.map(|user| (user.name.clone(), (user, Rights::Fenced)));
                wanted.users.extend(user);
            }
        }
        wanted
    }

    async fn raise_once(&mut self, raise: &Raise) -> Result<(), PostError> {
        let (key, value) = &raise.key;
        let (channel, message) = &raise.marker;
        let watch = words(&["WATCH", key]);
        self.once("watch the fence key", &[watch]).await?;
        // From here on a fence that is lowered changes the key behind our WATCH.
        if !*raise.is_wanted.borrow() {
            return Err(PostError::GivenUp(self.server.clone()));
        }
        let mut block = match (&self.means, &raise.user) {
            // It takes no key after that, should this be sent twice.
            (Means::MinReplicas(settings), _) => settings.raised(),
            (Means::Users(rules), Some(user)) => vec![
                rules.set_user(user, Rights::Fenced),
                words(&["SET", key, value]),
            ],
            _ => vec![words(&["SET", key, value])],
        };
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
        if let (Means::MinReplicas(settings), Some(_)) = (&self.means, self.wanted.writes.take()) {
            requests.extend(settings.restored());
        }
        if !keys.is_empty() {
            let mut del = words(&["DEL"]);
            del.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
            requests.push(del);
        }
        if !users.is_empty() && matches!(self.means, Means::Users(_)) {
            let mut del = words(&["ACL", "DELUSER"]);
            del.extend(users.iter().map(|user| user.as_bytes().to_vec()));
            requests.push(del);
        }
        self.each(DOING, &requests).await
    }

    /// Ends waits, until the server has done it.
    async fn wake(&mut self, whose: &Waiters, own: &OwnNames) -> Result<(), PostError> {
        let mut pause = Duration::from_millis(REDIAL_MS_MIN);
        loop {
            match self.wake_once(whose, own).await {
                Err(error) if error.is_of_a_moment() => {
                    tracing::debug!(%error, "not there yet");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(REDIAL_MS_MAX));
                }
                done => return done,
            }
        }
    }

    async fn wake_once(&mut self, whose: &Waiters, own: &OwnNames) -> Result<(), PostError> {
        const DOING: &str = "end waits of late proxies";
        let list = self.once(DOING, &[words(&["CLIENT", "LIST"])]).await?;
        let list = match list.into_iter().next() {
            Some(Value::Error(text)) => return self.accepted(DOING, Value::Error(text)),
            list => list,
        };
        let text = list.as_ref().and_then(Value::as_bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(text).into_owned();
        for id in waiting(&text, whose, own) {
            let unblock = words(&["CLIENT", "UNBLOCK", &id, "ERROR"]);
            let reply = self.once(DOING, &[unblock]).await?.pop();
            if let Some(Value::Error(_)) = reply {
                // Redis before 5.0. What it waited for it has not got.
                let kill = words(&["CLIENT", "KILL", "ID", &id]);
                self.each(DOING, &[kill]).await?;
            }
            tracing::info!(server = %self.server, id, "the wait of a late proxy's client was ended");
        }
        Ok(())
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
        self.end_older(&mut session).await?;
        // Older servers have no names; then ours cannot be told apart, which is all.
        session
            .call(&[b"CLIENT", b"SETNAME", self.name.as_bytes()])
            .await?;
        Ok(session.split())
    }

    /// Where users or settings are a fence, it is none if this is refused.
    async fn end_older(&self, session: &mut Session) -> Result<(), PostError> {
        const DOING: &str = "end older connections of the job (CLIENT LIST, CLIENT KILL)";
        let list = session.call(&[b"CLIENT", b"LIST"]).await?;
        let is_needed = !matches!(self.means, Means::Keys);
        if is_needed && let Value::Error(text) = list {
            return Err(self.refused(DOING, &String::from_utf8_lossy(&text)));
        }
        let list = String::from_utf8_lossy(list.as_bytes().unwrap_or_default()).into_owned();
        for id in client_ids(&list, |name| name == self.name) {
            let killed = session
                .call(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()])
                .await?;
            if is_needed && let Value::Error(text) = killed {
                return Err(self.refused(DOING, &String::from_utf8_lossy(&text)));
            }
            tracing::debug!(server = %self.server, id, "an older connection of the job was ended");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
