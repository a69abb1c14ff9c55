//! The end of a pool: each client gets what it is owed and is closed.
//!
//! ```text
//!   owed a reply ------- the reply ------> quiet ---> Finishing ---> closed
//!   waits (BLPOP ..) --- let go ---------> the shard ends the connection ---> closed
//!                           '-- an element came first: its reply --> quiet
//! ```
//!
//! Who waits may wait for ever, so it is let go: our side of its connection to the
//! shard is shut. A shard that had answered before it read that has its answer on
//! the way, and the client gets it; any other ends the connection and gives nothing
//! to someone who is gone. So no element is lost, and as from a server that stops,
//! the client sees its connection end.

use super::client::Ending;
use super::core::PoolCore;
use super::private_pipes::Role;

impl PoolCore {
    /// From now on each client is closed as soon as it is owed nothing.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.finish_clients();
    }

    /// Begins to end those that are owed nothing or wait.
    pub(super) fn finish_clients(&mut self) {
        self.finish_quiet_clients();
        let waiting: Vec<(u32, u32)> = self
            .pipes
            .iter()
            .filter(|(_, place)| !place.let_go)
            .filter_map(|(pipe, place)| match place.role {
                Role::Waiting { client } => Some((pipe as u32, client)),
                _ => None,
            })
            .collect();
        for (pipe, client) in waiting {
            self.let_go(pipe, client);
        }
    }

    fn finish_quiet_clients(&mut self) {
        let quiet: Vec<u32> = self
            .clients
            .iter_mut()
            .filter(|(_, client)| client.ending == Ending::Open && client.is_quiet())
            .map(|(key, client)| {
                client.ending = Ending::Finishing;
                key as u32
            })
            .collect();
        for key in quiet {
            self.mark_client(key);
        }
    }

    fn let_go(&mut self, pipe: u32, client: u32) {
        let Some(place) = self.pipes.get_mut(pipe as usize) else {
            return;
        };
        if place.pipe.in_flight() == 0 {
            return;
        }
        place.let_go = true;
        place.retired = true; // it can carry nothing more
        if place.pipe.is_ready() {
            self.chores.shut_pipes.push(pipe);
        } else {
            self.close_client(client); // its request has not left
        }
    }
}
