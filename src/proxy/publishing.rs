//! PUBLISH and SPUBLISH: to the channel's shard, as if it were a key.
//!
//! The shard says how many connections got the message. One of a worker's stands
//! for all its clients, so those beyond it are added ([`Audience`]): the number is
//! that of the clients of this proxy, and of connections of anyone else. Who
//! begins or ceases to listen at that moment may be counted or not.
//!
//! [`Audience`]: super::audience::Audience

use crate::metrics::latency::CommandClass;
use crate::resp::Request;
use crate::router::commands::{Command, TopicKind};
use crate::router::epoch::Route;

use super::core::{PartOf, PoolCore, Ticket};
use super::dispatch::{Seat, Verdict};
use super::merge::MergeKind;

impl PoolCore {
    pub(super) fn publish(
        &mut self,
        seat: &mut Seat,
        command: &Command,
        request: &Request<'_>,
    ) -> Verdict {
        let kind = match command.name {
            "spublish" => TopicKind::ShardChannel,
            _ => TopicKind::Channel,
        };
        let shard = match self.routing.place(request.arg(1)) {
            Route::To(shard) => shard,
            other => return self.stop_at_gate(seat.key, other),
        };
        let Some(pipe) = self.pipe_for(seat, shard) else {
            return Verdict::End;
        };
        match self.hub.audience().beyond(kind, request.arg(1)) {
            0 => self.forward_alone(seat, pipe, CommandClass::Write, request.bytes),
            beyond => self.publish_to(seat, pipe, beyond, request.bytes),
        }
    }

    /// Publishes to so many clients beyond those that the shard counts.
    fn publish_to(&mut self, seat: &mut Seat, pipe: u32, beyond: u64, bytes: &[u8]) -> Verdict {
        seat.stale = true;
        if let Some(stop) = self.not_now(seat.key, pipe) {
            return stop;
        }
        let owner = (seat.key, seat.generation);
        let kind = MergeKind::Heard { beyond };
        let merge = self.merges.begin(owner, kind, 1, [].into_iter());
        let (Some(client), Some(place)) = (
            self.clients.get_mut(seat.key as usize),
            self.pipes.get_mut(pipe as usize),
        ) else {
            self.merges.end(merge);
            return Verdict::End;
        };
        let ticket = Ticket {
            client: seat.key,
            generation: seat.generation,
            sequence: client.next_sequence(),
            class: CommandClass::Write,
            part: Some(PartOf { merge, part: 0 }),
        };
        client.expect(1);
        place.pipe.send(bytes, ticket, 1, self.now_us);
        self.mark_pipe(pipe);
        Verdict::Taken
    }
}
