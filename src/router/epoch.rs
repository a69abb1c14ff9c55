//! What a worker routes by: an epoch, its layout and a gate, published whole.
//!
//! ```text
//! Open --hold--> Held --commit--> Open (next epoch, new layout)
//!                 |  '--abort or lease--> Open (same epoch)
//!                 '--armed lease ends--> Fenced --commit | abort--> Open
//! ```
//! Invariant: while a gate is shut, the `from` of its moves is the layout in
//! force. A `Routing` never changes; a request sees one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RESERVED_PREFIX;
use super::layout::{Layout, ShardIndex};
use super::moves::{Move, Moves};

/// Number of a layout in use; it only grows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// What becomes of requests for moving keys.
#[derive(Debug, Clone, Default)]
pub enum Gate {
    /// Nothing is special.
    #[default]
    Open,
    /// Requests for moving keys wait in the worker.
    Held(Arc<Moves>),
    /// Requests for moving keys are refused with `-TRYAGAIN`.
    Fenced(Arc<Moves>),
}

/// One version of the routing; swapped whole, never changed.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Which version it is.
    pub epoch: Epoch,
    /// Who owns which key.
    pub layout: Arc<Layout>,
    /// What moving keys have to do.
    pub gate: Gate,
}

/// Where a key's request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this shard of the layout in force.
    To(ShardIndex),
    /// Nowhere yet: the key is moving and the gate is held.
    Wait,
    /// Nowhere: the key is moving and the gate is fenced.
    TryAgain,
    /// Nowhere, ever: the key is one of our own ([`RESERVED_PREFIX`]).
    Reserved,
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Gate {
    /// The moves a shut gate waits for.
    pub fn moves(&self) -> Option<&Arc<Moves>> {
        match self {
            Self::Open => None,
            Self::Held(moves) | Self::Fenced(moves) => Some(moves),
        }
    }

    /// The word used in the admin API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held(_) => "held",
            Self::Fenced(_) => "fenced",
        }
    }
}

impl Routing {
    /// A layout in force with an open gate.
    pub fn open(epoch: Epoch, layout: Arc<Layout>) -> Self {
        Self {
            epoch,
            layout,
            gate: Gate::Open,
        }
    }

    /// Decides for one key of a client. Short, and in its caller: each key pays for it.
    #[inline(always)]
    pub fn route(&self, key: &[u8]) -> Route {
        // One byte tells for nearly all keys.
        if matches!(self.gate, Gate::Open) && key.first() != RESERVED_PREFIX.first() {
            return Route::To(self.layout.owner(key));
        }
        self.route_unlike_others(key)
    }

    #[cold]
    #[inline(never)]
    fn route_unlike_others(&self, key: &[u8]) -> Route {
        if key.starts_with(RESERVED_PREFIX) {
            return Route::Reserved;
        }
        self.place(key)
    }

    /// The same for a name that is no key of a shard that we move keys of, or no
    /// key at all: nothing is reserved among those.
    #[inline]
    pub fn place(&self, key: &[u8]) -> Route {
        match &self.gate {
            Gate::Open => Route::To(self.layout.owner(key)),
            Gate::Held(moves) => shut(moves, key, Route::Wait),
            Gate::Fenced(moves) => shut(moves, key, Route::TryAgain),
        }
    }
}

fn shut(moves: &Moves, key: &[u8], if_moving: Route) -> Route {
    match moves.of(key) {
        Move::Stays { at } => Route::To(at),
        Move::Moves { .. } => if_moving,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::spec::{LayoutSpec, ShardSpec};

    fn layout(ports: &[u16]) -> Arc<Layout> {
        let shards = ports
            .iter()
            .map(|port| ShardSpec::at(&format!("h:{port}").parse().unwrap()))
            .collect();
        Arc::new(
            Layout::new(LayoutSpec {
                shards,
                ..LayoutSpec::default()
            })
            .unwrap(),
        )
    }

    #[test]
    fn keys_of_our_own_are_routed_nowhere() {
        let routing = Routing::open(Epoch(1), layout(&[1, 2]));
        assert_eq!(routing.route(b"__keyferry:cp:j:0"), Route::Reserved);
        assert_eq!(routing.route(b"__keyferry:"), Route::Reserved);
        for key in [
            &b"__keyferry"[..],
            b"__keyferrY:x",
            b"_",
            b"",
            b"x__keyferry:",
        ] {
            assert!(matches!(routing.route(key), Route::To(_)));
        }
        assert!(matches!(routing.place(b"__keyferry:x"), Route::To(_)));
    }

    #[test]
    fn a_shut_gate_stops_only_moving_keys() {
        let (from, to) = (layout(&[1, 2]), layout(&[1, 2, 3]));
        let moves = Arc::new(Moves::between(Arc::clone(&from), to).unwrap());
        let open = Routing::open(Epoch(4), from);
        let held = Routing {
            gate: Gate::Held(Arc::clone(&moves)),
            ..open.clone()
        };
        let fenced = Routing {
            gate: Gate::Fenced(moves),
            ..open.clone()
        };
        let mut waiting = 0;
        for key in (0..1000u32).map(u32::to_le_bytes) {
            match held.route(&key) {
                Route::Wait => {
                    waiting += 1;
                    assert_eq!(fenced.route(&key), Route::TryAgain);
                }
                stays => {
                    assert_eq!(stays, open.route(&key));
                    assert_eq!(stays, fenced.route(&key));
                }
            }
        }
        assert!(
            (200..500).contains(&waiting),
            "{waiting} of 1000 keys move to the third shard"
        );
        assert_eq!(Epoch(4).next(), Epoch(5));
    }
}
