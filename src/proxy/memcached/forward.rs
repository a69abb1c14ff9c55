//! Requests about one key: as they came, neighbours in one piece; those with
//! `noreply` without that word, and their replies go nowhere.

use crate::memcached::{Keyed, Request};
use crate::metrics::latency::CommandClass;
use crate::router::epoch::Route;
use crate::router::layout::ShardIndex;

use super::super::core::{FULL_BYTES, Full, PartOf, PoolCore, Ticket};
use super::super::dispatch::{Batch, Seat, Verdict};

/// The word that decides which shard tells its version.
const VERSION_KEY: &[u8] = b"placeholder";

/// What a request's latency is counted under.
pub(super) fn class_of(keyed: &Keyed<'_>) -> CommandClass {
    match keyed.writes {
        true => CommandClass::Write,
        false => CommandClass::Read,
    }
}

impl PoolCore {
    #[inline]
    pub(super) fn forward_keyed(
        &mut self,
        seat: &mut Seat,
        keyed: &Keyed<'_>,
        request: &Request<'_>,
        input: &[u8],
        at: usize,
    ) -> Verdict {
        let shard = match self.routing.place(keyed.key) {
            Route::To(shard) => shard,
            other => {
                self.flush(seat, input);
                seat.stale = true;
                return self.stop_text(seat.key, other, keyed.quiet);
            }
        };
        let Some(pipe) = self.pipe_for(seat, shard) else {
            return Verdict::End;
        };
        let class = class_of(keyed);
        let end = at + request.bytes.len();
        if keyed.as_it_is && seat.batch.goes_on(pipe, class) {
            seat.batch.add(end);
            seat.budget -= 1;
            return Verdict::Taken;
        }
        self.flush(seat, input);
        if let Some(pause) = self.crowded(pipe) {
            seat.stale = true;
            return Verdict::Wait(pause);
        }
        if !self.open_pipe(pipe) {
            seat.stale = true;
            return self.refuse_for(seat.key, pipe, keyed.quiet);
        }
        seat.budget -= 1;
        if keyed.as_it_is {
            seat.batch = Batch::of(pipe, class, at, end);
        } else {
            let pieces = [keyed.line, b"\r\n", request.data()];
            self.send_pieces(seat, pipe, class, &pieces, keyed.quiet);
        }
        Verdict::Taken
    }

    /// Sends one request; nobody gets its reply if `quiet`.
    pub(super) fn send_pieces(
        &mut self,
        seat: &Seat,
        pipe: u32,
        class: CommandClass,
        pieces: &[&[u8]],
        quiet: bool,
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
            part: quiet.then_some(PartOf::NO_REPLY),
        };
        client.expect(1);
        let out = place.pipe.out_mut();
        pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        place.pipe.expect(ticket, 1, self.now_us);
        if place.pipe.unwritten() >= FULL_BYTES && !place.full {
            place.full = true;
            self.full.push(Full::Pipe(pipe));
        }
        self.mark_pipe(pipe);
    }

    /// Asks the shard of `placeholder`, as twemproxy does, or the first one that
    /// is there.
    pub(super) fn version(&mut self, seat: &mut Seat) -> Verdict {
        let own = match self.routing.place(VERSION_KEY) {
            Route::To(shard) => shard,
            Route::Wait | Route::TryAgain | Route::Reserved => ShardIndex(0),
        };
        let Some(own) = self.pipe_for(seat, own) else {
            return Verdict::End;
        };
        let shards = self.routing.layout.shards().len() as u16;
        let open = match self.open_pipe(own) {
            true => Some(own),
            false => (0..shards)
                .filter_map(|shard| self.pipe_for(seat, ShardIndex(shard)))
                .collect::<Vec<u32>>()
                .into_iter()
                .find(|&pipe| !self.is_strict() && self.open_pipe(pipe)),
        };
        let Some(pipe) = open else {
            return self.refuse_for(seat.key, own, false);
        };
        if let Some(pause) = self.crowded(pipe) {
            return Verdict::Wait(pause);
        }
        self.send_pieces(seat, pipe, CommandClass::Read, &[b"version\r\n"], false);
        Verdict::Taken
    }
}
