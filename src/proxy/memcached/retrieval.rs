//! Retrievals of several keys: cut into one for each shard, and one reply put
//! together out of theirs.
//!
//! ```text
//! get a b c a     a, c, a -> s1   VALUE a..  VALUE c..  VALUE a..  END
//!                 b       -> s2   END                                  (a miss)
//!                         reply   VALUE a..  VALUE c..  VALUE a..  END
//! ```
//!
//! A shard answers its keys in the order asked, with misses left out. So each
//! key of the request is either the next block of its part, or a miss.
//!
//! Invariant: a part is a connection, not a shard: two shards of one address
//! share both.

use crate::memcached::{KEY_BYTES_MAX, Refusal, Several, next_value, write_server_error};
use crate::metrics::latency::CommandClass;
use crate::router::epoch::Route;

use super::super::core::{PartOf, PoolCore, Ticket};
use super::super::dispatch::{Seat, Verdict};
use super::super::merge::MergeKind;
use super::super::split::Split;

impl PoolCore {
    /// Cuts a retrieval by its keys' connections; all on one: it goes as it is.
    pub(super) fn retrieve(
        &mut self,
        seat: &mut Seat,
        several: &Several<'_>,
        bytes: &[u8],
    ) -> Verdict {
        // memcached 1.6 throws away the replies to earlier requests, too, that are
        // not written yet: others' on a shared connection.
        if several.keys().any(|key| key.len() > KEY_BYTES_MAX) {
            return self.refuse_text(seat, Refusal::BadLine, false);
        }
        let mut split = std::mem::take(&mut self.split);
        split.begin();
        let mut stop = None;
        for key in several.keys() {
            match self.routing.place(key) {
                Route::To(shard) => match self.pipe_for(seat, shard) {
                    Some(pipe) => split.add(pipe),
                    None => return Verdict::End,
                },
                other => {
                    stop = Some(other);
                    break;
                }
            }
        }
        let verdict = match (stop, split.parts.as_slice()) {
            (Some(stop), _) => self.stop_text(seat.key, stop, false),
            (None, [one]) => self.retrieve_from_one(seat, one.pipe, bytes),
            (None, _) => self.retrieve_parts(seat, several, &mut split),
        };
        self.split = split;
        verdict
    }

    fn retrieve_from_one(&mut self, seat: &mut Seat, pipe: u32, bytes: &[u8]) -> Verdict {
        if let Some(pause) = self.crowded(pipe) {
            return Verdict::Wait(pause);
        }
        if !self.open_pipe(pipe) {
            return self.refuse_for(seat.key, pipe, false);
        }
        self.send_pieces(seat, pipe, CommandClass::Read, &[bytes], false);
        Verdict::Taken
    }

    fn retrieve_parts(
        &mut self,
        seat: &mut Seat,
        several: &Several<'_>,
        split: &mut Split,
    ) -> Verdict {
        for part in &split.parts {
            if let Some(pause) = self.crowded(part.pipe) {
                return Verdict::Wait(pause);
            }
        }
        let merge = self.merges.begin(
            (seat.key, seat.generation),
            MergeKind::TextValues,
            split.parts.len(),
            split.part_of_key.iter().copied(),
        );
        let is_strict = self.is_strict();
        if let Some(merge) = self.merges.get_mut(merge) {
            several.keys().for_each(|key| merge.note_key(key));
            if is_strict {
                merge.end_client_on_failure();
            }
        }
        let Some(client) = self.clients.get_mut(seat.key as usize) else {
            return Verdict::End;
        };
        let sequence = client.next_sequence();
        client.expect(1);
        for part in &mut split.parts {
            part.refused = !self.open_pipe(part.pipe);
            if !part.refused {
                self.append(part.pipe, &[several.head]);
            }
        }
        for (key, &part) in several.keys().zip(&split.part_of_key) {
            if let Some(part) = split.parts.get(usize::from(part))
                && !part.refused
            {
                self.append(part.pipe, &[b" ", key]);
            }
        }
        let now_us = self.now_us;
        for (number, part) in (0..).zip(&split.parts) {
            let ticket = Ticket {
                client: seat.key,
                generation: seat.generation,
                sequence,
                class: CommandClass::Part,
                part: Some(PartOf {
                    merge,
                    part: number,
                }),
            };
            if part.refused {
                self.refuse_part(part.pipe, ticket);
                continue;
            }
            self.append(part.pipe, &[b"\r\n"]);
            if let Some(place) = self.pipes.get_mut(part.pipe as usize) {
                place.pipe.expect(ticket, 1, now_us);
                self.mark_pipe(part.pipe);
            }
        }
        Verdict::Taken
    }

    fn append(&mut self, pipe: u32, pieces: &[&[u8]]) {
        if let Some(place) = self.pipes.get_mut(pipe as usize) {
            let out = place.pipe.out_mut();
            pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        }
    }
}

/// Puts the values of several shards in the order of the keys. `keys` are the
/// request's, each behind its length; `order` says the part of each, `parts`
/// are whole replies, and become what is left of them.
pub(in super::super) fn write_values(
    keys: &[u8],
    order: &[u16],
    parts: &mut [&[u8]],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let mut keys = keys;
    for &part in order {
        let Some((&len, rest)) = keys.split_first() else {
            break;
        };
        let Some((key, rest)) = rest.split_at_checked(usize::from(len)) else {
            break;
        };
        keys = rest;
        let Some(reply) = parts.get_mut(usize::from(part)) else {
            continue;
        };
        if let Some(value) = next_value(reply)
            && value.key == key
            && let Some((block, rest)) = reply.split_at_checked(value.len)
        {
            out.extend_from_slice(block);
            *reply = rest;
        }
    }
    match parts.iter().find(|rest| **rest != b"END\r\n") {
        None => out.extend_from_slice(b"END\r\n"),
        Some(rest) => {
            out.truncate(start);
            write_failed(rest, out);
        }
    }
}

/// One reply for a command that every shard did: `OK`, or what the first said
/// that did not.
pub(in super::super) fn all_done<'a>(mut parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    match parts.find(|reply| *reply != b"OK\r\n") {
        None => out.extend_from_slice(b"OK\r\n"),
        Some(reply) => write_failed(reply, out),
    }
}

/// What a part says that is not what was asked for: an error, or nonsense.
fn write_failed(reply: &[u8], out: &mut Vec<u8>) {
    let is_error = [&b"SERVER_ERROR"[..], b"CLIENT_ERROR", b"ERROR"]
        .iter()
        .any(|word| reply.starts_with(word));
    match is_error {
        true => out.extend_from_slice(reply),
        false => write_server_error(
            out,
            "a shard answered a part of this command with an unexpected reply",
        ),
    }
}
