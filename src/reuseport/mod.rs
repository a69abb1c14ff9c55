//! Listening sockets: one SO_REUSEPORT listener for each worker.

pub mod address;
pub mod listener;
