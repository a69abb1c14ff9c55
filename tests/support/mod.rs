//! What the integration tests stand on: real servers, real processes, real
//! sockets. Nothing here uses the product's own code, so that a bug in its
//! RESP scanner cannot hide itself.
//!
//! - [`RedisServer`], [`Memcached`], [`Nutcracker`], [`Keyferry`], [`Job`]: child processes,
//!   on ports chosen by the system, in a temporary directory, ended by their
//!   own pid on drop. When the test is failing they print their log's tail.
//! - [`StoreServer`]: the built-in shard, the same way.
//! - [`ServerKind`]: servers of other versions and vendors, where they are.
//! - [`Client`] and [`Value`]: a blocking RESP client; [`TextClient`]: memcached's.
//! - [`Forwarder`]: a link to a server that can be cut, stalled and re-pointed.
//! - [`load`]: checked writers with an exact model of what the servers hold.
//! - [`Writer`]: one that speaks only what every server knows.
//! - [`seen`]: what any server tells of its keys, to compare two of them.
//! - [`wait_until`]: polls a condition until a deadline; tests do not sleep to
//!   synchronise.
//! - [`seeded`]: random numbers whose seed is printed; `KEYFERRY_TEST_SEED`
//!   sets it.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part of the support"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

pub mod client;
pub mod contents;
pub mod data;
pub mod exchange;
pub mod forwarder;
pub mod http;
pub mod job;
pub mod keyferry;
pub mod load;
pub mod memcached;
pub mod nutcracker;
pub mod process;
pub mod redis_server;
pub mod seen;
pub mod servers;
pub mod stage;
pub mod store_server;
pub mod wait;
pub mod world;
pub mod writer;

pub use client::{Client, Value};
pub use exchange::{Outcome, exchange, exchange_in_turn, requests};
pub use forwarder::Forwarder;
pub use http::{http_get, http_post};
pub use job::{Job, keyferry_command};
pub use keyferry::Keyferry;
pub use memcached::{Memcached, TextClient};
pub use nutcracker::Nutcracker;
pub use process::{Process, Signal, free_port};
pub use redis_server::RedisServer;
pub use servers::ServerKind;
pub use stage::{Shape, Stage};
pub use store_server::StoreServer;
pub use wait::{seeded, wait_for, wait_until};
pub use world::World;
pub use writer::Writer;
