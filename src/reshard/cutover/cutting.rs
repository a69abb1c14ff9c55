//! The cut: the fence with its marker, or the marker alone.
//!
//! Behind a fence nothing is gained by a proxy's return to the old route, so all
//! are armed while the cut is made. Without one they are armed when it is.

use std::collections::BTreeSet;

use super::{AbortReason, CallFailure, abort_reason, first_call, misstep};
use super::{Action, Call, Crew, Cutover, Event, Misstep, ProxyIndex, Waiting};
use crate::reshard::fence::FenceLevel;
use crate::reshard::moving::MarkerApplied;

/// A cut under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cutting {
    crew: Crew,
    /// Who was asked to arm and has not answered; `None`: nobody was asked.
    unarmed: Option<BTreeSet<ProxyIndex>>,
}

impl Cutting {
    /// The hold is over.
    pub(super) fn begin(crew: Crew, out: &mut Vec<Action>) -> Cutover {
        match crew.fence {
            FenceLevel::ProxiesOnly => {
                out.push(Action::PublishMarker);
                let unarmed = None;
                Cutover::Marking(Self { crew, unarmed })
            }
            FenceLevel::MinReplicas | FenceLevel::Acl => {
                out.push(Action::RaiseFence);
                out.extend(crew.on_time().map(|proxy| first_call(proxy, Call::Arm)));
                let unarmed = Some(crew.on_time().collect());
                Cutover::Fencing(Self { crew, unarmed })
            }
        }
    }

    /// The proof is demanded here: nothing is decided, hence nothing committed, without it.
    pub(super) fn applied(self, _proof: &MarkerApplied, out: &mut Vec<Action>) -> Cutover {
        match self.unarmed {
            None => Waiting::for_all(self.crew, Call::Arm, out),
            Some(unarmed) => Waiting::armed_but_for(self.crew, unarmed, out),
        }
    }

    /// What happens while `during` is awaited in the state that `stay` makes.
    pub(super) fn step(
        mut self,
        event: Event,
        during: &'static str,
        stay: fn(Self) -> Cutover,
        out: &mut Vec<Action>,
    ) -> Result<Cutover, Misstep> {
        match event {
            Event::Answered {
                proxy,
                call: Call::Arm,
                outcome,
            } if self.is_unarmed(proxy) => match outcome {
                Ok(_) => Ok(stay(self)),
                Err(failure) => Ok(self.failed(proxy, failure, stay, out)),
            },
            event if self.crew.is_stale(&event) => Ok(stay(self)),
            event => match abort_reason(event, during) {
                Ok(why) => Ok(Cutover::lower(self.crew, why, out)),
                Err(event) => Err(misstep(stay(self).name(), &event)),
            },
        }
    }

    /// Whether the answer to this proxy's arm was still missing; it is not any more.
    fn is_unarmed(&mut self, proxy: ProxyIndex) -> bool {
        let unarmed = self.unarmed.as_mut();
        unarmed.is_some_and(|unarmed| unarmed.remove(&proxy))
    }

    fn failed(
        mut self,
        proxy: ProxyIndex,
        failure: CallFailure,
        stay: fn(Self) -> Cutover,
        out: &mut Vec<Action>,
    ) -> Cutover {
        if self.crew.lets_late() {
            self.crew.late.insert(proxy);
            return stay(self);
        }
        let call = Call::Arm;
        let why = AbortReason::Proxy {
            proxy,
            call,
            failure,
        };
        Cutover::lower(self.crew, why, out)
    }

    /// Proxies that were asked to arm and have not answered yet.
    pub fn unarmed(&self) -> impl Iterator<Item = ProxyIndex> {
        self.unarmed.iter().flatten().copied()
    }
}
