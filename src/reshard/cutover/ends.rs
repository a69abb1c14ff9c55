//! The two ends of a switch: commits, or aborts, repeated until they are confirmed.
//!
//! With a fence of logins, late proxies are not waited for, and the others not
//! for ever: whoever is outstanding at the end is reminded by the driver.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AbortReason, Action, Call, CallFailure, Committed, Crew, Cutover, Event, Misstep, Pause,
    ProxyIndex, Step, first_call, misstep,
};

/// Commits that are on their way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Committing {
    crew: Crew,
    attempts: BTreeMap<ProxyIndex, u32>,
    done: BTreeMap<ProxyIndex, Pause>,
}

/// Aborts that are on their way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Aborting {
    crew: Crew,
    why: AbortReason,
    attempts: BTreeMap<ProxyIndex, u32>,
}

impl Committing {
    pub(super) fn all(crew: Crew, out: &mut Vec<Action>) -> Cutover {
        let attempts = ask_all(&crew, Call::Commit, Step::Committing, out);
        let done = BTreeMap::new();
        Self {
            crew,
            attempts,
            done,
        }
        .go_on()
    }

    pub(super) fn step(mut self, event: Event, out: &mut Vec<Action>) -> Result<Cutover, Misstep> {
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
                Ok(self.go_on())
            }
            event if self.crew.is_stale(&event) => Ok(Cutover::Committing(self)),
            Event::PatienceEnded if self.crew.lets_late() => Ok(self.ended()),
            // Too late to go back.
            Event::Deadline | Event::GiveUp(_) | Event::MoverFailed(_) => {
                Ok(Cutover::Committing(self))
            }
            event => Err(misstep("committing", &event)),
        }
    }

    fn go_on(self) -> Cutover {
        if is_awaited(&self.crew, &self.attempts) {
            Cutover::Committing(self)
        } else {
            self.ended()
        }
    }

    fn ended(self) -> Cutover {
        Cutover::Committed(Committed {
            done: self.done,
            outstanding: self.attempts.into_keys().collect(),
        })
    }

    /// Proxies that have not confirmed their commit yet.
    pub fn uncommitted(&self) -> impl Iterator<Item = ProxyIndex> {
        self.attempts.keys().copied()
    }
}

impl Aborting {
    pub(super) fn all(crew: Crew, why: AbortReason, out: &mut Vec<Action>) -> Cutover {
        let attempts = ask_all(&crew, Call::Abort, Step::Aborting, out);
        Self {
            crew,
            why,
            attempts,
        }
        .go_on()
    }

    pub(super) fn step(mut self, event: Event, out: &mut Vec<Action>) -> Result<Cutover, Misstep> {
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
                Ok(self.go_on())
            }
            Event::PatienceEnded if self.crew.lets_late() => Ok(self.ended()),
            // Answers to what was asked before the abort may still arrive.
            Event::Answered {
                call: Call::Stage | Call::Hold | Call::Arm,
                ..
            }
            | Event::Applied(_)
            | Event::Fenced
            | Event::FenceFailed(_)
            | Event::Unfenced
            | Event::MarkerFailed(_)
            | Event::MoverFailed(_)
            | Event::Deadline
            | Event::GiveUp(_) => Ok(Cutover::Aborting(self)),
            event => Err(misstep("aborting", &event)),
        }
    }

    fn go_on(self) -> Cutover {
        if is_awaited(&self.crew, &self.attempts) {
            Cutover::Aborting(self)
        } else {
            self.ended()
        }
    }

    fn ended(self) -> Cutover {
        Cutover::Aborted {
            why: self.why,
            outstanding: self.attempts.into_keys().collect::<BTreeSet<_>>(),
        }
    }

    /// Proxies that have not confirmed their release yet.
    pub fn unreleased(&self) -> impl Iterator<Item = ProxyIndex> {
        self.attempts.keys().copied()
    }
}

/// Late ones are asked too: they may be back by now.
fn ask_all(
    crew: &Crew,
    call: Call,
    step: Step,
    out: &mut Vec<Action>,
) -> BTreeMap<ProxyIndex, u32> {
    out.extend(crew.proxies.each().map(|proxy| first_call(proxy, call)));
    if crew.lets_late() {
        out.push(Action::StartPatience(step));
    }
    crew.proxies.each().map(|proxy| (proxy, 0)).collect()
}

/// With nobody on time, late ones are given the step's patience all the same.
fn is_awaited(crew: &Crew, attempts: &BTreeMap<ProxyIndex, u32>) -> bool {
    let mut on_time = crew.on_time().peekable();
    if on_time.peek().is_none() {
        return !attempts.is_empty();
    }
    on_time.any(|proxy| attempts.contains_key(&proxy))
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
