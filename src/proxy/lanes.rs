//! Sets of pipes: one pipe for each (protocol, database, shard, connection).
//!
//! A lane is what one client's requests ride on: all of one protocol and
//! database. Pipes are dialled by the first request that needs them, or ahead
//! of a switch. They are found by the shard's address, so that a new layout
//! keeps the connections to the servers it shares with the old one.

use std::sync::Arc;

use crate::metrics::pool::ShardCounters;
use crate::router::address::ShardAddress;
use crate::router::layout::{Layout, Shard, ShardIndex};
use crate::upstream::pipe::{Dialect, Greeting, Manner, Pipe, PipeError};

use super::config::{Compat, Protocol};
use super::core::{PoolCore, Ticket};
use super::dispatch::Seat;
use super::large_replies::Passage;
use super::original;
use super::private_pipes::Role;
use super::scripts::Loaded;
use super::subscriptions::HUB_LANE;

/// Bytes that may wait in a pipe before its clients are paused.
pub const PIPE_UNWRITTEN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One pipe and what it is for.
pub struct PipePlace {
    /// The connection.
    pub pipe: Pipe<Ticket>,
    /// Name of the shard in its layout, for messages.
    pub shard: String,
    /// Where it connects.
    pub address: ShardAddress,
    /// Which of the shard's connections of this lane it is.
    pub connection: u16,
    /// The worker's counters of this shard.
    pub counters: Arc<ShardCounters>,
    /// Requests already counted.
    pub counted: u64,
    /// Requests in flight that the gauge shows for this pipe.
    pub gauged_in_flight: u64,
    /// Whether it is on the list of pipes to write to.
    pub dirty: bool,
    /// Whether it is on the list of those to write to at once.
    pub full: bool,
    /// No layout in use has it: it goes when it owes nothing.
    pub retired: bool,
    /// Its shard does not know the epoch's user: requests wait until it is known
    /// what that means (`refused.rs`).
    pub is_doubted: bool,
    /// Requests queued when the layout last changed: what is refused of them has
    /// another place by now.
    pub routed_at: u64,
    /// Its client, which waits at the shard, was woken because its keys move.
    pub is_woken: bool,
    /// The shard's number of this connection, once it was asked.
    pub id_at_shard: Option<u64>,
    /// Nothing more is sent on it: its client waits, and we stop.
    pub let_go: bool,
    /// Index of the set of pipes it is or was in, or was made for.
    pub lane: u32,
    /// Whose requests it carries.
    pub role: Role,
    /// Scripts that its shard was told.
    pub loaded: Loaded,
    /// The large reply that is arriving.
    pub passage: Option<Passage>,
    /// The one before it.
    pub last_passage: Option<Passage>,
}

/// Pipes of one protocol and database.
pub struct Lane {
    /// RESP version.
    pub protocol: u8,
    /// Database.
    pub database: u16,
    /// `shard * connections + connection` -> place in the table of pipes.
    pub pipes: Vec<u32>,
    /// Connections to each shard when `pipes` was filled.
    pub connections: usize,
}

impl PoolCore {
    fn connections(&self) -> usize {
        usize::from(self.config.upstream.connections.max(1))
    }

    /// The lane of a protocol and database, made at first use.
    pub(super) fn lane_of(&mut self, protocol: u8, database: u16) -> u32 {
        let found = self
            .lanes
            .iter()
            .position(|lane| lane.protocol == protocol && lane.database == database);
        if let Some(index) = found {
            return index as u32;
        }
        self.lanes.push(Lane {
            protocol,
            database,
            pipes: Vec::new(),
            connections: self.connections(),
        });
        let index = self.lanes.len() - 1;
        let layout = Arc::clone(&self.routing.layout);
        self.fill_lane(index, &layout);
        index as u32
    }

    /// Points a lane at the pipes of `layout`, making those that are missing.
    fn fill_lane(&mut self, index: usize, layout: &Layout) {
        let Some(lane) = self.lanes.get(index) else {
            return;
        };
        let old: Vec<u32> = lane.pipes.clone();
        let connections = self.connections();
        let mut pipes: Vec<u32> = Vec::with_capacity(layout.shards().len() * connections);
        for shard in layout.shards() {
            for connection in 0..connections as u16 {
                // Two names of one server share its connection, so that a key
                // that changes only its shard's name keeps its order.
                let known = pipes.iter().chain(&old).copied().find(|&key| {
                    self.pipes.get(key as usize).is_some_and(|place| {
                        place.address == shard.address && place.connection == connection
                    })
                });
                let key = known.unwrap_or_else(|| self.add_pipe(index, shard, connection));
                if let Some(place) = self.pipes.get_mut(key as usize) {
                    place.retired = false;
                    place.shard.clone_from(&shard.name);
                }
                pipes.push(key);
            }
        }
        for key in old {
            if !pipes.contains(&key)
                && let Some(place) = self.pipes.get_mut(key as usize)
            {
                place.retired = true;
                self.drop_if_retired(key);
            }
        }
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.pipes = pipes;
            lane.connections = connections;
        }
    }

    /// Points every lane at the pipes of the layout in use.
    pub(super) fn fill_lanes(&mut self) {
        let layout = Arc::clone(&self.routing.layout);
        for index in 0..self.lanes.len() {
            self.fill_lane(index, &layout);
        }
    }

    fn add_pipe(&mut self, lane: usize, shard: &Shard, connection: u16) -> u32 {
        let counters = self.shard_counters(&shard.name);
        let place = PipePlace {
            pipe: self.new_pipe(lane as u32, &shard.address),
            shard: shard.name.clone(),
            address: shard.address.clone(),
            connection,
            counters,
            counted: 0,
            gauged_in_flight: 0,
            dirty: false,
            full: false,
            retired: false,
            is_doubted: false,
            routed_at: 0,
            is_woken: false,
            id_at_shard: None,
            let_go: false,
            lane: lane as u32,
            role: Role::Shared,
            loaded: Loaded::default(),
            passage: None,
            last_passage: None,
        };
        self.pipes.insert(place) as u32
    }

    /// What the connections of a lane to a shard say first.
    pub(super) fn greeting(&self, lane: u32, address: &ShardAddress) -> Greeting {
        let greeting = self.configured_greeting(lane, address);
        match self.logins.of(address) {
            Some(login) => Greeting {
                credentials: Some(login.clone()),
                manner: Manner::Checked, // a refused AUTH must be noticed
                ..greeting
            },
            None => greeting,
        }
    }

    /// The same without an epoch's user.
    pub(super) fn configured_greeting(&self, lane: u32, address: &ShardAddress) -> Greeting {
        let lane = self.lanes.get(lane as usize);
        let greeting = Greeting {
            dialect: match self.config.protocol {
                Protocol::Redis => Dialect::Resp,
                Protocol::Memcached => Dialect::Memcached,
            },
            protocol: lane.map_or(2, |lane| lane.protocol),
            database: lane.map_or(0, |lane| lane.database),
            credentials: self.config.upstream.credentials.clone(),
            manner: Manner::Checked,
        };
        match self.config.compat {
            Compat::Redis => greeting,
            Compat::Twemproxy => original::greeting(greeting, address),
        }
    }

    /// Tells every pipe what its next connection says first (reload).
    pub(super) fn greet_anew(&mut self) {
        let keys: Vec<usize> = self.pipes.iter().map(|(key, _)| key).collect();
        for key in keys {
            let place = self.pipes.get(key);
            let greeting = place.map(|place| match place.role {
                Role::Hub => self.configured_greeting(HUB_LANE, &place.address),
                _ => self.greeting(place.lane, &place.address),
            });
            if let (Some(place), Some(greeting)) = (self.pipes.get_mut(key), greeting) {
                place.pipe.set_greeting(greeting);
            }
        }
    }

    /// One block of counters for all pipes of this worker to one shard.
    fn shard_counters(&self, shard: &str) -> Arc<ShardCounters> {
        let known = self.pipes.iter().find(|(_, place)| place.shard == shard);
        known.map_or_else(
            || self.registry.shard_counters(&self.config.name, shard),
            |(_, place)| Arc::clone(&place.counters),
        )
    }

    /// Makes and dials the pipes that `layout` needs beside today's, in every
    /// lane, so that a switch finds them connected. They follow today's pipes
    /// in their lane, which keep their places.
    pub(super) fn prepare_for(&mut self, layout: &Layout) {
        for index in 0..self.lanes.len() {
            for shard in layout.shards() {
                self.add_missing(index, shard);
            }
        }
        self.warm();
    }

    fn add_missing(&mut self, index: usize, shard: &Shard) {
        let Some(lane) = self.lanes.get(index) else {
            return;
        };
        let at_address = |&key: &u32| {
            self.pipes
                .get(key as usize)
                .is_some_and(|place| place.address == shard.address)
        };
        if lane.pipes.iter().any(at_address) {
            return;
        }
        for connection in 0..self.connections() as u16 {
            let key = self.add_pipe(index, shard, connection);
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.pipes.push(key);
            }
        }
    }

    /// Dials every pipe that has no connection.
    pub(super) fn warm(&mut self) {
        let now_ms = self.now_ms();
        for (key, place) in &mut self.pipes {
            if !place.retired && place.role == Role::Shared && place.pipe.wants_dial(now_ms) {
                place.pipe.dialing(now_ms);
                self.chores.dial.push(key as u32);
            }
        }
    }

    /// The pipe a client's request for `shard` takes.
    #[inline]
    pub(super) fn pipe_for(&self, seat: &Seat, shard: ShardIndex) -> Option<u32> {
        let lane = self.lanes.get(seat.lane as usize)?;
        let index = match lane.connections {
            1 => usize::from(shard.0), // a division costs more than all the rest
            n => usize::from(shard.0) * n + seat.key as usize % n,
        };
        lane.pipes.get(index).copied()
    }

    /// Puts a pipe on the list of those to write to.
    #[inline]
    pub(super) fn mark_pipe(&mut self, key: u32) {
        if let Some(place) = self.pipes.get_mut(key as usize)
            && !place.dirty
        {
            place.dirty = true;
            self.chores.write_pipes.push(key);
        }
    }

    /// Forgets a pipe that no layout needs and nobody waits on.
    pub(super) fn drop_if_retired(&mut self, key: u32) {
        let done = self
            .pipes
            .get(key as usize)
            .is_some_and(|place| place.retired && place.pipe.in_flight() == 0);
        if done && !self.gone_pipes.contains(&key) {
            if let Some(place) = self.pipes.get_mut(key as usize)
                && place.pipe.is_ready()
            {
                place.counters.connections.sub(1);
                place.pipe.rest();
            }
            self.freed_pipes += 1;
            self.gone_pipes.push(key); // its place is reused after this turn
            self.chores.close_pipes.push(key);
        }
    }

    /// Closes every pipe, as when the pool leaves the config.
    pub fn close_pipes(&mut self) {
        let keys: Vec<u32> = self.pipes.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            if let Some(place) = self.pipes.get_mut(key as usize) {
                place.retired = true;
            }
            self.pipe_failed(key, PipeError::Retired);
        }
    }

    /// Whether a pipe waits for its socket to connect.
    pub fn pipe_is_connecting(&self, key: u32) -> bool {
        self.pipes
            .get(key as usize)
            .is_some_and(|place| place.pipe.is_connecting())
    }

    /// Where to connect a pipe.
    pub fn pipe_address(&self, key: u32) -> Option<&ShardAddress> {
        self.pipes.get(key as usize).map(|place| &place.address)
    }

    /// State of every shard's connections, for metrics: (shard, connected).
    pub fn shard_links(&self) -> impl Iterator<Item = (&str, bool)> {
        let shared = |(_, place): &(usize, &PipePlace)| place.role == Role::Shared;
        self.pipes
            .iter()
            .filter(shared)
            .map(|(_, place)| (place.shard.as_str(), place.pipe.is_ready()))
    }
}

impl PipePlace {
    /// A pipe to the shard of `like`, beside its lane.
    pub(super) fn beside(like: &Self, pipe: Pipe<Ticket>, role: Role) -> Self {
        Self {
            pipe,
            shard: like.shard.clone(),
            address: like.address.clone(),
            connection: like.connection,
            counters: Arc::clone(&like.counters),
            counted: 0,
            gauged_in_flight: 0,
            dirty: false,
            full: false,
            retired: false,
            is_doubted: false,
            routed_at: 0,
            is_woken: false,
            id_at_shard: None,
            let_go: false,
            lane: like.lane,
            role,
            loaded: Loaded::default(),
            passage: None,
            last_passage: None,
        }
    }
}
