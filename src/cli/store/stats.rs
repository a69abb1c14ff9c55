//! `keyferry store stats`: what a shard holds, and how it is.
//!
//! A shard that runs is asked; one that nobody serves is opened for it, as a start does, and
//! closed again.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::shard::{Shard, ShardArgs, help_of};
use crate::cli::exit::ExitStatus;
use crate::cli::output::{fail, finish, stdout, write_json};
use crate::config::{BACKLOG_BYTES_DEFAULT, MEMORY_BYTES_DEFAULT};
use crate::store::commands::Settings;
use crate::store::server::{Durability, StartFault, StoreOptions, info_of};
use crate::store::stats::{ShardStats, StatsError, ask};

/// Arguments of `keyferry store stats`.
#[derive(Debug, clap::Args)]
pub struct StatsArgs {
    #[command(flatten)]
    shard: ShardArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `keyferry store stats`.
pub fn run(args: &StatsArgs) -> ExitStatus {
    let looked = match args.shard.find() {
        Ok(Shard::Runs(target)) => ask(&target, &AtomicBool::new(false))
            .map_err(|error| complain(args.shard.name(), &error)),
        Ok(Shard::Rests(dir)) => look_into(args.shard.name(), &dir),
        Err(status) => Err(status),
    };
    let (stats, runs) = match looked {
        Ok(stats) => {
            let runs = stats.clients > 0;
            (stats, runs)
        }
        Err(status) => return status,
    };
    let mut out = stdout();
    let written = match args.json {
        true => write_json(
            &mut out,
            &json!({ "v": 1, "shard": args.shard.name(), "runs": runs, "stats": stats }),
        ),
        false => write_text(&mut out, args.shard.name(), &stats, runs),
    };
    finish(out, written, ExitStatus::Done)
}

fn complain(name: &str, error: &StatsError) -> ExitStatus {
    match error {
        StatsError::Client(error) => {
            fail(&error.to_string(), help_of(error));
            match error.is_temporary() {
                true => ExitStatus::TryAgain,
                false => ExitStatus::Failed,
            }
        }
        StatsError::Foreign(_) => {
            fail(
                &format!("{name}: {error}"),
                "ask that server itself: redis-cli INFO",
            );
            ExitStatus::Failed
        }
    }
}

fn look_into(name: &str, dir: &Path) -> Result<ShardStats, ExitStatus> {
    let options = StoreOptions {
        dir: dir.to_owned(),
        listen: Vec::new(),
        durability: Durability::No,
        memory_bytes: MEMORY_BYTES_DEFAULT,
        backlog_bytes: BACKLOG_BYTES_DEFAULT,
        password: None,
        settings: Settings::default(),
        replicaof: None,
    };
    let text = info_of(&options).map_err(|error| {
        fail(&error.to_string(), error.help());
        match error.fault() {
            StartFault::InUse => ExitStatus::AlreadyRuns,
            StartFault::Refused => ExitStatus::Refused,
            StartFault::Settings | StartFault::Machine => ExitStatus::Failed,
        }
    })?;
    ShardStats::of_info(&text).map_err(|error| complain(name, &error))
}

fn write_text(out: &mut impl Write, name: &str, stats: &ShardStats, runs: bool) -> io::Result<()> {
    let (log, engine, disk, memory) = (&stats.log, &stats.engine, &stats.disk, &stats.memory);
    match runs {
        true => writeln!(
            out,
            "shard     {name}: {}, keyferry {}, up {} s, durability {}",
            role(&stats.role),
            stats.version,
            stats.uptime_s,
            stats.durability
        )?,
        false => writeln!(out, "shard     {name}: nobody serves it")?,
    }
    if let Some(master) = &stats.master {
        let is_up = if master.is_up {
            "its stream comes"
        } else {
            "not connected"
        };
        writeln!(out, "master    {}, {is_up}", master.address)?;
    }
    if stats.health != "good" {
        writeln!(out, "health    no writes: {}", stats.health)?;
    }
    for of in &stats.databases {
        writeln!(out, "db{:<8}{} keys, {} expire", of.db, of.keys, of.expires)?;
    }
    if stats.databases.is_empty() {
        writeln!(out, "keys      none")?;
    }
    writeln!(
        out,
        "log       offsets {} to {}, durable to {}; {} segments, {} appended since the start",
        log.start_offset,
        log.end_offset,
        log.durable_offset,
        log.segments,
        size(log.appended_bytes)
    )?;
    writeln!(
        out,
        "engine    has the log to {}, durably to {}; {} tables, {} runs in level 0, {} compactions",
        engine.applied_offset,
        engine.durable_offset,
        engine.tables,
        engine.level0_runs,
        engine.compactions
    )?;
    writeln!(
        out,
        "disk      {}: log {}, tables {}; {} free",
        size(disk.bytes),
        size(disk.log_bytes),
        size(disk.table_bytes),
        size(disk.free_bytes)
    )?;
    writeln!(
        out,
        "memory    {} resident; on its way to the engine {}, memtables {}; cached objects {}, rows {}, blocks {}",
        size(memory.resident_bytes),
        size(memory.overlay_bytes),
        size(memory.memtable_bytes),
        size(memory.object_cache_bytes),
        size(memory.row_cache_bytes),
        size(memory.block_cache_bytes)
    )?;
    writeln!(
        out,
        "writes    {} by the process since the start, {:.2} for each byte of the log",
        size(engine.process_written_bytes),
        engine.write_amplification
    )?;
    writeln!(
        out,
        "sweeper   {} deleted objects whose rows are not all gone",
        engine.sweep_backlog
    )?;
    for replica in &stats.replicas {
        writeln!(
            out,
            "replica   {}, {}, {} bytes behind, heard {} s ago",
            replica.address, replica.state, replica.behind_bytes, replica.lag_s
        )?;
    }
    writeln!(out, "history   {}", stats.replid)
}

fn role(role: &str) -> &str {
    match role {
        "slave" => "replica",
        other => other,
    }
}

fn size(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}
