//! RESP2/RESP3 bytes <-> spans: incremental, bounded, no sockets.
//!
//! ```text
//! bytes a client sent  -> RequestScanner -> Request { bytes, args }   request.rs, inline.rs
//! bytes a shard sent   -> ReplyScanner   -> Reply { len, kind }       reply.rs
//! one whole reply      -> parse_value    -> Value                     value.rs
//! arguments            -> write_command  -> bytes to send             write.rs
//!
//! what is too large to keep: RequestTail, ReplyTail                   request/tail.rs,
//! its end is found while it is passed on                              reply/tail.rs
//! ```
//!
//! Both scanners only find ends: bodies are skipped by their declared length
//! and never copied, a declared length alone never allocates, and a scan that
//! ran out of bytes goes on where it stopped.

mod header;
mod inline;
mod opening;
mod reply;
mod request;
mod span;
mod value;
mod write;

pub use reply::{
    Passed, REPLY_DEPTH_MAX, Reply, ReplyError, ReplyScanner, ReplyTail, array_body, array_elements,
};
pub use request::{
    Fed, ProtocolError, Request, RequestLimits, RequestScanner, RequestTail, Started,
};
pub use span::Span;
pub use value::{Value, parse_value};
pub use write::{
    write_array_header, write_bulk, write_bulk_header, write_bulk_integer, write_command,
    write_error, write_integer, write_simple,
};
