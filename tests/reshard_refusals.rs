//! What `keyferry reshard` does with bad input: one clear error that names the
//! server and the step, the exit code of the contract, and nothing changed.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use support::stage::JOB_LIMIT;
use support::{RedisServer, Shape, Signal, Stage, Value, keyferry_command, seeded, wait_until};

const OLD: Shape<'_> = Shape("fnv1a_64", "ketama", &[0, 1]);
const NEW: Shape<'_> = Shape("fnv1a_64", "ketama", &[0, 1, 2]);

const KEYS: usize = 300;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const GUARD: i32 = 4;
const ALREADY_RUNS: i32 = 6;

fn stage_of(extra: [&[&str]; 3]) -> Stage {
    let servers = extra.map(RedisServer::start);
    Stage::with_servers(servers.into(), &OLD, &NEW, 1, "")
}

/// `reshard start` in the foreground, with whatever the stage says.
fn start(stage: &Stage, more: &[&str]) -> Output {
    let state = stage.state_dir().display().to_string();
    let mut words = vec![
        "reshard".to_owned(),
        "start".into(),
        "--state".into(),
        state,
    ];
    words.extend(stage.job_args());
    words.extend(more.iter().map(|word| (*word).to_owned()));
    keyferry_command(&words)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The job fails with one of `codes`, its message has all of `parts`, no key
/// came or went, and the proxy is where it was.
fn expect_refusal(stage: &Stage, codes: &[i32], parts: &[&str], more: &[&str]) {
    let counts = stage.key_counts();
    let epoch = stage.epoch();
    let output = start(stage, more);
    let said = text(&output);
    let code = output.status.code().unwrap_or(-1);
    assert!(codes.contains(&code), "exit code {code}: {said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("error"));
    assert_eq!(errors.count(), 1, "one clear error: {said}");
    assert_eq!(stage.key_counts(), counts);
    stage.assert_epoch(epoch);
}

fn stage_with_keys(name: &str, extra: [&[&str]; 3]) -> Stage {
    let mut stage = stage_of(extra);
    stage.preload(&mut seeded(name), KEYS, KEYS);
    stage
}

#[test]
fn a_source_without_psync() {
    let none: &[&str] = &[];
    let gone: &[&str] = &[
        "--rename-command",
        "PSYNC",
        "",
        "--rename-command",
        "SYNC",
        "",
    ];
    let stage = stage_with_keys("a_source_without_psync", [none, gone, none]);
    let source = stage.servers[1].address();
    let parts = [source.as_str(), "PSYNC"];
    expect_refusal(&stage, &[FAILED, GUARD], &parts, &["--yes"]);
}

#[test]
fn a_wrong_password() {
    let mut stage = Stage::with_password(&OLD, &NEW, "right-one");
    stage.preload(&mut seeded("a_wrong_password"), KEYS, KEYS);
    let counts = stage.key_counts();
    let config = stage.proxies[0].config();
    let right = fs::read_to_string(&config).expect("our own file");
    for (wrong, says) in [
        (right.replace("right-one", "wrong-one"), "WRONGPASS"),
        (right.replace("upstream = ", "# "), "NOAUTH"),
    ] {
        fs::write(&config, wrong).expect("our own file");
        let source = stage.servers[0].address();
        expect_refusal(&stage, &[FAILED, GUARD], &[&source, says], &["--yes"]);
        let said = text(&start(&stage, &["--yes"]));
        assert!(
            !said.contains("wrong-one"),
            "a secret is never printed: {said}"
        );
    }
    assert_eq!(stage.key_counts(), counts);
}

#[test]
fn a_target_that_refuses_restore() {
    let none: &[&str] = &[];
    let gone: &[&str] = &["--rename-command", "RESTORE", ""];
    let stage = stage_with_keys("a_target_that_refuses_restore", [none, none, gone]);
    let target = stage.servers[2].address();
    let parts = [target.as_str(), "RESTORE"];
    expect_refusal(&stage, &[FAILED, GUARD], &parts, &["--yes"]);
}

#[test]
fn a_target_that_is_down() {
    let none: &[&str] = &[];
    let mut stage = stage_with_keys("a_target_that_is_down", [none; 3]);
    let target = stage.servers[2].address();
    let epoch = stage.epoch();
    stage.servers[2].kill();
    let output = start(&stage, &["--yes"]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&target), "{said}");
    stage.assert_epoch(epoch);
}

#[test]
fn a_key_in_the_target_that_is_not_ours() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("a_key_in_the_target_that_is_not_ours", [none; 3]);
    // Sits where the new layout wants a key of the old shards to be.
    let keys: Vec<Vec<u8>> = stage.expected[&0].keys().cloned().collect();
    let target = stage.servers[2].address();
    let routes = stage.routes("new.toml", &keys);
    let at = routes.iter().position(|address| *address == target);
    let key = keys[at.expect("some key moves")].as_slice();
    let mut client = stage.servers[2].client();
    client.call(&[b"SET".as_slice(), key, b"not ours"]);
    let epoch = stage.epoch();
    let output = start(&stage, &["--yes", "--switch", "auto"]);
    let said = text(&output);
    assert!(
        [Some(FAILED), Some(GUARD)].contains(&output.status.code()),
        "{said}"
    );
    assert!(said.contains(&target), "{said}");
    assert_eq!(
        client.call(&[b"GET".as_slice(), key]),
        Value::bulk("not ours")
    );
    stage.assert_epoch(epoch);
}

#[test]
fn a_stray_copy_on_the_wrong_shard_is_not_moved() {
    let none: &[&str] = &[];
    let mut stage = stage_with_keys("a_stray_copy_on_the_wrong_shard_is_not_moved", [none; 3]);
    // A key that moves from s0 or s1 to s2 also lies, stale, on the other one.
    let keys: Vec<Vec<u8>> = stage.expected[&0].keys().cloned().collect();
    let (old, new) = (
        stage.routes("old.toml", &keys),
        stage.routes("new.toml", &keys),
    );
    let target = stage.servers[2].address();
    let mut strays = Vec::new();
    for ((key, old), _) in keys
        .iter()
        .zip(&old)
        .zip(&new)
        .filter(|(_, new)| **new == target)
        .take(20)
    {
        let other = usize::from(*old == stage.servers[0].address());
        let mut client = stage.servers[other].client();
        client.call(&[b"DEL".as_slice(), key]);
        client.call(&[b"SET".as_slice(), key, b"stale"]);
        strays.push((other, key.clone()));
    }
    assert!(!strays.is_empty());
    let output = start(&stage, &["--yes", "--switch", "auto"]);
    assert!(output.status.success(), "{}", text(&output));
    stage.check("new.toml", true);
    for (server, key) in strays {
        stage.servers[server]
            .client()
            .call(&[b"DEL".as_slice(), &key]);
    }
    let complete = complete(&stage);
    assert!(complete.status.success(), "{}", text(&complete));
    stage.check("new.toml", false);
    stage.expected.clear();
}

fn complete(stage: &Stage) -> Output {
    let state = stage.state_dir().display().to_string();
    keyferry_command(&["reshard", "complete", "--yes", "--purge", "--state", &state])
}

#[test]
fn a_state_directory_that_cannot_be_made() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("a_state_directory_that_cannot_be_made", [none; 3]);
    // Its name is taken by a file.
    fs::write(stage.state_dir(), "").expect("a file");
    let path = stage.state_dir().display().to_string();
    expect_refusal(&stage, &[FAILED, GUARD], &[&path], &["--yes"]);
}

#[test]
fn a_disk_without_room_for_the_journal() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("a_disk_without_room_for_the_journal", [none; 3]);
    let counts = stage.key_counts();
    let epoch = stage.epoch();
    // No file may grow past 0 bytes: every write of the journal fails.
    let output = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 0; exec \"$@\"")
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_keyferry"))
        .args(["reshard", "start", "--yes", "--switch", "auto", "--state"])
        .arg(stage.state_dir())
        .args(stage.job_args())
        .output()
        .expect("sh");
    let said = text(&output);
    let code = output.status.code();
    assert!(
        [Some(FAILED), Some(GUARD)].contains(&code),
        "{code:?} {said}"
    );
    let path = stage.state_dir().display().to_string();
    assert!(said.contains(&path), "{said}");
    assert_eq!(stage.key_counts(), counts);
    stage.assert_epoch(epoch);
}

#[test]
fn no_yes_and_no_terminal() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("no_yes_and_no_terminal", [none; 3]);
    let output = start(&stage, &[]);
    assert_eq!(output.status.code(), Some(USAGE), "{}", text(&output));
    assert!(text(&output).contains("--yes"), "{}", text(&output));
    stage.check("old.toml", false);
}

#[test]
fn a_layout_file_with_a_mistake() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("a_layout_file_with_a_mistake", [none; 3]);
    let path = stage.path("layout.toml");
    let layout = fs::read_to_string(&path).expect("our own file");
    fs::write(&path, layout.replace("ketama", "ketema")).expect("our own file");
    let output = start(&stage, &["--yes"]);
    assert_eq!(output.status.code(), Some(USAGE), "{}", text(&output));
    let place = format!("{}:2:", path.display());
    assert!(text(&output).contains(&place), "{}", text(&output));
}

#[test]
fn a_second_job_while_one_runs() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("a_second_job_while_one_runs", [none; 3]);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["following", "verified"], JOB_LIMIT);
    let output = start(&stage, &["--yes"]);
    assert_eq!(
        output.status.code(),
        Some(ALREADY_RUNS),
        "{}",
        text(&output)
    );
    // The first one is not disturbed.
    job.wait_state(&["verified"], JOB_LIMIT);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{}", text(&switch));
    let complete = job.verb("complete", &["--yes"]);
    assert!(complete.status.success(), "{}", text(&complete));
    let (code, stdout, stderr) = job.finish(Duration::from_secs(60));
    assert_eq!(code, 0, "{stdout}{stderr}");
}

/// Two keys of one old shard whose new owners differ.
fn keys_that_part(stage: &Stage) -> [Vec<u8>; 2] {
    let keys: Vec<Vec<u8>> = stage.expected[&0].keys().cloned().collect();
    let (old, new) = (
        stage.routes("old.toml", &keys),
        stage.routes("new.toml", &keys),
    );
    let moves = |at: usize| new[at] != old[at];
    let first = (0..keys.len()).find(|at| moves(*at)).expect("one moves");
    let second = (0..keys.len()).find(|at| !moves(*at) && old[*at] == old[first]);
    let second = second.expect("one stays");
    [keys[first].clone(), keys[second].clone()]
}

/// What earlier builds refused to follow.
#[test]
fn commands_whose_keys_part_and_an_emptied_source_are_followed() {
    let none: &[&str] = &[];
    let name = "commands_whose_keys_part_and_an_emptied_source_are_followed";
    let stage = stage_with_keys(name, [none; 3]);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let [from, to] = keys_that_part(&stage);
    let mut client = stage.proxies[0].client();
    let reply = client.call(&[b"RENAME".as_slice(), &from, &to]);
    assert_eq!(reply, Value::ok());
    let verify = job.verb("verify", &[]);
    assert!(verify.status.success(), "{verify:?}");
    let reply = stage.servers[0].client().call(&["FLUSHALL"]);
    assert_eq!(reply, Value::ok());
    let verify = job.verb("verify", &[]);
    assert!(verify.status.success(), "{verify:?}");
    wait_until("both are counted", JOB_LIMIT, || {
        let status = job.verb("status", &["--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        let rows = status["sources"].as_array().expect("rows");
        let sum = |what: &str| -> u64 { rows.iter().filter_map(|row| row[what].as_u64()).sum() };
        sum("flushes") == 1 && sum("keys_refreshed") > 0
    });
    assert!(job.verb("cancel", &["--yes"]).status.success());
    job.finish(JOB_LIMIT);
}

#[test]
fn a_source_that_dies_stops_the_job() {
    let none: &[&str] = &[];
    let mut stage = stage_with_keys("a_source_that_dies_stops_the_job", [none; 3]);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let address = stage.servers[1].address();
    stage.servers[1].kill();
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    let said = format!("{stdout}{stderr}");
    assert!([1, 75].contains(&code), "{code}: {said}");
    assert!(said.contains(&address), "{said}");
    stage.assert_epoch(epoch);
}

#[test]
fn a_reload_leaves_the_layout_while_a_job_works_on_it() {
    let none: &[&str] = &[];
    let mut stage = stage_with_keys(
        "a_reload_leaves_the_layout_while_a_job_works_on_it",
        [none; 3],
    );
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    stage.proxies[0].write_config(&stage.new, 2, "");
    let before = stage.proxies[0].metric("config_reload_failures");
    stage.proxies[0].signal(Signal::Hup);
    wait_until("the reload is refused", JOB_LIMIT, || {
        stage.proxies[0].metric("config_reload_failures") > before
    });
    stage.assert_epoch(epoch);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{}", text(&switch));
    let complete = job.verb("complete", &["--yes"]);
    assert!(complete.status.success(), "{}", text(&complete));
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}{stderr}");
    stage.assert_epoch(epoch + 1);
    stage.check("new.toml", true);
}

#[test]
fn a_plan_changes_nothing() {
    let none: &[&str] = &[];
    let stage = stage_with_keys("a_plan_changes_nothing", [none; 3]);
    let counts = stage.key_counts();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    command.args(["reshard", "plan"]);
    // `plan` needs neither --proxy nor --state.
    command.args(stage.job_args().iter().take(6));
    let output = command.output().expect("the binary under test");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = command.arg("--json").output().expect("the binary");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["v"], 1);
    assert_eq!(stage.key_counts(), counts);
    stage.assert_epoch(stage.epoch());
    stage.check("old.toml", false);
}
