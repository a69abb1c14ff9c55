//! Every order of events for two proxies with at most one failure, against a
//! model of the proxies' admin API.
//!
//! The network may answer, delay, lose or time out any call and still deliver
//! it later; proxies may restart or refuse; leases end when they like; the
//! coordinator may die at any moment and be recovered. With a fence the second
//! proxy may be stopped or dead from the start, and every patience may end at once.

use std::collections::HashSet;

use super::*;
use crate::reshard::fencing::Remains;
use crate::reshard::moving::MarkerApplied;
use crate::reshard::recovery::{ProxyView, Recovery, recovery_of};

const PROXIES: Proxies = Proxies(2);

/// Without a fence.
fn crew() -> Crew {
    Crew::new(PROXIES, FenceLevel::ProxiesOnly)
}

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

    /// Requests for moving keys go to the old shards.
    fn sends_old(&self) -> bool {
        !self.epoch_new && self.gate == Gate::Open
    }

    fn take(&mut self, call: Call, incarnation: u8, fenced: bool) -> Result<(), ()> {
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
            Call::Commit if fenced || matches!(self.gate, Gate::Armed | Gate::Fenced) => {
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

/// What is the matter with the second proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Second {
    Well,
    /// Takes nothing until it goes on, at any moment.
    Stopped,
    /// Takes nothing, ever.
    Dead,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    fence: FenceLevel,
    second: Second,
    machine: Cutover,
    proxies: Vec<ModelProxy>,
    calls: Vec<InFlight>,
    answers: Vec<AnswerUnderWay>,
    incarnation: u8,
    /// A fence is on its way; it may arrive after its sender died.
    fence_out: bool,
    fence_is_up: bool,
    lowering: bool,
    route_out: bool,
    route_kept: bool,
    /// The step whose patience runs.
    patient: Option<Step>,
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
        Self::with(
            FenceLevel::ProxiesOnly,
            Second::Well,
            failures_left,
            crashes_left,
        )
    }

    fn with(fence: FenceLevel, second: Second, failures_left: u8, crashes_left: u8) -> Self {
        let mut out = Vec::new();
        let machine = Cutover::begin(Crew::new(PROXIES, fence), &mut out);
        let mut world = Self {
            fence,
            second,
            fence_out: false,
            fence_is_up: false,
            lowering: false,
            route_out: false,
            route_kept: false,
            patient: None,
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
                Action::StartPatience(step) => self.patient = Some(step),
                Action::PublishMarker => self.marker_out = true,
                Action::RaiseFence => {
                    assert!(!self.fence_out, "two fences at once: {self:?}");
                    self.fence_out = true;
                }
                Action::LowerFence => {
                    assert!(!self.commit_sent, "lowered after a commit: {self:?}");
                    self.lowering = true;
                }
                Action::KeepRoute => {
                    assert!(self.decided, "a route without a decision: {self:?}");
                    self.route_out = true;
                }
                Action::Call { proxy, call, .. } => {
                    if call == Call::Commit {
                        assert!(self.marker_applied, "a commit without the marker: {self:?}");
                        assert!(self.decided, "a commit without a decision: {self:?}");
                        let fenced = self.fence == FenceLevel::Acl;
                        assert!(!fenced || self.route_kept, "no route record: {self:?}");
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
        // The driver forgets the patience with its step.
        next.patient = next
            .patient
            .filter(|step| next.machine.patience() == Some(*step));
        next
    }

    fn is_ended(&self) -> bool {
        matches!(
            self.machine,
            Cutover::Committed(_) | Cutover::Aborted { .. }
        )
    }

    /// Every world that may come next.
    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        self.deliver_calls(&mut next);
        self.end_leases(&mut next);
        self.reach_servers(&mut next);
        if self.second == Second::Stopped {
            let mut world = self.clone();
            world.second = Second::Well;
            next.push(world);
        }
        if !self.is_ended() {
            self.deliver_answers(&mut next);
            self.local_events(&mut next);
            if self.failures_left > 0 {
                self.fail(&mut next);
            }
            if self.crashes_left > 0 {
                self.crash(&mut next);
            }
        } else {
            self.remind(&mut next);
        }
        next
    }

    /// Who was late is told again until it has done it.
    fn remind(&self, next: &mut Vec<Self>) {
        let (call, outstanding) = match &self.machine {
            Cutover::Committed(end) => (Call::Commit, &end.outstanding),
            Cutover::Aborted { outstanding, .. } => (Call::Abort, outstanding),
            _ => return,
        };
        for proxy in outstanding {
            let state = &self.proxies[proxy.0];
            let is_done = match call {
                Call::Commit => state.epoch_new,
                _ => state.pending.is_none() && state.gate == Gate::Open,
            };
            let under_way = self.calls.iter().any(|told| told.proxy == *proxy);
            if is_done || under_way {
                continue;
            }
            let mut world = self.clone();
            world.calls.push(InFlight {
                proxy: *proxy,
                call,
                incarnation: self.incarnation,
                awaited: false,
            });
            next.push(world);
        }
    }

    fn deliver_calls(&self, next: &mut Vec<Self>) {
        let fenced = self.fence == FenceLevel::Acl;
        for (at, under_way) in self.calls.iter().enumerate() {
            if self.second != Second::Well && under_way.proxy == ProxyIndex(1) {
                continue;
            }
            let mut world = self.clone();
            world.calls.remove(at);
            let done = world.proxies[under_way.proxy.0]
                .take(under_way.call, under_way.incarnation, fenced)
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

    /// Fence and marker are one transaction. What lowers a fence voids those that
    /// are still on their way.
    fn reach_servers(&self, next: &mut Vec<Self>) {
        let awaits = !self.is_ended();
        if self.fence_out {
            let mut world = self.clone();
            world.fence_out = false;
            world.fence_is_up = true;
            world.marker_out = true;
            next.push(match &self.machine {
                Cutover::Fencing(_) => world.tell(Event::Fenced),
                _ => {
                    world.marker_out = false;
                    world
                }
            });
        }
        if self.lowering {
            let mut world = self.clone();
            world.lowering = false;
            world.fence_is_up = false;
            world.fence_out = false;
            next.push(match &self.machine {
                Cutover::Unfencing { .. } => world.tell(Event::Unfenced),
                _ => world,
            });
        }
        if self.route_out && awaits {
            let mut world = self.clone();
            world.route_out = false;
            world.route_kept = true;
            next.push(match &self.machine {
                Cutover::Publishing(_) => world.tell(Event::RouteKept),
                _ => world,
            });
        }
    }

    fn local_events(&self, next: &mut Vec<Self>) {
        if self.patient.is_some() && self.pending_record.is_none() {
            let mut world = self.clone();
            world.patient = None;
            next.push(world.tell(Event::PatienceEnded));
        }
        if let Some(entry) = self.pending_record {
            let mut world = self.clone();
            world.pending_record = None;
            world.decided |= entry == Entry::Decision;
            next.push(world.tell(Event::Recorded));
            return;
        }
        let awaits_marker = !matches!(self.machine, Cutover::Fencing(_));
        if self.marker_out && awaits_marker {
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
        if matches!(self.machine, Cutover::Fencing(_)) {
            // It may have been done, or be done later, all the same.
            next.push(failed.tell(Event::FenceFailed("cut".to_owned())));
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
        world.patient = None;
        world.lowering = false;
        if world.decided {
            // A power cut may lose the decision, which is not synced; then
            // nothing of ours is on its way any more either.
            let mut cut = world.clone();
            cut.decided = false;
            cut.calls.clear();
            cut.fence_out = false;
            cut.route_out = false;
            cut.commit_sent = cut.proxies.iter().any(|proxy| proxy.epoch_new);
            next.push(cut.recovered());
        }
        next.push(world.recovered());
    }

    /// Asks every proxy and goes on as `recovery.rs` does.
    fn recovered(mut self) -> Self {
        let world = &mut self;
        let is_silent = |at: usize| world.second != Second::Well && at == 1;
        let views: Vec<Option<ProxyView>> = world
            .proxies
            .iter()
            .enumerate()
            .map(|(at, proxy)| {
                let view = if proxy.epoch_new {
                    ProxyView::Committed
                } else if proxy.pending.is_some() {
                    ProxyView::Pending
                } else {
                    ProxyView::Clear
                };
                (!is_silent(at)).then_some(view)
            })
            .collect();
        let remains = Remains {
            is_open: !world.fence_is_up,
            has_route: world.route_kept,
            silent: Vec::new(),
        };
        let late = (0..PROXIES.0).filter(|at| is_silent(*at)).map(ProxyIndex);
        let crew = Crew::new(PROXIES, world.fence).with_late(late);
        let mut out = Vec::new();
        world.machine = match recovery_of(world.decided, world.fence, &views, &remains) {
            Recovery::Forward => Cutover::recover_forward(crew, &mut out),
            Recovery::Back => {
                let why = AbortReason::GivenUp("restarted".to_owned());
                Cutover::recover_back(crew, why, &mut out)
            }
            Recovery::Unknown => panic!("somebody is missing: {world:?}"),
        };
        if matches!(
            world.machine,
            Cutover::Committing(_) | Cutover::Publishing(_)
        ) {
            // A commit is only repeated where it was decided before.
            world.decided = true;
        }
        world.perform(out);
        self
    }

    fn check(&self) {
        let some_new = self.proxies.iter().any(|proxy| proxy.epoch_new);
        let takes_old = |proxy: &ModelProxy| proxy.sends_old() && !self.fence_is_up;
        let some_old = self.proxies.iter().any(takes_old);
        assert!(!(some_new && some_old), "released on two routes: {self:?}");
        let under_way = self.calls.iter().any(|told| !self.is_dead(told.proxy.0));
        let mut reminded = Vec::new();
        self.remind(&mut reminded);
        let is_quiet = !under_way && !self.lowering && !self.fence_out;
        if self.is_ended() && is_quiet && reminded.is_empty() {
            let committed = matches!(self.machine, Cutover::Committed(_));
            if committed {
                assert!(self.marker_applied && self.decided, "{self:?}");
            } else {
                assert!(!self.fence_is_up, "left fenced: {self:?}");
            }
            for (at, proxy) in self.proxies.iter().enumerate() {
                if self.is_dead(at) {
                    continue;
                }
                assert_eq!(proxy.epoch_new, committed, "{self:?}");
                assert_eq!(proxy.gate, Gate::Open, "left shut: {self:?}");
                assert_eq!(proxy.pending, None, "left pending: {self:?}");
            }
        }
    }

    fn is_dead(&self, at: usize) -> bool {
        at == 1 && self.second == Second::Dead
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

/// Fenced, with whatever is the matter with the second proxy.
fn explore_fenced(second: Second, failures: u8, crashes: u8) -> HashSet<&'static str> {
    let start = World::with(FenceLevel::Acl, second, failures, crashes);
    let (worlds, ends) = explore(start);
    println!("{second:?}, {failures} failures, {crashes} crashes: {worlds} worlds");
    assert!(worlds > 100, "{worlds} worlds");
    ends
}

const BOTH_ENDS: [&str; 2] = ["committed", "aborted"];

#[test]
fn fenced_without_failures_every_order_ends_on_one_route() {
    for second in [Second::Well, Second::Stopped, Second::Dead] {
        assert_eq!(explore_fenced(second, 0, 0), HashSet::from(BOTH_ENDS));
    }
}

#[test]
fn fenced_with_any_one_failure_every_order_ends_on_one_route() {
    for second in [Second::Well, Second::Stopped, Second::Dead] {
        assert_eq!(explore_fenced(second, 1, 0), HashSet::from(BOTH_ENDS));
    }
}

#[test]
fn fenced_with_a_crash_every_order_ends_on_one_route() {
    for second in [Second::Well, Second::Stopped, Second::Dead] {
        assert_eq!(explore_fenced(second, 0, 1), HashSet::from(BOTH_ENDS));
    }
}

#[test]
fn fenced_with_a_crash_and_another_failure_every_order_ends_on_one_route() {
    for second in [Second::Well, Second::Dead] {
        explore_fenced(second, 1, 1);
    }
}

#[test]
fn a_dead_proxy_blocks_nothing_once_the_sources_are_fenced() {
    let mut out = Vec::new();
    let crew = Crew::new(PROXIES, FenceLevel::Acl);
    let answer = |call| Event::Answered {
        proxy: ProxyIndex(0),
        call,
        outcome: Ok(Pause::default()),
    };
    let way = [
        (Event::Recorded, "staging"),
        (answer(Call::Stage), "staging"),
        (Event::PatienceEnded, "holding"),
        (answer(Call::Hold), "fencing"),
        (Event::Fenced, "marking"),
        (Event::Applied(MarkerApplied::for_test()), "arming"),
        (answer(Call::Arm), "deciding"),
        (Event::Recorded, "publishing"),
        (Event::RouteKept, "committing"),
        (answer(Call::Commit), "committed"),
    ];
    let mut machine = Cutover::begin(crew, &mut out);
    for (event, state) in way {
        machine = machine.step(event, &mut out).unwrap();
        assert_eq!(machine.name(), state);
    }
    let Cutover::Committed(end) = machine else {
        panic!("{machine:?}");
    };
    assert_eq!(end.outstanding, BTreeSet::from([ProxyIndex(1)]));
    let asked_of_the_dead: Vec<Call> = out
        .iter()
        .filter_map(|action| match action {
            Action::Call { proxy, call, .. } if proxy.0 == 1 => Some(*call),
            _ => None,
        })
        .collect();
    assert_eq!(asked_of_the_dead, [Call::Stage, Call::Commit]);
}

#[test]
fn no_proxy_at_all_is_no_switch_and_a_no_to_the_stage_is_heard() {
    let staging = |out: &mut Vec<Action>| {
        Cutover::begin(Crew::new(PROXIES, FenceLevel::Acl), out)
            .step(Event::Recorded, out)
            .unwrap()
    };
    let mut out = Vec::new();
    let nobody = staging(&mut out)
        .step(Event::PatienceEnded, &mut out)
        .unwrap();
    assert_eq!(nobody.name(), "aborting");
    let refused = Event::Answered {
        proxy: ProxyIndex(1),
        call: Call::Stage,
        outcome: Err(CallFailure::Refused("layout differs".to_owned())),
    };
    let stopped = staging(&mut out).step(refused, &mut out).unwrap();
    assert_eq!(stopped.name(), "aborting");
    assert!(!out.contains(&Action::LowerFence), "nothing was raised");
}

#[test]
fn a_missing_decision_turns_back_unless_a_proxy_committed() {
    use ProxyView::{Clear, Committed, Pending};
    let of = |decided, views: &[ProxyView]| {
        let views: Vec<_> = views.iter().copied().map(Some).collect();
        recovery_of(
            decided,
            FenceLevel::ProxiesOnly,
            &views,
            &Remains::default(),
        )
    };
    assert_eq!(of(false, &[Pending, Pending]), Recovery::Back);
    assert_eq!(of(true, &[Pending, Pending]), Recovery::Forward);
    assert_eq!(of(true, &[Pending, Clear]), Recovery::Back);
    assert_eq!(of(false, &[Pending, Committed]), Recovery::Forward);
    assert_eq!(of(false, &[Clear, Clear]), Recovery::Back);
}

#[test]
fn with_a_fence_silent_proxies_are_made_up_for_by_the_servers() {
    use ProxyView::{Clear, Pending};
    let views = [Some(Pending), None];
    let of = |decided, remains: &Remains| recovery_of(decided, FenceLevel::Acl, &views, remains);
    let fenced = Remains::default();
    let open = Remains {
        is_open: true,
        ..Remains::default()
    };
    let routed = Remains {
        has_route: true,
        ..Remains::default()
    };
    let silent = Remains {
        silent: vec!["127.0.0.1:1".parse().unwrap()],
        ..Remains::default()
    };
    assert_eq!(of(true, &fenced), Recovery::Forward);
    assert_eq!(of(true, &open), Recovery::Back);
    assert_eq!(of(false, &fenced), Recovery::Back);
    assert_eq!(of(false, &routed), Recovery::Forward);
    assert_eq!(of(false, &silent), Recovery::Unknown);
    assert_eq!(of(true, &silent), Recovery::Forward);
    let without_fence = recovery_of(true, FenceLevel::ProxiesOnly, &views, &fenced);
    assert_eq!(without_fence, Recovery::Unknown);
    let heard = [Some(Pending), Some(Clear)];
    let back = recovery_of(false, FenceLevel::Acl, &heard, &silent);
    assert_eq!(back, Recovery::Back);
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
    let mut machine = Cutover::begin(crew(), &mut out);
    for event in way {
        let failed = Event::MoverFailed("dead".to_owned());
        let after = machine.clone().step(failed, &mut out).unwrap();
        let turns_back = matches!(after, Cutover::Aborting(_) | Cutover::Aborted { .. });
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
    let machine = Cutover::begin(crew(), &mut out);
    let machine = machine.step(Event::Recorded, &mut out).unwrap();
    assert!(machine.step(Event::Deadline, &mut out).is_err());
}

#[test]
fn proxies_are_held_only_after_all_are_staged() {
    let mut out = Vec::new();
    let machine = Cutover::begin(crew(), &mut out)
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
