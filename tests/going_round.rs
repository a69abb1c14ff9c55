//! Who writes to old shards round the proxies: named and refused before the switch,
//! even if it has read since; told after it.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::time::Duration;

use support::stage::JOB_LIMIT;
use support::{Client, Job, Shape, Stage, seeded, wait_until};

/// Several looks.
const SEEN_LIMIT: Duration = Duration::from_secs(60);

fn json(job: &Job, verb: &str) -> serde_json::Value {
    let output = job.verb(verb, &["--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn names(list: &serde_json::Value, address: &str) -> bool {
    let mut rows = list.as_array().into_iter().flatten();
    rows.any(|row| row.as_str().is_some_and(|row| row.starts_with(address)))
}

fn address_of(client: &Client) -> String {
    let stream = client.try_clone_stream().expect("a socket");
    stream.local_addr().expect("its own").to_string()
}

#[test]
fn who_goes_round_is_named_before_the_switch_and_after_it() {
    let mut rng = seeded("who_goes_round_is_named_before_the_switch_and_after_it");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, 2_000, 500);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&[]);
    job.wait_state(&["verified"], JOB_LIMIT);

    let mut stranger = stage.servers[0].client();
    let address = address_of(&stranger);
    wait_until("a look has found it", SEEN_LIMIT, || {
        stranger.call(&["SET", "round:the:proxies", "1"]);
        names(&json(&job, "status")["going_round"], &address)
    });
    stranger.call(&["DEL", "round:the:proxies"]);
    // Its last command is no write any more.
    stranger.call(&["GET", "round:the:proxies"]);
    let refused = job.verb("switch", &["--yes"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains(&address), "{text}");
    stage.assert_epoch(epoch);

    drop(stranger);
    wait_until("it is gone, and the switch is made", SEEN_LIMIT, || {
        job.verb("switch", &["--yes"]).status.success()
    });
    stage.assert_epoch(epoch + 1);
    let mut stranger = stage.servers[1].client();
    let address = address_of(&stranger);
    wait_until("it is told", SEEN_LIMIT, || {
        stranger.call(&["SET", "round:the:proxies", "1"]);
        names(&json(&job, "status")["bypass"], &address)
    });
    assert!(names(&json(&job, "report")["bypass"], &address));
    stranger.call(&["DEL", "round:the:proxies"]);
    drop(stranger);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.check("new.toml", false);
}
