//! Every order of events for two proxies with at most one failure, against a
//! model of the proxies' admin API.
//!
//! The network may answer, delay, lose or time out any call and still deliver
//! it later; proxies may restart or refuse; leases end when they like; the
//! coordinator may die at any moment and be recovered.

use std::collections::HashSet;

use super::*;
use crate::reshard::recovery::{ProxyView, Recovery, recovery_of};

const PROXIES: Proxies = Proxies(2);

/// One proxy as `design` has it: what it lets moving keys do, and what it wrote down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ModelProxy {
    gate: Gate,
    /// Incarnation of the staged switch.
    pending: Option<u8>,
    /// Highest incarnation that was aborted here.
    floor: u8,
    /// Hold came from this incarnation.
    epoch_new: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gate {
    Open,
    Held,
    Armed,
    Fenced,
}

impl ModelProxy {
    fn new() -> Self {
        Self {
            gate: Gate::Open,
            pending: None,
            floor: 0,
            epoch_new: false,
        }
    }

    /// Requests for moving keys are answered by the old shards.
    fn releases_old(&self) -> bool {
        !self.epoch_new && self.gate == Gate::Open
    }

    fn take(&mut self, call: Call, incarnation: u8) -> Result<(), ()> {
        if self.epoch_new {
            return if call == Call::Commit {
                Ok(())
            } else {
                Err(())
            };
        }
        if incarnation < self.floor || self.pending.is_some_and(|held| incarnation < held) {
            return Err(());
        }
        match call {
            Call::Stage if incarnation == self.floor => Err(()),
            Call::Stage => {
                self.pending = Some(incarnation);
                Ok(())
            }
            Call::Hold if self.pending.is_some() && self.gate == Gate::Open => {
                self.gate = Gate::Held;
                Ok(())
            }
            Call::Arm if self.pending.is_some() && self.gate == Gate::Held => {
                self.gate = Gate::Armed;
                Ok(())
            }
            Call::Commit if matches!(self.gate, Gate::Armed | Gate::Fenced) => {
                self.epoch_new = true;
                self.gate = Gate::Open;
                self.pending = None;
                Ok(())
            }
            Call::Abort => {
                self.gate = Gate::Open;
                self.pending = None;
                self.floor = incarnation;
                Ok(())
            }
            Call::Hold | Call::Arm | Call::Commit => Err(()),
        }
    }

    fn restart(&mut self) {
        self.gate = if self.pending.is_some() {
            Gate::Fenced
        } else {
            Gate::Open
        };
    }
}

/// A call under way: the coordinator waits for it, or has given up waiting.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct InFlight {
    proxy: ProxyIndex,
    call: Call,
    incarnation: u8,
    awaited: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct AnswerUnderWay {
    proxy: ProxyIndex,
    call: Call,
    done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    machine: Cutover,
    proxies: Vec<ModelProxy>,
    calls: Vec<InFlight>,
    answers: Vec<AnswerUnderWay>,
    incarnation: u8,
    marker_out: bool,
    marker_applied: bool,
    mover_is_lost: bool,
    deadline_runs: bool,
    pending_record: Option<Entry>,
    decided: bool,
    commit_sent: bool,
    failures_left: u8,
    crashes_left: u8,
}

impl World {
    fn new(failures_left: u8, crashes_left: u8) -> Self {
        let mut out = Vec::new();
        let machine = Cutover::begin(PROXIES, &mut out);
        let mut world = Self {
            machine,
            proxies: vec![ModelProxy::new(); PROXIES.0],
            calls: Vec::new(),
            answers: Vec::new(),
            incarnation: 1,
            marker_out: false,
            marker_applied: false,
            mover_is_lost: false,
            deadline_runs: false,
            pending_record: None,
            decided: false,
            commit_sent: false,
            failures_left,
            crashes_left,
        };
        world.perform(out);
        world
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Record(entry) => {
                    let lost = self.mover_is_lost;
                    assert!(!lost, "recorded after the mover failed: {self:?}");
                    self.pending_record = Some(entry);
                }
                Action::StartDeadline => self.deadline_runs = true,
                Action::PublishMarker => self.marker_out = true,
                Action::Call { proxy, call, .. } => {
                    if call == Call::Commit {
                        assert!(self.marker_applied, "a commit without the marker: {self:?}");
                        assert!(self.decided, "a commit without a decision: {self:?}");
                        self.commit_sent = true;
                    }
                    if call == Call::Abort {
                        assert!(!self.commit_sent, "an abort after a commit: {self:?}");
                        // The driver drops what it still waits for at this proxy; the
                        // bytes may be read by the proxy all the same.
                        for under_way in &mut self.calls {
                            under_way.awaited &= under_way.proxy != proxy;
                        }
                        self.answers.retain(|answer| answer.proxy != proxy);
                    }
                    self.calls.push(InFlight {
                        proxy,
                        call,
                        incarnation: self.incarnation,
                        awaited: true,
                    });
                }
            }
        }
        self.calls.sort();
    }

    fn tell(&self, event: Event) -> Self {
        let mut next = self.clone();
        let mut out = Vec::new();
        next.machine = match next.machine.step(event, &mut out) {
            Ok(machine) => machine,
            Err(misstep) => panic!("{misstep}: {self:?}"),
        };
        next.perform(out);
        next
    }

    fn is_ended(&self) -> bool {
        matches!(self.machine, Cutover::Committed(_) | Cutover::Aborted(_))
    }

    /// Every world that may come next.
    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        self.deliver_calls(&mut next);
        self.end_leases(&mut next);
        if !self.is_ended() {
            self.deliver_answers(&mut next);
            self.local_events(&mut next);
            if self.failures_left > 0 {
                self.fail(&mut next);
            }
            if self.crashes_left > 0 {
                self.crash(&mut next);
            }
        }
        next
    }

    fn deliver_calls(&self, next: &mut Vec<Self>) {
        for (at, under_way) in self.calls.iter().enumerate() {
            let mut world = self.clone();
            world.calls.remove(at);
            let done = world.proxies[under_way.proxy.0]
                .take(under_way.call, under_way.incarnation)
                .is_ok();
            if under_way.awaited {
                world.answers.push(AnswerUnderWay {
                    proxy: under_way.proxy,
                    call: under_way.call,
                    done,
                });
                world.answers.sort();
            }
            next.push(world);
        }
    }

    fn deliver_answers(&self, next: &mut Vec<Self>) {
        for (at, answer) in self.answers.iter().enumerate() {
            let mut world = self.clone();
            world.answers.remove(at);
            next.push(world.tell(Event::Answered {
                proxy: answer.proxy,
                call: answer.call,
                outcome: if answer.done {
                    Ok(Pause::default())
                } else {
                    Err(CallFailure::Refused("no".to_owned()))
                },
            }));
        }
    }

    fn end_leases(&self, next: &mut Vec<Self>) {
        for (at, proxy) in self.proxies.iter().enumerate() {
            let gate = match proxy.gate {
                Gate::Held => Gate::Open,
                Gate::Armed => Gate::Fenced,
                Gate::Open | Gate::Fenced => continue,
            };
            let mut world = self.clone();
            world.proxies[at].gate = gate;
            next.push(world);
        }
    }

    fn local_events(&self, next: &mut Vec<Self>) {
        if let Some(entry) = self.pending_record {
            let mut world = self.clone();
            world.pending_record = None;
            world.decided |= entry == Entry::Decision;
            next.push(world.tell(Event::Recorded));
            return;
        }
        if self.marker_out {
            let mut world = self.clone();
            world.marker_out = false;
            // An abort may have overtaken the marker; it is applied all the same.
            world.marker_applied = true;
            next.push(world.tell(Event::Applied(MarkerApplied::for_test())));
        }
        if self.deadline_runs {
            let mut world = self.clone();
            world.deadline_runs = false;
            next.push(world.tell(Event::Deadline));
        }
    }

    fn fail(&self, next: &mut Vec<Self>) {
        let mut failed = self.clone();
        failed.failures_left -= 1;
        for (at, under_way) in self.calls.iter().enumerate() {
            if !under_way.awaited {
                continue;
            }
            let lost = Event::Answered {
                proxy: under_way.proxy,
                call: under_way.call,
                outcome: Err(CallFailure::Lost("cut".to_owned())),
            };
            let mut never_arrives = failed.clone();
            never_arrives.calls.remove(at);
            next.push(never_arrives.tell(lost.clone()));
            let mut arrives_later = failed.clone();
            arrives_later.calls[at].awaited = false;
            next.push(arrives_later.tell(lost));
        }
        for (at, answer) in self.answers.iter().enumerate() {
            let mut world = failed.clone();
            world.answers.remove(at);
            next.push(world.tell(Event::Answered {
                proxy: answer.proxy,
                call: answer.call,
                outcome: Err(CallFailure::Lost("cut".to_owned())),
            }));
        }
        for at in 0..self.proxies.len() {
            let mut world = failed.clone();
            world.proxies[at].restart();
            next.push(world);
        }
        match self.pending_record {
            Some(_) => {
                let mut world = failed.clone();
                world.pending_record = None;
                next.push(world.tell(Event::NotRecorded("full".to_owned())));
            }
            None => next.push(failed.tell(Event::GiveUp("stop".to_owned()))),
        }
        if !self.mover_is_lost {
            let mut world = failed.clone();
            world.mover_is_lost = true;
            next.push(world.tell(Event::MoverFailed("dead".to_owned())));
        }
        if self.marker_out {
            let mut world = failed;
            world.marker_out = false;
            next.push(world.tell(Event::MarkerFailed("late".to_owned())));
        }
    }

    /// The coordinator dies; the next one recovers.
    fn crash(&self, next: &mut Vec<Self>) {
        let mut world = self.clone();
        world.crashes_left -= 1;
        world.incarnation += 1;
        world.answers.clear();
        for under_way in &mut world.calls {
            under_way.awaited = false;
        }
        world.pending_record = None;
        world.marker_out = false;
        world.deadline_runs = false;
        if world.decided {
            // A power cut may lose the decision, which is not synced; then
            // nothing of ours is on its way any more either.
            let mut cut = world.clone();
            cut.decided = false;
            cut.calls.clear();
            cut.commit_sent = cut.proxies.iter().any(|proxy| proxy.epoch_new);
            next.push(cut.recovered());
        }
        next.push(world.recovered());
    }

    /// Asks every proxy and goes on as `recovery.rs` does.
    fn recovered(mut self) -> Self {
        let world = &mut self;
        let views: Vec<ProxyView> = world
            .proxies
            .iter()
            .map(|proxy| {
                if proxy.epoch_new {
                    ProxyView::Committed
                } else if proxy.pending.is_some() {
                    ProxyView::Pending
                } else {
                    ProxyView::Clear
                }
            })
            .collect();
        let mut out = Vec::new();
        world.machine = match recovery_of(world.decided, &views) {
            Recovery::Forward => Cutover::recover_forward(PROXIES, &mut out),
            Recovery::Back => {
                let why = AbortReason::GivenUp("restarted".to_owned());
                Cutover::recover_back(PROXIES, why, &mut out)
            }
        };
        if matches!(world.machine, Cutover::Committing(_)) {
            // A commit is only repeated where it was decided before.
            world.decided = true;
        }
        world.perform(out);
        self
    }

    fn check(&self) {
        let some_new = self.proxies.iter().any(|proxy| proxy.epoch_new);
        let some_old = self.proxies.iter().any(ModelProxy::releases_old);
        assert!(!(some_new && some_old), "released on two routes: {self:?}");
        if self.is_ended() && self.calls.is_empty() {
            let committed = matches!(self.machine, Cutover::Committed(_));
            for proxy in &self.proxies {
                assert_eq!(proxy.epoch_new, committed, "{self:?}");
                assert_eq!(proxy.gate, Gate::Open, "left shut: {self:?}");
                assert_eq!(proxy.pending, None, "left pending: {self:?}");
            }
        }
    }
}

/// Walks everything that can follow `start`; returns how many worlds there are.
fn explore(start: World) -> (usize, HashSet<&'static str>) {
    let mut seen = HashSet::new();
    let mut ends = HashSet::new();
    let mut open = vec![start.clone()];
    seen.insert(start);
    while let Some(world) = open.pop() {
        world.check();
        let next = world.successors();
        if next.is_empty() {
            assert!(world.is_ended(), "stuck: {world:?}");
            ends.insert(world.machine.name());
        }
        for world in next {
            if seen.insert(world.clone()) {
                open.push(world);
            }
        }
    }
    (seen.len(), ends)
}

#[test]
fn without_failures_every_order_ends_on_one_route() {
    let (worlds, ends) = explore(World::new(0, 0));
    assert!(worlds > 100, "{worlds} worlds");
    assert_eq!(ends, HashSet::from(["committed", "aborted"]));
}

#[test]
fn with_any_one_failure_every_order_ends_on_one_route() {
    let (worlds, ends) = explore(World::new(1, 0));
    assert!(worlds > 1_000, "{worlds} worlds");
    assert_eq!(ends, HashSet::from(["committed", "aborted"]));
}

#[test]
fn with_a_crash_of_the_coordinator_every_order_ends_on_one_route() {
    let (worlds, ends) = explore(World::new(0, 1));
    assert!(worlds > 500, "{worlds} worlds");
    assert_eq!(ends, HashSet::from(["committed", "aborted"]));
}

#[test]
fn with_a_crash_and_another_failure_every_order_ends_on_one_route() {
    let (worlds, _) = explore(World::new(1, 2));
    assert!(worlds > 5_000, "{worlds} worlds");
}

#[test]
fn a_missing_decision_turns_back_unless_a_proxy_committed() {
    use ProxyView::{Clear, Committed, Pending};
    assert_eq!(recovery_of(false, &[Pending, Pending]), Recovery::Back);
    assert_eq!(recovery_of(true, &[Pending, Pending]), Recovery::Forward);
    assert_eq!(recovery_of(true, &[Pending, Clear]), Recovery::Back);
    assert_eq!(recovery_of(false, &[Pending, Committed]), Recovery::Forward);
    assert_eq!(recovery_of(false, &[Clear, Clear]), Recovery::Back);
}

#[test]
fn a_failed_mover_turns_back_until_the_decision_and_not_after() {
    let answers = |call| {
        (0..PROXIES.0).map(move |at| Event::Answered {
            proxy: ProxyIndex(at),
            call,
            outcome: Ok(Pause::default()),
        })
    };
    let mut way = vec![Event::Recorded];
    way.extend(answers(Call::Stage));
    way.extend(answers(Call::Hold));
    way.push(Event::Applied(MarkerApplied::for_test()));
    way.extend(answers(Call::Arm));
    way.push(Event::Recorded);
    let mut out = Vec::new();
    let mut machine = Cutover::begin(PROXIES, &mut out);
    for event in way {
        let failed = Event::MoverFailed("dead".to_owned());
        let after = machine.clone().step(failed, &mut out).unwrap();
        let turns_back = matches!(after, Cutover::Aborting(_) | Cutover::Aborted(_));
        assert_eq!(turns_back, !machine.is_past_return(), "{}", machine.name());
        machine = machine.step(event, &mut out).unwrap();
    }
    assert_eq!(machine.name(), "committing");
    let failed = Event::MoverFailed("dead".to_owned());
    let after = machine.clone().step(failed, &mut out).unwrap();
    assert_eq!(after, machine);
}

#[test]
fn the_deadline_before_any_hold_is_a_fault_of_the_driver() {
    let mut out = Vec::new();
    let machine = Cutover::begin(PROXIES, &mut out);
    let machine = machine.step(Event::Recorded, &mut out).unwrap();
    assert!(machine.step(Event::Deadline, &mut out).is_err());
}

#[test]
fn proxies_are_held_only_after_all_are_staged() {
    let mut out = Vec::new();
    let machine = Cutover::begin(PROXIES, &mut out)
        .step(Event::Recorded, &mut out)
        .unwrap();
    out.clear();
    let answer = |at| Event::Answered {
        proxy: ProxyIndex(at),
        call: Call::Stage,
        outcome: Ok(Pause::default()),
    };
    let machine = machine.step(answer(1), &mut out).unwrap();
    assert!(out.is_empty());
    let machine = machine.step(answer(0), &mut out).unwrap();
    assert_eq!(machine.name(), "holding");
    assert_eq!(out[0], Action::StartDeadline);
    assert_eq!(out.len(), 3);
}
