//! RESP2/RESP3 bytes <-> spans: incremental, bounded, no sockets.
//!
//! ```text
//! bytes a client sent  -> RequestScanner -> Request { bytes, args }   request.rs, inline.rs
//! bytes a shard sent   -> ReplyScanner   -> Reply { len, kind }       reply.rs
//! one whole reply      -> parse_value    -> Value                     value.rs
//! arguments            -> write_command  -> bytes to send             write.rs
//! ```
//!
//! Both scanners only find ends: bodies are skipped by their declared length
//! and never copied, a declared length alone never allocates, and a scan that
//! ran out of bytes goes on where it stopped.

mod header;
mod inline;
mod reply;
mod request;
mod span;
mod value;
mod write;

pub use reply::{REPLY_DEPTH_MAX, Reply, ReplyError, ReplyScanner, array_elements};
pub use request::{ProtocolError, Request, RequestLimits, RequestScanner};
pub use span::Span;
pub use value::{Value, parse_value};
pub use write::{
    write_array_header, write_bulk, write_command, write_error, write_integer, write_simple,
};
