//! Operations on one object of each kind, whether its parts stand in its meta row or in
//! rows of their own. What commands are written in, and what dumps, snapshots and digests
//! walk. They know the keyspace, and nothing of replies.
//!
//! ```text
//! elements   what hashes and sets have in common: walks, scans, draws, spilling into rows
//! fields     the rows of hashes and sets
//! string, hash, set  one kind each
//! ```
//! A collection stands in its meta row as long as it is short ([`INLINE_BYTES_MAX`],
//! [`INLINE_ITEMS_MAX`]); then in rows, for good.

mod elements;
pub mod fields;
pub mod hash;
pub mod set;
pub mod string;

pub use elements::{Drawn, Element, Elements, Scanned};

/// Longest packed bytes of a collection in its meta row.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Most elements of one.
pub const INLINE_ITEMS_MAX: usize = 512;
