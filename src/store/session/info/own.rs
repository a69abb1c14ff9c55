//! INFO's section `Keyferry`: what only such a shard has, and `keyferry store stats` shows.

use super::Lines;
use crate::store::session::shard::{Health, Shard};

/// What is told of the log, the engine and the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnFacts {
    /// What of the log survives a power loss.
    pub log_durable_offset: u64,
    /// Its files that hold frames.
    pub log_segments: u64,
    /// Bytes of its files, those for later among them.
    pub log_disk_bytes: u64,
    /// Effects written to it since the start.
    pub log_appended_bytes: u64,
    /// What of the log the engine has.
    pub engine_applied_offset: u64,
    /// The engine's tables.
    pub table_disk_bytes: u64,
    /// How many they are.
    pub tables: u64,
    /// Runs of tables that every read looks through.
    pub level0_runs: u64,
    /// Compactions that run now.
    pub compactions: u64,
    /// Left on the disk for this user.
    pub disk_free_bytes: u64,
    /// Generations of the overlay that wait for the engine.
    pub generations_waiting: u64,
    /// Cached rows.
    pub row_cache_bytes: u64,
    /// Cached objects.
    pub object_cache_bytes: u64,
    /// Cached blocks of tables.
    pub block_cache_bytes: u64,
    /// Rows of the engine that are in no table yet.
    pub memtable_bytes: u64,
    /// Deleted objects and emptied databases whose rows are not all gone.
    pub sweep_backlog: u64,
    /// What the process made the disk write since the start.
    pub process_written_bytes: u64,
}

impl OwnFacts {
    /// Bytes written to the disk for each byte of effects; 0 before the first.
    fn write_amplification(&self) -> f64 {
        match self.log_appended_bytes {
            0 => 0.0,
            appended => self.process_written_bytes as f64 / appended as f64,
        }
    }
}

impl Shard {
    pub(super) fn own_section(&mut self, out: &mut Lines<'_>) {
        let (facts, own) = (&self.facts, self.facts.own);
        out.head("Keyferry");
        out.line("keyferry_version", env!("CARGO_PKG_VERSION"));
        out.line("durability", facts.durability);
        let health = match &self.health {
            Health::Good => "good",
            Health::NoWrites(reason) => reason,
        };
        out.line("health", health);
        for (name, value) in [
            ("log_start_offset", facts.backlog_start),
            ("log_end_offset", facts.repl_offset),
            ("log_durable_offset", own.log_durable_offset),
            ("engine_applied_offset", own.engine_applied_offset),
            ("engine_durable_offset", facts.durable_offset),
            ("disk_bytes", facts.disk_bytes),
            ("disk_free_bytes", own.disk_free_bytes),
            ("log_disk_bytes", own.log_disk_bytes),
            ("log_segments", own.log_segments),
            ("table_disk_bytes", own.table_disk_bytes),
            ("tables", own.tables),
            ("level0_runs", own.level0_runs),
            ("compactions", own.compactions),
            ("overlay_bytes", facts.overlay_bytes),
            ("generations_waiting", own.generations_waiting),
            ("memtable_bytes", own.memtable_bytes),
            ("cached_bytes", facts.cached_bytes),
            ("row_cache_bytes", own.row_cache_bytes),
            ("object_cache_bytes", own.object_cache_bytes),
            ("block_cache_bytes", own.block_cache_bytes),
            ("sweep_backlog", own.sweep_backlog),
            ("log_appended_bytes", own.log_appended_bytes),
            ("process_written_bytes", own.process_written_bytes),
        ] {
            out.line(name, value);
        }
        let amplification = own.write_amplification();
        out.line("write_amplification", format_args!("{amplification:.2}"));
    }

    /// All that INFO tells.
    pub fn info_text(&mut self) -> String {
        self.sections_text(&super::SECTIONS)
    }
}
