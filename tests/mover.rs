//! The mover between real redis-servers: copy, follow, mark, verify, purge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "mover/conflicts.rs"]
mod conflicts;
#[path = "mover/copying.rs"]
mod copying;
#[path = "mover/exactly_once.rs"]
mod exactly_once;
#[path = "mover/expiring.rs"]
mod expiring;
#[path = "mover/failover.rs"]
mod failover;
#[path = "mover/idling.rs"]
mod idling;
#[path = "mover/refusals.rs"]
mod refusals;
#[path = "mover/scanning.rs"]
mod scanning;
#[path = "mover/spanning.rs"]
mod spanning;
mod support;
#[path = "mover/verifying.rs"]
mod verifying;
#[path = "mover/world.rs"]
mod world;
