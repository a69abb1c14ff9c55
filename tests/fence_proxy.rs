//! Epoch logins, the fence in the servers and a proxy that nobody told: by real
//! servers and the admin API alone, the job's part played by the test.

#![allow(
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::time::Duration;

use keyferry::router::layout::Layout;
use keyferry::router::route_record::RouteRecord;
use keyferry::router::spec::LayoutSpec;
use serde_json::json;
use support::keyferry::LayoutText;
use support::load::{Load, LoadConfig};
use support::servers::{ServerKind, Skipped};
use support::{Client, Keyferry, RedisServer, Signal, Value, http_post, seeded, wait_until};

const JOB: &str = "j1";
const LIMIT: Duration = Duration::from_secs(20);
/// Requests of the writers before and after each step.
const REPLIES: u64 = 2_000;
/// A second for each writer: the machine has others to serve.
const RATE: u32 = 1_500;

/// Servers, of which the proxy's layout has some.
struct World {
    servers: Vec<RedisServer>,
    proxy: Keyferry,
}

impl World {
    /// As many servers; the proxy routes to the first ones.
    fn new(servers: usize, of_proxy: usize) -> World {
        World::of(RedisServer::start_many(servers, &[]), of_proxy)
    }

    fn of(servers: Vec<RedisServer>, of_proxy: usize) -> World {
        let addresses: Vec<String> = servers.iter().map(RedisServer::address).collect();
        let layout = LayoutText::new("fnv1a_64", "modula", &addresses[..of_proxy]);
        let proxy = Keyferry::start(&layout);
        World { servers, proxy }
    }

    /// A layout of these servers.
    fn layout(&self, servers: &[usize]) -> LayoutSpec {
        let shards: Vec<_> = servers
            .iter()
            .map(
                |&at| json!({ "name": format!("s{}", at + 1), "addr": self.servers[at].address() }),
            )
            .collect();
        let spec = json!({ "hash": "fnv1a_64", "distribution": "modula", "shard": shards });
        serde_json::from_value(spec).expect("a layout")
    }

    /// A key that the layout of the first `shards` servers gives to this one.
    fn key_on(&self, server: usize, shards: usize) -> String {
        let servers: Vec<usize> = (0..shards).collect();
        let layout = Layout::new(self.layout(&servers)).expect("a layout");
        let mut keys = (0..).map(|number| format!("key:{number}"));
        let is_there = |key: &String| layout.owner(key.as_bytes()).as_usize() == server;
        keys.find(is_there).expect("a key of each server")
    }

    /// A server that has lost its users and its keys.
    fn forget_all(&self, server: usize) {
        let mut client = self.servers[server].client();
        let gone = client.call(&["ACL", "DELUSER", &World::user(1)]);
        assert_eq!(gone, Value::Int(1));
        assert_eq!(client.call(&["FLUSHALL"]), Value::ok());
    }

    fn user(epoch: u64) -> String {
        format!("keyferry-cache-e{epoch}")
    }

    /// Makes an epoch's user on servers; its login as the admin API takes it.
    fn make_users(&self, epoch: u64, servers: &[usize]) -> serde_json::Value {
        let user = World::user(epoch);
        let logins = servers.iter().map(|&at| {
            let password = format!("secret-{epoch}-{at}");
            let mut rules = ["reset", "on", &format!(">{password}"), "~*", "+@all"]
                .map(str::to_owned)
                .to_vec();
            let made = self.acl(at, &user, &rules);
            rules.push("&*".into());
            self.acl(at, &user, &rules); // Redis 6.0 knows no channels
            assert_eq!(made, Value::ok());
            json!({ "addr": self.servers[at].address(), "user": user, "password": password })
        });
        logins.collect()
    }

    fn acl(&self, server: usize, user: &str, rules: &[String]) -> Value {
        let mut words = vec!["ACL".to_owned(), "SETUSER".into(), user.to_owned()];
        words.extend_from_slice(rules);
        self.servers[server].client().call(&words)
    }

    fn try_post(&self, path: &str, body: &serde_json::Value) -> (u16, String) {
        let path = format!("/api/v1/pools/cache/{path}");
        http_post(&self.proxy.admin(), &path, &body.to_string()).expect("an answer")
    }

    fn post(&self, path: &str, body: &serde_json::Value) {
        let (status, text) = self.try_post(path, body);
        assert_eq!(status, 200, "{path}: {text}");
    }

    fn announce(&self, logins: &serde_json::Value) {
        self.post(
            "job",
            &json!({ "job": JOB, "incarnation": 1, "lease_ms": 30_000, "logins": logins }),
        );
    }

    fn stage(&self, servers: &[usize], logins: &serde_json::Value) {
        let in_use = self.proxy.pools()["pools"][0]["layout"].clone();
        let in_use: LayoutSpec = serde_json::from_value(in_use).expect("a layout");
        let from_fingerprint = Layout::new(in_use).expect("a layout").fingerprint();
        self.post(
            "switch/stage",
            &json!({
                "job": JOB, "epoch": 2, "incarnation": 1, "from_fingerprint": from_fingerprint,
                "to": self.layout(servers), "logins": logins,
            }),
        );
    }

    /// Takes an epoch's user its rights, in one piece with the sign of it.
    fn fence(&self, server: usize, epoch: u64) {
        let user = World::user(epoch);
        let mut client = self.servers[server].client();
        let replies = client.pipeline(&[
            vec!["MULTI"],
            vec![
                "ACL",
                "SETUSER",
                &user,
                "-@all",
                "resetkeys",
                "~__keyferry:*",
                "+get",
                "+ping",
                "+auth",
                "+hello",
                "+select",
            ],
            vec!["SET", "__keyferry:fence:cache", "j1 2"],
            vec!["EXEC"],
        ]);
        assert!(
            matches!(replies.last(), Some(Value::Array(_))),
            "{replies:?}"
        );
    }

    fn unfence(&self, server: usize, epoch: u64) {
        let user = World::user(epoch);
        let mut client = self.servers[server].client();
        let replies = client.pipeline(&[
            vec!["MULTI"],
            vec!["ACL", "SETUSER", &user, "+@all", "~*"],
            vec!["DEL", "__keyferry:fence:cache"],
            vec!["EXEC"],
        ]);
        assert!(
            matches!(replies.last(), Some(Value::Array(_))),
            "{replies:?}"
        );
    }

    /// Leaves the decision on servers.
    fn record(&self, on: &[usize], to: &[usize]) {
        self.record_of(2, on, to);
    }

    fn record_of(&self, epoch: u64, on: &[usize], to: &[usize]) {
        let record = RouteRecord::new("cache", JOB, epoch, self.layout(to));
        let (key, text) = (RouteRecord::key("cache"), record.to_json());
        for &at in on {
            let set = self.servers[at].client().call(&["SET", &key, &text]);
            assert_eq!(set, Value::ok());
        }
    }

    /// Users of the connections of the proxy's clients' requests, by server.
    fn users_on(&self, server: usize) -> Vec<String> {
        let list = self.servers[server]
            .client()
            .call(&["CLIENT", "LIST"])
            .text();
        let users = list
            .lines()
            .filter(|line| !line.contains("cmd=client"))
            .filter_map(|line| {
                let user = line.split(' ').find_map(|word| word.strip_prefix("user="));
                user.map(str::to_owned)
            });
        users.collect()
    }

    /// Returns when all its threads have stopped: one that runs on for a moment may
    /// well serve what is not fenced yet.
    fn stop_proxy(&mut self) {
        self.proxy.signal(Signal::Stop);
        let tasks = format!("/proc/{}/task", self.proxy.process().pid());
        wait_until("every thread has stopped", LIMIT, || {
            let threads = fs::read_dir(&tasks).expect("a process");
            let mut states = threads.map(|thread| {
                let stat = thread.expect("a thread").path().join("stat");
                fs::read_to_string(stat).unwrap_or_default()
            });
            states.all(|stat| stat.contains(") T "))
        });
    }

    fn wait_for_users(&self, server: usize, user: &str) {
        wait_until("all connections are this user's", LIMIT, || {
            let users = self.users_on(server);
            !users.is_empty() && users.iter().all(|known| known == user)
        });
    }

    fn load(&self, test: &str) -> Load {
        let config = LoadConfig {
            rate: Some(RATE),
            keys_per_kind: 20,
            ..LoadConfig::new(&self.proxy.address(), seeded(test).u64(..))
        };
        Load::start(&config)
    }

    fn wait_for_epoch(&self, epoch: u64) {
        wait_until("the proxy finds the decided route", LIMIT, || {
            self.proxy.epoch_and_gate() == (epoch, "open".to_owned())
        });
    }

    /// The second server becomes the first one's copy.
    fn copy_first_to_second(&self) {
        let port = self.servers[0].port().to_string();
        let follow = ["REPLICAOF", "127.0.0.1", &port];
        assert_eq!(self.servers[1].client().call(&follow), Value::ok());
        wait_until("the copy follows", LIMIT, || {
            self.servers[1]
                .info_field("replication", "master_link_status")
                .as_deref()
                == Some("up")
        });
    }

    /// It has all that was written to the first one until the fence, and goes on
    /// by itself.
    fn promote_second(&self) {
        let offset = |at: usize, field| self.servers[at].info_field("replication", field);
        wait_until("the copy has all", LIMIT, || {
            offset(0, "master_repl_offset") == offset(1, "slave_repl_offset")
        });
        assert_eq!(
            self.servers[1].client().call(&["REPLICAOF", "NO", "ONE"]),
            Value::ok()
        );
    }
}

/// The words of an error; empty for anything else.
fn error_of(value: &Value) -> &str {
    match value {
        Value::Error(text) => text,
        _ => "",
    }
}

/// Repeats what was answered by TRYAGAIN, as a client does: nothing was executed.
/// (A busy machine may take longer than the proxy waits.)
fn call_again(client: &mut Client, request: &[&str]) -> Value {
    let mut answer = Value::Null;
    wait_until("it is decided", LIMIT, || {
        answer = client.call(request);
        !error_of(&answer).starts_with("TRYAGAIN")
    });
    answer
}

fn wait_for_replies(load: &Load, more: u64) {
    let wanted = load.replies() + more;
    wait_until("the writers go on", LIMIT, || {
        load.replies() >= wanted || load.faults() > 0
    });
}

fn assert_faultless(load: Load) {
    let outcome = load.finish();
    let totals = &outcome.totals;
    assert_eq!((totals.wrong, totals.errors), (0, 0), "{totals}");
}

#[test]
fn logins_change_under_load_without_an_error() {
    let world = World::new(2, 2);
    let load = world.load("logins_change_under_load_without_an_error");
    wait_for_replies(&load, REPLIES);
    for epoch in [1, 2] {
        world.announce(&world.make_users(epoch, &[0, 1]));
        for server in [0, 1] {
            let users = world.users_on(server);
            let all_new = users.iter().all(|user| *user == World::user(epoch));
            assert!(all_new && !users.is_empty(), "{users:?}");
        }
        wait_for_replies(&load, REPLIES);
    }
    world.announce(&json!([]));
    wait_for_replies(&load, REPLIES);
    assert!(world.users_on(0).iter().all(|user| user == "default"));
    assert_faultless(load);
}

#[test]
fn a_wrong_password_changes_nothing() {
    let world = World::new(2, 2);
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["SET", "a", "1"]), Value::ok());
    let mut logins = world.make_users(1, &[0, 1]);
    logins[1]["password"] = "wrong".into();
    let ask = json!({ "job": JOB, "incarnation": 1, "lease_ms": 30_000, "logins": logins });
    let (status, text) = world.try_post("job", &ask);
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("login_refused"), "{text}");
    assert!(text.contains(&world.servers[1].address()), "{text}");
    assert!(!text.contains("wrong"), "{text}");
    assert_eq!(client.call(&["GET", "a"]), Value::bulk("1"));
    assert!(world.users_on(0).iter().all(|user| user == "default"));
}

#[test]
fn a_restarted_proxy_logs_in_as_before_and_its_state_file_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new(2, 2);
    world.announce(&world.make_users(1, &[0, 1]));
    let file = world.proxy.dir().join("state/pool-cache.json");
    let rights = fs::metadata(&file).expect("the state file").permissions();
    assert_eq!(rights.mode() & 0o777, 0o600);
    world.proxy.launch();
    let mut client = world.proxy.client();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(client.call(&["SET", key, "1"]), Value::ok());
    }
    for server in [0, 1] {
        world.wait_for_users(server, &World::user(1));
    }
}

#[test]
fn a_proxy_that_nobody_told_follows_the_fence_without_an_error_to_its_clients() {
    let mut world = World::new(2, 1);
    world.copy_first_to_second();
    world.announce(&world.make_users(1, &[0]));
    let load = world.load("a_proxy_that_nobody_told_follows_the_fence");
    wait_for_replies(&load, REPLIES);
    // It sleeps meanwhile: how long the test takes is no limit of the proxy's.
    world.stop_proxy();
    world.fence(0, 1);
    world.promote_second();
    world.record(&[0, 1], &[1]);
    world.proxy.signal(Signal::Cont);
    world.wait_for_epoch(2);
    wait_for_replies(&load, REPLIES);
    let outcome = load.finish();
    let totals = &outcome.totals;
    assert_eq!((totals.wrong, totals.errors), (0, 0), "{totals}");
    let refused = world.servers[0].client().call(&["ACL", "LOG"]);
    assert!(
        !refused.items().is_empty(),
        "nothing was refused: the test proves nothing"
    );
}

#[test]
fn the_commit_of_a_late_proxy_brings_the_layout_and_its_logins() {
    let mut world = World::new(2, 1);
    world.copy_first_to_second();
    world.announce(&world.make_users(1, &[0]));
    let load = world.load("the_commit_of_a_late_proxy");
    wait_for_replies(&load, REPLIES);
    world.stop_proxy();
    world.fence(0, 1);
    world.promote_second();
    let logins = world.make_users(2, &[1]);
    let commit = json!({
        "job": JOB, "epoch": 2, "incarnation": 1, "fenced": true,
        "to": world.layout(&[1]), "logins": logins,
    });
    world.proxy.signal(Signal::Cont);
    world.post("switch/commit", &commit);
    world.post("switch/commit", &commit);
    wait_for_replies(&load, REPLIES);
    world.wait_for_users(1, &World::user(2));
    assert_faultless(load);
    let not_fenced = json!({ "job": JOB, "epoch": 3, "incarnation": 1 });
    assert_eq!(world.try_post("switch/commit", &not_fenced).0, 409);
}

#[test]
fn a_stopped_proxy_that_wakes_after_the_switch_serves_nothing_old() {
    let mut world = World::new(2, 1);
    world.announce(&world.make_users(1, &[0]));
    let mut clients: Vec<Client> = (0..8).map(|_| world.proxy.client()).collect();
    assert_eq!(clients[0].call(&["SET", "k", "old"]), Value::ok());
    for client in &mut clients {
        assert_eq!(client.call(&["GET", "k"]), Value::bulk("old"));
    }
    world.stop_proxy();
    for client in &mut clients {
        client.send(&["GET", "k"]);
        client.send(&["APPEND", "k", "+"]);
        client.send(&["GET", "k"]);
    }
    world.fence(0, 1);
    assert_eq!(
        world.servers[1].client().call(&["SET", "k", "new"]),
        Value::ok()
    );
    world.record(&[0, 1], &[1]);
    world.proxy.signal(Signal::Cont);
    for client in &mut clients {
        assert!(client.read().bytes().starts_with(b"new"));
        assert!(client.read().int() > 3);
        assert!(client.read().bytes().starts_with(b"new+"));
    }
    assert_eq!(
        world.servers[0].client().call(&["GET", "k"]),
        Value::bulk("old")
    );
    world.wait_for_epoch(2);
}

#[test]
fn a_fence_that_is_not_decided_is_try_again_and_goes_when_it_is_taken_back() {
    let world = World::new(1, 1);
    world.announce(&world.make_users(1, &[0]));
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["SET", "k", "1"]), Value::ok());
    world.fence(0, 1);
    let refused = client.call(&["INCR", "k"]);
    assert!(error_of(&refused).starts_with("TRYAGAIN"), "{refused:?}");
    client.send(&["INCR", "k"]);
    client.send(&["INCR", "k"]);
    world.unfence(0, 1);
    let answers = [client.read(), client.read()];
    assert_eq!(answers, [Value::Int(2), Value::Int(3)]);
}

#[test]
fn a_restart_with_a_pending_switch_finds_the_decision_by_itself() {
    let mut world = World::new(2, 1);
    world.announce(&world.make_users(1, &[0]));
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["SET", "k", "old"]), Value::ok());
    world.stage(&[1], &world.make_users(2, &[1]));
    world.proxy.process().kill();
    world.fence(0, 1);
    world.proxy.launch();
    assert_eq!(world.proxy.epoch_and_gate(), (1, "fenced".to_owned()));
    let refused = world.proxy.client().call(&["GET", "k"]);
    assert!(error_of(&refused).starts_with("TRYAGAIN"), "{refused:?}");
    assert_eq!(
        world.servers[1].client().call(&["SET", "k", "new"]),
        Value::ok()
    );
    world.record(&[0], &[1]);
    world.wait_for_epoch(2);
    assert_eq!(world.proxy.client().call(&["GET", "k"]), Value::bulk("new"));
    world.wait_for_users(1, &World::user(2));
}

#[test]
fn a_restart_with_a_pending_switch_finds_that_it_was_taken_back() {
    let mut world = World::new(2, 1);
    world.announce(&world.make_users(1, &[0]));
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["SET", "k", "1"]), Value::ok());
    world.stage(&[1], &world.make_users(2, &[1]));
    world.proxy.process().kill();
    world.proxy.launch();
    assert_eq!(world.proxy.epoch_and_gate(), (1, "fenced".to_owned()));
    world.record_of(1, &[0, 1], &[0]);
    world.wait_for_epoch(1);
    let gone = world.servers[0]
        .client()
        .call(&["ACL", "DELUSER", &World::user(1)]);
    assert_eq!(gone, Value::Int(1));
    assert_eq!(
        call_again(&mut world.proxy.client(), &["INCR", "k"]),
        Value::Int(2)
    );
    assert!(world.proxy.pools()["pools"][0]["pending"].is_null());
}

#[test]
fn a_proxy_that_was_down_until_the_job_was_over_serves_the_new_route() {
    let mut world = World::new(2, 1);
    world.announce(&world.make_users(1, &[0]));
    world.proxy.process().kill();
    world.fence(0, 1);
    world.record(&[0, 1], &[1]);
    let mut server = world.servers[0].client();
    assert_eq!(
        server.call(&["ACL", "DELUSER", &World::user(1)]),
        Value::Int(1)
    );
    assert_eq!(
        server.call(&["DEL", "__keyferry:fence:cache"]),
        Value::Int(1)
    );
    assert_eq!(
        world.servers[1].client().call(&["SET", "k", "new"]),
        Value::ok()
    );
    world.proxy.launch();
    assert_eq!(
        call_again(&mut world.proxy.client(), &["GET", "k"]),
        Value::bulk("new")
    );
    world.wait_for_epoch(2);
}

#[test]
fn a_user_that_is_gone_with_its_job_is_the_configured_one_again() {
    let mut world = World::new(1, 1);
    world.announce(&world.make_users(1, &[0]));
    assert_eq!(world.proxy.client().call(&["SET", "k", "1"]), Value::ok());
    world.proxy.process().kill();
    let gone = world.servers[0]
        .client()
        .call(&["ACL", "DELUSER", &World::user(1)]);
    assert_eq!(gone, Value::Int(1));
    world.proxy.launch();
    assert_eq!(
        call_again(&mut world.proxy.client(), &["INCR", "k"]),
        Value::Int(2)
    );
    world.wait_for_users(0, "default");
}

#[test]
fn a_server_without_memory_is_not_believed_alone() {
    let mut world = World::new(3, 2);
    world.announce(&world.make_users(1, &[0, 1]));
    let key = world.key_on(0, 2);
    world.proxy.process().kill();
    world.fence(1, 1);
    world.record(&[1], &[2]);
    world.forget_all(0);
    for (server, value) in [(0, "old"), (2, "new")] {
        let set = world.servers[server].client().call(&["SET", &key, value]);
        assert_eq!(set, Value::ok());
    }
    world.proxy.launch();
    assert_eq!(
        call_again(&mut world.proxy.client(), &["GET", &key]),
        Value::bulk("new")
    );
    world.wait_for_epoch(2);
}

#[test]
fn a_login_is_kept_while_a_server_knows_its_user_or_does_not_answer() {
    let mut world = World::new(2, 2);
    world.announce(&world.make_users(1, &[0, 1]));
    let key = world.key_on(0, 2);
    world.proxy.process().kill();
    world.forget_all(0);
    world.proxy.launch();
    let mut client = world.proxy.client();
    let refused = client.call(&["INCR", &key]);
    assert!(error_of(&refused).starts_with("TRYAGAIN"), "{refused:?}");
    world.proxy.process().kill(); // it would find that nobody knows them any more
    world.forget_all(1);
    world.servers[1].pause();
    world.proxy.launch();
    let mut client = world.proxy.client();
    let refused = client.call(&["INCR", &key]);
    assert!(error_of(&refused).starts_with("TRYAGAIN"), "{refused:?}");
    world.servers[1].resume();
    assert_eq!(call_again(&mut client, &["INCR", &key]), Value::Int(1));
    world.wait_for_users(0, "default");
}

#[test]
fn a_login_is_kept_while_a_job_may_have_changed_its_password() {
    let mut world = World::new(1, 1);
    world.announce(&world.make_users(1, &[0]));
    world.proxy.process().kill();
    let again = ["resetpass".to_owned(), ">another".into()];
    assert_eq!(world.acl(0, &World::user(1), &again), Value::ok());
    world.proxy.launch();
    let refused = world.proxy.client().call(&["INCR", "k"]);
    assert!(error_of(&refused).starts_with("TRYAGAIN"), "{refused:?}");
}

#[test]
fn a_server_that_hangs_keeps_no_other_from_being_asked() {
    let mut world = World::new(3, 2);
    world.announce(&world.make_users(1, &[0, 1]));
    let (hanging, moved) = (world.key_on(0, 2), world.key_on(1, 2));
    let (mut first, mut second) = (world.proxy.client(), world.proxy.client());
    assert_eq!(second.call(&["SET", &moved, "old"]), Value::ok());
    world.fence(0, 1);
    first.send(&["GET", &hanging]);
    wait_until("it is refused", LIMIT, || {
        let refused = world.servers[0].client().call(&["ACL", "LOG"]);
        !refused.items().is_empty()
    });
    world.servers[0].pause();
    world.fence(1, 1);
    let set = world.servers[2].client().call(&["SET", &moved, "new"]);
    assert_eq!(set, Value::ok());
    world.record(&[1], &[2]);
    assert_eq!(second.call(&["GET", &moved]), Value::bulk("new"));
    world.wait_for_epoch(2);
    world.servers[0].resume();
}

/// Every server there is, with an epoch's user on it.
fn on_every_kind(what: &str, servers: usize, of_proxy: usize, test: impl Fn(World)) {
    let mut skipped = Skipped::default();
    for kind in ServerKind::ALL {
        if skipped.unless_here(&format!("{what} on {kind}"), &[kind]) {
            let servers = (0..servers).map(|_| RedisServer::start_kind(kind, &[]));
            let world = World::of(servers.collect(), of_proxy);
            eprintln!("{what} on {kind}");
            test(world);
        }
    }
    skipped.finish();
}

#[test]
fn a_script_that_wrote_is_not_run_twice_whatever_it_answers() {
    on_every_kind("scripts that are refused", 1, 1, |world| {
        world.announce(&world.make_users(1, &[0]));
        let mut client = world.proxy.client();
        let write = "redis.call('INCR', KEYS[1]) return ";
        let count = || world.servers[0].client().call(&["GET", "k"]);
        let raised = format!("{write} redis.error_reply('NOPERM x')");
        let answer = client.call(&["EVAL", &raised, "1", "k"]);
        assert!(error_of(&answer).starts_with("NOPERM x"), "{answer:?}");
        assert_eq!(count(), Value::bulk("1"));
        world.acl(0, &World::user(1), &["-append".to_owned()]);
        for call in ["call", "pcall"] {
            let refused = format!("{write} redis.{call}('APPEND', KEYS[1], '0')");
            let answer = client.call(&["EVAL", &refused, "1", "k"]);
            assert!(answer.is_error(), "{answer:?}");
        }
        assert_eq!(count(), Value::bulk("3"));
        world.fence(0, 1);
        let answer = client.call(&["EVAL", &raised, "1", "k"]);
        assert!(error_of(&answer).starts_with("TRYAGAIN"), "{answer:?}");
        assert_eq!(count(), Value::bulk("3"), "the fence refused it as a whole");
    });
}

#[test]
fn who_waits_for_a_key_that_stays_is_served_after_a_fenced_switch() {
    on_every_kind("waiting through a fence", 3, 2, |world| {
        world.announce(&world.make_users(1, &[0, 1]));
        let to = Layout::new(world.layout(&[0, 1, 2])).expect("a layout");
        let from = Layout::new(world.layout(&[0, 1])).expect("a layout");
        let mut keys = (0..).map(|number| format!("list:{number}"));
        let stays = |key: &String| {
            let owners = [&from, &to].map(|layout| layout.owner(key.as_bytes()).as_usize());
            owners == [0, 0]
        };
        let key = keys.find(stays).expect("a key that stays");
        let mut waiter = world.proxy.client();
        waiter.send(&["BLPOP", &key, "60"]);
        let blocked = || world.servers[0].info_field("clients", "blocked_clients");
        wait_until("it waits", LIMIT, || blocked().as_deref() == Some("1"));
        world.stage(&[0, 1, 2], &world.make_users(2, &[0, 1, 2]));
        world.fence(0, 1);
        world.fence(1, 1);
        let ask = json!({ "job": JOB, "epoch": 2, "incarnation": 1, "fenced": true });
        world.post("switch/commit", &ask);
        let mut client = world.proxy.client();
        assert_eq!(
            call_again(&mut client, &["RPUSH", &key, "x"]),
            Value::Int(1)
        );
        assert_eq!(
            waiter.read(),
            Value::Array(vec![Value::bulk(&key), Value::bulk("x")])
        );
    });
}

#[test]
fn a_status_tells_what_a_hold_costs() {
    let world = World::new(3, 2);
    world.stage(&[0, 1, 2], &json!([]));
    let status = || world.proxy.pools()["pools"][0].clone();
    assert_eq!(status().get("hold"), None);
    let ask = json!({ "job": JOB, "epoch": 2, "incarnation": 1, "lease_ms": 10_000 });
    world.post("switch/hold", &ask);
    let to = Layout::new(world.layout(&[0, 1, 2])).expect("a layout");
    let mut keys = (0..).map(|number| format!("key:{number}"));
    let moving = keys.find(|key| to.owner(key.as_bytes()).as_usize() == 2);
    let mut client = world.proxy.client();
    client.send(&["INCR", &moving.expect("a key that moves")]);
    wait_until("it is held for longer than a switch takes", LIMIT, || {
        let hold = status()["hold"].clone();
        hold["requests"] == 1 && hold["bytes"].as_u64() > Some(0) && hold["limit"] == "soft"
    });
    world.post(
        "switch/abort",
        &json!({ "job": JOB, "epoch": 2, "incarnation": 1 }),
    );
    assert_eq!(client.read(), Value::Int(1));
    assert_eq!(status().get("hold"), None);
}

#[test]
fn what_an_operator_forbids_reaches_the_client() {
    let world = World::new(1, 1);
    let mut client = world.proxy.client();
    assert_eq!(client.call(&["SET", "k", "1"]), Value::ok());
    world.announce(&world.make_users(1, &[0]));
    world.acl(0, &World::user(1), &["-incr".to_owned()]);
    for _ in 0..3 {
        let replies = client.pipeline(&[vec!["INCR", "k"], vec!["APPEND", "k", "x"]]);
        assert!(error_of(&replies[0]).starts_with("NOPERM"), "{replies:?}");
        assert!(matches!(replies[1], Value::Int(_)), "{replies:?}");
        let alone = call_again(&mut client, &["INCR", "k"]);
        assert!(error_of(&alone).starts_with("NOPERM"), "{alone:?}");
    }
    world.announce(&json!([]));
    world.acl(0, "default", &["-incr".to_owned()]);
    let refused = client.call(&["INCR", "k"]);
    assert!(error_of(&refused).starts_with("NOPERM"), "{refused:?}");
}

#[test]
fn clients_that_wait_go_on_waiting_on_the_new_route() {
    let world = World::new(3, 2);
    let keys: Vec<String> = (0..24).map(|number| format!("list:{number}")).collect();
    let mut waiters: Vec<Client> = keys.iter().map(|_| world.proxy.client()).collect();
    for (waiter, key) in waiters.iter_mut().zip(&keys) {
        waiter.send(&["BLPOP", key, "60"]);
    }
    let blocked = |server: usize| {
        let blocked = world.servers[server].info_field("clients", "blocked_clients");
        blocked
            .and_then(|count| count.parse::<usize>().ok())
            .unwrap_or(0)
    };
    wait_until("all wait", LIMIT, || blocked(0) + blocked(1) == keys.len());
    world.stage(&[0, 1, 2], &json!([]));
    let ask = |lease_ms: Option<u64>| {
        let mut ask = json!({ "job": JOB, "epoch": 2, "incarnation": 1 });
        if let Some(lease_ms) = lease_ms {
            ask["lease_ms"] = lease_ms.into();
        }
        ask
    };
    world.post("switch/hold", &ask(Some(10_000)));
    assert!(
        blocked(0) + blocked(1) < keys.len(),
        "some keys move, and nobody waits for them"
    );
    world.post("switch/arm", &ask(Some(10_000)));
    world.post("switch/commit", &ask(None));
    wait_until("all wait again", LIMIT, || {
        blocked(0) + blocked(1) + blocked(2) == keys.len()
    });
    let mut client = world.proxy.client();
    for (waiter, key) in waiters.iter_mut().zip(&keys) {
        assert_eq!(client.call(&["RPUSH", key, "x"]), Value::Int(1));
        assert_eq!(
            waiter.read(),
            Value::Array(vec![Value::bulk(key), Value::bulk("x")])
        );
    }
}
