//! Every block of counters of the process, added up when asked.
//!
//! A worker asks for its block once (a lock, an allocation) and then writes it
//! alone. When the worker or the shard goes, it drops its `Arc`; the registry
//! sees that at the next scrape and keeps the block's counters in `ended`.
//!
//! Invariants: a counter of a series never falls while any worker serves the
//! series; a shard that no worker serves any more has no series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counter::{Gauge, SharedCounter};
use super::ejections::EjectionStates;
use super::nutcracker::{self, StatsSource};
use super::pool::{Block, PoolCounters, ShardCounters, WorkerCalls};
use super::render;
use super::summary::ShardLatencySummary;

/// All counters of a process.
#[derive(Debug, Default)]
pub struct Registry {
    process: ProcessCounters,
    /// By worker; all of them live as long as the process.
    calls: Mutex<BTreeMap<u64, Arc<WorkerCalls>>>,
    pools: Mutex<BTreeMap<String, PoolSeries>>,
}

/// What the control thread counts.
#[derive(Debug, Default)]
pub struct ProcessCounters {
    /// Config reloads that were applied, also those that changed nothing.
    pub config_reloads: SharedCounter,
    /// Config reloads that were refused; the old config stays.
    pub config_reload_failures: SharedCounter,
    /// Worker threads that run.
    pub workers: Gauge,
}

/// What the control thread knows about one pool.
#[derive(Debug, Default)]
pub struct PoolState {
    /// Number of the layout in use.
    pub epoch: Gauge,
    /// Which shards are ejected, and how often they were.
    pub ejections: EjectionStates,
}

/// Sums over the workers of one pool.
#[derive(Debug, Default, Clone, Copy)]
pub struct PoolTotals {
    /// Clients connected now.
    pub clients: u64,
    /// Clients accepted since start.
    pub clients_total: u64,
    /// Requests read.
    pub requests_total: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
}

/// What a switch holds in the workers of one pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolHeld {
    /// Requests, all workers together.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests of the worker that has most.
    pub worker_requests_max: u64,
    /// Bytes of the worker that has most.
    pub worker_bytes_max: u64,
}

#[derive(Debug, Default)]
pub(super) struct PoolSeries {
    pub(super) state: Arc<PoolState>,
    pub(super) clients: Blocks<PoolCounters>,
    pub(super) shards: BTreeMap<String, Blocks<ShardCounters>>,
}

/// The blocks of all workers for one series.
#[derive(Debug, Default)]
pub(super) struct Blocks<B> {
    live: Vec<Arc<B>>,
    ended: B,
}

impl<B: Block> Blocks<B> {
    fn add(&mut self, block: B) -> Arc<B> {
        let block = Arc::new(block);
        self.live.push(Arc::clone(&block));
        block
    }

    /// Moves blocks that only we hold to `ended`.
    fn sweep(&mut self) {
        let live = std::mem::take(&mut self.live);
        for block in live {
            // Taking it apart (instead of looking at the count) also makes
            // the last writes of its worker visible here.
            match Arc::try_unwrap(block) {
                Ok(block) => self.ended.absorb(&block),
                Err(block) => self.live.push(block),
            }
        }
    }

    /// The blocks that workers write now.
    pub(super) fn live(&self) -> impl Iterator<Item = &B> {
        self.live.iter().map(Arc::as_ref)
    }

    /// Every block, also those that nobody writes any more.
    pub(super) fn all(&self) -> impl Iterator<Item = &B> {
        self.live().chain([&self.ended])
    }

    pub(super) fn sum(&self, of: impl Fn(&B) -> u64) -> u64 {
        self.all().map(of).fold(0, u64::wrapping_add)
    }
}

impl Registry {
    /// An empty registry, to be shared by all workers.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Counters of the process as a whole.
    pub fn process(&self) -> &ProcessCounters {
        &self.process
    }

    /// The block of worker `worker`.
    pub fn worker_calls(&self, worker: u64) -> Arc<WorkerCalls> {
        Arc::clone(lock(&self.calls).entry(worker).or_default())
    }

    /// A fresh block for the clients of `pool` that worker `worker` serves.
    pub fn pool_counters(&self, pool: &str, worker: u64) -> Arc<PoolCounters> {
        let block = PoolCounters {
            worker,
            ..PoolCounters::default()
        };
        self.with_pool(pool, |series| series.clients.add(block))
    }

    /// A fresh block for one worker's connections to `shard` of `pool`.
    pub fn shard_counters(&self, pool: &str, shard: &str) -> Arc<ShardCounters> {
        self.with_pool(pool, |series| {
            let blocks = series.shards.entry(shard.to_owned()).or_default();
            blocks.add(ShardCounters::default())
        })
    }

    /// The state of `pool` that the control thread sets.
    pub fn pool_state(&self, pool: &str) -> Arc<PoolState> {
        self.with_pool(pool, |series| Arc::clone(&series.state))
    }

    /// What the clients of `pool` did so far, all workers together.
    pub fn pool_totals(&self, pool: &str) -> PoolTotals {
        let pools = self.swept();
        let Some(series) = pools.get(pool) else {
            return PoolTotals::default();
        };
        let sum = |of: fn(&PoolCounters) -> u64| series.clients.sum(of);
        PoolTotals {
            clients: sum(|counters| counters.clients.value()),
            clients_total: sum(|counters| counters.clients_total.value()),
            requests_total: sum(|counters| counters.requests_total.value()),
            bytes_in: sum(|counters| counters.client_bytes_in.value()),
            bytes_out: sum(|counters| counters.client_bytes_out.value()),
        }
    }

    /// What each shard of `pool` took to answer, in the order of their names.
    pub fn shard_latencies(&self, pool: &str) -> Vec<ShardLatencySummary> {
        let pools = self.swept();
        let shards = pools.get(pool).map(|series| series.shards.iter());
        shards
            .into_iter()
            .flatten()
            .map(|(shard, blocks)| ShardLatencySummary::of(shard, blocks))
            .collect()
    }

    /// What the workers of `pool` hold now for a switch.
    pub fn pool_held(&self, pool: &str) -> PoolHeld {
        let pools = self.swept();
        let mut held = PoolHeld::default();
        for counters in pools.get(pool).iter().flat_map(|s| s.clients.live.iter()) {
            let (requests, bytes) = (counters.held_requests.value(), counters.held_bytes.value());
            held.requests += requests;
            held.bytes += bytes;
            held.worker_requests_max = held.worker_requests_max.max(requests);
            held.worker_bytes_max = held.worker_bytes_max.max(bytes);
        }
        held
    }

    /// Everything in the text format of OpenMetrics 1.0, names with the
    /// prefix `keyferry_`, base units.
    pub fn render(self: &Arc<Self>) -> String {
        render::text(self)
    }

    /// Everything as twemproxy tells it on its port 22222.
    pub fn nutcracker_stats(&self, source: &StatsSource<'_>) -> String {
        nutcracker::text(self, source)
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<WorkerCalls>>> {
        lock(&self.calls)
    }

    pub(super) fn swept(&self) -> MutexGuard<'_, BTreeMap<String, PoolSeries>> {
        let mut pools = lock(&self.pools);
        for series in pools.values_mut() {
            series.clients.sweep();
            series.shards.retain(|_, blocks| {
                blocks.sweep();
                !blocks.live.is_empty()
            });
        }
        pools
    }

    fn with_pool<R>(&self, pool: &str, then: impl FnOnce(&mut PoolSeries) -> R) -> R {
        then(lock(&self.pools).entry(pool.to_owned()).or_default())
    }
}

/// A panic while it was held can have lost a block, not broken one.
fn lock<T>(blocks: &Mutex<T>) -> MutexGuard<'_, T> {
    blocks.lock().unwrap_or_else(PoisonError::into_inner)
}
