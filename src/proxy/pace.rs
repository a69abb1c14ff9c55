//! How fast very large values pass while other clients are busy.
//!
//! ```text
//!   tokens  ----- grow by `limits.large_bytes_per_second` -----> at most BURST_BYTES_MAX
//!           <---- every byte of a value behind its first FREE_BYTES takes one; as
//!                 many may be owed at most
//!   none left, and others busy: the value waits; nobody else busy: it passes anyway
//! ```
//!
//! A value of hundreds of megabytes goes as fast as the machine does, and takes
//! the processors, the shard and the memory bus from everybody. Others are looked
//! at in periods: a period in which they asked much is followed by one in which
//! very large values keep the pace.
//!
//! Invariant: at no time is a value stopped that others wait behind; that is for
//! the caller to see to.

/// Bytes of each value that pass before the pace counts.
pub const FREE_BYTES: u64 = 4 * 1024 * 1024;
/// Most that may pass at once after a rest.
const BURST_BYTES_MAX: i64 = 256 * 1024;
/// How long others are counted before it is decided whether they are busy.
const PERIOD_US: u64 = 50_000;
/// Requests of others in a period that make them busy: 1,000 a second.
const BUSY_REQUESTS_MIN: u64 = 50;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Pace {
    /// Below zero: owed by the piece that passed last.
    tokens: i64,
    refilled_us: u64,
    period_since_us: u64,
    requests_then: u64,
    others_are_busy: bool,
}

impl Pace {
    /// Brings it up to `now_us`; `requests` is how many the pool has taken until now.
    pub fn look(&mut self, now_us: u64, requests: u64, bytes_per_second: u64) {
        let passed_us = now_us.saturating_sub(self.refilled_us);
        let grown = u128::from(passed_us) * u128::from(bytes_per_second) / 1_000_000;
        // What is too little for a byte is not lost: the clock stands until it is one.
        if grown > 0 {
            self.refilled_us = now_us;
            let grown = i64::try_from(grown).unwrap_or(i64::MAX);
            self.tokens = self.tokens.saturating_add(grown).min(BURST_BYTES_MAX);
        }
        let period_us = now_us.saturating_sub(self.period_since_us);
        if period_us >= PERIOD_US {
            // A longer look must show as much in proportion.
            let wanted = BUSY_REQUESTS_MIN.saturating_mul(period_us / PERIOD_US);
            self.others_are_busy = requests.saturating_sub(self.requests_then) >= wanted;
            self.requests_then = requests;
            self.period_since_us = now_us;
        }
    }

    /// `bytes` of a value passed of which `before` had passed.
    pub fn spend(&mut self, before: u64, bytes: u64) {
        let counted = (before + bytes).saturating_sub(before.max(FREE_BYTES));
        let counted = i64::try_from(counted).unwrap_or(i64::MAX);
        // What passed without a pace is not paid for later.
        self.tokens = self.tokens.saturating_sub(counted).max(-BURST_BYTES_MAX);
    }

    /// Whether a value of which `passed` bytes are through may go on.
    pub fn lets_pass(&self, passed: u64) -> bool {
        passed <= FREE_BYTES || !self.others_are_busy || self.tokens > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 100 << 20;
    const MIB: u64 = 1 << 20;

    /// Bytes of one value that pass in a second, asked for every 100 us in
    /// pieces of 128 KiB, beside `others` requests a second.
    fn passed_in_a_second(others: u64) -> u64 {
        let (mut pace, mut passed) = (Pace::default(), FREE_BYTES + 1);
        let from = passed;
        for now_us in (0..2_000_000).step_by(100) {
            pace.look(now_us, others * now_us / 1_000_000, RATE);
            if pace.lets_pass(passed) && now_us >= 1_000_000 {
                pace.spend(passed, 128 << 10);
                passed += 128 << 10;
            }
        }
        passed - from
    }

    #[test]
    fn beside_busy_clients_a_very_large_value_keeps_the_pace() {
        let passed = passed_in_a_second(20_000);
        assert!((99 * MIB..=101 * MIB).contains(&passed), "{passed}");
    }

    #[test]
    fn beside_idle_clients_it_passes_as_fast_as_it_comes() {
        assert_eq!(passed_in_a_second(100), 10_000 * (128 << 10));
        assert_eq!(passed_in_a_second(0), 10_000 * (128 << 10));
    }

    #[test]
    fn the_first_bytes_of_every_value_are_free() {
        let mut pace = Pace::default();
        pace.look(0, 0, RATE);
        pace.look(PERIOD_US, 1_000, RATE);
        pace.spend(0, FREE_BYTES);
        assert!(pace.lets_pass(FREE_BYTES + 1));
        pace.spend(FREE_BYTES - 1, BURST_BYTES_MAX as u64 + 1);
        assert!(!pace.lets_pass(FREE_BYTES + 1));
        assert!(pace.lets_pass(FREE_BYTES));
    }

    #[test]
    fn a_rest_saves_up_no_more_than_a_burst_and_slow_rates_add_up() {
        let mut pace = Pace::default();
        pace.look(0, 0, RATE);
        pace.look(60_000_000, 1_000_000, RATE);
        pace.spend(FREE_BYTES, BURST_BYTES_MAX as u64);
        assert!(!pace.lets_pass(u64::MAX));
        let slow = 1_000;
        for now_us in (60_000_000..60_010_000).step_by(100) {
            pace.look(now_us, 1_000_000, slow);
        }
        assert_eq!(pace.tokens, 9);
    }
}
