//! After the switch: the job keeps the old shards exact until it is rolled back
//! or completed. Real servers, two proxies, writers that never stop. Whatever is
//! done: no client sees an error or a wrong reply, no write is lost or doubled.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::load::Load;
use support::servers::Skipped;
use support::stage::JOB_LIMIT;
use support::{Job, RedisServer, ServerKind, Shape, Signal, Stage, seeded, wait_until};

/// Few keys: what counts is the way back.
const KEYS: (usize, usize) = (8_000, 2_000);

/// What each writer gets done before, between and after the steps.
const REPLIES: u64 = 1_500;

/// These jobs want a whole machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn status(job: &Job) -> serde_json::Value {
    let output = job.verb("status", &["--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Waits until the job says that it can be rolled back.
fn wait_for_the_way_back(job: &mut Job) -> serde_json::Value {
    wait_until("it can be rolled back", JOB_LIMIT, || {
        if let Some(ended) = job.process().try_wait() {
            panic!("it ended ({ended}): {}", job.process().stderr());
        }
        let status = status(job);
        let doing = status["doing"].as_str().unwrap_or_default();
        status["way_back"] == "following back" && doing.contains("reshard rollback")
    });
    status(job)
}

/// A job that has switched and follows back, under writers.
fn switched(stage: &Stage, loads: &[(u32, Load)], more: &[&str]) -> Job {
    let epoch = stage.epoch();
    let mut job = stage.start_job(more);
    job.wait_state(&["verified"], JOB_LIMIT);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    stage.assert_epoch(epoch + 1);
    stage.let_write(loads, REPLIES);
    job
}

/// Rolls it back; the process ends with 5, the proxies are at `epoch`.
fn roll_back(stage: &Stage, job: &mut Job, epoch: u64) {
    let rollback = job.verb("rollback", &["--yes"]);
    assert!(rollback.status.success(), "{rollback:?}");
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 5, "{stdout}\n{stderr}");
    assert_eq!(job.state().as_deref(), Some("rolled_back"));
    stage.assert_epoch(epoch);
    for proxy in &stage.proxies {
        // Another job can begin at once.
        assert!(
            proxy.pools()["pools"][0]["job"].is_null(),
            "{}",
            proxy.pools()
        );
    }
}

/// Preload, writers, switch, writers, rollback, writers, check.
fn there_and_back(name: &str, stage: Stage) {
    there_and_back_with(name, stage, KEYS);
}

/// The same with other numbers of keys beside the writers' own.
fn there_and_back_with(name: &str, mut stage: Stage, keys: (usize, usize)) {
    let _alone = alone();
    let mut rng = seeded(name);
    stage.preload(&mut rng, keys.0, keys.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    stage.let_write(&loads, REPLIES);
    let mut job = switched(&stage, &loads, &[]);
    let followed = wait_for_the_way_back(&mut job);
    // Begun after the positions of the switch: nothing was copied backwards.
    for source in followed["sources"].as_array().expect("rows") {
        assert_eq!(source["keys_scanned"], 0, "{source}");
        assert_eq!(source["restarts"], 0, "{source}");
    }
    stage.let_write(&loads, REPLIES);
    let verify = job.verb("verify", &[]);
    assert!(verify.status.success(), "{verify:?}");

    roll_back(&stage, &mut job, epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
    assert_no_notes(&stage);
}

/// Nothing of ours stays on any server.
fn assert_no_notes(stage: &Stage) {
    for server in &stage.servers {
        let notes = server.client().call(&["KEYS", "__keyferry:*"]);
        assert_eq!(notes.items(), [], "{}", server.address());
    }
}

#[test]
fn two_shards_become_three_and_two_again() {
    let stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    there_and_back("two_shards_become_three_and_two_again", stage);
}

#[test]
fn three_shards_become_two_and_three_again() {
    let stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        &Shape("fnv1a_64", "ketama", &[1, 3]),
        2,
    );
    there_and_back("three_shards_become_two_and_three_again", stage);
}

#[test]
fn modula_becomes_ketama_and_modula_again_on_the_same_servers() {
    let stage = Stage::new(
        &Shape("murmur", "modula", &[0, 1, 2]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    let name = "modula_becomes_ketama_and_modula_again_on_the_same_servers";
    there_and_back(name, stage);
}

#[test]
fn from_redis_to_built_in_shards_and_back() {
    let redis = || RedisServer::start(&[]);
    let built_in = || RedisServer::start_built_in(&[]);
    let stage = Stage::with_servers(
        vec![redis(), built_in(), redis(), built_in()],
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[1, 2, 3]),
        2,
        "",
    );
    there_and_back("from_redis_to_built_in_shards_and_back", stage);
}

#[test]
fn back_from_servers_of_every_version_since_7_0() {
    let mut skipped = Skipped::default();
    // The model reads with words that older servers do not know.
    let kinds = ServerKind::ALL.into_iter();
    for kind in kinds.filter(|kind| kind.is_seven_or_later()) {
        let name = format!("to {kind} and back");
        if !skipped.unless_here(&name, &[kind]) {
            continue;
        }
        println!("{name}");
        let servers = vec![
            RedisServer::start_kind(kind, &[]),
            RedisServer::start_kind(kind, &[]),
        ];
        let stage = Stage::with_servers(
            servers,
            &Shape("fnv1a_64", "ketama", &[0]),
            &Shape("fnv1a_64", "ketama", &[1]),
            1,
            "",
        );
        there_and_back_with(&name, stage, (1_000, 300));
    }
    skipped.finish();
}

#[test]
fn complete_with_purge_while_it_follows_back() {
    let _alone = alone();
    let mut rng = seeded("complete_with_purge_while_it_follows_back");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = switched(&stage, &loads, &["--stay"]);
    wait_for_the_way_back(&mut job);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert_eq!(job.state().as_deref(), Some("completed"));
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("new.toml", false);
    assert_no_notes(&stage);
}

#[test]
fn an_automatic_job_that_stays_can_be_rolled_back() {
    let _alone = alone();
    let mut rng = seeded("an_automatic_job_that_stays_can_be_rolled_back");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&["--switch", "auto", "--stay"]);
    job.wait_state(&["switched"], JOB_LIMIT);
    wait_for_the_way_back(&mut job);
    stage.let_write(&loads, REPLIES);
    roll_back(&stage, &mut job, epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
}

#[test]
fn killed_after_the_switch_it_takes_the_way_back_up_again() {
    let _alone = alone();
    let mut rng = seeded("killed_after_the_switch_it_takes_the_way_back_up_again");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = switched(&stage, &loads, &[]);
    wait_for_the_way_back(&mut job);
    job.kill();
    stage.let_write(&loads, REPLIES);
    // Nobody keeps the old shards exact now.
    let refused = job.verb("rollback", &["--yes"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    stage.assert_epoch(epoch + 1);

    let mut job = stage.start_job(&[]);
    wait_for_the_way_back(&mut job);
    stage.let_write(&loads, REPLIES);
    roll_back(&stage, &mut job, epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
}

#[test]
fn an_automatic_job_that_ended_is_followed_back_when_started_again() {
    let _alone = alone();
    let mut rng = seeded("an_automatic_job_that_ended_is_followed_back_when_started_again");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.let_write(&loads, REPLIES);

    // Without positions: everything is copied backwards.
    let mut job = stage.start_job(&[]);
    wait_for_the_way_back(&mut job);
    stage.let_write(&loads, REPLIES);
    roll_back(&stage, &mut job, epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
}

#[test]
fn a_rollback_past_its_deadline_leaves_the_new_route() {
    let _alone = alone();
    let mut rng = seeded("a_rollback_past_its_deadline_leaves_the_new_route");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[2, 3]),
        2,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = switched(&stage, &loads, &["--hold", "300ms"]);
    wait_for_the_way_back(&mut job);

    // An old shard stands still: what the writers do cannot be applied there.
    stage.servers[0].pause();
    stage.let_write(&loads, 200);
    let late = job.verb("rollback", &["--yes"]);
    assert!(!late.status.success(), "{late:?}");
    wait_until("the gates are open again", JOB_LIMIT, || {
        let mut proxies = stage.proxies.iter();
        proxies.all(|proxy| proxy.epoch_and_gate() == (epoch + 1, "open".to_owned()))
    });
    assert_eq!(job.state().as_deref(), Some("switched"));
    stage.let_write(&loads, REPLIES);
    stage.servers[0].resume();
    wait_until("the second rollback is taken", JOB_LIMIT, || {
        job.verb("rollback", &["--yes"]).status.success()
    });
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 5, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
}

#[test]
fn ctrl_c_after_the_switch_leaves_it_switched() {
    let _alone = alone();
    let mut rng = seeded("ctrl_c_after_the_switch_leaves_it_switched");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, 2_000, 500);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = switched(&stage, &loads, &[]);
    wait_for_the_way_back(&mut job);
    job.process().signal(Signal::Int);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 75, "{stdout}\n{stderr}");
    assert_eq!(job.state().as_deref(), Some("switched"));
    stage.assert_epoch(epoch + 1);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

/// Killed while it goes back, waiting for a proxy that is stopped: the next start
/// takes that try back, and the job can be rolled back as before.
#[test]
fn killed_in_a_switch_back_it_is_taken_back_and_tried_again() {
    let _alone = alone();
    let mut rng = seeded("killed_in_a_switch_back_it_is_taken_back_and_tried_again");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[2, 3]),
        2,
    );
    stage.preload(&mut rng, 2_000, 500);
    let epoch = stage.epoch();
    let stopped = stage.proxies.pop().expect("the second");
    let loads = stage.start_writers(&mut rng);
    stage.proxies.push(stopped);
    let mut job = switched(&stage, &loads, &[]);
    wait_for_the_way_back(&mut job);

    stage.proxies[1].signal(Signal::Stop);
    let mut rollback = job.verb_in_background("rollback", &["--yes"]);
    wait_until("it goes back", JOB_LIMIT, || {
        job.state().as_deref() == Some("switching")
    });
    job.kill();
    rollback.wait(JOB_LIMIT);
    stage.proxies[1].signal(Signal::Cont);

    let mut job = stage.start_job(&[]);
    wait_for_the_way_back(&mut job);
    stage.let_write(&loads, REPLIES);
    roll_back(&stage, &mut job, epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
    assert_no_notes(&stage);
    assert_eq!(stage.users_of_jobs(), 0);
}
