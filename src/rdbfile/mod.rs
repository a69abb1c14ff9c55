//! RDB files as a whole: read from a disk or a pipe, counted, shown as JSON
//! lines, loaded into servers. What is in a record is `rdb`'s to know.
//!
//! ```text
//! source     bytes of a file -> records, in bounded memory
//! facts      a key without its value, and which values come in parts
//! selection  which keys are wanted: prefix, type, database
//! survey     records -> what the file holds        (`keyferry rdb info`)
//! lines      keys -> one JSON object each          (`keyferry rdb cat`)
//! load       keys -> servers                      (`keyferry rdb load`)
//! json       binary-safe JSON, written as it comes
//! words      the format's own words for types
//! ```
//!
//! Invariant: what was read before a file turned out damaged was handed on.

pub mod facts;
pub mod json;
pub mod lines;
pub mod load;
pub mod selection;
pub mod source;
pub mod survey;
pub mod words;
