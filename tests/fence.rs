//! The fence in the old shards: with it a proxy that is stopped or dead holds
//! nothing up, and who writes round the proxies is found. Without the right to
//! make users the job says so and needs every proxy.

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

use support::stage::JOB_LIMIT;
use support::{
    Client, RedisServer, Shape, Signal, Stage, Value, keyferry_command, seeded, wait_until,
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
