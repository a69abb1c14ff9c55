//! One proxy: the product's own machine ([`Switching`], [`Heard`]) with a model of
//! what is around it: the state file, the gate, connections, leases.

use std::collections::VecDeque;

use keyferry::proxy::control::{
    GateStatus, SwitchAbort, SwitchArm, SwitchCommit, SwitchHold, SwitchRefusal, SwitchStage,
};
use keyferry::proxy::epochs::StagedSwitch;
use keyferry::proxy::switching::{CommitStep, Heard, LeaseEnd, Switching};
use keyferry::reshard::cutover::Call;
use keyferry::router::epoch::Epoch;
use keyferry::router::spec::LayoutSpec;

use super::event::{Request, Us};

pub const JOB: &str = "job";
/// All that the machines compare of the old layout.
pub const FINGERPRINT: u64 = 9;

/// What is on the proxy's disk.
#[derive(Debug, Clone)]
pub struct Record {
    pub epoch: u64,
    pub decided_by: Option<String>,
    pub pending: Option<StagedSwitch>,
}

/// What a step brought about.
pub enum Done {
    Answer(Result<(), SwitchRefusal>),
    /// Answered when nothing is in flight any more.
    WhenDrained,
}

pub struct Proxy {
    pub life: u32,
    pub is_up: bool,
    pub stopped_until: Us,
    pub record: Record,
    pub switching: Switching,
    heard: Heard,
    turn: u64,
    /// Requests for moving keys that wait.
    pub held: VecDeque<Request>,
    /// Sent and not answered.
    pub in_flight: usize,
    /// Who waits for the drain: asked by, attempt, and the turn of the hold.
    pub draining: Option<(u32, u64)>,
    /// When the next message to each server arrives at the earliest.
    pub behind: Vec<Us>,
}

impl Proxy {
    pub fn new(servers: usize) -> Proxy {
        Proxy {
            life: 0,
            is_up: true,
            stopped_until: 0,
            record: Record {
                epoch: 1,
                decided_by: None,
                pending: None,
            },
            switching: Switching::Calm,
            heard: Heard::default(),
            turn: 0,
            held: VecDeque::new(),
            in_flight: 0,
            draining: None,
            behind: vec![0; servers],
        }
    }

    /// As a process that finds its state file.
    pub fn start(&mut self, now: Us) {
        self.life += 1;
        self.is_up = true;
        self.heard = Heard::default();
        self.switching = match &self.record.pending {
            Some(switch) => Switching::Fenced(switch.clone()),
            None => Switching::Calm,
        };
        self.held.clear();
        self.in_flight = 0;
        self.draining = None;
        self.behind = vec![now; self.behind.len()];
    }

    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// A step of the switch.
    pub fn take(&mut self, call: Call, incarnation: u64, lease_ms: u64) -> Done {
        let answer = match call {
            Call::Stage => self.stage(incarnation),
            Call::Hold => match self.hold(incarnation, lease_ms) {
                Ok(()) => return Done::WhenDrained,
                Err(refusal) => Err(refusal),
            },
            Call::Arm => self.arm(incarnation, lease_ms),
            Call::Commit => self.commit(incarnation),
            Call::Abort => self.abort(incarnation),
        };
        Done::Answer(answer)
    }

    fn stage(&mut self, incarnation: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear_stage(JOB, incarnation)?;
        let ask = SwitchStage {
            job: JOB.into(),
            epoch: 2,
            incarnation,
            from_fingerprint: FINGERPRINT,
            to: LayoutSpec::default(),
            logins: Vec::new(),
        };
        let epoch = Epoch(self.record.epoch);
        let switch = self.switching.check_stage(&ask, epoch, FINGERPRINT)?;
        self.record.pending = Some(switch.clone());
        self.switching.staged(switch);
        Ok(())
    }

    fn hold(&mut self, incarnation: u64, lease_ms: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, incarnation)?;
        self.turn += 1;
        let ask = SwitchHold {
            job: JOB.into(),
            epoch: 2,
            incarnation,
            lease_ms,
        };
        self.switching.hold(&ask, self.turn).map(drop)
    }

    fn arm(&mut self, incarnation: u64, lease_ms: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, incarnation)?;
        self.turn += 1;
        let ask = SwitchArm {
            job: JOB.into(),
            epoch: 2,
            incarnation,
            lease_ms,
        };
        self.switching.arm(&ask, self.turn)
    }

    fn commit(&mut self, incarnation: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, incarnation)?;
        let ask = SwitchCommit {
            job: JOB.into(),
            epoch: 2,
            incarnation,
            fenced: false,
            to: None,
            logins: Vec::new(),
        };
        let epoch = Epoch(self.record.epoch);
        let decided_by = self.record.decided_by.as_deref();
        match self.switching.check_commit(&ask, epoch, decided_by)? {
            CommitStep::AlreadyDone => {}
            CommitStep::Switch(switch) => {
                self.record = Record {
                    epoch: switch.epoch,
                    decided_by: Some(switch.job),
                    pending: None,
                };
                self.switching.settle();
            }
        }
        Ok(())
    }

    fn abort(&mut self, incarnation: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, incarnation)?;
        let ask = SwitchAbort {
            job: JOB.into(),
            epoch: 2,
            incarnation,
        };
        let epoch = Epoch(self.record.epoch);
        let decided_by = self.record.decided_by.as_deref();
        let pending = self.switching.check_abort(&ask, epoch, decided_by)?;
        self.heard.aborted();
        if pending {
            self.switching.settle();
            self.record.pending = None;
        }
        Ok(())
    }

    pub fn lease_ended(&mut self, turn: u64) -> LeaseEnd {
        self.switching.lease_ended(turn)
    }

    pub fn gate(&self) -> GateStatus {
        self.switching.gate()
    }
}
