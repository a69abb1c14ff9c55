//! The fault matrix: whoever takes part in a switch dies, stops or loses its
//! connections at each of its steps. Afterwards the job is switched, nothing is lost,
//! doubled or reordered, and every proxy is on the new route.
//!
//! A step is met on its way from the job to the first proxy, where it waits until the
//! fault is there. A run takes [`CELLS`] cells by its seed; `KEYFERRY_PROOF_CELLS=all`
//! takes all of them (`scripts/proof --all`).

use std::time::Duration;

use crate::proof::admin_link::Rule;
use crate::proof::history::find;
use crate::proof::scenarios::{REPLIES, STEP_LIMIT, alone, dense, ready};
use crate::proof::world::World;
use crate::support::stage::JOB_LIMIT;
use crate::support::{Job, Signal, seeded, wait_until};

/// Cells of a run.
const CELLS: usize = 8;

/// Switches that a job is asked for after the fault, at most.
const SWITCHES_MAX: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Proxy,
    Job,
    /// The first server: of the old layout and of the new one.
    Source,
    /// The third server: of the new layout only.
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// kill -9; then it is started again.
    Kill,
    /// SIGSTOP for so many milliseconds.
    Stop(u64),
    /// Its connections are closed.
    Cut,
}

const STEPS: [&str; 4] = ["stage", "hold", "arm", "commit"];

/// A server that is killed has lost what it held, which no proxy can help.
fn all_cells() -> Vec<(Who, &'static str, Fault)> {
    let faults = [
        Fault::Kill,
        Fault::Stop(100),
        Fault::Stop(2_000),
        Fault::Stop(10_000),
        Fault::Cut,
    ];
    let mut cells = Vec::new();
    for who in [Who::Proxy, Who::Job, Who::Source, Who::Target] {
        for step in STEPS {
            for fault in faults {
                let is_server = matches!(who, Who::Source | Who::Target);
                let can_be = match fault {
                    Fault::Kill => !is_server,
                    Fault::Cut => is_server,
                    Fault::Stop(_) => true,
                };
                if can_be {
                    cells.push((who, step, fault));
                }
            }
        }
    }
    cells
}

/// Applies the fault and, but for a killed job, heals it.
fn apply(world: &mut World, job: &mut Job, who: Who, fault: Fault) {
    let stop = |ms: u64| std::thread::sleep(Duration::from_millis(ms));
    match (who, fault) {
        (Who::Proxy, Fault::Kill) => {
            world.stage.proxies[0].signal(Signal::Kill);
            world.stage.proxies[0].launch();
        }
        (Who::Proxy, Fault::Stop(ms)) => {
            world.stage.proxies[0].signal(Signal::Stop);
            world.links[0].release_all();
            stop(ms);
            world.stage.proxies[0].signal(Signal::Cont);
        }
        (Who::Job, Fault::Kill) => job.kill(),
        (Who::Job, Fault::Stop(ms)) => {
            job.process().signal(Signal::Stop);
            world.links[0].release_all();
            stop(ms);
            job.process().signal(Signal::Cont);
        }
        (Who::Source | Who::Target, Fault::Stop(ms)) => {
            let at = if who == Who::Source { 0 } else { 2 };
            world.stage.servers[at].pause();
            world.links[0].release_all();
            stop(ms);
            world.stage.servers[at].resume();
        }
        (Who::Source | Who::Target, _) => {
            let at = if who == Who::Source { 0 } else { 2 };
            let mut client = world.stage.servers[at].client();
            client.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        (Who::Proxy | Who::Job, Fault::Cut) => {}
    }
    world.links[0].release_all();
}

/// Asks for the switch, of a new process if need be, until it is made.
fn until_switched(world: &mut World, job: &mut Job) {
    for _ in 0..SWITCHES_MAX {
        if job.process().try_wait().is_some() && job.state().as_deref() != Some("switched") {
            *job = world.start_job(&["--switch", "manual", "--hold", "2s"]);
        }
        let mut state = None;
        wait_until("the job is at rest", JOB_LIMIT, || {
            state = job.state();
            let is_at_rest = matches!(
                state.as_deref(),
                Some("verified" | "following" | "switched")
            );
            is_at_rest || job.process().try_wait().is_some()
        });
        if state.as_deref() == Some("switched") {
            return;
        }
        job.verb("switch", &["--yes"]);
    }
    let text = format!("no switch in {SWITCHES_MAX} tries: {:?}", job.state());
    find(&mut world.findings, "job", text);
}

fn try_cell(rng: &mut fastrand::Rng, (who, step, fault): (Who, &'static str, Fault)) -> World {
    let (mut world, mut job) = ready(rng, None, dense(), &["--hold", "2s"]);
    let epoch = world.stage.epoch();
    world.links[0].at(step, Rule::Stall);
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    let came = world.links[0].wait_seen(step, STEP_LIMIT);
    apply(&mut world, &mut job, who, fault);
    switch.wait(JOB_LIMIT);
    if !came {
        find(&mut world.findings, "harness", format!("{step} never came"));
    }
    until_switched(&mut world, &mut job);
    wait_until("every proxy has the new route", JOB_LIMIT, || {
        world
            .epochs()
            .iter()
            .all(|one| *one == (epoch + 1, "open".to_owned()))
    });
    world.let_work(REPLIES);
    world.check(false);
    job.kill();
    world
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn a_fault_at_any_step_loses_nothing() {
    let _alone = alone();
    let mut rng = seeded("a_fault_at_any_step_loses_nothing");
    let seed = rng.get_seed();
    let mut cells = all_cells();
    rng.shuffle(&mut cells);
    if std::env::var("KEYFERRY_PROOF_CELLS").as_deref() != Ok("all") {
        cells.truncate(CELLS);
    }
    for cell in cells {
        println!("{cell:?}");
        try_cell(&mut rng, cell).assert_clean(seed);
    }
}
