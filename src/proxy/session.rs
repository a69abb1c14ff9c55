//! Clients that are bound to a connection of their own, or whose requests are
//! kept back.
//!
//! ```text
//!            MULTI                         WATCH                    BLPOP ..
//!   (none) -------> transaction   (none) -------> watch   (none) ------------> waiting
//!     ^                  |           ^              |         ^                   |
//!     '--- EXEC, DISCARD-'           '- EXEC, ..----'         '---- its reply ----'
//! ```
//!
//! Invariants
//! - While a client watches or waits, each of its requests goes out when it is
//!   owed nothing: what it sends over two connections stays in order.
//! - A connection that watches or waits is used by nobody else, and is closed
//!   with its client: the shard must not keep a promise to someone who is gone.

use crate::metrics::latency::CommandClass;
use crate::resp::Request;
use crate::router::commands::{Command, SessionCommand};
use crate::router::errors::ErrorReply;

use super::client::{Client, Pause};
use super::core::PoolCore;
use super::dispatch::{Seat, Verdict};
use super::private_pipes::{Role, SESSION_PIPES_MAX};
use super::reader::Read;
use super::subscriptions::Subscriptions;
use super::transactions::{Transaction, Watch};
use super::unblocking::Wait;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Session {
    /// Since MULTI.
    pub transaction: Option<Transaction>,
    /// Since WATCH.
    pub watch: Option<Watch>,
    /// The pipe its last request waits on, if it is not answered yet.
    pub waits_on: Option<u32>,
    /// That request.
    pub wait: Option<Wait>,
    /// It was refused by a shard that is not fenced: if it is again, that is its reply.
    pub refusal_is_meant: bool,
    /// What it listens to.
    pub subscriptions: Subscriptions,
    /// Messages that wait for the end of a large reply.
    pub deferred: Vec<u8>,
    /// It did not say the password yet (`login.rs`).
    pub must_log_in: bool,
}

impl Session {
    fn is_over(&self) -> bool {
        self.transaction.is_none()
            && self.watch.is_none()
            && self.waits_on.is_none()
            && !self.refusal_is_meant
            && self.subscriptions.is_empty()
            && self.deferred.is_empty()
            && !self.must_log_in
    }

    /// Whether its requests go out one by one.
    pub(super) fn settles(&self) -> bool {
        self.watch.is_some() || self.waits_on.is_some()
    }
}

impl Client {
    /// What binds it; made at first use.
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.get_or_insert_default()
    }

    /// Forgets a session that binds it to nothing any more.
    pub(super) fn end_session(&mut self) {
        self.session.take_if(|session| session.is_over());
    }

    /// Whether it listens to channels.
    pub(super) fn is_subscriber(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| !session.subscriptions.is_empty())
    }

    /// Whether its last request waits at a shard for what others do.
    pub(super) fn is_waiting(&self) -> bool {
        let session = self.session.as_ref();
        self.owed() > 0 && session.is_some_and(|session| session.waits_on.is_some())
    }
}

impl PoolCore {
    /// Whether a client waits at a shard for what others do. If it leaves, the
    /// shard must know at once: what it would be given is lost otherwise.
    pub fn is_waiting(&self, key: u32) -> bool {
        let client = self.clients.get(key as usize);
        client.is_some_and(Client::is_waiting)
    }

    /// Why the next request of a client must wait.
    #[cold]
    pub(super) fn wait_in_session(&mut self, seat: &mut Seat) -> Option<Pause> {
        let now_ms = self.now_ms();
        let client = self.clients.get_mut(seat.key as usize)?;
        if client.goes_one_by_one() && client.owed() > 0 {
            return Some(Pause::Lane);
        }
        client.has_arrived(now_ms);
        if let Some(session) = &mut client.session {
            (session.waits_on, session.wait) = (None, None);
        }
        client.end_session();
        seat.in_session = client.is_looked_at();
        None
    }

    /// Takes a request of a client whose requests are looked at one by one.
    #[cold]
    pub(super) fn dispatch_in_session(
        &mut self,
        seat: &mut Seat,
        read: &Read<'_>,
        input: &[u8],
        at: usize,
    ) -> Verdict {
        let client = self.clients.get(seat.key as usize);
        if client.is_some_and(Client::must_log_in) {
            self.flush(seat, input);
            seat.stale = true;
            if let Some(verdict) = self.before_login(seat, read) {
                return verdict;
            }
        }
        let client = self.clients.get(seat.key as usize);
        let session = client.and_then(|client| client.session.as_ref());
        if session.is_some_and(|session| session.transaction.is_some()) {
            return self.dispatch_in_transaction(seat, read);
        }
        if let Ok(meant) = &read.meant
            && let Some(command) = meant.command()
            && let Some(refused) = self.refuse_to_subscriber(seat.key, command, &read.request)
        {
            return refused;
        }
        let is_last = at + read.request.consumed == input.len();
        match self.send_beside(seat, read, is_last) {
            Some(verdict) => verdict,
            None => self.dispatch(seat, read, input, at),
        }
    }

    /// Commands that begin or end a session.
    #[cold]
    pub(super) fn session_command(
        &mut self,
        seat: &mut Seat,
        session: SessionCommand,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Verdict {
        match session {
            SessionCommand::Multi => self.multi(seat),
            SessionCommand::Exec => {
                self.answer_error(seat.key, &ErrorReply::new("ERR EXEC without MULTI"))
            }
            SessionCommand::Discard => {
                self.answer_error(seat.key, &ErrorReply::new("ERR DISCARD without MULTI"))
            }
            SessionCommand::Watch => self.watch(seat, command, request),
            SessionCommand::Unwatch => {
                self.end_watch(seat.key);
                self.answer(seat.key, b"+OK\r\n")
            }
            SessionCommand::Block => self.block(seat, command, request),
            SessionCommand::Subscribe(kind) => self.subscribe(seat, kind, request),
            SessionCommand::Unsubscribe(kind) => self.unsubscribe(seat, kind, request),
            SessionCommand::Publish => self.publish(seat, command, request),
        }
    }

    /// Sends a request that may wait at its shard, on a connection of its own.
    fn block(&mut self, seat: &mut Seat, command: &Command, request: &Request<'_>) -> Verdict {
        let shard = match self.shard_of(seat.key, command, request) {
            Ok(shard) => shard,
            Err(verdict) => return verdict,
        };
        if self.is_owed(seat.key) {
            return Verdict::Wait(Pause::Lane);
        }
        let Some(shared) = self.pipe_for(seat, shard) else {
            return Verdict::End;
        };
        let pipe = match self.session_pipe(seat.key, shared) {
            Ok(pipe) => pipe,
            Err(verdict) => return verdict,
        };
        if let Some(place) = self.pipes.get_mut(pipe as usize) {
            place.role = Role::Waiting { client: seat.key };
            place.is_woken = false;
        }
        self.ask_id(pipe);
        let keys = self.key_args.iter();
        let keys = keys.map(|arg| request.arg(arg.index as usize).into());
        let wait = Wait {
            request: request.bytes.into(),
            keys: keys.collect(),
            since_us: self.now_us,
        };
        if let Some(client) = self.clients.get_mut(seat.key as usize) {
            let session = client.session();
            (session.waits_on, session.wait) = (Some(pipe), Some(wait));
            let is_meant = std::mem::take(&mut session.refusal_is_meant);
            self.send_alone(seat, pipe, CommandClass::Waiting, request.bytes);
            if is_meant && let Some(place) = self.pipes.get_mut(pipe as usize) {
                place.pipe.pass_on_refusal_of_last();
            }
        }
        Verdict::Taken
    }

    pub(super) fn is_owed(&self, key: u32) -> bool {
        let client = self.clients.get(key as usize);
        client.is_some_and(|client| client.owed() > 0)
    }

    /// A connection for one client, beside the shared one.
    ///
    /// # Errors
    /// There is none: the client was answered.
    pub(super) fn session_pipe(&mut self, key: u32, shared: u32) -> Result<u32, Verdict> {
        if let Some(stop) = self.not_now(key, shared) {
            return Err(stop);
        }
        let Some(pipe) = self.take_for_session(shared) else {
            let text = format!(
                "ERR {SESSION_PIPES_MAX} connections of this worker to that shard are taken by \
                 clients that wait or watch"
            );
            return Err(self.answer_error(key, &ErrorReply::new(text)));
        };
        self.open_pipe(pipe);
        Ok(pipe)
    }

    /// Sends one request on a pipe, whatever waits there.
    pub(super) fn send_alone(
        &mut self,
        seat: &mut Seat,
        pipe: u32,
        class: CommandClass,
        bytes: &[u8],
    ) {
        seat.stale = true;
        self.send(seat, pipe, class, bytes, 1);
    }

    /// A client is gone, or begins anew: its connections are closed.
    pub(super) fn drop_session(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        let generation = client.generation;
        let Some(session) = client.session.take() else {
            return;
        };
        self.drop_subscriptions(key, generation, session.subscriptions);
        let watch = session.watch.and_then(|watch| watch.pipe);
        for pipe in [session.waits_on, watch].into_iter().flatten() {
            let is_own = self.pipes.get(pipe as usize).is_some_and(|place| {
                [
                    Role::Waiting { client: key },
                    Role::Watching { client: key },
                ]
                .contains(&place.role)
            });
            if is_own {
                self.abandon(pipe);
            }
        }
    }

    /// The connection of a session is gone.
    pub(super) fn session_pipe_lost(&mut self, key: u32, pipe: u32) {
        let session = self
            .clients
            .get_mut(key as usize)
            .and_then(|client| client.session.as_mut());
        if let Some(watch) = session.and_then(|session| session.watch.as_mut())
            && watch.pipe == Some(pipe)
        {
            watch.pipe = None;
        }
    }
}
