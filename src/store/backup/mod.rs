//! A running shard -> a file -> a new shard.
//!
//! ```text
//! save     shard --PSYNC, rdb-only--> RDB, each byte read and checked --> FILE.part
//!            all of it is there: synced, named FILE, its directory synced
//! restore  FILE: read and checked to its end, nothing written yet
//!            -> DIR, marked as half restored -> loaded, durable -> opened anew, compared
//!            -> the mark goes
//! ```
//! A backup is what a replica gets: everything at one offset of the shard's stream, while
//! writes go on. It is an RDB file that Redis reads as well, with the replication id and
//! the offset in it; the CRC-64 at its end vouches for it.
//!
//! Invariants
//! - FILE exists only whole, and never in the place of another; what a crash leaves is
//!   FILE.part, which the next backup into FILE takes over.
//! - A shard does not start in a directory that is marked, so half a restore is never
//!   taken for a shard.
//! - A restored shard has a history of its own: replicas of the old one begin anew.

mod contents;
mod part;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use contents::{Contents, ContentsError};
pub use restore::{RestoreError, Restored, restore};
pub use save::{SaveError, Saved, save, save_with};

/// How far it is, for who waits; and whether it is to stop.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    keys: AtomicU64,
    bytes_in_all: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keys so far.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// Bytes that are read and written in all; 0 where nobody knows.
    pub fn bytes_in_all(&self) -> u64 {
        self.bytes_in_all.load(Ordering::Relaxed)
    }

    /// Ends it soon; what it made so far is removed.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn set_in_all(&self, bytes: u64) {
        self.bytes_in_all.store(bytes, Ordering::Relaxed);
    }

    fn set(&self, bytes: u64, keys: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.keys.store(keys, Ordering::Relaxed);
    }
}
