//! Scenarios with broken connections, proxies that are away, keys that travel, and
//! the way back.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::admin_link::Rule;
use super::history::find;
use super::scenarios::{REPLIES, STEP_LIMIT, dense, end_with, ready, ready_in, to_the_end};
use super::workload::LoadOptions;
use super::world::{Planted, World};
use crate::support::stage::JOB_LIMIT;
use crate::support::{Job, Shape, Signal, wait_until};

/// Closes every client connection of a server, with what it has under way.
fn close_connections(world: &World, server: usize) {
    let mut client = world.stage.servers[server].client();
    client.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
}

/// The target closes the job's connections again and again while it follows.
pub fn lanes_break_while_followed(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    for _ in 0..15 {
        close_connections(&world, 2);
        world.let_work(REPLIES / 10);
    }
    world.switch(&job);
    to_the_end(&mut world, &mut job);
    world
}

/// The target sleeps longer than some keys live.
pub fn target_sleeps_longer_than_keys_live(rng: &mut Rng, planted: Planted) -> World {
    let load = LoadOptions {
        pause_us_max: 4_000,
        volatile_keys: 2_000,
        ..LoadOptions::default()
    };
    let (mut world, mut job) = ready(rng, planted, load, &["--hold", "10s"]);
    for _ in 0..3 {
        world.stage.servers[2].pause();
        // The length of the fault.
        std::thread::sleep(Duration::from_millis(700));
        world.stage.servers[2].resume();
    }
    world.switch(&job);
    // What lags when the switch comes may be held too long for some clients.
    end_with(&mut world, &mut job, false);
    world
}

/// Commands whose keys are on one server of the old layout and on two of the new.
pub fn spanning_commands(rng: &mut Rng, planted: Planted) -> World {
    let load = LoadOptions {
        spanning: true,
        ..dense()
    };
    let (mut world, mut job) = ready(rng, planted, load, &["--hold", "10s"]);
    world.let_work(REPLIES * 2);
    let output = job.verb("status", &["--json"]);
    println!("{}", String::from_utf8_lossy(&output.stdout));
    world.switch(&job);
    to_the_end(&mut world, &mut job);
    world
}

/// An old server closes the proxies' connections again and again while a job follows,
/// and the proxies are logged in for it.
pub fn shard_closes_connections(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &[]);
    for _ in 0..20 {
        world.let_work(REPLIES / 4);
        close_connections(&world, 0);
    }
    world.let_work(REPLIES);
    world.check(false);
    job.kill();
    world
}

/// One proxy is stopped over the whole switch; its clients come back to it.
pub fn proxy_stopped_over_the_switch(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    let epoch = world.stage.proxies[0].epoch_and_gate().0;
    world.stage.proxies[1].signal(Signal::Stop);
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    let start = Instant::now();
    wait_until("the other proxy switches, or cannot", JOB_LIMIT, || {
        let patience_ends = start.elapsed() > Duration::from_secs(2);
        patience_ends || world.stage.proxies[0].epoch_and_gate().0 > epoch
    });
    world.let_work(REPLIES / 2);
    world.stage.proxies[1].signal(Signal::Cont);
    switch.wait(JOB_LIMIT);
    if world.stage.proxies[0].epoch_and_gate().0 == epoch {
        world.switch(&job);
    }
    wait_for_the_epoch(&mut world, epoch + 1);
    end_with(&mut world, &mut job, false);
    world
}

/// The job cannot reach one proxy while it switches; that proxy's clients go on.
pub fn proxy_cut_off_over_the_switch(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    let epoch = world.stage.proxies[0].epoch_and_gate().0;
    for step in ["stage", "hold", "arm", "commit", "abort"] {
        world.links[1].at(step, Rule::Stall);
    }
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    let start = Instant::now();
    wait_until("the other proxy switches, or cannot", JOB_LIMIT, || {
        let patience_ends = start.elapsed() > Duration::from_secs(2);
        patience_ends || world.stage.proxies[0].epoch_and_gate().0 > epoch
    });
    world.let_work(REPLIES / 2);
    for step in ["stage", "hold", "arm", "commit", "abort"] {
        world.links[1].release(step);
    }
    switch.wait(JOB_LIMIT);
    if world.stage.proxies[0].epoch_and_gate().0 == epoch {
        world.switch(&job);
    }
    wait_for_the_epoch(&mut world, epoch + 1);
    end_with(&mut world, &mut job, false);
    world
}

/// The job cannot reach one proxy while it switches, and dies when it has: nobody
/// tells that proxy of the new route but the servers.
pub fn proxy_cut_off_until_the_job_is_dead(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    let epoch = world.stage.proxies[0].epoch_and_gate().0;
    switch_without_the_second(&mut world, &mut job);
    job.kill();
    world.links[1].release_all();
    wait_for_the_epoch(&mut world, epoch + 1);
    world.let_work(REPLIES);
    world.check(false);
    world
}

/// The job cannot reach one proxy while it switches, and that proxy has no client
/// whose requests the servers refuse: nobody tells it of the new route but the job.
pub fn idle_proxy_cut_off_over_the_switch(rng: &mut Rng, planted: Planted) -> World {
    let load = LoadOptions {
        proxies: 1,
        ..dense()
    };
    let (mut world, mut job) = ready(rng, planted, load, &["--hold", "10s"]);
    let epoch = world.stage.proxies[0].epoch_and_gate().0;
    switch_without_the_second(&mut world, &mut job);
    world.links[1].release_all();
    wait_for_the_epoch(&mut world, epoch + 1);
    end_with(&mut world, &mut job, false);
    world
}

/// A switch that is made while nothing the job says reaches the second proxy.
fn switch_without_the_second(world: &mut World, job: &mut Job) {
    world.links[1].cut();
    let made = world.switch(job);
    if made {
        world.wait_state(job, &["switched"]);
    }
    // The length of the fault: longer than a commit that is under way is tried.
    std::thread::sleep(Duration::from_secs(3));
    world.links[1].admit();
    // Of the time before.
    world.links[1].release_all();
}

/// The job cannot reach one proxy while it goes back; that proxy's clients go on, on
/// the new route as long as the new servers let them.
pub fn proxy_cut_off_over_the_rollback(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    let epoch = world.stage.proxies[0].epoch_and_gate().0;
    world.switch(&job);
    wait_way_back(&mut world, &mut job);
    world.links[1].cut();
    let mut rollback = job.verb_in_background("rollback", &["--yes"]);
    if !rollback.wait(JOB_LIMIT).success() {
        let text = format!("no rollback: {}", rollback.stderr());
        find(&mut world.findings, "job", text);
    }
    world.let_work(REPLIES / 2);
    world.links[1].admit();
    wait_for_the_epoch(&mut world, epoch + 2);
    world.let_work(REPLIES);
    world.check(false);
    job.kill();
    world
}

/// Every proxy gets there by itself or by the job.
fn wait_for_the_epoch(world: &mut World, epoch: u64) {
    let start = Instant::now();
    let mut epochs = Vec::new();
    wait_until(
        "every proxy has the epoch, or too much time is gone",
        JOB_LIMIT,
        || {
            epochs = world.epochs();
            let all = epochs.iter().all(|one| *one == (epoch, "open".to_owned()));
            all || start.elapsed() > STEP_LIMIT
        },
    );
    if epochs
        .iter()
        .any(|(at, gate)| (*at, gate.as_str()) != (epoch, "open"))
    {
        let text = format!("a proxy does not get to epoch {epoch}: {epochs:?}");
        find(&mut world.findings, "epochs", text);
    }
}

/// A switch, and back again with all that was written meanwhile.
pub fn there_and_back(rng: &mut Rng, planted: Planted) -> World {
    let (mut world, mut job) = ready(rng, planted, dense(), &["--hold", "10s"]);
    world.switch(&job);
    roll_back(&mut world, &mut job, false);
    world
}

/// The same; the old servers sleep when the way back begins.
pub fn old_servers_asleep_at_the_rollback(rng: &mut Rng, planted: Planted) -> World {
    let old = Shape("md5", "ketama", &[0, 1]);
    let new = Shape("md5", "ketama", &[2, 3]);
    let world = World::new(&old, &new, planted, "");
    let (mut world, mut job) = ready_in(world, rng, dense(), &["--hold", "10s"]);
    world.switch(&job);
    roll_back(&mut world, &mut job, true);
    world
}

/// Until the job could go back; losing the way for a while is a finding.
fn wait_way_back(world: &mut World, job: &mut Job) {
    world.let_work(REPLIES);
    let mut lost = None;
    wait_until("it can be rolled back, or ended", JOB_LIMIT, || {
        let output = job.verb("status", &["--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let doing = status["doing"].as_str().unwrap_or_default();
        let way_back = status["way_back"].as_str().unwrap_or_default();
        if way_back.starts_with("rollback unavailable") {
            lost.get_or_insert_with(|| way_back.to_owned());
        }
        let is_ready = way_back == "following back" && doing.contains("rollback");
        is_ready || job.process().try_wait().is_some()
    });
    if let Some(why) = lost {
        let text = format!("the way back was lost without a fault: {why}");
        find(&mut world.findings, "way back", text);
    }
    world.let_work(REPLIES);
}

fn roll_back(world: &mut World, job: &mut Job, asleep: bool) {
    wait_way_back(world, job);
    let mut rollback = if asleep {
        for server in [0, 1] {
            world.stage.servers[server].pause();
        }
        world.let_work(REPLIES * 3);
        let rollback = job.verb_in_background("rollback", &["--yes"]);
        // The length of the fault.
        std::thread::sleep(Duration::from_millis(300));
        for server in [0, 1] {
            world.stage.servers[server].resume();
        }
        rollback
    } else {
        job.verb_in_background("rollback", &["--yes"])
    };
    if !rollback.wait(JOB_LIMIT).success() {
        let text = format!("no rollback: {}", rollback.stderr());
        find(&mut world.findings, "job", text);
    }
    world.let_work(REPLIES);
    world.check(true);
    job.kill();
}
