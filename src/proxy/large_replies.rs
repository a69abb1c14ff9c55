//! Large replies: handed over while they arrive, on a pipe that left its lane.
//!
//! ```text
//!            large           its turn came         last byte
//!   (whole) ------> held ----------------> passing ----------> (whole)
//!                    |                        |
//!                    |  as much kept for the client as the window takes,
//!                    |  or ahead of the pace and nobody waits behind it
//!                    '--------> stopped <-----'   no more is read from the pipe
//!                                  |
//!        half of it is gone, its turn came, or others waited behind it long enough
//! ```
//!
//! Invariants
//! - A reply passes only when it is its client's next; parts of a fan-out never.
//! - What a passing reply waits for is its client alone: parked replies go after
//!   it, so it never waits for them.
//! - Others wait behind a reply as long as its client takes it at
//!   [`PACE_BYTES_PER_S_MIN`] and pauses no longer than [`OTHERS_WAIT_US_MAX`];
//!   after that it is read on, up to `limits.max_client_buffer`.
//! - A client that got a part of a reply gets its rest, or its connection is
//!   closed.

use std::mem;

use crate::upstream::pipe::{LARGE_BYTES_MIN, LargeReply};

use super::core::{PoolCore, Ticket};
use super::large_requests::WINDOW_BYTES;
use super::private_pipes::Role;

/// How long replies to other clients wait behind a reply of which nothing is read.
pub const OTHERS_WAIT_US_MAX: u64 = 2_000_000;
/// Who takes a large reply faster may keep others waiting until it is through.
const PACE_BYTES_PER_S_MIN: u64 = 16 * 1024 * 1024;
/// How often a stopped pipe's reply is held against that pace.
const PACE_LOOK_US: u64 = 100_000;

/// A shared pipe leaves its lane when a reply has more bytes than this, or when
/// its client does not keep up.
const DETACH_BYTES_MIN: usize = LARGE_BYTES_MIN;

/// The large reply of one pipe.
#[derive(Debug, Clone, Copy)]
pub struct Passage {
    client: u32,
    generation: u32,
    sequence: u32,
    /// Bytes that were handed over when it was last looked at.
    passed_bytes: u64,
    /// Bytes that its client took.
    taken_bytes: u64,
    /// For how long the pipe may not be read while others wait.
    credit_us: u64,
    /// Since when the pipe is not read, or when it was last looked at since.
    stopped_us: Option<u64>,
    /// Others waited behind it: it is not stopped again.
    let_through: bool,
}

impl Passage {
    fn of(ticket: Ticket) -> Self {
        Self {
            client: ticket.client,
            generation: ticket.generation,
            sequence: ticket.sequence,
            passed_bytes: 0,
            taken_bytes: 0,
            credit_us: OTHERS_WAIT_US_MAX,
            stopped_us: None,
            let_through: false,
        }
    }

    /// Others have waited behind the client's last reply on this pipe, too.
    fn after(self, last: Option<Self>) -> Self {
        let is_same =
            |last: &Self| (last.client, last.generation) == (self.client, self.generation);
        match last.filter(is_same) {
            Some(last) => Self {
                credit_us: last.credit_us,
                let_through: last.let_through,
                ..self
            },
            None => self,
        }
    }

    fn is_of(&self, ticket: Ticket) -> bool {
        ticket.is_of(self.client, self.generation) && self.sequence == ticket.sequence
    }

    /// Its client took `taken_bytes` in all: what is new of them is worth time,
    /// and the time since the pipe was stopped, or last looked at since, is spent.
    fn settle_credit(&mut self, taken_bytes: u64, now_us: u64) {
        let new_bytes = taken_bytes.saturating_sub(self.taken_bytes);
        let worth_us = new_bytes.saturating_mul(1_000_000) / PACE_BYTES_PER_S_MIN;
        let credit_us = (self.credit_us + worth_us).min(OTHERS_WAIT_US_MAX);
        let waited_us = self
            .stopped_us
            .map_or(0, |since_us| now_us.saturating_sub(since_us));
        self.credit_us = credit_us.saturating_sub(waited_us);
        self.taken_bytes = taken_bytes;
        self.stopped_us = self.stopped_us.map(|_| now_us);
    }
}

/// The request that a large reply answers.
fn ticket_of(large: LargeReply<Ticket>) -> Ticket {
    large.ticket.after(large.index)
}

impl PoolCore {
    /// Whether the driver may read from a pipe now.
    #[inline]
    pub fn may_read_pipe(&self, key: u32) -> bool {
        self.pipes.get(key as usize).is_some_and(|place| {
            place
                .passage
                .is_none_or(|passage| passage.stopped_us.is_none())
        })
    }

    /// Whether a pipe's reply passes on as it arrives.
    pub fn is_passing(&self, key: u32) -> bool {
        let place = self.pipes.get(key as usize);
        place.is_some_and(|place| place.pipe.is_passing())
    }

    /// Looks at a pipe that received a part of a large reply, or the end of one.
    #[cold]
    pub(super) fn look_at_large(&mut self, key: u32) {
        // Behind what was passed on, the next large reply may have begun.
        while self.look_at_front(key) {}
        self.look_at_window(key);
    }

    /// Whether the front reply was passed on, so that another may be in front.
    fn look_at_front(&mut self, key: u32) -> bool {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return false;
        };
        let large = place.pipe.large();
        if let Some(ended) = place.passage
            && large.is_none_or(|large| !ended.is_of(ticket_of(large)))
        {
            place.passage = None;
            place.last_passage = Some(ended);
            self.end_passage(ended);
        }
        let Some(large) = large else { return false };
        let ticket = ticket_of(large);
        if ticket.part.is_some() {
            return false; // it is put together with others
        }
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return false;
        };
        let last = place.last_passage;
        place
            .passage
            .get_or_insert_with(|| Passage::of(ticket).after(last));
        if large.bytes_min > DETACH_BYTES_MIN {
            self.detach(key);
        }
        let passes = !large.passing && self.is_turn_of(ticket);
        if passes {
            self.pass_on(key, ticket);
        }
        passes
    }

    pub(super) fn end_passage(&mut self, ended: Passage) {
        let now_ms = self.now_ms();
        if let Some(client) = self.clients.get_mut(ended.client as usize)
            && client.generation == ended.generation
        {
            client.receives_large = false;
            client.got_large(ended.passed_bytes, now_ms);
            if let Some(session) = &mut client.session {
                client.out.append(&mut session.deferred);
            }
            if client.out.is_empty() {
                client.out = Vec::new();
            }
        }
    }

    fn is_turn_of(&self, ticket: Ticket) -> bool {
        self.clients
            .get(ticket.client as usize)
            .filter(|client| client.generation == ticket.generation)
            .is_none_or(|client| client.is_next(ticket.sequence))
    }

    fn pass_on(&mut self, key: u32, ticket: Ticket) {
        self.counters.large_replies_total.inc();
        if let Some(client) = self.clients.get_mut(ticket.client as usize)
            && client.generation == ticket.generation
        {
            client.receives_large = true;
        }
        if let Err(error) = self.receive(key, None) {
            self.pipe_failed(key, error);
        }
    }

    /// Stops reading a pipe whose reply nobody takes.
    fn look_at_window(&mut self, key: u32) {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        let (Some(passage), Some(large)) = (&mut place.passage, place.pipe.large()) else {
            return;
        };
        let before = mem::replace(&mut passage.passed_bytes, large.passed_bytes);
        let new_bytes = large.passed_bytes.saturating_sub(before);
        self.pace.spend(before, new_bytes);
        let client = self
            .clients
            .get_mut(passage.client as usize)
            .filter(|client| client.generation == passage.generation);
        let Some(client) = client else {
            // Read to its end for those behind it.
            if place.pipe.in_flight() == 1 && place.role == Role::Detached {
                self.abandon(key);
            }
            return;
        };
        // What a passing reply holds is an unfinished line: it needs more, not
        // less. What is parked leaves after it, so it can't wait for that.
        let waiting = match large.passing {
            true => client.unwritten(),
            false => large.held_bytes.max(client.parked()),
        };
        let (key_of, generation) = (passage.client, passage.generation);
        let is_ahead = large.passing && !self.pace.lets_pass(large.passed_bytes);
        let keeps_others = (passage.let_through || is_ahead)
            && place
                .pipe
                .tickets()
                .any(|ticket| !ticket.is_of(key_of, generation));
        passage.let_through &= keeps_others;
        if passage.let_through {
            if client.kept() + large.held_bytes > self.config.limits.client_buffer_bytes_max {
                client.overrun = true;
                self.mark_client(large.ticket.client);
            }
        } else if (waiting >= WINDOW_BYTES || is_ahead && !keeps_others)
            && passage.stopped_us.is_none()
        {
            passage.stopped_us = Some(self.now_us);
            self.stopped_pipes.push(key);
            self.chores.clock = true;
            self.detach(key);
        }
    }

    /// Reads pipes again whose clients took what they had, and those that have
    /// kept others waiting.
    pub(super) fn restart_pipes(&mut self) {
        if self.stopped_pipes.is_empty() {
            return;
        }
        self.look_at_pace();
        for key in mem::take(&mut self.stopped_pipes) {
            // What stopped it may have ended in the meantime: its socket has
            // bytes that no event will tell of again.
            let goes_on = self.may_read_pipe(key);
            if goes_on || self.may_restart(key) {
                if !goes_on {
                    self.restart(key);
                }
                if self.may_read_pipe(key) {
                    self.chores.read_pipes.push(key);
                }
            } else if self.pipes.contains(key as usize) {
                self.stopped_pipes.push(key);
            }
        }
    }

    fn restart(&mut self, key: u32) {
        if let Some(place) = self.pipes.get_mut(key as usize)
            && let Some(passage) = &mut place.passage
        {
            passage.stopped_us = None;
        }
        self.look_at_large(key);
    }

    fn may_restart(&mut self, key: u32) -> bool {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return false;
        };
        let (Some(passage), Some(large)) = (&mut place.passage, place.pipe.large()) else {
            return false;
        };
        let Some(since_us) = passage.stopped_us else {
            return false;
        };
        let client = self
            .clients
            .get(passage.client as usize)
            .filter(|client| client.generation == passage.generation);
        let Some(client) = client else { return true };
        let (of, generation) = (passage.client, passage.generation);
        let keeps_others = place
            .pipe
            .tickets()
            .any(|ticket| !ticket.is_of(of, generation));
        let goes_on = match large.passing {
            true => {
                let keeps_pace = self.pace.lets_pass(large.passed_bytes);
                client.unwritten() <= WINDOW_BYTES / 2 && (keeps_pace || keeps_others)
            }
            false => client.is_next(passage.sequence),
        };
        if !goes_on && self.now_us.saturating_sub(since_us) < PACE_LOOK_US {
            return false;
        }
        let unwritten = client.unwritten() as u64;
        passage.settle_credit(large.passed_bytes.saturating_sub(unwritten), self.now_us);
        passage.let_through = !goes_on && passage.credit_us == 0 && keeps_others;
        goes_on || passage.let_through
    }

    /// The time of a request whose reply is not read does not run.
    pub(super) fn excuse_stopped(&mut self) {
        for &key in &self.stopped_pipes {
            if let Some(place) = self.pipes.get_mut(key as usize) {
                place.pipe.excuse(self.now_us);
            }
        }
    }
}
