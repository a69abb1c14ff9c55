//! What may happen in the simulated world, and when: a queue of events by virtual
//! time. Of two at one moment the one that was put in first comes first, so that a
//! seed gives the same run each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use keyferry::proxy::control::SwitchRefusal;
use keyferry::reshard::cutover::{Call, ProxyIndex};

/// Virtual microseconds.
pub type Us = u64;

/// A client's operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u32);

/// A key; all of them move.
pub type Key = usize;

/// A proxy asks a server to append to a key, or to count what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub op: OpId,
    pub key: Key,
    pub is_write: bool,
    /// The epoch by which it is routed.
    pub epoch: u64,
    /// The epoch whose user asks.
    pub user: u64,
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The length of the key's list, after the append if it was one.
    Length(usize),
    /// The user may not; nothing ran.
    NoPermission,
}

/// What a server says to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostAnswer {
    /// The fence key is watched; its version.
    Watched(u64),
    Done,
    /// The fence key was changed behind the watch.
    Nothing,
}

/// A batch of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub number: u64,
    pub writes: Vec<(Key, OpId)>,
    /// Stream position behind it.
    pub position: usize,
}

/// What the job's post at a server is told, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Fence and marker in one transaction: this epoch's logins have no rights.
    Raise { epoch: u64, marker: u64 },
    /// Its rights back.
    Lower { epoch: u64 },
    /// The route record, and the fence with it.
    KeepRoute { epoch: u64 },
}

/// A step of the switch, as it is sent to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub call: Call,
    pub epoch: u64,
    pub incarnation: u64,
    /// The sources are fenced.
    pub is_fenced: bool,
    /// Which process asks, and to which attempt it wants the answer.
    pub life: u32,
    pub attempt: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    ClientSends {
        client: usize,
    },
    ServerTakes {
        server: usize,
        proxy: usize,
        life: u32,
        request: Request,
    },
    ProxyGets {
        proxy: usize,
        life: u32,
        request: Request,
        reply: Reply,
    },
    /// A step of the switch reaches a proxy.
    ProxyAsked {
        proxy: usize,
        asked: Asked,
    },
    JobAnswered {
        life: u32,
        proxy: ProxyIndex,
        call: Call,
        attempt: u64,
        answer: Result<(), SwitchRefusal>,
    },
    /// The job has waited long enough for an answer.
    CallTimedOut {
        life: u32,
        proxy: ProxyIndex,
        call: Call,
        attempt: u64,
    },
    JobAsks {
        life: u32,
        proxy: ProxyIndex,
        call: Call,
    },
    LeaseEnds {
        proxy: usize,
        life: u32,
        turn: u64,
    },
    Recorded {
        life: u32,
    },
    Deadline {
        life: u32,
        turn: u64,
    },
    /// What the last step was patient for is not awaited any more.
    PatienceEnds {
        life: u32,
        turn: u64,
    },
    /// A post's message; `watched` is what the fence key was when it was looked at.
    /// What a dead process has sent arrives too.
    PostReaches {
        life: u32,
        server: usize,
        number: u64,
        order: Order,
        watched: Option<u64>,
    },
    PostAnswered {
        life: u32,
        server: usize,
        number: u64,
        answer: PostAnswer,
    },
    /// No answer came: it is sent again.
    PostTimesOut {
        life: u32,
        server: usize,
        number: u64,
    },
    /// A late proxy is told again how the switch ended.
    Reminds {
        life: u32,
        proxy: usize,
    },
    /// A proxy whose request was refused asks that server for the route.
    RouteAsked {
        proxy: usize,
        life: u32,
        server: usize,
    },
    RouteTold {
        proxy: usize,
        life: u32,
        server: usize,
        refuses: u64,
        route: u64,
    },
    MarkerReaches {
        life: u32,
        source: usize,
        marker: u64,
    },
    TapReads {
        life: u32,
        source: usize,
        turn: u64,
    },
    BatchReaches {
        lane: usize,
        link: u32,
        batch: Batch,
    },
    CheckpointReaches {
        lane: usize,
        link: u32,
        number: u64,
        position: usize,
    },
    BatchAnswered {
        lane: usize,
        link: u32,
        number: u64,
    },
    LaneBreaks {
        lane: usize,
    },
    LaneComesBack {
        lane: usize,
        link: u32,
    },
    JobTriesSwitch {
        life: u32,
    },
    JobRecovers {
        life: u32,
    },
    JobDies,
    JobStarts,
    ProxyDies {
        proxy: usize,
    },
    ProxyStarts {
        proxy: usize,
    },
    ProxyStops {
        proxy: usize,
        until: Us,
    },
}

impl Event {
    /// Its kind, in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Event::ClientSends { .. } => "ClientSends",
            Event::ServerTakes { .. } => "ServerTakes",
            Event::ProxyGets { .. } => "ProxyGets",
            Event::TapReads { .. } => "TapReads",
            Event::BatchReaches { .. } => "BatchReaches",
            Event::CheckpointReaches { .. } => "CheckpointReaches",
            Event::BatchAnswered { .. } => "BatchAnswered",
            _ => "other",
        }
    }
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<(Us, u64)>>,
    events: std::collections::HashMap<u64, Event>,
    next: u64,
}

impl Queue {
    pub fn put(&mut self, at: Us, event: Event) {
        self.heap.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    pub fn take(&mut self) -> Option<(Us, Event)> {
        let Reverse((at, number)) = self.heap.pop()?;
        let event = self.events.remove(&number)?;
        Some((at, event))
    }
}
