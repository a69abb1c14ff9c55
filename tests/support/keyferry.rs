//! The proxy under test: `keyferry run` with a config file of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::http::http_get;
use super::process::{Process, Signal, free_port};

const START_LIMIT: Duration = Duration::from_secs(20);

/// One shard in a config or a layout file.
pub struct ShardLine {
    /// Ring identity.
    pub name: String,
    /// `host:port`.
    pub addr: String,
}

/// A layout as the `[pool.NAME]` keys and `[[shard]]` tables write it.
pub struct LayoutText {
    /// e.g. `fnv1a_64`
    pub hash: String,
    /// e.g. `ketama`
    pub distribution: String,
    /// Shards in order.
    pub shards: Vec<ShardLine>,
}

impl LayoutText {
    /// Shards named `s1`, `s2`... at `addresses`.
    pub fn new<A: AsRef<str>>(hash: &str, distribution: &str, addresses: &[A]) -> LayoutText {
        let shards = addresses.iter().enumerate();
        LayoutText {
            hash: hash.to_owned(),
            distribution: distribution.to_owned(),
            shards: shards
                .map(|(at, addr)| ShardLine {
                    name: format!("s{}", at + 1),
                    addr: addr.as_ref().to_owned(),
                })
                .collect(),
        }
    }

    /// Whether a shard of this layout is at `address`.
    pub fn has(&self, address: &str) -> bool {
        self.shards.iter().any(|shard| shard.addr == address)
    }

    /// A layout file, as `--to` takes it.
    pub fn to_layout_file(&self) -> String {
        let mut out = format!(
            "hash = \"{}\"\ndistribution = \"{}\"\n",
            self.hash, self.distribution
        );
        for shard in &self.shards {
            out.push_str(&format!(
                "\n[[shard]]\nname = \"{}\"\naddr = \"{}\"\nweight = 1\n",
                shard.name, shard.addr
            ));
        }
        out
    }

    /// A pool with this layout, as a config file has it. `extra` lines go
    /// before the shards.
    pub fn to_pool(&self, pool: &str, listen: &str, extra: &str) -> String {
        let mut out = format!(
            "[pool.{pool}]\nlisten = [\"{listen}\"]\nhash = \"{}\"\ndistribution = \"{}\"\n{extra}\n",
            self.hash, self.distribution
        );
        for shard in &self.shards {
            out.push_str(&format!(
                "\n[[pool.{pool}.shard]]\nname = \"{}\"\naddr = \"{}\"\nweight = 1\n",
                shard.name, shard.addr
            ));
        }
        out
    }
}

/// A running proxy with one pool named `cache`.
pub struct Keyferry {
    process: Process,
    /// The client port.
    pub port: u16,
    /// The admin port.
    pub admin_port: u16,
    /// A mistake that it makes on purpose from its next launch on.
    pub planted: Option<&'static str>,
    dir: TempDir,
}

impl Keyferry {
    /// The name of the pool in every config that this makes.
    pub const POOL: &'static str = "cache";

    /// Starts a proxy with two workers in front of `layout`.
    pub fn start(layout: &LayoutText) -> Keyferry {
        Keyferry::start_with(layout, 2, "")
    }

    /// Starts a proxy; `pool_extra` are more lines for the pool's table.
    pub fn start_with(layout: &LayoutText, workers: u32, pool_extra: &str) -> Keyferry {
        let dir = TempDir::with_prefix("keyferry-proxy-").expect("a temporary directory");
        fs::create_dir(dir.path().join("state")).expect("the state directory");
        let mut proxy = Keyferry {
            port: free_port(),
            admin_port: free_port(),
            planted: None,
            process: Process::spawn("none", "coreutils", dir.path(), &mut Command::new("true")),
            dir,
        };
        proxy.write_config(layout, workers, pool_extra);
        proxy.launch();
        proxy
    }

    /// Writes the config file anew; the process does not know until it is told.
    pub fn write_config(&self, layout: &LayoutText, workers: u32, pool_extra: &str) {
        let listen = self.address();
        // Machines that test have more to do than a switch.
        let patient = match pool_extra.contains("limits") {
            true => "",
            false => "limits = { max_hold = \"10s\" }\n",
        };
        let text = format!(
            "[server]\nworkers = {workers}\nstate_dir = \"{}\"\n\n[admin]\nhttp = \"{}\"\n\n{}",
            self.dir.path().join("state").display(),
            self.admin(),
            layout.to_pool(Keyferry::POOL, &listen, &format!("{patient}{pool_extra}")),
        );
        fs::write(self.config(), text).expect("the config file");
    }

    /// Starts the process (again) and waits until it is ready.
    pub fn launch(&mut self) {
        self.process.kill();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
        command.arg("run").arg("-c").arg(self.config());
        if let Some(mistake) = self.planted {
            command.env("KEYFERRY_TEST_PLANTED", mistake);
        }
        self.process = Process::spawn("keyferry", "keyferry", self.dir.path(), &mut command);
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait() {
                panic!(
                    "keyferry run ended ({status}): {}{}",
                    self.process.stdout(),
                    self.process.stderr()
                );
            }
            if http_get(&self.admin(), "/readyz").is_ok_and(|(status, _)| status == 200) {
                return;
            }
            assert!(
                start.elapsed() < START_LIMIT,
                "keyferry run is not ready: {}",
                self.process.stderr()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where the admin API listens, without a scheme.
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port)
    }

    /// The admin API as `--proxy` takes it.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin())
    }

    /// The config file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("keyferry.toml")
    }

    /// The directory of this proxy's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// A new client connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    /// `/api/v1/pools`.
    pub fn pools(&self) -> serde_json::Value {
        let (status, body) = http_get(&self.admin(), "/api/v1/pools").expect("the admin API");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The first sample of `/metrics` whose name contains `name`; 0 if none.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = http_get(&self.admin(), "/metrics").expect("the admin API");
        let samples = metrics.lines().filter(|line| !line.starts_with('#'));
        let mut samples = samples.filter(|line| line.contains(name));
        let value = samples
            .next()
            .and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// The epoch and gate of the pool.
    pub fn epoch_and_gate(&self) -> (u64, String) {
        let pools = self.pools();
        let pool = &pools["pools"][0];
        (
            pool["epoch"].as_u64().expect("an epoch"),
            pool["gate"].as_str().expect("a gate").to_owned(),
        )
    }
}
