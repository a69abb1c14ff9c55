//! Following a master, and being followed.
//!
//! ```text
//! replica/   the link to a master: handshake, snapshot into fresh databases, stream
//! ```

pub mod replica;
