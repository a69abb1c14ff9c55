//! Which shards of a pool are ejected now, how often they were, and when last.
//! Written by the control side, a few times a minute at most.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of one shard; all zero as long as it was never ejected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct EjectionState {
    /// Whether it is ejected now.
    pub is_out: bool,
    /// How often it was since the pool was first opened.
    pub ejects: u64,
    /// When last, in microseconds since 1970.
    pub last_at_us: u64,
}

/// The shards of one pool, by name.
#[derive(Debug, Default)]
pub struct EjectionStates(Mutex<BTreeMap<String, EjectionState>>);

impl EjectionStates {
    /// A shard was ejected.
    pub fn out(&self, shard: &str, at_us: u64) {
        let mut shards = self.lock();
        let state = shards.entry(shard.to_owned()).or_default();
        state.is_out = true;
        state.ejects += 1;
        state.last_at_us = at_us;
    }

    /// A shard was ejected at `at_us`, before it had this name or this layout.
    pub fn still_out(&self, shard: &str, at_us: u64) {
        let mut shards = self.lock();
        let state = shards.entry(shard.to_owned()).or_default();
        (state.is_out, state.last_at_us) = (true, at_us);
    }

    /// All shards are in: the pool was opened anew.
    pub fn all_back(&self) {
        let mut shards = self.lock();
        shards.values_mut().for_each(|state| state.is_out = false);
    }

    /// A shard is let in again.
    pub fn back(&self, shard: &str) {
        if let Some(state) = self.lock().get_mut(shard) {
            state.is_out = false;
        }
    }

    /// One shard.
    pub fn of(&self, shard: &str) -> EjectionState {
        self.lock().get(shard).copied().unwrap_or_default()
    }

    /// How often any shard was ejected.
    pub fn ejects(&self) -> u64 {
        self.lock().values().map(|state| state.ejects).sum()
    }

    /// A panic while it was held can have lost an entry, not broken one.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, EjectionState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
