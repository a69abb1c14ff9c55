//! Called as `nutcracker` we say, do and end as the real one: both are run with
//! the same words and the same files, and compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{
    Client, Process, RedisServer, Signal, Value, free_port, seeded, wait_for, wait_until,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const KEYS: usize = 20_000;

/// A directory with our binary under the original's name.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let dir = TempDir::with_prefix("keyferry-persona-").expect("a directory");
        symlink(
            env!("CARGO_BIN_EXE_keyferry"),
            dir.path().join("nutcracker"),
        )
        .expect("a link");
        Place(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn ours(&self) -> Command {
        let mut command = Command::new(self.path().join("nutcracker"));
        command.current_dir(self.path());
        command
    }

    fn theirs(&self) -> Command {
        let mut command = Command::new("nutcracker");
        command.current_dir(self.path());
        command
    }

    /// Starts a proxy with the pool file `yml` and waits until it listens.
    fn start(
        &self,
        name: &str,
        mut command: Command,
        yml: &Path,
        port: u16,
        stats: u16,
    ) -> Process {
        command
            .args(["-v", "6", "-a", "127.0.0.1", "-s", &stats.to_string(), "-c"])
            .arg(yml)
            .arg("-o")
            .arg(self.path().join(format!("{name}.log")))
            .arg("-p")
            .arg(self.path().join(format!("{name}.pid")));
        let mut process = Process::spawn(name, "nutcracker", self.path(), &mut command);
        wait_until(name, LIMIT, || {
            assert!(
                process.try_wait().is_none(),
                "{name} ended: {}",
                self.log(name)
            );
            Client::try_connect(&format!("127.0.0.1:{port}")).is_ok()
        });
        process
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// Exit code and lines of stderr; nothing goes to stdout.
fn told(mut command: Command, args: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = command
        .args(args)
        .output()
        .expect("nutcracker (the package) is installed");
    assert!(output.stdout.is_empty(), "{args:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        text.lines().map(str::to_owned).collect(),
    )
}

const GOOD: [(&str, &str); 8] = [
    (
        "small",
        "a:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\n",
    ),
    (
        "comments",
        "# x\na: # y\n  listen: 127.0.0.1:22121 # z\n  redis: true\n\n  servers:\n  - 127.0.0.1:6379:1 s1 # s2\n",
    ),
    (
        "names",
        "a-b.c_1:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1 x\n   - 127.0.0.1:6379:2 y\n",
    ),
    (
        "every key",
        "a:\n  listen: 127.0.0.1:22121\n  hash: murmur\n  hash_tag: \"{}\"\n  distribution: modula\n  timeout: \"400\"\n  backlog: 1024\n  client_connections: 100\n  tcpkeepalive: true\n  redis: true\n  redis_db: 0\n  preconnect: false\n  auto_eject_hosts: false\n  server_connections: 2\n  server_retry_timeout: 2000\n  server_failure_limit: 1\n  servers:\n   - ::1:6379:1\n   - /tmp/r.sock:2\n   - localhost:6379:1 l\n",
    ),
    (
        "two pools",
        "b:\n  listen: 127.0.0.1:22122\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\na:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\n",
    ),
    (
        "a socket",
        "a:\n  listen: /tmp/nutcracker-a.sock 0600\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\n",
    ),
    (
        "a password",
        "a:\n  listen: 127.0.0.1:22121\n  redis: true\n  redis_auth: hunter2\n  servers:\n   - 127.0.0.1:6379:1\n",
    ),
    (
        "zeros",
        "a:\n  listen: 127.0.0.1:22121\n  timeout: 0\n  server_failure_limit: 0\n  redis: true\n  servers:\n   - 127.0.0.1:06379:1\n",
    ),
];

/// Lines below `listen:` of a pool that are wrong, and whole files.
const BAD_LINES: [&str; 22] = [
    "hsah: md5",
    "listen: 127.0.0.1:1",
    "hash: md6",
    "hash: crc16_slot",
    "hash_tag: \"{\"",
    "hash_tag: \"\"",
    "hash_tag: {}",
    "distribution: slots",
    "timeout: -1",
    "timeout: 4k",
    "timeout:",
    "backlog: 0x10",
    "preconnect: yes",
    "preconnect: True",
    "tcpkeepalive: 1",
    "server_connections: 0",
    "auto_eject_hosts: \"on\"",
    "server_retry_timeout: 1.5",
    "server_failure_limit: +1",
    "redis: true\n  redis: true",
    "more:\n   - a",
    "deep:\n    a: b",
];

const BAD_SERVERS: [&str; 12] = [
    "127.0.0.1",
    "127.0.0.1:6379",
    "127.0.0.1:6379:0",
    "127.0.0.1:6379:-1",
    "127.0.0.1:6379:1x n",
    "127.0.0.1:0:1",
    "127.0.0.1:65536:1",
    "127.0.0.1:x:1",
    "/tmp/r.sock",
    "/tmp/r:s.sock:1",
    "127.0.0.1:6380:1 one",
    "{a: b}",
];

const BAD_FILES: [&str; 12] = [
    "",
    "a\n",
    "a: b\n",
    "a:\n  listen: 127.0.0.1:22121\n",
    "a:\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\n",
    "a:\n - b\n",
    "---\na:\n  listen: 127.0.0.1:22121\n  servers:\n   - 127.0.0.1:6379:1\n",
    "a:\n  listen: 127.0.0.1:22121\n  servers: [127.0.0.1:6379:1]\n",
    "a:\n  listen: localhost\n  servers:\n   - 127.0.0.1:6379:1\n",
    "a:\n  listen: 127.0.0.1:0\n  servers:\n   - 127.0.0.1:6379:1\n",
    "a:\n  listen: /tmp/s 1777\n  servers:\n   - 127.0.0.1:6379:1\n",
    "a: &x\n  listen: 127.0.0.1:22121\n  servers:\n   - 127.0.0.1:6379:1\n",
];

#[test]
fn the_same_files_are_good_and_bad() {
    let place = Place::new();
    let mut files: Vec<(String, String)> = Vec::new();
    let pool =
        "a:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1 one\n";
    files.extend(GOOD.map(|(name, text)| (name.to_owned(), text.to_owned())));
    files.extend(BAD_LINES.map(|line| {
        let text = pool.replace("  redis: true\n", &format!("  redis: true\n  {line}\n"));
        let text = match line.starts_with("redis:") {
            true => text.replacen("  redis: true\n", "", 1),
            false => text,
        };
        (line.to_owned(), text)
    }));
    files.extend(BAD_SERVERS.map(|line| (line.to_owned(), format!("{pool}   - {line}\n"))));
    files.extend(BAD_FILES.map(|text| (format!("{text:?}"), text.to_owned())));
    for (same, name) in [("a:\n", "name"), ("listen", "listen")] {
        let second = match name {
            "name" => pool.replace("22121", "22122"),
            _ => pool.replace("a:\n", "b:\n"),
        };
        files.push((format!("two pools, same {same}"), format!("{pool}{second}")));
    }
    let mut good = 0;
    for (case, text) in files {
        place.write("n.yml", &text);
        let theirs = told(place.theirs(), &["-t", "-c", "n.yml"]);
        let ours = told(place.ours(), &["-t", "-c", "n.yml"]);
        assert_eq!(
            (ours.0, ours.1.last()),
            (theirs.0, theirs.1.last()),
            "{case}\n{text}\n{ours:?}"
        );
        good += i32::from(ours.0 == Some(0));
    }
    assert_eq!(good, GOOD.len() as i32);
}

#[test]
fn reasons_are_those_in_the_original_s_log() {
    let place = Place::new();
    let pool =
        "a:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1 one\n";
    let lines = BAD_LINES
        .iter()
        .filter(|line| !["hash_tag: \"\"", "timeout:"].contains(line));
    let files = lines
        .map(|line| pool.replace("  redis: true\n", &format!("  {line}\n")))
        .chain(
            BAD_SERVERS
                .iter()
                .map(|line| format!("{pool}   - {line}\n")),
        )
        .chain(BAD_FILES.iter().map(|text| (*text).to_owned()));
    for text in files {
        place.write("n.yml", &text);
        let reason = |mut command: Command, log: &str| {
            command.args(["-c", "n.yml", "-o", log, "-p", "n.pid", "-a", "127.0.0.1"]);
            command.args(["-s", &free_port().to_string()]);
            let (code, lines) = told(command, &[]);
            assert_eq!(code, Some(1), "{text}");
            let last = lines.last().cloned();
            let log = fs::read_to_string(place.path().join(log)).expect("a log");
            let found = log.lines().filter_map(|line| line.split_once(" conf: "));
            let reasons: Vec<String> = found.map(|(_, reason)| reason.to_owned()).collect();
            (reasons, last)
        };
        let theirs = reason(place.theirs(), "theirs.log");
        let ours = reason(place.ours(), "ours.log");
        assert_eq!(
            (ours.0.first(), ours.1),
            (theirs.0.first(), theirs.1),
            "{text}"
        );
        for log in ["theirs.log", "ours.log"] {
            fs::remove_file(place.path().join(log)).expect("removed");
        }
        assert!(
            !place.path().join("n.pid").exists(),
            "an end by itself removes the pid file"
        );
    }
}

#[test]
fn wrong_options_are_told_the_same_way() {
    let place = Place::new();
    for args in [
        &["-s", "0"][..],
        &["-s", "x"],
        &["-s"],
        &["-m", "1"],
        &["-m", "0"],
        &["-v", "x"],
        &["-i", "x"],
        &["-c"],
        &["-a"],
        &["-x"],
        &["-h"],
        &["--help"],
        &["-V"],
        &["-D"],
        &["-t", "-c", "missing.yml"],
    ] {
        let theirs = told(place.theirs(), args);
        let ours = told(place.ours(), args);
        assert_eq!(ours.0, theirs.0, "{args:?}");
        let shown = |lines: &[String]| -> Vec<String> {
            let said = lines.iter().filter(|line| {
                // Paths of the package, and a reason that only we give.
                !line.contains("(default: ")
                    && !line.starts_with("served by: ")
                    && !line.starts_with("conf: ")
            });
            said.cloned().collect()
        };
        assert_eq!(shown(&ours.1), shown(&theirs.1), "{args:?}");
    }
}

/// The text of a statistics port.
fn stats(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the statistics port");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}

/// The same text without values.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\":") {
        shape.push_str(before);
        shape.push_str("\":");
        let value = match after.as_bytes().first() {
            Some(b' ') => 0,
            Some(b'"') => after
                .get(1..)
                .and_then(|text| text.find('"'))
                .map_or(0, |end| end + 2),
            _ => after.bytes().take_while(u8::is_ascii_digit).count(),
        };
        rest = after.get(value..).unwrap_or_default();
    }
    shape + rest
}

fn number(text: &str, after: &str, field: &str) -> u64 {
    let object = text.split_once(&format!("\"{after}\": {{")).expect(after).1;
    let value = object.split_once(&format!("\"{field}\":")).expect(field).1;
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn statistics_and_placement_are_the_original_s() {
    let mut random = seeded("statistics_and_placement_are_the_original_s");
    let place = Place::new();
    let servers = RedisServer::start_many(4, &[]);
    let (ports, stats_ports) = ([free_port(), free_port()], [free_port(), free_port()]);
    let other = [free_port(), free_port()];
    let [one, two, three, four] = [0, 1, 2, 3].map(|at: usize| servers[at].address());
    let yml = |at: usize| {
        format!(
            "beta:\n  listen: 127.0.0.1:{}\n  redis: true\n  servers:\n   - {one}:1\n   - {two}:1 b\nalpha:\n  listen: 127.0.0.1:{}\n  hash_tag: \"{{}}\"\n  redis: true\n  timeout: 5000\n  servers:\n   - {four}:1 longest-name\n   - {one}:1 n9\n   - {two}:3\n   - {three}:2 n10\n",
            other[at], ports[at]
        )
    };
    let files = [
        place.write("ours.yml", &yml(0)),
        place.write("theirs.yml", &yml(1)),
    ];
    let mut ours = place.start("ours", place.ours(), &files[0], ports[0], stats_ports[0]);
    let _theirs = place.start(
        "theirs",
        place.theirs(),
        &files[1],
        ports[1],
        stats_ports[1],
    );

    let keys: Vec<Vec<u8>> = (0..KEYS)
        .map(|number| {
            let length = random.usize(1..20);
            let mut key: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            if number % 4 == 0 {
                key.extend_from_slice(b"{t");
                key.push(random.u8(..));
                key.push(b'}');
            }
            key
        })
        .collect();
    let contents = |at: usize| {
        let mut client = Client::connect(&format!("127.0.0.1:{}", ports[at]));
        for batch in keys.chunks(1_000) {
            let mut requests = Vec::new();
            for key in batch {
                support::client::encode(&mut requests, &[b"SET".as_slice(), key, b""]);
            }
            client.send_raw(&requests);
            for _ in batch {
                assert_eq!(client.read(), Value::ok());
            }
        }
        let of_servers: Vec<_> = servers
            .iter()
            .map(|server| {
                let mut client = server.client();
                let Value::Array(keys) = client.call(&["KEYS", "*"]) else {
                    panic!("KEYS has no array")
                };
                let mut keys: Vec<Vec<u8>> = keys.iter().map(|key| key.bytes().to_vec()).collect();
                keys.sort();
                assert_eq!(client.call(&["FLUSHALL"]), Value::ok());
                keys
            })
            .collect();
        of_servers
    };
    let (by_us, by_them) = (contents(0), contents(1));
    assert!(by_us == by_them, "keys are on other servers");
    assert!(by_us.iter().all(|keys| !keys.is_empty()));

    let ours_told = wait_for("all requests are counted", LIMIT, || {
        let text = stats(stats_ports[0]);
        (number(&text, "longest-name", "responses") > 0).then_some(text)
    });
    assert_eq!(shape(&ours_told), shape(&stats(stats_ports[1])));
    serde_json::from_str::<serde_json::Value>(&ours_told).expect("JSON");
    let alpha = ours_told.split_once("\"alpha\": {").expect("alpha").1;
    let requests = |name: &str| number(alpha, name, "requests");
    let counted = requests("n9") + requests("n10") + requests("longest-name") + requests(&two);
    assert_eq!(counted, KEYS as u64);
    wait_until("clients that left are counted", LIMIT, || {
        number(&stats(stats_ports[0]), "alpha", "client_eof") >= 1
    });
    ours.signal(Signal::Term);
    assert_eq!(ours.wait_code(LIMIT), 0);
}

#[test]
fn signals_do_what_they_do_to_the_original() {
    let place = Place::new();
    let server = RedisServer::start(&[]);
    let (port, stats_port) = (free_port(), free_port());
    let yml = format!(
        "a:\n  listen: 127.0.0.1:{port}\n  redis: true\n  client_connections: 2\n  servers:\n   - {}:1\n",
        server.address()
    );
    let file = place.write("n.yml", &yml);
    let mut ours = place.start("ours", place.ours(), &file, port, stats_port);
    let pid = fs::read_to_string(place.path().join("ours.pid")).expect("a pid file");
    assert_eq!(pid, ours.pid().to_string());

    fs::rename(place.path().join("ours.log"), place.path().join("old.log")).expect("moved");
    ours.signal(Signal::Hup);
    wait_until("the log is reopened", LIMIT, || {
        place.path().join("ours.log").exists()
    });
    let told_before = fs::read_to_string(place.path().join("old.log")).expect("the old log");
    assert!(
        told_before.ends_with(
            "[.......................] signal 1 (SIGHUP) received, reopening log file\n"
        ),
        "{told_before}"
    );
    assert!(
        told_before.contains(&format!("started on pid {pid}\n")),
        "{told_before}"
    );

    // Beyond the original: client_connections is a limit.
    let address = format!("127.0.0.1:{port}");
    let mut clients = wait_for("the first clients are gone", LIMIT, || {
        let mut clients = [Client::connect(&address), Client::connect(&address)];
        let is_in = |client: &mut Client| client.call(&["PING"]) == Value::Simple("PONG".into());
        clients.iter_mut().all(is_in).then_some(clients)
    });
    let refused = Client::connect(&address).read();
    assert!(
        format!("{refused:?}").contains("max number of clients reached"),
        "{refused:?}"
    );
    assert_eq!(clients[0].call(&["SET", "k", "v"]), Value::ok());

    ours.signal(Signal::Int);
    assert_eq!(ours.wait_code(LIMIT), 1);
    let log = place.log("ours");
    assert!(
        log.ends_with("[.......................] signal 2 (SIGINT) received, exiting\n"),
        "{log}"
    );
    assert!(
        place.path().join("ours.pid").exists(),
        "a signal leaves the pid file"
    );
}

#[test]
fn clients_begin_in_the_database_of_the_pool() {
    let place = Place::new();
    let server = RedisServer::start(&[]);
    for (name, command) in [("ours", place.ours()), ("theirs", place.theirs())] {
        let (port, stats_port) = (free_port(), free_port());
        let yml = format!(
            "a:\n  listen: 127.0.0.1:{port}\n  redis: true\n  redis_db: 3\n  preconnect: true\n  servers:\n   - {}:1\n",
            server.address()
        );
        let file = place.write(&format!("{name}.yml"), &yml);
        let _process = place.start(name, command, &file, port, stats_port);
        let mut client = Client::connect(&format!("127.0.0.1:{port}"));
        assert_eq!(client.call(&["SET", name, "v"]), Value::ok());
        let mut direct = server.client();
        assert_eq!(direct.call(&["EXISTS", name]), Value::Int(0));
        assert_eq!(direct.call(&["SELECT", "3"]), Value::ok());
        assert_eq!(direct.call(&["EXISTS", name]), Value::Int(1), "{name}");
    }
}

#[test]
fn a_daemon_is_detached_and_serves() {
    let place = Place::new();
    let server = RedisServer::start(&[]);
    let (port, stats_port) = (free_port(), free_port());
    let yml = format!(
        "a:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - {}:1\n",
        server.address()
    );
    place.write("n.yml", &yml);
    let mut command = place.ours();
    command.args([
        "-d",
        "-c",
        "n.yml",
        "-o",
        "n.log",
        "-p",
        "n.pid",
        "-a",
        "127.0.0.1",
    ]);
    let (code, lines) = told(command, &[&format!("-s{stats_port}")]);
    assert_eq!((code, lines), (Some(0), Vec::new()));
    let pid = wait_for("a pid file", LIMIT, || {
        let pid = fs::read_to_string(place.path().join("n.pid")).ok()?;
        pid.parse::<u32>().ok()
    });
    let signal = |name: &str| {
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {pid}"))
            .status();
        assert!(sent.expect("sh runs").success());
    };
    let address = format!("127.0.0.1:{port}");
    wait_until("the daemon serves", LIMIT, || {
        Client::try_connect(&address).is_ok()
    });
    assert_eq!(
        Client::connect(&address).call(&["SET", "k", "v"]),
        Value::ok()
    );
    signal("TERM");
    wait_until("the daemon has ended", LIMIT, || {
        Client::try_connect(&address).is_err()
    });
}
