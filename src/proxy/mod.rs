//! Client sessions: parse -> route -> gate -> forward -> reply in order.

pub mod client;
pub mod config;
pub mod control;
pub mod core;
mod describe;
mod dispatch;
pub mod epochs;
pub mod gate;
mod intake;
mod lanes;
mod local;
pub mod merge;
mod orders;
pub mod pool;
pub mod process;
pub mod reload;
mod shards;
mod sockets;
mod steps;
mod stream;
pub mod switching;
mod worker;
