//! Everything a switch may be waiting for at once, and how long.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Event, Fences, Fleet, Moving, Position, Stop, Taking, VecDeque};
use crate::reshard::bypass::{BEHIND_THE_FENCE_S, Bypass};
use crate::reshard::cutover::Step;
use crate::reshard::fencing::PostError;
use crate::reshard::mover::{MarkerReport, MoveError};
use crate::reshard::moving::MarkerApplied;

/// Longest wait for a stage, once late proxies are allowed; nobody is held.
pub const STAGE_PATIENCE: Duration = Duration::from_secs(1);

/// Longest wait for a hold or an arm then: clients of the other proxies wait. A
/// proxy that is away was late at the stage already; one that is only slow is
/// better waited for, since its clients feel it when they are refused.
pub const HOLD_PATIENCE: Duration = Duration::from_millis(150);

/// Longest wait for commits, aborts and a lowered fence then; those who have
/// not answered are reminded from a task of their own.
pub const END_PATIENCE: Duration = Duration::from_secs(1);

fn patience(step: Step) -> Duration {
    match step {
        Step::Staging => STAGE_PATIENCE,
        Step::Holding | Step::Arming => HOLD_PATIENCE,
        Step::Committing | Step::Unfencing | Step::Aborting => END_PATIENCE,
    }
}

type Wait<'m, T> = Pin<Box<dyn Future<Output = T> + Send + 'm>>;

/// What a cut is told.
pub(super) struct Cut<'m> {
    /// Shows in the markers' text.
    pub(super) label: String,
    /// How often sources had been copied anew when the clean verify was made.
    pub(super) restarts: u64,
    /// Where the new shards' streams are when the marker is applied.
    pub(super) taking: Option<Taking<'m>>,
}

/// The marker, with where the new shards' streams were when it was applied.
type MarkerWait<'m> = Wait<'m, Result<(MarkerReport, Vec<Position>), MoveError>>;

/// What may happen next.
pub(super) struct Waits<'m> {
    pub(super) ready: VecDeque<Event>,
    pub(super) deadline: Option<Instant>,
    /// The hold itself is to be over by then.
    pub(super) soft_limit: Option<Instant>,
    /// Taken when the marker was applied.
    pub(super) positions: Vec<Position>,
    marker: Option<MarkerWait<'m>>,
    /// The marker came through before the last word about the fence.
    applied: Option<MarkerApplied>,
    fence: Option<Wait<'m, Result<(), PostError>>>,
    is_fence_wanted: watch::Sender<bool>,
    lowered: Option<Wait<'m, Result<(), PostError>>>,
    route: Option<Wait<'m, ()>>,
    /// Looked at until the decision.
    failure: Option<Wait<'m, MoveError>>,
    /// Where the fence is going up.
    fences: Option<&'m Fences>,
    /// Who wrote behind it; looked at until the decision.
    bypass: Option<Wait<'m, Vec<Bypass>>>,
    step: Option<(Step, Instant)>,
    patience_ends: Option<Instant>,
    stop_was_told: bool,
}

impl<'m> Waits<'m> {
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self {
            ready: VecDeque::new(),
            deadline: None,
            soft_limit: None,
            positions: Vec::new(),
            marker: None,
            applied: None,
            fence: None,
            is_fence_wanted: watch::Sender::new(false),
            lowered: None,
            route: None,
            failure: None,
            fences: None,
            bypass: None,
            step: None,
            patience_ends: patience.map(|patience| Instant::now() + patience),
            stop_was_told: false,
        }
    }

    pub(super) fn watch_for_failure<M: Moving>(&mut self, moving: Option<&'m M>) {
        self.failure = moving.map(|moving| -> Wait<'m, MoveError> { Box::pin(moving.failed()) });
    }

    pub(super) fn look_no_more(&mut self) {
        self.failure = None;
        self.bypass = None;
    }

    /// The patience with a step ends with it.
    pub(super) fn step_is(&mut self, now: Option<Step>) {
        if self.step.is_some_and(|(step, _)| Some(step) != now) {
            self.step = None;
        }
    }

    pub(super) fn be_patient(&mut self, step: Step) {
        self.step = Some((step, Instant::now() + patience(step)));
    }

    /// Sends the marker, with the fence if there is one.
    pub(super) fn cut<M: Moving>(
        &mut self,
        moving: Option<&'m M>,
        cut: Cut<'m>,
        fences: Option<&'m Fences>,
    ) {
        self.fences = fences;
        let heralds = fences.map(|fences| {
            self.is_fence_wanted.send_replace(true);
            let (heralds, raised) = fences.raise(&self.is_fence_wanted.subscribe());
            self.fence = Some(Box::pin(raised));
            heralds
        });
        self.marker = moving.map(|moving| -> Wait<'m, _> {
            Box::pin(async move {
                let report = moving.cut(&cut.label, cut.restarts, heralds).await?;
                // Not later: what clients write after the commit has to come behind them.
                let positions = match cut.taking {
                    Some(taking) => taking.await,
                    None => Vec::new(),
                };
                Ok((report, positions))
            })
        });
    }

    /// The planted mistake of a switch that waits for nothing.
    pub(super) fn pretend_to_cut(&mut self, fenced: bool) {
        if fenced {
            self.ready.push_back(Event::Fenced);
        }
        let nothing = MarkerReport {
            elapsed: Duration::ZERO,
            sources: Vec::new(),
        };
        self.applied = Some(MarkerApplied::of(&nothing));
    }

    pub(super) fn lower(&mut self, fences: &Fences) {
        self.lowered = Some(Box::pin(fences.lower()));
    }

    /// Only with a fence of logins is it waited for; it is written in any case.
    pub(super) fn keep_route(&mut self, fences: &Fences, record: &str, fenced: bool) {
        let kept = fences.keep_route(record);
        if fenced {
            self.route = Some(Box::pin(kept));
        }
    }

    pub(super) fn forget_the_way_on(&mut self) {
        self.is_fence_wanted.send_replace(false);
        self.marker = None;
        self.applied = None;
        self.fence = None;
        self.failure = None;
        self.bypass = None;
        self.deadline = None;
        self.soft_limit = None;
    }

    /// The next event; `None` when patience ended.
    pub(super) async fn next(&mut self, fleet: &mut Fleet, stop: &mut Stop) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.fence.is_none()
                && let Some(proof) = self.applied.take()
            {
                return Some(Event::Applied(proof));
            }
            let step_ends = self.step.map(|(_, ends)| ends);
            tokio::select! {
                biased;
                // Before any answer: the last arm leads to the decision.
                error = until_done(&mut self.failure) => {
                    self.failure = None;
                    return Some(Event::MoverFailed(error.to_string()));
                }
                writers = until_done(&mut self.bypass) => {
                    self.bypass = None;
                    if let Some(writer) = writers.first() {
                        let why = format!("somebody writes round the proxies: {writer}");
                        return Some(Event::GiveUp(why));
                    }
                }
                event = fleet.next() => return Some(event),
                raised = until_done(&mut self.fence) => {
                    self.fence = None;
                    // While the marker is on its way. Nobody waits for it: an answer
                    // that comes too late is asked for again after the switch.
                    self.bypass = self.fences.map(|fences| -> Wait<'m, _> {
                        Box::pin(fences.bypassing(BEHIND_THE_FENCE_S))
                    });
                    return Some(match raised {
                        Ok(()) => Event::Fenced,
                        Err(error) => Event::FenceFailed(error.to_string()),
                    });
                }
                report = until_done(&mut self.marker) => {
                    self.marker = None;
                    match report {
                        Ok((report, positions)) => {
                            self.positions = positions;
                            self.applied = Some(MarkerApplied::of(&report));
                        }
                        Err(error) => return Some(Event::MarkerFailed(error.to_string())),
                    }
                }
                () = until_done(&mut self.route) => {
                    self.route = None;
                    return Some(Event::RouteKept);
                }
                lowered = until_done(&mut self.lowered) => {
                    self.lowered = None;
                    match lowered {
                        Ok(()) => return Some(Event::Unfenced),
                        Err(error) => {
                            tracing::error!(%error, "the fence could not be lowered");
                        }
                    }
                }
                () = until(self.deadline) => {
                    self.deadline = None;
                    return Some(Event::Deadline);
                }
                () = until(self.soft_limit) => {
                    self.soft_limit = None;
                    let why = "a proxy took more than half of --hold to drain, and nothing was fenced yet";
                    return Some(Event::GiveUp(why.to_owned()));
                }
                () = until(step_ends) => {
                    self.step = None;
                    return Some(Event::PatienceEnded);
                }
                () = stop.requested(), if !self.stop_was_told => {
                    self.stop_was_told = true;
                    let why = "the job was told to stop".to_owned();
                    return Some(Event::GiveUp(why));
                }
                () = until(self.patience_ends) => return None,
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn until_done<T>(wait: &mut Option<Wait<'_, T>>) -> T {
    match wait {
        Some(wait) => wait.as_mut().await,
        None => std::future::pending().await,
    }
}
