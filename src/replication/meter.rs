//! What a tap shows of itself while it works. The intake, the queues and their
//! spools write, anybody reads; every counter stands alone, so figures taken
//! while the tap works may be a chunk apart from each other.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapMode {
    /// PSYNC on one socket: the stream comes after the snapshot.
    Psync,
    /// The snapshot on a second socket, the stream beside it (Redis, Valkey >= 8.0).
    TwoSockets,
    /// SYNC of servers before 2.8: no offsets, no ACKs, and a lost link always
    /// means a new snapshot.
    Sync,
}

/// Counters of one tap, over its whole life.
#[derive(Debug, Default)]
pub struct TapMeter {
    received_bytes: AtomicU64,
    received_offset: AtomicU64,
    memory_bytes: AtomicU64,
    disk_bytes: AtomicU64,
    waiting_bytes_peak: AtomicU64,
    spooled_bytes: AtomicU64,
    reconnects: AtomicU64,
    full_resyncs: AtomicU64,
    mode: AtomicU8,
    spool_full: AtomicBool,
    last_error: Mutex<Option<String>>,
}

/// What the counters were at one moment. Bytes are those of snapshots and
/// streams, without answers and keepalives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapFigures {
    /// Bytes received.
    pub received_bytes: u64,
    /// Offset of the last stream byte received; 0 before there was one, and in
    /// [`TapMode::Sync`] a mere count.
    pub received_offset: u64,
    /// Received and not taken by the caller yet, in memory.
    pub memory_bytes: u64,
    /// Received and not taken by the caller yet, on disk.
    pub disk_bytes: u64,
    /// The most that ever waited, in memory and on disk together.
    pub waiting_bytes_peak: u64,
    /// Bytes ever written to the spool on disk.
    pub spooled_bytes: u64,
    /// Links made after the first.
    pub reconnects: u64,
    /// Snapshots begun, the first one counted.
    pub full_resyncs: u64,
    /// How the source sends.
    pub mode: TapMode,
    /// The spool can take nothing now (disk full, or its bound reached): the
    /// socket is not read, and the source may drop us. `last_error` says why.
    pub spool_full: bool,
    /// What went wrong last, even if it was overcome.
    pub last_error: Option<String>,
}

impl TapMeter {
    /// All counters now.
    #[must_use]
    pub fn figures(&self) -> TapFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TapFigures {
            received_bytes: read(&self.received_bytes),
            received_offset: read(&self.received_offset),
            memory_bytes: read(&self.memory_bytes),
            disk_bytes: read(&self.disk_bytes),
            waiting_bytes_peak: read(&self.waiting_bytes_peak),
            spooled_bytes: read(&self.spooled_bytes),
            reconnects: read(&self.reconnects),
            full_resyncs: read(&self.full_resyncs),
            mode: self.mode(),
            spool_full: self.spool_full.load(Ordering::Relaxed),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    /// How the source sends.
    #[must_use]
    pub fn mode(&self) -> TapMode {
        match self.mode.load(Ordering::Relaxed) {
            0 => TapMode::Psync,
            1 => TapMode::TwoSockets,
            _ => TapMode::Sync,
        }
    }

    pub(super) fn set_mode(&self, mode: TapMode) {
        let number = match mode {
            TapMode::Psync => 0,
            TapMode::TwoSockets => 1,
            TapMode::Sync => 2,
        };
        self.mode.store(number, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn set_offset(&self, offset: u64) {
        self.received_offset.store(offset, Ordering::Relaxed);
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn full_resync(&self) {
        self.full_resyncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_spool_full(&self, full: bool) {
        self.spool_full.store(full, Ordering::Relaxed);
    }

    pub(super) fn note_error(&self, error: String) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Bytes entered memory from the socket.
    pub(super) fn queued(&self, bytes: usize) {
        let memory = self.memory_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let waiting = memory.saturating_add(self.disk_bytes.load(Ordering::Relaxed));
        self.waiting_bytes_peak
            .fetch_max(waiting, Ordering::Relaxed);
    }

    /// Bytes left memory for the caller, or were dropped.
    pub(super) fn taken(&self, bytes: usize) {
        self.memory_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes went from memory to disk.
    pub(super) fn spooled(&self, bytes: usize) {
        self.memory_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.disk_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.spooled_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that were to go to disk stay in memory.
    pub(super) fn unwritten(&self, bytes: usize) {
        self.unspooled(bytes);
        self.spooled_bytes
            .fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes came back from disk to memory.
    pub(super) fn unspooled(&self, bytes: usize) {
        self.disk_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.memory_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes on disk were dropped.
    pub(super) fn dropped_on_disk(&self, bytes: u64) {
        self.disk_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
