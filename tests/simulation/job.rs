//! The job: the product's own cutover machine and its rule of recovery, with a model
//! of its journal, its calls, its posts, and the part that applies the streams.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use keyferry::reshard::cutover::{
    Action, Call, Crew, Cutover, Event as Told, Misstep, Proxies, ProxyIndex, Step,
};
use keyferry::reshard::fence::FenceLevel;
use keyferry::reshard::mover::MarkerReport;
use keyferry::reshard::moving::MarkerApplied;

use super::event::{Batch, Order, Us};
use super::world::{SOURCES, TARGETS};

/// What survives the job's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journaled {
    /// No switch is open.
    Following,
    /// One was intended.
    Intended,
    /// And decided.
    Decided,
    /// The job is done.
    Ended,
}

/// Which way keys and routes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From epoch 1 to 2.
    There,
    /// From epoch 2 to 3.
    Back,
}

impl Way {
    /// The way that leads to an epoch.
    pub fn to(epoch: u64) -> Way {
        match epoch {
            3 => Way::Back,
            _ => Way::There,
        }
    }

    /// Servers whose keys go.
    pub fn sources(self) -> Range<usize> {
        match self {
            Way::There => 0..SOURCES,
            Way::Back => SOURCES..SOURCES + TARGETS,
        }
    }

    /// The epoch that a switch this way brings.
    pub fn epoch(self) -> u64 {
        match self {
            Way::There => 2,
            Way::Back => 3,
        }
    }
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
    /// Which tap it is: one that was given up reads no more.
    pub turn: u64,
}

/// The post at one server: one order at a time.
#[derive(Debug, Default)]
pub struct Post {
    pub orders: VecDeque<Order>,
    /// Number of the message that is awaited.
    pub number: u64,
    pub is_busy: bool,
}

pub struct Job {
    pub life: u32,
    pub is_up: bool,
    pub journal: Journaled,
    pub way: Way,
    /// What keeps the epoch before off the servers.
    pub level: FenceLevel,
    /// Whether the operator wants to go back after the switch.
    pub wants_back: bool,
    pub incarnation: u64,
    pub machine: Option<Cutover>,
    pub proxies: usize,
    pub taps: Vec<Tap>,
    pub lanes: Vec<Lane>,
    pub posts: Vec<Post>,
    /// The cut whose fence is wanted.
    pub wanted: Option<u64>,
    /// Servers that have carried out what all of them are told.
    pub done_at: BTreeSet<usize>,
    /// What a step is patient for, and which patience it is.
    pub patience: (Option<Step>, u64),
    /// Late proxies, and how the switch ended.
    pub reminded: BTreeMap<usize, Call>,
    pub reminders: BTreeMap<u64, usize>,
    /// Where the coming owners' streams were when the last marker was applied.
    pub taken: Vec<usize>,
    /// The same of the switch there, as the journal has it.
    pub positions: Vec<usize>,
    /// The marker of the switch that is under way; nothing behind it is applied.
    pub cut: Option<u64>,
    pub markers: u64,
    pub tapping: u64,
    pub turn: u64,
    pub attempts: u64,
    /// Calls that are waited for, by attempt.
    pub awaited: BTreeSet<u64>,
    pub switches_tried: u32,
}

impl Job {
    pub fn new(proxies: usize, servers: usize, sources: usize, lanes: usize) -> Job {
        Job {
            life: 1,
            is_up: true,
            journal: Journaled::Following,
            way: Way::There,
            level: FenceLevel::ProxiesOnly,
            wants_back: false,
            incarnation: 1,
            machine: None,
            proxies,
            taps: vec![Tap::default(); sources],
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            posts: (0..servers).map(|_| Post::default()).collect(),
            wanted: None,
            done_at: BTreeSet::new(),
            patience: (None, 0),
            reminded: BTreeMap::new(),
            reminders: BTreeMap::new(),
            taken: Vec::new(),
            positions: Vec::new(),
            cut: None,
            markers: 0,
            tapping: 0,
            turn: 0,
            attempts: 0,
            awaited: BTreeSet::new(),
            switches_tried: 0,
        }
    }

    /// A new switch.
    pub fn begin(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.incarnation += 1;
        self.switches_tried += 1;
        self.reminded.clear();
        self.reminders.clear();
        let crew = Crew::new(Proxies(self.proxies), self.level);
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

    /// The switch ended; who has not confirmed it is told again.
    pub fn remind(&mut self, call: Call, late: impl IntoIterator<Item = ProxyIndex>) {
        self.reminders.clear();
        self.reminded = late.into_iter().map(|proxy| (proxy.0, call)).collect();
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
