//! The job's side of the world: what its machine asks for is done, and what came of
//! it is told.

use keyferry::proxy::control::RefusalReason;
use keyferry::reshard::cutover::{
    AbortReason, Action, Call, CallFailure, Crew, Cutover, Entry, Event as Told, Pause, Proxies,
    ProxyIndex, Step,
};
use keyferry::reshard::fence::FenceLevel;
use keyferry::reshard::fencing::Remains;
use keyferry::reshard::recovery::{ProxyView, Recovery, recovery_of};

use super::event::{Asked, Event, Order, Us};
use super::job::{Journaled, Way};
use super::proxy::Proxy;
use super::world::{LEASE, Mistake, SOURCES, TARGETS, World};

const CALL_LIMIT: Us = 20_000;

/// How long a step waits for proxies that may be late.
const PATIENCE: Us = 15_000;

/// The same where nobody is held, or the end is decided.
const END_PATIENCE: Us = 60_000;

/// Pause between two words to a late proxy.
const REMIND_EVERY: Us = 8_000;

/// Switches that a job tries, at most.
const TRIES_MAX: u32 = 40;

impl World {
    pub fn job_happens(&mut self, event: Event) {
        match event {
            Event::JobTriesSwitch { life } if self.is_life(life) => {
                self.check_lowered();
                if self.job.machine.is_none() && self.job.switches_tried < TRIES_MAX {
                    let actions = self.job.begin();
                    self.act(actions);
                }
            }
            Event::JobRecovers { life } if self.is_life(life) => self.recover(),
            Event::Recorded { life } if self.is_life(life) => self.tell(Told::Recorded),
            Event::Deadline { life, turn } if self.is_life(life) && turn == self.job.turn => {
                self.tell(Told::Deadline);
            }
            Event::JobAsks { life, proxy, call } if self.is_life(life) => self.ask(proxy, call),
            Event::JobAnswered {
                life,
                proxy,
                call,
                attempt,
                answer,
            } if self.is_life(life) && self.job.reminders.contains_key(&attempt) => {
                let _ = proxy;
                // A refused abort means that nothing is pending there.
                if answer.is_ok() || call == Call::Abort {
                    let late = self.job.reminders.remove(&attempt);
                    late.and_then(|late| self.job.reminded.remove(&late));
                }
            }
            Event::JobAnswered {
                life,
                proxy,
                call,
                attempt,
                answer,
            } if self.is_life(life) && self.job.awaited.remove(&attempt) => {
                let outcome = match answer {
                    Ok(()) => Ok(Pause::default()),
                    Err(refusal) => Err(failure(refusal.reason, refusal.error)),
                };
                self.tell(Told::Answered {
                    proxy,
                    call,
                    outcome,
                });
            }
            Event::CallTimedOut {
                life,
                proxy,
                call,
                attempt,
            } if self.is_life(life) && self.job.awaited.remove(&attempt) => {
                let outcome = Err(CallFailure::Lost("no answer in time".into()));
                self.tell(Told::Answered {
                    proxy,
                    call,
                    outcome,
                });
            }
            Event::PatienceEnds { life, turn }
                if self.is_life(life) && self.job.patience.1 == turn =>
            {
                self.job.patience = (None, turn + 1);
                self.tell(Told::PatienceEnded);
            }
            Event::Reminds { life, proxy } if self.is_life(life) => self.reminds(proxy),
            Event::JobDies => self.job_dies(),
            Event::JobStarts => self.job_starts(),
            Event::PostReaches { .. } | Event::PostAnswered { .. } | Event::PostTimesOut { .. } => {
                self.post_happens(event);
            }
            other => self.mover_happens(other),
        }
    }

    pub fn is_life(&self, life: u32) -> bool {
        self.job.is_up && self.job.life == life
    }

    pub fn tell(&mut self, event: Told) {
        match self.job.step(event) {
            Ok(actions) => self.act(actions),
            Err(misstep) => self.fault = Some(misstep.to_string()),
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let life = self.job.life;
        for action in actions {
            match action {
                Action::Record(entry) => {
                    // It is on disk, or the process dies before it is: at once.
                    if entry == Entry::Decision && self.job.way == Way::There {
                        self.job.positions = self.job.taken.clone();
                    }
                    match entry {
                        Entry::Intent => self.job.journal = Journaled::Intended,
                        Entry::Decision if self.mistake == Mistake::DecisionNotRecorded => {}
                        Entry::Decision => self.job.journal = Journaled::Decided,
                    }
                    let at = self.now + self.rng.u64(10..2_000);
                    self.queue.put(at, Event::Recorded { life });
                }
                Action::Call {
                    proxy,
                    call,
                    attempt,
                } => {
                    let at = self.now + u64::from(attempt.min(10)) * 3_000;
                    self.queue.put(at, Event::JobAsks { life, proxy, call });
                }
                Action::StartDeadline => {
                    self.job.turn += 1;
                    let turn = self.job.turn;
                    self.queue
                        .put(self.now + LEASE, Event::Deadline { life, turn });
                }
                Action::PublishMarker => self.publish_markers(),
                Action::StartPatience(step) => self.start_patience(step),
                Action::RaiseFence if self.mistake == Mistake::FenceSkipped => {
                    self.publish_markers();
                    self.tell(Told::Fenced);
                }
                Action::RaiseFence => {
                    let marker = self.cut();
                    self.job.wanted = Some(marker);
                    let epoch = self.job.way.epoch() - 1;
                    self.order(Order::Raise { epoch, marker });
                }
                Action::LowerFence if self.mistake == Mistake::FenceLeftUp => {
                    self.tell(Told::Unfenced);
                }
                Action::LowerFence => {
                    self.job.wanted = None;
                    self.uncut();
                    let epoch = self.job.way.epoch() - 1;
                    self.order(Order::Lower { epoch });
                }
                Action::KeepRoute => {
                    let epoch = self.job.way.epoch();
                    self.order(Order::KeepRoute { epoch });
                    if self.mistake == Mistake::UnfencedEarly {
                        self.order(Order::Lower { epoch: epoch - 1 });
                    }
                }
            }
        }
        self.look_at_machine();
    }

    fn start_patience(&mut self, step: Step) {
        let turn = self.job.patience.1 + 1;
        self.job.patience = (Some(step), turn);
        let time = match step {
            Step::Holding | Step::Arming => PATIENCE,
            Step::Staging | Step::Committing | Step::Unfencing | Step::Aborting => END_PATIENCE,
        };
        let life = self.job.life;
        let event = Event::PatienceEnds { life, turn };
        self.queue.put(self.now + time, event);
    }

    /// The patience with a step ends with it.
    fn look_at_patience(&mut self) {
        let now = self.job.machine.as_ref().and_then(Cutover::patience);
        let (step, turn) = self.job.patience;
        if step.is_some() && step != now {
            self.job.patience = (None, turn + 1);
        }
    }

    fn reminds(&mut self, proxy: usize) {
        let Some(call) = self.job.reminded.get(&proxy).copied() else {
            return;
        };
        self.job.attempts += 1;
        let attempt = self.job.attempts;
        self.job.reminders.insert(attempt, proxy);
        self.put_call(proxy, call, attempt);
        let life = self.job.life;
        let again = Event::Reminds { life, proxy };
        self.queue.put(self.now + REMIND_EVERY, again);
    }

    fn look_at_machine(&mut self) {
        let state = self.job.machine.as_ref().map(Cutover::name);
        if state.is_some() && state == self.dies_in.last().copied() {
            self.dies_in.pop();
            let at = self.now + self.rng.u64(..3_000);
            self.queue.put(at, Event::JobDies);
        }
        self.look_at_patience();
        let (call, late) = match &self.job.machine {
            Some(Cutover::Committed(end)) => (Call::Commit, end.outstanding.clone()),
            Some(Cutover::Aborted { outstanding, .. }) => (Call::Abort, outstanding.clone()),
            Some(Cutover::Aborting(_)) => {
                self.job.wanted = None;
                return self.uncut();
            }
            _ => return,
        };
        self.job.machine = None;
        self.job.awaited.clear();
        self.job.turn += 1;
        self.job.remind(call, late);
        let life = self.job.life;
        for proxy in self.job.reminded.keys() {
            let proxy = *proxy;
            let event = Event::Reminds { life, proxy };
            self.queue.put(self.now + REMIND_EVERY, event);
        }
        match call {
            Call::Commit => self.committed(),
            _ => {
                self.job.journal = Journaled::Following;
                self.uncut();
                self.try_later();
            }
        }
    }

    fn try_later(&mut self) {
        let (life, again) = (self.job.life, self.now + self.rng.u64(5_000..60_000));
        self.queue.put(again, Event::JobTriesSwitch { life });
    }

    /// From here on keys and routes go the other way, or no way any more.
    fn committed(&mut self) {
        self.job.cut = None;
        let goes_back = self.job.way == Way::There && self.job.wants_back;
        if !goes_back {
            self.job.journal = Journaled::Ended;
            return;
        }
        if self.mistake == Mistake::ReverseStartsLate {
            self.take_positions();
            self.job.positions = self.job.taken.clone();
        }
        self.job.way = Way::Back;
        self.job.journal = Journaled::Following;
        self.job.switches_tried = 0;
        self.start_taps();
        self.try_later();
    }

    fn ask(&mut self, proxy: ProxyIndex, call: Call) {
        self.job.attempts += 1;
        let (life, attempt) = (self.job.life, self.job.attempts);
        self.job.awaited.insert(attempt);
        let late = Event::CallTimedOut {
            life,
            proxy,
            call,
            attempt,
        };
        let patience = match call {
            Call::Hold => LEASE + CALL_LIMIT,
            _ => CALL_LIMIT,
        };
        self.queue.put(self.now + patience, late);
        self.put_call(proxy.0, call, attempt);
    }

    fn put_call(&mut self, proxy: usize, call: Call, attempt: u64) {
        if self.is_lost() {
            return;
        }
        let at = self.now + self.step_delay();
        // A reminder of a switch that is made: the way may have turned since.
        let epoch = match self.job.reminders.contains_key(&attempt) && call == Call::Commit {
            true if self.job.journal != Journaled::Ended => self.job.way.epoch() - 1,
            _ => self.job.way.epoch(),
        };
        let asked = Asked {
            call,
            epoch,
            incarnation: self.job.incarnation,
            is_fenced: self.job.level == FenceLevel::Acl,
            life: self.job.life,
            attempt,
        };
        self.queue.put(at, Event::ProxyAsked { proxy, asked });
    }

    fn job_dies(&mut self) {
        if !self.job.is_up {
            return;
        }
        self.job.is_up = false;
        self.job.machine = None;
        self.job.awaited.clear();
        self.job.cut = None;
        self.job.wanted = None;
        self.job.patience = (None, self.job.patience.1 + 1);
        self.job.reminded.clear();
        self.job.reminders.clear();
        for post in &mut self.job.posts {
            *post = super::job::Post::default();
        }
        self.break_all_lanes();
        let at = self.now + self.rng.u64(500..30_000);
        self.queue.put(at, Event::JobStarts);
    }

    fn job_starts(&mut self) {
        self.job.is_up = true;
        self.job.life += 1;
        self.job.incarnation += 1;
        let life = self.job.life;
        match self.job.journal {
            Journaled::Ended => {}
            Journaled::Following => {
                if self.job.level == FenceLevel::Acl {
                    // An earlier process may have ended before its fence was down.
                    let epoch = self.job.way.epoch() - 1;
                    self.order(Order::Lower { epoch });
                }
                self.start_taps();
                self.try_later();
            }
            Journaled::Intended | Journaled::Decided => {
                self.queue.put(self.now + 500, Event::JobRecovers { life });
            }
        }
    }

    /// Asks every proxy; nothing is decided before all have answered, but for those
    /// that a fence makes up for.
    fn recover(&mut self) {
        let (now, goal, fence) = (self.now, self.job.way.epoch(), self.job.level);
        let answers = |proxy: &Proxy| proxy.is_up && proxy.stopped_until <= now;
        if fence < FenceLevel::Acl && !self.proxies.iter().all(answers) {
            let life = self.job.life;
            return self.queue.put(now + 10_000, Event::JobRecovers { life });
        }
        let view = |proxy: &Proxy| {
            let is_ours = |pending: &&keyferry::proxy::epochs::StagedSwitch| pending.epoch == goal;
            answers(proxy).then(|| match &proxy.record {
                record if record.epoch == goal => ProxyView::Committed,
                record if record.pending.as_ref().is_some_and(|one| is_ours(&one)) => {
                    ProxyView::Pending
                }
                _ => ProxyView::Clear,
            })
        };
        let views: Vec<_> = self.proxies.iter().map(view).collect();
        let decided = self.job.journal == Journaled::Decided;
        let remains = match fence {
            FenceLevel::Acl => Remains {
                is_open: self.servers[self.job.way.sources()]
                    .iter()
                    .any(|server| server.refuses < goal - 1),
                has_route: self.servers.iter().any(|server| server.route == goal),
                silent: Vec::new(),
            },
            _ => Remains::default(),
        };
        let silent = views.iter().enumerate().filter(|(_, view)| view.is_none());
        let silent: Vec<_> = silent.map(|(at, _)| ProxyIndex(at)).collect();
        let crew = Crew::new(Proxies(self.proxies.len()), fence).with_late(silent);
        let mut actions = Vec::new();
        let machine = match recovery_of(decided, fence, &views, &remains) {
            Recovery::Forward => Cutover::recover_forward(crew, &mut actions),
            Recovery::Back => {
                self.start_taps();
                let why = AbortReason::GivenUp("interrupted".into());
                Cutover::recover_back(crew, why, &mut actions)
            }
            Recovery::Unknown => {
                self.fault = Some("every proxy answered, and that is not enough".to_owned());
                return;
            }
        };
        self.job.machine = Some(machine);
        self.act(actions);
    }

    /// I5: with no switch under way, and nothing more to be said to it, no source
    /// refuses the epoch that is in force.
    fn check_lowered(&mut self) {
        let epoch = self.job.way.epoch() - 1;
        let is_calm = self.job.machine.is_none();
        for server in self.job.way.sources() {
            let is_told_all = self.job.posts[server].orders.is_empty();
            if is_calm && is_told_all && self.servers[server].refuses >= epoch {
                self.fault = Some(format!("I5: source {server} refuses epoch {epoch}"));
            }
        }
    }

    /// Where the streams of the coming owners are.
    pub fn take_positions(&mut self) {
        let from = match self.job.way {
            Way::There => SOURCES..SOURCES + TARGETS,
            Way::Back => 0..SOURCES,
        };
        let length = |server: &super::server::Server| server.stream.len();
        self.job.taken = self.servers[from].iter().map(length).collect();
    }
}

fn failure(reason: RefusalReason, error: String) -> CallFailure {
    match reason {
        RefusalReason::NotDrained => CallFailure::Lost(error),
        _ => CallFailure::Refused(error),
    }
}
