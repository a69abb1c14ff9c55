//! What a core leaves to its driver at the end of a turn.

use crate::router::address::ShardAddress;

use super::core::Ticket;
use super::failures::Failing;
use super::roll_call::RollCall;

/// Output that is written before the end of a turn: more in one buffer saves
/// no system calls worth the memory it would take.
pub const FULL_BYTES: usize = 64 * 1024;

/// Whose output is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// A client's.
    Client(u32),
    /// A pipe's.
    Pipe(u32),
}

/// What the driver must do after a turn; each list is in the order of events.
#[derive(Debug, Default)]
pub struct Chores {
    /// Clients with new output.
    pub write_clients: Vec<u32>,
    /// Pipes with new output.
    pub write_pipes: Vec<u32>,
    /// Pipes to connect.
    pub dial: Vec<u32>,
    /// Clients to close; they are no longer in the core.
    pub close_clients: Vec<u32>,
    /// Pipes whose socket to close; those that are still in the core dial again later.
    pub close_pipes: Vec<u32>,
    /// Pipes on which nothing more is sent, once their output is written.
    pub shut_pipes: Vec<u32>,
    /// Clients that are read again after a pause.
    pub read_clients: Vec<u32>,
    /// Pipes that are read again after a stop.
    pub read_pipes: Vec<u32>,
    /// What to ask the other workers.
    pub roll_calls: Vec<RollCall>,
    /// Shards that failed too often, for the control side.
    pub failing: Vec<Failing>,
    /// Pipes on which a script could not be loaded. (The core's own: empty after it settled.)
    pub failed_loads: Vec<u32>,
    /// Clients that waited at a shard and were woken. (The core's own.)
    pub woken: Vec<Ticket>,
    /// Numbers that shards have for connections. (Likewise.)
    pub told_ids: Vec<(u32, u64)>,
    /// Requests that were executed where others may be refused. (The core's own.)
    pub executed: Vec<Ticket>,
    /// Servers that refuse requests, for the control side.
    pub refusing: Vec<ShardAddress>,
    /// Pipes on which an AUTH was refused, in the shard's words. (Likewise.)
    pub refused_logins: Vec<(u32, String)>,
    /// A deadline began that no event will announce.
    pub clock: bool,
}

impl Chores {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.clock
            && self.roll_calls.is_empty()
            && self.failing.is_empty()
            && self.refusing.is_empty()
            && self.lists().iter().all(|list| list.is_empty())
    }

    fn lists(&self) -> [&Vec<u32>; 8] {
        [
            &self.write_clients,
            &self.write_pipes,
            &self.dial,
            &self.close_clients,
            &self.close_pipes,
            &self.shut_pipes,
            &self.read_clients,
            &self.read_pipes,
        ]
    }

    /// Forgets everything but the lists' memory.
    pub fn clear(&mut self) {
        for list in [
            &mut self.write_clients,
            &mut self.write_pipes,
            &mut self.dial,
            &mut self.close_clients,
            &mut self.close_pipes,
            &mut self.shut_pipes,
            &mut self.read_clients,
            &mut self.read_pipes,
        ] {
            list.clear();
        }
        self.roll_calls.clear();
        self.failing.clear();
        self.refusing.clear();
        self.clock = false;
    }
}
