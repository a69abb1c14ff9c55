//! Waiting for conditions, and seeds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long to let other threads run between two looks at a condition.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Looks at `condition` until it holds; panics, naming `what`, when `limit` is
/// over.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// Like [`wait_until`], for a condition that yields a value.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// A generator whose seed is printed, so that a failure can be run again with
/// `KEYFERRY_TEST_SEED`.
pub fn seeded(test: &str) -> fastrand::Rng {
    let seed = match std::env::var("KEYFERRY_TEST_SEED") {
        Ok(text) => text
            .parse()
            .expect("KEYFERRY_TEST_SEED is a decimal number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970")
            .subsec_nanos()
            .into(),
    };
    println!("{test}: KEYFERRY_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
