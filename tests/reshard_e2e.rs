//! The main job as a user meets it: real servers, real proxies, writers that
//! never stop, one `keyferry reshard`. Afterwards every key is on exactly the
//! server of the new layout, holds what the model says, and no client saw an
//! error or a wrong reply.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::stage::JOB_LIMIT;
use support::{Client, RedisServer, Shape, Signal, Stage, Value, seeded, wait_until};

/// Keys in database 0 and in the second one.
const KEYS: (usize, usize) = (170_000, 30_000);

/// Keys where the scenario is about faults, not about volume.
const FEW_KEYS: (usize, usize) = (30_000, 5_000);

/// Keys where built-in shards are among the servers: what is new is what they answer.
const BUILT_IN_KEYS: (usize, usize) = (10_000, 2_000);

/// What each writer gets done before, between and after the steps.
const REPLIES: u64 = 3_000;

/// These jobs want a whole machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Preload, writers, `start --switch auto`, writers again, `complete --purge`,
/// check.
fn whole_way(name: &str, stage: Stage, keys: (usize, usize)) {
    whole_way_with(name, stage, keys, &[]);
}

/// The same with more arguments for the job.
fn whole_way_with(name: &str, mut stage: Stage, keys: (usize, usize), args: &[&str]) {
    let mut rng = seeded(name);
    stage.preload(&mut rng, keys.0, keys.1);
    stage.check("old.toml", false);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    stage.let_write(&loads, REPLIES);

    let mut job = stage.start_job(&[&["--switch", "auto"], args].concat());
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert_eq!(job.state().as_deref(), Some("switched"));
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);

    // With -c it knows the shards' password, if they want one.
    let config = stage.proxies[0].config().display().to_string();
    let complete = job.verb("complete", &["--yes", "--purge", "-c", &config]);
    assert!(complete.status.success(), "{complete:?}");
    assert_eq!(job.state().as_deref(), Some("completed"));
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

#[test]
fn two_shards_become_three() {
    let _alone = alone();
    let stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    whole_way("two_shards_become_three", stage, KEYS);
}

#[test]
fn three_shards_become_two() {
    let _alone = alone();
    let stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        1,
    );
    whole_way("three_shards_become_two", stage, KEYS);
}

#[test]
fn modula_becomes_ketama_on_the_same_servers() {
    let _alone = alone();
    let stage = Stage::new(
        &Shape("murmur", "modula", &[0, 1, 2]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    whole_way("modula_becomes_ketama_on_the_same_servers", stage, KEYS);
}

#[test]
fn two_proxies_switch_together() {
    let _alone = alone();
    let stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    whole_way("two_proxies_switch_together", stage, FEW_KEYS);
}

#[test]
fn shards_behind_a_password() {
    let _alone = alone();
    let stage = Stage::with_password(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        "secret",
    );
    whole_way("shards_behind_a_password", stage, FEW_KEYS);
}

fn without_psync(extra: &[&str]) -> Stage {
    let renamed = [
        "--rename-command",
        "PSYNC",
        "",
        "--rename-command",
        "SYNC",
        "",
    ];
    Stage::with_servers(
        RedisServer::start_many(3, &[&renamed[..], extra].concat()),
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
        "",
    )
}

#[test]
fn shards_without_psync_are_walked_through() {
    let _alone = alone();
    let name = "shards_without_psync_are_walked_through";
    whole_way_with(name, without_psync(&[]), FEW_KEYS, &["--attach", "scan"]);
}

#[test]
fn a_walk_says_what_it_is_and_leaves_nothing_behind() {
    let _alone = alone();
    let mut rng = seeded("a_walk_says_what_it_is_and_leaves_nothing_behind");
    let mut stage = without_psync(&[]);
    stage.preload(&mut rng, 2_000, 500);
    let mut job = stage.start_job(&["--attach", "scan"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let status = job.verb("status", &["--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["attach"], "scan");
    for source in status["sources"].as_array().unwrap() {
        assert_eq!(source["changes_by"], "notifications", "{source}");
    }
    let setting = |stage: &Stage, at: usize| {
        let mut client = stage.servers[at].client();
        let reply = client.call(&["CONFIG", "GET", "notify-keyspace-events"]);
        reply.items()[1].text()
    };
    assert_eq!([0, 1].map(|at| setting(&stage, at)), ["AE", "AE"]);
    job.process().signal(Signal::Int);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 75, "{stdout}\n{stderr}");
    assert!(
        stderr.contains("promise (--attach scan, weaker)"),
        "{stderr}"
    );
    assert_eq!([0, 1].map(|at| setting(&stage, at)), ["", ""]);
    stage.check("old.toml", true);
}

#[test]
fn shards_without_psync_and_notifications_are_read_in_passes() {
    let _alone = alone();
    let name = "shards_without_psync_and_notifications_are_read_in_passes";
    let stage = without_psync(&["--rename-command", "CONFIG", ""]);
    // The switch takes a whole pass.
    let args = ["--attach", "scan", "--hold", "30s"];
    whole_way_with(name, stage, FEW_KEYS, &args);
}

#[test]
fn a_job_killed_while_it_copies_ends_well_when_started_again() {
    let _alone = alone();
    let name = "a_job_killed_while_it_copies_ends_well_when_started_again";
    let mut rng = seeded(name);
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    stage.let_write(&loads, REPLIES);

    let mut job = stage.start_job(&["--switch", "auto"]);
    wait_until("the copy has begun", JOB_LIMIT, || {
        stage.servers[2].client().call(&["DBSIZE"]).int() > 500
    });
    job.kill();
    stage.assert_epoch(epoch);
    stage.let_write(&loads, REPLIES);

    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

#[test]
fn a_job_stopped_by_ctrl_c_exits_75_and_goes_on_when_started_again() {
    let _alone = alone();
    let name = "a_job_stopped_by_ctrl_c_exits_75_and_goes_on_when_started_again";
    let mut rng = seeded(name);
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["following", "verified"], JOB_LIMIT);
    job.process().signal(Signal::Int);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 75, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch);
    stage.let_write(&loads, REPLIES);

    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.let_write(&loads, REPLIES);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

#[test]
fn a_switch_past_its_deadline_goes_back_to_the_old_route() {
    let _alone = alone();
    let name = "a_switch_past_its_deadline_goes_back_to_the_old_route";
    let mut rng = seeded(name);
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&["--switch", "manual", "--hold", "300ms"]);
    job.wait_state(&["verified"], JOB_LIMIT);

    // The new shard does not answer: what the writers do cannot be applied
    // there, so the marker does not come through in time.
    stage.servers[2].pause();
    stage.let_write(&loads, 200);
    let refused = job.verb("switch", &["--yes"]);
    assert!(!refused.status.success(), "{refused:?}");
    // Everything is released on the old route, and the clients saw no error.
    wait_until("the gate is open again", Duration::from_secs(20), || {
        stage.proxies[0].epoch_and_gate() == (epoch, "open".to_owned())
    });
    stage.let_write(&loads, REPLIES);
    for (_, load) in &loads {
        assert_eq!(load.faults(), 0);
    }
    stage.servers[2].resume();
    job.wait_state(&["following", "verified"], JOB_LIMIT);

    job.wait_state(&["verified"], JOB_LIMIT);
    wait_until("the second switch is taken", JOB_LIMIT, || {
        job.verb("switch", &["--yes"]).status.success()
    });
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

#[test]
fn old_shards_keep_their_keys_until_complete_purge() {
    let _alone = alone();
    let mut rng = seeded("old_shards_keep_their_keys_until_complete_purge");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    let before = stage.key_counts();
    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    // On the new owners everything is right; the old ones still have it too.
    stage.check("new.toml", true);
    let after = stage.key_counts();
    for at in [0, 1] {
        let address = stage.servers[at].address();
        for db in [0, 1] {
            assert!(after[&address][db] >= before[&address][db], "{address}");
        }
    }
    // The proxy started again keeps the new epoch: its config still says the old
    // layout.
    let epoch = stage.epoch();
    stage.proxies[0].launch();
    stage.assert_epoch(epoch);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.check("new.toml", false);
}

#[test]
fn a_rate_is_taken_back_while_the_job_copies() {
    let _alone = alone();
    let mut rng = seeded("a_rate_is_taken_back_while_the_job_copies");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    // It would take hours.
    let mut job = stage.start_job(&["--switch", "auto", "--rate", "1KB/s"]);
    job.wait_state(&["copying"], JOB_LIMIT);
    wait_until("the rate shows", JOB_LIMIT, || {
        let status = job.verb("status", &["--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        status["throttled_to_bytes_per_s"] == 1024
    });
    let nothing = job.verb("set", &[]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    let wrong = job.verb("set", &["--rate", "fast"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let set = job.verb("set", &["--rate", "none", "--target-p99", "5s"]);
    assert!(set.status.success(), "{set:?}");
    let told = String::from_utf8_lossy(&set.stdout).into_owned();
    assert!(told.contains("rate none, target p99 5000 ms"), "{told}");
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.check("new.toml", true);
    let late = job.verb("set", &["--rate", "none"]);
    assert_eq!(late.status.code(), Some(4), "no process runs it: {late:?}");
}

#[test]
fn a_job_killed_while_the_proxies_hold_leaves_them_on_the_old_route() {
    let _alone = alone();
    let name = "a_job_killed_while_the_proxies_hold_leaves_them_on_the_old_route";
    let mut rng = seeded(name);
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let args = ["--switch", "manual", "--hold", "3s", "--fence", "proxies"];
    let mut job = stage.start_job(&args);
    job.wait_state(&["verified"], JOB_LIMIT);

    // The target stands still, so the switch stays where the proxies hold.
    stage.servers[2].pause();
    stage.let_write(&loads, 200);
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    wait_until("a proxy holds", JOB_LIMIT, || {
        let mut proxies = stage.proxies.iter();
        proxies.any(|proxy| proxy.epoch_and_gate().1 == "held")
    });
    job.kill();
    assert_ne!(switch.wait_code(JOB_LIMIT), 0);
    stage.servers[2].resume();
    wait_until("all proxies let go by themselves", JOB_LIMIT, || {
        let mut proxies = stage.proxies.iter();
        proxies.all(|proxy| proxy.epoch_and_gate() == (epoch, "open".to_owned()))
    });
    stage.let_write(&loads, REPLIES);

    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

#[test]
fn a_proxy_that_hangs_takes_the_switch_back_for_all() {
    let _alone = alone();
    let mut rng = seeded("a_proxy_that_hangs_takes_the_switch_back_for_all");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        2,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    let epoch = stage.epoch();
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&["--switch", "manual", "--fence", "proxies"]);
    job.wait_state(&["verified"], JOB_LIMIT);

    stage.proxies[1].signal(Signal::Stop);
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    let hung = stage.proxies[1].admin_url();
    wait_until("the job names who does not answer", JOB_LIMIT, || {
        let status = job.verb("status", &[]);
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        said.contains("aborting") && said.contains(&hung)
    });
    // The other one does not wait for it.
    wait_until("the other one is open again", JOB_LIMIT, || {
        stage.proxies[0].epoch_and_gate() == (epoch, "open".to_owned())
    });
    stage.proxies[1].signal(Signal::Cont);
    assert_ne!(switch.wait_code(JOB_LIMIT), 0);
    wait_until("and this one", JOB_LIMIT, || {
        stage.proxies[1].epoch_and_gate() == (epoch, "open".to_owned())
    });
    stage.let_write(&loads, REPLIES);

    job.wait_state(&["verified"], JOB_LIMIT);
    wait_until("the second switch is taken", JOB_LIMIT, || {
        job.verb("switch", &["--yes"]).status.success()
    });
    stage.assert_epoch(epoch + 1);
    stage.let_write(&loads, REPLIES);
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.finish_writers(loads);
    stage.check("new.toml", false);
}

/// Counters whose TTL is renewed by every increment: losing one key for a moment
/// starts its count again. A gap between two increments that comes near the TTL
/// is the machine's, and forgives the next reply.
#[test]
fn keys_that_expire_go_and_keys_that_are_renewed_stay() {
    const TTL: Duration = Duration::from_secs(2);
    let _alone = alone();
    let mut rng = seeded("keys_that_expire_go_and_keys_that_are_renewed_stay");
    let mut stage = Stage::new(
        &Shape("fnv1a_64", "ketama", &[0, 1]),
        &Shape("fnv1a_64", "ketama", &[0, 1, 2]),
        1,
    );
    stage.preload(&mut rng, FEW_KEYS.0, FEW_KEYS.1);
    let address = stage.proxies[0].address();
    let mut client = stage.proxies[0].client();
    for number in 0..2_000 {
        let (key, ttl) = (format!("brief:{number}"), rng.u32(500..6_000).to_string());
        client.send(&["SET", &key, "gone soon", "PX", &ttl]);
    }
    for _ in 0..2_000 {
        assert_eq!(client.read(), Value::ok());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let renewing = stop.clone();
    let renewer = std::thread::spawn(move || {
        let mut client = Client::connect(&address);
        let ttl = TTL.as_millis().to_string();
        let mut counts = vec![(0, Instant::now()); 200];
        let mut faults = Vec::new();
        while !renewing.load(Ordering::Relaxed) {
            for (number, (count, last)) in counts.iter_mut().enumerate() {
                let key = format!("renewed:{number}");
                let began = *last;
                *last = Instant::now();
                client.send(&["INCR", &key]);
                client.send(&["PEXPIRE", &key, &ttl]);
                let (value, renewed) = (client.read(), client.read());
                let forgiven = began.elapsed() > TTL / 2;
                *count = match value {
                    Value::Int(value) if value == *count + 1 || forgiven => value,
                    other => {
                        faults.push(format!("{key}: {other:?} after {count}"));
                        *count + 1
                    }
                };
                if renewed != Value::Int(1) && !forgiven {
                    faults.push(format!("{key}: PEXPIRE was answered {renewed:?}"));
                }
            }
        }
        faults
    });
    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    stop.store(true, Ordering::Relaxed);
    let faults = renewer.join().expect("no panic");
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert!(
        faults.is_empty(),
        "{} faults: {:?}",
        faults.len(),
        &faults[..1]
    );
    let complete = job.verb("complete", &["--yes", "--purge"]);
    assert!(complete.status.success(), "{complete:?}");
    // All of them go by themselves; nothing keeps or revives a copy.
    wait_until("the brief and the renewed keys are gone", JOB_LIMIT, || {
        let counts = stage.key_counts();
        let sum: i64 = counts.values().map(|[first, _]| first).sum();
        sum == FEW_KEYS.0 as i64
    });
    stage.check("new.toml", false);
}

/// Two redis-servers, two built-in shards, two redis-servers.
fn redis_and_built_in() -> Vec<RedisServer> {
    let redis = || RedisServer::start(&["--enable-debug-command", "yes"]);
    let built_in = || RedisServer::start_built_in(&[]);
    vec![redis(), redis(), built_in(), built_in(), redis(), redis()]
}

/// One server becomes one other: DEBUG DIGEST is of a whole server, database by database.
#[test]
fn redis_becomes_built_in_and_redis_again_with_equal_digests() {
    let _alone = alone();
    let way = |servers, from: usize, to: usize| {
        let (from, to) = ([from], [to]);
        let (from, to) = (
            Shape("fnv1a_64", "ketama", &from),
            Shape("fnv1a_64", "ketama", &to),
        );
        Stage::with_servers(servers, &from, &to, 1, "")
    };
    let digest = |stage: &Stage, at: usize| {
        let digest = stage.servers[at].client().call(&["DEBUG", "DIGEST"]).text();
        assert_eq!(digest.len(), 40, "{digest}");
        digest
    };
    let finish = |stage: &Stage| {
        let mut job = stage.start_job(&["--switch", "auto"]);
        let (code, stdout, stderr) = job.finish(JOB_LIMIT);
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        let complete = job.verb("complete", &["--yes"]);
        assert!(complete.status.success(), "{complete:?}");
        stage.check("new.toml", true);
    };
    let mut there = way(redis_and_built_in(), 0, 2);
    let mut rng = seeded("redis_becomes_built_in_and_redis_again_with_equal_digests");
    there.preload(&mut rng, BUILT_IN_KEYS.0, BUILT_IN_KEYS.1);
    let before = digest(&there, 0);
    finish(&there);
    assert_eq!(digest(&there, 2), before);
    let servers = std::mem::take(&mut there.servers);
    let mut back = way(servers, 2, 4);
    back.expected = std::mem::take(&mut there.expected);
    finish(&back);
    assert_eq!(digest(&back, 4), before);
}

#[test]
fn redis_and_built_in_shards_become_others_under_writers() {
    let _alone = alone();
    let stage = Stage::with_servers(
        redis_and_built_in(),
        &Shape("fnv1a_64", "ketama", &[0, 2]),
        &Shape("fnv1a_64", "ketama", &[0, 2, 3, 4]),
        2,
        "",
    );
    whole_way(
        "redis_and_built_in_shards_become_others_under_writers",
        stage,
        BUILT_IN_KEYS,
    );
}
