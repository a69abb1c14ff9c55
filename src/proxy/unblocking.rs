//! Clients that wait at a shard (BLPOP) when their keys are about to move.
//!
//! ```text
//!   hold:     CLIENT UNBLOCK id ERROR ---> shard      on a shared connection
//!   client    <--- a value, if it came before         (then it is answered, as ever)
//!             -UNBLOCKED --> its request is held with the rest of its time,
//!                            and goes out on the route that is decided
//! ```
//! When the logins change, everybody who waits is woken so: a fenced shard would refuse
//! what comes for them, and a user that is deleted takes its connections with it.
//!
//! Without this a client that waits for ever would keep the switch from ever
//! being drained, and after it would be served by what is pushed to the old shard.
//! A connection that is simply closed may have been given a value already, which
//! would be lost.
//!
//! The shard's number of a connection is asked once, before the first request
//! that may wait there. Where it is not known (a server that forbids CLIENT ID),
//! the hold waits, and fails if nothing comes.
//!
//! Invariants
//! - A request that is taken anew was answered by `-UNBLOCKED`, or refused, so it took
//!   nothing.
//! - A connection whose client was woken is not used again: a CLIENT UNBLOCK that comes
//!   late must not wake the next one.

use crate::metrics::latency::CommandClass;
use crate::resp::{Request, RequestLimits, RequestScanner, write_command};
use crate::router::epoch::Gate;
use crate::router::moves::Move;
use crate::upstream::pipe::{PipeError, Replies};

use super::client::{Pause, Unread};
use super::core::{PoolCore, Ticket};
use super::private_pipes::Role;
use super::scripts::NOBODY;

/// Of the ticket of a CLIENT ID.
const CLIENT_ID: u32 = 2;
/// Of the ticket of a CLIENT UNBLOCK.
const UNBLOCK: u32 = 3;
/// What a shard says to a client that was unblocked so.
const UNBLOCKED: &[u8] = b"-UNBLOCKED";
/// The same to one that was woken by a command; the job wakes clients of proxies that
/// it can't tell.
const UNBLOCKED_BY_COMMAND: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK";
/// The least rest of a wait: 0 would be for ever.
const REST_MS_MIN: u64 = 1;

/// A request that waits at a shard.
#[derive(Debug)]
pub struct Wait {
    /// As the client sent it.
    pub request: Box<[u8]>,
    /// The keys it waits for.
    pub keys: Vec<Box<[u8]>>,
    /// When it was sent.
    pub since_us: u64,
}

impl Ticket {
    fn of_ours(pipe: u32, what: u32) -> Self {
        Self {
            client: NOBODY,
            generation: pipe,
            sequence: what,
            class: CommandClass::Part,
            part: None,
        }
    }

    /// The pipe whose number at its shard a reply tells, and the number.
    #[cold]
    pub(super) fn told_id(self, reply: &[u8]) -> Option<(u32, u64)> {
        if !self.is_of_nobody() || self.sequence != CLIENT_ID {
            return None;
        }
        let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        let id = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some((self.generation, id))
    }
}

impl PoolCore {
    /// Asks for the number of a connection at its shard, if it is not known.
    pub(super) fn ask_id(&mut self, pipe: u32) {
        let now_us = self.now_us;
        if let Some(place) = self.pipes.get_mut(pipe as usize)
            && place.id_at_shard.is_none()
        {
            write_command(place.pipe.out_mut(), &[b"CLIENT", b"ID"]);
            let ticket = Ticket::of_ours(pipe, CLIENT_ID);
            place.pipe.expect(ticket, 1, now_us);
        }
    }

    /// The gate shuts: who waits for a moving key is woken.
    pub(super) fn unblock_moving(&mut self) {
        let waiting = self
            .pipes
            .iter()
            .filter_map(|(key, place)| match place.role {
                Role::Waiting { client } if place.pipe.in_flight() > 0 && !place.is_woken => {
                    Some((key as u32, client))
                }
                _ => None,
            });
        let moving: Vec<u32> = waiting
            .filter(|&(_, client)| self.waits_for_moving(client))
            .map(|(pipe, _)| pipe)
            .collect();
        for pipe in moving {
            self.unblock(pipe);
        }
    }

    /// Whether one of the keys that a client waits for moves.
    pub(super) fn waits_for_moving(&self, client: u32) -> bool {
        let Some(moves) = self.routing.gate.moves() else {
            return false;
        };
        let client = self.clients.get(client as usize);
        let session = client.and_then(|client| client.session.as_ref());
        let wait = session.and_then(|session| session.wait.as_ref());
        // A request without keys (WAIT) waits for all that was written.
        wait.is_none_or(|wait| {
            let mut keys = wait.keys.iter();
            wait.keys.is_empty() || keys.any(|key| matches!(moves.of(key), Move::Moves { .. }))
        })
    }

    pub(super) fn unblock(&mut self, key: u32) {
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        place.is_woken = true;
        let Some(id) = place.id_at_shard else { return };
        let (address, lane) = (place.address.clone(), place.lane as usize);
        let pipes = self.lanes.get(lane).map(|lane| lane.pipes.as_slice());
        let shared = pipes.unwrap_or_default().iter().copied().find(|&pipe| {
            let place = self.pipes.get(pipe as usize);
            place.is_some_and(|place| place.address == address)
        });
        let now_us = self.now_us;
        if let Some(pipe) = shared
            && self.open_pipe(pipe)
            && let Some(place) = self.pipes.get_mut(pipe as usize)
        {
            let id = id.to_string();
            let words: [&[u8]; 4] = [b"CLIENT", b"UNBLOCK", id.as_bytes(), b"ERROR"];
            write_command(place.pipe.out_mut(), &words);
            place.pipe.expect(Ticket::of_ours(pipe, UNBLOCK), 1, now_us);
            self.mark_pipe(pipe);
        }
    }

    /// As [`PoolCore::receive`], on a pipe whose client was woken, or may be while a job is
    /// at work.
    pub(super) fn receive_woken(
        &mut self,
        key: u32,
        bytes: Option<&[u8]>,
    ) -> Result<(), PipeError> {
        let is_woken = self.pipes.get(key as usize).is_some_and(|p| p.is_woken);
        let words = if is_woken {
            UNBLOCKED
        } else {
            UNBLOCKED_BY_COMMAND
        };
        let received = self.receive_for(key, bytes, |to, replies: Replies<'_, Ticket>| {
            if replies.bytes.starts_with(words) && !replies.ticket.is_of_nobody() {
                to.chores.woken.push(replies.ticket);
            } else {
                to.many(replies);
            }
        });
        while let Some(ticket) = self.chores.woken.pop() {
            self.wait_anew(ticket, false);
        }
        self.look_at_refused(key);
        received
    }

    /// Takes note of the numbers that shards told since the last turn.
    pub(super) fn note_ids(&mut self) {
        while let Some((key, id)) = self.chores.told_ids.pop() {
            let Some(place) = self.pipes.get_mut(key as usize) else {
                continue;
            };
            place.id_at_shard = Some(id);
            if place.is_woken && matches!(place.role, Role::Waiting { .. }) {
                self.unblock(key);
            }
        }
    }

    /// A request that waited and took nothing is taken anew with the rest of its time,
    /// at once or when the gate opens.
    pub(super) fn wait_anew(&mut self, ticket: Ticket, refusal_is_meant: bool) {
        let (now_us, reader) = (self.now_us, self.take_reader());
        let Some(client) = self
            .clients
            .get_mut(ticket.client as usize)
            .filter(|client| client.generation == ticket.generation)
        else {
            return;
        };
        let wait = client.session.as_mut().and_then(|session| {
            session.waits_on = None;
            session.refusal_is_meant = refusal_is_meant;
            session.wait.take()
        });
        client.forget_last();
        let Some(wait) = wait else { return };
        let waited_ms = now_us.saturating_sub(wait.since_us) / 1_000;
        let mut bytes = with_rest(&wait.request, waited_ms);
        let unread = client.unread.take();
        if let Some(unread) = unread {
            bytes.extend_from_slice(&unread.bytes);
        }
        client.unread = Some(Box::new(Unread {
            bytes,
            reader,
            upload: None,
        }));
        if matches!(self.routing.gate, Gate::Held(_)) {
            self.pause(ticket.client, Some(Pause::Held { since_us: now_us }));
            return;
        }
        self.go_on(ticket.client);
        if self.may_read(ticket.client) {
            self.chores.read_clients.push(ticket.client);
        }
    }
}

/// A blocking request with so much less time to wait.
fn with_rest(request: &[u8], waited_ms: u64) -> Vec<u8> {
    let mut scanner = RequestScanner::new(RequestLimits::default());
    let Ok(Some(parsed)) = scanner.scan(request) else {
        return request.to_vec();
    };
    let Some((index, unit_ms)) = time_of(&parsed) else {
        return request.to_vec();
    };
    let time = std::str::from_utf8(parsed.arg(index)).ok();
    let Some(time) = time
        .and_then(|time| time.parse::<f64>().ok())
        .filter(|time| *time > 0.0)
    else {
        return request.to_vec(); // for ever, or what the shard will refuse
    };
    let rest_ms = ((time * unit_ms) as u64)
        .saturating_sub(waited_ms)
        .max(REST_MS_MIN);
    let rest = match unit_ms == 1.0 {
        true => rest_ms.to_string(),
        false => format!("{}.{:03}", rest_ms / 1_000, rest_ms % 1_000),
    };
    let mut words: Vec<&[u8]> = (0..parsed.len()).map(|at| parsed.arg(at)).collect();
    if let Some(word) = words.get_mut(index) {
        *word = rest.as_bytes();
    }
    let mut bytes = Vec::with_capacity(request.len() + rest.len());
    write_command(&mut bytes, &words);
    bytes
}

/// Which argument of a blocking request is its time, and a unit of it in
/// milliseconds.
fn time_of(request: &Request<'_>) -> Option<(usize, f64)> {
    const SECONDS: f64 = 1_000.0;
    const MILLISECONDS: f64 = 1.0;
    let name = request.arg(0).to_ascii_lowercase();
    match name.as_slice() {
        b"blmpop" | b"bzmpop" => Some((1, SECONDS)),
        b"xread" | b"xreadgroup" => {
            // The group and the consumer may have any name.
            let first = if name == b"xread" { 1 } else { 4 };
            let block =
                (first..request.len()).find(|&at| request.arg(at).eq_ignore_ascii_case(b"BLOCK"));
            Some((block? + 1, MILLISECONDS))
        }
        b"wait" | b"waitaof" => None,
        _ => Some((request.len().checked_sub(1)?, SECONDS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest_of(request: &str, waited_ms: u64) -> String {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        write_command(&mut bytes, &words);
        let rest = with_rest(&bytes, waited_ms);
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let parsed = scanner.scan(&rest).unwrap().unwrap();
        let words: Vec<_> = (0..parsed.len())
            .map(|at| String::from_utf8_lossy(parsed.arg(at)).into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn each_command_has_its_time_at_its_own_place() {
        for (request, rest) in [
            ("BLPOP a b 2", "BLPOP a b 0.500"),
            ("BRPOP a 0", "BRPOP a 0"),
            ("BLMOVE a b LEFT RIGHT 1.75", "BLMOVE a b LEFT RIGHT 0.250"),
            ("BZPOPMIN a 1", "BZPOPMIN a 0.001"),
            ("BLMPOP 3 1 a LEFT", "BLMPOP 1.500 1 a LEFT"),
            (
                "XREAD BLOCK 4000 STREAMS s 0",
                "XREAD BLOCK 2500 STREAMS s 0",
            ),
            ("XREAD STREAMS s 0", "XREAD STREAMS s 0"),
            ("BLPOP a x", "BLPOP a x"),
        ] {
            assert_eq!(rest_of(request, 1_500), rest);
        }
    }
}
