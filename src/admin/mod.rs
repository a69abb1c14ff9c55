//! HTTP: health, metrics, JSON API.
//!
//! ```text
//! listener (bounded) -> guard: Host, token, size -> /livez /readyz /metrics
//!                                                   /api/v1/pools
//!                                                   /api/v1/pools/{pool}/switch/{step}
//! ```
//! `/livez` and `/readyz` answer everybody who reaches the port; the rest asks
//! for the token, if there is one. A page in a browser can reach none of it:
//! on loopback the `Host` must be a loopback name (DNS rebinding), and a POST
//! must be `application/json` (which no form can send).
//!
//! Beside it, on a port of its own and off by default, the statistics of
//! twemproxy (`stats_port`).
//!
//! Invariant: every answer under `/api` is a JSON object with `"v":1`.

mod answer;
mod guard;
mod listener;
mod server;
mod stats_port;
mod switch;
mod token;

#[cfg(test)]
mod tests;

pub use server::{Admin, AdminError, AdminSettings, AdminState, Readiness};
pub use stats_port::{StatsPort, StatsPortError};
pub use token::Token;
