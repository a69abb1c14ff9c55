//! A shard that runs: one thread that serves clients, and what it stands on.
//!
//! ```text
//! turn:  wait for events -> read ready clients, run their requests -> effects to the log
//!        -> (always: fdatasync) -> write to clients that are owed something
//! ```
//! Invariant: no reply goes out before the effects of its turn are in the log.

mod apart;
mod courier;
mod following;
mod keeping;
mod kept;
mod knowing;
mod master;
mod network;
mod opening;
mod scribe;
mod sockets;
mod starting;
mod times;
mod turns;

pub use crate::store::session::MasterAddress;
pub use apart::{Apart, RESTORING, info_of};
pub use keeping::Durability;
pub use kept::KeptError;
pub use opening::{MEMORY_BYTES_MIN, Memory};
pub use sockets::ListenAt;
pub use starting::{Running, StartError, StartFault, StoreOptions, start};
