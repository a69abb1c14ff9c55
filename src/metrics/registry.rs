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
use super::pool::{Block, PoolCounters, ShardCounters};
use super::render;

/// All counters of a process.
#[derive(Debug, Default)]
pub struct Registry {
    process: ProcessCounters,
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
    fn add(&mut self) -> Arc<B> {
        let block = Arc::new(B::default());
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

    pub(super) fn sum(&self, of: impl Fn(&B) -> u64) -> u64 {
        let live = self.live.iter().map(|block| of(block));
        live.fold(of(&self.ended), u64::wrapping_add)
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

    /// A fresh block for one worker's clients of `pool`.
    pub fn pool_counters(&self, pool: &str) -> Arc<PoolCounters> {
        self.with_pool(pool, |series| series.clients.add())
    }

    /// A fresh block for one worker's connections to `shard` of `pool`.
    pub fn shard_counters(&self, pool: &str, shard: &str) -> Arc<ShardCounters> {
        self.with_pool(pool, |series| {
            let blocks = series.shards.entry(shard.to_owned()).or_default();
            blocks.add()
        })
    }

    /// The state of `pool` that the control thread sets.
    pub fn pool_state(&self, pool: &str) -> Arc<PoolState> {
        self.with_pool(pool, |series| Arc::clone(&series.state))
    }

    /// Everything in the text format of OpenMetrics 1.0, names with the
    /// prefix `keyferry_`, base units.
    pub fn render(self: &Arc<Self>) -> String {
        render::text(self)
    }

    pub(super) fn swept(&self) -> MutexGuard<'_, BTreeMap<String, PoolSeries>> {
        let mut pools = self.lock();
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
        let mut pools = self.lock();
        then(pools.entry(pool.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PoolSeries>> {
        // A panic while it was held can have lost a block, not broken one.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
