//! The job that moves keys to another layout: plan, copy, follow, verify, switch.

pub mod mover;
