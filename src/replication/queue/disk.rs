//! The queue's own thread: writes the tail to disk when it is half full or when a
//! push waits, and reads ahead while memory has room.
//!
//! ```text
//! stop? -> clear? -> read, if the head is half empty -> write, if there is reason -> wait
//! ```
//!
//! Invariants: one piece of work at a time, so that what is counted as on disk is
//! there whenever the thread looks; work of a history that was reset meanwhile
//! changes nothing; a write that failed leaves its bytes where they were, and is
//! tried again.

use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::super::error::TapErrorKind;
use super::super::spool::{BLOCK_BYTES_MAX, NotSpooled, Spool};
use super::{Bounds, Queue, State};

/// What goes to disk at once; half of the largest block, because a chunk more
/// may come with it.
const BATCH_BYTES: usize = BLOCK_BYTES_MAX / 2;

/// How long after a failed write the next one is tried.
const WRITE_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What the spool's thread has to know.
#[derive(Debug, Default)]
pub(super) struct Spooling {
    /// The spool before its thread runs.
    pub(super) idle: Option<Spool>,
    pub(super) thread: Option<thread::JoinHandle<()>>,
    pub(super) possible: bool,
    pub(super) clear: bool,
    pub(super) stop: bool,
    /// After a failed write: when to try again.
    pub(super) again_at: Option<Instant>,
    pub(super) damage: Option<TapErrorKind>,
    pub(super) broken: bool,
}

/// What the spool's thread does next.
enum Work {
    Stop,
    Clear,
    Read(u64),
    Write(u64, Vec<BytesMut>),
}

impl Queue {
    pub(super) fn start_spooling(self: &Arc<Self>, state: &mut State) {
        if let Some(spool) = state.spooling.idle.take() {
            let queue = Arc::clone(self);
            let thread = thread::Builder::new().name("tap-spool".to_owned());
            match thread.spawn(move || queue.spool(spool)) {
                Ok(thread) => state.spooling.thread = Some(thread),
                Err(error) => {
                    // Memory alone goes on working, with back-pressure.
                    state.spooling.possible = false;
                    self.meter
                        .note_error(format!("no thread for the spool: {error}"));
                }
            }
        } else if state.wants_write(self.bounds) {
            self.work.notify_one();
        }
    }

    /// The spool's thread.
    fn spool(&self, mut spool: Spool) {
        loop {
            match self.next_work() {
                Work::Stop => return,
                Work::Clear => spool.clear(),
                Work::Read(history) => match spool.read() {
                    Ok(bytes) => self.read_back(history, bytes),
                    Err(damage) => self.broke(history, damage),
                },
                Work::Write(history, chunks) => match spool.append(&chunks) {
                    Ok(()) => self.written(history),
                    Err(why) => self.unwritten(history, chunks, &why),
                },
            }
        }
    }

    fn next_work(&self) -> Work {
        let mut state = self.lock();
        loop {
            if state.spooling.stop {
                return Work::Stop;
            }
            if std::mem::take(&mut state.spooling.clear) {
                return Work::Clear;
            }
            if state.wants_read(self.bounds) {
                return Work::Read(state.history);
            }
            // The caller may have made room in memory since.
            state.promote_tail(self.bounds.head_bytes);
            let wait = match state.spooling.again_at {
                Some(at) => at.saturating_duration_since(Instant::now()),
                None => Duration::ZERO,
            };
            if state.wants_write(self.bounds) && wait.is_zero() {
                let batch = state.take_batch();
                self.meter.spooled(batch.iter().map(BytesMut::len).sum());
                return Work::Write(state.history, batch);
            }
            state = if wait.is_zero() {
                self.work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.work.wait_timeout(state, wait);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    fn written(&self, history: u64) {
        let mut state = self.lock();
        if state.history == history && state.spooling.again_at.take().is_some() {
            self.meter.set_spool_full(false);
        }
        drop(state);
        self.writable.notify_one();
    }

    /// The chunks stay in memory, where they were.
    fn unwritten(&self, history: u64, chunks: Vec<BytesMut>, why: &NotSpooled) {
        let mut state = self.lock();
        if state.history != history {
            return;
        }
        for chunk in chunks.into_iter().rev() {
            state.disk_bytes = state.disk_bytes.saturating_sub(chunk.len() as u64);
            self.meter.unwritten(chunk.len());
            state.tail_bytes += chunk.len();
            state.tail.push_front(chunk);
        }
        if state.spooling.again_at.is_none() {
            tracing::warn!(%why, "the source is not read until there is room for what it sends");
        }
        state.spooling.again_at = Some(Instant::now() + WRITE_AGAIN_AFTER);
        self.meter.set_spool_full(true);
        self.meter.note_error(why.to_string());
        drop(state);
        self.readable.notify_one();
    }

    fn read_back(&self, history: u64, bytes: BytesMut) {
        let mut state = self.lock();
        if state.history != history {
            return;
        }
        state.disk_bytes = state.disk_bytes.saturating_sub(bytes.len() as u64);
        state.head_bytes += bytes.len();
        self.meter.unspooled(bytes.len());
        state.head.push_back(bytes);
        drop(state);
        self.readable.notify_one();
        self.writable.notify_one();
    }

    fn broke(&self, history: u64, damage: TapErrorKind) {
        let mut state = self.lock();
        if state.history != history {
            return;
        }
        state.spooling.broken = true;
        state.spooling.damage = Some(damage);
        drop(state);
        self.damage.notify_one();
    }
}

impl State {
    pub(super) fn wants_read(&self, bounds: Bounds) -> bool {
        !self.spooling.broken && self.disk_bytes > 0 && self.head_bytes <= bounds.head_bytes / 2
    }

    fn wants_write(&self, bounds: Bounds) -> bool {
        !self.spooling.broken
            && self.tail_bytes > 0
            && (self.crowded || self.tail_bytes >= bounds.tail_bytes / 2)
    }

    fn take_batch(&mut self) -> Vec<BytesMut> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(chunk) = self.tail.pop_front()
        {
            bytes += chunk.len();
            batch.push(chunk);
        }
        self.tail_bytes -= bytes;
        self.disk_bytes += bytes as u64;
        batch
    }
}
