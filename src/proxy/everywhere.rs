//! Commands without a key, to every shard.
//!
//! ```text
//! KEYS *     *2 KEYS *  -> s1, s2, s3      joined in `gathered.rs`
//! SCAN c     *2 SCAN c' -> s2              c says the shard and its own cursor
//! ```
//!
//! At a switch: while the gate is held, what depends on which shard has which
//! keys waits as a request for a moving key does, and while it is fenced it is
//! refused with `-TRYAGAIN`: another proxy may have committed and taken writes
//! on the new shards already. FUNCTION LOAD waits, too: behind the marker in its
//! source's stream it would never come to the new shards. SCRIPT LOAD does not
//! wait: a shard that comes later is told a script when it is called (`scripts.rs`).
//!
//! Nothing here is atomic: each shard does its part when it comes to it. A shard
//! that is down makes the whole reply an error, though others did theirs.
//!
//! A part is a connection, not a shard: two shards of one address share both.

use std::collections::HashMap;
use std::sync::Arc;

use crate::metrics::latency::CommandClass;
use crate::resp::{Request, write_array_header, write_bulk};
use crate::router::commands::FanOut;
use crate::router::epoch::{Gate, Route};
use crate::router::errors::{ErrorReply, INVALID_CURSOR};
use crate::router::layout::ShardIndex;

use super::core::{PartOf, PoolCore, Ticket};
use super::dispatch::{Seat, Verdict};
use super::gathered::{Census, Gathered, ScanCursor};
use super::script_store::FlushUnderWay;

/// The connections of a client's lane.
struct Places {
    /// (shard, pipe), each pipe once.
    parts: Vec<(u16, u32)>,
    /// Of each shard: the first one that shares its connection.
    homes: Vec<u16>,
}

impl PoolCore {
    /// Sends a request to every shard, or to the one that it is for.
    pub(super) fn everywhere(
        &mut self,
        seat: &mut Seat,
        kind: FanOut,
        request: &Request<'_>,
    ) -> Verdict {
        if kind == FanOut::Flush && !self.config.allow_flush {
            return self.answer_error(seat.key, &refused_flush(request));
        }
        if kind.waits_for_moves()
            && let Some(stop) = shut(&self.routing.gate)
        {
            return self.stop_at_gate(seat.key, stop);
        }
        let Some(places) = self.places(seat) else {
            return Verdict::End;
        };
        match kind {
            FanOut::AnyShard => self.ask_any(seat, &places, request),
            FanOut::Scan => self.scan(seat, places, request),
            FanOut::Scripts => {
                let flush = self.note_script(request);
                self.ask(seat, kind, places, request.bytes, flush)
            }
            _ => self.ask(seat, kind, places, request.bytes, None),
        }
    }

    fn places(&self, seat: &Seat) -> Option<Places> {
        let shards = self.routing.layout.shards().len();
        let mut places = Places {
            parts: Vec::with_capacity(shards),
            homes: Vec::with_capacity(shards),
        };
        let mut home_of_pipe = HashMap::with_capacity(shards);
        for shard in 0..shards as u16 {
            let pipe = self.pipe_for(seat, ShardIndex(shard))?;
            let home = *home_of_pipe.entry(pipe).or_insert(shard);
            if home == shard {
                places.parts.push((shard, pipe));
            }
            places.homes.push(home);
        }
        Some(places)
    }

    /// Sends `bytes` to each of the places; their replies become one.
    fn ask(
        &mut self,
        seat: &mut Seat,
        kind: FanOut,
        places: Places,
        bytes: &[u8],
        flush: Option<FlushUnderWay>,
    ) -> Verdict {
        let crowded = places
            .parts
            .iter()
            .find_map(|&(_, pipe)| self.crowded(pipe));
        if let Some(pause) = crowded {
            return Verdict::Wait(pause);
        }
        let Some(client) = self.clients.get_mut(seat.key as usize) else {
            return Verdict::End;
        };
        let (sequence, protocol) = (client.next_sequence(), client.protocol);
        client.expect(1);
        let Places { parts, homes } = places;
        let gathered = Gathered {
            kind,
            parts: parts.iter().map(|(shard, _)| *shard).collect(),
            census: Census::new(Arc::clone(&self.routing.layout), homes),
            protocol,
            seed: self.now_us ^ u64::from(sequence).rotate_left(32),
            flush,
        };
        let owner = (seat.key, seat.generation);
        let merge = self.merges.gather(owner, parts.len(), gathered);
        let now_us = self.now_us;
        for (part, (_, pipe)) in (0..).zip(parts) {
            let ticket = Ticket {
                client: seat.key,
                generation: seat.generation,
                sequence,
                class: CommandClass::Part,
                part: Some(PartOf { merge, part }),
            };
            if !self.open_pipe(pipe) {
                self.refuse_part(pipe, ticket);
            } else if let Some(place) = self.pipes.get_mut(pipe as usize) {
                place.pipe.out_mut().extend_from_slice(bytes);
                place.pipe.expect(ticket, 1, now_us);
                self.mark_pipe(pipe);
            }
        }
        Verdict::Taken
    }

    /// Sends it to the first shard that is there.
    fn ask_any(&mut self, seat: &mut Seat, places: &Places, request: &Request<'_>) -> Verdict {
        let pipes = || places.parts.iter().map(|(_, pipe)| *pipe);
        let open = pipes().find(|&pipe| self.open_pipe(pipe));
        match open.or(pipes().next()) {
            Some(pipe) => self.forward_alone(seat, pipe, CommandClass::Read, request.bytes),
            None => Verdict::End,
        }
    }

    /// One step of a SCAN. A layout that changes between two steps restarts
    /// nothing: keys that moved may be seen twice or not at all.
    fn scan(&mut self, seat: &mut Seat, mut places: Places, request: &Request<'_>) -> Verdict {
        let place = ScanCursor::parse(request.arg(1));
        let part = place.and_then(|place| {
            let mut parts = places.parts.iter();
            parts.find(|(shard, _)| *shard == place.shard).copied()
        });
        let (Some(place), Some(part)) = (place, part) else {
            return self.answer_error(seat.key, &INVALID_CURSOR);
        };
        places.parts = vec![part];
        let mut bytes = Vec::with_capacity(request.bytes.len());
        write_array_header(&mut bytes, request.len());
        for index in 0..request.len() {
            match index {
                1 => write_bulk(&mut bytes, place.cursor.to_string().as_bytes()),
                _ => write_bulk(&mut bytes, request.arg(index)),
            }
        }
        self.ask(seat, FanOut::Scan, places, &bytes, None)
    }
}

fn shut(gate: &Gate) -> Option<Route> {
    match gate {
        Gate::Open => None,
        Gate::Held(_) => Some(Route::Wait),
        Gate::Fenced(_) => Some(Route::TryAgain),
    }
}

fn refused_flush(request: &Request<'_>) -> ErrorReply {
    let name = String::from_utf8_lossy(request.arg(0)).to_ascii_lowercase();
    ErrorReply::new(format!(
        "ERR command '{name}' is not allowed through this proxy: it empties every shard; \
         set allow_flush = true in the pool's config to allow it"
    ))
}
