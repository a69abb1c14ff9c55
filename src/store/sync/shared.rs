//! What a replica's thread and the executor tell each other.
//!
//! ```text
//! thread --> executor   phase, acknowledged offset and when; what it still needs; its end
//! executor --> thread   there is more in the log; stop
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::Waker;

use crate::store::rows::Wake;

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    WaitsForSnapshot,
    TakesSnapshot,
    Online,
}

impl Phase {
    /// As INFO calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::WaitsForSnapshot => "wait_bgsave",
            Phase::TakesSnapshot => "send_bulk",
            Phase::Online => "online",
        }
    }
}

/// The same for all replicas.
pub(super) struct Common {
    /// Where snapshots are put that need a file.
    pub(super) dir: PathBuf,
    pub(super) wake: Wake,
    pub(super) has_news: AtomicBool,
    pub(super) timeout_ms: AtomicU64,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Common {
    pub(super) fn set_timeout(&self, timeout: Duration) {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed))
    }

    pub(super) fn tell(&self) {
        self.has_news.store(true, Ordering::Release);
        (self.wake)();
    }
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    acked: u64,
    acked_at: Instant,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Shared {
    progress: Mutex<Progress>,
    needs_from: AtomicU64,
    is_asleep: AtomicBool,
    is_to_stop: AtomicBool,
    is_cut: AtomicBool,
    has_ended: AtomicBool,
    waker: Waker,
}

impl Shared {
    pub(super) fn new(waker: Waker, acked: u64, needs_from: u64) -> Self {
        Self {
            progress: Mutex::new(Progress {
                phase: Phase::WaitsForSnapshot,
                acked,
                acked_at: Instant::now(),
            }),
            needs_from: AtomicU64::new(needs_from),
            is_asleep: AtomicBool::new(false),
            is_to_stop: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            waker,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Phase, acknowledged offset, and for how long nothing was acknowledged.
    pub(super) fn progress(&self) -> (Phase, u64, Duration) {
        let progress = self.locked();
        (progress.phase, progress.acked, progress.acked_at.elapsed())
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        let mut progress = self.locked();
        progress.phase = phase;
        progress.acked_at = Instant::now();
    }

    pub(super) fn acknowledge(&self, offset: u64) {
        let mut progress = self.locked();
        progress.acked = progress.acked.max(offset);
        progress.acked_at = Instant::now();
    }

    pub(super) fn needs_from(&self) -> u64 {
        self.needs_from.load(Ordering::Acquire)
    }

    pub(super) fn set_needs_from(&self, offset: u64) {
        self.needs_from.store(offset, Ordering::Release);
    }

    /// The thread goes to sleep, or woke.
    pub(super) fn set_asleep(&self, is_asleep: bool) {
        self.is_asleep.store(is_asleep, Ordering::SeqCst);
    }

    pub(super) fn wake_if_asleep(&self) {
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        // A thread that cannot be woken comes round by itself, later.
        let _ = self.waker.wake();
    }

    pub(super) fn stop(&self) {
        self.is_to_stop.store(true, Ordering::Release);
        self.wake();
    }

    /// It is to stop at once, whatever the log has.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.stop();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.is_to_stop.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}
