//! The job: the product's own cutover machine and its rule of recovery, with a model
//! of its journal, its calls, and the part that applies the streams.

use std::collections::VecDeque;

use keyferry::reshard::cutover::{Action, Crew, Cutover, Event as Told, Misstep, Proxies};
use keyferry::reshard::fence::FenceLevel;
use keyferry::reshard::mover::MarkerReport;
use keyferry::reshard::moving::MarkerApplied;

use super::event::{Batch, Us};

/// What survives the job's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journaled {
    /// No switch is open.
    Following,
    /// One was intended.
    Intended,
    /// And decided.
    Decided,
    /// And is made.
    Switched,
}

/// A lane from one source to one target.
#[derive(Debug, Default)]
pub struct Lane {
    /// Number of the connection.
    pub link: u32,
    /// Whether it stands; until it does again, batches wait.
    pub is_linked: bool,
    /// Batches that were sent and not answered.
    pub flights: VecDeque<Batch>,
    /// Number of the last batch that was made.
    pub made: u64,
    /// Stream position that its target has behind it.
    pub position: usize,
    pub behind: Us,
}

/// A tap on one source.
#[derive(Debug, Default, Clone)]
pub struct Tap {
    /// Items that were read.
    pub read: usize,
    /// The marker that was read, and where.
    pub marker: Option<(u64, usize)>,
}

pub struct Job {
    pub life: u32,
    pub is_up: bool,
    pub journal: Journaled,
    pub incarnation: u64,
    pub machine: Option<Cutover>,
    pub proxies: usize,
    pub taps: Vec<Tap>,
    pub lanes: Vec<Lane>,
    /// The marker of the switch that is under way; nothing behind it is applied.
    pub cut: Option<u64>,
    pub markers: u64,
    pub turn: u64,
    pub attempts: u64,
    /// Calls that are waited for, by attempt.
    pub awaited: std::collections::BTreeSet<u64>,
    pub switches_tried: u32,
}

impl Job {
    pub fn new(proxies: usize, sources: usize, lanes: usize) -> Job {
        Job {
            life: 1,
            is_up: true,
            journal: Journaled::Following,
            incarnation: 1,
            machine: None,
            proxies,
            taps: vec![Tap::default(); sources],
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            cut: None,
            markers: 0,
            turn: 0,
            attempts: 0,
            awaited: std::collections::BTreeSet::new(),
            switches_tried: 0,
        }
    }

    /// A new switch.
    pub fn begin(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.incarnation += 1;
        self.switches_tried += 1;
        let crew = Crew::new(Proxies(self.proxies), FenceLevel::ProxiesOnly);
        self.machine = Some(Cutover::begin(crew, &mut actions));
        actions
    }

    /// Tells the machine; what it asks for.
    pub fn step(&mut self, event: Told) -> Result<Vec<Action>, Misstep> {
        let mut actions = Vec::new();
        if let Some(machine) = self.machine.take() {
            self.machine = Some(machine.step(event, &mut actions)?);
        }
        Ok(actions)
    }

    /// The proof that only a report of markers gives.
    pub fn applied() -> Told {
        let report = MarkerReport {
            elapsed: std::time::Duration::ZERO,
            sources: Vec::new(),
        };
        Told::Applied(MarkerApplied::of(&report))
    }
}
