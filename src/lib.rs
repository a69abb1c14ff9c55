//! Keyferry: a proxy in front of Redis-protocol shards that can also move the
//! keys to another shard layout while clients keep working.
//!
//! Layers, lowest first; a module imports only from layers above it in this
//! list, and only what `tests/architecture.rs` names:
//!
//! ```text
//! 0  resp  memcached  rdb  metrics  planted
//! 1  router  reuseport  restore  store
//! 2  upstream
//! 3  replication  proxy  rdbfile
//! 4  reshard
//! 5  admin  config
//! 6  cli
//! ```
//!
//! What is searched by `fuzz/run` uses no layer from 4 up and no `store`: these are
//! left out there, since they are most of what takes time to build.

#[cfg(not(fuzzing))]
pub mod admin;
#[cfg(not(fuzzing))]
pub mod cli;
#[cfg(not(fuzzing))]
pub mod config;
pub mod memcached;
pub mod metrics;
pub mod planted;
pub mod proxy;
pub mod rdb;
pub mod rdbfile;
pub mod replication;
#[cfg(not(fuzzing))]
pub mod reshard;
pub mod resp;
pub mod restore;
pub mod reuseport;
pub mod router;
#[cfg(not(fuzzing))]
pub mod store;
pub mod upstream;
