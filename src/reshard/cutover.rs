//! The switch of every proxy's route, as a machine without I/O or clock.
//!
//! ```text
//! Recording -> Staging -> Holding -> Fencing -> Marking -> Arming -> Deciding -> Publishing -> Committing -> Committed
//!  (intent)    |             |       `-- failure, deadline, give up --'   |            (forward only)
//!     |        |             |                    v                       |
//!     |        |             |                Unfencing <-----------------'
//!     |        v             v                    v
//!     |        '-------------'------------->  Aborting --> Aborted
//!     `---- intent not recorded: nothing was asked ------------^
//! ```
//! - *Recording*, *Deciding*: the journal takes the intent, then the decision.
//! - *Staging*: each proxy writes the new layout down, clients feel nothing.
//! - *Holding*: each proxy parks moving keys and drains what is in flight.
//! - *Fencing*: each source refuses the old epoch's logins; the marker goes in
//!   the same transaction. Left out without a fence, then *Marking* sends it.
//! - *Marking*: all before the marker is applied.
//! - *Arming*: no proxy returns to the old route by itself any more. With a fence
//!   that is asked together with it, as what a proxy returned to would be refused.
//! - *Publishing*: a server keeps the route record (only with [`FenceLevel::Acl`]).
//!
//! The way back of each step is the abort; the deadline counts from the first
//! hold and its action is the abort too. An abort lowers the fence first: proxies
//! hold until then, so that their clients meet no refusal. From *Publishing* on
//! there is no way back: commits are repeated until every proxy has confirmed.
//!
//! Without a fence of logins every proxy must answer each step. With it a proxy
//! that does not is *late*: what it still sends on the old route is refused by
//! the sources, and it takes the new one when it can, from a repeated commit or
//! the route record. Only a proxy that says no to its stage stops the switch.
//!
//! Invariants: a commit is sent only when every proxy is armed or late, no
//! source takes anything from late ones, the marker is applied
//! ([`super::moving::MarkerApplied`]) and the decision is recorded; once one was sent no abort
//! is; hence no two proxies ever release on different routes.
//! `cutover/tests.rs` walks every order of events to show it.

mod cutting;
mod ends;
mod exchange;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use super::fence::FenceLevel;

pub use cutting::Cutting;
pub use ends::{Aborting, Committing};
pub use exchange::{AbortReason, Action, Call, CallFailure, Entry, Event, Pause, ProxyIndex, Step};
pub use waiting::Waiting;

/// The switch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cutover {
    /// Waits for the intent to be on disk.
    Recording(Crew),
    /// Waits for every proxy's stage.
    Staging(Waiting),
    /// Waits for every proxy's hold.
    Holding(Waiting),
    /// Waits for every source's fence.
    Fencing(Cutting),
    /// Waits for the marker.
    Marking(Cutting),
    /// Waits for every proxy's arm.
    Arming(Waiting),
    /// Waits for the decision to be written.
    Deciding(Crew),
    /// Waits for a server to keep the route record; forward only.
    Publishing(Crew),
    /// Waits for every proxy's commit; forward only.
    Committing(Committing),
    /// Every proxy is on the new route, or cannot use the old one.
    Committed(Committed),
    /// Waits for the fence to be lowered.
    Unfencing {
        /// Who is to be released.
        crew: Crew,
        /// What made the switch impossible.
        why: AbortReason,
    },
    /// Waits for every proxy's abort.
    Aborting(Aborting),
    /// Every proxy is on the old route, or nothing keeps it from there.
    Aborted {
        /// What made the switch impossible.
        why: AbortReason,
        /// Proxies that have not confirmed their release.
        outstanding: BTreeSet<ProxyIndex>,
    },
}

/// How many proxies there are; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proxies(pub usize);

/// The proxies, what keeps their writes out, and who of them is late.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Crew {
    proxies: Proxies,
    fence: FenceLevel,
    late: BTreeSet<ProxyIndex>,
}

/// The end of a switch that was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Committed {
    /// What the clients of those that confirmed felt.
    pub done: BTreeMap<ProxyIndex, Pause>,
    /// Those that have not; the sources refuse what they send.
    pub outstanding: BTreeSet<ProxyIndex>,
}

/// An event that cannot happen in the state it met: a fault of the driver.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("while {state} the switch cannot take the event {event}")]
pub struct Misstep {
    state: &'static str,
    event: String,
}

impl Cutover {
    /// A new switch, beginning with its intent.
    pub fn begin(crew: Crew, out: &mut Vec<Action>) -> Self {
        out.push(Action::Record(Entry::Intent));
        Self::Recording(crew)
    }

    /// The rest of a switch whose process died after the decision.
    pub fn recover_forward(crew: Crew, out: &mut Vec<Action>) -> Self {
        Self::decided(crew, out)
    }

    /// The way back of a switch whose process died before the decision. Its
    /// fence may be up.
    pub fn recover_back(crew: Crew, why: AbortReason, out: &mut Vec<Action>) -> Self {
        Self::lower(crew, why, out)
    }

    /// Takes one event; what is to be done is appended to `out`.
    ///
    /// # Errors
    /// [`Misstep`] when the event cannot happen in this state.
    pub fn step(self, event: Event, out: &mut Vec<Action>) -> Result<Self, Misstep> {
        match (self, event) {
            (Self::Recording(crew), event) => Self::step_recording(crew, event, out),
            (Self::Staging(waiting) | Self::Holding(waiting) | Self::Arming(waiting), event) => {
                waiting.step(event, out)
            }
            (Self::Fencing(cutting), Event::Fenced) => Ok(Self::Marking(cutting)),
            (Self::Marking(cutting), Event::Applied(proof)) => Ok(cutting.applied(&proof, out)),
            (Self::Fencing(cutting), event) => cutting.step(event, "the fence", Self::Fencing, out),
            (Self::Marking(cutting), event) => {
                cutting.step(event, "the marker", Self::Marking, out)
            }
            (Self::Deciding(crew), Event::Recorded) => Ok(Self::decided(crew, out)),
            (Self::Deciding(crew), Event::NotRecorded(why)) => {
                Ok(Self::lower(crew, AbortReason::Journal(why), out))
            }
            (Self::Publishing(crew), Event::RouteKept) => Ok(Committing::all(crew, out)),
            // The decision may already be written: it is too late to go back.
            (
                state @ (Self::Deciding(_) | Self::Publishing(_)),
                Event::Deadline | Event::GiveUp(_) | Event::MoverFailed(_),
            ) => Ok(state),
            (Self::Deciding(crew), event) if crew.is_stale(&event) => Ok(Self::Deciding(crew)),
            (Self::Publishing(crew), event) if crew.is_stale(&event) => Ok(Self::Publishing(crew)),
            (Self::Committing(committing), event) => committing.step(event, out),
            (Self::Unfencing { crew, why }, event) => Self::step_unfencing(crew, why, event, out),
            (Self::Aborting(aborting), event) => aborting.step(event, out),
            (state, event) => Err(misstep(state.name(), &event)),
        }
    }

    fn step_recording(crew: Crew, event: Event, out: &mut Vec<Action>) -> Result<Self, Misstep> {
        let why = match event {
            Event::Recorded => return Ok(Waiting::for_all(crew, Call::Stage, out)),
            Event::NotRecorded(why) => AbortReason::Journal(why),
            Event::MoverFailed(why) => AbortReason::Mover(why),
            Event::GiveUp(why) => AbortReason::GivenUp(why),
            event => return Err(misstep("recording", &event)),
        };
        let outstanding = BTreeSet::new();
        Ok(Self::Aborted { why, outstanding })
    }

    /// Proxies that are away learn the route from its record; hence it is on a
    /// server before the first commit. With all proxies armed it is only of use
    /// to one that restarts.
    fn decided(crew: Crew, out: &mut Vec<Action>) -> Self {
        out.push(Action::KeepRoute);
        match crew.fence {
            FenceLevel::Acl => Self::Publishing(crew),
            FenceLevel::MinReplicas | FenceLevel::ProxiesOnly => Committing::all(crew, out),
        }
    }

    /// The way back from where the sources may be fenced.
    fn lower(crew: Crew, why: AbortReason, out: &mut Vec<Action>) -> Self {
        match crew.fence {
            FenceLevel::ProxiesOnly => Aborting::all(crew, why, out),
            FenceLevel::MinReplicas | FenceLevel::Acl => {
                out.push(Action::LowerFence);
                out.push(Action::StartPatience(Step::Unfencing));
                Self::Unfencing { crew, why }
            }
        }
    }

    /// A source that cannot be told is told again later, by the driver; it keeps
    /// no client of the others waiting.
    fn step_unfencing(
        crew: Crew,
        why: AbortReason,
        event: Event,
        out: &mut Vec<Action>,
    ) -> Result<Self, Misstep> {
        match event {
            Event::Unfenced | Event::PatienceEnded => Ok(Aborting::all(crew, why, out)),
            // What was asked before is answered, or is not to be awaited any more.
            Event::Answered {
                call: Call::Stage | Call::Hold | Call::Arm,
                ..
            }
            | Event::Fenced
            | Event::FenceFailed(_)
            | Event::Applied(_)
            | Event::MarkerFailed(_)
            | Event::MoverFailed(_)
            | Event::Deadline
            | Event::GiveUp(_) => Ok(Self::Unfencing { crew, why }),
            event => Err(misstep("unfencing", &event)),
        }
    }

    /// The state in a word, for status lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Recording(_) => "recording",
            Self::Staging(_) => "staging",
            Self::Holding(_) => "holding",
            Self::Fencing(_) => "fencing",
            Self::Marking(_) => "marking",
            Self::Arming(_) => "arming",
            Self::Deciding(_) => "deciding",
            Self::Publishing(_) => "publishing",
            Self::Committing(_) => "committing",
            Self::Committed(_) => "committed",
            Self::Unfencing { .. } => "unfencing",
            Self::Aborting(_) => "aborting",
            Self::Aborted { .. } => "aborted",
        }
    }

    /// Whether commits may have been sent, so that only the way forward is left.
    pub fn is_past_return(&self) -> bool {
        matches!(
            self,
            Self::Deciding(_) | Self::Publishing(_) | Self::Committing(_) | Self::Committed(_)
        )
    }

    /// The step whose patience may be running.
    pub fn patience(&self) -> Option<Step> {
        match self {
            Self::Staging(_) => Some(Step::Staging),
            Self::Holding(_) => Some(Step::Holding),
            Self::Arming(_) => Some(Step::Arming),
            Self::Committing(_) => Some(Step::Committing),
            Self::Unfencing { .. } => Some(Step::Unfencing),
            Self::Aborting(_) => Some(Step::Aborting),
            _ => None,
        }
    }
}

impl Proxies {
    fn each(self) -> impl Iterator<Item = ProxyIndex> {
        (0..self.0).map(ProxyIndex)
    }
}

impl Crew {
    /// All proxies, none of them late.
    pub fn new(proxies: Proxies, fence: FenceLevel) -> Self {
        Self {
            proxies,
            fence,
            late: BTreeSet::new(),
        }
    }

    /// The same, with those that are not to be waited for; without a fence of
    /// logins all are.
    pub fn with_late(mut self, late: impl IntoIterator<Item = ProxyIndex>) -> Self {
        if self.lets_late() {
            self.late.extend(late);
        }
        self
    }

    /// Whether the switch goes on without a proxy that does not answer.
    fn lets_late(&self) -> bool {
        self.fence == FenceLevel::Acl
    }

    fn on_time(&self) -> impl Iterator<Item = ProxyIndex> {
        self.proxies
            .each()
            .filter(|proxy| !self.late.contains(proxy))
    }

    /// A late proxy's answer to what is not waited for any more.
    fn is_stale(&self, event: &Event) -> bool {
        matches!(
            event,
            Event::Answered { proxy, call: Call::Stage | Call::Hold | Call::Arm, .. }
                if self.late.contains(proxy)
        )
    }

    /// Proxies that the switch went on without.
    pub fn late(&self) -> impl Iterator<Item = ProxyIndex> {
        self.late.iter().copied()
    }
}

fn first_call(proxy: ProxyIndex, call: Call) -> Action {
    Action::Call {
        proxy,
        call,
        attempt: 0,
    }
}

/// The reason an event gives for going back, or the event if it gives none.
fn abort_reason(event: Event, during: &'static str) -> Result<AbortReason, Event> {
    match event {
        Event::Deadline => Ok(AbortReason::Deadline { during }),
        Event::GiveUp(why) => Ok(AbortReason::GivenUp(why)),
        Event::MoverFailed(why) => Ok(AbortReason::Mover(why)),
        Event::FenceFailed(why) if during == "the fence" => Ok(AbortReason::Fence(why)),
        Event::MarkerFailed(why) if during == "the marker" || during == "the fence" => {
            Ok(AbortReason::Marker(why))
        }
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
        Event::Fenced => "fenced".to_owned(),
        Event::FenceFailed(_) => "fence failed".to_owned(),
        Event::Unfenced => "unfenced".to_owned(),
        Event::RouteKept => "route kept".to_owned(),
        Event::PatienceEnded => "patience ended".to_owned(),
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
