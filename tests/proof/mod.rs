//! The proof harness: a load that logs everything, checkers of its history, and
//! the world it runs in. See `docs/proof.md`.
//!
//! ```text
//! history   operations, their times, what came of them
//! workload  seeded clients that make a history
//! linear  tokens  expiry   what is wrong with one
//! admin_link  world        servers, proxies, the job, and where to stop them
//! scenarios  disturbed     worlds from their start to their checks
//! cells                    who fails at which step, and how
//! ```

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test panics; and each test binary uses its own part of this"
)]

pub mod admin_link;
pub mod cells;
pub mod disturbed;
pub mod expiry;
pub mod history;
pub mod linear;
pub mod scenarios;
pub mod tokens;
pub mod workload;
pub mod world;
