//! The job's side of the world: what its machine asks for is done, and what came of
//! it is told.

use keyferry::proxy::control::RefusalReason;
use keyferry::reshard::cutover::{
    AbortReason, Action, Call, CallFailure, Crew, Cutover, Entry, Event as Told, Pause, Proxies,
    ProxyIndex,
};
use keyferry::reshard::fence::FenceLevel;
use keyferry::reshard::fencing::Remains;
use keyferry::reshard::recovery::{ProxyView, Recovery, recovery_of};

use super::event::{Event, Us};
use super::job::Journaled;
use super::proxy::Proxy;
use super::world::{LEASE, Mistake, World};

const CALL_LIMIT: Us = 20_000;

/// Switches that a job tries, at most.
const TRIES_MAX: u32 = 40;

impl World {
    pub fn job_happens(&mut self, event: Event) {
        match event {
            Event::JobTriesSwitch { life } if self.is_life(life) => {
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
            Event::JobDies => self.job_dies(),
            Event::JobStarts => self.job_starts(),
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
                // These sources have no fence: nobody waits for the record of the route.
                Action::KeepRoute => {}
                Action::StartPatience(_) | Action::RaiseFence | Action::LowerFence => {
                    self.fault = Some(format!("{action:?} without a fence"));
                }
            }
        }
        self.look_at_machine();
    }

    fn look_at_machine(&mut self) {
        let state = self.job.machine.as_ref().map(Cutover::name);
        if state.is_some() && state == self.dies_in {
            self.dies_in = None;
            let at = self.now + self.rng.u64(..3_000);
            self.queue.put(at, Event::JobDies);
        }
        let end = match &self.job.machine {
            Some(Cutover::Committed(_)) => Journaled::Switched,
            Some(Cutover::Aborted { .. }) => Journaled::Following,
            Some(Cutover::Aborting(_)) => {
                self.uncut();
                return;
            }
            _ => return,
        };
        self.job.journal = end;
        self.job.machine = None;
        self.job.awaited.clear();
        self.job.turn += 1;
        if end == Journaled::Following {
            self.uncut();
            let (life, again) = (self.job.life, self.now + self.rng.u64(5_000..60_000));
            self.queue.put(again, Event::JobTriesSwitch { life });
        }
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
        if self.is_lost() {
            return;
        }
        let at = self.now + self.step_delay();
        let event = Event::ProxyAsked {
            proxy: proxy.0,
            call,
            incarnation: self.job.incarnation,
            asked_by: life,
            attempt,
        };
        self.queue.put(at, event);
    }

    fn job_dies(&mut self) {
        if !self.job.is_up {
            return;
        }
        self.job.is_up = false;
        self.job.machine = None;
        self.job.awaited.clear();
        self.job.cut = None;
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
            Journaled::Switched => {}
            Journaled::Following => {
                self.start_taps();
                let at = self.now + self.rng.u64(5_000..60_000);
                self.queue.put(at, Event::JobTriesSwitch { life });
            }
            Journaled::Intended | Journaled::Decided => {
                self.queue.put(self.now + 500, Event::JobRecovers { life });
            }
        }
    }

    /// Asks every proxy; nothing is decided before all have answered.
    fn recover(&mut self) {
        let now = self.now;
        let answers = |proxy: &Proxy| proxy.is_up && proxy.stopped_until <= now;
        if !self.proxies.iter().all(answers) {
            let life = self.job.life;
            return self.queue.put(now + 10_000, Event::JobRecovers { life });
        }
        let view = |proxy: &Proxy| match (proxy.record.epoch, &proxy.record.pending) {
            (2, _) => ProxyView::Committed,
            (_, Some(_)) => ProxyView::Pending,
            _ => ProxyView::Clear,
        };
        let views: Vec<_> = self.proxies.iter().map(|proxy| Some(view(proxy))).collect();
        let decided = self.job.journal == Journaled::Decided;
        let fence = FenceLevel::ProxiesOnly;
        let crew = Crew::new(Proxies(self.proxies.len()), fence);
        let mut actions = Vec::new();
        let machine = match recovery_of(decided, fence, &views, &Remains::default()) {
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
}

fn failure(reason: RefusalReason, error: String) -> CallFailure {
    match reason {
        RefusalReason::NotDrained => CallFailure::Lost(error),
        _ => CallFailure::Refused(error),
    }
}
