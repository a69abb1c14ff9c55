//! The programs `bench/run` measures with do what it takes them for: the canned
//! clients get every reply they count, through the null mux and through keyferry.
//! (`canned` ends on a byte too many or on another reply than the one asked for,
//! and after a while when bytes do not come.)

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
const GET_BYTES: &str = "36";
const GET_REPLY_BYTES: &str = "71";
const SET_BYTES: &str = "107";
const SET_REPLY_BYTES: &str = "5";
/// The last digit of the key, in both.
const SHARD_BYTE: &str = "33";

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn canned_clients_get_every_reply_through_the_null_mux() {
    let shards = [free_port(), free_port()];
    let mut canned = Canned::start(shards);
    for (command, request, reply) in [
        ("get", GET_BYTES, GET_REPLY_BYTES),
        ("set", SET_BYTES, SET_REPLY_BYTES),
    ] {
        let port = free_port();
        let lengths = ["--request-bytes", request, "--reply-bytes", reply];
        let _mux = start(
            Command::new(example("null_mux"))
                .args(["--port", &port.to_string()])
                .args(["--shards", &format!("{},{}", shards[0], shards[1])])
                .args(lengths)
                .args(["--shard-byte", SHARD_BYTE]),
            &[port],
        );
        for pipeline in ["1", "16", "64"] {
            let what = format!("--command {command} --pipeline {pipeline} --value-bytes 64");
            assert!(canned.requests_answered(port, &what) > 0, "{what}");
        }
    }
}

#[test]
fn canned_clients_get_every_reply_through_keyferry() {
    let shards = [free_port(), free_port()];
    let mut canned = Canned::start(shards);
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _proxy = start(
        Command::new(env!("CARGO_BIN_EXE_keyferry"))
            .args(["run", "-c"])
            .arg(config(directory.path(), port, shards)),
        &[port],
    );
    for (command, pipeline, value_bytes) in [
        ("get", "64", "64"),
        ("set", "16", "64"),
        ("mset", "1", "64"),
        ("set", "1", "16384"),
    ] {
        let what = format!("--command {command} --pipeline {pipeline} --value-bytes {value_bytes}");
        assert!(canned.requests_answered(port, &what) > 0, "{what}");
    }
}

fn config(directory: &Path, port: u16, shards: [u16; 2]) -> PathBuf {
    let path = directory.join("keyferry.toml");
    let text = format!(
        "[server]\nstate_dir = \"{}\"\n[log]\nlevel = \"warn\"\n\
         [admin]\nhttp = \"127.0.0.1:{}\"\n[pool.bench]\nlisten = [\"127.0.0.1:{port}\"]\n\
         [[pool.bench.shard]]\nname = \"a\"\naddr = \"127.0.0.1:{}\"\n\
         [[pool.bench.shard]]\nname = \"b\"\naddr = \"127.0.0.1:{}\"\n",
        directory.display(),
        free_port(),
        shards[0],
        shards[1],
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// The canned clients and shards, which are told by lines what to do.
struct Canned {
    _running: Running,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Canned {
    fn start([first, second]: [u16; 2]) -> Self {
        let mut command = Command::new(example("canned"));
        command
            .args(["--shard-ports", &format!("{first},{second}")])
            .args(["--value-bytes", "64"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut running = start(&mut command, &[first, second]);
        Self {
            stdin: running.0.stdin.take().unwrap(),
            stdout: BufReader::new(running.0.stdout.take().unwrap()),
            _running: running,
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Some load; how many requests were answered.
    fn requests_answered(&mut self, port: u16, what: &str) -> u64 {
        let connect = format!("connect --port {port} --clients 20 {what}");
        let ready = self.ask(&format!("{connect} --keys 1000 --warm-ms 20"));
        assert_eq!(ready, "ready", "{what}");
        let result = self.ask("go --ms 100");
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        assert_eq!(self.ask("close"), "closed", "{what}");
        result["requests"].as_u64().unwrap()
    }
}

fn start(command: &mut Command, ports: &[u16]) -> Running {
    let mut running = Running(command.spawn().unwrap());
    let deadline = Instant::now() + START_LIMIT;
    for &port in ports {
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?}: {ended:?}");
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    running
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `cargo test` builds the examples beside the binary.
fn example(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_keyferry")).with_file_name("examples");
    let path = beside.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --examples, or cargo test without --test",
        path.display()
    );
    path
}
