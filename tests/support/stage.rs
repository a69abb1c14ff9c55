//! The stage of a reshard: real servers, one or two proxies, 2 databases full
//! of keys, writers with a model, and the check of where everything is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;

use super::client::{Client, Value};
use super::contents::{Entry, all_keys, read_entries};
use super::data::{Entries, make_entries, write_entries};
use super::job::Job;
use super::keyferry::{Keyferry, LayoutText};
use super::load::{Load, LoadConfig, Outcome};
use super::redis_server::RedisServer;
use super::wait::wait_until;

/// The database besides 0 that holds keys.
pub const SECOND_DB: u32 = 3;

/// How long a whole job may take on a busy machine.
pub const JOB_LIMIT: Duration = Duration::from_secs(240);

/// How many faults are shown.
const FAULTS_SHOWN: usize = 10;

/// Which keys are in which database; the load's keys are added at the end.
pub type Databases = BTreeMap<u32, Entries>;

/// Everything around one job.
pub struct Stage {
    /// All servers, of the old and of the new layout.
    pub servers: Vec<RedisServer>,
    /// The layout before.
    pub old: LayoutText,
    /// The layout after.
    pub new: LayoutText,
    /// One or more proxies in front of the old layout.
    pub proxies: Vec<Keyferry>,
    /// What the servers must hold, without the writers' keys.
    pub expected: Databases,
    password: Option<String>,
    dir: TempDir,
}

/// The hash, the distribution and the servers (by number) of a layout.
pub struct Shape<'a>(pub &'a str, pub &'a str, pub &'a [usize]);

impl Stage {
    /// Servers and proxies for a way from one layout to another.
    pub fn new(old: &Shape<'_>, new: &Shape<'_>, proxies: usize) -> Stage {
        let count = 1 + old.2.iter().chain(new.2).max().expect("at least one shard");
        Stage::with_servers(RedisServer::start_many(count, &[]), old, new, proxies, "")
    }

    /// The same with servers and lines for the pool from the caller.
    pub fn with_servers(
        servers: Vec<RedisServer>,
        old: &Shape<'_>,
        new: &Shape<'_>,
        proxies: usize,
        pool_extra: &str,
    ) -> Stage {
        let addresses: Vec<_> = servers.iter().map(RedisServer::address).collect();
        Stage::behind(servers, &addresses, old, new, proxies, pool_extra)
    }

    /// The same with servers that everybody reaches at these addresses.
    pub fn behind(
        servers: Vec<RedisServer>,
        addresses: &[String],
        old: &Shape<'_>,
        new: &Shape<'_>,
        proxies: usize,
        pool_extra: &str,
    ) -> Stage {
        let layout = |shape: &Shape<'_>| {
            let addresses: Vec<_> = shape.2.iter().map(|at| &addresses[*at]).collect();
            let mut layout = LayoutText::new(shape.0, shape.1, &addresses);
            for (shard, number) in layout.shards.iter_mut().zip(shape.2) {
                shard.name = format!("s{number}");
            }
            layout
        };
        let (old, new) = (layout(old), layout(new));
        let dir = TempDir::with_prefix("keyferry-stage-").expect("a temporary directory");
        fs::write(dir.path().join("layout.toml"), new.to_layout_file()).expect("a file");
        let config = |layout: &LayoutText| layout.to_pool(Keyferry::POOL, "127.0.0.1:1", "");
        fs::write(dir.path().join("old.toml"), config(&old)).expect("a file");
        fs::write(dir.path().join("new.toml"), config(&new)).expect("a file");
        let proxies = (0..proxies)
            .map(|_| Keyferry::start_with(&old, 2, pool_extra))
            .collect();
        Stage {
            servers,
            old,
            new,
            proxies,
            expected: Databases::new(),
            password: None,
            dir,
        }
    }

    /// The same with servers that all want this password; the proxies know it.
    pub fn with_password(old: &Shape<'_>, new: &Shape<'_>, password: &str) -> Stage {
        let count = 1 + old.2.iter().chain(new.2).max().expect("at least one shard");
        let servers = RedisServer::start_many(count, &["--requirepass", password]);
        let upstream = format!("upstream = {{ password = \"{password}\" }}");
        let mut stage = Stage::with_servers(servers, old, new, 1, &upstream);
        stage.password = Some(password.to_owned());
        stage
    }

    /// A file of the stage's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The journal's directory; the job makes it.
    pub fn state_dir(&self) -> PathBuf {
        self.path("job")
    }

    /// Writes `first` keys through the proxy into database 0, and `second` into
    /// [`SECOND_DB`] directly at the shards where `keyferry route` puts them.
    pub fn preload(&mut self, rng: &mut Rng, first: usize, second: usize) {
        let entries = make_entries(rng, "key:", first);
        write_entries(&mut self.proxies[0].client(), &entries);
        self.expected.insert(0, entries);
        let entries = make_entries(rng, "second:", second);
        let keys: Vec<&Vec<u8>> = entries.keys().collect();
        let mut of_server: HashMap<String, Vec<&Vec<u8>>> = HashMap::new();
        for (key, address) in keys.iter().zip(self.routes("old.toml", &keys)) {
            of_server.entry(address).or_default().push(key);
        }
        for (address, keys) in of_server {
            let mut client = self.select(&address, SECOND_DB);
            write_entries(&mut client, keys.iter().map(|key| (*key, &entries[*key])));
        }
        self.expected.insert(SECOND_DB, entries);
    }

    /// The address of each key's owner, as `keyferry route` tells it for
    /// `old.toml` or `new.toml`.
    pub fn routes<K: AsRef<[u8]>>(&self, config: &str, keys: &[K]) -> Vec<String> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyferry"))
            .args(["route", "-p", Keyferry::POOL, "--hex", "-c"])
            .arg(self.path(config))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary under test");
        let lines: String = keys.iter().map(|key| hex(key.as_ref()) + "\n").collect();
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = child.wait_with_output().expect("our own child");
        writer.join().expect("no panic").expect("stdin is read");
        assert!(output.status.success(), "keyferry route: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("text");
        let routes: Vec<String> = text
            .lines()
            .zip(keys)
            .map(|(line, key)| {
                let fields: Vec<&str> = line.split('\t').collect();
                assert_eq!(fields.len(), 3, "key TAB shard TAB address: {line:?}");
                assert_eq!(fields[0], hex(key.as_ref()), "keys come back in order");
                fields[2].to_owned()
            })
            .collect();
        assert_eq!(routes.len(), keys.len());
        routes
    }

    /// Writers through every proxy, on their own keys: most in database 0, one
    /// in [`SECOND_DB`].
    pub fn start_writers(&self, rng: &mut Rng) -> Vec<(u32, Load)> {
        let mut loads = Vec::new();
        for (number, proxy) in self.proxies.iter().enumerate() {
            let mut config = LoadConfig::new(&proxy.address(), rng.u64(..));
            config.prefix = format!("load:{number}:");
            config.writers = 3;
            config.rate = Some(3_000);
            loads.push((0, Load::start(&config)));
            config.database = SECOND_DB;
            config.seed = rng.u64(..);
            config.writers = 1;
            loads.push((SECOND_DB, Load::start(&config)));
        }
        loads
    }

    /// Lets every load get `more` replies; panics at the first wrong one.
    pub fn let_write(&self, loads: &[(u32, Load)], more: u64) {
        let before: Vec<u64> = loads.iter().map(|(_, load)| load.replies()).collect();
        wait_until("the writers go on", Duration::from_secs(60), || {
            let mut all = loads.iter().zip(&before);
            let ended = loads.iter().any(|(_, load)| load.has_ended());
            ended || all.all(|((_, load), before)| load.replies() >= before + more)
        });
    }

    /// Stops the writers, expects no fault of theirs, and adds their keys to
    /// what the servers must hold.
    pub fn finish_writers(&mut self, loads: Vec<(u32, Load)>) {
        for (db, load) in loads {
            let Outcome { totals, entries } = load.finish();
            println!("writers of database {db}: {totals}");
            assert_eq!((totals.wrong, totals.errors), (0, 0), "{totals}");
            assert!(totals.right > 0, "the writers wrote");
            self.expected.entry(db).or_default().extend(entries);
        }
    }

    /// The words after `reshard VERB` that name this job.
    pub fn job_args(&self) -> Vec<String> {
        let proxy = &self.proxies[0];
        let mut words = vec![
            "-c".to_owned(),
            proxy.config().display().to_string(),
            "-p".to_owned(),
            Keyferry::POOL.to_owned(),
            "--to".to_owned(),
            self.path("layout.toml").display().to_string(),
        ];
        for proxy in &self.proxies {
            words.extend(["--proxy".to_owned(), proxy.admin_url()]);
        }
        words
    }

    /// `reshard start --yes` in the background.
    pub fn start_job(&self, more: &[&str]) -> Job {
        let mut words = self.job_args();
        words.push("--yes".to_owned());
        words.extend(more.iter().map(|word| (*word).to_owned()));
        Job::start(&self.state_dir(), self.dir.path(), &words)
    }

    /// Every proxy has `epoch` and an open gate.
    pub fn assert_epoch(&self, epoch: u64) {
        for proxy in &self.proxies {
            assert_eq!(proxy.epoch_and_gate(), (epoch, "open".to_owned()));
        }
    }

    /// The epoch of the first proxy.
    pub fn epoch(&self) -> u64 {
        self.proxies[0].epoch_and_gate().0
    }

    /// Every expected key is on exactly the server that `layout` (`old.toml` or
    /// `new.toml`) names, holds what it must, and nothing else is anywhere.
    /// With `leftovers`, other servers may hold keys too: copies that were not
    /// purged.
    pub fn check(&self, layout: &str, leftovers: bool) {
        let mut faults = Vec::new();
        for (db, entries) in &self.expected {
            let keys: Vec<&Vec<u8>> = entries.keys().collect();
            let mut wanted: HashMap<String, BTreeSet<Vec<u8>>> = HashMap::new();
            for (key, address) in keys.iter().zip(self.routes(layout, &keys)) {
                wanted.entry(address).or_default().insert((*key).clone());
            }
            for server in &self.servers {
                let address = server.address();
                let wanted = wanted.remove(&address).unwrap_or_default();
                let mut client = self.select(&address, *db);
                let there = all_keys(&mut client);
                for key in wanted.difference(&there) {
                    faults.push(format!(
                        "db {db}: {} is not on {address}",
                        key.escape_ascii()
                    ));
                }
                // A server that left the layout keeps what it had.
                let left = layout == "new.toml" && !self.new.has(&address);
                for key in there.difference(&wanted).filter(|_| !leftovers && !left) {
                    faults.push(format!(
                        "db {db}: {} does not belong on {address}",
                        key.escape_ascii()
                    ));
                }
                let keys: Vec<Vec<u8>> = wanted.intersection(&there).cloned().collect();
                for (key, found) in keys.iter().zip(read_entries(&mut client, &keys)) {
                    let difference = entries[key].difference(found.as_ref());
                    faults.extend(difference.map(|difference| {
                        format!("db {db}: {} on {address} {difference}", key.escape_ascii())
                    }));
                }
            }
            assert!(wanted.is_empty(), "routes to unknown servers: {wanted:?}");
        }
        let shown = faults.len().min(FAULTS_SHOWN);
        assert!(
            faults.is_empty(),
            "{} faults after the job, the first of them:\n{}",
            faults.len(),
            faults[..shown].join("\n")
        );
    }

    fn select(&self, address: &str, db: u32) -> Client {
        let mut client = Client::connect(address);
        if let Some(password) = &self.password {
            client.call(&["AUTH", password]);
        }
        let reply = client.call(&["SELECT", &db.to_string()]);
        assert!(!reply.is_error(), "SELECT {db} at {address}: {reply:?}");
        client
    }

    /// How many users that a job made are on the servers.
    pub fn users_of_jobs(&self) -> usize {
        let on = |server: &RedisServer| {
            let users = server.client().call(&["ACL", "USERS"]);
            let is_ours = |user: &&Value| user.bytes().starts_with(b"keyferry-");
            users.items().iter().filter(is_ours).count()
        };
        self.servers.iter().map(on).sum()
    }

    /// Database 0 on every server, and [`SECOND_DB`], by address: to see that
    /// nothing changed.
    pub fn key_counts(&self) -> BTreeMap<String, [i64; 2]> {
        let count = |address: &str, db| self.select(address, db).call(&["DBSIZE"]).int();
        let servers = self.servers.iter().map(RedisServer::address);
        servers
            .map(|address| {
                let counts = [count(&address, 0), count(&address, SECOND_DB)];
                (address, counts)
            })
            .collect()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
