//! Client sessions: parse -> route -> gate -> forward -> reply in order.

pub mod config;
