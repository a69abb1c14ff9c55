//! A step that every proxy confirms before the next one is asked: stage, hold, arm.

use std::collections::BTreeSet;

use super::cutting::Cutting;
use super::ends::Aborting;
use super::{
    AbortReason, Action, Call, CallFailure, Crew, Cutover, Entry, Event, Misstep, ProxyIndex, Step,
    abort_reason, first_call, misstep,
};

/// A step that every proxy has to confirm; those that were late before are not asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waiting {
    crew: Crew,
    call: Call,
    unanswered: BTreeSet<ProxyIndex>,
}

impl Waiting {
    pub(super) fn for_all(crew: Crew, call: Call, out: &mut Vec<Action>) -> Cutover {
        if call == Call::Hold {
            out.push(Action::StartDeadline);
        }
        out.extend(crew.on_time().map(|proxy| first_call(proxy, call)));
        let waiting = Self {
            unanswered: crew.on_time().collect(),
            crew,
            call,
        };
        if waiting.crew.lets_late() {
            out.push(Action::StartPatience(waiting.step_name()));
        }
        waiting.go_on(out)
    }

    /// All were asked to arm while the cut was made.
    pub(super) fn armed_but_for(
        crew: Crew,
        unanswered: BTreeSet<ProxyIndex>,
        out: &mut Vec<Action>,
    ) -> Cutover {
        let waiting = Self {
            unanswered,
            crew,
            call: Call::Arm,
        };
        if waiting.crew.lets_late() && !waiting.unanswered.is_empty() {
            out.push(Action::StartPatience(waiting.step_name()));
        }
        waiting.go_on(out)
    }

    pub(super) fn step(mut self, event: Event, out: &mut Vec<Action>) -> Result<Cutover, Misstep> {
        match event {
            Event::Answered {
                proxy,
                call,
                outcome,
            } if call == self.call && self.unanswered.remove(&proxy) => match outcome {
                Ok(_) => Ok(self.go_on(out)),
                Err(failure) => Ok(self.failed(proxy, failure, out)),
            },
            event if self.crew.is_stale(&event) => Ok(self.into_state()),
            Event::PatienceEnded if self.crew.lets_late() => {
                self.crew.late.append(&mut self.unanswered);
                Ok(self.go_on(out))
            }
            Event::Deadline if self.call == Call::Stage => {
                Err(misstep("staging", &Event::Deadline))
            }
            event => match abort_reason(event, self.call.name()) {
                Ok(why) => Ok(self.back(why, out)),
                Err(event) => Err(misstep(self.into_state().name(), &event)),
            },
        }
    }

    /// Silence makes a proxy late, and so does a no to what its clients would
    /// have waited for; a no to the stage says that it cannot take the layout.
    fn failed(mut self, proxy: ProxyIndex, failure: CallFailure, out: &mut Vec<Action>) -> Cutover {
        let is_no_to_stage = self.call == Call::Stage && matches!(failure, CallFailure::Refused(_));
        if self.crew.lets_late() && !is_no_to_stage {
            self.crew.late.insert(proxy);
            return self.go_on(out);
        }
        let call = self.call;
        let why = AbortReason::Proxy {
            proxy,
            call,
            failure,
        };
        self.back(why, out)
    }

    /// To the next step once nobody is waited for.
    fn go_on(self, out: &mut Vec<Action>) -> Cutover {
        if !self.unanswered.is_empty() {
            return self.into_state();
        }
        match self.call {
            // Nobody answers: that may as well be our own network.
            Call::Stage if self.crew.on_time().next().is_none() => {
                self.back(AbortReason::Nobody, out)
            }
            Call::Hold => Cutting::begin(self.crew, out),
            Call::Arm => {
                out.push(Action::Record(Entry::Decision));
                Cutover::Deciding(self.crew)
            }
            Call::Stage | Call::Commit | Call::Abort => Self::for_all(self.crew, Call::Hold, out),
        }
    }

    /// The sources are fenced from the hold's end on.
    fn back(self, why: AbortReason, out: &mut Vec<Action>) -> Cutover {
        match self.call {
            Call::Arm => Cutover::lower(self.crew, why, out),
            Call::Stage | Call::Hold | Call::Commit | Call::Abort => {
                Aborting::all(self.crew, why, out)
            }
        }
    }

    fn step_name(&self) -> Step {
        match self.call {
            Call::Hold => Step::Holding,
            Call::Arm => Step::Arming,
            Call::Stage | Call::Commit | Call::Abort => Step::Staging,
        }
    }

    fn into_state(self) -> Cutover {
        match self.call {
            Call::Hold => Cutover::Holding(self),
            Call::Arm => Cutover::Arming(self),
            Call::Stage | Call::Commit | Call::Abort => Cutover::Staging(self),
        }
    }

    /// Proxies that have not answered yet.
    pub fn unanswered(&self) -> impl Iterator<Item = ProxyIndex> {
        self.unanswered.iter().copied()
    }
}
