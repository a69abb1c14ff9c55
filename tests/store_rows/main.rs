//! The rows of the built-in shard over both engines:
//!
//! - `model`: random work held against maps, with snapshots held across flushes and
//!   compactions, restarts and crashes;
//! - `faults`: what happens when the engine cannot write;
//! - `flood`: writes as fast as they go, with a watchdog;
//! - `kills`: a process that is killed has whole generations, and says which.
//!
//! `KEYFERRY_STORE_STEPS`, `KEYFERRY_STORE_FLOOD_SECONDS` and `KEYFERRY_STORE_KILLS` make
//! them longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod faults;
mod flood;
mod kills;
mod model;
#[allow(
    dead_code,
    reason = "each test binary uses its own part of the support"
)]
#[path = "../support/wait.rs"]
mod wait;

/// A number from the environment, where somebody wants more than the usual.
fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect(name))
}

/// A value of a meta row that refers to an object: a 1, then its id.
fn object_of(value: &[u8]) -> Option<u64> {
    let id = value.strip_prefix(&[1])?;
    Some(u64::from_be_bytes(id.try_into().ok()?))
}
