//! One cell of the fault matrix: who fails, at which step of which way, and how; and
//! the means to bring a world to that step and to make it fail.
//!
//! ```text
//! there: copy -> follow -> stage -> hold -> fence -> mark -> arm -> commit
//! back:          follow -> stage -> hold -> fence -> mark -> arm -> commit
//! ```
//! *stage, hold, arm, commit*: the step waits on its way to the first proxy.
//! *fence*: one source sleeps, the other one's fence (or marker) is there already.
//! *mark*: a target sleeps, so that what the sources did last is not applied.

use std::fmt;
use std::time::{Duration, Instant};

use super::admin_link::Rule;
use super::scenarios::STEP_LIMIT;
use super::world::World;
use crate::support::client::Value;
use crate::support::{Job, Signal};

/// Who fails. Server 0 is in the old layout only, 1 in both, 2 in the new one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The first has not heard of the step when it fails, the second has.
    Proxy(usize),
    Job,
    Server(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9; then it is started again.
    Kill,
    /// SIGSTOP for so many milliseconds.
    Stop(u64),
    /// Its links are cut, and for [`CUT`] none can be made.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Copy,
    Follow,
    Stage,
    Hold,
    Fence,
    Mark,
    Arm,
    Commit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

/// What the job says that it does between the stages and the arms.
const AT_CUT: [&str; 3] = ["switch: holding", "switch: fencing", "switch: marking"];

/// How long links are cut.
const CUT: Duration = Duration::from_millis(1_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub way: Way,
    pub step: Step,
    pub who: Who,
    pub fault: Fault,
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(
            "{:?}/{:?}/{:?}/{:?}",
            self.way, self.step, self.who, self.fault
        );
        out.write_str(&text.to_lowercase().replace(['(', ')'], ""))
    }
}

/// Every cell of one way.
pub fn cells_of(way: Way) -> Vec<Cell> {
    let who = [
        Who::Proxy(0),
        Who::Proxy(1),
        Who::Job,
        Who::Server(0),
        Who::Server(1),
        Who::Server(2),
    ];
    let steps = [
        Step::Copy,
        Step::Follow,
        Step::Stage,
        Step::Hold,
        Step::Fence,
        Step::Mark,
        Step::Arm,
        Step::Commit,
    ];
    let faults = [
        Fault::Kill,
        Fault::Stop(100),
        Fault::Stop(2_000),
        Fault::Stop(10_000),
        Fault::Cut,
    ];
    let mut cells = Vec::new();
    // What was switched is not copied back.
    let is_there = |step: &Step| way == Way::There || *step != Step::Copy;
    for step in steps.into_iter().filter(is_there) {
        for who in who {
            cells.extend(faults.map(|fault| Cell {
                way,
                step,
                who,
                fault,
            }));
        }
    }
    cells
}

impl Way {
    /// Servers whose keys move.
    fn sources(self) -> [usize; 2] {
        match self {
            Way::There => [0, 1],
            Way::Back => [1, 2],
        }
    }

    /// The server that only takes.
    fn target(self) -> usize {
        match self {
            Way::There => 2,
            Way::Back => 0,
        }
    }
}

impl Cell {
    /// Lets the switch that is under way come to this cell's step; whether it did.
    pub fn reach(&self, world: &mut World, job: &Job) -> bool {
        match self.step {
            Step::Copy | Step::Follow => true,
            Step::Stage => world.links[0].wait_seen("stage", STEP_LIMIT),
            Step::Hold => world.links[0].wait_seen("hold", STEP_LIMIT),
            Step::Arm => world.links[0].wait_seen("arm", STEP_LIMIT),
            Step::Commit => world.links[0].wait_seen("commit", STEP_LIMIT),
            Step::Fence | Step::Mark => self.reach_cut(world, job),
        }
    }

    /// Sets what stops the switch at this cell's step, before it begins.
    pub fn prepare(&self, world: &World) {
        for link in &world.links {
            link.forget_seen();
        }
        match self.step {
            Step::Copy | Step::Follow => {}
            Step::Stage => world.links[0].at("stage", Rule::Stall),
            Step::Hold => world.links[0].at("hold", Rule::Stall),
            Step::Arm => world.links[0].at("arm", Rule::Stall),
            Step::Commit => world.links[0].at("commit", Rule::Stall),
            // Whose logins are tried on must be awake until here.
            Step::Fence | Step::Mark => {
                for link in &world.links {
                    link.at("hold", Rule::Stall);
                }
            }
        }
    }

    fn reach_cut(&self, world: &mut World, job: &Job) -> bool {
        let sources = self.way.sources();
        let (asleep, states) = match self.step {
            // The one that fails is awake.
            Step::Fence if self.who == Who::Server(sources[1]) => (sources[0], 1),
            Step::Fence => (sources[1], 1),
            _ => (self.way.target(), 2),
        };
        // A source that sleeps may keep the proxies from draining.
        let states = match (self.step, self.way) {
            (Step::Fence, Way::Back) => &AT_CUT[..],
            _ => &AT_CUT[states..],
        };
        for link in &world.links {
            if !link.wait_seen("hold", STEP_LIMIT) {
                return false;
            }
        }
        world.stage.servers[asleep].pause();
        for link in &world.links {
            link.release("hold");
        }
        let start = Instant::now();
        while start.elapsed() < STEP_LIMIT {
            let status = status_of(job);
            let doing = status["doing"].as_str().unwrap_or_default();
            if states.iter().any(|state| doing.starts_with(state)) {
                return true;
            }
            std::thread::sleep(POLL);
        }
        false
    }

    /// Makes it fail, and heals it; but a killed job is not started again.
    pub fn fail(&self, world: &mut World, job: &mut Job) {
        match (self.who, self.fault) {
            (Who::Proxy(at), Fault::Kill) => {
                world.stage.proxies[at].signal(Signal::Kill);
                world.stage.proxies[at].launch();
            }
            (Who::Proxy(at), Fault::Stop(ms)) => {
                world.stage.proxies[at].signal(Signal::Stop);
                wake(world);
                lasts(Duration::from_millis(ms));
                world.stage.proxies[at].signal(Signal::Cont);
            }
            (Who::Proxy(at), Fault::Cut) => {
                world.links[at].cut();
                wake(world);
                lasts(CUT);
                world.links[at].admit();
            }
            (Who::Job, Fault::Kill) => job.kill(),
            (Who::Job, Fault::Stop(ms)) => {
                job.process().signal(Signal::Stop);
                wake(world);
                lasts(Duration::from_millis(ms));
                job.process().signal(Signal::Cont);
            }
            (Who::Job, Fault::Cut) => {
                for link in &world.links {
                    link.cut();
                }
                close_job_connections(world);
                wake(world);
                lasts(CUT);
                for link in &world.links {
                    link.admit();
                }
            }
            (Who::Server(at), Fault::Kill) => world.stage.servers[at].restart(),
            (Who::Server(at), Fault::Stop(ms)) => {
                world.stage.servers[at].pause();
                wake_but(world, Some(at));
                lasts(Duration::from_millis(ms));
                world.stage.servers[at].resume();
            }
            (Who::Server(at), Fault::Cut) => {
                world.server_links[at].refuse();
                world.server_links[at].cut();
                wake(world);
                lasts(CUT);
                world.server_links[at].admit();
            }
        }
        wake(world);
    }
}

/// Pace of looking, not a wait for anything.
pub const POLL: Duration = Duration::from_millis(20);

/// The length of a fault.
fn lasts(time: Duration) {
    std::thread::sleep(time);
}

/// Whatever was held up to reach the step goes on.
fn wake(world: &mut World) {
    wake_but(world, None);
}

fn wake_but(world: &mut World, stopped: Option<usize>) {
    for (at, server) in world.stage.servers.iter_mut().enumerate() {
        if Some(at) != stopped {
            server.resume();
        }
    }
    for link in &world.links {
        link.release_all();
    }
}

/// The job's connections to servers: all that are not an epoch's user. Of a server
/// that sleeps and cannot be asked, every link.
fn close_job_connections(world: &World) {
    for (server, link) in world.stage.servers.iter().zip(&world.server_links) {
        let mut client = server.client();
        client.set_reply_limit(CUT);
        let Ok(Value::Bulk(list)) = client.try_call(&["CLIENT", "LIST"]) else {
            link.cut();
            continue;
        };
        for line in String::from_utf8_lossy(&list).lines() {
            let field = |name: &str| {
                let mut fields = line.split(' ');
                fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            };
            if field("user") == Some("default")
                && let Some(id) = field("id")
            {
                client.call(&["CLIENT", "KILL", "ID", id, "SKIPME", "yes"]);
            }
        }
    }
}

/// The job's status, if it answers.
pub fn status_of(job: &Job) -> serde_json::Value {
    let output = job.verb("status", &["--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}
