//! A worker: one thread, one poll, its own listeners, clients and pipes.
//!
//! ```text
//! turn:  wait -> orders -> read ready shards and clients
//!        -> settle the cores -> close, dial, write each dirty pipe once,
//!        write each dirty client once -> adopt, accept
//! ```
//!
//! Nothing of a worker is shared but its inbox, its counters and the counts of
//! clients (`balance.rs`). Sockets are edge-triggered: a read goes on until it
//! comes back short, unless the client is paused; then it is read when the core
//! says so.
//!
//! Invariant: connections are accepted, or adopted from another worker, only
//! after a turn's chores are done, so that a place in a core's table is never
//! reused while its old socket is open.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use tracing::warn;

use crate::metrics::pool::WorkerCalls;
use crate::upstream::pipe::PipeError;

use super::balance::Newcomer;
use super::core::Full;
use super::gathering::Gathering;
use super::orders::{Order, PoolRun};
use super::place::{Place, WAKE};
use super::resolver::Resolver;
use super::stream::link_error;

/// Bytes read at once; larger than what most clients send in a turn.
const SCRATCH_BYTES: usize = 128 * 1024;
/// Reads of one connection in one turn, so that others get theirs.
const READS_PER_TURN: usize = 4;
/// Events taken by one wait.
const EVENTS_PER_WAIT: usize = 512;
/// Granularity of deadlines.
const TICK: Duration = Duration::from_millis(10);
/// How often idle clients are looked for when nothing else happens.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// Rounds of chores in one turn before sockets are looked at again.
const CHORE_ROUNDS_MAX: usize = 64;

/// See the head of this file.
pub struct Worker {
    pub(super) index: usize,
    pub(super) workers: usize,
    pub(super) poll: Poll,
    pub(super) inbox: Receiver<Order>,
    pub(super) resolver: Resolver,
    pub(super) pools: Vec<Option<PoolRun>>,
    pub(super) stopping: bool,
    /// Read again in the next turn without waiting for an event.
    again: Vec<Place>,
    /// Clients that other workers accepted, with their pools.
    pub(super) adopt: Vec<(usize, Newcomer)>,
    pub(super) accept: Vec<(usize, u32)>,
    /// Listeners that could not accept for want of descriptors or memory.
    pub(super) accept_later: Vec<(usize, u32)>,
    unfinished: bool,
    scratch: Vec<u8>,
    started: Instant,
    last_tick: Instant,
    pub(super) needs_clock: bool,
    pub(super) calls: Arc<WorkerCalls>,
}

impl Worker {
    /// A worker without pools; orders bring them.
    pub fn new(
        (index, workers): (usize, usize),
        poll: Poll,
        inbox: Receiver<Order>,
        resolver: Resolver,
        calls: Arc<WorkerCalls>,
    ) -> Self {
        let now = Instant::now();
        Self {
            index,
            workers,
            poll,
            inbox,
            resolver,
            pools: Vec::new(),
            stopping: false,
            again: Vec::new(),
            adopt: Vec::new(),
            accept: Vec::new(),
            accept_later: Vec::new(),
            unfinished: false,
            scratch: vec![0; SCRATCH_BYTES],
            started: now,
            last_tick: now,
            needs_clock: false,
            calls,
        }
    }

    /// Turns until told to stop and the last client is gone.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        let mut gathered = Gathering::default();
        loop {
            let patience = if gathered.is_begun() {
                Some(Duration::ZERO)
            } else {
                self.patience()
            };
            self.calls.polls.inc();
            if let Err(error) = self.poll.poll(&mut events, patience)
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(worker = self.index, %error, "waiting for events failed");
            }
            self.set_clocks();
            if !self.take_orders() {
                return;
            }
            if !gathered.is_begun() {
                for place in std::mem::take(&mut self.again) {
                    self.read(place, true);
                }
            }
            // Shards first: their replies make room for what clients send.
            self.take_events(&events, |place| matches!(place, Place::Pipe { .. }));
            self.take_events(&events, |place| !matches!(place, Place::Pipe { .. }));
            self.tick();
            if gathered.goes_on(events.iter().count()) {
                continue;
            }
            self.do_chores();
            self.drop_removed();
            self.adopt_waiting();
            self.accept_waiting();
            if self.stopping && self.is_empty() {
                return;
            }
        }
    }

    fn take_events(&mut self, events: &Events, wanted: impl Fn(Place) -> bool) {
        for event in events {
            if event.token() == WAKE {
                continue;
            }
            match Place::of(event.token()) {
                Some(place) if !wanted(place) => {}
                Some(Place::Listener { pool, index }) => self.accept.push((pool, index)),
                Some(place) => {
                    if event.is_writable() {
                        self.writable(place);
                    }
                    if event.is_read_closed() {
                        self.closed_by_peer(place);
                    }
                    if event.is_readable() || event.is_error() {
                        self.read(place, event.is_read_closed() || event.is_error());
                    }
                }
                None => {}
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.accept.is_empty() || self.unfinished {
            Some(Duration::ZERO)
        } else if self.needs_clock {
            Some(TICK)
        } else {
            let idles = |pool: &PoolRun| pool.config.timeouts.idle.is_some();
            let mut pools = self.pools.iter().flatten();
            pools.any(idles).then_some(IDLE_LOOK)
        }
    }

    fn is_empty(&self) -> bool {
        self.pools
            .iter()
            .flatten()
            .all(|pool| pool.core.client_count() == 0)
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn set_clocks(&mut self) {
        let now_us = self.now_us();
        for pool in self.pools.iter_mut().flatten() {
            pool.core.set_clock(now_us);
        }
    }

    fn tick(&mut self) {
        if self.last_tick.elapsed() < TICK {
            return;
        }
        self.last_tick = Instant::now();
        self.needs_clock = false;
        for pool in self.pools.iter_mut().flatten() {
            pool.core.tick();
            self.needs_clock |= pool.core.needs_clock();
        }
        self.accept.append(&mut self.accept_later);
    }

    /// False when the control side is gone: the worker ends at once.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Abandon) => return false,
                Ok(order) => self.obey(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    pub(super) fn pool(&mut self, index: usize) -> Option<&mut PoolRun> {
        self.pools.get_mut(index)?.as_mut()
    }

    fn read(&mut self, place: Place, until_empty: bool) {
        match place {
            Place::Client { pool, key } => {
                self.read_client(pool, key, until_empty);
                self.write_full(pool);
            }
            Place::Pipe { pool, key } => {
                self.read_pipe(pool, key, until_empty);
                self.write_full(pool);
            }
            Place::Listener { .. } => {}
        }
    }

    fn read_client(&mut self, pool_index: usize, key: u32, until_empty: bool) {
        let Some(Some(pool)) = self.pools.get_mut(pool_index) else {
            return;
        };
        for _ in 0..READS_PER_TURN {
            if !pool.core.may_read(key) {
                return; // the core asks for it when the pause is over
            }
            let Some(Some(stream)) = pool.clients.get_mut(key as usize) else {
                return;
            };
            self.calls.reads.inc();
            match stream.read(&mut self.scratch) {
                Ok(0) => return pool.core.client_eof(key),
                Ok(n) => {
                    pool.core
                        .client_bytes(key, self.scratch.get(..n).unwrap_or_default());
                    if n < self.scratch.len() && !until_empty {
                        return;
                    }
                    if pool.core.is_uploading(key) {
                        break; // one piece a turn
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return pool.core.client_gone(key),
            }
        }
        self.again.push(Place::Client {
            pool: pool_index,
            key,
        });
    }

    fn read_pipe(&mut self, pool_index: usize, key: u32, until_empty: bool) {
        let Some(Some(pool)) = self.pools.get_mut(pool_index) else {
            return;
        };
        for _ in 0..READS_PER_TURN {
            if !pool.core.may_read_pipe(key) {
                return; // the core asks for it when its large reply may go on
            }
            let Some(Some(stream)) = pool.pipes.get_mut(key as usize) else {
                return;
            };
            self.calls.reads.inc();
            match stream.read(&mut self.scratch) {
                Ok(0) => return pool.pipe_failed(key, PipeError::Closed),
                Ok(n) => {
                    pool.core
                        .pipe_bytes(key, self.scratch.get(..n).unwrap_or_default());
                    if n < self.scratch.len() && !until_empty {
                        return;
                    }
                    if pool.core.is_passing(key) {
                        break; // one piece a turn
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Also what a socket says that is not connected yet.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) => return pool.pipe_failed(key, link_error(&error)),
            }
        }
        self.again.push(Place::Pipe {
            pool: pool_index,
            key,
        });
    }

    /// Writes what is too much to be kept until the end of the turn.
    #[inline]
    fn write_full(&mut self, pool_index: usize) {
        while let Some(pool) = self.pool(pool_index)
            && let Some(full) = pool.core.take_full()
        {
            match full {
                Full::Client(key) => self.write_client(pool_index, key),
                Full::Pipe(key) => self.write_pipe(pool_index, key),
            }
        }
    }

    /// The socket takes bytes again, or is connected now. Writing waits for
    /// the end of the turn: nearly every event says so beside something else.
    fn writable(&mut self, place: Place) {
        match place {
            Place::Client { pool, key } => {
                if let Some(pool) = self.pool(pool)
                    && let Some(Some(stream)) = pool.clients.get_mut(key as usize)
                {
                    stream.set_blocked(false);
                    pool.core.client_writable(key);
                }
            }
            Place::Pipe { pool, key } => {
                self.finish_dialling(pool, key);
                if let Some(pool) = self.pool(pool)
                    && let Some(Some(stream)) = pool.pipes.get_mut(key as usize)
                {
                    stream.set_blocked(false);
                    pool.core.pipe_writable(key);
                }
            }
            Place::Listener { .. } => {}
        }
    }

    /// A client that waits at a shard is not read: it leaves unheard otherwise.
    fn closed_by_peer(&mut self, place: Place) {
        if let Place::Client { pool, key } = place
            && let Some(pool) = self.pool(pool)
            && pool.core.is_waiting(key)
        {
            pool.core.client_gone(key);
        }
    }

    fn finish_dialling(&mut self, pool_index: usize, key: u32) {
        let Some(pool) = self.pool(pool_index) else {
            return;
        };
        if !pool.core.pipe_is_connecting(key) {
            return;
        }
        let Some(Some(stream)) = pool.pipes.get(key as usize) else {
            return;
        };
        match stream.is_connected() {
            Ok(true) => pool.core.pipe_connected(key),
            Ok(false) => {}
            Err(error) => pool.pipe_failed(key, link_error(&error)),
        }
    }

    fn write_client(&mut self, pool_index: usize, key: u32) {
        let Some(Some(pool)) = self.pools.get_mut(pool_index) else {
            return;
        };
        while !pool.core.client_output(key).is_empty() {
            let Some(Some(stream)) = pool.clients.get_mut(key as usize) else {
                return;
            };
            if stream.is_blocked() {
                return;
            }
            self.calls.writes.inc();
            match stream.write(pool.core.client_output(key)) {
                Ok(n) => pool.core.client_written(key, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return stream.set_blocked(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return pool.core.client_gone(key),
            }
        }
    }

    fn write_pipe(&mut self, pool_index: usize, key: u32) {
        let Some(Some(pool)) = self.pools.get_mut(pool_index) else {
            return;
        };
        while !pool.core.pipe_output(key).is_empty() {
            let Some(Some(stream)) = pool.pipes.get_mut(key as usize) else {
                return;
            };
            if stream.is_blocked() {
                return;
            }
            self.calls.writes.inc();
            match stream.write(pool.core.pipe_output(key)) {
                Ok(n) => pool.core.pipe_written(key, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return stream.set_blocked(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return pool.pipe_failed(key, link_error(&error)),
            }
        }
    }

    /// Settles the cores and does what they ask for, until they ask for nothing.
    fn do_chores(&mut self) {
        self.unfinished = false;
        for pool_index in 0..self.pools.len() {
            for round in 0..=CHORE_ROUNDS_MAX {
                if round == CHORE_ROUNDS_MAX {
                    self.unfinished = true; // the next turn goes on without waiting
                    break;
                }
                let Some(pool) = self.pool(pool_index) else {
                    break;
                };
                pool.core.settle();
                if !pool.core.has_chores() {
                    break;
                }
                let mut chores = pool.core.take_chores();
                // A deadline may begin here that no event will announce.
                let has_deadline = pool.config.timeouts.request.is_some();
                if chores.clock
                    || !chores.close_pipes.is_empty()
                    || (has_deadline && !chores.write_pipes.is_empty())
                {
                    self.needs_clock = true;
                }
                for &key in &chores.close_clients {
                    if let Some(pool) = self.pool(pool_index) {
                        pool.close_client(key);
                    }
                }
                for &key in &chores.close_pipes {
                    if let Some(pool) = self.pool(pool_index)
                        && let Some(place) = pool.pipes.get_mut(key as usize)
                    {
                        *place = None;
                    }
                }
                for &key in &chores.dial {
                    self.dial(pool_index, key);
                }
                for &key in &chores.write_pipes {
                    self.write_pipe(pool_index, key);
                }
                self.shut_pipes(pool_index, &chores.shut_pipes);
                for &key in &chores.write_clients {
                    self.write_client(pool_index, key);
                }
                for &key in &chores.read_clients {
                    self.again.push(Place::Client {
                        pool: pool_index,
                        key,
                    });
                }
                for &key in &chores.read_pipes {
                    self.again.push(Place::Pipe {
                        pool: pool_index,
                        key,
                    });
                }
                self.call_roll(pool_index, &mut chores.roll_calls);
                if let Some(pool) = self.pool(pool_index) {
                    pool.tell_failing(&mut chores.failing);
                    pool.tell_refusing(&mut chores.refusing);
                    pool.core.recycle(chores);
                }
            }
        }
    }
}
