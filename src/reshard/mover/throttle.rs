//! What bounds the speed of a copy, and the dial that changes it while it runs.
//!
//! ```text
//! rate                snapshot bytes a second, all targets together
//! target_ping_p99     slowest answer of a target that is borne: above it the copy slows down
//! source_buffer       bytes a source may hold back for its replicas: above it the copy slows down
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The bounds in force. `None`: not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Snapshot bytes a second, sent to all targets together.
    pub rate_bytes_per_s: Option<u64>,
    /// 99th percentile of a target's answers to PING, in milliseconds.
    pub target_ping_p99_ms_max: Option<u64>,
    /// Output that a source holds for its replicas, in bytes.
    pub source_buffer_bytes_max: Option<u64>,
}

/// A new value for one bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No bound.
    Off,
    /// At this value, in the bound's own unit.
    At(u64),
}

impl Bound {
    fn value(self) -> Option<u64> {
        match self {
            Bound::Off => None,
            Bound::At(value) => Some(value),
        }
    }
}

/// Which bounds change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleChange {
    /// See [`Throttle::rate_bytes_per_s`].
    pub rate_bytes_per_s: Option<Bound>,
    /// See [`Throttle::target_ping_p99_ms_max`].
    pub target_ping_p99_ms_max: Option<Bound>,
    /// See [`Throttle::source_buffer_bytes_max`].
    pub source_buffer_bytes_max: Option<Bound>,
}

impl Throttle {
    /// The bounds after a change.
    #[must_use]
    pub fn with(self, change: ThrottleChange) -> Throttle {
        let changed = |old: Option<u64>, new: Option<Bound>| new.map_or(old, Bound::value);
        Throttle {
            rate_bytes_per_s: changed(self.rate_bytes_per_s, change.rate_bytes_per_s),
            target_ping_p99_ms_max: changed(
                self.target_ping_p99_ms_max,
                change.target_ping_p99_ms_max,
            ),
            source_buffer_bytes_max: changed(
                self.source_buffer_bytes_max,
                change.source_buffer_bytes_max,
            ),
        }
    }
}

impl std::fmt::Display for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = |value: Option<u64>, unit: &str| {
            value.map_or("none".to_owned(), |value| format!("{value} {unit}"))
        };
        write!(
            f,
            "rate {}, target p99 {}, source buffer {}",
            bound(self.rate_bytes_per_s, "bytes/s"),
            bound(self.target_ping_p99_ms_max, "ms"),
            bound(self.source_buffer_bytes_max, "bytes"),
        )
    }
}

/// The bounds of one mover, which may be turned while it works.
#[derive(Debug, Clone)]
pub struct ThrottleDial(Arc<watch::Sender<Throttle>>);

impl ThrottleDial {
    /// A dial that begins at `throttle`.
    #[must_use]
    pub fn new(throttle: Throttle) -> ThrottleDial {
        ThrottleDial(Arc::new(watch::Sender::new(throttle)))
    }

    /// Turns it; what is in force then.
    pub fn turn(&self, change: ThrottleChange) -> Throttle {
        self.0
            .send_modify(|throttle| *throttle = throttle.with(change));
        *self.0.borrow()
    }

    /// What is in force.
    #[must_use]
    pub fn now(&self) -> Throttle {
        *self.0.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Throttle> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let dial = ThrottleDial::new(Throttle {
            rate_bytes_per_s: Some(1),
            target_ping_p99_ms_max: Some(2),
            source_buffer_bytes_max: None,
        });
        let turned = dial.turn(ThrottleChange {
            rate_bytes_per_s: Some(Bound::Off),
            source_buffer_bytes_max: Some(Bound::At(3)),
            ..ThrottleChange::default()
        });
        let wanted = Throttle {
            rate_bytes_per_s: None,
            target_ping_p99_ms_max: Some(2),
            source_buffer_bytes_max: Some(3),
        };
        assert_eq!((turned, dial.now()), (wanted, wanted));
    }
}
