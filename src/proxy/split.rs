//! Commands whose keys may be on several shards: cut into one command for each.
//!
//! ```text
//! MSET a 1 b 2 c 3     a, c -> s1     *5 MSET a 1 c 3
//!                      b    -> s2     *3 MSET b 2
//! ```
//!
//! One pass routes the keys and counts them by connection; a second one copies
//! each key, as the client sent it, behind its part's header. Neither looks at
//! a key twice, and keys that follow each other on one shard are one copy.
//!
//! Invariant: a part is a connection, not a shard: two shards of one address
//! share both.

use crate::metrics::latency::CommandClass;
use crate::resp::{Request, write_array_header};
use crate::router::commands::{Command, SplitKind};
use crate::router::epoch::Route;
use crate::router::errors::ErrorReply;

use super::config::Compat;
use super::core::{PartOf, PoolCore, Ticket};
use super::dispatch::{Seat, Verdict};
use super::merge::MergeKind;

/// Keys above which the memory for a cut is given back after it.
const KEEP_KEYS_MAX: usize = 16 * 1024;

/// What a cut notes down; the memory is kept for the next one.
#[derive(Debug, Default)]
pub struct Split {
    /// The part of each key, in request order.
    pub(super) part_of_key: Vec<u16>,
    /// The parts, in the order of their first keys.
    pub(super) parts: Vec<SplitPart>,
    /// By pipe: its part in this request, if any.
    part_of_pipe: Vec<Option<u16>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SplitPart {
    pub(super) pipe: u32,
    keys: usize,
    /// Its connection is down: its keys go nowhere.
    pub(super) refused: bool,
}

impl Split {
    pub(super) fn begin(&mut self) {
        for part in self.parts.drain(..) {
            if let Some(place) = self.part_of_pipe.get_mut(part.pipe as usize) {
                *place = None;
            }
        }
        if self.part_of_key.capacity() > KEEP_KEYS_MAX {
            self.part_of_key = Vec::new();
        }
        self.part_of_key.clear();
    }

    #[inline]
    pub(super) fn add(&mut self, pipe: u32) {
        let index = pipe as usize;
        if self.part_of_pipe.len() <= index {
            self.part_of_pipe.resize(index + 1, None);
        }
        let Some(place) = self.part_of_pipe.get_mut(index) else {
            return;
        };
        let part = *place.get_or_insert_with(|| {
            self.parts.push(SplitPart {
                pipe,
                keys: 0,
                refused: false,
            });
            (self.parts.len() - 1) as u16
        });
        if let Some(part) = self.parts.get_mut(usize::from(part)) {
            part.keys += 1;
        }
        self.part_of_key.push(part);
    }
}

/// Arguments of one key: itself, and its value in MSET.
pub(super) fn stride(kind: SplitKind) -> usize {
    if kind == SplitKind::Mset { 2 } else { 1 }
}

impl PoolCore {
    /// Cuts a request by its keys' connections; all on one: it goes as it is.
    pub(super) fn split(
        &mut self,
        seat: &mut Seat,
        kind: SplitKind,
        command: &Command,
        request: &Request<'_>,
    ) -> Verdict {
        let stride = stride(kind);
        if request.len() < 2 || !(request.len() - 1).is_multiple_of(stride) {
            return self.answer_error(seat.key, &ErrorReply::wrong_arity(command));
        }
        let mut split = std::mem::take(&mut self.split);
        split.begin();
        let mut stop = None;
        for index in (1..request.len()).step_by(stride) {
            match self.routing.route(request.arg(index)) {
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
            (Some(stop), _) => self.stop_at_gate(seat.key, stop),
            (None, [one]) if self.config.compat == Compat::Redis => {
                self.forward_alone(seat, one.pipe, CommandClass::Part, request.bytes)
            }
            (None, _) => self.forward_parts(seat, kind, request, &mut split),
        };
        self.split = split;
        verdict
    }

    fn forward_parts(
        &mut self,
        seat: &mut Seat,
        kind: SplitKind,
        request: &Request<'_>,
        split: &mut Split,
    ) -> Verdict {
        for part in &split.parts {
            if let Some(pause) = self.crowded(part.pipe) {
                return Verdict::Wait(pause);
            }
        }
        let Some(client) = self.clients.get_mut(seat.key as usize) else {
            return Verdict::End;
        };
        let ticket = Ticket {
            client: seat.key,
            generation: seat.generation,
            sequence: client.next_sequence(),
            class: CommandClass::Part,
            part: None,
        };
        client.expect(1);
        self.send_parts(ticket, kind, request, split);
        Verdict::Taken
    }

    /// Sends a request part by part; their replies become that of `whole`.
    pub(super) fn send_parts(
        &mut self,
        whole: Ticket,
        kind: SplitKind,
        request: &Request<'_>,
        split: &mut Split,
    ) {
        let merge = self.merges.begin(
            (whole.client, whole.generation),
            merge_kind(kind),
            split.parts.len(),
            split.part_of_key.iter().copied(),
        );
        if self.config.compat == Compat::Twemproxy {
            self.follow_original(merge, kind);
        }
        if let Some(merge) = self.merges.get_mut(merge) {
            merge.be_part_of(whole.part);
        }
        let ticket = |part| Ticket {
            class: CommandClass::Part,
            part: Some(PartOf { merge, part }),
            ..whole
        };
        for part in &mut split.parts {
            part.refused = !self.begin_part(*part, kind, request);
        }
        self.copy_keys(kind, request, split);
        let now_us = self.now_us;
        for (number, part) in (0..).zip(&split.parts) {
            if part.refused {
                self.refuse_part(part.pipe, ticket(number));
            } else if let Some(place) = self.pipes.get_mut(part.pipe as usize) {
                place.pipe.expect(ticket(number), 1, now_us);
                self.mark_pipe(part.pipe);
            }
        }
    }

    /// Writes a part's header; false if its connection is down.
    fn begin_part(&mut self, part: SplitPart, kind: SplitKind, request: &Request<'_>) -> bool {
        if !self.open_pipe(part.pipe) {
            return false;
        }
        if let Some(place) = self.pipes.get_mut(part.pipe as usize) {
            let out = place.pipe.out_mut();
            write_array_header(out, 1 + part.keys * stride(kind));
            out.extend_from_slice(raw(request, 0, 0));
        }
        true
    }

    fn copy_keys(&mut self, kind: SplitKind, request: &Request<'_>, split: &Split) {
        let stride = stride(kind);
        let mut first = 1;
        for run in split.part_of_key.chunk_by(|a, b| a == b) {
            let next = first + run.len() * stride;
            let part = run
                .first()
                .and_then(|&part| split.parts.get(usize::from(part)));
            if let Some(part) = part
                && !part.refused
                && let Some(place) = self.pipes.get_mut(part.pipe as usize)
            {
                let out = place.pipe.out_mut();
                out.extend_from_slice(raw(request, first, next - 1));
            }
            first = next;
        }
    }

    pub(super) fn refuse_part(&mut self, pipe: u32, ticket: Ticket) {
        let mut reply = std::mem::take(&mut self.answer_buffer);
        reply.clear();
        self.write_refusal(pipe, &mut reply);
        self.delivery().one(ticket, &reply);
        self.answer_buffer = reply;
    }
}

fn merge_kind(kind: SplitKind) -> MergeKind {
    match kind {
        SplitKind::Mset => MergeKind::AllOk,
        SplitKind::Del | SplitKind::Unlink | SplitKind::Exists | SplitKind::Touch => MergeKind::Sum,
        SplitKind::Mget => MergeKind::Values,
    }
}

/// Arguments `first..=last` with their headers, as they stand in the request.
fn raw<'a>(request: &Request<'a>, first: usize, last: usize) -> &'a [u8] {
    const CRLF: usize = 2;
    let end = |index: usize| request.args.get(index).map(|arg| arg.end as usize + CRLF);
    let start = match first.checked_sub(1) {
        Some(before) => end(before),
        // The name follows the array's own header.
        None => request.bytes.iter().position(|&byte| byte == b'$'),
    };
    match (start, end(last)) {
        (Some(start), Some(end)) => request.bytes.get(start..end).unwrap_or_default(),
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{RequestLimits, RequestScanner};

    #[test]
    fn arguments_are_copied_with_their_headers() {
        let mut scanner = RequestScanner::new(RequestLimits::default());
        for input in [
            &b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$2\r\nbb\r\n"[..],
            b"MGET a bb\r\n",
        ] {
            let request = scanner.scan(input).unwrap().unwrap();
            assert_eq!(raw(&request, 0, 0), b"$4\r\nMGET\r\n");
            assert_eq!(raw(&request, 1, 1), b"$1\r\na\r\n");
            assert_eq!(raw(&request, 1, 2), b"$1\r\na\r\n$2\r\nbb\r\n");
        }
    }

    #[test]
    fn parts_are_found_by_connection() {
        let mut split = Split::default();
        for pipes in [&[4, 4, 2][..], &[2], &[7, 4]] {
            split.begin();
            pipes.iter().for_each(|&pipe| split.add(pipe));
            let keys: usize = split.parts.iter().map(|part| part.keys).sum();
            assert_eq!((keys, split.part_of_key.len()), (pipes.len(), pipes.len()));
            for (&pipe, &part) in pipes.iter().zip(&split.part_of_key) {
                assert_eq!(split.parts[usize::from(part)].pipe, pipe);
            }
        }
    }
}
