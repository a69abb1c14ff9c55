//! The protocol core of one pool in one worker: no sockets, no clock.
//!
//! ```text
//!            client_bytes          dispatch            pipe output
//!  client  ----------------> intake ---------> lanes ---------------> shard
//!  client <---------------- slots/merge <------------ pipe_bytes <--- shard
//!            client output
//! ```
//!
//! A driver (`worker.rs`; the simulator later) owns the sockets and the clock.
//! It hands in bytes, and at the end of a turn takes what [`PoolCore::settle`]
//! leaves in `PoolCore::chores`: whom to write to, dial, close or read again.
//!
//! Invariants
//! - A request is forwarded at most once; a failed pipe answers it by an error.
//! - Each request sees one [`Routing`]: it is swapped whole between requests.
//! - A paused client's input stays in `unread`, so nothing overtakes it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use slab::Slab;
use tracing::warn;

use crate::metrics::latency::CommandClass;
use crate::metrics::pool::PoolCounters;
use crate::metrics::registry::Registry;
use crate::resp::RequestLimits;
use crate::router::commands::KeyArg;
use crate::router::epoch::Routing;

pub use super::chores::{Chores, FULL_BYTES, Full};
use super::client::{Client, Ending, Pause};
use super::config::PoolConfig;
use super::failures::Failures;
use super::gate::{Drain, HoldTime};
use super::hub::Hub;
use super::lanes::{Lane, PipePlace};
use super::merge::{Merges, Owner};
use super::orders::SharedByWorkers;
use super::pace::Pace;
use super::parking::SpareParkings;
use super::reader::Reader;
use super::refused::RefusedRequests;
use super::scripts::Scripts;
use super::shard_logins::LoginState;
use super::spares::Spares;
use super::split::Split;

/// Readers kept for the next client with a partial request.
const SPARE_READERS_MAX: usize = 64;
/// Which requests of which client a shard's replies belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Place in the table of clients.
    pub client: u32,
    /// The client's generation, so that a reused place is not answered.
    pub generation: u32,
    /// Sequence number of the first request.
    pub sequence: u32,
    /// What kind of command it is, for the latency it is counted under.
    pub class: CommandClass,
    /// Of a fan-out: the merge and the part this is.
    pub part: Option<PartOf>,
}

/// One shard's share of a fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartOf {
    /// Number of the merge.
    pub merge: u32,
    /// Which part.
    pub part: u32,
}

/// See the head of this file.
pub struct PoolCore {
    pub(super) config: Arc<PoolConfig>,
    pub(super) routing: Arc<Routing>,
    pub(super) registry: Arc<Registry>,
    pub(super) counters: Arc<PoolCounters>,
    pub(super) clients: Slab<Client>,
    pub(super) pipes: Slab<PipePlace>,
    pub(super) gone_pipes: Vec<u32>,
    pub(super) lanes: Vec<Lane>,
    pub(super) chores: Chores,
    pub(super) full: Vec<Full>,
    pub(super) paused: VecDeque<u32>,
    /// How many pipes beside the lanes came free or were closed.
    pub(super) freed_pipes: u64,
    /// Pipes that are not read because of a large reply.
    pub(super) stopped_pipes: Vec<u32>,
    pub(super) pace: Pace,
    pub(super) drain: Option<Drain>,
    pub(super) logins: LoginState,
    pub(super) refused: RefusedRequests,
    pub(super) hold_time: Option<HoldTime>,
    pub(super) held_us_max: u64,
    pub(super) held_requests: u64,
    pub(super) held_bytes: usize,
    pub(super) key_args: Vec<KeyArg>,
    pub(super) split: Split,
    pub(super) merges: Merges,
    pub(super) hub: Hub,
    pub(super) failures: Failures,
    pub(super) scripts: Scripts,
    /// Replies that we make are written here first.
    pub(super) answer_buffer: Vec<u8>,
    pub(super) now_us: u64,
    pub(super) last_idle_look_ms: u64,
    #[expect(
        clippy::vec_box,
        reason = "each read of a client takes one and puts it back"
    )]
    readers: Vec<Box<Reader>>,
    pub(super) spare_outputs: Spares,
    pub(super) spare_parkings: SpareParkings,
    next_generation: u32,
    next_client_id: u64,
    client_id_step: u64,
    pub(super) stopping: bool,
}

impl PoolCore {
    /// A pool without clients. Client ids are `worker + 1`, then every `workers`-th.
    pub fn new(
        config: Arc<PoolConfig>,
        routing: Arc<Routing>,
        registry: Arc<Registry>,
        worker: u64,
        workers: u64,
    ) -> Self {
        let counters = registry.pool_counters(&config.name, worker);
        let mut core = Self {
            config,
            routing,
            registry,
            counters,
            clients: Slab::new(),
            pipes: Slab::new(),
            gone_pipes: Vec::new(),
            lanes: Vec::new(),
            chores: Chores::default(),
            full: Vec::new(),
            paused: VecDeque::new(),
            freed_pipes: 0,
            stopped_pipes: Vec::new(),
            pace: Pace::default(),
            drain: None,
            logins: LoginState::default(),
            refused: RefusedRequests::default(),
            hold_time: None,
            held_us_max: 0,
            held_requests: 0,
            held_bytes: 0,
            key_args: Vec::new(),
            split: Split::default(),
            merges: Merges::default(),
            hub: Hub::default(),
            failures: Failures::default(),
            scripts: Scripts::default(),
            answer_buffer: Vec::new(),
            now_us: 0,
            last_idle_look_ms: 0,
            readers: Vec::new(),
            spare_outputs: Spares::default(),
            spare_parkings: SpareParkings::default(),
            next_generation: 0,
            next_client_id: worker + 1,
            client_id_step: workers.max(1),
            stopping: false,
        };
        core.lane_of(2, core.config.database);
        if core.config.upstream.preconnect {
            core.warm();
        }
        core
    }

    /// Uses what all workers of the pool share; before its first client.
    pub(super) fn share(&mut self, shared: &SharedByWorkers) {
        self.scripts = Scripts::of(Arc::clone(&shared.scripts));
        self.hub = Hub::of(Arc::clone(&shared.audience));
    }

    /// Tells the time; once a turn.
    pub fn set_clock(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Settings that are not the layout change (reload).
    pub fn set_config(&mut self, config: Arc<PoolConfig>) {
        let old = mem::replace(&mut self.config, config);
        let (config, compat) = (Arc::clone(&self.config), self.config.compat);
        if old.upstream.credentials != config.upstream.credentials || old.compat != compat {
            self.greet_anew();
        }
        if old.upstream.connections != config.upstream.connections {
            self.fill_lanes();
            self.settle_before_going_on();
        }
        // They have the old limits.
        self.readers.clear();
        let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let reader = self.take_reader();
            if let Some(unread) = self
                .clients
                .get_mut(key)
                .and_then(|client| client.unread.as_mut())
            {
                unread.reader = reader; // reads what is kept from its first byte
            }
        }
    }

    /// Clients may get other connections from now on: what they send next waits
    /// until what they are owed is here, so that it overtakes nothing.
    fn settle_before_going_on(&mut self) {
        for (key, client) in &mut self.clients {
            if client.settle_first() {
                self.paused.push_back(key as u32);
            }
        }
    }

    /// A client connected; its place in the table is its name from now on.
    pub fn accept(&mut self, peer: Option<Box<str>>) -> u32 {
        let id = self.next_client_id;
        self.next_client_id += self.client_id_step;
        self.next_generation = self.next_generation.wrapping_add(1);
        let now_ms = self.now_ms();
        let mut client = Client::new(id, self.next_generation, peer, now_ms);
        if self.config.auth.is_some() {
            client.log_out();
        }
        self.counters.clients_total.inc();
        self.counters.clients.add(1);
        let key = self.clients.insert(client) as u32;
        self.set_lane(key, 2, self.config.database);
        key
    }

    /// Workers of the pool.
    pub(super) fn workers(&self) -> usize {
        self.client_id_step as usize
    }

    /// Clients connected now, and those closed in this turn.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Whether the driver may read from the client now.
    pub fn may_read(&self, key: u32) -> bool {
        self.clients
            .get(key as usize)
            .is_some_and(|client| client.pause.is_none() && client.ending == Ending::Open)
    }

    /// What may be written to the client's socket.
    pub fn client_output(&self, key: u32) -> &[u8] {
        self.clients
            .get(key as usize)
            .map(Client::output)
            .unwrap_or_default()
    }

    /// The socket takes bytes again.
    pub fn client_writable(&mut self, key: u32) {
        if !self.client_output(key).is_empty() {
            self.mark_client(key);
        }
    }

    /// The socket took `n` bytes.
    pub fn client_written(&mut self, key: u32, n: usize) {
        self.counters.client_bytes_out.add(n as u64);
        let now_ms = self.now_ms();
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.active_ms = now_ms;
            client.written(n);
            if client.out.is_empty() && !client.receives_large {
                self.spare_outputs.give(mem::take(&mut client.out));
            }
            if client.is_finished() {
                self.close_client(key);
            }
        }
    }

    /// The client will send no more: it gets its replies, then it is closed.
    pub fn client_eof(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if client.ending == Ending::Open && !client.eof {
            self.counters.client_eofs_total.inc();
        }
        let waits_with_input = client.pause.is_some() && client.unread.is_some();
        if client.is_waiting() {
            self.close_client(key);
        } else if waits_with_input {
            client.eof = true;
        } else if client.ending == Ending::Open {
            client.ending = Ending::Finishing;
            self.cut_upload(key);
            self.mark_client(key);
        }
    }

    /// The client's connection is gone: what it is owed goes nowhere.
    pub fn client_gone(&mut self, key: u32) {
        let client = self.clients.get(key as usize);
        if client.is_some_and(|client| client.ending != Ending::Closed) {
            self.counters.client_errors_total.inc();
        }
        self.close_client(key);
    }

    /// The client stays in the table until the driver takes its chores, so that
    /// its place is not reused while events of this turn may still name it.
    pub(super) fn close_client(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return;
        };
        if client.ending == Ending::Closed {
            return;
        }
        client.ending = Ending::Closed;
        if matches!(client.pause, Some(Pause::Held { .. })) {
            let unread = client
                .unread
                .as_ref()
                .map_or(0, |unread| unread.bytes.len());
            self.held_bytes = self.held_bytes.saturating_sub(unread);
        }
        self.counters.clients.sub(1);
        self.chores.close_clients.push(key);
        self.cut_upload(key);
        self.drop_session(key);
    }

    fn close_overrun(&mut self, key: u32) {
        let Some(client) = self.clients.get(key as usize) else {
            return;
        };
        self.counters.clients_overrun_total.inc();
        warn!(
            pool = %self.config.name,
            client = client.id,
            peer = client.peer.as_deref().unwrap_or("?"),
            kept_bytes = client.kept(),
            bytes_max = self.config.limits.client_buffer_bytes_max,
            "closed a client that does not read its replies (limits.max_client_buffer)"
        );
        self.close_client(key);
    }

    /// Puts a client on the list of those to write to.
    pub(super) fn mark_client(&mut self, key: u32) {
        if let Some(client) = self.clients.get_mut(key as usize)
            && !client.dirty
        {
            client.dirty = true;
            self.chores.write_clients.push(key);
        }
    }

    /// Ends a turn: clients that may go on do, finished ones close.
    pub fn settle(&mut self) {
        self.resume_paused();
        self.restart_pipes();
        self.forget_failed_loads();
        self.note_ids();
        self.check_logins();
        self.check_drain();
        if self.stopping {
            self.finish_clients();
        }
        self.counters.held_requests.set(self.held_requests);
        self.counters.held_bytes.set(self.held_bytes as u64);
    }

    /// Takes the list of chores; give it back by [`PoolCore::recycle`].
    pub fn take_chores(&mut self) -> Chores {
        let mut chores = mem::take(&mut self.chores);
        for &key in &chores.write_clients {
            if let Some(client) = self.clients.get_mut(key as usize) {
                client.dirty = false;
                if client.overrun {
                    self.close_overrun(key);
                } else if client.is_finished() {
                    self.close_client(key);
                }
            }
        }
        chores.close_clients.append(&mut self.chores.close_clients);
        for &key in &chores.close_clients {
            let collected = self.clients.remove(key as usize).collected_for();
            if collected > 0 {
                let clients = &self.clients;
                self.merges
                    .orphan(collected, |owner| is_there(clients, owner));
            }
        }
        for key in mem::take(&mut self.gone_pipes) {
            self.pipes.remove(key as usize);
        }
        for &key in &chores.write_pipes {
            if let Some(place) = self.pipes.get_mut(key as usize) {
                place.dirty = false;
                place.count_requests();
            }
        }
        chores
    }

    /// One whose output should be written without waiting for the end of the turn.
    #[inline]
    pub fn take_full(&mut self) -> Option<Full> {
        let full = self.full.pop()?;
        match full {
            Full::Client(key) => {
                if let Some(client) = self.clients.get_mut(key as usize) {
                    client.full = false;
                }
            }
            Full::Pipe(key) => {
                if let Some(place) = self.pipes.get_mut(key as usize) {
                    place.full = false;
                }
            }
        }
        Some(full)
    }

    /// Whether [`PoolCore::take_chores`] would find something.
    pub fn has_chores(&self) -> bool {
        !self.chores.is_empty()
    }

    /// Keeps the lists' memory for the next turn.
    pub fn recycle(&mut self, mut chores: Chores) {
        if !self.has_chores() {
            chores.clear();
            self.chores = chores;
        }
    }

    #[inline]
    pub(super) fn take_reader(&mut self) -> Box<Reader> {
        self.readers.pop().unwrap_or_else(|| {
            let limits = RequestLimits {
                request_bytes_max: self.config.limits.request_bytes_max,
                ..RequestLimits::default()
            };
            Box::new(Reader::new(limits, self.config.compat))
        })
    }

    /// Keeps a reader that stands between two requests.
    #[inline]
    pub(super) fn keep_reader(&mut self, reader: Box<Reader>) {
        if self.readers.len() < SPARE_READERS_MAX {
            self.readers.push(reader);
        }
    }
}

fn is_there(clients: &Slab<Client>, (key, generation): Owner) -> bool {
    let client = clients.get(key as usize);
    client.is_some_and(|client| client.generation == generation)
}

#[cfg(test)]
mod tests;
