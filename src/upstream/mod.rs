//! Connections to shards: dialling, handshake, in-flight queue, health.

pub mod config;
pub mod pipe;
