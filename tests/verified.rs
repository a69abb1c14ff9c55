//! What a verify finds keeps a job from its switch, and what it proves is in the
//! job's report.

mod support;

use std::process::Output;

use support::stage::JOB_LIMIT;
use support::{Shape, Stage, seeded};

const GUARD: i32 = 4;
const DIFFERENCES: i32 = 3;

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

fn stage() -> Stage {
    Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    )
}

/// Keys that move, with the address of their new owner.
fn moving(stage: &Stage, count: usize) -> Vec<(String, String)> {
    let keys: Vec<String> = (0..500).map(|n| format!("injected:{n}")).collect();
    let old = stage.routes("old.toml", &keys);
    let new = stage.routes("new.toml", &keys);
    let ways = old.into_iter().zip(new);
    let moving = keys.into_iter().zip(ways);
    let moving = moving.filter(|(_, (old, new))| old != new);
    let moving: Vec<_> = moving.map(|(key, (_, new))| (key, new)).collect();
    assert!(moving.len() >= count, "enough keys move");
    moving.into_iter().take(count).collect()
}

#[test]
fn injected_differences_are_all_named_and_no_switch_goes_over_them() {
    let mut stage = stage();
    stage.preload(&mut seeded("injected"), 3_000, 500);
    let moving = moving(&stage, 4);
    let [ttl, member, stale, extra] = moving.as_slice() else {
        panic!("four keys");
    };
    let mut client = stage.proxies[0].client();
    client.call(&["SET", &ttl.0, "v", "EX", "5000"]);
    client.call(&["SADD", &member.0, "a", "b", "c"]);
    client.call(&["SET", &stale.0, "fresh"]);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);

    let target = |address: &str| support::Client::connect(address);
    target(&ttl.1).call(&["EXPIRE", &ttl.0, "9000"]);
    target(&member.1).call(&["SREM", &member.0, "b"]);
    target(&stale.1).call(&["SET", &stale.0, "stale"]);
    target(&extra.1).call(&["SET", &extra.0, "x"]);

    let verify = job.verb("verify", &[]);
    let said = text(&verify);
    assert_eq!(verify.status.code(), Some(DIFFERENCES), "{said}");
    let line = |key: &str| {
        let quoted = format!("`{key}`");
        let mut lines = said.lines().filter(|line| line.contains(&quoted));
        lines
            .next()
            .unwrap_or_else(|| panic!("{key}: {said}"))
            .to_owned()
    };
    assert!(line(&ttl.0).contains("expires at"), "{said}");
    assert!(line(&member.0).contains("length 3"), "{said}");
    assert!(line(&stale.0).contains("content differs"), "{said}");
    assert!(line(&extra.0).contains("only at the target"), "{said}");

    let switch = job.verb("switch", &["--yes"]);
    assert_eq!(switch.status.code(), Some(GUARD), "{}", text(&switch));
    stage.assert_epoch(1);
    assert_eq!(job.state().as_deref(), Some("following"));
    assert!(job.verb("cancel", &["--yes"]).status.success());
    job.finish(JOB_LIMIT);
}

#[test]
fn the_report_holds_the_proof_and_the_status_says_what_is_next() {
    let mut stage = stage();
    stage.preload(&mut seeded("proof"), 3_000, 500);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let status = text(&job.verb("status", &[]));
    assert!(
        status.contains("verified 0 s ago") || status.contains(" s ago"),
        "{status}"
    );
    assert!(status.contains("next: keyferry reshard switch"), "{status}");

    let report = job.verb("report", &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).expect("JSON");
    let proof = report["proof"].as_array().expect("a list");
    assert_eq!(proof.len(), 2, "one for each source: {report}");
    let keys: u64 = proof.iter().filter_map(|row| row["keys"].as_u64()).sum();
    assert_eq!(Some(keys), report["verified_keys"].as_u64());
    assert!(keys > 0);
    assert!(job.verb("cancel", &["--yes"]).status.success());
    job.finish(JOB_LIMIT);
}
