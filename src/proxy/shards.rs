//! The shards' side of the core: what their sockets say, and deadlines.

use slab::Slab;

use crate::metrics::pool::ErrorKind;
use crate::resp::write_error;
use crate::upstream::pipe::PipeError;

use super::client::{Client, Ending};
use super::core::{Chores, PoolCore, Ticket};
use super::lanes::PipePlace;

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

    /// The socket took `n` bytes.
    pub fn pipe_written(&mut self, key: u32, n: usize) {
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.counters.bytes_out.add(n as u64);
            place.pipe.written(n);
        }
    }

    /// The connection that was dialled stands.
    pub fn pipe_connected(&mut self, key: u32) {
        let now_ms = self.now_ms();
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.pipe.connected(now_ms);
            if place.pipe.is_ready() {
                place.counters.connects_total.inc();
                place.counters.connections.add(1);
            }
            self.mark_pipe(key);
        }
    }

    /// Bytes came from a shard.
    pub fn pipe_bytes(&mut self, key: u32, bytes: &[u8]) {
        let now_ms = self.now_ms();
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        place.counters.bytes_in.add(bytes.len() as u64);
        let was_ready = place.pipe.is_ready();
        let (clients, chores) = (&mut self.clients, &mut self.chores);
        let hard_bytes_max = self.config.limits.client_buffer_bytes_max;
        let mut replies = 0;
        let received = place.pipe.receive(bytes, now_ms, |ticket, reply| {
            replies += 1;
            deliver(clients, chores, ticket, reply, hard_bytes_max);
        });
        place.counters.replies_total.add(replies);
        place.gauge_in_flight();
        self.counters.replies_total.add(replies);
        match received {
            Err(error) => self.pipe_failed(key, error),
            Ok(()) if !was_ready && place.pipe.is_ready() => {
                place.counters.connects_total.inc();
                place.counters.connections.add(1);
                self.mark_pipe(key);
            }
            Ok(()) if place.retired => self.drop_if_retired(key),
            Ok(()) => {}
        }
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
        self.chores.close_pipes.push(key);
        if place.pipe.is_ready() {
            place.counters.connections.sub(1);
        }
        if error == PipeError::Closed && place.pipe.is_at_rest() {
            place.pipe.rest();
        } else {
            let text = place.refusal_text(&error);
            let kind = match error {
                PipeError::RequestTimeout => ErrorKind::Timeout,
                _ => ErrorKind::ShardDown,
            };
            place.counters.failures_total.inc();
            let tickets = place.pipe.fail(error, now_ms);
            place.gauge_in_flight();
            self.counters.errors.of(kind).add(tickets.len() as u64);
            self.refuse(&tickets, &text);
        }
        self.drop_if_retired(key);
    }

    /// Answers each ticket by the same error.
    pub(super) fn refuse(&mut self, tickets: &[Ticket], text: &str) {
        let mut reply = Vec::with_capacity(text.len() + 3);
        write_error(&mut reply, text);
        let hard_bytes_max = self.config.limits.client_buffer_bytes_max;
        for &ticket in tickets {
            deliver(
                &mut self.clients,
                &mut self.chores,
                ticket,
                &reply,
                hard_bytes_max,
            );
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
        let mut overdue: Vec<(u32, PipeError)> = Vec::new();
        for (key, place) in &mut self.pipes {
            if let Some(error) = place.pipe.overdue(now_ms, connect_ms, request_ms) {
                overdue.push((key as u32, error));
            } else if place.pipe.refusal().is_some() && place.pipe.wants_dial(now_ms) {
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
                    && c.owed() == 0
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
            || self
                .pipes
                .iter()
                .any(|(_, place)| place.pipe.needs_clock(has_request_timeout))
    }
}

/// Hands one reply to the client that waits for it, if it is still there.
#[inline]
fn deliver(
    clients: &mut Slab<Client>,
    chores: &mut Chores,
    ticket: Ticket,
    reply: &[u8],
    hard_bytes_max: usize,
) {
    let Some(client) = clients.get_mut(ticket.client as usize) else {
        return;
    };
    if client.generation != ticket.generation {
        return;
    }
    // One reply of any size may pass; a second one that nobody reads may not.
    if client.unwritten() + client.parked() > hard_bytes_max {
        client.overrun = true;
    } else {
        client.reply(ticket.sequence, ticket.part, reply);
    }
    if !client.dirty {
        client.dirty = true;
        chores.write_clients.push(ticket.client);
    }
}

impl PipePlace {
    /// Brings the counters up to what the pipe did.
    pub(super) fn count_requests(&mut self) {
        let sent = self.pipe.sent();
        self.counters.requests_total.add(sent - self.counted);
        self.counted = sent;
        self.gauge_in_flight();
    }

    /// The block is shared by all pipes of this worker to the shard, so a pipe
    /// only adds its difference.
    fn gauge_in_flight(&mut self) {
        let in_flight = self.pipe.in_flight() as u64;
        self.counters.in_flight.sub(self.gauged_in_flight);
        self.counters.in_flight.add(in_flight);
        self.gauged_in_flight = in_flight;
    }

    /// The words a client gets when this shard can't answer.
    pub(super) fn refusal_text(&self, error: &PipeError) -> String {
        format!("ERR shard {} ({}): {error}", self.shard, self.address)
    }
}
