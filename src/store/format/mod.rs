//! Numbers, patterns, row keys and the bytes of meta rows. Pure.
//!
//! ```text
//! numbers      what clients write as an integer or a float, and how floats are answered
//! long_double  the floats that INCRBYFLOAT adds in
//! geohash      places as 52 bits
//! lines        what a server says before a snapshot
//! glob         patterns of KEYS, SCAN, PSUBSCRIBE, CONFIG GET
//! partial_sort what is asked for of a long list, in Redis' order of equals
//! row          keys of rows: where everything stands in the engine
//! packed       a short collection as one run of bytes
//! object       a key's value as its meta row holds it
//! shared       short bytes that two hold, in one piece of memory
//! ```

pub mod geohash;
pub mod glob;
pub mod lines;
pub mod long_double;
pub mod numbers;
pub mod object;
pub mod packed;
pub mod partial_sort;
pub mod row;
mod shared;
