//! The bytes between the intake and the caller: bounded memory, then disk.
//!
//! ```text
//!            older                                    newer
//! pop  <--  head (memory)  <--  disk (spool.rs)  <--  tail (memory)  <-- push
//!                 ^-------- while nothing is on disk --------'
//!
//! marks:  at which byte a link was resumed, a snapshot began or ended
//! ```
//!
//! Invariants: bytes come out in the order they went in, and once something is
//! on disk all newer bytes go behind it; bytes that fit in memory never touch the
//! disk; a mark is popped after exactly the bytes pushed before it; a reset drops
//! all of it and everybody who asks for the time before is told so.
//!
//! The tail goes to disk when it is half full, from a thread of the queue's own
//! that starts when the first byte has to; it also reads ahead. When neither
//! memory nor disk has room, push waits: the source's socket is not read then.

mod disk;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::BytesMut;
use tokio::sync::Notify;

use self::disk::Spooling;
use super::error::TapErrorKind;
use super::meter::TapMeter;
use super::spool::Spool;
use crate::upstream::ShardAddress;

/// Memory that waits to be written need not be larger than this.
const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pieces smaller than this are joined, so that a trickle of commands does not
/// become a long list.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// Something that happened between two bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    FullResync {
        address: ShardAddress,
        replid: String,
        offset: u64,
    },
    SnapshotEnd,
    Continue {
        address: ShardAddress,
        replid: String,
    },
}

/// What [`Queue::pop`] gives.
#[derive(Debug)]
pub(super) enum Popped {
    Bytes(BytesMut),
    Mark(Mark),
    /// The history asked for is over; this one has begun.
    Void(u64),
    /// Nothing comes any more.
    Ended,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    bounds: Bounds,
    meter: Arc<TapMeter>,
    readable: Notify,
    writable: Notify,
    work: Condvar,
    /// Told when the spool is damaged.
    damage: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    head_bytes: usize,
    tail_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the history the bytes belong to.
    history: u64,
    head: VecDeque<BytesMut>,
    head_bytes: usize,
    /// Bytes in the spool, and on their way into it.
    disk_bytes: u64,
    tail: VecDeque<BytesMut>,
    tail_bytes: usize,
    pushed: u64,
    popped: u64,
    marks: VecDeque<(u64, Mark)>,
    /// A push waits for room.
    crowded: bool,
    ended: bool,
    spooling: Spooling,
}

impl Queue {
    /// Without a spool, memory is all there is.
    pub(super) fn new(
        memory_bytes_max: usize,
        spool: Option<Spool>,
        meter: Arc<TapMeter>,
        damage: Arc<Notify>,
    ) -> Self {
        let tail_bytes = match spool {
            Some(_) => (memory_bytes_max / 4).min(TAIL_BYTES_MAX),
            None => 0,
        };
        let state = State {
            spooling: Spooling {
                possible: spool.is_some(),
                idle: spool,
                ..Spooling::default()
            },
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            bounds: Bounds {
                head_bytes: memory_bytes_max - tail_bytes,
                tail_bytes,
            },
            meter,
            readable: Notify::new(),
            writable: Notify::new(),
            work: Condvar::new(),
            damage,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends bytes; waits while there is no room for them.
    pub(super) async fn push(self: &Arc<Self>, chunk: BytesMut) {
        let mut chunk = Some(chunk);
        loop {
            chunk = self.try_push(chunk);
            if chunk.is_none() {
                return;
            }
            self.writable.notified().await;
        }
    }

    /// Gives the chunk back when there is no room.
    fn try_push(self: &Arc<Self>, chunk: Option<BytesMut>) -> Option<BytesMut> {
        let chunk = chunk.filter(|chunk| !chunk.is_empty())?;
        let mut state = self.lock();
        let len = chunk.len();
        state.promote_tail(self.bounds.head_bytes.saturating_sub(len));
        // Counted before anybody can take it.
        let queued = || self.meter.queued(len);
        let fits = |held: usize, max: usize| held == 0 || held.saturating_add(len) <= max;
        if state.disk_bytes == 0
            && state.tail.is_empty()
            && fits(state.head_bytes, self.bounds.head_bytes)
        {
            queued();
            state.head_bytes += len;
            append(&mut state.head, chunk);
            self.readable.notify_one();
        } else if state.spooling.possible && fits(state.tail_bytes, self.bounds.tail_bytes) {
            queued();
            state.tail_bytes += len;
            append(&mut state.tail, chunk);
            self.start_spooling(&mut state);
            // A caller that waits finds nothing on disk and takes the tail.
            self.readable.notify_one();
        } else {
            state.crowded = true;
            self.work.notify_one();
            return Some(chunk);
        }
        state.crowded = false;
        state.pushed += len as u64;
        None
    }

    /// Says that `mark` comes after all bytes pushed so far.
    pub(super) fn mark(&self, mark: Mark) {
        let mut state = self.lock();
        let at = state.pushed;
        // Of links that were resumed without a byte, the last one says it all.
        if matches!(mark, Mark::Continue { .. }) {
            let idle =
                |(there, last): &(u64, Mark)| *there == at && matches!(last, Mark::Continue { .. });
            while state.marks.back().is_some_and(idle) {
                state.marks.pop_back();
            }
        }
        state.marks.push_back((at, mark));
        drop(state);
        self.readable.notify_one();
    }

    /// Drops everything: `history` begins, with `first` if there is something
    /// to say about it.
    pub(super) fn reset(&self, history: u64, first: Option<Mark>) {
        let mut state = self.lock();
        let memory = state.head_bytes + state.tail_bytes;
        self.meter.taken(memory);
        self.meter.dropped_on_disk(state.disk_bytes);
        let spooling = std::mem::take(&mut state.spooling);
        *state = State {
            history,
            marks: first.into_iter().map(|mark| (0, mark)).collect(),
            spooling: Spooling {
                clear: true,
                again_at: None,
                damage: None,
                broken: false,
                ..spooling
            },
            ..State::default()
        };
        drop(state);
        self.meter.set_spool_full(false);
        self.work.notify_one();
        self.readable.notify_one();
        self.writable.notify_one();
    }

    /// Says that nothing is pushed any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.readable.notify_one();
    }

    /// The oldest bytes or mark of `history`. Cancel safe.
    pub(super) async fn pop(&self, history: u64) -> Popped {
        loop {
            if let Some(popped) = self.try_pop(history) {
                return popped;
            }
            self.readable.notified().await;
        }
    }

    fn try_pop(&self, history: u64) -> Option<Popped> {
        let mut state = self.lock();
        if state.history > history {
            return Some(Popped::Void(state.history));
        }
        if state.history < history {
            return state.ended.then_some(Popped::Ended);
        }
        let until_mark = state.marks.front().map(|(at, _)| at - state.popped);
        if until_mark == Some(0) {
            return state.marks.pop_front().map(|(_, mark)| Popped::Mark(mark));
        }
        state.promote_tail(0);
        // Nothing waits for the disk any more.
        if state.disk_bytes == 0 && state.tail_bytes == 0 && state.spooling.again_at.is_some() {
            state.spooling.again_at = None;
            self.meter.set_spool_full(false);
        }
        let Some(mut chunk) = state.head.pop_front() else {
            let over = state.ended && state.disk_bytes == 0;
            return over.then_some(Popped::Ended);
        };
        let until_mark =
            until_mark.map_or(usize::MAX, |at| usize::try_from(at).unwrap_or(usize::MAX));
        if until_mark < chunk.len() {
            let rest = chunk.split_off(until_mark);
            state.head.push_front(rest);
        }
        state.head_bytes -= chunk.len();
        state.popped += chunk.len() as u64;
        let reads_ahead = state.wants_read(self.bounds);
        drop(state);
        self.meter.taken(chunk.len());
        self.writable.notify_one();
        if reads_ahead {
            self.work.notify_one();
        }
        Some(Popped::Bytes(chunk))
    }

    /// What broke the spool, once.
    pub(super) fn take_damage(&self) -> Option<TapErrorKind> {
        self.lock().spooling.damage.take()
    }

    /// Ends the spool's thread and deletes its files; the handle is for whoever
    /// wants to wait for that.
    pub(super) fn stop(&self) -> Option<thread::JoinHandle<()>> {
        let mut state = self.lock();
        state.ended = true;
        state.spooling.stop = true;
        // Dropping a spool deletes its files.
        drop(state.spooling.idle.take());
        let thread = state.spooling.thread.take();
        drop(state);
        self.work.notify_one();
        self.readable.notify_one();
        thread
    }
}

impl State {
    /// While nothing is on disk the tail may follow the head directly.
    fn promote_tail(&mut self, head_bytes_max: usize) {
        let together = self.head_bytes.saturating_add(self.tail_bytes);
        if self.disk_bytes == 0 && (self.head.is_empty() || together <= head_bytes_max) {
            self.head.append(&mut self.tail);
            self.head_bytes = together;
            self.tail_bytes = 0;
        }
    }
}

fn append(chunks: &mut VecDeque<BytesMut>, chunk: BytesMut) {
    match chunks.back_mut() {
        // Mostly a neighbour in the same allocation: nothing is copied.
        Some(last) if last.len() + chunk.len() <= JOINED_BYTES_MAX => last.unsplit(chunk),
        _ => chunks.push_back(chunk),
    }
}

#[cfg(test)]
mod tests;
