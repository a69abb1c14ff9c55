//! Client sessions: parse -> route -> gate -> forward -> reply in order.

pub mod client;
pub mod config;
pub mod control;
pub mod core;
mod describe;
mod dispatch;
pub mod gate;
mod intake;
mod lanes;
mod local;
pub mod merge;
mod orders;
mod stream;
mod worker;
