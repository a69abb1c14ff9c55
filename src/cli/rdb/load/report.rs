//! The summary of a load.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::output::write_json;
use crate::rdbfile::load::{NotLoaded, Report};

/// One thing that was not loaded.
pub(super) fn line(not_loaded: &NotLoaded) -> String {
    let NotLoaded {
        what,
        name,
        target,
        why,
        ..
    } = not_loaded;
    let db = not_loaded.db.map(|db| format!(" (db {db})"));
    format!(
        "not loaded: {what} `{name}`{} on {target}: {why}",
        db.unwrap_or_default()
    )
}

pub(super) fn write_text(out: &mut impl Write, report: &Report, took: Duration) -> io::Result<()> {
    for not_loaded in &report.not_loaded {
        writeln!(out, "{}", line(not_loaded))?;
    }
    for (loss, (keys, example)) in &report.lost {
        writeln!(
            out,
            "loaded without {loss}: {keys} keys, such as `{example}`"
        )?;
    }
    if report.module_records > 0 {
        let records = report.module_records;
        writeln!(
            out,
            "not loaded: {records} records of modules outside keys: no command sets them"
        )?;
    }
    let seconds = took.as_secs_f64();
    writeln!(
        out,
        "loaded {} of {} keys, {} bytes, in {seconds:.1} s: {:.0} keys/s, {:.1} MB/s",
        report.loaded,
        report.keys_read,
        report.bytes,
        per_second(report.loaded, seconds),
        per_second(report.bytes, seconds) / 1e6,
    )?;
    let rest = [
        (report.unwanted, "left out by the filters"),
        (report.expired, "expired, not sent"),
        (report.empty, "empty, as servers leave them out"),
        (report.existing, "there already, left as they were"),
        (report.not_loaded_count, "not loaded"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "  {count} {what}")?;
    }
    if report.libraries + report.scripts > 0 {
        let (libraries, scripts) = (report.libraries, report.scripts);
        writeln!(
            out,
            "  function libraries {libraries}, scripts {scripts} (on all targets together)"
        )?;
    }
    Ok(())
}

fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-3)
}

pub(super) fn write_object(
    out: &mut impl Write,
    report: &Report,
    took: Duration,
    error: Option<&str>,
) -> io::Result<()> {
    let not_loaded: Vec<Value> = report
        .not_loaded
        .iter()
        .map(|not_loaded| {
            json!({"what": not_loaded.what, "db": not_loaded.db, "name": not_loaded.name,
                   "target": not_loaded.target.to_string(), "why": not_loaded.why})
        })
        .collect();
    let lost: Vec<Value> = report
        .lost
        .iter()
        .map(|(loss, (keys, example))| {
            json!({"what": loss.to_string(), "keys": keys, "example": example})
        })
        .collect();
    let object = json!({
        "v": 1,
        "error": error,
        "seconds": took.as_secs_f64(),
        "keys_read": report.keys_read,
        "loaded": report.loaded,
        "bytes": report.bytes,
        "unwanted": report.unwanted,
        "expired": report.expired,
        "empty": report.empty,
        "existing": report.existing,
        "libraries": report.libraries,
        "scripts": report.scripts,
        "module_records": report.module_records,
        "not_loaded_count": report.not_loaded_count,
        "not_loaded": not_loaded,
        "lost": lost,
    });
    write_json(out, &object)
}
