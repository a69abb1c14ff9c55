//! The built-in shard: a durable, Redis-exact server on an embedded LSM.
//!
//! Layers, lowest first; a module imports only from those above it:
//!
//! ```text
//! disk      files as the log sees them; one that fails on purpose
//! format    numbers, patterns, row keys, the bytes of meta rows. Pure
//! engine    ordered rows, atomic batches, snapshots: what the LSM is trusted with
//! oplog     the log of effects: redo log and replication backlog in one
//! rows      the overlay of rows not yet in the engine, and the thread that applies them
//! keyspace  databases of objects: lookup, expiry, counters
//! kinds     operations on one object of each kind
//! commands  what each command does to the keyspace
//! acl       who may log in, and what they may do. Pure
//! scripts   Lua: what scripts and functions are, and what they see
//! session   what clients see: requests, MULTI, waiting, channels. No I/O
//! sync      following a master, and being followed
//! server    the thread of a shard: sockets, turns, start and stop
//! client    a running shard, asked from outside
//! stats     what an operator sees of one
//! backup    a running shard -> a file -> a new shard
//! ```

pub mod acl;
pub mod backup;
pub mod client;
pub mod commands;
pub mod disk;
pub mod engine;
pub mod format;
pub mod keyspace;
pub mod kinds;
pub mod oplog;
pub mod rows;
pub mod scripts;
pub mod server;
pub mod session;
pub mod stats;
pub mod sync;
