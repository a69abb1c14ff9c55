//! The mover between real redis-servers: copy, follow, mark, verify, purge.

#[path = "mover/conflicts.rs"]
mod conflicts;
#[path = "mover/copying.rs"]
mod copying;
#[path = "mover/refusals.rs"]
mod refusals;
mod support;
#[path = "mover/verifying.rs"]
mod verifying;
#[path = "mover/world.rs"]
mod world;
