//! Commands: what they are called, what they take, what they do to the keyspace.
//!
//! ```text
//! table      names -> Command: arity, flags, where the keys are, what runs it
//! args, reply, failure, effects, settings, context      what commands are written in
//! strings, generic, ..                                  one file for each family
//! ```
//! A handler checks all its arguments before it changes anything, replies once, and tells
//! of keyspace events as Redis does. It does not know who the client is.

mod any_of;
pub mod args;
pub mod bits;
pub mod context;
pub mod described;
mod drawing;
pub mod effects;
pub mod failure;
pub mod generic;
pub mod geo;
pub mod hashes;
pub mod hyperloglog;
pub mod lists;
pub mod reply;
pub mod scanning;
pub mod sets;
pub mod settings;
pub mod sort;
pub mod streams;
pub mod strings;
pub mod table;
pub mod zsets;

pub use args::{Args, OwnedRequest};
pub use context::{Context, Event, OnTimeout, Outcome, Wait, Waits};
pub use effects::{Effects, Unit};
pub use failure::Failure;
pub use generic::payload_of;
pub use reply::Reply;
pub use settings::{EventClass, NotifyFlags, Settings};
pub use table::{Command, Keys, Run, Table};
