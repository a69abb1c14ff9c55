//! The log of the built-in shard on a disk that fails, fills up and crashes, and on a
//! real one: what was synced is found again, nothing else is made up.
//!
//! `PROPTEST_CASES=20000 cargo test --test store_log` for the long run; proptest prints
//! the seed of a failing case.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "store_log/damage.rs"]
mod damage;
#[path = "store_log/every_fault.rs"]
mod every_fault;
#[path = "store_log/files.rs"]
mod files;
#[path = "store_log/fixture.rs"]
mod fixture;
#[path = "store_log/histories.rs"]
mod histories;
#[path = "store_log/properties.rs"]
mod properties;
#[path = "store_log/reading.rs"]
mod reading;
#[path = "store_log/room.rs"]
mod room;
#[path = "store_log/world.rs"]
mod world;
