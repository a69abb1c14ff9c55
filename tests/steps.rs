//! `--step shard`: old shards go one after another, each by a job with a switch of its
//! own. Real servers, writers that never stop: no client sees an error or a wrong
//! reply, no write is lost or doubled, whatever is done between and in the steps.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::load::Load;
use support::stage::JOB_LIMIT;
use support::{Job, Shape, Signal, Stage, http_get, keyferry_command, seeded, wait_until};

/// Few keys: what counts is the way.
const KEYS: (usize, usize) = (4_000, 1_000);

/// What each writer gets done before, between and after the steps.
const REPLIES: u64 = 700;

const BY_SHARD: [&str; 2] = ["--step", "shard"];

/// These jobs want a whole machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn three_to_five(proxies: usize) -> Stage {
    Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2, 3, 4]),
        proxies,
    )
}

fn status(job: &Job) -> serde_json::Value {
    let output = job.verb("status", &["--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Waits until step `number` is in `state`; panics when the job ends before.
fn wait_step(job: &mut Job, number: u64, state: &str) -> serde_json::Value {
    wait_until(&format!("step {number} is {state}"), JOB_LIMIT, || {
        if let Some(ended) = job.process().try_wait() {
            panic!("it ended ({ended}): {}", job.process().stderr());
        }
        let status = status(job);
        let is_there = status["step"]["number"] == number && status["state"] == state;
        is_there && status["running"] == true && status["doing"] != "starting"
    });
    status(job)
}

/// The same, switched, with a way back that stands.
fn wait_for_the_way_back(job: &mut Job, number: u64) -> serde_json::Value {
    wait_until("the step can be rolled back", JOB_LIMIT, || {
        if let Some(ended) = job.process().try_wait() {
            panic!("it ended ({ended}): {}", job.process().stderr());
        }
        let status = status(job);
        let doing = status["doing"].as_str().unwrap_or_default();
        status["step"]["number"] == number
            && status["way_back"] == "following back"
            && doing.contains("reshard rollback")
    });
    status(job)
}

fn verb(job: &Job, name: &str, more: &[&str]) -> String {
    let output = job.verb(name, &[&["--yes"], more].concat());
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn report(stage: &Stage) -> serde_json::Value {
    let dir = stage.state_dir().display().to_string();
    let output = keyferry_command(&["reshard", "report", "--json", "--state", &dir]);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Servers that any replica of a job has attached to, and how often.
fn full_syncs(stage: &Stage) -> Vec<u64> {
    let of = |at: usize| {
        let syncs = stage.servers[at].info_field("stats", "sync_full");
        syncs.and_then(|syncs| syncs.parse().ok()).unwrap_or(0)
    };
    (0..stage.servers.len()).map(of).collect()
}

/// Nothing of ours stays on any server.
fn assert_no_notes(stage: &Stage) {
    for server in &stage.servers {
        let notes = server.client().call(&["KEYS", "__keyferry:*"]);
        assert_eq!(notes.items(), [], "{}", server.address());
    }
    assert_eq!(stage.users_of_jobs(), 0);
}

/// Completes the last step with its purge, and looks at everything.
fn finish(stage: &mut Stage, loads: Vec<(u32, Load)>) {
    let dir = stage.state_dir().display().to_string();
    let complete = keyferry_command(&["reshard", "complete", "--yes", "--purge", "--state", &dir]);
    assert!(complete.status.success(), "{complete:?}");
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("new.toml", false);
    assert_no_notes(stage);
}

#[test]
fn three_shards_become_five_one_after_another_by_themselves() {
    let _alone = alone();
    let mut rng = seeded("three_shards_become_five_one_after_another_by_themselves");
    let mut stage = three_to_five(2);
    let mut words = vec!["reshard".to_owned(), "plan".to_owned()];
    words.extend(stage.job_args());
    words.extend(BY_SHARD.map(str::to_owned));
    let plan = keyferry_command(&words);
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    for step in ["1 of 3  s0", "2 of 3  s1", "3 of 3  s2"] {
        assert!(text.contains(step), "{text}");
    }
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&[&BY_SHARD[..], &["--switch", "auto"]].concat());
    let watch = job.verb_in_background("watch", &[]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 3);
    stage.let_write(&loads, REPLIES);
    // Each old shard was read once, in its own step; no new one was.
    assert_eq!(full_syncs(&stage), [1, 1, 1, 0, 0]);
    let report = report(&stage);
    assert_eq!(report["steps"].as_array().expect("steps").len(), 3);
    assert_eq!(report["steps_completed"], 2, "{report}");
    assert_eq!(report["state"], "switched");
    drop(watch);
    finish(&mut stage, loads);
}

#[test]
fn modula_becomes_ketama_on_shared_servers_with_a_rollback_of_the_second_step() {
    let _alone = alone();
    let name = "modula_becomes_ketama_on_shared_servers_with_a_rollback_of_the_second_step";
    let mut rng = seeded(name);
    let mut stage = Stage::new(
        &Shape("murmur", "modula", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&BY_SHARD);
    wait_step(&mut job, 1, "verified");
    let early = job.verb("complete", &["--yes"]);
    assert_eq!(early.status.code(), Some(4), "{early:?}");
    verb(&job, "switch", &[]);
    let followed = wait_for_the_way_back(&mut job, 1);
    assert_eq!(
        (&followed["step"]["of"], &followed["step"]["shard"]),
        (&2.into(), &"s0".into())
    );
    let next = followed["next"].as_str().expect("text");
    assert!(next.contains("begins step 2 of 2"), "{next}");
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let purge = job.verb("complete", &["--yes", "--purge"]);
    assert_eq!(purge.status.code(), Some(4), "{purge:?}");
    let said = verb(&job, "complete", &[]);
    assert!(said.contains("step 2 begins"), "{said}");

    let second = wait_step(&mut job, 2, "verified");
    assert_ne!(second["step"]["copied_before"]["keys"], 0, "{second}");
    verb(&job, "switch", &[]);
    stage.assert_epoch(epoch + 2);
    wait_for_the_way_back(&mut job, 2);
    stage.let_write(&loads, REPLIES);
    verb(&job, "rollback", &[]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 5, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 3);
    stage.let_write(&loads, REPLIES);
    let status = status(&job);
    assert_eq!(status["state"], "rolled_back", "{status}");
    assert_eq!(status["step"]["number"], 2, "{status}");
    // What the step had copied is gone: nothing stands in the way of another try.
    assert_eq!(status["copies_left"], false, "{status}");

    // The step begins anew, and the way goes to its end.
    let again = [&BY_SHARD[..], &["--switch", "auto"]].concat();
    let mut job = stage.start_job(&again);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 4);
    finish(&mut stage, loads);
}

#[test]
fn from_on_the_way_a_job_goes_all_the_way_back() {
    let _alone = alone();
    let mut rng = seeded("from_on_the_way_a_job_goes_all_the_way_back");
    let mut stage = three_to_five(2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&BY_SHARD);
    wait_step(&mut job, 1, "verified");
    verb(&job, "switch", &[]);
    verb(&job, "complete", &[]);
    wait_step(&mut job, 2, "verified");
    // Whole jobs keep out as long as a step is under way.
    let mut words = stage.job_args();
    let to = words.iter().position(|word| word == "--to").expect("it");
    let old = stage.path("old-layout.toml");
    std::fs::write(&old, stage.old.to_layout_file()).expect("a file");
    words[to + 1] = old.display().to_string();
    words.push("--yes".to_owned());
    verb(&job, "cancel", &[]);
    assert_eq!(job.finish(JOB_LIMIT).0, 5);
    stage.assert_epoch(epoch + 1);

    // The first shard still holds what it had before its step.
    words.extend(["--switch", "auto", "--on-conflict", "replace"].map(str::to_owned));
    let mut back = Job::start(&stage.state_dir(), &stage.path(""), &words);
    let (code, stdout, stderr) = back.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 2);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("old.toml", true);
}

/// kill -9 in the middle of a step and right between two; proxies that restart and
/// are reloaded while on the way.
#[test]
fn killed_in_and_between_steps_it_goes_on_at_the_right_one() {
    let _alone = alone();
    let mut rng = seeded("killed_in_and_between_steps_it_goes_on_at_the_right_one");
    let mut stage = three_to_five(2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let second = stage.proxies.pop().expect("the second");
    let loads = stage.start_writers(&mut rng);
    stage.proxies.push(second);

    // In a step, before its switch and after it.
    let mut job = stage.start_job(&BY_SHARD);
    wait_step(&mut job, 1, "verified");
    job.kill();
    stage.let_write(&loads, REPLIES);
    let mut job = stage.start_job(&BY_SHARD);
    wait_step(&mut job, 1, "verified");
    verb(&job, "switch", &[]);
    job.kill();
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let mut job = stage.start_job(&BY_SHARD);
    wait_for_the_way_back(&mut job, 1);

    // Between two steps: right behind the word that ends the first.
    verb(&job, "complete", &[]);
    job.kill();
    stage.let_write(&loads, REPLIES);
    let left = status(&job);
    assert_eq!(left["running"], false, "{left}");

    // A config that is ahead of its time is not taken, neither now nor at a restart.
    stage.proxies[1].write_config(&stage.new, 2, "");
    stage.proxies[1].signal(Signal::Hup);
    wait_until("the reload is refused", JOB_LIMIT, || {
        let metrics = http_get(&stage.proxies[1].admin(), "/metrics");
        metrics.is_ok_and(|(_, text)| text.contains("keyferry_config_reload_failures_total 1"))
    });
    stage.proxies[1].process().kill();
    stage.proxies[1].launch();
    stage.assert_epoch(epoch + 1);

    let mut job = stage.start_job(&BY_SHARD);
    // It was killed before the step was put down as completed, or after it.
    wait_until("the second step is verified", JOB_LIMIT, || {
        if let Some(ended) = job.process().try_wait() {
            panic!("it ended ({ended}): {}", job.process().stderr());
        }
        let status = status(&job);
        if status["step"]["number"] == 1 && status["way_back"] == "following back" {
            job.verb("complete", &["--yes"]);
        }
        status["step"]["number"] == 2 && status["state"] == "verified"
    });
    job.kill();
    let mut job = stage.start_job(&[&BY_SHARD[..], &["--switch", "auto"]].concat());
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 3);

    // The config follows, and nothing changes by that.
    stage.proxies[0].write_config(&stage.new, 2, "");
    stage.proxies[0].signal(Signal::Hup);
    stage.proxies[1].process().kill();
    stage.proxies[1].launch();
    stage.let_write(&loads, REPLIES);
    stage.assert_epoch(epoch + 3);
    finish(&mut stage, loads);
}
