//! Requests that a shard refused because their epoch is over, kept until it is
//! known where they go.
//!
//! ```text
//!              -NOPERM, or AUTH refused                 a later route: sent there
//!   in flight ----------------------------> refused ----------------------------->
//!                                              |  \ the shard is not fenced: sent again,
//!                                              |   '  and a second -NOPERM is the reply
//!                                              '- nothing for `limits.max_hold`: -TRYAGAIN
//! ```
//! A shard that answers `-NOPERM` did not execute the request, so it is no
//! repetition. A user's rights are changed once, so what one connection sent is
//! refused from some request on: the refused ones are a suffix. Each client whose
//! request is refused sends nothing more until it is owed nothing, so its order
//! is kept also where its requests go to other connections now.
//!
//! Sent again: requests of one key, or of keys that are together on the new
//! route; split commands and parts of them, which the new route may part
//! further; scripts and publications; those that wait (BLPOP), with the rest of
//! their time. A WATCH that was refused watches nothing: it is answered by OK, and
//! its EXEC will be by null.
//! Answered by `-TRYAGAIN`, which is as safe, because nothing was executed: what
//! was not kept (more than `RETAINED_LARGE_BYTES_MAX` of one request,
//! `RETAINED_BYTES_MAX` of a connection), commands that ask every shard, and other
//! commands whose keys the new route parts. A transaction's EXEC is answered by the
//! shard itself, with EXECABORT.
//!
//! Invariants
//! - A request whose connection broke after it was sent is not among them.
//! - If a later request of the same client on the same connection was executed,
//!   its refused ones are not sent again: that would turn their order round.

use std::collections::VecDeque;

use tracing::warn;

use crate::metrics::latency::CommandClass;
use crate::metrics::pool::ErrorKind;
use crate::planted::{self, Planted};
use crate::resp::write_error;
use crate::router::address::ShardAddress;
use crate::upstream::pipe::{PipeError, Refused, Replies};

use super::core::{PoolCore, Ticket};
use super::dispatch::TRYAGAIN;
use super::intake::{HELD_BYTES_MAX, HELD_REQUESTS_MAX};
use super::private_pipes::Role;
use super::resending::Target;

/// How often the control side is told that requests wait for a route.
const TELL_MS: u64 = 50;
/// Time is looked at every 10 ms while something waits: after a gap of this much the
/// process did not run, and the news of the route had no chance to come.
const STOPPED_MS: u64 = 100;
/// What a shard says of a user it does not know.
const NO_SUCH_USER: &str = "WRONGPASS";

/// What becomes of a request when it is known where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is sent.
    Plain,
    /// Its client waits at a shard: it is taken anew, with the rest of its time.
    Waits,
    /// A WATCH.
    Watch,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct RefusedRequests {
    queue: VecDeque<Waiting>,
    /// Of the requests in the queue.
    bytes: usize,
    /// When the control side was last told of all servers, in milliseconds.
    told_ms: u64,
    /// When the time of those that wait was last looked at, in milliseconds.
    looked_ms: u64,
    /// The one it was told of last, and when.
    told: Option<(u64, ShardAddress)>,
    /// Since when some connection's user is not known to its shard.
    doubted_ms: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    /// Where it was refused.
    address: ShardAddress,
    pipe: u32,
    pub(super) lane: u32,
    kind: Kind,
    pub(super) request: Vec<u8>,
    /// Empty: it never left.
    reply: Vec<u8>,
    since_ms: u64,
    /// It was sent before the layout changed: it has another place by now.
    is_old: bool,
    /// A later request of its client on the same connection was executed.
    is_overtaken: bool,
}

impl PoolCore {
    /// As [`PoolCore::receive`], on a pipe whose requests may be refused.
    pub(super) fn receive_retained(
        &mut self,
        key: u32,
        bytes: Option<&[u8]>,
        is_original: bool,
    ) -> Result<(), PipeError> {
        let received = self.receive_for(key, bytes, |to, replies: Replies<'_, Ticket>| {
            to.chores.executed.push(replies.ticket.after(replies.first));
            match is_original {
                true => to.many_as_original(replies),
                false => to.many(replies),
            }
        });
        self.look_at_refused(key);
        received
    }

    pub(super) fn look_at_refused(&mut self, key: u32) {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        let refused = place.pipe.take_refused();
        if !refused.is_empty() {
            place.loaded.clear(); // a script may be among them
            for refused in refused {
                self.take_refused(key, refused);
            }
        }
        if !self.refused.queue.iter().any(|waiting| waiting.pipe == key) {
            return self.chores.executed.clear();
        }
        self.note_overtaken(key);
        for waiting in self.take_queue(|waiting| waiting.is_old) {
            self.send_on(waiting, false);
        }
    }

    fn note_overtaken(&mut self, key: u32) {
        for executed in std::mem::take(&mut self.chores.executed) {
            for waiting in &mut self.refused.queue {
                if waiting.pipe == key
                    && executed.is_of(waiting.ticket.client, waiting.ticket.generation)
                    && executed.is_after(waiting.ticket)
                {
                    waiting.is_overtaken = true;
                }
            }
        }
    }

    /// The handshake of a connection was refused: what waited for it never left.
    /// If the shard does not know the epoch's user, the epoch is over.
    pub(super) fn take_unsent(&mut self, key: u32, error: &PipeError) {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        let is_unknown = planted::is_on(Planted::RetryOfMaybeExecuted)
            || matches!(error, PipeError::Refused(text) if text.starts_with(NO_SUCH_USER));
        if !is_unknown || place.role == Role::Hub || self.logins.of(&place.address).is_none() {
            return;
        }
        let is_first = !self.pipes.iter().any(|(_, place)| place.is_doubted);
        if is_first {
            self.refused.doubted_ms = self.now_ms();
        }
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        place.is_doubted = true;
        let address = place.address.clone();
        for unsent in place.pipe.take_unsent() {
            self.take_refused(key, unsent);
        }
        self.tell_refusing(address);
        self.chores.clock = true;
    }

    fn tell_refusing(&mut self, address: ShardAddress) {
        let told = (self.now_ms(), address);
        if self.refused.told.as_ref() != Some(&told) {
            self.chores.refusing.push(told.1.clone());
            self.refused.told = Some(told);
        }
    }

    fn take_refused(&mut self, key: u32, refused: Refused<Ticket>) {
        let Some(place) = self.pipes.get(key as usize) else {
            return;
        };
        let ticket = refused.ticket.after(refused.index);
        let (kind, is_whole) = match place.role {
            Role::Watching { .. } => (Kind::Watch, true),
            Role::Waiting { .. } => (Kind::Waits, true),
            Role::Private { arriving, .. } => (Kind::Plain, !arriving),
            _ => (Kind::Plain, true),
        };
        let of_transaction = ticket.class == CommandClass::Transaction && kind != Kind::Watch;
        if ticket.is_of_nobody() || (of_transaction && !refused.reply.is_empty()) {
            return self.answer_late(ticket, &refused.reply);
        }
        let waiting = &self.refused;
        let request = refused.request.filter(|request| {
            is_whole
                && waiting.queue.len() < HELD_REQUESTS_MAX
                && waiting.bytes + self.held_bytes + request.len() <= HELD_BYTES_MAX
        });
        let Some(request) = request else {
            return self.answer_try_again(ticket);
        };
        if self.refused.queue.is_empty() {
            warn!(
                pool = %self.config.name,
                shard = %place.address,
                "a shard refused this epoch's user: looking for a later route"
            );
        }
        self.refused.bytes += request.len();
        let waiting = Waiting {
            ticket,
            address: place.address.clone(),
            pipe: key,
            lane: place.lane,
            kind,
            request,
            reply: refused.reply,
            since_ms: self.now_ms(),
            is_old: refused.number <= place.routed_at,
            is_overtaken: false,
        };
        self.tell_refusing(waiting.address.clone());
        self.refused.queue.push_back(waiting);
        self.chores.clock = true;
        if let Some(client) = self.clients.get_mut(ticket.client as usize)
            && client.generation == ticket.generation
            && client.settle_first()
        {
            self.paused.push_back(ticket.client);
        }
    }

    fn answer_late(&mut self, ticket: Ticket, reply: &[u8]) {
        let replies = Replies {
            ticket,
            first: 0,
            count: 1,
            sent_us: 0,
            bytes: reply,
        };
        self.delivery().many(replies);
    }

    fn answer_try_again(&mut self, ticket: Ticket) {
        self.counters.errors.of(ErrorKind::Fenced).inc();
        let mut reply = Vec::with_capacity(TRYAGAIN.len() + 3);
        write_error(&mut reply, TRYAGAIN);
        self.answer_late(ticket, &reply);
    }

    /// Sends all refused requests where the routing of now wants them.
    pub(super) fn send_refused(&mut self) {
        self.end_doubts(|_| true);
        for waiting in self.take_queue(|_| true) {
            self.send_on(waiting, false);
        }
    }

    /// A shard that refused requests is not fenced, and there is no later route.
    pub fn not_fenced(&mut self, address: &ShardAddress) {
        self.end_doubts(|doubted| doubted == address);
        for waiting in self.take_queue(|waiting| waiting.address == *address) {
            if waiting.is_overtaken {
                self.answer_late(waiting.ticket, &waiting.reply);
            } else {
                self.send_on(waiting, true);
            }
        }
        self.release_if_open();
    }

    fn take_queue(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let queue = std::mem::take(&mut self.refused.queue);
        let (taken, kept): (Vec<Waiting>, VecDeque<Waiting>) = {
            let mut taken = Vec::new();
            let mut kept = VecDeque::new();
            for waiting in queue {
                match wanted(&waiting) {
                    true => taken.push(waiting),
                    false => kept.push_back(waiting),
                }
            }
            (taken, kept)
        };
        self.refused.queue = kept;
        self.refused.bytes -= taken.iter().map(|w| w.request.len()).sum::<usize>();
        taken
    }

    fn send_on(&mut self, waiting: Waiting, is_doubtful: bool) {
        let ticket = waiting.ticket;
        if waiting.is_overtaken {
            return self.answer_try_again(ticket);
        }
        match waiting.kind {
            Kind::Plain => {}
            Kind::Waits => {
                let is_meant = is_doubtful && !waiting.reply.is_empty();
                return self.wait_anew(ticket, is_meant);
            }
            Kind::Watch if is_doubtful => return self.answer_late(ticket, &waiting.reply),
            Kind::Watch => {
                self.lose_watch(ticket, waiting.pipe);
                return self.answer_late(ticket, b"+OK\r\n");
            }
        }
        match self.target_of(&waiting) {
            Target::Pipe(pipe) if self.open_pipe(pipe) => {
                let now_us = self.now_us;
                if let Some(place) = self.pipes.get_mut(pipe as usize) {
                    place.pipe.send(&waiting.request, ticket, 1, now_us);
                    if is_doubtful && !waiting.reply.is_empty() {
                        place.pipe.pass_on_refusal_of_last();
                    }
                }
                self.mark_pipe(pipe);
            }
            Target::Pipe(pipe) => self.refuse_part(pipe, ticket),
            Target::Parts(kind) => self.send_in_parts(&waiting, kind),
            Target::Later => {
                let waiting = Waiting {
                    is_old: false, // it goes when the gate opens
                    ..waiting
                };
                self.refused.bytes += waiting.request.len();
                self.refused.queue.push_back(waiting);
            }
            Target::Nowhere => self.answer_try_again(ticket),
        }
    }

    /// Time passes: who waited too long is told to try again.
    pub(super) fn look_at_refused_time(&mut self) {
        let now_ms = self.now_ms();
        let gap_ms = now_ms.saturating_sub(self.refused.looked_ms);
        self.refused.looked_ms = now_ms;
        if gap_ms >= STOPPED_MS {
            let began_later = |since_ms: u64| now_ms.min(since_ms.saturating_add(gap_ms));
            for waiting in &mut self.refused.queue {
                waiting.since_ms = began_later(waiting.since_ms);
            }
            self.refused.doubted_ms = began_later(self.refused.doubted_ms);
        }
        let held_ms_max =
            u64::try_from(self.config.limits.held_max.as_millis()).unwrap_or(u64::MAX);
        let is_late = |since_ms: u64| now_ms.saturating_sub(since_ms) >= held_ms_max;
        for waiting in self.take_queue(|waiting| is_late(waiting.since_ms)) {
            self.answer_try_again(waiting.ticket);
        }
        if is_late(self.refused.doubted_ms) && self.pipes.iter().any(|(_, p)| p.is_doubted) {
            self.end_doubts(|_| true); // another connection tells whether it is still so
            self.release_if_open();
        }
        if !self.is_refused_somewhere() || now_ms.saturating_sub(self.refused.told_ms) < TELL_MS {
            return;
        }
        self.refused.told_ms = now_ms;
        let waiting = self.refused.queue.iter().map(|waiting| &waiting.address);
        let doubted = self.pipes.iter().filter(|(_, place)| place.is_doubted);
        let mut told: Vec<ShardAddress> = waiting
            .chain(doubted.map(|(_, place)| &place.address))
            .cloned()
            .collect();
        told.sort();
        told.dedup();
        self.chores.refusing.append(&mut told);
    }

    /// Whether requests wait for a route that the shards' servers must tell.
    pub(super) fn is_refused_somewhere(&self) -> bool {
        !self.refused.queue.is_empty() || self.pipes.iter().any(|(_, place)| place.is_doubted)
    }

    /// Connections whose user was refused may be made again.
    fn end_doubts(&mut self, of: impl Fn(&ShardAddress) -> bool) {
        for (_, place) in &mut self.pipes {
            if place.is_doubted && of(&place.address) {
                place.is_doubted = false;
                if place.pipe.refusal().is_some() {
                    place.pipe.rest();
                }
            }
        }
    }
}

impl Ticket {
    /// Whether it is of a later request than another one of the same client.
    fn is_after(self, other: Self) -> bool {
        let distance = self.sequence.wrapping_sub(other.sequence);
        (1..u32::MAX / 2).contains(&distance)
    }
}
