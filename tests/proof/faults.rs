//! The fault matrix: whoever takes part in a reshard dies, stops or loses its links
//! at each of its steps, on the way there and on the way back (`cells.rs`). Whatever
//! happens, the job ends switched or back where it was, the next try succeeds, and
//! nothing is lost, doubled or reordered.
//!
//! `KEYFERRY_PROOF_CELLS` says which: a number of worlds ([`WORLDS`] if it is not
//! there), `all`, or a part of the names of cells, `there/fence/job`. A world has a
//! cell of each way. [`AT_ONCE`] worlds run side by side (`KEYFERRY_PROOF_AT_ONCE`).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::proof::cells::{Cell, Fault, POLL, Step, Way, Who, cells_of, status_of};
use crate::proof::history::find;
use crate::proof::scenarios::alone;
use crate::proof::workload::LoadOptions;
use crate::proof::world::World;
use crate::support::stage::JOB_LIMIT;
use crate::support::{Job, Shape, seeded, wait_until};

/// Worlds of a run that asks for no other number.
const WORLDS: usize = 10;

/// Worlds side by side.
const AT_ONCE: usize = 2;

/// Switches that a job is asked for after the fault, at most.
const SWITCHES_MAX: usize = 20;

/// Tries to meet a step with its fault, at most.
const TRIES_MAX: usize = 3;

/// Replies before and after the steps.
const REPLIES: u64 = 2_000;

/// What is copied so slowly that a fault meets the copy.
const BULK_KEYS: usize = 300;
const BULK_BYTES: usize = 10_000;

/// One world: which cell of each way; without one that way has no fault.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    there: Option<Cell>,
    back: Option<Cell>,
}

fn plans(rng: &mut fastrand::Rng, wanted: &str) -> Vec<Plan> {
    let (mut there, mut back) = (cells_of(Way::There), cells_of(Way::Back));
    rng.shuffle(&mut there);
    rng.shuffle(&mut back);
    let is_part = wanted != "all" && wanted.parse::<usize>().is_err();
    let mut plans = Vec::new();
    if is_part {
        let cells = there.into_iter().chain(back);
        for cell in cells.filter(|cell| cell.to_string().contains(wanted)) {
            plans.push(Plan {
                seed: rng.u64(..),
                there: (cell.way == Way::There).then_some(cell),
                back: (cell.way == Way::Back).then_some(cell),
            });
        }
        assert!(!plans.is_empty(), "no cell is named {wanted}");
        return plans;
    }
    let mut back = back.into_iter();
    for cell in there {
        plans.push(Plan {
            seed: rng.u64(..),
            there: Some(cell),
            back: back.next(),
        });
    }
    assert!(back.next().is_none(), "each cell has its world");
    plans.truncate(wanted.parse().unwrap_or(usize::MAX));
    plans
}

/// Few clients: worlds run side by side, and a fault is as long as it is.
fn light() -> LoadOptions {
    LoadOptions {
        clients: 2,
        pipeline_max: 32,
        pause_us_max: 4_000,
        ..LoadOptions::default()
    }
}

struct Matrix<'a> {
    world: &'a mut World,
    job: Job,
    args: Vec<&'static str>,
    /// The longest time from a healed fault to a job that is switched or not.
    unrest: Duration,
}

impl Matrix<'_> {
    fn restart_job(&mut self) {
        self.job = self.world.start_job(&self.args);
    }

    /// Makes the switch of this way, with the cell's fault in its midst.
    fn go(&mut self, way: Way, cell: Option<Cell>) {
        let verb = match way {
            Way::There => "switch",
            Way::Back => "rollback",
        };
        if let Some(cell) = cell {
            // On a busy machine a switch may be taken back before it comes to the step.
            let came = (0..TRIES_MAX).any(|_| self.meet(cell, verb));
            if !came {
                let text = format!("{cell}: the step never came: {}", status_of(&self.job));
                find(&mut self.world.findings, "harness", text);
            }
        }
        for _ in 0..SWITCHES_MAX {
            if self.wait_ready(way) {
                return;
            }
            let mut asked = self.job.verb_in_background(verb, &["--yes"]);
            asked.wait(JOB_LIMIT);
        }
        let text = format!(
            "no {verb} in {SWITCHES_MAX} tries: {}",
            status_of(&self.job)
        );
        find(&mut self.world.findings, "job", text);
    }

    /// Brings the job to the cell's step and makes its fault; whether it came there.
    fn meet(&mut self, cell: Cell, verb: &str) -> bool {
        if cell.step == Step::Copy {
            self.wait_copying();
        } else if self.wait_ready(cell.way) {
            return false;
        }
        cell.prepare(self.world);
        let during = matches!(cell.step, Step::Copy | Step::Follow);
        let switch = (!during).then(|| self.job.verb_in_background(verb, &["--yes"]));
        let came = cell.reach(self.world, &self.job);
        cell.fail(self.world, &mut self.job);
        let healed = Instant::now();
        if let Some(mut switch) = switch {
            switch.wait(JOB_LIMIT);
        }
        self.wait_rest();
        self.unrest = self.unrest.max(healed.elapsed());
        came
    }

    /// Not before something is copied, or it is over already.
    fn wait_copying(&mut self) {
        wait_until("something is copied", JOB_LIMIT, || {
            let status = status_of(&self.job);
            let some = status["copied"]["keys"].as_u64().unwrap_or(0) > 0;
            let is_over = !matches!(status["state"].as_str(), Some("copying" | "planned") | None);
            std::thread::sleep(POLL);
            some || is_over || self.job.process().try_wait().is_some()
        });
    }

    /// Until no switch is under way.
    fn wait_rest(&mut self) {
        wait_until("no switch is under way", JOB_LIMIT, || {
            if self.job.process().try_wait().is_some() {
                let state = self.job.state();
                if state.as_deref() == Some("rolled_back") {
                    return true;
                }
                self.restart_job();
            }
            let status = status_of(&self.job);
            std::thread::sleep(POLL);
            let state = status["state"].as_str();
            let is_at_work = status["running"] == true && status["doing"] != "starting";
            let is_over = state == Some("rolled_back");
            is_over || (is_at_work && state.is_some_and(|state| state != "switching"))
        });
    }

    /// Until the switch of this way can be asked for; true if it is made already.
    fn wait_ready(&mut self, way: Way) -> bool {
        let mut is_made = false;
        wait_until("the job can switch, or has", JOB_LIMIT, || {
            let has_ended = self.job.process().try_wait().is_some();
            let status = status_of(&self.job);
            let state = status["state"].as_str().unwrap_or_default().to_owned();
            is_made = match way {
                Way::There => state == "switched",
                Way::Back => state == "rolled_back",
            };
            if is_made {
                return true;
            }
            if has_ended {
                self.restart_job();
            }
            std::thread::sleep(POLL);
            let doing = status["doing"].as_str().unwrap_or_default();
            let is_ready = match way {
                Way::There => state == "verified",
                Way::Back => status["way_back"] == "following back" && doing.contains("rollback"),
            };
            !has_ended && status["running"] == true && is_ready
        });
        is_made
    }

    /// Nobody goes round the proxies here: who writes to the server that left with
    /// other logins than the epoch's is a proxy that the fence does not stop.
    fn check_logins(&mut self) {
        let status = status_of(&self.job);
        let left = format!(" on {}: ", self.world.server_links[0].address());
        let bypass = status["bypass"].as_array().cloned().unwrap_or_default();
        let wrote = |one: &serde_json::Value| one.as_str().is_some_and(|one| one.contains(&left));
        for one in bypass.iter().filter(|one| wrote(one)) {
            let text = format!("a proxy wrote with other logins at the switch: {one}");
            find(&mut self.world.findings, "bypass", text);
        }
    }

    fn wait_epoch(&mut self, epoch: u64) {
        wait_until("every proxy has the route", JOB_LIMIT, || {
            std::thread::sleep(POLL);
            let epochs = self.world.epochs();
            epochs.iter().all(|one| *one == (epoch, "open".to_owned()))
        });
    }
}

/// How it went, and how long a fault lasted at most after it was healed.
fn run(plan: &Plan) -> (World, Duration) {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let old = Shape("murmur", "modula", &[0, 1]);
    let new = Shape("md5", "ketama", &[1, 2]);
    let mut world = World::that_can_break(&old, &new);
    let mut args = vec!["--switch", "manual", "--hold", "10s"];
    if plan.there.is_some_and(|cell| cell.step == Step::Copy) {
        let mut client = world.stage.proxies[0].client();
        let value: String = (0..BULK_BYTES).map(|_| rng.alphanumeric()).collect();
        for at in 0..BULK_KEYS {
            client.call(&["SET", &format!("bulk:{at}"), &value]);
        }
        args.extend(["--rate", "1MB/s"]);
    }
    world.start_load(light(), &mut rng);
    world.let_work(REPLIES);
    let epoch = world.stage.epoch();
    let job = world.start_job(&args);
    let mut matrix = Matrix {
        world: &mut world,
        job,
        args,
        unrest: Duration::ZERO,
    };
    matrix.go(Way::There, plan.there);
    matrix.wait_epoch(epoch + 1);
    matrix.check_logins();
    matrix.world.let_work(REPLIES);
    if plan.back.is_some() {
        matrix.go(Way::Back, plan.back);
        matrix.wait_epoch(epoch + 2);
        matrix.world.let_work(REPLIES);
    }
    matrix.job.kill();
    let unrest = matrix.unrest;
    world.check(false);
    (world, unrest)
}

/// What a world is called in the log.
fn name(plan: &Plan) -> String {
    let name = |cell: Option<Cell>| cell.map_or("-".to_owned(), |cell| cell.to_string());
    format!("{} {}", name(plan.there), name(plan.back))
}

/// Runs plans until none is left; adds those that went wrong.
fn work(plans: &Mutex<VecDeque<Plan>>, wrong: &Mutex<Vec<String>>, longest: &Mutex<Duration>) {
    loop {
        let next = plans.lock().expect("nobody panics with it").pop_front();
        let Some(plan) = next else { return };
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&plan)));
        let took = start.elapsed().as_secs_f32();
        let text = match result {
            Ok((mut world, unrest)) => {
                let names = world.caught_by();
                let mut longest = longest.lock().expect("nobody panics with it");
                *longest = unrest.max(*longest);
                match names.is_empty() {
                    true => {
                        let unrest = unrest.as_secs_f32();
                        println!(
                            "right: {} {took:.0} s, at rest in {unrest:.1} s",
                            name(&plan)
                        );
                        continue;
                    }
                    false => {
                        for (at, proxy) in world.stage.proxies.iter_mut().enumerate() {
                            println!("proxy {at}: {}", proxy.process().stderr());
                        }
                        format!("{names:?}")
                    }
                }
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                text.unwrap_or_default()
            }
        };
        println!(
            "WRONG: {} seed {} {took:.0} s: {text}",
            name(&plan),
            plan.seed
        );
        let text = format!("{} seed {}: {text}", name(&plan), plan.seed);
        wrong.lock().expect("nobody panics with it").push(text);
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
#[ignore = "minutes long: scripts/proof runs it"]
fn a_fault_at_any_step_loses_nothing() {
    let _alone = alone();
    let mut rng = seeded("a_fault_at_any_step_loses_nothing");
    let wanted = setting("KEYFERRY_PROOF_CELLS").unwrap_or(WORLDS.to_string());
    let plans = Mutex::new(VecDeque::from(plans(&mut rng, &wanted)));
    let at_once = setting("KEYFERRY_PROOF_AT_ONCE").map_or(AT_ONCE, |text| {
        text.parse().expect("KEYFERRY_PROOF_AT_ONCE is a number")
    });
    let (wrong, longest) = (Mutex::new(Vec::new()), Mutex::new(Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| work(&plans, &wrong, &longest));
        }
    });
    let longest = longest.into_inner().expect("nobody panicked with it");
    println!("the longest time from a healed fault to rest: {longest:.1?}");
    let wrong = wrong.into_inner().expect("nobody panicked with it");
    assert!(
        wrong.is_empty(),
        "{} worlds went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_matrix_is_whole() {
    let cells: Vec<Cell> = [Way::There, Way::Back]
        .into_iter()
        .flat_map(cells_of)
        .collect();
    assert_eq!(cells.len(), (8 + 7) * 6 * 5);
    for who in [Who::Job, Who::Proxy(0), Who::Server(2)] {
        let has = |cell: &&Cell| cell.who == who && cell.fault == Fault::Kill;
        assert_eq!(cells.iter().filter(has).count(), 15);
    }
}
