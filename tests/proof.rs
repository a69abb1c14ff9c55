//! The cutover under load, with every operation of every client checked; and the
//! same with mistakes planted in the product, each of which must be caught.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "proof/cutovers.rs"]
mod cutovers;
#[path = "proof/faults.rs"]
mod faults;
#[path = "proof/mutants.rs"]
mod mutants;
#[path = "proof/mod.rs"]
mod proof;
mod support;
