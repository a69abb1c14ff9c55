//! The simulated world: two sources, two targets, two proxies with their clients,
//! one job; faults from a seed. One thread, virtual time: a seed is a run. In half of
//! the seeds the sources have a fence, in half of these the job goes back again.

use fastrand::Rng;
use keyferry::proxy::control::GateStatus;
use keyferry::proxy::switching::LeaseEnd;
use keyferry::reshard::cutover::{Call, Cutover, ProxyIndex};
use keyferry::reshard::fence::FenceLevel;

use super::check::{Log, Logged, Outcome, check_key};
use super::event::{Asked, Event, Key, OpId, Queue, Reply, Request, Us};
use super::job::{Job, Journaled, Way};
use super::proxy::{Done, Proxy};
use super::server::Server;

pub const SOURCES: usize = 2;
pub const TARGETS: usize = 2;
const PROXIES: usize = 2;
const CLIENTS: usize = 6;
const KEYS: usize = 4;

/// Clients stop here, faults before.
const LOAD_ENDS: Us = 450_000;
pub const FAULTS_END: Us = 350_000;
/// By then everything has come to rest, or it never will.
const END: Us = 60_000_000;

pub const LEASE: Us = 50_000;

/// Longest time that a refused request waits for its route.
const REFUSED_MAX: Us = 60_000;

/// How often a proxy asks a server again for the route.
const ASK_AGAIN: Us = 5_000;

/// Mistakes of the model's own, to see that the checks see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// What the checkpoint covers is sent again.
    BatchAppliedTwice,
    /// The checkpoint goes after the batch, by itself.
    CheckpointOutsideMulti,
    /// Two batches change places.
    LanesReordered,
    /// The marker counts before it is applied.
    MarkerIgnored,
    /// Proxies forward while they say that they hold.
    HoldIgnored,
    /// The decision is not in the journal.
    DecisionNotRecorded,
    /// The sources are not fenced, though the job believes so.
    FenceSkipped,
    /// The fence is taken off when the commits go out.
    UnfencedEarly,
    /// The fence stays up after an abort.
    FenceLeftUp,
    /// A fence that arrives late goes up though it was lowered since.
    FenceNotWatched,
    /// What the process before it sent is executed whenever it arrives.
    OldPostsLinger,
    /// A commit is taken whatever its epoch is.
    EpochUnchecked,
    /// What an earlier start of the job said is believed, whenever it arrives.
    IncarnationUnchecked,
    /// Proxies log in as a user whose rights never end.
    NoEpochUsers,
    /// The way back begins where the streams are when the switch has ended.
    ReverseStartsLate,
}

pub struct World {
    pub now: Us,
    pub rng: Rng,
    pub queue: Queue,
    pub servers: Vec<Server>,
    pub proxies: Vec<Proxy>,
    pub job: Job,
    pub log: Log,
    pub mistake: Mistake,
    /// Each client's operation that is open.
    open: Vec<Option<OpId>>,
    next_op: u32,
    pub fault: Option<String>,
    /// In these states of its machine the job dies, the last one first.
    pub dies_in: Vec<&'static str>,
    /// Whether it tells what happens.
    pub is_told: bool,
}

/// What happens too often to be told.
const IN_BULK: [&str; 7] = [
    "ClientSends",
    "ServerTakes",
    "ProxyGets",
    "TapReads",
    "BatchReaches",
    "CheckpointReaches",
    "BatchAnswered",
];

/// Where a job may die, in the machine's own words.
const STATES: [&str; 11] = [
    "recording",
    "staging",
    "holding",
    "fencing",
    "marking",
    "arming",
    "deciding",
    "publishing",
    "committing",
    "unfencing",
    "aborting",
];

pub fn source_of(key: Key) -> usize {
    key % SOURCES
}

pub fn target_of(key: Key) -> usize {
    SOURCES + (key / SOURCES) % TARGETS
}

/// Who has a key in an epoch.
fn owner(key: Key, epoch: u64) -> usize {
    match epoch {
        2 => target_of(key),
        _ => source_of(key),
    }
}

impl World {
    pub fn new(seed: u64, mistake: Mistake) -> World {
        let mut world = World {
            now: 0,
            rng: Rng::with_seed(seed),
            queue: Queue::default(),
            servers: (0..SOURCES + TARGETS).map(|_| Server::default()).collect(),
            proxies: (0..PROXIES)
                .map(|_| Proxy::new(SOURCES + TARGETS))
                .collect(),
            job: Job::new(PROXIES, SOURCES + TARGETS, SOURCES, SOURCES * TARGETS),
            log: Log::new(),
            mistake,
            open: vec![None; CLIENTS],
            next_op: 0,
            fault: None,
            dies_in: Vec::new(),
            is_told: false,
        };
        if world.rng.bool() {
            world.job.level = FenceLevel::Acl;
            // What a dead proxy has sent runs on servers without a fence: no way back.
            world.job.wants_back = world.rng.bool();
        }
        for client in 0..CLIENTS {
            world.queue.put(client as Us, Event::ClientSends { client });
        }
        world.start_taps();
        let first = world.rng.u64(20_000..120_000);
        world.queue.put(first, Event::JobTriesSwitch { life: 1 });
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        while self.dies_in.len() < 3 && self.rng.u8(..3) == 0 {
            let state = STATES[self.rng.usize(..STATES.len())];
            self.dies_in.push(state);
        }
        for _ in 0..self.rng.usize(0..5) {
            let at = self.rng.u64(10_000..FAULTS_END);
            let proxy = self.rng.usize(..PROXIES);
            let event = match self.rng.u8(..6) {
                0 => Event::ProxyDies { proxy },
                1 => Event::ProxyStops {
                    proxy,
                    until: at + self.rng.u64(1_000..150_000),
                },
                2 | 3 => Event::JobDies,
                _ => Event::LaneBreaks {
                    lane: self.rng.usize(..SOURCES * TARGETS),
                },
            };
            self.queue.put(at, event);
        }
    }

    /// How long a message is under way: mostly short, sometimes very long.
    pub fn delay(&mut self) -> Us {
        match self.rng.u8(..50) {
            0 => self.rng.u64(5_000..60_000),
            1..=5 => self.rng.u64(1_000..5_000),
            _ => self.rng.u64(50..800),
        }
    }

    /// The same for the steps of a switch: they are few, so more of them are late.
    pub fn step_delay(&mut self) -> Us {
        match self.rng.u8(..6) {
            0 => self.rng.u64(1_000..40_000),
            _ => self.delay(),
        }
    }

    pub fn is_lost(&mut self) -> bool {
        self.now < FAULTS_END && self.rng.u8(..100) < 3
    }

    /// Runs to the end: the epoch it came to, or what was found.
    pub fn run(mut self) -> Result<u64, String> {
        while let Some((at, event)) = self.queue.take() {
            if at > END {
                break;
            }
            self.now = self.now.max(at);
            if self.is_told && !IN_BULK.contains(&event.name()) {
                let state = self.job.machine.as_ref().map_or("-", Cutover::name);
                println!("{at} {state}: {event:?}");
            }
            if !self.waits_for_proxy(&event) {
                self.happen(event);
            }
            if let Some(fault) = self.fault.take() {
                return Err(format!("at {} us: {fault}", self.now));
            }
        }
        self.check_end()
    }

    /// A stopped process gets what came for it when it goes on.
    fn waits_for_proxy(&mut self, event: &Event) -> bool {
        let proxy = match event {
            Event::ProxyGets { proxy, .. }
            | Event::ProxyAsked { proxy, .. }
            | Event::RouteTold { proxy, .. }
            | Event::LeaseEnds { proxy, .. } => *proxy,
            Event::ClientSends { client } => client % PROXIES,
            _ => return false,
        };
        let until = self.proxies[proxy].stopped_until;
        let waits = until > self.now;
        if waits {
            self.queue.put(until, event.clone());
        }
        waits
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ClientSends { client } => self.client_sends(client),
            Event::ServerTakes {
                server,
                proxy,
                life,
                request,
            } => self.server_takes(server, proxy, life, &request),
            Event::ProxyGets {
                proxy,
                life,
                request,
                reply,
            } => self.proxy_gets(proxy, life, &request, reply),
            Event::ProxyAsked { proxy, asked } => self.proxy_asked(proxy, asked),
            Event::RouteAsked {
                proxy,
                life,
                server,
            } => {
                let told = Event::RouteTold {
                    proxy,
                    life,
                    server,
                    refuses: self.servers[server].refuses,
                    route: self.servers[server].route,
                };
                let at = self.now + self.delay();
                self.queue.put(at, told);
            }
            Event::RouteTold {
                proxy,
                life,
                server,
                refuses,
                route,
            } if self.proxies[proxy].life == life && self.proxies[proxy].is_up => {
                self.route_told(proxy, server, (refuses, route));
            }
            Event::RouteTold { .. } => {}
            Event::LeaseEnds { proxy, life, turn } => self.lease_ends(proxy, life, turn),
            Event::ProxyDies { proxy } => self.proxy_dies(proxy),
            Event::ProxyStarts { proxy } => {
                self.proxies[proxy].start(self.now);
                self.look_for_route(proxy);
            }
            Event::ProxyStops { proxy, until } => self.proxies[proxy].stopped_until = until,
            other => self.job_happens(other),
        }
    }

    // Clients.

    fn client_sends(&mut self, client: usize) {
        if self.now > LOAD_ENDS || self.open[client].is_some() {
            return;
        }
        let proxy = client % PROXIES;
        if !self.proxies[proxy].is_up {
            let again = self.now + 2_000;
            return self.queue.put(again, Event::ClientSends { client });
        }
        // The client's number is in its operation's, so that a reply finds it.
        let op = OpId(self.next_op * CLIENTS as u32 + client as u32);
        self.next_op += 1;
        let request = Request {
            op,
            key: self.rng.usize(..KEYS),
            is_write: self.rng.u8(..4) > 0,
            epoch: 0,
            user: 0,
        };
        self.open[client] = Some(op);
        let logged = Logged {
            key: request.key,
            is_write: request.is_write,
            invoke: self.now,
            returned: None,
            outcome: Outcome::Open,
        };
        self.log.insert(op, logged);
        self.proxy_routes(proxy, request);
    }

    fn client_gets(&mut self, op: OpId, outcome: Outcome) {
        let client = op.0 as usize % CLIENTS;
        let now = self.now;
        let Some(logged) = self.log.get_mut(&op) else {
            return;
        };
        if logged.outcome != Outcome::Open {
            self.fault = Some(format!("I8: {op:?} was answered twice"));
            return;
        }
        logged.outcome = outcome;
        logged.returned = (outcome != Outcome::Unknown).then_some(now);
        self.open[client] = None;
        let next = now + self.rng.u64(100..3_000);
        self.queue.put(next, Event::ClientSends { client });
    }

    // Proxies.

    fn proxy_routes(&mut self, at: usize, mut request: Request) {
        let proxy = &mut self.proxies[at];
        let gate = match self.mistake {
            Mistake::HoldIgnored if proxy.gate() != GateStatus::Fenced => GateStatus::Open,
            _ => proxy.gate(),
        };
        match gate {
            GateStatus::Held | GateStatus::Armed => return proxy.held.push_back(request),
            GateStatus::Fenced => return self.client_gets(request.op, Outcome::Refused),
            GateStatus::Open => {}
        }
        request.epoch = proxy.record.epoch;
        request.user = match self.mistake {
            Mistake::NoEpochUsers => u64::MAX,
            _ => request.epoch,
        };
        let server = owner(request.key, request.epoch);
        proxy.in_flight += 1;
        let life = proxy.life;
        let delay = self.delay();
        let proxy = &mut self.proxies[at];
        let arrives = (self.now + delay).max(proxy.behind[server]);
        proxy.behind[server] = arrives;
        let event = Event::ServerTakes {
            server,
            proxy: at,
            life,
            request,
        };
        self.queue.put(arrives, event);
    }

    fn server_takes(&mut self, server: usize, proxy: usize, life: u32, request: &Request) {
        let reply = self.servers[server].take(request);
        if request.is_write && reply != Reply::NoPermission {
            let is_answered = self.proxies[proxy].is_up && self.proxies[proxy].life == life;
            self.check_write(server, request, is_answered);
        }
        let at = self.now + self.delay();
        let event = Event::ProxyGets {
            proxy,
            life,
            request: request.clone(),
            reply,
        };
        self.queue.put(at, event);
    }

    /// I1, I3: a key is written on one side only, and there on top of all that the
    /// other side has acknowledged. What a dead proxy sent may still run on the old
    /// side: nobody is told of it.
    fn check_write(&mut self, server: usize, request: &Request, is_answered: bool) {
        let (source, target) = match self.job.way {
            Way::There => (source_of(request.key), target_of(request.key)),
            Way::Back => (target_of(request.key), source_of(request.key)),
        };
        let old = self.servers[source].lists.get(&request.key);
        let old = old.map(Vec::as_slice).unwrap_or_default();
        let new = self.servers[target].lists.get(&request.key);
        let new = new.map(Vec::as_slice).unwrap_or_default();
        let is_acknowledged = |op: &&OpId| {
            let logged = self.log.get(op);
            logged.is_some_and(|logged| matches!(logged.outcome, Outcome::Length(_)))
        };
        let mut acknowledged = old.iter().filter(is_acknowledged);
        let missing = acknowledged.find(|op| !new.contains(op)).copied();
        if server == target
            && let Some(op) = missing
        {
            let what = format!("I3: key {} is written while {op:?} is missing", request.key);
            self.fault = Some(what);
        }
        if server == source && is_answered && new.len() >= old.len() {
            self.fault = Some(format!("I1: key {} is written on both sides", request.key));
        }
    }

    fn proxy_gets(&mut self, at: usize, life: u32, request: &Request, reply: Reply) {
        if self.proxies[at].life != life || !self.proxies[at].is_up {
            return;
        }
        self.proxies[at].in_flight -= 1;
        match reply {
            Reply::Length(length) => self.client_gets(request.op, Outcome::Length(length)),
            // Definitely not executed.
            Reply::NoPermission => {
                let server = owner(request.key, request.epoch);
                let refused = (server, request.clone(), self.now);
                self.proxies[at].refused.push_back(refused);
                let delay = self.delay();
                self.ask_route(at, server, delay);
            }
        }
        self.look_at_drain(at);
    }

    fn look_at_drain(&mut self, at: usize) {
        let proxy = &mut self.proxies[at];
        let is_drained = proxy.in_flight == 0 || self.mistake == Mistake::HoldIgnored;
        if is_drained && let Some(asked) = proxy.draining.take() {
            self.answer(at, asked, Ok(()));
        }
    }

    fn release(&mut self, at: usize) {
        let refused = std::mem::take(&mut self.proxies[at].refused);
        let held = std::mem::take(&mut self.proxies[at].held);
        let refused = refused.into_iter().map(|(_, request, _)| request);
        for request in refused.chain(held) {
            self.proxy_routes(at, request);
        }
    }

    fn ask_route(&mut self, at: usize, server: usize, delay: Us) {
        if self.proxies[at].asking.insert(server) {
            let event = Event::RouteAsked {
                proxy: at,
                life: self.proxies[at].life,
                server,
            };
            self.queue.put(self.now + delay, event);
        }
    }

    /// A proxy that found a switch undecided, or whose lease ended, asks everybody.
    fn look_for_route(&mut self, at: usize) {
        if self.proxies[at].gate() == GateStatus::Fenced {
            for server in 0..SOURCES + TARGETS {
                self.ask_route(at, server, ASK_AGAIN);
            }
        }
    }

    /// A later route is taken; a refusal that was no fence's is tried again; else the
    /// server is asked again, until those that wait have waited too long.
    fn route_told(&mut self, at: usize, server: usize, (refuses, route): (u64, u64)) {
        self.proxies[at].asking.remove(&server);
        if route > self.proxies[at].record.epoch && self.proxies[at].adopt(route) {
            return self.release(at);
        }
        let is_fenced = refuses >= self.proxies[at].record.epoch;
        let refused = std::mem::take(&mut self.proxies[at].refused);
        for (refused_by, request, since) in refused {
            if refused_by != server {
                let kept = (refused_by, request, since);
                self.proxies[at].refused.push_back(kept);
            } else if !is_fenced {
                self.proxy_routes(at, request);
            } else if self.now > since + REFUSED_MAX {
                self.client_gets(request.op, Outcome::Refused);
            } else {
                let kept = (refused_by, request, since);
                self.proxies[at].refused.push_back(kept);
            }
        }
        let waits = self.proxies[at].refused.iter().any(|one| one.0 == server);
        if waits {
            self.ask_route(at, server, ASK_AGAIN);
        }
        self.look_for_route(at);
    }

    fn proxy_asked(&mut self, at: usize, asked: Asked) {
        if !self.proxies[at].is_up {
            return;
        }
        let call = asked.call;
        let epoch = self.proxies[at].record.epoch;
        let heard = match self.mistake {
            Mistake::IncarnationUnchecked => Asked {
                incarnation: self.job.incarnation,
                ..asked
            },
            _ => asked,
        };
        let done = match (self.mistake, call) {
            (Mistake::EpochUnchecked, Call::Commit) => self.proxies[at].obey(&heard),
            _ => self.proxies[at].take(&heard, LEASE / 1_000),
        };
        if self.proxies[at].record.epoch < epoch {
            self.fault = Some("I6: an epoch went back".to_owned());
        }
        let turn = self.proxies[at].turn();
        let life = self.proxies[at].life;
        let lease = Event::LeaseEnds {
            proxy: at,
            life,
            turn,
        };
        match done {
            Done::WhenDrained => {
                self.queue.put(self.now + LEASE, lease);
                self.proxies[at].draining = Some(asked);
                self.look_at_drain(at);
            }
            Done::Answer(answer) => {
                if answer.is_ok() && call == Call::Arm {
                    self.queue.put(self.now + LEASE, lease);
                }
                self.answer(at, asked, answer);
                if self.proxies[at].gate() == GateStatus::Open {
                    self.proxies[at].draining = None;
                    self.release(at);
                }
            }
        }
    }

    fn answer(
        &mut self,
        at: usize,
        asked: Asked,
        answer: Result<(), keyferry::proxy::control::SwitchRefusal>,
    ) {
        if self.is_lost() {
            return;
        }
        let when = self.now + self.step_delay();
        let event = Event::JobAnswered {
            life: asked.life,
            proxy: ProxyIndex(at),
            call: asked.call,
            attempt: asked.attempt,
            answer,
        };
        self.queue.put(when, event);
    }

    fn lease_ends(&mut self, at: usize, life: u32, turn: u64) {
        if self.proxies[at].life != life || !self.proxies[at].is_up {
            return;
        }
        match self.proxies[at].lease_ended(turn) {
            LeaseEnd::Nothing => {}
            LeaseEnd::Release => {
                self.proxies[at].draining = None;
                self.release(at);
            }
            LeaseEnd::Fence => {
                self.release(at);
                self.look_for_route(at);
            }
        }
    }

    fn proxy_dies(&mut self, at: usize) {
        if !self.proxies[at].is_up {
            return;
        }
        self.proxies[at].is_up = false;
        self.proxies[at].life += 1;
        for client in (0..CLIENTS).filter(|client| client % PROXIES == at) {
            if let Some(op) = self.open[client] {
                self.client_gets(op, Outcome::Unknown);
            }
        }
        let back = self.now + self.rng.u64(1_000..100_000);
        self.queue.put(back, Event::ProxyStarts { proxy: at });
    }

    // The end.

    fn check_end(self) -> Result<u64, String> {
        let (journal, way) = (self.job.journal, self.job.way);
        if matches!(journal, Journaled::Intended | Journaled::Decided) {
            return Err(format!("the switch never ended: {:?}", self.job.machine));
        }
        let epoch = match journal {
            Journaled::Ended => way.epoch(),
            _ => way.epoch() - 1,
        };
        // Whose keys are where that epoch has them.
        let owners = |epoch: u64| &self.servers[Way::to(epoch + 1).sources()];
        let refuse = |epoch: u64| owners(epoch).iter().all(|server| server.refuses >= epoch);
        for (at, proxy) in self.proxies.iter().enumerate() {
            // One that nobody has asked for anything since may not know yet; it cannot
            // use its route.
            let is_late = proxy.record.epoch < epoch && refuse(proxy.record.epoch);
            if proxy.record.epoch != epoch && !is_late {
                let ended = proxy.record.epoch;
                return Err(format!("proxy {at} ended at epoch {ended}, not {epoch}"));
            }
            let is_idle = proxy.held.is_empty() && proxy.refused.is_empty();
            if proxy.gate() != GateStatus::Open || !is_idle {
                return Err(format!(
                    "proxy {at} ended with a shut gate: {:?}",
                    proxy.switching
                ));
            }
        }
        if owners(epoch).iter().any(|server| server.refuses >= epoch) {
            return Err(format!("a server refuses epoch {epoch}, which is in force"));
        }
        for key in 0..KEYS {
            let list = self.servers[owner(key, epoch)].lists.get(&key);
            let list = list.map(Vec::as_slice).unwrap_or_default();
            check_key(key, list, &self.log)?;
        }
        Ok(epoch)
    }
}
