//! What a worker does when a shard goes out of the ring, or comes back.
//!
//! ```text
//! out    its connections are closed, what they owed is answered by an error,
//!        and each request for it is refused at once
//! in     the next request dials
//! ```
//! Connections to the other shards go on; only a client that waits (BLPOP) at a
//! shard where its key is no longer looked for is told so, as Redis tells it when
//! a master becomes a replica: what it waits for would come to another shard.
//!
//! Invariant: nothing of ours is in flight at a shard that is out, so nothing
//! runs there after its keys are looked for elsewhere.

use std::sync::Arc;

use crate::router::address::ShardAddress;
use crate::router::layout::Layout;
use crate::upstream::pipe::{Pipe, PipeError};

use super::core::{PoolCore, Ticket};
use super::private_pipes::Role;

impl PoolCore {
    /// Brings the pipes to what the layout in use says, which was `before` until now.
    pub(super) fn follow_ejections(&mut self, before: &Layout) {
        let layout = Arc::clone(&self.routing.layout);
        if before.out().is_empty() && layout.out().is_empty() {
            return;
        }
        let keys: Vec<u32> = self.pipes.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            let Some(place) = self.pipes.get_mut(key as usize) else {
                continue;
            };
            match (layout.is_out_at(&place.address), place.pipe.is_shut_out()) {
                (true, false) => self.shut_out(key),
                (false, true) => place.pipe.rest(),
                (true, true) | (false, false) => {}
            }
        }
        self.failures
            .forget(|shard| before.is_out_at(shard) != layout.is_out_at(shard));
        if self.config.upstream.preconnect {
            self.warm();
        }
    }

    fn shut_out(&mut self, key: u32) {
        self.chores.dial.retain(|dialled| *dialled != key);
        self.pipe_failed(key, PipeError::Ejected);
        if let Some(place) = self.pipes.get_mut(key as usize) {
            place.pipe.shut_out();
        }
    }

    /// A pipe to a shard, which may be out.
    pub(super) fn new_pipe(&self, lane: u32, address: &ShardAddress) -> Pipe<Ticket> {
        let mut pipe = Pipe::new(self.greeting(lane, address));
        pipe.retain(self.logins.of(address).is_some());
        if self.routing.layout.is_out_at(address) {
            pipe.shut_out();
        }
        pipe
    }

    /// Ends the waiting of clients whose key is looked for elsewhere now. After a
    /// switch they are woken, to wait on there; those that were woken already are left
    /// to it. Their connections to the old servers must still be in their lanes.
    pub(super) fn wake_misplaced(&mut self) {
        for key in self.misplaced() {
            let place = self.pipes.get(key as usize);
            let (Some(woken), Some(_)) = (
                place.map(|place| place.is_woken),
                place.and_then(|place| place.id_at_shard),
            ) else {
                self.pipe_failed(key, PipeError::Misplaced);
                continue;
            };
            if !woken {
                self.unblock(key);
            }
        }
    }

    /// After an ejection they are told: the shard may not answer.
    pub(super) fn unblock_misplaced(&mut self) {
        for key in self.misplaced() {
            self.pipe_failed(key, PipeError::Misplaced);
        }
    }

    fn misplaced(&self) -> Vec<u32> {
        let layout = Arc::clone(&self.routing.layout);
        if !layout.is_deterministic() {
            return Vec::new(); // no key has a place of its own
        }
        let is_misplaced = |client: u32, address: &ShardAddress| {
            let client = self.clients.get(client as usize);
            let session = client.and_then(|client| client.session.as_ref());
            let wait = session.and_then(|session| session.wait.as_ref());
            let name = wait.and_then(|wait| wait.keys.first());
            name.is_some_and(|name| layout.shard(layout.owner(name)).address != *address)
        };
        self.pipes
            .iter()
            .filter(|(_, place)| {
                matches!(place.role, Role::Waiting { client } if is_misplaced(client, &place.address))
                    && place.pipe.in_flight() > 0
            })
            .map(|(key, _)| key as u32)
            .collect()
    }
}
