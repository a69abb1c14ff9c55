//! The gate at a switch: clients whose next request is for a moving key wait
//! in their own input, and the core tells when everything sent before is answered.
//!
//! ```text
//!          hold                  commit: new layout, gate open
//!  Open ----------> Held ---------------------------------------> Open
//!                    |  \ abort: old layout, gate open
//!                    |   '--------------------------------------> Open
//!                    | lease of an armed switch over
//!                    '---------> Fenced: moving keys get -TRYAGAIN
//! ```
//!
//! A gate that is shut for longer than `limits.max_hold`, or while more than
//! `HELD_BYTES_MAX` or `HELD_REQUESTS_MAX` wait in this worker, holds no more:
//! requests for moving keys get `-TRYAGAIN` until it opens. Nothing of a client is read
//! while one of its requests is held, so that it holds one read's bytes at most.
//!
//! Draining needs no mark on requests: when the gate shuts, each pipe notes
//! how many requests it has taken; when it has answered that many, whatever
//! it took before the gate shut is answered.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::warn;

use crate::planted::{self, Planted};
use crate::router::epoch::{Gate, Routing};

use super::client::Pause;
use super::core::PoolCore;
use super::intake::{HELD_BYTES_MAX, HELD_REQUESTS_MAX};
use super::private_pipes::Role;

/// What a worker saw while its gate was shut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldReport {
    /// Requests that waited.
    pub held_requests: u64,
    /// Longest wait of one of them, in microseconds.
    pub held_us_max: u64,
}

/// Since when a gate is shut.
#[derive(Debug, Clone, Copy)]
pub struct HoldTime {
    since_us: u64,
    /// It was too long: nothing is held any more.
    is_over: bool,
}

/// Waits until every request sent before the gate shut is answered.
pub struct Drain {
    /// (pipe, answers to reach).
    marks: Vec<(u32, u64)>,
    done: Drained,
}

/// Told when a worker is drained: an AUTH of this hold that a shard refused, in
/// its words.
pub type Drained = oneshot::Sender<Result<(), String>>;

impl PoolCore {
    /// Takes a new routing and lets the clients go on that it lets through.
    /// The report covers the time the gate was shut until now.
    pub fn route(&mut self, routing: Arc<Routing>) -> HoldReport {
        let layout_changed = !Arc::ptr_eq(&self.routing.layout, &routing.layout);
        let before = std::mem::replace(&mut self.routing, routing);
        if layout_changed {
            let is_switch = before.epoch != self.routing.epoch;
            self.settle_undrained();
            if is_switch {
                self.wake_misplaced();
            }
            self.fill_lanes();
            self.follow_ejections(&before.layout);
            self.move_subscriptions();
            if !is_switch {
                self.unblock_misplaced();
            }
        }
        if !matches!(self.routing.gate, Gate::Held(_)) {
            (self.drain, self.hold_time) = (None, None);
            if !layout_changed {
                self.fill_lanes(); // pipes prepared for a layout that did not come
            }
            self.send_refused();
            self.release();
        }
        let report = HoldReport {
            held_requests: self.held_requests,
            held_us_max: self.held_us_max,
        };
        if matches!(self.routing.gate, Gate::Open) {
            (self.held_requests, self.held_us_max) = (0, 0);
        }
        report
    }

    /// A proxy that nobody told in time changes its layout with requests in flight.
    /// Those that the old route refuses go out on the new one; until then nothing of
    /// their clients may overtake them.
    fn settle_undrained(&mut self) {
        let retaining = self
            .pipes
            .iter_mut()
            .filter(|(_, place)| place.pipe.is_retaining());
        let mut undrained: Vec<u32> = Vec::new();
        for (key, place) in retaining {
            place.routed_at = place.pipe.sent();
            if place.pipe.in_flight() > 0 {
                undrained.push(key as u32);
            }
        }
        for key in undrained {
            self.settle_clients_of(key);
        }
    }

    /// Makes the connections that a coming layout needs.
    pub fn prepare(&mut self, routing: &Routing) {
        self.prepare_for(&routing.layout);
    }

    /// Shuts the gate; `done` is told when everything sent before is answered.
    /// Dropping its receiver, or another routing, ends the waiting.
    pub fn hold(&mut self, routing: Arc<Routing>, done: Drained) {
        if planted::is_on(Planted::HoldIgnored) {
            let _ = done.send(Ok(()));
            return;
        }
        self.routing = routing;
        self.hold_time = Some(HoldTime {
            since_us: self.now_us,
            is_over: false,
        });
        self.chores.clock = true;
        self.unblock_moving();
        let marks = self
            .pipes
            .iter()
            .filter(|(_, place)| place.pipe.in_flight() > 0 && self.must_drain(place.role))
            .map(|(key, place)| (key as u32, place.pipe.sent()))
            .collect();
        self.drain = Some(Drain { marks, done });
        self.check_drain();
    }

    /// Whether the switch waits for what a pipe owes: not where a client waits for
    /// keys that stay, and not for messages.
    fn must_drain(&self, role: Role) -> bool {
        match role {
            Role::Waiting { client } => self.waits_for_moving(client),
            Role::Hub => false,
            _ => true,
        }
    }

    pub(super) fn check_drain(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let pipes = &self.pipes;
        drain.marks.retain(|&(key, mark)| {
            pipes
                .get(key as usize)
                .is_some_and(|place| place.pipe.answered() < mark)
        });
        if drain.marks.is_empty()
            && let Some(drain) = self.drain.take()
        {
            // A caller that stopped waiting has released the gate, or will.
            let _ = drain.done.send(self.logins.refusal());
        }
    }

    /// Time passes: a hold that takes too long answers what it holds.
    pub(super) fn look_at_hold_time(&mut self) {
        let held_max_us = self.config.limits.held_max.as_micros() as u64;
        if let Some(time) = &mut self.hold_time
            && !time.is_over
            && self.now_us.saturating_sub(time.since_us) >= held_max_us
        {
            time.is_over = true;
            warn!(
                pool = %self.config.name,
                requests = self.held_requests,
                "the switch takes longer than limits.max_hold: requests for moving keys get \
                 -TRYAGAIN until it is decided"
            );
            self.release();
        }
    }

    /// Whether a time runs after which nothing is held any more.
    pub(super) fn is_hold_timed(&self) -> bool {
        self.hold_time.is_some_and(|time| !time.is_over)
    }

    /// Whether one more request may be held.
    pub(super) fn may_hold(&self) -> bool {
        self.held_bytes < HELD_BYTES_MAX
            && self.held_requests < HELD_REQUESTS_MAX as u64
            && self.hold_time.is_none_or(|time| !time.is_over)
    }

    /// Lets clients go on that wait for another reason than a held gate.
    pub(super) fn release_if_open(&mut self) {
        if !matches!(self.routing.gate, Gate::Held(_)) {
            self.release();
        }
    }

    fn release(&mut self) {
        let held: Vec<(u32, u64)> = self
            .clients
            .iter()
            .filter_map(|(key, client)| match client.pause {
                Some(Pause::Held { since_us }) => Some((key as u32, since_us)),
                _ => None,
            })
            .collect();
        self.held_bytes = 0;
        for (key, since_us) in held {
            self.held_us_max = self.held_us_max.max(self.now_us.saturating_sub(since_us));
            self.go_on(key);
            if self.may_read(key) {
                self.chores.read_clients.push(key);
            }
        }
    }
}
