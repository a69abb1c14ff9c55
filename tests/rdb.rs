//! RDB files and DUMP payloads as a whole: read, shown, restored and loaded,
//! damaged, in parts; against fixtures, oracles and real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

#[path = "rdb/cat.rs"]
mod cat;
#[path = "rdb/damage.rs"]
mod damage;
#[path = "rdb/fixtures.rs"]
mod fixtures;
#[path = "rdb/load.rs"]
mod load;
#[path = "rdb/load_fixtures.rs"]
mod load_fixtures;
#[path = "rdb/parts.rs"]
mod parts;
#[path = "rdb/restore.rs"]
mod restore;
#[path = "rdb/restore_modes.rs"]
mod restore_modes;
mod support;
