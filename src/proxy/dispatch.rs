//! From a request to its shards: by its keys, through the gate, onto pipes.
//!
//! Nothing here waits. A request is taken (forwarded, or answered at once), or
//! it must wait and stays in its client's input.

use std::sync::Arc;

use crate::metrics::pool::ErrorKind;
use crate::resp::{Request, write_array_header, write_bulk, write_error};
use crate::router::commands::{Command, Handling, SplitKind, resolve};
use crate::router::epoch::Route;
use crate::router::errors::ErrorReply;
use crate::router::layout::ShardIndex;

use super::client::{Pause, Slot};
use super::core::{PoolCore, Ticket};
use super::intake::HELD_BYTES_MAX;
use super::lanes::PIPE_UNWRITTEN_BYTES_MAX;
use super::merge::{Merge, MergeKind};

/// What a client gets for a moving key while the gate is fenced, or when more
/// waits than the bounds allow. Clients know the code as "retry later".
pub const TRYAGAIN: &str =
    "TRYAGAIN the key is moving to another shard and the switch is not decided yet, try again";

/// What became of a request.
pub(super) enum Verdict {
    /// Forwarded or answered.
    Taken,
    /// It stays in the client's input until the reason is gone.
    Wait(Pause),
    /// Answered, and the client's connection ends.
    End,
}

impl PoolCore {
    /// Takes one request of a client (with at least one argument).
    #[inline]
    pub(super) fn dispatch(&mut self, key: u32, request: &Request<'_>) -> Verdict {
        let command = match resolve(request) {
            Ok(command) => command,
            Err(refusal) => return self.answer_error(key, &ErrorReply::refused(refusal, request)),
        };
        match command.handling_for(request) {
            Handling::Forward => match command.first_key_fast() {
                Some(index) => match self.routing.route(request.arg(index)) {
                    Route::To(shard) => self.forward(key, shard, request.bytes),
                    other => self.stop_at_gate(key, other),
                },
                None => self.forward_by_keys(key, command, request),
            },
            Handling::Split(kind) => self.split(key, kind, command, request),
            Handling::Local(local) => self.answer_locally(key, local, command, request),
            Handling::Unsupported(why) => {
                self.answer_error(key, &ErrorReply::unsupported(command, why))
            }
        }
    }

    /// Answers by an error that we make.
    pub(super) fn answer_error(&mut self, key: u32, error: &ErrorReply) -> Verdict {
        self.counters.errors.of(ErrorKind::Refused).inc();
        let mut reply = Vec::new();
        error.write(&mut reply);
        self.answer(key, &reply)
    }

    /// Answers a request at once.
    pub(super) fn answer(&mut self, key: u32, reply: &[u8]) -> Verdict {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.answer(reply);
            self.mark_client(key);
        }
        Verdict::Taken
    }

    fn stop_at_gate(&mut self, key: u32, route: Route) -> Verdict {
        let kind = match route {
            Route::Wait if self.held_bytes < HELD_BYTES_MAX => {
                return Verdict::Wait(Pause::Held {
                    since_us: self.now_us,
                });
            }
            Route::Wait => ErrorKind::HeldOverflow,
            Route::TryAgain | Route::To(_) => ErrorKind::Fenced,
        };
        self.counters.errors.of(kind).inc();
        let mut reply = Vec::new();
        write_error(&mut reply, TRYAGAIN);
        self.answer(key, &reply)
    }

    /// Sends a request to one shard, as it is.
    #[inline]
    fn forward(&mut self, key: u32, shard: ShardIndex, bytes: &[u8]) -> Verdict {
        let Some(client) = self.clients.get(key as usize) else {
            return Verdict::End;
        };
        let Some(pipe_key) = self.pipe_for(client.lane, shard, key) else {
            return Verdict::End;
        };
        if let Some(pause) = self.crowded(pipe_key) {
            return Verdict::Wait(pause);
        }
        if let Some(refusal) = self.open_pipe(pipe_key) {
            return self.answer(key, &refusal);
        }
        let now_ms = self.now_ms();
        let (Some(client), Some(place)) = (
            self.clients.get_mut(key as usize),
            self.pipes.get_mut(pipe_key as usize),
        ) else {
            return Verdict::End;
        };
        let sequence = client.push_slot(Slot::Waiting);
        let ticket = Ticket {
            client: key,
            generation: client.generation,
            sequence,
            part: 0,
        };
        place.pipe.send(bytes, ticket, now_ms);
        if !place.dirty {
            place.dirty = true;
            self.chores.write_pipes.push(pipe_key);
        }
        Verdict::Taken
    }

    /// Makes sure a pipe is connected or being connected; else the error reply
    /// for its requests.
    #[inline]
    fn open_pipe(&mut self, pipe_key: u32) -> Option<Vec<u8>> {
        let now_ms = self.now_ms();
        let place = self.pipes.get_mut(pipe_key as usize)?;
        if place.pipe.is_open() {
            return None;
        }
        if place.pipe.wants_dial(now_ms) {
            place.pipe.dialing(now_ms);
            self.chores.dial.push(pipe_key);
            return None;
        }
        let text = place.refusal_text(place.pipe.refusal()?);
        self.counters.errors.of(ErrorKind::ShardDown).inc();
        let mut reply = Vec::new();
        write_error(&mut reply, &text);
        Some(reply)
    }

    #[inline]
    fn crowded(&self, pipe_key: u32) -> Option<Pause> {
        let place = self.pipes.get(pipe_key as usize)?;
        (place.pipe.unwritten() > PIPE_UNWRITTEN_BYTES_MAX)
            .then_some(Pause::Shard { pipe: pipe_key })
    }

    /// Commands with several keys, or keys that must be looked for: all must
    /// be on one shard.
    fn forward_by_keys(&mut self, key: u32, command: &Command, request: &Request<'_>) -> Verdict {
        if let Err(error) = command.keys(request, &mut self.key_args) {
            return self.answer_error(key, &ErrorReply::keys_of(command, request, error));
        }
        let routing = Arc::clone(&self.routing);
        let mut first: Option<(ShardIndex, &[u8])> = None;
        for key_arg in &self.key_args {
            let name = request.arg(key_arg.index as usize);
            match (routing.route(name), first) {
                (Route::To(shard), None) => first = Some((shard, name)),
                (Route::To(shard), Some((other, _))) if shard == other => {}
                (Route::To(shard), Some((other, other_name))) => {
                    let error = ErrorReply::cross_shard(
                        (other_name, &routing.layout.shard(other).name),
                        (name, &routing.layout.shard(shard).name),
                    );
                    return self.answer_error(key, &error);
                }
                (stop, _) => return self.stop_at_gate(key, stop),
            }
        }
        match first {
            Some((shard, _)) => self.forward(key, shard, request.bytes),
            None => self.answer_error(
                key,
                &ErrorReply::new("ERR this request names no key, so it has no shard"),
            ),
        }
    }

    /// Cuts a request by its keys' shards; one part for each shard.
    fn split(
        &mut self,
        key: u32,
        kind: SplitKind,
        command: &Command,
        request: &Request<'_>,
    ) -> Verdict {
        let stride = if kind == SplitKind::Mset { 2 } else { 1 };
        if !(request.len() - 1).is_multiple_of(stride) {
            return self.answer_error(key, &ErrorReply::wrong_arity(command));
        }
        let mut places = std::mem::take(&mut self.split);
        places.clear();
        let mut stop = None;
        for index in (1..request.len()).step_by(stride) {
            match self.routing.route(request.arg(index)) {
                Route::To(shard) => places.push((shard.0, index as u32)),
                other => {
                    stop = Some(other);
                    break;
                }
            }
        }
        let one = places.first().map(|place| place.0);
        let verdict = match (stop, one) {
            (Some(stop), _) => self.stop_at_gate(key, stop),
            (None, Some(shard)) if places.iter().all(|place| place.0 == shard) => {
                self.forward(key, ShardIndex(shard), request.bytes)
            }
            (None, _) => self.forward_parts(key, kind, request, &mut places),
        };
        self.split = places;
        verdict
    }

    fn forward_parts(
        &mut self,
        key: u32,
        kind: SplitKind,
        request: &Request<'_>,
        places: &mut [(u16, u32)],
    ) -> Verdict {
        let Some(client) = self.clients.get(key as usize) else {
            return Verdict::End;
        };
        let lane = client.lane;
        places.sort_by_key(|place| place.0); // stable: keys stay in request order
        let mut pipes = Vec::new();
        for group in places.chunk_by(|a, b| a.0 == b.0) {
            let Some(pipe) = self.pipe_for(lane, ShardIndex(group[0].0), key) else {
                return Verdict::End;
            };
            if let Some(pause) = self.crowded(pipe) {
                return Verdict::Wait(pause);
            }
            pipes.push(pipe);
        }
        let merge = Merge::new(merge_kind(kind, request.len(), places), pipes.len());
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Verdict::End;
        };
        let generation = client.generation;
        let sequence = client.push_slot(Slot::Merge(Box::new(merge)));
        for (part, (group, pipe_key)) in places.chunk_by(|a, b| a.0 == b.0).zip(pipes).enumerate() {
            let ticket = Ticket {
                client: key,
                generation,
                sequence,
                part: part as u32,
            };
            self.send_part(pipe_key, kind, request, group, ticket);
        }
        Verdict::Taken
    }

    fn send_part(
        &mut self,
        pipe_key: u32,
        kind: SplitKind,
        request: &Request<'_>,
        group: &[(u16, u32)],
        ticket: Ticket,
    ) {
        if let Some(refusal) = self.open_pipe(pipe_key) {
            if let Some(client) = self.clients.get_mut(ticket.client as usize) {
                client.reply(ticket.sequence, ticket.part, &refusal);
                self.mark_client(ticket.client);
            }
            return;
        }
        let now_ms = self.now_ms();
        let Some(place) = self.pipes.get_mut(pipe_key as usize) else {
            return;
        };
        let with_values = kind == SplitKind::Mset;
        let out = place.pipe.out_mut();
        write_array_header(out, 1 + group.len() * if with_values { 2 } else { 1 });
        write_bulk(out, request.arg(0));
        for &(_, index) in group {
            write_bulk(out, request.arg(index as usize));
            if with_values {
                write_bulk(out, request.arg(index as usize + 1));
            }
        }
        place.pipe.expect(ticket, now_ms);
        self.mark_pipe(pipe_key);
    }
}

/// How the parts of `places` (sorted by shard) come together again.
fn merge_kind(kind: SplitKind, args: usize, places: &[(u16, u32)]) -> MergeKind {
    match kind {
        SplitKind::Mset => MergeKind::AllOk,
        SplitKind::Del | SplitKind::Unlink | SplitKind::Exists | SplitKind::Touch => MergeKind::Sum,
        SplitKind::Mget => {
            let mut order = vec![(0, 0); args - 1];
            for (part, group) in places.chunk_by(|a, b| a.0 == b.0).enumerate() {
                for (element, &(_, index)) in group.iter().enumerate() {
                    if let Some(place) = order.get_mut(index as usize - 1) {
                        *place = (part as u32, element as u32);
                    }
                }
            }
            MergeKind::Values(order)
        }
    }
}
