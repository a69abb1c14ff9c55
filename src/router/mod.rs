//! Which shard owns a key: hashes, distributions, layouts, epochs, the command table, gates. Pure.

pub mod commands;
pub mod errors;
