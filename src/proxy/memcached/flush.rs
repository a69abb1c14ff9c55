//! `flush_all`, to every shard, where the pool allows it.

use crate::metrics::latency::CommandClass;
use crate::router::epoch::{Gate, Route};
use crate::router::layout::ShardIndex;

use super::super::core::{PartOf, PoolCore, Ticket};
use super::super::dispatch::{Seat, Verdict};
use super::super::merge::MergeKind;

impl PoolCore {
    /// A shard that is down makes the whole an error, though others are emptied.
    pub(super) fn flush_all(&mut self, seat: &mut Seat, line: &[u8], quiet: bool) -> Verdict {
        match &self.routing.gate {
            Gate::Open => {}
            Gate::Held(_) => return self.stop_text(seat.key, Route::Wait, quiet),
            Gate::Fenced(_) => return self.stop_text(seat.key, Route::TryAgain, quiet),
        }
        let shards = self.routing.layout.shards().len() as u16;
        let mut pipes: Vec<u32> = (0..shards)
            .filter_map(|shard| self.pipe_for(seat, ShardIndex(shard)))
            .collect();
        pipes.sort_unstable();
        pipes.dedup(); // two shards of one address share it
        if let Some(pause) = pipes.iter().find_map(|&pipe| self.crowded(pipe)) {
            return Verdict::Wait(pause);
        }
        if quiet {
            for pipe in pipes {
                if self.open_pipe(pipe) {
                    let pieces = [line, b"\r\n"];
                    self.send_pieces(seat, pipe, CommandClass::Part, &pieces, quiet);
                }
            }
            return Verdict::Taken;
        }
        let owner = (seat.key, seat.generation);
        let kind = MergeKind::TextDone;
        let merge = self.merges.begin(owner, kind, pipes.len(), [].into_iter());
        let Some(client) = self.clients.get_mut(seat.key as usize) else {
            return Verdict::End;
        };
        let sequence = client.next_sequence();
        client.expect(1);
        let now_us = self.now_us;
        for (part, pipe) in (0..).zip(pipes) {
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
                let out = place.pipe.out_mut();
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
                place.pipe.expect(ticket, 1, now_us);
                self.mark_pipe(pipe);
            }
        }
        Verdict::Taken
    }
}
