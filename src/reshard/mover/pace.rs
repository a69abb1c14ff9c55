//! The rate limit for snapshot bytes, shared by all sources.
//!
//! A schedule rather than a bucket: each reservation moves the moment at which
//! the next one may start, so a pause is never made up for by a burst. A new
//! rate forgets the schedule and wakes those who wait by the old one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by all source tasks.
#[derive(Debug)]
pub(super) struct Pace {
    schedule: Mutex<Schedule>,
    changed: Notify,
    /// Bytes that were let through.
    passed_bytes: AtomicU64,
}

#[derive(Debug)]
struct Schedule {
    bytes_per_s: Option<u64>,
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_s: Option<u64>) -> Pace {
        Pace {
            schedule: Mutex::new(Schedule {
                bytes_per_s,
                free_at: Instant::now(),
            }),
            changed: Notify::new(),
            passed_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes let through so far.
    pub(super) fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }

    /// From now on this many bytes a second; `None`: as fast as it goes.
    pub(super) fn set(&self, bytes_per_s: Option<u64>) {
        let mut schedule = self.schedule();
        if schedule.bytes_per_s != bytes_per_s {
            *schedule = Schedule {
                bytes_per_s,
                free_at: Instant::now(),
            };
            drop(schedule);
            self.changed.notify_waiters();
        }
    }

    /// Waits until `bytes` may be sent.
    pub(super) async fn pass(&self, bytes: usize) {
        self.passed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Listening begins before the look, so that no change falls between.
            changed.as_mut().enable();
            let Some(start) = self.reserve(bytes, Instant::now()) else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(start) => return,
                () = &mut changed => {}
            }
        }
    }

    /// When `bytes` may be sent; `None`: now.
    fn reserve(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut schedule = self.schedule();
        let rate = schedule.bytes_per_s?.max(1);
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let start = schedule.free_at.max(now);
        schedule.free_at = start + cost;
        (start > now).then_some(start)
    }

    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_delays_the_next_by_its_cost() {
        let pace = Pace::new(Some(1000));
        let now = Instant::now();
        assert_eq!(pace.reserve(500, now), None);
        let next = pace.reserve(500, now).unwrap();
        assert!(next - now > Duration::from_millis(499));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.reserve(1, later), None, "idle time is not saved up");
    }

    #[tokio::test]
    async fn a_new_rate_wakes_who_waits_by_the_old_one() {
        let pace = Pace::new(Some(1));
        pace.pass(3_600).await;
        let turning = async {
            tokio::task::yield_now().await;
            pace.set(None);
        };
        let both = async { tokio::join!(pace.pass(1), turning) };
        let woken = tokio::time::timeout(Duration::from_secs(60), both).await;
        assert!(woken.is_ok(), "it waits for an hour by the old rate");
        assert_eq!(pace.passed_bytes(), 3_601);
    }
}
