//! `keyferry run` from its start to its end: what stops a start, what the
//! signals do, and that neither the log nor the API tells a secret.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command as Program;
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

use support::keyferry::{Keyferry, LayoutText};
use support::process::{Process, Signal, free_port};
use support::{RedisServer, Value, http_get, http_post, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

fn layout(servers: &[RedisServer]) -> LayoutText {
    let addresses: Vec<_> = servers.iter().map(RedisServer::address).collect();
    LayoutText::new("fnv1a_64", "ketama", &addresses)
}

fn metric(proxy: &Keyferry, line: &str) -> bool {
    let (_, text) = http_get(&proxy.admin(), "/metrics").expect("metrics");
    text.lines().any(|found| found == line)
}

fn start_fails(config: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_keyferry"))
        .args(["run", "-c"])
        .arg(config)
        .timeout(LIMIT)
        .output();
    let output = output.expect("it ran");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    stderr
}

#[test]
fn a_taken_port_or_state_dir_ends_the_start_with_1() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("its address");
    let dir = TempDir::with_prefix("keyferry-run-").expect("a directory");
    let file = dir.path().join("a.toml");
    let write = |state: &str, http: &str, listen: &str| {
        let text = format!(
            "[server]\nstate_dir = \"{state}\"\n[admin]\nhttp = \"{http}\"\n\
             [pool.cache]\nlisten = [\"{listen}\"]\n[[pool.cache.shard]]\naddr = \"127.0.0.1:7001\"\n"
        );
        fs::write(&file, text).expect("written");
    };
    let state = dir.path().join("state").display().to_string();
    write(&state, &taken.to_string(), "127.0.0.1:0");
    let stderr = start_fails(&file);
    assert!(
        stderr.contains(&format!("error: cannot listen on {taken} for `admin.http`")),
        "{stderr}"
    );
    assert!(
        stderr.contains("help: stop what has the port, or choose another [admin] http"),
        "{stderr}"
    );
    write(&state, "127.0.0.1:0", &taken.to_string());
    let stderr = start_fails(&file);
    assert!(
        stderr.contains("pool cache") && stderr.contains(&taken.to_string()),
        "{stderr}"
    );
    drop(holder);

    write("/proc/keyferry", "127.0.0.1:0", "127.0.0.1:0");
    let stderr = start_fails(&file);
    assert!(
        stderr.contains("error: cannot use `server.state_dir` /proc/keyferry"),
        "{stderr}"
    );

    let servers = RedisServer::start_many(1, &[]);
    let running = Keyferry::start(&layout(&servers));
    let state = running.dir().join("state").display().to_string();
    write(&state, "127.0.0.1:0", "127.0.0.1:0");
    let stderr = start_fails(&file);
    assert!(
        stderr.contains(&format!(
            "error: another keyferry runs with `server.state_dir` {state}"
        )),
        "{stderr}"
    );
}

#[test]
fn a_reload_of_a_wrong_config_changes_nothing_and_is_counted() {
    let servers = RedisServer::start_many(2, &[]);
    let (one, two) = (layout(&servers[..1]), layout(&servers));
    let mut proxy = Keyferry::start(&one);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "v"]), Value::ok());

    fs::write(proxy.config(), "[server]\nworkers = many\n").expect("written");
    proxy.signal(Signal::Hup);
    wait_until("the failure is counted", LIMIT, || {
        metric(&proxy, "keyferry_config_reload_failures_total 1")
    });
    assert_eq!(proxy.epoch_and_gate(), (1, "open".to_owned()));
    assert_eq!(
        client.call(&["GET", "k"]),
        Value::bulk("v"),
        "the same connection goes on"
    );

    proxy.write_config(&two, 2, "");
    proxy.signal(Signal::Hup);
    wait_until("the new layout is in use", LIMIT, || {
        proxy.epoch_and_gate().0 == 2
    });
    wait_until("the reload is counted", LIMIT, || {
        metric(&proxy, "keyferry_config_reloads_total 1")
    });
    assert!(
        !client.call(&["GET", "other"]).is_error(),
        "the same connection goes on"
    );
}

#[test]
fn a_reload_leaves_the_layout_of_a_pool_that_a_job_works_on() {
    let servers = RedisServer::start_many(2, &[]);
    let (one, two) = (layout(&servers[..1]), layout(&servers));
    let mut proxy = Keyferry::start(&one);
    let path = "/api/v1/pools/cache/job";
    let announce = |job: &str, lease_ms: u32| {
        let body = format!("{{\"job\":\"{job}\",\"incarnation\":1,\"lease_ms\":{lease_ms}}}");
        http_post(&proxy.admin(), path, &body).expect("an answer")
    };
    assert_eq!(announce("j1", 60_000).0, 200);
    let (status, text) = announce("j2", 60_000);
    assert_eq!(status, 409, "{text}");
    assert!(
        text.contains("other_job") && text.contains("job j1"),
        "{text}"
    );

    proxy.write_config(&two, 2, "");
    proxy.signal(Signal::Hup);
    wait_until("the refusal is counted", LIMIT, || {
        metric(&proxy, "keyferry_config_reload_failures_total 1")
    });
    assert_eq!(proxy.epoch_and_gate().0, 1);

    let body = "{\"job\":\"j1\",\"incarnation\":1,\"lease_ms\":0}";
    assert_eq!(
        http_post(&proxy.admin(), path, body).expect("an answer").0,
        200
    );
    proxy.signal(Signal::Hup);
    wait_until("the new layout is in use", LIMIT, || {
        proxy.epoch_and_gate().0 == 2
    });
}

#[test]
fn a_stop_ends_with_0_and_so_does_a_second_one() {
    let mut servers = RedisServer::start_many(1, &[]);
    let mut proxy = Keyferry::start(&layout(&servers));
    let mut idle = proxy.client();
    assert_eq!(idle.call(&["SET", "k", "v"]), Value::ok());
    proxy.signal(Signal::Term);
    assert_eq!(proxy.process().wait_code(LIMIT), 0);

    proxy.launch();
    let mut waiting = proxy.client();
    assert_eq!(waiting.call(&["GET", "k"]), Value::bulk("v"));
    servers[0].pause();
    waiting.send(&["GET", "k"]);
    let in_flight = "keyferry_shard_in_flight_requests{pool=\"cache\",shard=\"s1\"} 1";
    wait_until("the request is in flight", LIMIT, || {
        metric(&proxy, in_flight)
    });
    proxy.signal(Signal::Term);
    wait_until("it is draining", LIMIT, || {
        http_get(&proxy.admin(), "/readyz")
            .is_ok_and(|(status, body)| (status, body.as_str()) == (503, "draining\n"))
    });
    proxy.signal(Signal::Term);
    assert_eq!(proxy.process().wait_code(LIMIT), 0);
    servers[0].resume();
}

#[test]
fn the_log_is_reopened_and_its_level_follows_signals() {
    let dir = TempDir::with_prefix("keyferry-log-").expect("a directory");
    let (log, moved) = (dir.path().join("k.log"), dir.path().join("k.log.1"));
    let admin = format!("127.0.0.1:{}", free_port());
    let secret = "canary-0123456789abcdef";
    let text = format!(
        "[server]\nworkers = 1\nstate_dir = \"{}\"\n[log]\nformat = \"json\"\nfile = \"{}\"\n\
         [admin]\nhttp = \"{admin}\"\ntoken = \"{secret}\"\n\
         [pool.cache]\nlisten = [\"127.0.0.1:0\"]\nupstream = {{ password = \"{secret}\" }}\n\
         [[pool.cache.shard]]\naddr = \"127.0.0.1:{}\"\n",
        dir.path().join("state").display(),
        log.display(),
        free_port(),
    );
    let config = dir.path().join("a.toml");
    fs::write(&config, &text).expect("written");
    let mut program = Program::new(env!("CARGO_BIN_EXE_keyferry"));
    program.args(["run", "-c"]).arg(&config);
    let mut process = Process::spawn("keyferry", "keyferry", dir.path(), &mut program);
    let lines = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    wait_until("it is ready", LIMIT, || {
        http_get(&admin, "/readyz").is_ok_and(|(status, _)| status == 200)
    });
    wait_until("the log says so", LIMIT, || {
        lines(&log).contains("\"message\":\"ready\"")
    });
    assert_eq!(http_get(&admin, "/metrics").expect("an answer").0, 401);

    fs::rename(&log, &moved).expect("moved");
    process.signal(Signal::Hup);
    wait_until("a new file has lines", LIMIT, || {
        lines(&log).contains("the config has not changed")
    });
    assert!(!lines(&moved).contains("the config has not changed"));
    for (signal, level) in [("TTOU", "Warn"), ("TTIN", "Info")] {
        let sent = Program::new("kill")
            .arg(format!("-{signal}"))
            .arg(process.pid().to_string())
            .status();
        assert!(sent.expect("kill").success());
        wait_until(signal, LIMIT, || {
            lines(&log).contains(&format!("\"level\":\"{level}\""))
        });
    }
    process.signal(Signal::Term);
    assert_eq!(process.wait_code(LIMIT), 0);
    let all = lines(&moved) + &lines(&log) + &process.stderr() + &process.stdout();
    assert!(!all.contains("canary"), "a secret in: {all}");
    for line in (lines(&moved) + &lines(&log)).lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object["fields"]["message"].is_string(), "{line}");
    }
}
