//! kill -9 of the job at a random moment of its switch, under writers; then the
//! same command again. Whatever the moment: no wrong reply, no error, and every
//! key on exactly its new owner.

mod support;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use support::stage::JOB_LIMIT;
use support::{Shape, Stage, seeded};

/// Few keys: what counts is the switch.
const KEYS: (usize, usize) = (2_000, 500);

const REPLIES: u64 = 500;

/// How often the job is killed, each time in a world of its own.
const ROUNDS: u64 = 12;

/// From the call of `reshard switch` to the kill, at most: its own start, and
/// the switch of a loaded machine.
const KILL_AFTER_MS_MAX: u64 = 20;

#[test]
fn killed_while_it_switches_it_ends_well_when_started_again() {
    let mut rng = seeded("killed_while_it_switches_it_ends_well_when_started_again");
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut stage = Stage::new(
            &Shape("fnv1a_64", "ketama", &[0, 1]),
            &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
            2,
        );
        stage.preload(&mut rng, KEYS.0, KEYS.1);
        let epoch = stage.epoch();
        let loads = stage.start_writers(&mut rng);
        // Proxies that were armed wait this long for the job before they refuse.
        let mut job = stage.start_job(&["--switch", "manual", "--hold", "10s"]);
        job.wait_state(&["verified"], JOB_LIMIT);
        let pause = Duration::from_millis(rng.u64(..KILL_AFTER_MS_MAX));
        thread::scope(|scope| {
            let switch = scope.spawn(|| {
                support::keyferry_command(&[
                    "reshard",
                    "switch",
                    "--yes",
                    "--state",
                    &stage.state_dir().display().to_string(),
                ])
            });
            // The moment of the fault, not a wait for anything.
            thread::sleep(pause);
            job.kill();
            switch.join().expect("the command ends");
        });
        let left = job.state().unwrap_or_default();
        println!("round {round}: killed after {pause:?}, left as {left}");
        *met.entry(left).or_default() += 1;

        let mut job = stage.start_job(&["--switch", "auto", "--hold", "10s"]);
        let (code, stdout, stderr) = job.finish(JOB_LIMIT);
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        assert_eq!(job.state().as_deref(), Some("switched"));
        stage.assert_epoch(epoch + 1);
        stage.let_write(&loads, REPLIES);
        let complete = job.verb("complete", &["--yes", "--purge"]);
        assert!(complete.status.success(), "{complete:?}");
        stage.finish_writers(loads);
        assert_eq!(stage.users_of_jobs(), 0, "the fence left users");
        stage.check("new.toml", false);
    }
    println!("states met: {met:?}");
}

/// What a source has to keep for a job that is away for a moment.
const BACKLOG: &str = "64mb";

#[test]
fn killed_while_it_follows_it_goes_on_where_it_was() {
    let mut rng = seeded("killed_while_it_follows_it_goes_on_where_it_was");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    for server in &stage.servers {
        server
            .client()
            .call(&["CONFIG", "SET", "repl-backlog-size", BACKLOG]);
    }
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    for _ in 0..3 {
        let mut job = stage.start_job(&["--switch", "manual"]);
        job.wait_state(&["verified"], JOB_LIMIT);
        job.kill();
        stage.let_write(&loads, REPLIES);
    }
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    for server in &stage.servers[..2] {
        let syncs = server.info_field("stats", "sync_full");
        assert_eq!(syncs.as_deref(), Some("1"), "it was copied again");
    }
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
    for server in &stage.servers {
        let left = server.client().call(&["KEYS", "__keyferry:cp:*"]);
        assert!(left.items().is_empty(), "{left:?}");
    }
}
