//! The built-in shard: a durable, Redis-exact server on an embedded LSM engine.

pub mod commands;
pub mod format;
pub mod keyspace;
pub mod rows;
pub mod server;
pub mod session;
