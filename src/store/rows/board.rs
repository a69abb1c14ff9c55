//! What the executor and the applier both see: orders, how far it is, what failed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::StoreError;
use super::generation::Generation;
use super::snapshot::Taken;
use crate::store::engine::EngineError;

/// A generation that nothing is added to any more.
pub(super) struct Frozen {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) generation: Generation,
}

pub(super) struct Order {
    pub(super) frozen: Arc<Frozen>,
    pub(super) then: Then,
}

/// What is done right behind a generation.
pub(super) enum Then {
    Nothing,
    Snapshot(SyncSender<Taken>),
    Persist(SyncSender<Result<(), StoreError>>),
}

impl Then {
    /// It will not be done. A ticket that was dropped wants no answer.
    pub(super) fn refuse(self, error: &StoreError) {
        match self {
            Then::Nothing => {}
            Then::Snapshot(sender) => drop(sender.try_send(Err(error.clone()))),
            Then::Persist(sender) => drop(sender.try_send(Err(error.clone()))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Apply,
    Finish,
    Stop,
}

pub(super) struct Board {
    pub(super) wish: Wish,
    pub(super) orders: VecDeque<Order>,
    /// Applied, and no longer looked at: at most as many as may wait to be applied.
    pub(super) disposed: Vec<Arc<Frozen>>,
    pub(super) failure: Option<StoreError>,
    pub(super) waits_for: Option<EngineError>,
}

/// What both sides see.
pub(super) struct Shared {
    pub(super) board: Mutex<Board>,
    pub(super) changed: Condvar,
    pub(super) has_failed: AtomicBool,
    pub(super) applied_generation: AtomicU64,
    pub(super) applied_offset: AtomicU64,
    pub(super) durable_offset: AtomicU64,
    pub(super) dead_left: AtomicUsize,
}

impl Shared {
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, error: StoreError) {
        let mut board = self.board();
        for order in board.orders.drain(..) {
            order.then.refuse(&error);
        }
        board.failure.get_or_insert(error);
        self.has_failed.store(true, Ordering::Release);
    }
}
