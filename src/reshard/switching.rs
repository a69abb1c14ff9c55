//! Drives the switch: performs what `cutover.rs` asks for and tells it what came of it.
//!
//! The decision is written but not synced: a sync would cost milliseconds in
//! which clients wait. It survives the end of this process, which is the crash
//! after which a commit could still be on its way. After a power cut nothing of
//! ours is on its way any more, and what the proxies and the route record say is
//! enough (`recovery.rs`).
//!
//! From the marker on the mover applies nothing more, until an abort: a key that
//! expires at its old owner after the switch must not be deleted at its new one.
//!
//! When commits go out it lets go of the sources.
//!
//! While no server is fenced an abort costs clients next to nothing. So a hold that
//! has taken half of what `--hold` allows is taken back: the other half is for what
//! comes after it. With a fence of logins who does not drain is late instead.
//!
//! | step | its way back |
//! |---|---|
//! | stage, hold, arm | the abort; a proxy's own lease ends a hold as well |
//! | fence, marker | `uncut`, then the fence is lowered, then the abort |
//! | decision, route record, commit | none: repeated until it is through |
//!
//! Invariants: once the machine is past its return nothing here gives up; a stop
//! is only offered to it as a wish. Before a fence is lowered nobody wants it
//! any more, so that no post raises it again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::clock::now_ms;
use super::cutover::{Action, Cutover, Entry, Event, Misstep, Pause, ProxyIndex, Step};
use super::fence::FenceLevel;
use super::fencing::Fences;
use super::history::{JobLog, RecordError, Safety};
use super::mover::Position;
use super::moving::Moving;
use super::proxies::{Fleet, SwitchTerms};
use super::record::{Direction, ProxyPause, Record, StreamPosition};
use super::status::JobStatus;
use super::stop::Stop;
use crate::planted::{self, Planted};
use waits::{Cut, Waits};

mod waits;

/// How a switch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchEnd {
    /// Every proxy is on the new route, but for late ones, which are on none.
    Committed {
        /// What the clients of the others felt.
        proxies: Vec<ProxyPause>,
        /// Who has not confirmed.
        late: Vec<ProxyIndex>,
    },
    /// Every proxy is on the old route.
    Aborted {
        /// What made it impossible.
        why: String,
        /// Who has not confirmed.
        late: Vec<ProxyIndex>,
    },
    /// Some proxies have not confirmed within the time that was given.
    Unfinished {
        /// Which way it goes, what each of these proxies said last.
        waiting: String,
    },
}

/// Why a switch could not be driven to its end.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The journal failed; every proxy was released on the old route first.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A fault of this program.
    #[error(transparent)]
    Misstep(#[from] Misstep),
}

/// What a switch works with.
#[derive(Debug)]
pub struct Switching<'a> {
    /// The proxies.
    pub fleet: &'a mut Fleet,
    /// The servers.
    pub fences: &'a Fences,
    /// What the servers are told once it is decided.
    pub route: &'a str,
    /// What every call says.
    pub terms: &'a SwitchTerms,
    /// The job's journal.
    pub log: &'a mut JobLog,
    /// Asked to stop; only heeded while there is a way back.
    pub stop: &'a mut Stop,
    /// Where to say what is waited for.
    pub status: &'a watch::Sender<JobStatus>,
    /// Longest time from the first hold to the first commit.
    pub hold: Duration,
    /// How often sources had been copied anew when the clean verify was made.
    pub restarts: u64,
    /// Longest time in all; `None`: until every proxy has answered.
    pub patience: Option<Duration>,
    /// To the new layout, or back.
    pub direction: Direction,
    /// What the sources of this switch are fenced with.
    pub level: FenceLevel,
}

/// Tells where the streams of the coming owners are, for the way back.
pub type Taking<'a> = Pin<Box<dyn Future<Output = Vec<Position>> + Send + 'a>>;

impl Switching<'_> {
    /// Drives `machine`, which asked for `actions`, to its end. Positions are
    /// taken once the marker is applied, before any commit, and go into the journal
    /// with the decision.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn drive<'m, M: Moving>(
        mut self,
        mut machine: Cutover,
        mut actions: Vec<Action>,
        moving: Option<&'m M>,
        mut taking: Option<Taking<'m>>,
    ) -> Result<SwitchEnd, SwitchError> {
        let mut waits = Waits::new(self.patience);
        waits.watch_for_failure(moving);
        let mut journal_failure = None;
        let mut last_failures = vec![String::new(); self.fleet.len()];
        let mut in_step_since = Instant::now();
        loop {
            for action in actions.drain(..) {
                self.perform(
                    &action,
                    &mut waits,
                    (moving, &mut taking),
                    &mut journal_failure,
                );
            }
            waits.step_is(machine.patience());
            if machine.patience() != Some(Step::Holding) {
                waits.soft_limit = None;
            }
            self.say(&machine);
            match &machine {
                Cutover::Committed(end) => return Ok(self.committed(end)),
                Cutover::Aborted { why, outstanding } => {
                    return match journal_failure {
                        Some(failure) => Err(SwitchError::Record(failure)),
                        None => Ok(SwitchEnd::Aborted {
                            why: self.in_words(why),
                            late: outstanding.iter().copied().collect(),
                        }),
                    };
                }
                Cutover::Unfencing { .. } | Cutover::Aborting(_) => {
                    waits.forget_the_way_on();
                    if let Some(moving) = moving {
                        moving.uncut();
                    }
                }
                // A proxy that is down may be waited for as long as it takes.
                Cutover::Committing(_) => {
                    if let Some(moving) = moving {
                        moving.detach();
                    }
                }
                Cutover::Marking(_) if planted::is_on(Planted::UnfencedEarly) => {
                    drop(self.fences.lower());
                }
                // Written keys are at their targets, and there is no way back.
                Cutover::Deciding(_) | Cutover::Publishing(_) => waits.look_no_more(),
                _ => {}
            }
            let Some(event) = waits.next(&mut *self.fleet, &mut *self.stop).await else {
                return Ok(SwitchEnd::Unfinished {
                    waiting: self.unfinished(&machine, &last_failures),
                });
            };
            if let Event::Answered {
                proxy,
                outcome: Err(failure),
                ..
            } = &event
                && let Some(last) = last_failures.get_mut(proxy.0)
            {
                *last = failure.to_string();
            }
            let before = machine.name();
            machine = machine.step(event, &mut actions)?;
            if machine.name() != before {
                let took_us = in_step_since.elapsed().as_micros();
                in_step_since = Instant::now();
                tracing::info!(step = before, took_us, next = machine.name(), "switch");
            }
        }
    }

    fn perform<'w, M: Moving>(
        &mut self,
        action: &Action,
        waits: &mut Waits<'w>,
        (moving, taking): (Option<&'w M>, &mut Option<Taking<'w>>),
        journal_failure: &mut Option<RecordError>,
    ) where
        Self: 'w,
    {
        match *action {
            Action::Record(entry) => {
                let recorded = self.record(entry, &waits.positions, journal_failure);
                waits.ready.push_back(recorded);
            }
            Action::Call {
                proxy,
                call,
                attempt,
            } => self.fleet.ask(proxy, call, attempt, self.terms),
            Action::StartDeadline => {
                let now = Instant::now();
                waits.deadline = Some(now + self.hold);
                waits.soft_limit = (self.level < FenceLevel::Acl).then(|| now + self.hold / 2);
            }
            Action::StartPatience(step) => waits.be_patient(step),
            Action::PublishMarker | Action::RaiseFence
                if planted::is_on(Planted::CommitBeforeMarker)
                    || (planted::is_on(Planted::RollbackWithoutMarker)
                        && !self.direction.is_forward()) =>
            {
                waits.pretend_to_cut(*action == Action::RaiseFence);
            }
            Action::PublishMarker => waits.cut(moving, self.cut(taking), None),
            Action::RaiseFence if planted::is_on(Planted::FenceSkipped) => {
                waits.cut(moving, self.cut(taking), None);
                waits.ready.push_back(Event::Fenced);
            }
            Action::RaiseFence => waits.cut(moving, self.cut(taking), Some(self.fences)),
            Action::LowerFence => {
                // First nobody wants it, then what came behind it is applied, then it goes.
                waits.forget_the_way_on();
                if let Some(moving) = moving {
                    moving.uncut();
                }
                waits.lower(self.fences);
            }
            Action::KeepRoute if planted::is_on(Planted::RouteRecordSkipped) => {
                if self.terms.fenced {
                    waits.ready.push_back(Event::RouteKept);
                }
            }
            Action::KeepRoute => {
                waits.keep_route(self.fences, self.route, self.terms.fenced);
                if planted::is_on(Planted::UnfencedEarly) {
                    drop(self.fences.lower());
                }
            }
        }
    }

    fn cut<'w>(&self, taking: &mut Option<Taking<'w>>) -> Cut<'w> {
        Cut {
            label: format!("switch-{}", self.terms.incarnation),
            restarts: self.restarts,
            taking: taking.take(),
        }
    }

    fn committed(&self, end: &super::cutover::Committed) -> SwitchEnd {
        let pauses = end.done.iter();
        SwitchEnd::Committed {
            proxies: pauses
                .map(|(proxy, pause)| self.pause(*proxy, *pause))
                .collect(),
            late: end.outstanding.iter().copied().collect(),
        }
    }

    fn record(
        &mut self,
        entry: Entry,
        positions: &[Position],
        failure: &mut Option<RecordError>,
    ) -> Event {
        let at_ms = now_ms();
        let recorded = match entry {
            Entry::Intent => {
                let incarnation = self.terms.incarnation;
                let intent = Record::SwitchIntended {
                    at_ms,
                    incarnation,
                    direction: self.direction,
                    fence: self.level,
                    settings: match self.level {
                        FenceLevel::MinReplicas => self.fences.settings(),
                        FenceLevel::Acl | FenceLevel::ProxiesOnly => Vec::new(),
                    },
                };
                self.log.record(intent, Safety::Synced)
            }
            Entry::Decision if planted::is_on(Planted::DecisionNotRecorded) => Ok(()),
            Entry::Decision => {
                let decision = Record::SwitchDecided {
                    at_ms,
                    positions: positions.iter().map(StreamPosition::of).collect(),
                };
                self.log.record(decision, Safety::Written)
            }
        };
        match recorded {
            Ok(()) => Event::Recorded,
            Err(error) => {
                let why = error.to_string();
                *failure = Some(error);
                Event::NotRecorded(why)
            }
        }
    }

    fn say(&self, machine: &Cutover) {
        let waiting: Vec<String> = self.unconfirmed(machine);
        self.status.send_modify(|status| {
            status.state = self.log.state().name().to_owned();
            status.doing = if waiting.is_empty() {
                format!("switch: {}", machine.name())
            } else {
                format!(
                    "switch: {}, waiting for {}",
                    machine.name(),
                    waiting.join(", ")
                )
            };
        });
    }

    fn unconfirmed(&self, machine: &Cutover) -> Vec<String> {
        match machine {
            Cutover::Staging(state) | Cutover::Holding(state) | Cutover::Arming(state) => {
                state.unanswered().map(|at| self.fleet.name(at)).collect()
            }
            Cutover::Fencing(cutting) | Cutover::Marking(cutting) => {
                cutting.unarmed().map(|at| self.fleet.name(at)).collect()
            }
            Cutover::Committing(state) => {
                state.uncommitted().map(|at| self.fleet.name(at)).collect()
            }
            Cutover::Aborting(state) => state.unreleased().map(|at| self.fleet.name(at)).collect(),
            _ => Vec::new(),
        }
    }

    fn unfinished(&self, machine: &Cutover, last_failures: &[String]) -> String {
        let failures: Vec<&str> = last_failures
            .iter()
            .map(String::as_str)
            .filter(|text| !text.is_empty())
            .collect();
        format!(
            "{} is not confirmed by {}{}{}",
            machine.name(),
            self.unconfirmed(machine).join(", "),
            if failures.is_empty() { "" } else { ": " },
            failures.join("; ")
        )
    }

    fn pause(&self, proxy: ProxyIndex, pause: Pause) -> ProxyPause {
        ProxyPause {
            proxy: self.fleet.name(proxy),
            held_requests: pause.held_requests,
            held_us_max: pause.held_us_max,
        }
    }

    /// An abort's reason; a proxy's failure already names the proxy.
    fn in_words(&self, why: &super::cutover::AbortReason) -> String {
        match why {
            super::cutover::AbortReason::Proxy { failure, .. } => failure.to_string(),
            other => other.to_string(),
        }
    }
}
