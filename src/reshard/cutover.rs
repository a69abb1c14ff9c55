//! The switch of every proxy's route, as a machine without I/O or clock.
//!
//! ```text
//! Recording -> Staging -> Holding -> Marking -> Arming -> Deciding -> Committing -> Committed
//!  (intent)    `-- failure, refusal, deadline, give up --'    |       (forward only)
//!     |                        v                              v
//!     |                    Aborting ----------------------> Aborted
//!     `---- intent not recorded: nothing was asked ----------^
//! ```
//! - *Recording*, *Deciding*: the journal takes the intent, then the decision.
//! - *Staging*: each proxy writes the new layout down, clients feel nothing.
//! - *Holding*: each proxy parks moving keys and drains what is in flight.
//! - *Marking*: a marker goes through every source; all before it is applied.
//! - *Arming*: no proxy returns to the old route by itself any more.
//!
//! The way back of each step is the abort; the deadline counts from the first
//! hold and its action is the abort too. From *Committing* on there is no way
//! back: commits are repeated until every proxy has confirmed.
//!
//! Invariants: a commit is sent only when every proxy is armed, the marker is
//! applied ([`MarkerApplied`]) and the decision is recorded; once one was sent
//! no abort is; hence no two proxies ever release on different routes.
//! `cutover/tests.rs` walks every order of events to show it.

mod exchange;

use std::collections::{BTreeMap, BTreeSet};

use super::moving::MarkerApplied;

pub use exchange::{AbortReason, Action, Call, CallFailure, Entry, Event, Pause, ProxyIndex};

/// The switch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cutover {
    /// Waits for the intent to be on disk.
    Recording(Proxies),
    /// Waits for every proxy's stage.
    Staging(Waiting),
    /// Waits for every proxy's hold.
    Holding(Waiting),
    /// Waits for the marker.
    Marking(Proxies),
    /// Waits for every proxy's arm.
    Arming(Waiting),
    /// Waits for the decision to be written.
    Deciding(Proxies),
    /// Waits for every proxy's commit; forward only.
    Committing(Committing),
    /// Every proxy is on the new route.
    Committed(BTreeMap<ProxyIndex, Pause>),
    /// Waits for every proxy's abort.
    Aborting(Aborting),
    /// Every proxy is on the old route.
    Aborted(AbortReason),
}

/// How many proxies there are; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proxies(pub usize);

/// A step that every proxy has to confirm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waiting {
    proxies: Proxies,
    call: Call,
    unanswered: BTreeSet<ProxyIndex>,
}

/// Commits that are on their way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Committing {
    attempts: BTreeMap<ProxyIndex, u32>,
    done: BTreeMap<ProxyIndex, Pause>,
}

/// Aborts that are on their way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Aborting {
    why: AbortReason,
    attempts: BTreeMap<ProxyIndex, u32>,
}

/// An event that cannot happen in the state it met: a fault of the driver.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("while {state} the switch cannot take the event {event}")]
pub struct Misstep {
    state: &'static str,
    event: String,
}

impl Cutover {
    /// A new switch of `proxies`, beginning with its intent.
    pub fn begin(proxies: Proxies, out: &mut Vec<Action>) -> Self {
        out.push(Action::Record(Entry::Intent));
        Self::Recording(proxies)
    }

    /// The rest of a switch whose process died after the decision.
    pub fn recover_forward(proxies: Proxies, out: &mut Vec<Action>) -> Self {
        Self::commit_all(proxies, out)
    }

    /// The way back of a switch whose process died before the decision.
    pub fn recover_back(proxies: Proxies, why: AbortReason, out: &mut Vec<Action>) -> Self {
        Self::abort_all(proxies, why, out)
    }

    /// Takes one event; what is to be done is appended to `out`.
    ///
    /// # Errors
    /// [`Misstep`] when the event cannot happen in this state.
    pub fn step(self, event: Event, out: &mut Vec<Action>) -> Result<Self, Misstep> {
        match (self, event) {
            (Self::Recording(proxies), Event::Recorded) => {
                Ok(Self::Staging(Waiting::for_all(proxies, Call::Stage, out)))
            }
            (Self::Recording(_), Event::NotRecorded(why)) => {
                Ok(Self::Aborted(AbortReason::Journal(why)))
            }
            (Self::Recording(_), Event::MoverFailed(why)) => {
                Ok(Self::Aborted(AbortReason::Mover(why)))
            }
            (Self::Recording(_), Event::GiveUp(why)) => {
                Ok(Self::Aborted(AbortReason::GivenUp(why)))
            }
            (state @ (Self::Staging(_) | Self::Holding(_) | Self::Arming(_)), event) => {
                state.step_waiting(event, out)
            }
            (Self::Marking(proxies), Event::Applied(proof)) => {
                Ok(Self::arm_all(proxies, &proof, out))
            }
            (Self::Marking(proxies), event) => match abort_reason(event, "the marker") {
                Ok(why) => Ok(Self::abort_all(proxies, why, out)),
                Err(event) => Err(misstep("marking", &event)),
            },
            (Self::Deciding(proxies), Event::Recorded) => Ok(Self::commit_all(proxies, out)),
            (Self::Deciding(proxies), Event::NotRecorded(why)) => {
                Ok(Self::abort_all(proxies, AbortReason::Journal(why), out))
            }
            // The decision may already be written: it is too late to go back.
            (
                state @ Self::Deciding(_),
                Event::Deadline | Event::GiveUp(_) | Event::MoverFailed(_),
            ) => Ok(state),
            (Self::Committing(committing), event) => committing.step(event, out),
            (Self::Aborting(aborting), event) => aborting.step(event, out),
            (state, event) => Err(misstep(state.name(), &event)),
        }
    }

    fn step_waiting(self, event: Event, out: &mut Vec<Action>) -> Result<Self, Misstep> {
        let (Self::Staging(mut waiting) | Self::Holding(mut waiting) | Self::Arming(mut waiting)) =
            self
        else {
            return Err(misstep(self.name(), &event));
        };
        match event {
            Event::Answered {
                proxy,
                call,
                outcome: Ok(_),
            } if call == waiting.call && waiting.unanswered.remove(&proxy) => {
                if waiting.unanswered.is_empty() {
                    Ok(waiting.next(out))
                } else {
                    Ok(waiting.into_state())
                }
            }
            Event::Answered {
                proxy,
                call,
                outcome: Err(failure),
            } if call == waiting.call && waiting.unanswered.contains(&proxy) => {
                let why = AbortReason::Proxy {
                    proxy,
                    call,
                    failure,
                };
                Ok(Self::abort_all(waiting.proxies, why, out))
            }
            event => match abort_reason(event, waiting.call.name()) {
                Ok(AbortReason::Deadline { .. }) if waiting.call == Call::Stage => {
                    Err(misstep("staging", &Event::Deadline))
                }
                Ok(why) => Ok(Self::abort_all(waiting.proxies, why, out)),
                Err(event) => Err(misstep(waiting.into_state().name(), &event)),
            },
        }
    }

    /// The proof is demanded here: nothing is armed, hence nothing committed, without it.
    fn arm_all(proxies: Proxies, _proof: &MarkerApplied, out: &mut Vec<Action>) -> Self {
        Self::Arming(Waiting::for_all(proxies, Call::Arm, out))
    }

    fn commit_all(proxies: Proxies, out: &mut Vec<Action>) -> Self {
        out.extend(proxies.each().map(|proxy| first_call(proxy, Call::Commit)));
        Self::Committing(Committing {
            attempts: proxies.each().map(|proxy| (proxy, 0)).collect(),
            done: BTreeMap::new(),
        })
    }

    fn abort_all(proxies: Proxies, why: AbortReason, out: &mut Vec<Action>) -> Self {
        out.extend(proxies.each().map(|proxy| first_call(proxy, Call::Abort)));
        Self::Aborting(Aborting {
            why,
            attempts: proxies.each().map(|proxy| (proxy, 0)).collect(),
        })
    }

    /// The state in a word, for status lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Recording(_) => "recording",
            Self::Staging(_) => "staging",
            Self::Holding(_) => "holding",
            Self::Marking(_) => "marking",
            Self::Arming(_) => "arming",
            Self::Deciding(_) => "deciding",
            Self::Committing(_) => "committing",
            Self::Committed(_) => "committed",
            Self::Aborting(_) => "aborting",
            Self::Aborted(_) => "aborted",
        }
    }

    /// Whether commits may have been sent, so that only the way forward is left.
    pub fn is_past_return(&self) -> bool {
        matches!(
            self,
            Self::Deciding(_) | Self::Committing(_) | Self::Committed(_)
        )
    }
}

impl Proxies {
    fn each(self) -> impl Iterator<Item = ProxyIndex> {
        (0..self.0).map(ProxyIndex)
    }
}

impl Waiting {
    fn for_all(proxies: Proxies, call: Call, out: &mut Vec<Action>) -> Self {
        if call == Call::Hold {
            out.push(Action::StartDeadline);
        }
        out.extend(proxies.each().map(|proxy| first_call(proxy, call)));
        Self {
            proxies,
            call,
            unanswered: proxies.each().collect(),
        }
    }

    fn into_state(self) -> Cutover {
        match self.call {
            Call::Hold => Cutover::Holding(self),
            Call::Arm => Cutover::Arming(self),
            Call::Stage | Call::Commit | Call::Abort => Cutover::Staging(self),
        }
    }

    fn next(self, out: &mut Vec<Action>) -> Cutover {
        match self.call {
            Call::Hold => {
                out.push(Action::PublishMarker);
                Cutover::Marking(self.proxies)
            }
            Call::Arm => {
                out.push(Action::Record(Entry::Decision));
                Cutover::Deciding(self.proxies)
            }
            Call::Stage | Call::Commit | Call::Abort => {
                Cutover::Holding(Self::for_all(self.proxies, Call::Hold, out))
            }
        }
    }
}

impl Committing {
    fn step(mut self, event: Event, out: &mut Vec<Action>) -> Result<Cutover, Misstep> {
        match event {
            Event::Answered {
                proxy,
                call: Call::Commit,
                outcome,
            } if self.attempts.contains_key(&proxy) => {
                match outcome {
                    Ok(pause) => {
                        self.attempts.remove(&proxy);
                        self.done.insert(proxy, pause);
                    }
                    Err(_) => repeat(&mut self.attempts, proxy, Call::Commit, out),
                }
                if self.attempts.is_empty() {
                    Ok(Cutover::Committed(self.done))
                } else {
                    Ok(Cutover::Committing(self))
                }
            }
            // Too late to go back.
            Event::Deadline | Event::GiveUp(_) | Event::MoverFailed(_) => {
                Ok(Cutover::Committing(self))
            }
            event => Err(misstep("committing", &event)),
        }
    }
}

impl Aborting {
    fn step(mut self, event: Event, out: &mut Vec<Action>) -> Result<Cutover, Misstep> {
        match event {
            Event::Answered {
                proxy,
                call: Call::Abort,
                outcome,
            } if self.attempts.contains_key(&proxy) => {
                match outcome {
                    // A refusal means that the proxy holds nothing of this try.
                    Ok(_) | Err(CallFailure::Refused(_)) => {
                        self.attempts.remove(&proxy);
                    }
                    Err(CallFailure::Lost(_)) => {
                        repeat(&mut self.attempts, proxy, Call::Abort, out);
                    }
                }
                if self.attempts.is_empty() {
                    Ok(Cutover::Aborted(self.why))
                } else {
                    Ok(Cutover::Aborting(self))
                }
            }
            // Answers to what was asked before the abort may still arrive.
            Event::Answered {
                call: Call::Stage | Call::Hold | Call::Arm,
                ..
            }
            | Event::Applied(_)
            | Event::MarkerFailed(_)
            | Event::MoverFailed(_)
            | Event::Deadline
            | Event::GiveUp(_) => Ok(Cutover::Aborting(self)),
            event => Err(misstep("aborting", &event)),
        }
    }

    /// Proxies that have not confirmed their release yet.
    pub fn unreleased(&self) -> impl Iterator<Item = ProxyIndex> {
        self.attempts.keys().copied()
    }
}

impl Committing {
    /// Proxies that have not confirmed their commit yet.
    pub fn uncommitted(&self) -> impl Iterator<Item = ProxyIndex> {
        self.attempts.keys().copied()
    }
}

fn first_call(proxy: ProxyIndex, call: Call) -> Action {
    Action::Call {
        proxy,
        call,
        attempt: 0,
    }
}

fn repeat(
    attempts: &mut BTreeMap<ProxyIndex, u32>,
    proxy: ProxyIndex,
    call: Call,
    out: &mut Vec<Action>,
) {
    if let Some(attempt) = attempts.get_mut(&proxy) {
        *attempt = attempt.saturating_add(1);
        out.push(Action::Call {
            proxy,
            call,
            attempt: *attempt,
        });
    }
}

/// The reason an event gives for going back, or the event if it gives none.
fn abort_reason(event: Event, during: &'static str) -> Result<AbortReason, Event> {
    match event {
        Event::Deadline => Ok(AbortReason::Deadline { during }),
        Event::GiveUp(why) => Ok(AbortReason::GivenUp(why)),
        Event::MoverFailed(why) => Ok(AbortReason::Mover(why)),
        Event::MarkerFailed(why) if during == "the marker" => Ok(AbortReason::Marker(why)),
        event => Err(event),
    }
}

fn misstep(state: &'static str, event: &Event) -> Misstep {
    let event = match event {
        Event::Answered { proxy, call, .. } => {
            format!("answer of proxy {} to {}", proxy.0, call.name())
        }
        Event::Recorded => "recorded".to_owned(),
        Event::NotRecorded(_) => "not recorded".to_owned(),
        Event::Applied(_) => "marker applied".to_owned(),
        Event::MarkerFailed(_) => "marker failed".to_owned(),
        Event::MoverFailed(_) => "mover failed".to_owned(),
        Event::Deadline => "deadline".to_owned(),
        Event::GiveUp(_) => "give up".to_owned(),
    };
    Misstep { state, event }
}

#[cfg(test)]
mod tests;
