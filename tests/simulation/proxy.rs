//! One proxy: the product's own machine ([`Switching`], [`Heard`]) with a model of
//! what is around it: the state file, the gate, connections, leases.

use std::collections::{BTreeSet, VecDeque};

use keyferry::proxy::control::{
    GateStatus, SwitchAbort, SwitchArm, SwitchCommit, SwitchHold, SwitchRefusal, SwitchStage,
};
use keyferry::proxy::epochs::StagedSwitch;
use keyferry::proxy::switching::{CommitStep, Heard, LeaseEnd, Switching};
use keyferry::reshard::cutover::Call;
use keyferry::router::epoch::Epoch;
use keyferry::router::route_record::RouteRecord;
use keyferry::router::spec::LayoutSpec;

use super::event::{Asked, Request, Us};

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
    /// The hold that waits for the drain.
    pub draining: Option<Asked>,
    /// Requests that a server refused, by server, and since when they wait.
    pub refused: VecDeque<(usize, Request, Us)>,
    /// Servers that are being asked for the route.
    pub asking: BTreeSet<usize>,
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
            refused: VecDeque::new(),
            asking: BTreeSet::new(),
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
        self.refused.clear();
        self.asking.clear();
        self.behind = vec![now; self.behind.len()];
    }

    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// A step of the switch.
    pub fn take(&mut self, asked: &Asked, lease_ms: u64) -> Done {
        let answer = match asked.call {
            Call::Stage => self.stage(asked),
            Call::Hold => match self.hold(asked, lease_ms) {
                Ok(()) => return Done::WhenDrained,
                Err(refusal) => Err(refusal),
            },
            Call::Arm => self.arm(asked, lease_ms),
            Call::Commit => self.commit(asked),
            Call::Abort => self.abort(asked),
        };
        Done::Answer(answer)
    }

    fn stage(&mut self, asked: &Asked) -> Result<(), SwitchRefusal> {
        self.heard.hear_stage(JOB, asked.incarnation)?;
        let ask = SwitchStage {
            job: JOB.into(),
            epoch: asked.epoch,
            incarnation: asked.incarnation,
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

    fn hold(&mut self, asked: &Asked, lease_ms: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, asked.incarnation)?;
        self.turn += 1;
        let ask = SwitchHold {
            job: JOB.into(),
            epoch: asked.epoch,
            incarnation: asked.incarnation,
            lease_ms,
        };
        self.switching.hold(&ask, self.turn).map(drop)
    }

    fn arm(&mut self, asked: &Asked, lease_ms: u64) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, asked.incarnation)?;
        self.turn += 1;
        let ask = SwitchArm {
            job: JOB.into(),
            epoch: asked.epoch,
            incarnation: asked.incarnation,
            lease_ms,
        };
        self.switching.arm(&ask, self.turn)
    }

    fn commit(&mut self, asked: &Asked) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, asked.incarnation)?;
        let ask = SwitchCommit {
            job: JOB.into(),
            epoch: asked.epoch,
            incarnation: asked.incarnation,
            fenced: asked.is_fenced,
            to: asked.is_fenced.then(LayoutSpec::default),
            logins: Vec::new(),
        };
        let epoch = Epoch(self.record.epoch);
        let decided_by = self.record.decided_by.as_deref();
        match self.switching.check_commit(&ask, epoch, decided_by)? {
            CommitStep::AlreadyDone => {}
            CommitStep::Switch(switch) => self.decide(switch),
        }
        Ok(())
    }

    /// A commit that is taken without a look at its epoch.
    pub fn obey(&mut self, asked: &Asked) -> Done {
        self.record.epoch = asked.epoch;
        self.record.pending = None;
        self.switching.settle();
        Done::Answer(Ok(()))
    }

    /// A route record that was found on a server; whether it is taken.
    pub fn adopt(&mut self, epoch: u64) -> bool {
        let found = RouteRecord::new("pool", JOB, epoch, LayoutSpec::default());
        let found = self
            .switching
            .check_record(&found, Epoch(self.record.epoch));
        found.map(|switch| self.decide(switch)).is_some()
    }

    fn decide(&mut self, switch: StagedSwitch) {
        self.record = Record {
            epoch: switch.epoch,
            decided_by: Some(switch.job),
            pending: None,
        };
        self.switching.settle();
        self.draining = None;
    }

    fn abort(&mut self, asked: &Asked) -> Result<(), SwitchRefusal> {
        self.heard.hear(JOB, asked.incarnation)?;
        let ask = SwitchAbort {
            job: JOB.into(),
            epoch: asked.epoch,
            incarnation: asked.incarnation,
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
