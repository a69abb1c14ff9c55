//! All rows of one offset of the log: asked for on the executor, taken by the applier
//! right behind the batch that ends there, read on any thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use bytes::Bytes;

use super::error::StoreError;
use crate::store::engine::{EngineSnapshot, RowIter};

/// All rows as they were at one offset of the log.
pub struct RowSnapshot {
    rows: Box<dyn EngineSnapshot>,
    applied_offset: u64,
}

impl RowSnapshot {
    pub(super) fn new(rows: Box<dyn EngineSnapshot>, applied_offset: u64) -> Self {
        Self {
            rows,
            applied_offset,
        }
    }

    /// Everything up to this offset of the log is in it, and nothing behind it.
    pub fn applied_offset(&self) -> u64 {
        self.applied_offset
    }

    /// One row.
    pub fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(row)?)
    }

    /// Rows from `from` up to `to`, which is not included.
    pub fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        self.rows.range(from, to)
    }
}

/// What was handed over will survive a power loss: see [`super::Rows::freeze_durably`].
pub struct DurableTicket {
    done: Receiver<Result<(), StoreError>>,
}

impl DurableTicket {
    pub(super) fn new() -> (SyncSender<Result<(), StoreError>>, Self) {
        let (sender, done) = sync_channel(1);
        (sender, Self { done })
    }

    /// Waits for it, as long as `timeout`; false if it is not so yet.
    ///
    /// # Errors
    /// [`StoreError`] if it will never be.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, StoreError> {
        match self.done.recv_timeout(timeout) {
            Ok(done) => done.map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
        }
    }
}

pub(super) type Taken = Result<RowSnapshot, StoreError>;

/// A snapshot that was asked for. Dropped, it is not taken, or let go.
pub struct SnapshotTicket {
    taken: Receiver<Taken>,
}

impl SnapshotTicket {
    pub(super) fn new() -> (SyncSender<Taken>, Self) {
        // One ticket is one snapshot: the applier never waits here.
        let (sender, taken) = sync_channel(1);
        (sender, Self { taken })
    }

    /// The snapshot, once it is there; to be asked when [`super::RowsOptions::wake`] is
    /// called. Given out once.
    pub fn poll(&mut self) -> Result<Option<RowSnapshot>, StoreError> {
        match self.taken.try_recv() {
            Ok(taken) => taken.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(StoreError::Closed),
        }
    }

    /// Waits for it, as long as `timeout`. Not for the executor.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<RowSnapshot>, StoreError> {
        match self.taken.recv_timeout(timeout) {
            Ok(taken) => taken.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
        }
    }
}
