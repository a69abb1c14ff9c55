//! The built-in shard: a Redis-protocol server whose keys live on disk.
//!
//! Layers, lowest first; a module imports only from those above it:
//!
//! ```text
//! disk      what is asked of a disk; the real one, and one that fails on purpose
//! oplog     the log: segments, frames, recovery, readers
//! ```

pub mod disk;
pub mod oplog;
