//! Per-worker counters and their rendering.
//!
//! ```text
//! worker 0 --+-- Arc<WorkerCalls>    (one writer each) --+
//! worker 1 --+-- Arc<PoolCounters>                       |
//!            `-- Arc<ShardCounters>                      +--> Registry --> /metrics, port 22222
//! control  ----- Arc<PoolState>, ProcessCounters --------+
//! ```
//!
//! Invariant: a block has one writer, so an increment is a relaxed load and a
//! relaxed store; nothing is added up before a scrape asks.

pub mod counter;
pub mod ejections;
pub mod latency;
pub mod nutcracker;
pub mod pool;
pub mod registry;
mod render;
pub mod summary;
