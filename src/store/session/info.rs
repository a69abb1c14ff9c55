//! INFO: what tools read of a shard, under the names they know.
//!
//! Fields that this server has nothing for are told as an idle Redis tells them, because
//! tools expect them; the section `Keyferry` has what is our own.

mod own;

use std::fmt::Write;
use std::path::PathBuf;

pub use own::OwnFacts;

use crate::store::commands::{Args, Failure};
use crate::store::keyspace::DATABASES;

use super::client::ClientId;
use super::connection::REDIS_VERSION;
use super::shard::{Health, Role, Shard};

/// What the driver knows and a shard does not; the driver keeps it true.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Forty hex digits, of this run.
    pub run_id: String,
    /// Of the process.
    pub process_id: u32,
    /// Where clients connect; 0 for none.
    pub tcp_port: u16,
    /// When it started, Unix ms.
    pub started_at_ms: u64,
    /// `uname`.
    pub system: String,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: u64,
    /// CPU seconds of the process: in the system, as user.
    pub cpu_seconds: (f64, f64),
    /// Its history.
    pub replid: String,
    /// The one before, and up to which offset that is valid.
    pub replid2: Option<(String, u64)>,
    /// End of its stream.
    pub repl_offset: u64,
    /// Oldest offset of it that it has.
    pub backlog_start: u64,
    /// How much of it is kept at least, in bytes.
    pub backlog_bytes: u64,
    /// Those that follow it.
    pub replicas: Vec<ReplicaFacts>,
    /// Whom it follows.
    pub master: Option<MasterFacts>,
    /// Full and partial syncs that it gave, and partial ones that it could not.
    pub syncs: (u64, u64, u64),
    /// As `appendfsync`.
    pub durability: &'static str,
    /// Bytes of rows that are not in the engine yet.
    pub overlay_bytes: u64,
    /// Bytes of rows and objects that are cached.
    pub cached_bytes: u64,
    /// Bytes of files.
    pub disk_bytes: u64,
    /// End of what the engine has durably.
    pub durable_offset: u64,
    /// What the process had made the disk write before it began.
    pub written_before_bytes: u64,
    /// Where its files are.
    pub dir: PathBuf,
    /// What only such a shard has.
    pub own: OwnFacts,
}

/// A replica of this shard.
#[derive(Clone, Debug, Default)]
pub struct ReplicaFacts {
    /// Its number among the clients.
    pub id: ClientId,
    /// Where it connected from.
    pub address: String,
    /// Where it connected to.
    pub local_address: String,
    /// When it connected, Unix ms.
    pub connected_at_ms: u64,
    /// Whose rights it had when it asked for the stream.
    pub user: String,
    /// Where it can be reached.
    pub ip: String,
    /// The port that it told.
    pub port: u16,
    /// `wait_bgsave`, `send_bulk`, `online`.
    pub state: &'static str,
    /// What it has acknowledged.
    pub offset: u64,
    /// Seconds since it last did.
    pub lag_s: u64,
}

/// The master of this shard.
#[derive(Clone, Debug, Default)]
pub struct MasterFacts {
    /// Where it is.
    pub host: String,
    /// Where it is.
    pub port: u16,
    /// `connect`, `connecting`, `sync` or `connected`, as ROLE tells.
    pub state: &'static str,
    /// Whether its stream is being followed.
    pub is_up: bool,
    /// Seconds since anything came from it.
    pub last_io_s: i64,
    /// A full sync is under way.
    pub is_syncing: bool,
    /// Seconds since it was lost.
    pub down_since_s: i64,
    /// What was read from it.
    pub read_offset: u64,
}

/// Sections in the order of `INFO everything`; those before the bar are the default.
const SECTIONS: [&str; 13] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "keyspace",
    "keyferry",
    "commandstats",
];
const DEFAULT_SECTIONS: usize = 12;

impl Shard {
    /// The driver's knowledge, to be kept true.
    pub fn facts(&mut self) -> &mut Facts {
        &mut self.facts
    }

    pub(super) fn info(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let mut wanted: Vec<&str> = Vec::new();
        if args.len() == 1 {
            wanted.extend(&SECTIONS[..DEFAULT_SECTIONS]);
        }
        for number in 1..args.len() {
            if args.is(number, "default") {
                wanted.extend(&SECTIONS[..DEFAULT_SECTIONS]);
            } else if args.is(number, "all") || args.is(number, "everything") {
                wanted.extend(SECTIONS);
            } else {
                wanted.extend(SECTIONS.iter().filter(|section| args.is(number, section)));
            }
        }
        let text = self.sections_text(&wanted);
        self.clients[key].reply.verbatim(&text);
        Ok(())
    }

    fn sections_text(&mut self, wanted: &[&str]) -> String {
        let mut text = String::new();
        for section in SECTIONS {
            if wanted.contains(&section) {
                if !text.is_empty() {
                    text.push_str("\r\n");
                }
                self.section(section, &mut text);
            }
        }
        text
    }

    fn section(&mut self, section: &str, text: &mut String) {
        let mut out = Lines(text);
        match section {
            "server" => self.server_section(&mut out),
            "clients" => self.clients_section(&mut out),
            "memory" => self.memory_section(&mut out),
            "persistence" => self.persistence_section(&mut out),
            "stats" => self.stats_section(&mut out),
            "replication" => self.replication_section(&mut out),
            "cpu" => {
                out.head("CPU");
                let (system, user) = self.facts.cpu_seconds;
                out.line("used_cpu_sys", format_args!("{system:.6}"));
                out.line("used_cpu_user", format_args!("{user:.6}"));
                out.line("used_cpu_sys_children", "0.000000");
                out.line("used_cpu_user_children", "0.000000");
            }
            "modules" => out.head("Modules"),
            "errorstats" => {
                out.head("Errorstats");
                for (word, count) in &self.stats.by_error {
                    out.line(&format!("errorstat_{word}"), format_args!("count={count}"));
                }
            }
            "cluster" => {
                out.head("Cluster");
                out.line("cluster_enabled", 0);
            }
            "keyspace" => self.keyspace_section(&mut out),
            "keyferry" => self.own_section(&mut out),
            _ => self.commands_section(&mut out),
        }
    }

    fn server_section(&mut self, out: &mut Lines<'_>) {
        let facts = &self.facts;
        let now_ms = self.keyspace.now_ms();
        let up_s = now_ms.saturating_sub(facts.started_at_ms) / 1000;
        out.head("Server");
        out.line("redis_version", REDIS_VERSION);
        out.line("redis_git_sha1", "00000000");
        out.line("redis_git_dirty", 0);
        out.line("redis_build_id", "0");
        out.line("redis_mode", "standalone");
        out.line("os", &facts.system);
        out.line("arch_bits", usize::BITS);
        out.line("multiplexing_api", "epoll");
        out.line("process_id", facts.process_id);
        out.line("process_supervised", "no");
        out.line("run_id", &facts.run_id);
        out.line("tcp_port", facts.tcp_port);
        out.line("server_time_usec", now_ms * 1000);
        out.line("uptime_in_seconds", up_s);
        out.line("uptime_in_days", up_s / 86_400);
        out.line("hz", self.parameters.value("hz"));
        out.line("configured_hz", self.parameters.value("hz"));
        out.line("lru_clock", (now_ms / 1000) & 0xff_ffff);
        out.line("executable", "");
        out.line("config_file", "");
        out.line("io_threads_active", 0);
    }

    fn clients_section(&mut self, out: &mut Lines<'_>) {
        let blocked = self
            .clients
            .iter()
            .filter(|(_, client)| client.waiting.is_some());
        let blocked = blocked.count();
        out.head("Clients");
        out.line("connected_clients", self.clients.len());
        out.line("cluster_connections", 0);
        out.line("maxclients", self.parameters.value("maxclients"));
        out.line("client_recent_max_input_buffer", 0);
        out.line("client_recent_max_output_buffer", 0);
        out.line("blocked_clients", blocked);
        out.line("tracking_clients", 0);
        out.line("clients_in_timeout_table", 0);
    }

    fn memory_section(&mut self, out: &mut Lines<'_>) {
        let facts = &self.facts;
        let used = facts.overlay_bytes + facts.cached_bytes;
        let resident = facts.resident_bytes;
        out.head("Memory");
        out.line("used_memory", used);
        out.line("used_memory_human", human(used));
        out.line("used_memory_rss", resident);
        out.line("used_memory_rss_human", human(resident));
        out.line("used_memory_peak", used);
        out.line("used_memory_peak_human", human(used));
        out.line("used_memory_peak_perc", "100.00%");
        out.line("used_memory_overhead", 0);
        out.line("used_memory_startup", 0);
        out.line("used_memory_dataset", used);
        out.line("used_memory_dataset_perc", "100.00%");
        out.line("total_system_memory", 0);
        out.line("total_system_memory_human", "0B");
        self.scripts.counts().tell(&mut |name, value| {
            out.line(name, value);
        });
        let maxmemory = u64::try_from(self.parameters.number("maxmemory")).unwrap_or(0);
        out.line("maxmemory", maxmemory);
        out.line("maxmemory_human", human(maxmemory));
        out.line(
            "maxmemory_policy",
            self.parameters.value("maxmemory-policy"),
        );
        let ratio = resident as f64 / used.max(1) as f64;
        out.line("allocator_frag_ratio", "1.00");
        out.line("mem_fragmentation_ratio", format_args!("{ratio:.2}"));
        out.line("mem_fragmentation_bytes", resident.saturating_sub(used));
        out.line("mem_not_counted_for_evict", 0);
        out.line("mem_replication_backlog", 0);
        out.line("mem_clients_slaves", 0);
        out.line("mem_clients_normal", 0);
        out.line("mem_aof_buffer", 0);
        out.line("mem_allocator", "system");
        out.line("active_defrag_running", 0);
        out.line("lazyfree_pending_objects", 0);
        out.line("lazyfreed_objects", 0);
    }

    fn persistence_section(&mut self, out: &mut Lines<'_>) {
        out.head("Persistence");
        out.line("loading", 0);
        out.line("async_loading", 0);
        out.line("rdb_changes_since_last_save", 0);
        out.line("rdb_bgsave_in_progress", 0);
        out.line("rdb_last_save_time", self.facts.started_at_ms / 1000);
        out.line("rdb_last_bgsave_status", "ok");
        out.line("rdb_last_bgsave_time_sec", -1);
        out.line("rdb_current_bgsave_time_sec", -1);
        out.line("rdb_saves", 0);
        out.line("rdb_last_cow_size", 0);
        out.line("aof_enabled", 1);
        out.line("aof_rewrite_in_progress", 0);
        out.line("aof_rewrite_scheduled", 0);
        out.line("aof_last_rewrite_time_sec", -1);
        out.line("aof_current_rewrite_time_sec", -1);
        out.line("aof_last_bgrewrite_status", "ok");
        let is_good = self.health == Health::Good;
        out.line("aof_last_write_status", if is_good { "ok" } else { "err" });
        out.line("aof_last_cow_size", 0);
    }

    fn stats_section(&mut self, out: &mut Lines<'_>) {
        let (stats, rates) = (&self.stats, self.stats.rates());
        let (full, partial, refused) = self.facts.syncs;
        out.head("Stats");
        out.line("total_connections_received", stats.connections);
        out.line("total_commands_processed", stats.commands);
        out.line(
            "instantaneous_ops_per_sec",
            format_args!("{:.0}", rates.commands),
        );
        out.line("total_net_input_bytes", stats.input_bytes);
        out.line("total_net_output_bytes", stats.output_bytes);
        out.line("total_net_repl_input_bytes", 0);
        out.line("total_net_repl_output_bytes", 0);
        out.line(
            "instantaneous_input_kbps",
            format_args!("{:.2}", rates.input_kib),
        );
        out.line(
            "instantaneous_output_kbps",
            format_args!("{:.2}", rates.output_kib),
        );
        out.line("rejected_connections", 0);
        out.line("sync_full", full);
        out.line("sync_partial_ok", partial);
        out.line("sync_partial_err", refused);
        out.line("expired_keys", self.keyspace.expired);
        out.line("expired_stale_perc", "0.00");
        out.line("expired_time_cap_reached_count", 0);
        out.line("evicted_keys", 0);
        out.line("keyspace_hits", self.keyspace.hits);
        out.line("keyspace_misses", self.keyspace.misses);
        let (channels, patterns, sharded) = self.channels.counts();
        out.line("pubsub_channels", channels);
        out.line("pubsub_patterns", patterns);
        out.line("pubsubshard_channels", sharded);
        out.line("latest_fork_usec", 0);
        out.line("total_forks", 0);
        out.line("migrate_cached_sockets", 0);
        out.line("slave_expires_tracked_keys", 0);
        out.line("active_defrag_hits", 0);
        out.line("active_defrag_misses", 0);
        out.line("active_defrag_key_hits", 0);
        out.line("active_defrag_key_misses", 0);
        out.line("tracking_total_keys", 0);
        out.line("unexpected_error_replies", 0);
        out.line("total_error_replies", stats.errors);
        out.line("total_reads_processed", 0);
        out.line("total_writes_processed", 0);
    }

    fn replication_section(&mut self, out: &mut Lines<'_>) {
        let facts = &self.facts;
        out.head("Replication");
        match (self.role, &facts.master) {
            (Role::Replica, Some(master)) => {
                out.line("role", "slave");
                out.line("master_host", &master.host);
                out.line("master_port", master.port);
                out.line(
                    "master_link_status",
                    if master.is_up { "up" } else { "down" },
                );
                out.line("master_last_io_seconds_ago", master.last_io_s);
                out.line("master_sync_in_progress", u8::from(master.is_syncing));
                out.line("slave_read_repl_offset", master.read_offset);
                out.line("slave_repl_offset", facts.repl_offset);
                if !master.is_up {
                    out.line("master_link_down_since_seconds", master.down_since_s);
                }
                out.line("slave_priority", self.parameters.value("replica-priority"));
                out.line("slave_read_only", 1);
                let is_announced = self.parameters.value("replica-announced") == "yes";
                out.line("replica_announced", u8::from(is_announced));
            }
            _ => out.line("role", "master"),
        }
        out.line("connected_slaves", facts.replicas.len());
        for (number, replica) in facts.replicas.iter().enumerate() {
            out.line(
                &format!("slave{number}"),
                format_args!(
                    "ip={},port={},state={},offset={},lag={}",
                    replica.ip, replica.port, replica.state, replica.offset, replica.lag_s
                ),
            );
        }
        let none = "0000000000000000000000000000000000000000";
        let (replid2, second) = match &facts.replid2 {
            // Redis counts the byte behind the last valid one.
            Some((id, offset)) => (id.as_str(), i64::try_from(*offset + 1).unwrap_or(i64::MAX)),
            None => (none, -1),
        };
        out.line("master_failover_state", "no-failover");
        out.line("master_replid", &facts.replid);
        out.line("master_replid2", replid2);
        out.line("master_repl_offset", facts.repl_offset);
        out.line("second_repl_offset", second);
        out.line("repl_backlog_active", 1);
        out.line("repl_backlog_size", facts.backlog_bytes);
        out.line("repl_backlog_first_byte_offset", facts.backlog_start + 1);
        out.line(
            "repl_backlog_histlen",
            facts.repl_offset - facts.backlog_start.min(facts.repl_offset),
        );
    }

    fn keyspace_section(&mut self, out: &mut Lines<'_>) {
        out.head("Keyspace");
        for db in 0..DATABASES {
            let (keys, expires) = (
                self.keyspace.key_count(db),
                self.keyspace.expiring_count(db),
            );
            if keys > 0 {
                out.line(
                    &format!("db{db}"),
                    format_args!("keys={keys},expires={expires},avg_ttl=0"),
                );
            }
        }
    }

    fn commands_section(&mut self, out: &mut Lines<'_>) {
        out.head("Commandstats");
        let mut commands: Vec<_> = self.stats.commands_seen().collect();
        commands.sort_by_key(|(name, _)| *name);
        for (name, of) in commands {
            let each = of.us as f64 / of.calls.max(1) as f64;
            out.line(
                &format!("cmdstat_{name}"),
                format_args!(
                    "calls={},usec={},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                    of.calls, of.us, of.rejected, of.failed
                ),
            );
        }
    }

    pub(super) fn reset_stats(&mut self) {
        self.stats = super::stats::Stats::default();
        self.keyspace.hits = 0;
        self.keyspace.misses = 0;
        self.keyspace.expired = 0;
        self.facts.syncs = (0, 0, 0);
    }

    /// Ten times a second: what is done a second is counted.
    pub fn sample_rates(&mut self) {
        let now_ms = self.keyspace.now_ms();
        self.stats.sample(now_ms);
    }

    /// Bytes that went over sockets.
    pub fn note_traffic(&mut self, input_bytes: usize, output_bytes: usize) {
        self.stats.input_bytes += input_bytes as u64;
        self.stats.output_bytes += output_bytes as u64;
    }
}

struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn head(&mut self, section: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# {section}\r\n");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

/// As Redis writes sizes for people.
fn human(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", value / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.2}M", value / 1_048_576.0),
        _ => format!("{:.2}G", value / 1_073_741_824.0),
    }
}
