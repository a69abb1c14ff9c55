//! Pipes beside the lanes, so that what is large keeps nobody waiting.
//!
//! ```text
//!             a large request begins            it is whole and answered
//!   Spare ----------------------------> Private -------------------------> Spare
//!    |  ^                                                                    |
//!    |  '------------ it owes nothing any more ------------- Detached        | not used
//!    |                                                          ^            | for 10 s
//!    |  in the other's place                 a large reply came |            v
//!    '------------------------------> Shared -------------------'         (closed)
//! ```
//!
//! Invariants
//! - A lane holds shared pipes only, and a shared pipe that is not retired is
//!   in its lane.
//! - A pipe that leaves its lane may owe replies to many clients; each of them
//!   gets what it is owed before its next request goes out, which would be on
//!   another connection.

use tracing::debug;

use crate::upstream::pipe::PipeError;

use super::client::{Client, Ending, Pause};
use super::core::{PoolCore, Ticket};
use super::lanes::PipePlace;

/// Pipes beside a lane to one shard, those in use and those kept. A large
/// request waits when there are so many; a large reply stays where it is.
pub const PRIVATE_PIPES_MAX: usize = 64;
/// Pipes that are kept for the next who needs one.
pub const SPARE_PIPES_MAX: usize = 32;
/// Pipes to one shard, of one lane, that wait or watch for their clients.
pub const SESSION_PIPES_MAX: usize = 1024;
/// A spare pipe that nobody wanted for so long is closed.
pub const SPARE_MS_MAX: u64 = 10_000;

const _: () = assert!(SPARE_PIPES_MAX <= PRIVATE_PIPES_MAX);

/// Whose requests a pipe carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Those of all clients of its lane.
    Shared,
    /// Those it had when a large reply came; no more are sent.
    Detached,
    /// One large request.
    Private {
        /// The client that sends it.
        client: u32,
        /// Whether its end is still to come.
        arriving: bool,
    },
    /// One request of a client that may wait at the shard for what others do.
    Waiting {
        /// The client.
        client: u32,
    },
    /// Those of a client that watches keys, until it executes or lets go.
    Watching {
        /// The client.
        client: u32,
    },
    /// Subscriptions of all clients.
    Hub,
    /// None.
    Spare {
        /// Since when.
        since_ms: u64,
    },
}

impl Role {
    /// Whether it is one client's for longer than a value needs to pass.
    fn is_session(self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Watching { .. })
    }
}

impl PipePlace {
    fn is_beside(&self, other: &Self) -> bool {
        self.lane == other.lane && self.address == other.address
    }
}

impl PoolCore {
    /// A pipe that carries nothing, to the shard of `like`: a spare one or a
    /// new one. `None`: there are too many for large values.
    pub(super) fn take_private(&mut self, like: u32) -> Option<u32> {
        self.take_beside(like, |role| !role.is_session(), PRIVATE_PIPES_MAX)
    }

    /// The same for a client's session. `None`: there are too many of those.
    pub(super) fn take_for_session(&mut self, like: u32) -> Option<u32> {
        self.take_beside(like, Role::is_session, SESSION_PIPES_MAX)
    }

    fn take_beside(
        &mut self,
        like: u32,
        counts: impl Fn(Role) -> bool,
        count_max: usize,
    ) -> Option<u32> {
        let like = self.pipes.get(like as usize)?;
        let beside = |(_, place): &(usize, &PipePlace)| {
            place.role != Role::Shared && !place.retired && place.is_beside(like)
        };
        let spare =
            self.pipes.iter().filter(beside).find(|(_, place)| {
                matches!(place.role, Role::Spare { .. }) && place.pipe.is_ready()
            });
        if let Some((key, _)) = spare {
            return Some(key as u32);
        }
        let counted = |(_, place): &(usize, &PipePlace)| counts(place.role);
        if self.pipes.iter().filter(beside).filter(counted).count() >= count_max {
            return None;
        }
        let role = Role::Spare {
            since_ms: self.now_ms(),
        };
        let pipe = self.new_pipe(like.lane, &like.address);
        let place = PipePlace::beside(like, pipe, role);
        Some(self.pipes.insert(place) as u32)
    }

    /// Takes a shared pipe out of its lane; another one takes its place. It
    /// stays if there are too many such pipes.
    pub(super) fn detach(&mut self, key: u32) {
        let Some(place) = self.pipes.get(key as usize) else {
            return;
        };
        if place.role != Role::Shared {
            return;
        }
        let (lane, connection) = (place.lane as usize, place.connection);
        if !place.retired {
            let Some(other) = self.take_private(key) else {
                return;
            };
            if let Some(lane) = self.lanes.get_mut(lane) {
                let places = lane.pipes.iter_mut().filter(|pipe| **pipe == key);
                places.for_each(|pipe| *pipe = other);
            }
            if let Some(place) = self.pipes.get_mut(other as usize) {
                (place.role, place.connection) = (Role::Shared, connection);
            }
            self.open_pipe(other);
        }
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        place.role = Role::Detached;
        self.settle_clients_of(key);
    }

    /// What the clients of a pipe send next waits until they have what they are
    /// owed, because it goes out on other connections.
    pub(super) fn settle_clients_of(&mut self, key: u32) {
        let Some(place) = self.pipes.get(key as usize) else {
            return;
        };
        for ticket in place.pipe.tickets() {
            if let Some(client) = self.clients.get_mut(ticket.client as usize)
                && client.generation == ticket.generation
                && client.settle_first()
            {
                self.paused.push_back(ticket.client);
            }
        }
    }

    /// Looks at a pipe beside the lanes after it received something.
    pub(super) fn look_at_private(&mut self, key: u32) {
        let Some(place) = self.pipes.get(key as usize) else {
            return;
        };
        let is_done = place.pipe.in_flight() == 0;
        match place.role {
            Role::Private {
                client,
                arriving: true,
            } if is_done => {
                // Answered before it was whole: the shard will not read the rest.
                self.upload_lost(client, key);
                self.abandon(key);
            }
            Role::Detached
            | Role::Waiting { .. }
            | Role::Private {
                arriving: false, ..
            } if is_done => {
                self.put_back(key);
            }
            Role::Shared
            | Role::Hub
            | Role::Spare { .. }
            | Role::Detached
            | Role::Waiting { .. }
            | Role::Watching { .. }
            | Role::Private { .. } => {}
        }
        self.drop_if_retired(key);
    }

    /// A pipe that owes nothing any more is kept, if it is of use.
    fn put_back(&mut self, key: u32) {
        let now_ms = self.now_ms();
        let Some(place) = self.pipes.get(key as usize) else {
            return;
        };
        let spares = self.pipes.iter().filter(|(_, other)| {
            matches!(other.role, Role::Spare { .. }) && !other.retired && other.is_beside(place)
        });
        let layout = &self.routing.layout;
        let has_use = place.pipe.is_at_rest()
            && !place.is_woken
            && layout
                .shards()
                .iter()
                .any(|shard| shard.address == place.address)
            && spares.count() < SPARE_PIPES_MAX;
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        place.role = Role::Spare { since_ms: now_ms };
        place.last_passage = None;
        place.is_woken = false;
        self.freed_pipes += 1;
        if !has_use {
            self.abandon(key);
        }
    }

    /// Closes a pipe beside the lanes at once; what it owes goes nowhere.
    pub(super) fn abandon(&mut self, key: u32) {
        let now_ms = self.now_ms();
        let Some(place) = self.pipes.get_mut(key as usize) else {
            return;
        };
        debug!(shard = place.shard, role = ?place.role, "closing a connection beside the shared ones");
        if place.pipe.is_ready() {
            place.counters.connections.sub(1);
        }
        place.pipe.fail(PipeError::Retired, now_ms);
        place.gauge_in_flight();
        place.passage = None;
        place.retired = true;
        self.drop_if_retired(key);
    }

    /// Closes spare pipes that nobody wanted for long.
    pub(super) fn close_spares(&mut self) {
        let now_ms = self.now_ms();
        let unused: Vec<u32> = self
            .pipes
            .iter()
            .filter(|(_, place)| match place.role {
                Role::Spare { since_ms } => now_ms.saturating_sub(since_ms) >= SPARE_MS_MAX,
                _ => false,
            })
            .map(|(key, _)| key as u32)
            .collect();
        for key in unused {
            self.abandon(key);
        }
    }
}

impl Client {
    /// Its next request waits until it is owed nothing; true if it has to be
    /// put on the list of paused clients.
    pub(super) fn settle_first(&mut self) -> bool {
        if self.ending != Ending::Open || self.owed() == 0 {
            return false;
        }
        match self.pause {
            // An upload's end brings the same.
            None if self.is_uploading() => false,
            None => {
                self.pause = Some(Pause::Lane);
                true
            }
            Some(Pause::Owed | Pause::Shard { .. }) => {
                self.pause = Some(Pause::Lane);
                false
            }
            Some(Pause::Held { .. }) => {
                self.settles = true;
                false
            }
            Some(Pause::Lane | Pause::Private { .. } | Pause::Window) => false,
        }
    }
}

impl Ticket {
    /// Whether it is of this client.
    pub(super) fn is_of(self, client: u32, generation: u32) -> bool {
        (self.client, self.generation) == (client, generation)
    }
}
