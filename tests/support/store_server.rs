//! `keyferry store`: started, stopped, killed, and started again on its files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::process::{Process, Signal, free_port};

/// Longest wait until it answers, a replay of its log included.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A built-in shard in a directory and on a port of its own.
pub struct StoreServer {
    /// Before its directory: it tells what it wrote there.
    process: Process,
    dir: TempDir,
    port: u16,
    flags: Vec<String>,
}

impl StoreServer {
    /// Starts one with more flags than `--dir` and `--listen`, and waits until it answers.
    pub fn start(flags: &[&str]) -> StoreServer {
        StoreServer::start_in(flags, |_| {})
    }

    /// The same, in a directory of which `prepare` is given the name.
    pub fn start_in(flags: &[&str], prepare: impl FnOnce(&Path)) -> StoreServer {
        let dir = TempDir::with_prefix("keyferry-store-").expect("a temporary directory");
        prepare(&dir.path().join("shard"));
        let port = free_port();
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut store = StoreServer {
            process: launch(dir.path(), port, &flags),
            dir,
            port,
            flags,
        };
        store.wait_ready();
        store
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait() {
                panic!(
                    "`keyferry store` ended ({status}): {}",
                    self.process.stderr()
                );
            }
            let answers = Client::try_connect(&self.address())
                .and_then(|mut client| client.try_call(&["PING"]));
            if answers.is_ok() {
                return;
            }
            assert!(
                start.elapsed() < START_LIMIT,
                "`keyferry store` does not answer PING"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("shard")
    }

    /// A connection to it.
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.process.signal(Signal::Term);
        let status = self.process.wait(START_LIMIT);
        assert!(status.success(), "{status}: {}", self.process.stderr());
    }

    /// Starts it again on its files.
    pub fn start_again(&mut self) {
        self.process = launch(self.dir.path(), self.port, &self.flags);
        self.wait_ready();
    }

    /// Tries to start it again on its files; what it said if it refused.
    pub fn try_start_again(&mut self) -> Result<(), String> {
        self.process = launch(self.dir.path(), self.port, &self.flags);
        loop {
            if self.process.try_wait().is_some() {
                return Err(self.process.stderr());
            }
            let answers = Client::try_connect(&self.address())
                .and_then(|mut client| client.try_call(&["PING"]));
            if answers.is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn launch(dir: &Path, port: u16, flags: &[String]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    command.args(["store", "--listen", &format!("127.0.0.1:{port}"), "--dir"]);
    command.arg(dir.join("shard")).args(flags);
    Process::spawn("keyferry-store", "keyferry", dir, &mut command)
}
