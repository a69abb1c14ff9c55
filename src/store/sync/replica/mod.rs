//! A master, followed: another of these shards, or a Redis server.
//!
//! ```text
//! link.rs       a thread: dial, handshake.rs, read ==> events, bounded; ACKs the other way
//!                 Asks        from where? (the executor has everything that came before)
//!                 FullSync    a snapshot follows, then the stream from its offset
//!                 Continues   the stream follows, from where was asked
//!                 Bytes ..    Lost
//! load.rs       snapshot -> values, in databases beside the ones in use
//! stream.rs     stream -> whole units: a command, or MULTI .. EXEC
//! resynced.rs   the row that ties a finished snapshot to the log that goes on behind it
//! ```
//! The link reads at the speed of the wire until its queue is full, and then no more: the
//! master feels it. What is parsed here does no I/O; the executor drives it.

mod handshake;
mod link;
mod load;
mod resynced;
mod stream;
mod wire;

pub use link::{Credentials, Link, LinkEvent, LinkOptions, Position};
pub use load::{Load, LoadError, Loaded};
pub use resynced::Resynced;
pub use stream::{Stream, StreamError, Unit};

/// A replication id.
pub type ReplId = [u8; crate::store::oplog::REPLID_BYTES];
