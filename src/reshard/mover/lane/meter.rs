//! What a lane has confirmed, readable from outside.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one lane.
#[derive(Debug, Default)]
pub(in super::super) struct LaneMeter {
    batches_sent: AtomicU64,
    batches_done: AtomicU64,
    offset: AtomicU64,
    keys_acked: AtomicU64,
}

impl LaneMeter {
    /// One more batch is on its way to the lane.
    pub(in super::super) fn sent(&self) {
        self.batches_sent.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn done(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.batches_done.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn key_acked(&self) {
        self.keys_acked.fetch_add(1, Ordering::Relaxed);
    }

    /// The source begins anew: nothing of its old history counts.
    pub(in super::super) fn restart(&self) {
        self.offset.store(0, Ordering::Release);
        self.keys_acked.store(0, Ordering::Relaxed);
    }

    pub(in super::super) fn keys_acked(&self) -> u64 {
        self.keys_acked.load(Ordering::Relaxed)
    }

    /// The offset applied here, when everything up to `read` was handed to the lane.
    pub(in super::super) fn applied_offset(&self, read: u64) -> u64 {
        let done = self.batches_done.load(Ordering::Acquire);
        if done == self.batches_sent.load(Ordering::Acquire) {
            return read;
        }
        self.offset.load(Ordering::Acquire).min(read)
    }
}
