//! Lua 5.1 as Redis 7.0 has it for scripts and functions: what they may touch, what they
//! compute with, and what their values are as replies.
//!
//! ```text
//! vm          one interpreter: compiles, runs, is interrupted      sandbox.lua   its globals
//! api         `redis`: through the door to whoever runs the script
//! answers     replies -> Lua values -> replies
//! json msgpack structs bits dice   the libraries, and math.random
//! header      `#!lua flags=..`
//! libraries   what FUNCTION LOAD has loaded
//! ```
//! A script reaches the keyspace by [`Host`] alone, and only while it is run.
//!
//! Invariants
//! - Nothing that a script does outlives it, but what commands did and where `math.random`
//!   stands: globals and what they hold cannot be changed.
//! - Errors that our functions raise are `raised::Raised`; a script that catches one sees
//!   the table or the text that Redis would have raised.

mod answers;
mod api;
mod arguments;
mod bits;
mod dice;
mod header;
mod json;
pub mod libraries;
mod msgpack;
mod raised;
mod structs;
mod text;
mod vm;

pub use dice::Dice;
pub use header::{Flags, HeaderError, LibraryHeader, script_flags};
pub use libraries::Libraries;
pub use vm::{Failed, Given, Host, Ran, Vm, VmError};

/// What was compiled.
pub use mlua::Function;

/// What a script may make of tables that hold each other, as JSON, MessagePack or a reply.
const MADE_BYTES_MAX: usize = 256 << 20;

/// Names scripts: forty hex digits.
pub fn sha1_hex(bytes: &[u8]) -> String {
    sha1_smol::Sha1::from(bytes).digest().to_string()
}
