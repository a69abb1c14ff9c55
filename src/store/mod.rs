//! The built-in shard: a durable, Redis-exact server on an embedded LSM.
//!
//! Layers, lowest first; a module imports only from those above it:
//!
//! ```text
//! engine  ordered rows, atomic batches, snapshots: what the LSM is trusted with
//! rows    the overlay of rows not yet in the engine, and the thread that applies them
//! ```

pub mod engine;
pub mod rows;
