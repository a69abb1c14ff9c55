//! Sources behind forwarders, one target, a job that copies and follows.
//!
//! ```text
//!   writers ────────────> source ──> forwarder ──> keyferry reshard ──> target
//!                                       ^ is cut, stalled, pointed elsewhere
//! ```
//!
//! Clients of the pool would suffer from a cut, too, so writers go to the source
//! itself; the proxy is only there because a job needs one. Nothing is switched:
//! source and target are compared while the job follows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::contents::read_entries;
use crate::support::keyferry::LayoutText;
use crate::support::load::{Load, LoadConfig, Outcome};
use crate::support::seen::{Keys, Known, differences, read_all};
use crate::support::{Forwarder, Job, Keyferry, RedisServer, wait_until};

/// How long the job may take to get anywhere on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Keys by which every database is compared.
pub const DATABASES: [u32; 2] = [0, 3];

const SHOWN: usize = 10;

/// All servers are of one kind here. What a group has read is not in the stream
/// of 7.0: its own replicas do not know it either.
const KNOWN: Known = Known {
    field_ttls: false,
    stream_counts: false,
};

/// See the head of this file.
pub struct Links {
    /// The old layout.
    pub sources: Vec<RedisServer>,
    /// One in front of each source.
    pub forwarders: Vec<Forwarder>,
    /// The new layout.
    pub target: RedisServer,
    proxy: Keyferry,
    dir: TempDir,
}

impl Links {
    /// `sources` servers with `extra` arguments.
    pub fn new(sources: usize, extra: &[&str]) -> Links {
        let sources = RedisServer::start_many(sources, extra);
        let forwarders: Vec<_> = sources
            .iter()
            .map(|source| Forwarder::start(&source.address()))
            .collect();
        let target = RedisServer::start(extra);
        let addresses: Vec<_> = forwarders.iter().map(Forwarder::address).collect();
        let old = LayoutText::new("fnv1a_64", "ketama", &addresses);
        let mut new = LayoutText::new("fnv1a_64", "ketama", &[target.address()]);
        new.shards[0].name = "new".to_owned();
        let dir = TempDir::with_prefix("keyferry-links-").expect("a temporary directory");
        fs::write(dir.path().join("layout.toml"), new.to_layout_file()).expect("a file");
        Links {
            sources,
            forwarders,
            target,
            proxy: Keyferry::start(&old),
            dir,
        }
    }

    /// A job that copies and follows until it is told more.
    pub fn start_job(&self, more: &[&str]) -> Job {
        let state = self.dir.path().join("job");
        let mut words = vec![
            "-c".to_owned(),
            self.proxy.config().display().to_string(),
            "-p".to_owned(),
            Keyferry::POOL.to_owned(),
            "--to".to_owned(),
            self.dir.path().join("layout.toml").display().to_string(),
            "--proxy".to_owned(),
            self.proxy.admin_url(),
            "--yes".to_owned(),
        ];
        words.extend(["--switch".to_owned(), "manual".to_owned()]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        Job::start(&state, self.dir.path(), &words)
    }

    /// The forwarder's address decides what a source owns, so keys are looked up
    /// by the proxy's layout: which of `count` keys belong to that source.
    pub fn keys_of(&self, source: usize, prefix: &str, count: usize) -> Vec<String> {
        let keys: Vec<_> = (0..count).map(|n| format!("{prefix}{n}")).collect();
        let mut words = vec!["route".into(), "-p".into(), Keyferry::POOL.to_owned()];
        words.extend(["-c".to_owned(), self.proxy.config().display().to_string()]);
        words.push("--".to_owned());
        words.extend(keys.iter().cloned());
        let output = crate::support::keyferry_command(&words);
        assert!(output.status.success(), "{output:?}");
        let address = self.forwarders[source].address();
        let text = String::from_utf8(output.stdout).expect("text");
        let ours = text.lines().zip(keys);
        ours.filter(|(line, _)| line.split('\t').nth(2) == Some(address.as_str()))
            .map(|(_, key)| key)
            .collect()
    }

    /// Writers of everything, INCR, APPEND and RPUSH among it, at one source
    /// that owns all keys.
    pub fn start_writers(&self, server: &RedisServer, prefix: &str, seed: u64) -> Vec<Load> {
        DATABASES
            .iter()
            .map(|db| {
                let mut config = LoadConfig::new(&server.address(), seed.wrapping_add(*db as u64));
                config.prefix = format!("{prefix}{db}:");
                config.database = *db;
                config.writers = 1;
                config.rate = Some(1_500);
                Load::start(&config)
            })
            .collect()
    }

    /// Ends the writers at `source`; returns after the target holds exactly what
    /// they wrote.
    pub fn finish_writers(&self, source: &RedisServer, loads: Vec<Load>) {
        let outcomes: Vec<_> = loads.into_iter().map(Load::finish).collect();
        wait_applied(source);
        for (db, outcome) in DATABASES.iter().zip(outcomes) {
            let Outcome { totals, entries } = outcome;
            assert_eq!((totals.wrong, totals.errors), (0, 0), "{totals}");
            assert!(totals.right > 0, "the writers wrote");
            let mut client = self.target.client();
            client.call(&["SELECT", &db.to_string()]);
            let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
            let mut faults = Vec::new();
            wait_until_none(&mut faults, || {
                let found = read_entries(&mut client, &keys);
                let pairs = entries.iter().zip(found);
                let faults = pairs.filter_map(|((key, entry), found)| {
                    let difference = entry.difference(found.as_ref())?;
                    Some(format!("db {db}: {} {difference}", key.escape_ascii()))
                });
                faults.take(SHOWN).collect()
            });
        }
    }

    /// Returns after every key of `sources` is on the target as it is there, and
    /// nothing else is.
    pub fn wait_equal(&self, sources: &[&RedisServer]) {
        for source in sources {
            wait_applied(source);
        }
        for db in DATABASES {
            let mut faults = Vec::new();
            wait_until_none(&mut faults, || {
                let mut wanted = Keys::new();
                for source in sources {
                    wanted.extend(keys_in(source, db));
                }
                differences(&wanted, &keys_in(&self.target, db), SHOWN)
                    .into_iter()
                    .map(|what| format!("db {db}: {what}"))
                    .collect()
            });
        }
    }

    /// Bytes in spool files of the job.
    pub fn spooled_bytes(&self) -> u64 {
        spool_files_below(self.dir.path())
    }
}

fn keys_in(server: &RedisServer, db: u32) -> Keys {
    let mut client = server.client();
    client.call(&["SELECT", &db.to_string()]);
    read_all(&mut client, KNOWN)
}

/// Looks until there is no fault; at the limit, panics with the last ones.
fn wait_until_none(faults: &mut Vec<String>, mut look: impl FnMut() -> Vec<String>) {
    let began = std::time::Instant::now();
    loop {
        *faults = look();
        if faults.is_empty() {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{}", faults.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn spool_files_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return spool_files_below(&path);
            }
            let is_spool = path.extension().is_some_and(|ext| ext == "spool");
            // A segment may be deleted between the two looks.
            let length = entry.metadata().map_or(0, |found| found.len());
            if is_spool { length } else { 0 }
        })
        .sum()
}

/// A number of INFO.
pub fn number(server: &RedisServer, section: &str, field: &str) -> u64 {
    let text = server.info_field(section, field);
    let text = text.unwrap_or_else(|| panic!("no {field} in INFO {section}"));
    text.parse().expect("a number")
}

/// Waits until the job has acknowledged what the source has written so far, which
/// it does when its target has it. Reading earlier would meet keys half changed.
fn wait_applied(source: &RedisServer) {
    let written = number(source, "replication", "master_repl_offset");
    wait_until("the target has what was written", LIMIT, || {
        let acknowledged = || {
            let line = source.info_field("replication", "slave0")?;
            let offset = line
                .split(',')
                .find_map(|part| part.strip_prefix("offset="));
            offset?.parse::<u64>().ok()
        };
        acknowledged().is_some_and(|offset| offset >= written)
    });
}

/// Full resyncs that this source has given.
pub fn full_syncs(server: &RedisServer) -> u64 {
    number(server, "stats", "sync_full")
}

/// Waits until the source has sent its whole snapshot to one replica.
pub fn wait_snapshot_sent(server: &RedisServer) {
    wait_until("the snapshot is sent", LIMIT, || {
        let replica = server.info_field("replication", "slave0");
        replica.is_some_and(|line| line.contains("state=online"))
    });
}
