//! The shards' side of the core: what their sockets say, and deadlines.

use crate::metrics::pool::ErrorKind;
use crate::upstream::pipe::{PipeError, Replies, Unanswered};

use super::client::Ending;
use super::config::Compat;
use super::core::{PoolCore, Ticket};
use super::delivery::Delivery;
use super::lanes::PipePlace;
use super::memcached::write_failure;
use super::original;
use super::private_pipes::Role;

/// How often every client's last activity is compared with `timeout.idle`.
const IDLE_LOOK_MS: u64 = 1_000;

impl PoolCore {
    /// What may be written to a pipe's socket.
    pub fn pipe_output(&self, key: u32) -> &[u8] {
        self.pipes
            .get(key as usize)
            .map(|place| place.pipe.output())
            .unwrap_or_default()
    }

    /// The socket takes bytes again.
    pub fn pipe_writable(&mut self, key: u32) {
        if !self.pipe_output(key).is_empty() {
            self.mark_pipe(key);
        }
    }

    /// The socket took `n` bytes.
    pub fn pipe_written(&mut self, key: u32, n: usize) {
        let now_us = self.now_us;
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.counters.bytes_out.add(n as u64);
            place.pipe.written(n);
            if matches!(place.role, Role::Private { .. }) {
                place.pipe.excuse(now_us); // a shard that reads is not stuck
            }
        }
    }

    /// The connection that was dialled stands.
    pub fn pipe_connected(&mut self, key: u32) {
        let now_us = self.now_us;
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.pipe.connected(now_us);
            if place.pipe.is_ready() {
                place.counters.connects_total.inc();
                place.counters.connections.add(1);
            }
            self.mark_pipe(key);
        }
    }

    /// Bytes came from a shard.
    pub fn pipe_bytes(&mut self, key: u32, bytes: &[u8]) {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        place.counters.bytes_in.add(bytes.len() as u64);
        if place.role == Role::Hub {
            return self.hub_bytes(key, bytes);
        }
        let was_ready = place.pipe.is_ready();
        let received = self.receive(key, Some(bytes));
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        if let Err(error) = received {
            return self.pipe_failed(key, error);
        }
        if !was_ready && place.pipe.is_ready() {
            place.counters.connects_total.inc();
            place.counters.connections.add(1);
            self.mark_pipe(key);
        } else if place.pipe.may_be_large() || place.is_unusual() {
            self.look_at_large(key);
            self.look_at_private(key);
        }
    }

    /// Hands on what a pipe received, or what it kept of a large reply.
    #[inline]
    pub(super) fn receive(&mut self, key: u32, bytes: Option<&[u8]>) -> Result<(), PipeError> {
        let place = self.pipes.get(key as usize);
        if place.is_some_and(|place| place.is_woken || place.pipe.is_retaining()) {
            return self.receive_during_job(key, bytes);
        }
        match self.config.compat {
            Compat::Redis => self.receive_for(key, bytes, |to, replies| to.many(replies)),
            Compat::Twemproxy => self.receive_as_original(key, bytes),
        }
    }

    /// Apart, so that the usual way stays one piece of code.
    #[cold]
    #[inline(never)]
    fn receive_during_job(&mut self, key: u32, bytes: Option<&[u8]>) -> Result<(), PipeError> {
        let place = self.pipes.get(key as usize);
        if place.is_some_and(|place| place.is_woken || matches!(place.role, Role::Waiting { .. })) {
            return self.receive_woken(key, bytes);
        }
        self.receive_retained(key, bytes, self.config.compat == Compat::Twemproxy)
    }

    /// Apart, so that the other way stays one piece of code.
    #[cold]
    #[inline(never)]
    fn receive_as_original(&mut self, key: u32, bytes: Option<&[u8]>) -> Result<(), PipeError> {
        self.receive_for(key, bytes, |to, replies| to.many_as_original(replies))
    }

    #[inline]
    pub(super) fn receive_for(
        &mut self,
        key: u32,
        bytes: Option<&[u8]>,
        hand_over: impl Fn(&mut Delivery<'_>, Replies<'_, Ticket>),
    ) -> Result<(), PipeError> {
        let now_us = self.now_us;
        let (mut delivery, pipes) = self.delivery_beside_pipes();
        let Some(place) = pipes.get_mut(key as usize) else {
            return Ok(());
        };
        let (pipe, counters) = (&mut place.pipe, &place.counters);
        let before = pipe.answered();
        let deliver = |replies: Replies<'_, Ticket>| {
            let us = now_us.saturating_sub(replies.sent_us);
            let count = u64::from(replies.count);
            counters.latency.record(replies.ticket.class, us, count);
            hand_over(&mut delivery, replies);
        };
        let received = match bytes {
            Some(bytes) => pipe.receive(bytes, now_us, deliver),
            None => pipe.pass_on(now_us, deliver),
        };
        let replies = place.pipe.answered() - before;
        place.counters.replies_total.add(replies);
        place.gauge_in_flight();
        self.counters.replies_total.add(replies);
        received
    }

    /// The connection of a pipe is gone: everything it owed is answered by an error.
    pub fn pipe_failed(&mut self, key: u32, error: PipeError) {
        let now_ms = self.now_ms();
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        if !place.pipe.is_open() {
            return; // one end of a connection may be reported twice
        }
        self.take_unsent(key, &error);
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        self.chores.close_pipes.push(key);
        place.loaded.clear();
        place.id_at_shard = None;
        if place.pipe.is_ready() {
            place.counters.connections.sub(1);
        }
        let ended = match error {
            PipeError::Closed => Some(&place.counters.eofs_total),
            PipeError::ConnectTimeout | PipeError::RequestTimeout => {
                Some(&place.counters.timeouts_total)
            }
            PipeError::Ejected | PipeError::Misplaced => None,
            _ => Some(&place.counters.errors_total),
        };
        if let Some(ended) = ended {
            ended.inc();
        }
        let role = place.role;
        if error == PipeError::Closed && place.pipe.is_at_rest() && role != Role::Hub {
            place.pipe.rest();
            if let Role::Watching { client } = role {
                self.session_pipe_lost(client, key);
            }
        } else {
            let text = place.refusal_text(&error, self.config.compat);
            let kind = match error {
                PipeError::RequestTimeout => ErrorKind::Timeout,
                _ => ErrorKind::ShardDown,
            };
            if ended.is_some() {
                place.counters.failures_total.inc();
            }
            let failing = self.failures.note(&self.config.eject, place, &error);
            self.chores.failing.extend(failing);
            let begun = place.pipe.is_passing();
            let mut unanswered = place.pipe.fail(error, now_ms);
            place.gauge_in_flight();
            let passage = place.passage.take();
            let count: u64 = unanswered.iter().map(|batch| u64::from(batch.count)).sum();
            self.counters.errors.of(kind).add(count);
            match role {
                Role::Private { client, .. } => self.upload_lost(client, key),
                Role::Watching { client } => self.session_pipe_lost(client, key),
                Role::Hub => self.hub_lost(key),
                Role::Waiting { client } if self.stopping => {
                    unanswered.clear();
                    self.close_client(client);
                }
                _ => {}
            }
            if begun {
                self.close_half_answered(&mut unanswered);
            }
            if let Some(passage) = passage {
                self.end_passage(passage);
            }
            self.refuse(&unanswered, &text);
        }
        if role != Role::Shared
            && let Some(place) = self.pipes.get_mut(key as usize)
        {
            place.retired = true; // the next large request dials anew
        }
        self.drop_if_retired(key);
    }

    /// The oldest request got a part of its reply already: no error can follow
    /// that, so its client is closed.
    fn close_half_answered(&mut self, unanswered: &mut [Unanswered<Ticket>]) {
        if let Some(batch) = unanswered.first_mut()
            && let Some(client) = self.clients.get(batch.ticket.client as usize)
            && client.generation == batch.ticket.generation
        {
            let key = batch.ticket.client;
            (batch.first, batch.count) = (batch.first + 1, batch.count - 1);
            self.close_client(key);
        }
    }

    /// Answers each request by the same error.
    fn refuse(&mut self, unanswered: &[Unanswered<Ticket>], text: &str) {
        let mut reply = Vec::with_capacity(text.len() + 3);
        write_failure(self.config.protocol, &mut reply, text);
        let mut delivery = self.delivery();
        for batch in unanswered {
            for request in batch.first..batch.first + batch.count {
                delivery.one(batch.ticket.after(request), &reply);
            }
        }
    }

    /// Time passes: deadlines of pipes and idle clients.
    pub fn tick(&mut self) {
        let now_ms = self.now_ms();
        let connect_ms = self.config.timeouts.connect.as_millis() as u64;
        let request_ms = self
            .config
            .timeouts
            .request
            .map(|wait| wait.as_millis() as u64);
        self.look_at_pace();
        self.excuse_stopped();
        self.look_at_uploads();
        self.look_at_refused_time();
        self.look_at_hold_time();
        self.close_spares();
        let mut overdue: Vec<(u32, PipeError)> = Vec::new();
        for (key, place) in &mut self.pipes {
            if let Some(error) = place.pipe.overdue(now_ms, connect_ms, request_ms) {
                overdue.push((key as u32, error));
            } else if place.role == Role::Shared
                && place.pipe.refusal().is_some()
                && place.pipe.wants_dial(now_ms)
            {
                place.pipe.dialing(now_ms);
                self.chores.dial.push(key as u32);
            }
        }
        for (key, error) in overdue {
            self.pipe_failed(key, error);
        }
        if let Some(idle) = self.config.timeouts.idle
            && now_ms.saturating_sub(self.last_idle_look_ms) >= IDLE_LOOK_MS
        {
            self.last_idle_look_ms = now_ms;
            self.close_idle(now_ms, idle.as_millis() as u64);
        }
    }

    fn close_idle(&mut self, now_ms: u64, idle_ms: u64) {
        let idle: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, c)| {
                // Also one that closed its side and does not read what it is sent.
                c.ending != Ending::Closed
                    && (c.owed() == 0 || c.is_uploading() && c.pause.is_none())
                    && now_ms.saturating_sub(c.active_ms) >= idle_ms
            })
            .map(|(key, _)| key as u32)
            .collect();
        for key in idle {
            self.close_client(key);
        }
    }

    /// Whether [`PoolCore::tick`] is needed soon although no socket has an event.
    pub fn needs_clock(&self) -> bool {
        let has_request_timeout = self.config.timeouts.request.is_some();
        let may_close_idle = self.config.timeouts.idle.is_some() && !self.clients.is_empty();
        may_close_idle
            || !self.stopped_pipes.is_empty()
            || self.pipes.iter().any(|(_, place)| {
                place.pipe.needs_clock(has_request_timeout)
                    || matches!(place.role, Role::Spare { .. })
            })
            || self.has_waiters_for_private()
            || self.is_refused_somewhere()
            || self.is_hold_timed()
            || self.has_waiting_uploads()
    }
}

impl PipePlace {
    /// Whether more has to be done after it received something.
    #[inline]
    fn is_unusual(&self) -> bool {
        self.passage.is_some() || self.retired || self.role != Role::Shared
    }

    /// Brings the counters up to what the pipe did.
    pub(super) fn count_requests(&mut self) {
        let sent = self.pipe.sent();
        self.counters.requests_total.add(sent - self.counted);
        self.counted = sent;
        self.gauge_in_flight();
    }

    /// The block is shared by all pipes of this worker to the shard, so a pipe
    /// only adds its difference.
    pub(super) fn gauge_in_flight(&mut self) {
        let in_flight = self.pipe.in_flight() as u64;
        self.counters.in_flight.sub(self.gauged_in_flight);
        self.counters.in_flight.add(in_flight);
        self.gauged_in_flight = in_flight;
    }

    /// The words a client gets when this shard can't answer.
    pub(super) fn refusal_text(&self, error: &PipeError, compat: Compat) -> String {
        match (error, compat) {
            (PipeError::Misplaced, _) => format!("UNBLOCKED {error}"),
            (_, Compat::Twemproxy) => original::refusal_text(error),
            (_, Compat::Redis) => format!("ERR shard {} ({}): {error}", self.shard, self.address),
        }
    }
}
