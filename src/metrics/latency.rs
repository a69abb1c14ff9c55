//! How long shards take, by class of command: log-linear buckets that one
//! worker counts in and any thread may read.
//!
//! ```text
//! microseconds   0 1 2 .. 15 | 16 17 18 .. 31 | 32 34 36 .. 62 | 64 68 .. | ..
//! bucket         0 1 2 .. 15 | 16 17 18 .. 31 | 32 33 34 .. 47 | 48 49 .. | ..
//! ```
//!
//! A value is counted with an error of at most a sixteenth. A worker looks at
//! the clock once a turn, so a latency is the time between two turns: from the
//! one that read the request to the one that read the reply.
//!
//! Invariant: one writer (see [`super::counter`]). A class takes memory at its
//! first reply.

use std::sync::OnceLock;

use super::counter::Counter;

/// Buckets in which values double.
const STEPS: u32 = 16;
const STEPS_BITS: u32 = STEPS.trailing_zeros();
/// Latencies from here on, two minutes, share the last bucket.
pub(super) const LATENCY_US_MAX: u64 = (1 << 27) - 1;
/// Buckets of one class.
pub const BUCKETS: usize = ((27 - STEPS_BITS + 1) * STEPS) as usize;

/// What kind of command a request is, as far as its latency is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandClass {
    /// Reads one shard.
    Read,
    /// May change data on one shard.
    Write,
    /// A script or function.
    Script,
    /// One shard's share of a command with keys on several.
    Part,
    /// Requests from MULTI to EXEC, and WATCH.
    Transaction,
    /// Waits at the shard for what others do.
    Waiting,
}

impl CommandClass {
    /// Every class, in the order they are rendered.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Script,
        Self::Part,
        Self::Transaction,
        Self::Waiting,
    ];

    /// The value of the label `class`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Script => "script",
            Self::Part => "part",
            Self::Transaction => "transaction",
            Self::Waiting => "waiting",
        }
    }
}

/// What one worker saw of one shard's latencies.
#[derive(Debug, Default)]
pub struct ShardLatency {
    classes: [OnceLock<Box<Latencies>>; CommandClass::ALL.len()],
}

/// The latencies of one class.
#[derive(Debug)]
pub struct Latencies {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl ShardLatency {
    /// Counts `n` replies that each took `us` microseconds.
    #[inline]
    pub fn record(&self, class: CommandClass, us: u64, n: u64) {
        let latencies = self.classes[class as usize].get_or_init(Box::default);
        if let Some(bucket) = latencies.buckets.get(bucket_of(us)) {
            bucket.add(n);
        }
        latencies.sum_us.add(us.saturating_mul(n));
    }

    /// Adds what another block counted that nobody writes any more.
    pub(super) fn absorb(&self, ended: &Self) {
        for (class, theirs) in self.classes.iter().zip(&ended.classes) {
            let Some(theirs) = theirs.get() else { continue };
            let ours = class.get_or_init(Box::default);
            for (bucket, count) in ours.buckets.iter().zip(&theirs.buckets) {
                bucket.add(count.value());
            }
            ours.sum_us.add(theirs.sum_us.value());
        }
    }

    /// What was counted of one class, if anything.
    pub fn of(&self, class: CommandClass) -> Option<&Latencies> {
        self.classes[class as usize].get().map(|boxed| &**boxed)
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: [const { Counter::new() }; BUCKETS],
            sum_us: Counter::new(),
        }
    }
}

impl Latencies {
    /// Each bucket that counted something: its highest value in microseconds,
    /// and the count.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets
            .iter()
            .enumerate()
            .map(|(index, count)| (highest_us(index), count.value()))
            .filter(|&(_, count)| count > 0)
    }

    /// All latencies together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.value()
    }
}

#[inline]
fn bucket_of(us: u64) -> usize {
    let us = us.min(LATENCY_US_MAX);
    if us < u64::from(STEPS) {
        return us as usize;
    }
    let doublings = us.ilog2() - STEPS_BITS;
    // The highest bit of `us` counts as one more row of steps.
    (u64::from(doublings * STEPS) + (us >> doublings)) as usize
}

fn highest_us(bucket: usize) -> u64 {
    let (row, step) = (
        bucket as u64 / u64::from(STEPS),
        bucket as u64 % u64::from(STEPS),
    );
    match row {
        0 => step,
        _ => ((u64::from(STEPS) + step + 1) << (row - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_in_a_bucket_that_ends_at_most_a_sixteenth_above_it() {
        let mut last = 0;
        for us in (0..5_000).chain((5_000..LATENCY_US_MAX).step_by(4_999)) {
            let bucket = bucket_of(us);
            let highest = highest_us(bucket);
            assert!(bucket >= last, "{us}");
            assert!(us <= highest && highest - us <= us / 16, "{us}: {highest}");
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(highest_us(BUCKETS - 1), LATENCY_US_MAX);
    }

    #[test]
    fn counts_are_by_class() {
        let latency = ShardLatency::default();
        latency.record(CommandClass::Write, 3, 2);
        latency.record(CommandClass::Write, 100, 1);
        assert!(latency.of(CommandClass::Read).is_none());
        let writes = latency.of(CommandClass::Write).unwrap();
        assert_eq!(writes.counts().collect::<Vec<_>>(), [(3, 2), (103, 1)]);
        assert_eq!(writes.sum_us(), 106);
    }
}
