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

#[cfg(test)]
mod tests;
