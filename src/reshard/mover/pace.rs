//! The rate limit for snapshot bytes, shared by all sources.
//!
//! A schedule rather than a bucket: each reservation moves the moment at which
//! the next one may start, so a pause is never made up for by a burst.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shared by all source tasks.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_s: Option<u64>) -> Pace {
        Pace {
            bytes_per_s,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// When `bytes` may be sent; `None`: now.
    pub(super) fn reserve(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_s?.max(1);
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*free_at).max(now);
        *free_at = start + cost;
        (start > now).then_some(start)
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
}
