//! The thread that takes frozen generations to the engine, each as one batch with the
//! offset of the log that it goes up to.
//!
//! ```text
//!   Apply ----finish----> Finish (applies what waits, persists) ---.
//!     |  `----stop------> Stop (leaves it: the log has it) --------+--> ended
//!     `-- an error that a second try cannot mend --> failed -------'
//! ```
//!
//! - A full disk and flushes that are behind leave nothing half written: it waits and
//!   tries again, while the overlay grows to its bound.
//! - After any other error it never writes again.
//! - It alone writes, so a snapshot that it takes behind a batch holds that and no more.
//! - Once a second, or after so many bytes, it makes durable what it wrote: only up to
//!   there may the log forget.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::board::{Board, Frozen, Order, Shared, Then, Wish};
use super::error::StoreError;
use super::options::{RowsOptions, Wake};
use super::snapshot::RowSnapshot;
use super::sweeper::Sweeper;
use crate::store::engine::{Engine, EngineError};

/// Up to which offset of the log the rows of the engine go.
pub(super) const APPLIED_OFFSET_ROW: &[u8] = b"Xapplied_offset";

/// Until a full disk is asked again.
const RETRY_FULL: Duration = Duration::from_millis(200);

/// Until flushes that are behind are looked at again. The engine tells nobody.
const RETRY_BUSY: Duration = Duration::from_millis(5);

/// How often an idle engine is told that it may tidy up.
const REST_EVERY: Duration = Duration::from_secs(2);

/// Flushes may keep the end waiting as long as this; then the log has the rest.
const FINISH_WAIT_MAX: Duration = Duration::from_secs(30);

/// The executor's side of the thread.
pub(super) struct Applier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    pub(super) fn start(
        engine: Arc<dyn Engine>,
        sweeper: Sweeper,
        applied_offset: u64,
        options: &RowsOptions,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            board: Mutex::new(Board {
                wish: Wish::Apply,
                orders: VecDeque::new(),
                disposed: Vec::new(),
                failure: None,
                waits_for: None,
            }),
            changed: Condvar::new(),
            has_failed: AtomicBool::new(false),
            applied_generation: AtomicU64::new(0),
            applied_offset: AtomicU64::new(applied_offset),
            // It was synced before it was read.
            durable_offset: AtomicU64::new(applied_offset),
            dead_left: AtomicUsize::new(sweeper.left()),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            engine,
            sweeper,
            options: options.clone(),
            unpersisted: None,
            swept_at: None,
            rested_at: Instant::now(),
        };
        let thread = Builder::new()
            .name("store-applier".to_owned())
            .spawn(move || worker.run())
            .map_err(|e| StoreError::Applier {
                what: format!("cannot be started ({e})"),
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Hands a generation over. After a failure it stays where it is.
    pub(super) fn order(&self, frozen: Arc<Frozen>, then: Then) {
        let mut board = self.shared.board();
        match &board.failure {
            Some(error) => then.refuse(error),
            None => {
                board.orders.push_back(Order { frozen, then });
                self.shared.changed.notify_one();
            }
        }
    }

    /// Freeing a hundred thousand rows takes long: not the executor's time.
    pub(super) fn dispose(&self, frozen: Arc<Frozen>) {
        self.shared.board().disposed.push(frozen);
        self.shared.changed.notify_one();
    }

    pub(super) fn applied_generation(&self) -> u64 {
        self.shared.applied_generation.load(Ordering::Acquire)
    }

    pub(super) fn applied_offset(&self) -> u64 {
        self.shared.applied_offset.load(Ordering::Acquire)
    }

    pub(super) fn durable_offset(&self) -> u64 {
        self.shared.durable_offset.load(Ordering::Acquire)
    }

    pub(super) fn dead_left(&self) -> usize {
        self.shared.dead_left.load(Ordering::Acquire)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Acquire)
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        if !self.has_failed() {
            return None;
        }
        self.shared.board().failure.clone()
    }

    pub(super) fn waits_for(&self) -> Option<EngineError> {
        self.shared.board().waits_for.clone()
    }

    /// Applies and persists all that was ordered, and ends the thread.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.end(Wish::Finish);
        self.failure().map_or(Ok(()), Err)
    }

    fn end(&mut self, wish: Wish) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.board().wish = wish;
        self.shared.changed.notify_one();
        if thread.join().is_err() {
            self.shared.fail(StoreError::Applier {
                what: "panicked".to_owned(),
            });
        }
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.end(Wish::Stop);
    }
}

/// The thread's side.
struct Worker {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    sweeper: Sweeper,
    options: RowsOptions,
    /// Since when something is not durable, and how much.
    unpersisted: Option<(Instant, usize)>,
    swept_at: Option<Instant>,
    rested_at: Instant,
}

enum Step {
    Apply(Order),
    Free(Vec<Arc<Frozen>>),
    Persist,
    Sweep,
    Rest,
    End(Wish),
}

impl Worker {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let wake = self.options.wake.clone();
        // The engine is somebody else's code: what it does must be told, not lost.
        let ended = catch_unwind(AssertUnwindSafe(|| self.work()));
        match ended {
            Ok(Ok(())) => (),
            Ok(Err(error)) => shared.fail(error.into()),
            Err(_) => shared.fail(StoreError::Applier {
                what: "panicked".to_owned(),
            }),
        }
        call(wake.as_ref());
    }

    fn work(&mut self) -> Result<(), EngineError> {
        loop {
            match self.next_step() {
                Step::Apply(order) => {
                    match self.apply(&order) {
                        Ok(true) => (),
                        Ok(false) => return Ok(()),
                        Err(error) => {
                            order.then.refuse(&error.clone().into());
                            return Err(error);
                        }
                    }
                    if let Then::Persist(done) = &order.then {
                        self.persist()?;
                        // A ticket that was dropped wants no answer.
                        let _ = done.try_send(Ok(()));
                    }
                    // Under load there is always an order: the rest must have its turn.
                    self.persist_if_due()?;
                    self.sweep_if_due()?;
                }
                Step::Free(disposed) => drop(disposed),
                Step::Persist => self.persist()?,
                Step::Sweep => self.sweep()?,
                Step::Rest => {
                    self.engine.rest();
                    self.rested_at = Instant::now();
                }
                Step::End(Wish::Finish) => return self.persist(),
                Step::End(_) => return Ok(()),
            }
        }
    }

    fn next_step(&self) -> Step {
        let mut board = self.shared.board();
        loop {
            if board.wish == Wish::Stop {
                return Step::End(Wish::Stop);
            }
            if !board.disposed.is_empty() {
                return Step::Free(std::mem::take(&mut board.disposed));
            }
            if let Some(order) = board.orders.pop_front() {
                return Step::Apply(order);
            }
            if board.wish == Wish::Finish {
                return Step::End(Wish::Finish);
            }
            let until_persist = self.until_persist();
            let until_sweep = self.until_sweep();
            if until_persist == Some(Duration::ZERO) {
                return Step::Persist;
            }
            if until_sweep == Some(Duration::ZERO) {
                return Step::Sweep;
            }
            let until_rest = REST_EVERY.saturating_sub(self.rested_at.elapsed());
            if until_rest.is_zero() {
                return Step::Rest;
            }
            let others = until_persist.into_iter().chain(until_sweep);
            board = self.wait(board, others.fold(until_rest, Duration::min));
        }
    }

    fn wait<'a>(&self, board: MutexGuard<'a, Board>, wait: Duration) -> MutexGuard<'a, Board> {
        let waited = self.shared.changed.wait_timeout(board, wait);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// False if it was told to stop before the engine took it.
    fn apply(&mut self, order: &Order) -> Result<bool, EngineError> {
        let frozen = &order.frozen;
        let offset = Bytes::copy_from_slice(&frozen.offset.to_be_bytes());
        let began = Instant::now();
        loop {
            let generation = &frozen.generation;
            let mut batch = generation.changes_and(APPLIED_OFFSET_ROW, &offset);
            match self.engine.write_sorted(&mut batch, generation.bytes()) {
                Ok(()) => break,
                Err(error) if error.is_retryable() => {
                    if !self.wait_for(error, began)? {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let snapshot = match &order.then {
            Then::Snapshot(sender) => Some((sender, self.engine.snapshot())),
            Then::Nothing | Then::Persist(_) => None,
        };
        self.sweeper.applied(frozen.generation.buried());
        self.note_dead_left();
        let (_, bytes) = self.unpersisted.get_or_insert((Instant::now(), 0));
        *bytes += frozen.generation.bytes();
        let shared = &self.shared;
        shared
            .applied_offset
            .store(frozen.offset, Ordering::Release);
        shared
            .applied_generation
            .store(frozen.id, Ordering::Release);
        if let Some((sender, rows)) = snapshot {
            let taken = rows.map(|rows| RowSnapshot::new(rows, frozen.offset));
            // A ticket that was dropped wants none.
            let _ = sender.try_send(taken.map_err(StoreError::from));
        }
        self.wake();
        Ok(true)
    }

    /// Waits before the next try; false if it was told to stop meanwhile.
    fn wait_for(&self, error: EngineError, began: Instant) -> Result<bool, EngineError> {
        let is_full = matches!(error, EngineError::NoSpace { .. });
        let mut board = self.shared.board();
        let is_over = is_full || began.elapsed() > FINISH_WAIT_MAX;
        if board.wish == Wish::Finish && is_over {
            return Err(error);
        }
        let is_news = board.waits_for.replace(error).is_none();
        if is_news && is_full {
            drop(board);
            self.wake();
            board = self.shared.board();
        }
        if board.wish == Wish::Apply || !is_full {
            let retry = if is_full { RETRY_FULL } else { RETRY_BUSY };
            board = self.wait_whole(board, retry);
        }
        board.waits_for = None;
        Ok(board.wish != Wish::Stop)
    }

    /// New orders must not shorten it, a wish must.
    fn wait_whole<'a>(
        &self,
        mut board: MutexGuard<'a, Board>,
        wait: Duration,
    ) -> MutexGuard<'a, Board> {
        let (wish, began) = (board.wish, Instant::now());
        loop {
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() || board.wish != wish {
                return board;
            }
            board = self.wait(board, left);
        }
    }

    fn until_persist(&self) -> Option<Duration> {
        let (since, bytes) = self.unpersisted?;
        if bytes >= self.options.persist_bytes {
            return Some(Duration::ZERO);
        }
        Some(self.options.persist_age.saturating_sub(since.elapsed()))
    }

    fn persist_if_due(&mut self) -> Result<(), EngineError> {
        match self.until_persist() {
            Some(Duration::ZERO) => self.persist(),
            _ => Ok(()),
        }
    }

    fn persist(&mut self) -> Result<(), EngineError> {
        if self.unpersisted.is_none() {
            return Ok(());
        }
        self.engine.persist()?;
        self.unpersisted = None;
        let applied = self.shared.applied_offset.load(Ordering::Acquire);
        self.shared.durable_offset.store(applied, Ordering::Release);
        self.sweeper.persisted();
        self.wake();
        Ok(())
    }

    fn until_sweep(&self) -> Option<Duration> {
        if !self.sweeper.has_work() {
            return None;
        }
        let since = self.swept_at.map_or(Duration::MAX, |at| at.elapsed());
        Some(self.options.sweep_pause.saturating_sub(since))
    }

    fn sweep_if_due(&mut self) -> Result<(), EngineError> {
        match self.until_sweep() {
            Some(Duration::ZERO) => self.sweep(),
            _ => Ok(()),
        }
    }

    fn sweep(&mut self) -> Result<(), EngineError> {
        match self.sweeper.sweep() {
            // There is no hurry: it is tried again after the pause.
            Err(error) if error.is_retryable() => (),
            swept => {
                swept?;
                // Deletions in memory give no room back.
                self.unpersisted.get_or_insert((Instant::now(), 0));
            }
        }
        self.swept_at = Some(Instant::now());
        self.note_dead_left();
        if !self.sweeper.has_work() {
            self.wake();
        }
        Ok(())
    }

    fn note_dead_left(&self) {
        let left = self.sweeper.left();
        self.shared.dead_left.store(left, Ordering::Release);
    }

    fn wake(&self) {
        call(self.options.wake.as_ref());
    }
}

fn call(wake: Option<&Wake>) {
    if let Some(wake) = wake {
        wake();
    }
}
