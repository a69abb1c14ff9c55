//! The tap: poses as a replica of one shard and hands on what it sends.
//!
//! ```text
//! regain:  which address, how often, how long                       regain.rs
//! attach:  Connect -> Auth -> Ping -> Replconf -> Psync              handshake.rs
//!            +FULLRESYNC, +CONTINUE, or a second socket              two_sockets.rs
//!
//! source ==> wire.rs ==> intake.rs ==> queue.rs  memory, then spool.rs  disk
//!                          framing.rs       ||     finds the snapshot's end
//!            voice.rs <-- acknowledge       \/
//!     newlines, then ACKs                tap.rs ==> snapshot.rs   frame -> RDB -> mark
//!                                               ==> stream.rs     commands, offsets, units
//! meter.rs:  what all of them show
//! ```
//!
//! The intake is a task of its own and takes what comes at the speed it comes; the
//! parsers do no I/O. Invariants: every stream byte counts into the offset exactly
//! once; an offset is acknowledged only after the caller said so; bytes are bounded
//! in memory, and on disk where there is a spool.

pub mod config;
pub mod error;
pub mod event;
mod framing;
mod handshake;
mod intake;
pub mod meter;
mod queue;
mod regain;
#[cfg(any(test, fuzzing))]
pub mod replay;
mod snapshot;
mod spool;
mod stream;
pub mod tap;
mod two_sockets;
mod voice;
mod wire;

pub use config::{Haste, ResumePoint, SnapshotWanted, SpoolConfig, TapConfig};
pub use error::{TapError, TapErrorKind, TapStep};
pub use event::{LargeKeyHead, SnapshotRecord, StreamCommand, TapEvent};
pub use meter::{TapFigures, TapMeter, TapMode};
pub use tap::{SnapshotProgress, Tap};
