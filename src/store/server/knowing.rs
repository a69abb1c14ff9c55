//! What INFO and CONFIG tell of the process and the disk, kept true by the driver.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::oplog::{Identity, fresh_replid};
use crate::store::session::{Facts, OwnFacts, Shard};

use super::keeping::Keeper;
use super::sockets::ListenAt;
use super::starting::StoreOptions;

/// Of /proc/self/statm.
const PAGE_BYTES: u64 = 4096;
/// Of /proc/self/stat.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// What does not change while it runs.
pub(super) fn begin(shard: &mut Shard, options: &StoreOptions, listens_at: &[ListenAt]) {
    let port = listens_at.iter().find_map(|at| match at {
        ListenAt::Tcp(address) => Some(address.port()),
        ListenAt::Unix { .. } => None,
    });
    let socket = listens_at.iter().find_map(|at| match at {
        ListenAt::Tcp(_) => None,
        ListenAt::Unix { path, .. } => Some(path.display().to_string()),
    });
    let system = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    *shard.facts() = Facts {
        run_id: text(&fresh_replid()),
        process_id: std::process::id(),
        tcp_port: port.unwrap_or(0),
        started_at_ms: unix_ms(),
        system: [system.sysname(), system.release(), system.machine()]
            .map(part)
            .join(" "),
        backlog_bytes: options.backlog_bytes,
        dir: options.dir.clone(),
        written_before_bytes: written_bytes().unwrap_or(0),
        ..Facts::default()
    };
    for (name, value) in [
        ("dir", options.dir.display().to_string()),
        ("port", port.unwrap_or(0).to_string()),
        ("unixsocket", socket.unwrap_or_default()),
        ("appendfsync", options.durability.name().to_owned()),
        ("repl-backlog-size", options.backlog_bytes.to_string()),
        ("requirepass", options.password.clone().unwrap_or_default()),
    ] {
        shard.set_fixed_parameter(name, value);
    }
}

/// Whose history it is.
pub(super) fn tell_identity(shard: &mut Shard, keeper: &Keeper) {
    let Identity { replid, replid2 } = keeper.identity();
    let facts = shard.facts();
    facts.replid = text(&replid);
    facts.replid2 = replid2.map(|(id, offset)| (text(&id), offset));
    facts.repl_offset = keeper.end();
    facts.backlog_start = keeper.start();
}

/// What is looked at ten times a second.
pub(super) fn look(shard: &mut Shard, keeper: &Keeper) {
    shard.sample_rates();
    let rows = shard.keyspace().rows().stats();
    let objects = shard.keyspace().cached_bytes();
    let Identity { replid, replid2 } = keeper.identity();
    let facts = shard.facts();
    facts.replid = text(&replid);
    facts.replid2 = replid2.map(|(id, offset)| (text(&id), offset));
    facts.repl_offset = keeper.end();
    facts.backlog_start = keeper.start();
    facts.durability = keeper.durability().name();
    facts.overlay_bytes = rows.overlay_bytes as u64;
    facts.cached_bytes = rows.cache_bytes + objects;
    facts.durable_offset = rows.durable_offset;
    let log = keeper.log().stats();
    facts.disk_bytes = rows.engine.disk_bytes + log.disk_bytes;
    let written = written_bytes().unwrap_or(0);
    facts.own = OwnFacts {
        log_durable_offset: keeper.log().durable(),
        log_segments: log.segments as u64,
        log_disk_bytes: log.disk_bytes,
        log_appended_bytes: keeper.appended_bytes(),
        engine_applied_offset: rows.applied_offset,
        table_disk_bytes: rows.engine.disk_bytes,
        tables: rows.engine.tables as u64,
        level0_runs: rows.engine.l0_runs as u64,
        compactions: rows.engine.compactions as u64,
        disk_free_bytes: free_bytes(&facts.dir).unwrap_or(0),
        generations_waiting: rows.generations_waiting as u64,
        row_cache_bytes: rows.cache_bytes,
        object_cache_bytes: objects,
        block_cache_bytes: rows.engine.cache_bytes,
        memtable_bytes: rows.engine.memtable_bytes,
        sweep_backlog: rows.dead_left as u64,
        process_written_bytes: written.saturating_sub(facts.written_before_bytes),
    };
    facts.resident_bytes = resident_bytes().unwrap_or(0);
    facts.cpu_seconds = cpu_seconds().unwrap_or_default();
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Left on the disk for this user.
fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// What the process made the disk write so far.
fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let mut lines = io.lines();
    let written = lines.find_map(|line| line.strip_prefix("write_bytes: "))?;
    written.parse().ok()
}

/// In the system, as user.
fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, with whatever in it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((system / TICKS_PER_SECOND, user / TICKS_PER_SECOND))
}
