//! The fence in the old shards, and in the new ones on the way back: with it a
//! proxy that is stopped or dead holds nothing up, and who writes round the proxies
//! is found. Without the right to make users the job says so and needs every proxy.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keyferry::reshard::fence::{EpochUser, Rights, Rules};
use keyferry::upstream::config::Secret;
use support::servers::Skipped;
use support::stage::JOB_LIMIT;
use support::{
    Client, Job, RedisServer, ServerKind, Shape, Signal, Stage, Value, keyferry_command, seeded,
    wait_until,
};

/// Few keys: what counts is the switch.
const KEYS: (usize, usize) = (2_000, 500);

const REPLIES: u64 = 500;

const OLD: Shape<'static> = Shape("fnv1a_64", "ketama", &[0, 1]);
const NEW: Shape<'static> = Shape("fnv1a_64", "ketama", &[0, 1, 2]);

const FOUND_LIMIT: Duration = Duration::from_secs(30);

fn status(stage: &Stage) -> serde_json::Value {
    let dir = stage.state_dir().display().to_string();
    let output = keyferry_command(&["reshard", "status", "--json", "--state", &dir]);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn keys_of_the_job(stage: &Stage) -> usize {
    let on = |server: &RedisServer| {
        let keys = server.client().call(&["KEYS", "__keyferry:*"]);
        keys.items().len()
    };
    stage.servers.iter().map(on).sum()
}

fn complete(stage: &Stage) {
    let dir = stage.state_dir().display().to_string();
    let output = keyferry_command(&["reshard", "complete", "--yes", "--purge", "--state", &dir]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!((stage.users_of_jobs(), keys_of_the_job(stage)), (0, 0));
    let logins = stage.state_dir().join("logins.json");
    assert!(!logins.exists(), "the passwords are of no more use");
}

/// A SIGSTOPped proxy: its clients wait, nobody else does.
#[test]
fn a_stopped_proxy_holds_nothing_up_and_wakes_on_the_new_route() {
    let mut rng = seeded("a_stopped_proxy_holds_nothing_up_and_wakes_on_the_new_route");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let late_proxy = stage.proxies.pop().expect("the second");
    let loads = stage.start_writers(&mut rng);
    stage.proxies.push(late_proxy);
    let counting = Counting::start(&stage.proxies[1].address());
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    assert_eq!(status(&stage)["fence"], "acl");
    assert_eq!(stage.users_of_jobs(), 5, "2 of the old epoch, 3 of the new");

    stage.proxies[1].signal(Signal::Stop);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    assert_eq!(
        stage.proxies[0].epoch_and_gate(),
        (epoch + 1, "open".to_owned())
    );
    let report = status(&stage);
    let late = report["late_proxies"].as_object().expect("a map");
    assert!(late.contains_key(&stage.proxies[1].admin_url()), "{report}");

    stage.proxies[1].signal(Signal::Cont);
    wait_until("the late proxy takes the route", FOUND_LIMIT, || {
        stage.proxies[1].epoch_and_gate() == (epoch + 1, "open".to_owned())
    });
    counting.let_count(REPLIES);
    complete(&stage);
    counting.let_count(REPLIES);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    let mut client = stage.proxies[0].client();
    for (key, count) in counting.finish() {
        assert_eq!(client.call(&["GET", &key]), Value::bulk(count.to_string()));
        client.call(&["DEL", &key]);
    }
    stage.check("new.toml", false);
}

/// Counts on many keys through one proxy; each reply must be one more than the last.
struct Counting {
    replies: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(String, i64)>>,
}

impl Counting {
    fn start(address: &str) -> Counting {
        let (replies, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, stopped) = (Arc::clone(&replies), Arc::clone(&stop));
        let mut client = Client::connect(address);
        client.set_reply_limit(JOB_LIMIT);
        let thread = thread::spawn(move || {
            let mixed = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut counts: Vec<_> = (1..50)
                .map(|at| (format!("n:{:x}", mixed(at)), 0))
                .collect();
            while !stopped.load(SeqCst) {
                let all: Vec<[&str; 2]> = counts.iter().map(|(key, _)| ["INCR", key]).collect();
                let answers = client.pipeline(&all);
                for ((key, count), answer) in counts.iter_mut().zip(answers) {
                    *count += 1;
                    assert_eq!(answer, Value::Int(*count), "{key}");
                }
                counted.fetch_add(counts.len() as u64, SeqCst);
            }
            counts
        });
        Counting {
            replies,
            stop,
            thread,
        }
    }

    fn let_count(&self, more: u64) {
        let wanted = self.replies.load(SeqCst) + more;
        wait_until("the counting goes on", FOUND_LIMIT, || {
            assert!(!self.thread.is_finished(), "the counting ended");
            self.replies.load(SeqCst) >= wanted
        });
    }

    fn finish(self) -> Vec<(String, i64)> {
        self.stop.store(true, SeqCst);
        self.thread.join().expect("no wrong reply")
    }
}

/// Killed before the hold, started again after the switch: its state file still
/// has the old epoch, and only the servers can tell it.
#[test]
fn a_dead_proxy_holds_nothing_up_and_starts_on_the_new_route() {
    let mut rng = seeded("a_dead_proxy_holds_nothing_up_and_starts_on_the_new_route");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    stage.proxies[1].process().kill();
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    let (moving, owner) = moving_key(&stage);

    stage.proxies[1].launch();
    let mut client = stage.proxies[1].client();
    assert_eq!(
        client.call(&["SET", &moving, "by the late one"]),
        Value::ok()
    );
    assert_eq!(stage.proxies[1].epoch_and_gate().0, epoch + 1);
    let mut there = Client::connect(&owner);
    assert_eq!(
        there.call(&["GET", &moving]),
        Value::bulk("by the late one")
    );
    complete(&stage);
    assert_eq!(
        client.call(&["GET", &moving]),
        Value::bulk("by the late one")
    );
}

/// A key of database 0 that moves, and its new owner.
fn moving_key(stage: &Stage) -> (String, String) {
    // Names that differ in their last digits only are neighbours to this hash.
    let mixed = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let keys: Vec<String> = (1..100).map(|at| format!("late:{:x}", mixed(at))).collect();
    let (old, new) = (
        stage.routes("old.toml", &keys),
        stage.routes("new.toml", &keys),
    );
    let mut both = keys.iter().zip(old.iter().zip(new));
    let (key, (_, owner)) = both.find(|(_, (old, new))| *old != new).expect("some move");
    (key.clone(), owner)
}

#[test]
fn who_writes_round_the_proxies_is_named_before_the_switch() {
    let mut rng = seeded("who_writes_round_the_proxies_is_named_before_the_switch");
    let mut stage = Stage::new(&OLD, &NEW, 1);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let mut stranger = stage.servers[0].client();
    let address = stranger.try_clone_stream().expect("a socket").local_addr();
    stranger.call(&["SET", "round:the:proxies", "1"]);
    stranger.call(&["DEL", "round:the:proxies"]);

    let refused = job.verb("switch", &["--yes"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains(&address.expect("its own").to_string()),
        "{text}"
    );
    stage.assert_epoch(epoch);

    drop(stranger);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    stage.assert_epoch(epoch + 1);
    complete(&stage);
}

/// No right to make users: the plan says so, the switch works as without a fence,
/// and nothing less than was asked for is taken for it.
#[test]
fn without_the_right_to_make_users_the_ladder_ends_at_the_proxies() {
    let mut rng = seeded("without_the_right_to_make_users_the_ladder_ends_at_the_proxies");
    let user = "--user default on nopass ~* &* +@all -acl|setuser";
    let servers = RedisServer::start_many(3, &user.split(' ').collect::<Vec<_>>());
    let mut stage = Stage::with_servers(servers, &OLD, &NEW, 1, "");
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let mut words = vec!["reshard".to_owned(), "plan".to_owned()];
    words.extend(stage.job_args());
    let plan = keyferry_command(&words);
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(text.contains("fence: proxies-only"), "{text}");
    assert!(text.contains("may not ACL SETUSER"), "{text}");

    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--fence", "acl"]);
    let (code, _, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("no fence on the servers"), "{stderr}");

    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, _, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stderr}");
    stage.assert_epoch(epoch + 1);
    complete(&stage);
    stage.check("new.toml", false);
}

#[test]
fn a_cancelled_job_leaves_no_user_and_no_login() {
    let mut rng = seeded("a_cancelled_job_leaves_no_user_and_no_login");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let loads = stage.start_writers(&mut rng);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    assert!(stage.users_of_jobs() > 0);
    let as_whom = |stage: &Stage| {
        let list = stage.servers[0].client().call(&["CLIENT", "LIST"]).text();
        list.matches("user=keyferry-").count()
    };
    assert!(as_whom(&stage) > 0, "the proxies are logged in as it");
    let cancel = job.verb("cancel", &["--yes"]);
    assert!(cancel.status.success(), "{cancel:?}");
    assert_eq!(job.finish(JOB_LIMIT).0, 5);
    assert_eq!((stage.users_of_jobs(), as_whom(&stage)), (0, 0));
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
}

/// Killed while it follows, proxies logged in: the next start goes on with the
/// same users, nobody is locked out meanwhile; a cancel without a process cleans up.
#[test]
fn a_killed_job_leaves_its_users_to_the_next_start() {
    let mut rng = seeded("a_killed_job_leaves_its_users_to_the_next_start");
    let mut stage = Stage::new(&OLD, &NEW, 1);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let loads = stage.start_writers(&mut rng);
    for _ in 0..2 {
        let mut job = stage.start_job(&["--switch", "manual"]);
        job.wait_state(&["verified"], JOB_LIMIT);
        job.kill();
        stage.let_write(&loads, REPLIES);
        assert_eq!(stage.users_of_jobs(), 5);
    }
    let dir = stage.state_dir().display().to_string();
    let cancel = keyferry_command(&["reshard", "cancel", "--yes", "--state", &dir]);
    assert!(cancel.status.success(), "{cancel:?}");
    assert_eq!(stage.users_of_jobs(), 0);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
}

/// The secrets are where they must be and nowhere else.
#[test]
fn passwords_are_in_no_output() {
    let mut rng = seeded("passwords_are_in_no_output");
    let mut stage = Stage::new(&OLD, &NEW, 1);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let logins = std::fs::read(stage.state_dir().join("logins.json")).expect("the file");
    let logins: serde_json::Value = serde_json::from_slice(&logins).expect("JSON");
    let secrets = ["old", "new"].map(|name| logins[name].as_str().expect("text").to_owned());
    let said = [
        String::from_utf8_lossy(&job.verb("status", &["--json"]).stdout).into_owned(),
        job.process().stdout(),
        job.process().stderr(),
        stage.proxies[0].pools().to_string(),
        stage.proxies[0].process().stderr(),
    ];
    for secret in secrets {
        assert!(said.iter().all(|text| !text.contains(&secret)), "{said:?}");
    }
    job.verb("cancel", &["--yes"]);
}

/// A job that has switched with all its proxies, and can be rolled back.
fn followed_back(stage: &Stage) -> Job {
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    stage.assert_epoch(epoch + 1);
    wait_for_the_way_back(stage, &mut job);
    job
}

fn wait_for_the_way_back(stage: &Stage, job: &mut Job) {
    wait_until("it can be rolled back", JOB_LIMIT, || {
        if let Some(ended) = job.process().try_wait() {
            panic!("it ended ({ended}): {}", job.process().stderr());
        }
        let doing = status(stage)["doing"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        doing.contains("reshard rollback")
    });
}

/// Rolls it back without one proxy; the process ends with 5.
fn roll_back_without_the_second(stage: &Stage, job: &mut Job, epoch: u64) {
    let rollback = job.verb("rollback", &["--yes"]);
    assert!(rollback.status.success(), "{rollback:?}");
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 5, "{stdout}\n{stderr}");
    assert_eq!(
        stage.proxies[0].epoch_and_gate(),
        (epoch + 2, "open".to_owned())
    );
    assert!(stage.users_of_jobs() > 0, "the late one needs them");
}

/// Once no proxy is late, the same command as for any job removes the rest.
fn clear_up(stage: &Stage) {
    let dir = stage.state_dir().display().to_string();
    let cleared = keyferry_command(&["reshard", "cancel", "--yes", "--state", &dir]);
    assert!(cleared.status.success(), "{cleared:?}");
    assert_eq!((stage.users_of_jobs(), keys_of_the_job(stage)), (0, 0));
}

/// A SIGSTOPped proxy in a rollback: its clients wait, nobody else does, and no
/// count is lost.
#[test]
fn a_stopped_proxy_holds_no_rollback_up_and_wakes_on_the_old_route() {
    let mut rng = seeded("a_stopped_proxy_holds_no_rollback_up_and_wakes_on_the_old_route");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let late_proxy = stage.proxies.pop().expect("the second");
    let loads = stage.start_writers(&mut rng);
    stage.proxies.push(late_proxy);
    let counting = Counting::start(&stage.proxies[1].address());
    let mut job = followed_back(&stage);
    counting.let_count(REPLIES);

    stage.proxies[1].signal(Signal::Stop);
    roll_back_without_the_second(&stage, &mut job, epoch);
    stage.proxies[1].signal(Signal::Cont);
    wait_until("the late proxy takes the route", FOUND_LIMIT, || {
        stage.proxies[1].epoch_and_gate() == (epoch + 2, "open".to_owned())
    });
    counting.let_count(REPLIES);
    clear_up(&stage);
    counting.let_count(REPLIES);
    stage.let_write(&loads, REPLIES);
    stage.finish_writers(loads);
    let mut client = stage.proxies[0].client();
    for (key, count) in counting.finish() {
        assert_eq!(client.call(&["GET", &key]), Value::bulk(count.to_string()));
        client.call(&["DEL", &key]);
    }
    stage.check("old.toml", true);
}

/// Killed before the rollback, started after it: the new shards refuse what it
/// would write there, and tell it where it belongs.
#[test]
fn a_dead_proxy_holds_no_rollback_up_and_starts_on_the_old_route() {
    let mut rng = seeded("a_dead_proxy_holds_no_rollback_up_and_starts_on_the_old_route");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let mut job = followed_back(&stage);
    stage.proxies[1].process().kill();
    roll_back_without_the_second(&stage, &mut job, epoch);
    let (moving, _) = moving_key(&stage);
    let owner = stage.routes("old.toml", &[&moving]).remove(0);

    stage.proxies[1].launch();
    let mut client = stage.proxies[1].client();
    assert_eq!(client.call(&["SET", &moving, "late"]), Value::ok());
    assert_eq!(stage.proxies[1].epoch_and_gate().0, epoch + 2);
    let mut there = Client::connect(&owner);
    assert_eq!(there.call(&["GET", &moving]), Value::bulk("late"));
    clear_up(&stage);
    assert_eq!(client.call(&["GET", &moving]), Value::bulk("late"));
}

/// Late since the switch itself: the new shards do not know it, so it takes every
/// proxy to go back; and it is told of the switch all the same, after the try too.
#[test]
fn a_proxy_late_since_the_switch_is_needed_for_a_rollback() {
    let mut rng = seeded("a_proxy_late_since_the_switch_is_needed_for_a_rollback");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    stage.proxies[1].signal(Signal::Stop);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    wait_for_the_way_back(&stage, &mut job);
    let refused = job.verb("rollback", &["--yes"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(job.state().as_deref(), Some("switched"));

    stage.proxies[1].signal(Signal::Cont);
    wait_until("the late proxy takes the route", FOUND_LIMIT, || {
        let late = status(&stage)["late_proxies"].as_object().cloned();
        late.is_some_and(|late| late.is_empty())
            && stage.proxies[1].epoch_and_gate() == (epoch + 1, "open".to_owned())
    });
    let rollback = job.verb("rollback", &["--yes"]);
    assert!(rollback.status.success(), "{rollback:?}");
    assert_eq!(job.finish(JOB_LIMIT).0, 5);
    stage.assert_epoch(epoch + 2);
    assert_eq!((stage.users_of_jobs(), keys_of_the_job(&stage)), (0, 0));
}

/// A client of a late proxy waits on an old shard; what is pushed to the new one
/// comes back there, and must not be handed to it a second time.
#[test]
fn what_a_late_proxys_client_waits_for_is_handed_out_once() {
    let mut rng = seeded("what_a_late_proxys_client_waits_for_is_handed_out_once");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    let (list, _) = moving_key(&stage);
    let owner = stage.routes("old.toml", &[&list]).remove(0);
    let mut waiter = stage.proxies[1].client();
    waiter.send(&["BLPOP", &list, "0"]);
    let mut there = Client::connect(&owner);
    wait_until("it waits at the old shard", FOUND_LIMIT, || {
        let list = there.call(&["CLIENT", "LIST"]).text();
        list.lines().any(|line| line.contains("cmd=blpop"))
    });
    stage.proxies[1].signal(Signal::Stop);
    let switch = job.verb("switch", &["--yes"]);
    assert!(switch.status.success(), "{switch:?}");
    wait_for_the_way_back(&stage, &mut job);

    let mut pusher = stage.proxies[0].client();
    assert_eq!(pusher.call(&["RPUSH", &list, "once"]), Value::Int(1));
    wait_until("it is on the old shard, too", FOUND_LIMIT, || {
        there.call(&["LLEN", &list]) == Value::Int(1)
    });
    assert_eq!(pusher.call(&["LLEN", &list]), Value::Int(1));
    stage.proxies[1].signal(Signal::Cont);
    let mut handed = waiter.read();
    if handed.is_error() {
        // Its proxy may have told it that the key is elsewhere now.
        handed = waiter.call(&["BLPOP", &list, "0"]);
    }
    assert_eq!(handed.items(), [Value::bulk(&list), Value::bulk("once")]);
    assert_eq!(pusher.call(&["LLEN", &list]), Value::Int(0));
    assert_eq!(stage.proxies[1].epoch_and_gate().0, epoch + 1);
    wait_until("it has left the old shard, too", FOUND_LIMIT, || {
        there.call(&["LLEN", &list]) == Value::Int(0)
    });
    let verify = job.verb("verify", &[]);
    assert!(verify.status.success(), "{verify:?}");
    complete(&stage);
}

/// The try is taken back while a proxy is stopped that will wake with its stage; the
/// job is cancelled meanwhile, and once more when the proxy is back.
#[test]
fn a_proxy_that_missed_the_abort_is_released_by_a_second_cancel() {
    let mut rng = seeded("a_proxy_that_missed_the_abort_is_released_by_a_second_cancel");
    let mut stage = Stage::new(&OLD, &NEW, 2);
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual", "--hold", "300ms"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    // Nothing can be applied at a target that stands still.
    stage.proxies[1].signal(Signal::Stop);
    stage.servers[2].pause();
    let (moving, _) = moving_key(&stage);
    let owner = stage.routes("old.toml", &[&moving]).remove(0);
    Client::connect(&owner).call(&["SET", &moving, "1"]);
    let switch = job.verb("switch", &["--yes"]);
    assert!(!switch.status.success(), "{switch:?}");
    stage.servers[2].resume();
    let cancel = job.verb("cancel", &["--yes"]);
    assert!(cancel.status.success(), "{cancel:?}");
    assert_eq!(job.finish(JOB_LIMIT).0, 5);
    assert!(stage.users_of_jobs() > 0, "the stopped one is logged in");

    stage.proxies[1].signal(Signal::Cont);
    wait_until("it answers", FOUND_LIMIT, || {
        stage.proxies[1].epoch_and_gate().0 == epoch
    });
    clear_up(&stage);
    let pools = stage.proxies[1].pools();
    assert!(pools["pools"][0]["pending"].is_null(), "{pools}");
    stage.assert_epoch(epoch);
    let mut client = stage.proxies[1].client();
    assert_eq!(client.call(&["GET", &moving]), Value::bulk("1"));
}

/// Before ACLs, or without them: a server that leaves the layout refuses all writes
/// from the marker on, and takes them again after the switch, and after a crash in it.
#[test]
fn settings_are_the_fence_of_servers_that_leave_and_are_set_back() {
    let mut rng = seeded("settings_are_the_fence_of_servers_that_leave_and_are_set_back");
    let user = "--user default on nopass ~* &* +@all -acl|setuser --min-replicas-max-lag 0";
    let servers = RedisServer::start_many(4, &user.split(' ').collect::<Vec<_>>());
    let to = Shape("fnv1a_64", "ketama", &[2, 3]);
    let mut stage = Stage::with_servers(servers, &OLD, &to, 1, "");
    stage.preload(&mut rng, KEYS.0, KEYS.1);
    let mut words = vec!["reshard".to_owned(), "plan".to_owned()];
    words.extend(stage.job_args());
    let plan = keyferry_command(&words);
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(text.contains("fence: min-replicas"), "{text}");
    let settings = |server: &RedisServer| {
        let mut client = server.client();
        let of =
            |client: &mut Client, name| client.call(&["CONFIG", "GET", name]).items()[1].text();
        let to_write = of(&mut client, "min-replicas-to-write");
        (to_write, of(&mut client, "min-replicas-max-lag"))
    };
    let before = ("0".to_owned(), "0".to_owned());

    let epoch = stage.epoch();
    let mut job = stage.start_job(&["--switch", "manual", "--hold", "10s"]);
    job.wait_state(&["verified"], JOB_LIMIT);
    assert_eq!(status(&stage)["fence"], "min_replicas");
    let mut stranger = stage.servers[0].client();
    // The marker is not applied: the switch stands still behind the fence.
    stage.servers[2].pause();
    let mut switch = job.verb_in_background("switch", &["--yes"]);
    wait_until("it is fenced", FOUND_LIMIT, || {
        let reply = stranger.call(&["SET", "round:the:proxies", "1"]);
        matches!(&reply, Value::Error(text) if text.starts_with("NOREPLICAS"))
    });
    assert_eq!(settings(&stage.servers[0]).0, "9999");
    job.kill();
    switch.wait(JOB_LIMIT);
    stage.servers[2].resume();
    stranger.call(&["DEL", "round:the:proxies"]);
    drop(stranger);

    let mut job = stage.start_job(&["--switch", "auto"]);
    let (code, stdout, stderr) = job.finish(JOB_LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    stage.assert_epoch(epoch + 1);
    for server in &stage.servers {
        assert_eq!(settings(server), before, "{}", server.address());
    }
    Client::connect(&stage.servers[0].address()).call(&["DEL", "round:the:proxies"]);
    let mut client = stage.proxies[0].client();
    client.call(&["DEL", "round:the:proxies"]);
    complete(&stage);
    stage.check("new.toml", true);
}

/// A transaction over which the fence goes up or down is executed whole or not at all.
#[test]
fn the_fence_tears_no_transaction() {
    let mut skipped = Skipped::default();
    for kind in ServerKind::ALL {
        if !skipped.unless_here(&format!("transactions of {kind}"), &[kind]) {
            continue;
        }
        println!("{kind}");
        let server = RedisServer::start_kind(kind, &[]);
        let mut admin = server.client();
        let list = admin.call(&["ACL", "LIST"]);
        let lines: Vec<String> = list.items().iter().map(Value::text).collect();
        let lines = lines.iter().map(String::as_str);
        let rules = Rules::of("default", lines, kind.is_seven_or_later()).expect("rules");
        let user = EpochUser {
            name: "keyferry-p-e1".to_owned(),
            password: Secret::new("secret"),
        };
        let set = |admin: &mut Client, rights| {
            assert_eq!(admin.call(&rules.set_user(&user, rights)), Value::ok());
        };
        // Where the fence is up: between which of MULTI, SET a, SET b and EXEC.
        for up in 0..4 {
            for down in up + 1..=4 {
                set(&mut admin, Rights::Open);
                admin.call(&["DEL", "a", "b"]);
                let mut client = server.client();
                client.call(&["AUTH", "keyferry-p-e1", "secret"]);
                let commands: [&[&str]; 4] = [
                    &["MULTI"],
                    &["SET", "a", "1"],
                    &["SET", "b", "1"],
                    &["EXEC"],
                ];
                let mut last = Value::Null;
                for (at, command) in commands.iter().enumerate() {
                    if at == up {
                        set(&mut admin, Rights::Fenced);
                    }
                    if at == down {
                        set(&mut admin, Rights::Open);
                    }
                    last = client.call(command);
                }
                let done = admin.call(&["EXISTS", "a", "b"]);
                assert_ne!(done, Value::Int(1), "{kind}: torn, fenced {up}..{down}");
                let said_done = !last.is_error();
                assert_eq!(
                    done == Value::Int(2),
                    said_done,
                    "{kind}: {up}..{down}: {last:?}"
                );
            }
        }
    }
    skipped.finish();
}
