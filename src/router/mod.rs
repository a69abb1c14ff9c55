//! Which shard owns a key: hashes, distributions, layouts, epochs, the command
//! table, gates. Pure: no sockets, no files, no clock.
//!
//! ```text
//! LayoutSpec (as typed) --Layout::new--> Layout: key -> ShardIndex
//! Layout x Layout --Moves::between--> Moves: key -> stays | moves
//! Routing = Epoch + Layout + Gate, immutable, swapped whole
//! ```

pub mod address;
pub mod commands;
pub mod epoch;
pub mod errors;
pub mod hash;
mod ketama;
pub mod layout;
pub mod layout_error;
mod modula;
pub mod moves;
pub mod placement;
pub mod prefixes;
pub mod route_record;
mod slots;
pub mod spec;
pub mod tag;

/// What keys of Keyferry's own begin with: values that are being built, checkpoints,
/// records of the route. They are nobody's data: never copied, compared or counted,
/// and clients are refused commands on them.
pub const RESERVED_PREFIX: &[u8] = b"__keyferry:";

#[cfg(test)]
mod tests;
