//! HTTP: health, metrics, JSON API.

pub mod config;
