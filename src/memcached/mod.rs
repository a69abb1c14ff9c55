//! memcached's text protocol, bytes <-> spans: incremental, bounded, no sockets.
//!
//! ```text
//! bytes a client sent  -> RequestScanner -> Request { bytes, asked }   request.rs
//!                           its line     -> Asked                      asked.rs, line.rs
//! bytes a server sent  -> ReplyScanner   -> length of a whole reply    reply.rs
//! one whole reply      -> next_value     -> VALUE blocks               reply.rs
//!
//! what is too large to keep: Started, ReplyTail                        request.rs,
//! its end is found while it is passed on                               reply/tail.rs
//! ```
//!
//! A request is one line, and for commands that store, the data it announces. A
//! reply is one line, before which a retrieval has any number of VALUE blocks.
//!
//! Invariant: of a request that is forwarded memcached makes exactly one reply
//! and reads exactly its bytes. So a line is judged here as strictly as the
//! strictest memcached would: what one of them might answer early, or not at
//! all, is refused and not forwarded.

mod asked;
mod line;
mod refusal;
mod reply;
mod request;

pub use asked::{Asked, Keyed, Several};
pub use refusal::{Refusal, write_server_error};
pub use reply::{Passed, ReplyError, ReplyScanner, ReplyTail, Value, next_value};
pub use request::{LINE_BYTES_MAX, Request, RequestScanner, Started};

/// Longest key, as memcached has it.
pub const KEY_BYTES_MAX: usize = 250;
