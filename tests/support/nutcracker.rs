//! The original: Debian's `nutcracker` in front of real servers.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::process::{Process, free_port};

const START_LIMIT: Duration = Duration::from_secs(20);
const PORT_TRIES: u32 = 8;
const LOG_FILE: &str = "nutcracker.log";

/// One nutcracker with one pool.
pub struct Nutcracker {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Nutcracker {
    /// Starts a pool of `servers`, each a whole nutcracker server line such as
    /// `127.0.0.1:7001:1 name`.
    pub fn start<S: AsRef<str>>(hash: &str, distribution: &str, servers: &[S]) -> Nutcracker {
        let mut lines = String::new();
        for server in servers {
            lines.push_str(&format!("  - {}\n", server.as_ref()));
        }
        Nutcracker::start_pool(&format!(
            "  hash: {hash}\n  distribution: {distribution}\n  redis: true\n  servers:\n{lines}"
        ))
    }

    /// Starts a pool with these (indented) YAML lines after `listen`.
    pub fn start_pool(lines: &str) -> Nutcracker {
        for _ in 0..PORT_TRIES {
            let dir = TempDir::with_prefix("keyferry-nutcracker-").expect("a temporary directory");
            let (port, stats) = (free_port(), free_port());
            let config = dir.path().join("nutcracker.yml");
            fs::write(
                &config,
                format!("alpha:\n  listen: 127.0.0.1:{port}\n{lines}"),
            )
            .expect("the config file");
            let mut command = Command::new("nutcracker");
            // Its default log level costs a good part of its speed. Debian's build logs
            // to /var/log and writes its pid to /run, which is not ours to touch.
            command
                .args(["-v", "4", "-a", "127.0.0.1", "-s", &stats.to_string(), "-c"])
                .arg(&config)
                .arg("-o")
                .arg(dir.path().join(LOG_FILE))
                .arg("-p")
                .arg(dir.path().join("nutcracker.pid"));
            let process = Process::spawn("nutcracker", "nutcracker", dir.path(), &mut command);
            let mut proxy = Nutcracker { process, port, dir };
            if proxy.wait_ready() {
                return proxy;
            }
        }
        panic!("nutcracker found no free port in {PORT_TRIES} tries");
    }

    /// Where clients connect.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A new client connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    fn wait_ready(&mut self) -> bool {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait() {
                let logged = fs::read_to_string(self.dir.path().join(LOG_FILE)).unwrap_or_default();
                let log = self.process.stderr() + &logged;
                assert!(
                    log.contains("Address already in use"),
                    "nutcracker ended ({status}): {log}"
                );
                return false;
            }
            if Client::try_connect(&self.address()).is_ok() {
                return true;
            }
            assert!(start.elapsed() < START_LIMIT, "nutcracker does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
