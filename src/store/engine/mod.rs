//! The engine: ordered rows, atomic batches, snapshots. It is not trusted with
//! durability: the log is the truth, and the engine is a checkpoint of it that says in
//! each batch up to which offset it goes.
//!
//! ```text
//!   get range     write (atomic)    write_sorted (atomic)
//!      |               |                  |       |
//!      v               v           small  |       | large
//!   [ memtable ] <-----+------------------'       |
//!        | full, persist                          |
//!        v                                        v
//!   [ tables, which survive a power loss ] <------'
//!        '--compaction--> [ tables ] without rows of dead ids
//! ```
//!
//! Invariants: a batch is there as a whole or not at all, also after a crash. Batches
//! are there in order: if one is, all before it are. What was not persisted is lost with
//! the process. One thread writes, and the same takes the snapshots, which see one
//! moment, however long they are held: none within a batch.

mod brake;
mod compactor;
mod dead;
mod error;
mod filter;
mod lsm;
mod memory;
mod opening;
mod spaces;
#[cfg(test)]
mod tests;
mod view;
mod whole;

use std::sync::Arc;

use bytes::Bytes;

pub use dead::DeadIds;
pub use error::EngineError;
pub use lsm::{EngineOptions, LsmEngine, open_lsm};
pub use memory::MemoryEngine;
pub use spaces::{
    DEAD, DeadId, META, ObjectOf, Owner, ROW_KEY_BYTES_MAX, ROW_VALUE_BYTES_MAX, SUB, SYSTEM, TTL,
    rows_of,
};

/// A row: its key, then its value. Either may keep a whole block of a table in memory;
/// copy what is kept for long.
pub type Row = (Bytes, Bytes);

/// Rows in order, from either end. After an error there is nothing more to be had.
pub type RowIter = Box<dyn DoubleEndedIterator<Item = Result<Row, EngineError>> + Send>;

/// What a batch does to one row: a value is put, `None` deletes.
pub type Change<'a> = (&'a [u8], Option<&'a Bytes>);

/// Ordered rows.
pub trait Engine: Send + Sync {
    /// One row.
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Rows from `from` up to `to`, which is not included; nothing if they are the wrong
    /// way round. What is written meanwhile is not in it.
    fn range(&self, from: &[u8], to: &[u8]) -> RowIter;

    /// All rows as they are now; to be called by the thread that writes.
    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError>;

    /// Does all changes, or none if it fails. See [`EngineError::is_retryable`].
    fn write<'a>(&self, batch: &mut dyn Iterator<Item = Change<'a>>) -> Result<(), EngineError>;

    /// The same for rows in order, each once, of `bytes` in all.
    fn write_sorted<'a>(
        &self,
        batch: &mut dyn Iterator<Item = Change<'a>>,
        bytes: usize,
    ) -> Result<(), EngineError>;

    /// What was written survives a power loss.
    fn persist(&self) -> Result<(), EngineError>;

    /// The writing thread has nothing to do; it calls this now and then.
    fn rest(&self) {}

    /// From now on, compactions may leave out the rows of these ids.
    fn mark_dead(&self, dead: Arc<DeadIds>);

    /// Sizes.
    fn stats(&self) -> EngineStats;
}

/// All rows of one moment, valid as long as it is held, also across flushes,
/// compactions, and the end of the engine.
pub trait EngineSnapshot: Send {
    /// One row.
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// See [`Engine::range`].
    fn range(&self, from: &[u8], to: &[u8]) -> RowIter;
}

/// What the engine takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Tables.
    pub disk_bytes: u64,
    /// Table files.
    pub tables: usize,
    /// Runs that reads look through because they are not compacted yet.
    pub l0_runs: usize,
    /// Memory of the memtable.
    pub memtable_bytes: u64,
    /// Memory of cached blocks.
    pub cache_bytes: u64,
    /// Compactions that run now.
    pub compactions: usize,
}

/// Refuses what no engine takes, before it gets to one.
fn check_row(key: &[u8], value: Option<&Bytes>) -> Result<(), EngineError> {
    if key.is_empty() || key.len() > ROW_KEY_BYTES_MAX {
        return Err(EngineError::BadKey { bytes: key.len() });
    }
    match value {
        Some(value) if value.len() > ROW_VALUE_BYTES_MAX => {
            Err(EngineError::BadValue { bytes: value.len() })
        }
        _ => Ok(()),
    }
}
