//! How often keys are used: kept only under an LFU policy, for OBJECT FREQ.
//!
//! As Redis counts (`evict.c`): eight bits that grow the slower the larger they are, and
//! shrink by one for each `lfu-decay-time` minutes without a use. Of keys that are not among
//! those remembered it is what a new one has.

use foldhash::fast::RandomState;
use quick_cache::unsync::Cache;

use super::Keyspace;
use crate::store::format::row::Namespace;

/// Keys that are remembered.
const KEYS_MAX: usize = 65_536;
/// What a new key has.
const NEW: u8 = 5;

#[derive(Clone, Copy, Debug)]
struct Used {
    counter: u8,
    minute: u64,
}

/// How fast it grows and shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrequencyRules {
    /// `lfu-log-factor`.
    pub log_factor: u64,
    /// `lfu-decay-time`, in minutes; 0 never shrinks.
    pub decay_minutes: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Frequencies {
    rules: FrequencyRules,
    used: Cache<(Namespace, Box<[u8]>), Used, quick_cache::UnitWeighter, RandomState>,
}

impl Frequencies {
    pub(super) fn new(rules: FrequencyRules) -> Self {
        let used = Cache::with(
            KEYS_MAX,
            KEYS_MAX as u64,
            quick_cache::UnitWeighter,
            RandomState::default(),
            quick_cache::unsync::DefaultLifecycle::default(),
        );
        Self { rules, used }
    }

    pub(super) fn set_rules(&mut self, rules: FrequencyRules) {
        self.rules = rules;
    }

    /// A key was used.
    pub(super) fn note(&mut self, ns: Namespace, key: &[u8], now_ms: u64) {
        let counter = self.of(ns, key, now_ms);
        let above = u64::from(counter.saturating_sub(NEW));
        let grows = counter < u8::MAX
            && fastrand::f64() < 1.0 / (above.saturating_mul(self.rules.log_factor) + 1) as f64;
        self.set(ns, key, counter + u8::from(grows), now_ms);
    }

    /// Says how often one was used.
    pub(super) fn set(&mut self, ns: Namespace, key: &[u8], counter: u8, now_ms: u64) {
        let minute = now_ms / 60_000;
        self.used.insert((ns, key.into()), Used { counter, minute });
    }

    /// How often one was.
    pub(super) fn of(&self, ns: Namespace, key: &[u8], now_ms: u64) -> u8 {
        let Some(used) = self.used.peek(&(ns, Box::from(key))) else {
            return NEW;
        };
        let minutes = (now_ms / 60_000).saturating_sub(used.minute);
        let periods = minutes.checked_div(self.rules.decay_minutes).unwrap_or(0);
        used.counter
            .saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
    }
}

impl Keyspace {
    /// Counts how often keys are used from now on, by these rules; or no more.
    pub fn count_uses(&mut self, rules: Option<FrequencyRules>) {
        match (&mut self.frequencies, rules) {
            (Some(frequencies), Some(rules)) => frequencies.set_rules(rules),
            (frequencies, Some(rules)) => {
                *frequencies = Some(Box::new(Frequencies::new(rules)));
            }
            (frequencies, None) => *frequencies = None,
        }
    }

    /// How often a key was used, as OBJECT FREQ tells it; 0 if uses are not counted.
    pub fn frequency(&self, db: usize, key: &[u8]) -> u8 {
        let ns = self.namespace(db);
        let frequencies = self.frequencies.as_ref();
        frequencies.map_or(0, |of| of.of(ns, key, self.now_ms))
    }

    /// Says how often it was.
    pub fn set_frequency(&mut self, db: usize, key: &[u8], counter: u8) {
        let ns = self.namespace(db);
        if let Some(frequencies) = &mut self.frequencies {
            frequencies.set(ns, key, counter, self.now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: FrequencyRules = FrequencyRules {
        log_factor: 10,
        decay_minutes: 1,
    };

    #[test]
    fn uses_are_counted_slower_and_slower_and_forgotten_by_the_minute() {
        let mut frequencies = Frequencies::new(RULES);
        let ns = Namespace(0);
        assert_eq!(frequencies.of(ns, b"k", 0), NEW);
        frequencies.note(ns, b"k", 0);
        assert_eq!(
            frequencies.of(ns, b"k", 0),
            NEW + 1,
            "the first use always counts"
        );
        for _ in 0..10_000 {
            frequencies.note(ns, b"k", 0);
        }
        let counter = frequencies.of(ns, b"k", 0);
        assert!((20..200).contains(&counter), "{counter}");
        assert_eq!(frequencies.of(ns, b"k", 3 * 60_000), counter - 3);
        assert_eq!(frequencies.of(ns, b"k", 1_000 * 60_000), 0);
        assert_eq!(frequencies.of(Namespace(1), b"k", 0), NEW);
        frequencies.set(ns, b"k", 255, 0);
        frequencies.note(ns, b"k", 0);
        assert_eq!(frequencies.of(ns, b"k", 0), 255);
    }
}
