//! The tap: poses as a replica of one shard and hands on what it sends.
//!
//! ```text
//! attach:  Connect -> Auth -> Ping -> Replconf -> Psync        handshake.rs
//!            +FULLRESYNC  -> snapshot frame -> RDB -> mark      snapshot.rs
//!            +CONTINUE    -> -----------------------------.
//!          commands, offsets, transactions                v     stream.rs
//! voice:   newlines while the snapshot lasts, then REPLCONF ACK    voice.rs
//! ```
//!
//! `tap.rs` drives these; they do no I/O of their own except the handshake and
//! the voice. Invariants: every stream byte counts into the offset exactly
//! once; an offset is acknowledged only after the caller said so.

pub mod config;
pub mod error;
pub mod event;
mod handshake;
mod snapshot;
mod stream;
pub mod tap;
mod voice;
mod wire;

pub use config::{ResumePoint, TapConfig};
pub use error::{TapError, TapErrorKind, TapStep};
pub use event::{LargeKeyHead, SnapshotRecord, StreamCommand, TapEvent};
pub use tap::{SnapshotProgress, Tap};
