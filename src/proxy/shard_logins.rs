//! As whom the connections of a pool log in: as an epoch's user where the job
//! gave one for the server, and with the configured credentials elsewhere.
//!
//! ```text
//! announce    AUTH e    on every connection, between two requests; then answered
//! hold        AUTH e+1  likewise, when the gate is shut: what goes on, goes on as e+1
//! commit      e+1 stays            abort, lease   AUTH e
//! ```
//!
//! | connection | what becomes of it |
//! |---|---|
//! | shared, detached, watching | AUTH between two requests |
//! | spare | closed |
//! | a large request is arriving | closed when it is answered, and waited for |
//! | a client waits on it (BLPOP) | its client is woken, to wait on a new one (`unblocking.rs`); closed when it is answered, not waited for |
//! | of the hub | stays as configured: one that subscribed in RESP2 cannot AUTH, making it anew would lose messages, and it never writes |
//!
//! A connection whose AUTH was refused takes no more requests, and is closed when it
//! has answered those that it has: they are the old user's.
//!
//! Invariant: what is sent as an epoch's user is kept until it is answered
//! (`upstream::pipe`), so that it can be sent elsewhere if it was refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::metrics::latency::CommandClass;
use crate::planted::{self, Planted};
use crate::router::address::ShardAddress;
use crate::router::layout::Layout;
use crate::upstream::config::{Credentials, Secret};
use crate::upstream::pipe::PipeError;

use super::control::{RefusalReason, ShardLogin, SwitchRefusal};
use super::core::{PoolCore, Ticket};
use super::private_pipes::Role;
use super::scripts::NOBODY;

/// Of the ticket of an AUTH; 0 is a SCRIPT LOAD's.
const LOGIN: u32 = 1;
/// Whose password is any, where no credentials are configured.
const DEFAULT_USER: &str = "default";

/// As whom to log in, by server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins(BTreeMap<ShardAddress, Credentials>);

impl Logins {
    /// As the admin API and the state file have them.
    ///
    /// # Errors
    /// One of them has no address.
    pub fn read(list: &[ShardLogin]) -> Result<Self, SwitchRefusal> {
        let mut logins = BTreeMap::new();
        for login in list {
            let address = login.addr.parse().map_err(|error| SwitchRefusal {
                reason: RefusalReason::LoginRefused,
                error: format!("the login for `{}`: {error}", login.addr),
            })?;
            let credentials = Credentials {
                username: Some(login.user.clone()),
                password: Secret::new(login.password.clone()),
            };
            logins.insert(address, credentials);
        }
        Ok(Self(logins))
    }

    /// The epoch's user of a server.
    pub fn of(&self, address: &ShardAddress) -> Option<&Credentials> {
        self.0.get(address)
    }

    /// Each server with its user.
    pub fn iter(&self) -> impl Iterator<Item = (&ShardAddress, &Credentials)> {
        self.0.iter()
    }

    /// Those of `later`, and ours for the servers that it has none for.
    #[must_use]
    pub fn with(&self, later: &Self) -> Self {
        let mut both = self.0.clone();
        both.extend(later.0.clone());
        Self(both)
    }

    /// Ours, and those of `later` for the servers that `layout` does not have:
    /// nothing is sent to them yet.
    #[must_use]
    pub fn with_new(&self, later: &Self, layout: &Layout) -> Self {
        let is_old = |address: &ShardAddress| {
            let mut shards = layout.shards().iter();
            shards.any(|shard| shard.address == *address)
        };
        let mut both = self.0.clone();
        let new = later.0.iter().filter(|(address, _)| !is_old(address));
        both.extend(new.map(|(address, login)| (address.clone(), login.clone())));
        Self(both)
    }
}

/// Told when every connection has logged in: a refusal in the shard's words.
pub type LoginsConfirmed = oneshot::Sender<Result<(), String>>;

/// What a core knows of logins.
#[derive(Default)]
pub struct LoginState {
    now: Arc<Logins>,
    /// Connections that have not logged in yet: (pipe, answers to reach).
    marks: Vec<(u32, u64)>,
    done: Option<LoginsConfirmed>,
    /// What a shard said of an AUTH since the last change.
    refused: Option<String>,
}

impl LoginState {
    /// The epoch's user of a server.
    pub fn of(&self, address: &ShardAddress) -> Option<&Credentials> {
        self.now.of(address)
    }

    /// A refused AUTH since the last change.
    pub fn refusal(&self) -> Result<(), String> {
        self.refused.clone().map_or(Ok(()), Err)
    }
}

impl Ticket {
    fn of_login(pipe: u32) -> Self {
        Self {
            client: NOBODY,
            generation: pipe,
            sequence: LOGIN,
            class: CommandClass::Part,
            part: None,
        }
    }

    /// The pipe whose AUTH a reply refuses.
    #[cold]
    pub(super) fn refused_login(self, reply: &[u8]) -> Option<u32> {
        let is_refused = reply.first() == Some(&b'-');
        (self.is_of_nobody() && self.sequence == LOGIN && is_refused).then_some(self.generation)
    }
}

impl PoolCore {
    /// Logs in as these from now on. See the head of this file.
    pub fn use_logins(&mut self, logins: &Arc<Logins>) {
        self.logins.refused = None;
        if self.logins.now == *logins {
            return;
        }
        let before = std::mem::replace(&mut self.logins.now, Arc::clone(logins));
        let changed: Vec<u32> = self
            .pipes
            .iter()
            .filter(|(_, place)| before.of(&place.address) != logins.of(&place.address))
            .map(|(key, _)| key as u32)
            .collect();
        for key in changed {
            self.log_in_on(key);
        }
    }

    /// The same; `done` is told when every connection has.
    pub fn use_logins_and_tell(&mut self, logins: &Arc<Logins>, done: LoginsConfirmed) {
        self.use_logins(logins);
        self.logins.done = Some(done);
        self.check_logins();
    }

    fn log_in_on(&mut self, key: u32) {
        if planted::is_on(Planted::LoginKeptOld) {
            return;
        }
        let Some(place) = self.pipes.get(key as usize) else {
            return;
        };
        let (lane, address) = (place.lane, place.address.clone());
        match place.role {
            Role::Hub => return,
            Role::Spare { .. } => return self.abandon(key),
            Role::Waiting { .. } => {
                self.close_when_answered(key);
                return self.unblock(key);
            }
            Role::Private { arriving: true, .. } => {
                self.logins.marks.push((key, place.pipe.sent()));
                return self.close_when_answered(key);
            }
            Role::Shared | Role::Detached | Role::Watching { .. } | Role::Private { .. } => {}
        }
        let greeting = self.greeting(lane, &address);
        let as_whom = greeting.credentials.clone().unwrap_or_else(|| Credentials {
            username: Some(DEFAULT_USER.into()),
            password: Secret::new(DEFAULT_USER),
        });
        let keeps = self.logins.of(&address).is_some();
        let now_us = self.now_us;
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.pipe.set_greeting(greeting);
            place.pipe.retain(keeps);
            if place.pipe.log_in(&as_whom, Ticket::of_login(key), now_us) {
                self.logins.marks.push((key, place.pipe.sent()));
                self.mark_pipe(key);
            }
        }
    }

    /// An AUTH was refused: the connection still is its old user's.
    fn leave_old_user(&mut self, key: u32, words: String) {
        self.detach(key);
        match self.pipes.get(key as usize).map(|place| place.role) {
            Some(Role::Detached | Role::Private { .. }) => {
                self.close_when_answered(key);
                self.drop_if_retired(key);
            }
            // There are too many others, or it watches as the old user.
            Some(Role::Shared | Role::Watching { .. } | Role::Spare { .. }) => {
                self.pipe_failed(key, PipeError::Refused(words));
            }
            Some(Role::Waiting { .. } | Role::Hub) | None => {}
        }
    }

    fn close_when_answered(&mut self, key: u32) {
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.retired = true;
        }
    }

    /// Looks whether every connection has logged in by now.
    pub(super) fn check_logins(&mut self) {
        while let Some((pipe, words)) = self.chores.refused_logins.pop() {
            let shard = self.pipes.get(pipe as usize);
            let shard = shard.map_or("?", |place| place.shard.as_str());
            self.logins.refused = Some(format!("shard {shard}: {words}"));
            self.leave_old_user(pipe, words);
        }
        if self.logins.marks.is_empty() && self.logins.done.is_none() {
            return;
        }
        let pipes = &self.pipes;
        self.logins.marks.retain(|&(key, mark)| {
            pipes
                .get(key as usize)
                .is_some_and(|place| place.pipe.answered() < mark)
        });
        if self.logins.marks.is_empty()
            && let Some(done) = self.logins.done.take()
        {
            // Who asked may have stopped waiting.
            let _ = done.send(self.logins.refusal());
        }
    }
}
