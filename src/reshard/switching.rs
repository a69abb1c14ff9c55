//! Drives the switch: performs what `cutover.rs` asks for and tells it what came of it.
//!
//! The decision is written but not synced: a sync would cost milliseconds in
//! which clients wait. It survives the end of this process, which is the crash
//! after which a commit could still be on its way. After a power cut nothing of
//! ours is on its way any more, and what the proxies say is enough (`recovery.rs`).
//!
//! From the marker on the mover applies nothing more, until an abort: a key that
//! expires at its old owner after the switch must not be deleted at its new one.
//!
//! When commits go out it lets go of the sources.
//!
//! Invariant: once the machine is past its return nothing here gives up; a stop
//! is only offered to it as a wish.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::clock::now_ms;
use super::cutover::{Action, Cutover, Entry, Event, Misstep, Pause, ProxyIndex};
use super::history::{JobLog, RecordError, Safety};
use super::mover::{MarkerReport, MoveError, Position};
use super::moving::{MarkerApplied, Moving};
use super::proxies::{Fleet, SwitchTerms};
use super::record::{Direction, ProxyPause, Record, StreamPosition};
use super::status::JobStatus;
use super::stop::Stop;
use crate::planted::{self, Planted};

/// How a switch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchEnd {
    /// Every proxy is on the new route.
    Committed(Vec<ProxyPause>),
    /// Every proxy is on the old route.
    Aborted {
        /// What made it impossible.
        why: String,
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
        waits.failure = moving.map(failure);
        let mut journal_failure = None;
        let mut last_failures = vec![String::new(); self.fleet.len()];
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Record(entry) => {
                        waits.ready.push_back(self.record(
                            entry,
                            &waits.positions,
                            &mut journal_failure,
                        ));
                    }
                    Action::Call {
                        proxy,
                        call,
                        attempt,
                    } => self.fleet.ask(proxy, call, attempt, self.terms),
                    Action::StartDeadline => waits.deadline = Some(Instant::now() + self.hold),
                    Action::PublishMarker if planted::is_on(Planted::CommitBeforeMarker) => {
                        let nothing = MarkerReport {
                            elapsed: Duration::ZERO,
                            sources: Vec::new(),
                        };
                        let applied = Event::Applied(MarkerApplied::of(&nothing));
                        waits.ready.push_back(applied);
                    }
                    Action::PublishMarker => {
                        let taking = taking.take();
                        waits.marker =
                            moving.map(|moving| marker(moving, self.terms, self.restarts, taking));
                    }
                }
            }
            self.say(&machine);
            match &machine {
                Cutover::Committed(pauses) => {
                    let pauses = pauses
                        .iter()
                        .map(|(proxy, pause)| self.pause(*proxy, *pause));
                    return Ok(SwitchEnd::Committed(pauses.collect()));
                }
                Cutover::Aborted(why) => {
                    return match journal_failure {
                        Some(failure) => Err(SwitchError::Record(failure)),
                        None => Ok(SwitchEnd::Aborted {
                            why: self.in_words(why),
                        }),
                    };
                }
                Cutover::Aborting(_) => {
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
                // Written keys are at their targets, and there is no way back.
                Cutover::Deciding(_) => waits.failure = None,
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
            machine = machine.step(event, &mut actions)?;
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

type Wait<'m, T> = Pin<Box<dyn Future<Output = T> + Send + 'm>>;
type MarkerWait<'m> = Wait<'m, Result<(MarkerReport, Vec<Position>), MoveError>>;
type FailureWait<'m> = Wait<'m, MoveError>;

fn marker<'m, M: Moving>(
    moving: &'m M,
    terms: &SwitchTerms,
    restarts: u64,
    taking: Option<Taking<'m>>,
) -> MarkerWait<'m> {
    let label = format!("switch-{}", terms.incarnation);
    Box::pin(async move {
        let report = moving.cut(&label, restarts).await?;
        // Not later: what clients write after the commit has to come behind them.
        let positions = match taking {
            Some(taking) => taking.await,
            None => Vec::new(),
        };
        Ok((report, positions))
    })
}

fn failure<'m, M: Moving>(moving: &'m M) -> FailureWait<'m> {
    Box::pin(moving.failed())
}

/// Everything a switch may be waiting for.
struct Waits<'m> {
    ready: VecDeque<Event>,
    marker: Option<MarkerWait<'m>>,
    /// Taken when the marker was applied.
    positions: Vec<Position>,
    /// Looked at until the decision.
    failure: Option<FailureWait<'m>>,
    deadline: Option<Instant>,
    patience_ends: Option<Instant>,
    stop_was_told: bool,
}

impl Waits<'_> {
    fn new(patience: Option<Duration>) -> Self {
        Self {
            ready: VecDeque::new(),
            marker: None,
            positions: Vec::new(),
            failure: None,
            deadline: None,
            patience_ends: patience.map(|patience| Instant::now() + patience),
            stop_was_told: false,
        }
    }

    fn forget_the_way_on(&mut self) {
        self.marker = None;
        self.failure = None;
        self.deadline = None;
    }

    /// The next event; `None` when patience ended.
    async fn next(&mut self, fleet: &mut Fleet, stop: &mut Stop) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        tokio::select! {
            biased;
            // Before any answer: the last arm leads to the decision.
            error = until_done(&mut self.failure) => {
                self.failure = None;
                Some(Event::MoverFailed(error.to_string()))
            }
            event = fleet.next() => Some(event),
            report = until_done(&mut self.marker) => {
                self.marker = None;
                Some(match report {
                    Ok((report, positions)) => {
                        self.positions = positions;
                        Event::Applied(MarkerApplied::of(&report))
                    }
                    Err(error) => Event::MarkerFailed(error.to_string()),
                })
            }
            () = until(self.deadline) => {
                self.deadline = None;
                Some(Event::Deadline)
            }
            () = stop.requested(), if !self.stop_was_told => {
                self.stop_was_told = true;
                Some(Event::GiveUp("the job was told to stop".to_owned()))
            }
            () = until(self.patience_ends) => None,
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
