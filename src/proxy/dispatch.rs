//! From a request to its shard: by its keys, through the gate, onto a pipe.
//!
//! ```text
//! input   | GET a | GET b | GET c | PING | ..
//!           `--- one batch ---'     flushed first, so that nothing is overtaken
//! ```
//!
//! Nothing here waits. A request is taken (forwarded, or answered at once), or
//! it must wait and stays in its client's input. Requests that follow each
//! other to one pipe are one copy and one entry in flight.
//!
//! Invariant: the batch is flushed before anything else of its client is
//! numbered, answered or sent.

use crate::metrics::latency::CommandClass;
use crate::metrics::pool::ErrorKind;
use crate::planted::{self, Planted};
use crate::resp::{Request, write_error};
use crate::router::commands::{Command, Handling};
use crate::router::epoch::Route;
use crate::router::errors::ErrorReply;
use crate::router::layout::ShardIndex;

use super::client::{Client, Pause};
use super::core::{FULL_BYTES, Full, PoolCore, Ticket};
use super::intake::is_http;
use super::lanes::PIPE_UNWRITTEN_BYTES_MAX;
use super::memcached::write_failure;
use super::reader::{Meant, Read, Simple};

/// What a client gets for a moving key while the gate is fenced, or when more
/// waits than the bounds allow. Clients know the code as "retry later".
pub const TRYAGAIN: &str =
    "TRYAGAIN the key is moving to another shard and the switch is not decided yet, try again";

/// An answer of ours larger than this gives its buffer back.
const KEEP_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What became of a request.
pub(super) enum Verdict {
    /// Forwarded or answered.
    Taken,
    /// There was nothing to do.
    Empty,
    /// It stays in the client's input until the reason is gone.
    Wait(Pause),
    /// Answered, and the client's connection ends.
    End,
}

/// A client whose input is being taken.
pub(super) struct Seat {
    /// Place in the table of clients.
    pub key: u32,
    /// Its generation.
    pub generation: u32,
    /// Its set of pipes.
    pub lane: u32,
    /// Replies it may be owed beyond those of now.
    pub budget: u32,
    /// What is above, or what it is owed, may have changed.
    pub stale: bool,
    /// Its requests are looked at one by one (`session.rs`); always stale then.
    pub in_session: bool,
    pub batch: Batch,
}

/// Requests that follow each other in the input and go to one pipe.
#[derive(Default)]
pub(super) struct Batch {
    pipe: u32,
    start: usize,
    end: usize,
    count: u32,
    class: Option<CommandClass>,
}

impl Batch {
    /// One request that stands at `start..end` of the input.
    pub fn of(pipe: u32, class: CommandClass, start: usize, end: usize) -> Self {
        Self {
            pipe,
            start,
            end,
            count: 1,
            class: Some(class),
        }
    }

    /// Whether the next request of this kind for this pipe goes with it.
    pub fn goes_on(&self, pipe: u32, class: CommandClass) -> bool {
        self.pipe == pipe && self.class == Some(class)
    }

    /// One more request, which ends there.
    pub fn add(&mut self, end: usize) {
        self.end = end;
        self.count += 1;
    }
}

impl Seat {
    /// Of `client` at `key`.
    pub fn new(key: u32, client: &Client, budget: u32) -> Self {
        let in_session = client.is_looked_at();
        Self {
            key,
            generation: client.generation,
            lane: client.lane,
            budget,
            stale: in_session,
            in_session,
            batch: Batch::default(),
        }
    }
}

impl PoolCore {
    /// Takes one request of a client (with at least one argument), which
    /// stands at `at` of `input`.
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        seat: &mut Seat,
        read: &Read<'_>,
        input: &[u8],
        at: usize,
    ) -> Verdict {
        if let Ok(Meant::Simple(simple)) = read.meant {
            return self.forward_simple(seat, simple, &read.request, input, at);
        }
        self.flush(seat, input);
        seat.stale = true;
        self.dispatch_other(seat, read)
    }

    fn dispatch_other(&mut self, seat: &mut Seat, read: &Read<'_>) -> Verdict {
        let request = &read.request;
        let (command, handling) = match read.meant {
            Ok(Meant::Other(command, handling)) => (command, handling),
            Ok(Meant::Simple(simple)) => (simple.command, Handling::Forward),
            Ok(Meant::Original(accepted)) => {
                return self.dispatch_as_original(seat, accepted, request);
            }
            Err(_) if is_http(request.arg(0)) => return self.hang_up(seat.key),
            Err(refusal) => {
                return self.answer_error(seat.key, &ErrorReply::refused(refusal, request));
            }
        };
        match handling {
            Handling::Forward => self.forward_by_keys(seat, command, request),
            Handling::Split(kind) => self.split(seat, kind, command, request),
            Handling::Everywhere(kind) => self.everywhere(seat, kind, request),
            Handling::Local(local) => self.answer_locally(seat.key, local, command, request),
            Handling::Session(session) => self.session_command(seat, session, command, request),
            Handling::Unsupported(why) => {
                self.answer_error(seat.key, &ErrorReply::unsupported(command, why))
            }
        }
    }

    /// The usual case: one key at a known place.
    #[inline]
    pub(super) fn forward_simple(
        &mut self,
        seat: &mut Seat,
        simple: Simple,
        request: &Request<'_>,
        input: &[u8],
        at: usize,
    ) -> Verdict {
        let shard = match self.routing.route(request.arg(simple.key)) {
            Route::To(shard) => shard,
            _ if planted::is_on(Planted::StaleReadServed) && simple.class == CommandClass::Read => {
                self.routing.layout.owner(request.arg(simple.key))
            }
            other => {
                self.flush(seat, input);
                seat.stale = true;
                return self.stop_at_gate(seat.key, other);
            }
        };
        let Some(pipe) = self.pipe_for(seat, shard) else {
            return Verdict::End;
        };
        let batch = &mut seat.batch;
        if batch.pipe == pipe && batch.class == Some(simple.class) && !request.inline {
            batch.end = at + request.consumed;
            batch.count += 1;
            seat.budget -= 1;
            return Verdict::Taken;
        }
        self.flush(seat, input);
        if request.inline {
            return self.forward_alone(seat, pipe, simple.class, request.bytes);
        }
        if let Some(stop) = self.not_now(seat.key, pipe) {
            seat.stale = true;
            return stop;
        }
        seat.batch = Batch {
            pipe,
            start: at,
            end: at + request.consumed,
            count: 1,
            class: Some(simple.class),
        };
        seat.budget -= 1;
        Verdict::Taken
    }

    /// Sends the batch, if there is one.
    #[inline]
    pub(super) fn flush(&mut self, seat: &mut Seat, input: &[u8]) {
        let Some(class) = seat.batch.class.take() else {
            return;
        };
        let Batch {
            pipe,
            start,
            end,
            count,
            ..
        } = seat.batch;
        let bytes = input.get(start..end).unwrap_or_default();
        self.send(seat, pipe, class, bytes, count);
    }

    #[inline]
    pub(super) fn send(
        &mut self,
        seat: &Seat,
        pipe: u32,
        class: CommandClass,
        bytes: &[u8],
        count: u32,
    ) {
        let (Some(client), Some(place)) = (
            self.clients.get_mut(seat.key as usize),
            self.pipes.get_mut(pipe as usize),
        ) else {
            return;
        };
        let ticket = Ticket {
            client: seat.key,
            generation: seat.generation,
            sequence: client.next_sequence(),
            class,
            part: None,
        };
        client.expect(count);
        place.pipe.send(bytes, ticket, count, self.now_us);
        if !place.dirty {
            place.dirty = true;
            self.chores.write_pipes.push(pipe);
        }
        if place.pipe.unwritten() >= FULL_BYTES && !place.full {
            place.full = true;
            self.full.push(Full::Pipe(pipe));
        }
    }

    /// Sends one request that is no part of a batch.
    pub(super) fn forward_alone(
        &mut self,
        seat: &mut Seat,
        pipe: u32,
        class: CommandClass,
        bytes: &[u8],
    ) -> Verdict {
        seat.stale = true;
        if let Some(stop) = self.not_now(seat.key, pipe) {
            return stop;
        }
        self.send(seat, pipe, class, bytes, 1);
        Verdict::Taken
    }

    /// Why a pipe takes no requests just now, after the client was answered.
    #[inline]
    pub(super) fn not_now(&mut self, key: u32, pipe: u32) -> Option<Verdict> {
        if let Some(pause) = self.crowded(pipe) {
            return Some(Verdict::Wait(pause));
        }
        if self.open_pipe(pipe) {
            return None;
        }
        Some(self.answer_with(key, |core, out| core.write_refusal(pipe, out)))
    }

    /// Answers by an error that we make.
    pub(super) fn answer_error(&mut self, key: u32, error: &ErrorReply) -> Verdict {
        self.counters.errors.of(ErrorKind::Refused).inc();
        self.answer_with(key, |_, out| error.write(out))
    }

    /// Answers a request at once by what `write` writes.
    pub(super) fn answer_with(
        &mut self,
        key: u32,
        write: impl FnOnce(&mut Self, &mut Vec<u8>),
    ) -> Verdict {
        let mut reply = std::mem::take(&mut self.answer_buffer);
        reply.clear();
        write(self, &mut reply);
        let verdict = self.answer(key, &reply);
        self.keep_answer_buffer(reply);
        verdict
    }

    pub(super) fn keep_answer_buffer(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= KEEP_ANSWER_BYTES_MAX {
            self.answer_buffer = buffer;
        }
    }

    /// Answers a request at once.
    pub(super) fn answer(&mut self, key: u32, reply: &[u8]) -> Verdict {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.prepare_output(&mut self.spare_outputs);
            client.prepare_parking(client.next_sequence(), &mut self.spare_parkings);
            client.answer(reply);
            self.mark_client(key);
        }
        Verdict::Taken
    }

    pub(super) fn stop_at_gate(&mut self, key: u32, route: Route) -> Verdict {
        let kind = match route {
            Route::Reserved => return self.answer_error(key, &ErrorReply::reserved_key()),
            Route::Wait if self.may_hold() => {
                return Verdict::Wait(Pause::Held {
                    since_us: self.now_us,
                });
            }
            Route::Wait => ErrorKind::HeldOverflow,
            Route::TryAgain | Route::To(_) => ErrorKind::Fenced,
        };
        self.counters.errors.of(kind).inc();
        self.answer_with(key, |_, out| write_error(out, TRYAGAIN))
    }

    /// Makes sure a pipe is connected or being connected; false: it is down
    /// ([`PoolCore::write_refusal`]).
    #[inline]
    pub(super) fn open_pipe(&mut self, pipe_key: u32) -> bool {
        let place = self.pipes.get(pipe_key as usize);
        place.is_some_and(|place| place.pipe.is_open()) || self.dial_pipe(pipe_key)
    }

    #[cold]
    fn dial_pipe(&mut self, pipe_key: u32) -> bool {
        let now_ms = self.now_ms();
        let Some(place) = self.pipes.get_mut(pipe_key as usize) else {
            return false;
        };
        if place.pipe.wants_dial(now_ms) {
            place.pipe.dialing(now_ms);
            self.chores.dial.push(pipe_key);
            return true;
        }
        false
    }

    /// The error reply to a request whose pipe is down.
    pub(super) fn write_refusal(&mut self, pipe_key: u32, out: &mut Vec<u8>) {
        self.counters.errors.of(ErrorKind::ShardDown).inc();
        let protocol = self.config.protocol;
        let place = self.pipes.get(pipe_key as usize);
        match place.and_then(|place| Some((place, place.pipe.refusal()?))) {
            Some((place, why)) => {
                write_failure(protocol, out, &place.refusal_text(why, self.config.compat));
            }
            None => write_failure(protocol, out, "ERR the shard is not there any more"),
        }
    }

    #[inline]
    pub(super) fn crowded(&self, pipe_key: u32) -> Option<Pause> {
        let place = self.pipes.get(pipe_key as usize)?;
        if place.is_doubted {
            let since_us = self.now_us;
            return Some(Pause::Held { since_us });
        }
        (place.pipe.unwritten() > PIPE_UNWRITTEN_BYTES_MAX)
            .then_some(Pause::Shard { pipe: pipe_key })
    }

    /// Commands with several keys, or keys that must be looked for: all must
    /// be on one shard.
    fn forward_by_keys(
        &mut self,
        seat: &mut Seat,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Verdict {
        let shard = match self.shard_of(seat.key, command, request) {
            Ok(shard) => shard,
            Err(verdict) => return verdict,
        };
        let Some(pipe) = self.pipe_for(seat, shard) else {
            return Verdict::End;
        };
        match super::reader::class_of(command) {
            CommandClass::Script => self.forward_script(seat, pipe, command, request),
            class => self.forward_alone(seat, pipe, class, request.bytes),
        }
    }

    /// The shard of all keys of a request.
    ///
    /// # Errors
    /// There is none now: the client was answered, or must wait.
    pub(super) fn shard_of(
        &mut self,
        key: u32,
        command: &Command,
        request: &Request<'_>,
    ) -> Result<ShardIndex, Verdict> {
        if let Err(error) = command.keys(request, &mut self.key_args) {
            return Err(self.answer_error(key, &ErrorReply::keys_of(command, request, error)));
        }
        let key_args = std::mem::take(&mut self.key_args);
        let names = key_args.iter().map(|arg| request.arg(arg.index as usize));
        let shard = self.one_shard(names);
        self.key_args = key_args;
        match shard {
            Ok(Some(shard)) => Ok(shard),
            Ok(None) => {
                let error = ErrorReply::new("ERR this request names no key, so it has no shard");
                Err(self.answer_error(key, &error))
            }
            Err(apart) => Err(self.answer_apart(key, apart)),
        }
    }

    /// The shard of all these keys; `None` without keys.
    ///
    /// # Errors
    /// They are on several, or one of them is moving.
    pub(super) fn one_shard<'a>(
        &self,
        names: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<ShardIndex>, Apart> {
        let mut first: Option<(ShardIndex, &[u8])> = None;
        for name in names {
            match (self.routing.route(name), first) {
                (Route::To(shard), None) => first = Some((shard, name)),
                (Route::To(shard), Some((other, _))) if shard == other => {}
                (Route::To(shard), Some((other, other_name))) => {
                    let layout = &self.routing.layout;
                    return Err(Apart::Shards(ErrorReply::cross_shard(
                        (other_name, &layout.shard(other).name),
                        (name, &layout.shard(shard).name),
                    )));
                }
                (stop, _) => return Err(Apart::Gate(stop)),
            }
        }
        Ok(first.map(|(shard, _)| shard))
    }

    pub(super) fn answer_apart(&mut self, key: u32, apart: Apart) -> Verdict {
        match apart {
            Apart::Shards(error) => self.answer_error(key, &error),
            Apart::Gate(route) => self.stop_at_gate(key, route),
        }
    }
}

/// Why keys have no shard in common.
pub(super) enum Apart {
    /// Two are on different ones.
    Shards(ErrorReply),
    /// One is moving.
    Gate(Route),
}
