//! Connections to shards: dialling, handshake, in-flight queue, health.
//!
//! `session` is for connections of our own (the job, the tap), on tokio; `pipe`
//! is what a proxy's worker drives, without sockets of its own.

pub mod config;
pub mod error;
pub mod memcached;
pub mod pipe;
pub mod session;
pub mod socket;

pub use crate::router::address::ShardAddress;
pub use config::{Credentials, Secret, UpstreamConfig};
pub use error::{Blame, Retry, SessionError, SessionErrorKind, SessionStep};
pub use session::{Session, SessionReader, SessionWriter};
