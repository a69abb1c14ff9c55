//! Operations on one object: what is in its meta row, or in rows of its own.
//!
//! ```text
//! source  rows to be read: of the shard now, or of a snapshot
//! list    items in order
//! zset    members in the order of their scores
//! ```
//! A collection is in its meta row while it is short ([`INLINE_BYTES_MAX`],
//! [`INLINE_ITEMS_MAX`]); once it has rows it keeps them. The operations change rows and
//! the value they are given; who calls them puts the value, and says nothing to clients.

pub mod list;
pub mod source;
pub mod zset;


/// A collection of more bytes than this has rows.
pub const INLINE_BYTES_MAX: usize = 4096;
/// A collection of more elements than this has rows.
pub const INLINE_ITEMS_MAX: usize = 512;
