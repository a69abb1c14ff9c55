//! A survey for people: a few lines, then tables.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use crate::rdbfile::survey::{Group, LargeKey, Named, Survey};
use crate::rdbfile::words::encoding_word;

use super::Told;
use super::json::checksum_word;

/// Things named in one line before it says how many more there are.
const NAMED_SHOWN_MAX: usize = 20;

pub(super) fn write(out: &mut impl Write, told: &Told<'_>) -> io::Result<()> {
    let survey = told.survey;
    if told.error.is_some() {
        writeln!(
            out,
            "INCOMPLETE: only the first {} bytes were read",
            told.bytes
        )?;
    }
    writeln!(out, "file       {}, {} bytes", told.file, told.bytes)?;
    if told.behind > 0 {
        writeln!(out, "           {} more bytes behind its end", told.behind)?;
    }
    if let Some(version) = survey.version {
        writeln!(out, "version    {version}")?;
    }
    let checksum = survey.checksum.map_or("not reached", checksum_word);
    writeln!(out, "checksum   {checksum}")?;
    if let Some(at) = survey.created_at_ms.and_then(moment) {
        writeln!(out, "created    {at}")?;
    }
    for (name, seen) in &survey.aux {
        let (name, value) = (name.escape_ascii(), seen.value.escape_ascii());
        match seen.count {
            1 => writeln!(out, "aux        {name} = {value}")?,
            count => writeln!(out, "aux        {name} = {value} (the last of {count})")?,
        }
    }
    write_named(out, "functions ", &survey.functions)?;
    write_named(out, "modules   ", &survey.module_data)?;
    if survey.slots > 0 {
        writeln!(out, "slots      {}", survey.slots)?;
    }
    write_named(out, "imports   ", &survey.slot_imports)?;
    if survey.templates > 0 {
        writeln!(out, "templates  {} of hashes", survey.templates)?;
    }
    write_groups(out, survey)?;
    write_largest(out, "bytes", &survey.largest_by_bytes())?;
    write_largest(out, "elements", &survey.largest_by_elements())
}

fn moment(at_ms: i64) -> Option<impl std::fmt::Display> {
    let since = Duration::from_millis(u64::try_from(at_ms).ok()?);
    let at = UNIX_EPOCH.checked_add(since)?;
    // Years beyond four digits cannot be written.
    (since.as_secs() < YEAR_10000_S).then(|| humantime::format_rfc3339_seconds(at))
}

/// Unix time of the year 10000.
const YEAR_10000_S: u64 = 253_402_300_800;

fn write_named(out: &mut impl Write, title: &str, named: &Named) -> io::Result<()> {
    if named.count == 0 {
        return Ok(());
    }
    let names = named.first.iter().take(NAMED_SHOWN_MAX);
    let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    let more = named.count - names.len() as u64;
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let (count, bytes) = (named.count, named.bytes);
    writeln!(
        out,
        "{title} {count}, {bytes} bytes: {}{more}",
        names.join(", ")
    )
}

fn write_groups(out: &mut impl Write, survey: &Survey) -> io::Result<()> {
    if survey.groups.is_empty() {
        return writeln!(out, "\nno keys");
    }
    let title = [
        "db",
        "type",
        "keys",
        "bytes",
        "expiring",
        "expired at ctime",
        "expired now",
        "encodings",
    ];
    let mut rows = vec![title.map(str::to_owned)];
    let mut total = Group::default();
    for ((db, kind), group) in &survey.groups {
        rows.push(row(&db.to_string(), kind, group, survey));
        total.keys += group.keys;
        total.bytes += group.bytes;
        total.expiring += group.expiring;
        total.expired_at_creation += group.expired_at_creation;
        total.expired_now += group.expired_now;
    }
    rows.push(row("all", "", &total, survey));
    writeln!(out)?;
    table(
        out,
        &rows,
        [false, false, true, true, true, true, true, false],
    )
}

fn row(db: &str, kind: &str, group: &Group, survey: &Survey) -> [String; 8] {
    let encodings: Vec<String> = group
        .encodings
        .iter()
        .map(|(value_type, keys)| format!("{} {keys}", encoding_word(*value_type)))
        .collect();
    // Without a time of creation nobody can say.
    let at_creation = match survey.created_at_ms {
        Some(_) => group.expired_at_creation.to_string(),
        None => "-".to_owned(),
    };
    [
        db.to_owned(),
        kind.to_owned(),
        group.keys.to_string(),
        group.bytes.to_string(),
        group.expiring.to_string(),
        at_creation,
        group.expired_now.to_string(),
        encodings.join(", "),
    ]
}

fn write_largest(out: &mut impl Write, by: &str, keys: &[&LargeKey]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nlargest by {by}")?;
    let title = ["bytes", "elements", "db", "type", "key"];
    let mut rows = vec![title.map(str::to_owned)];
    for key in keys {
        rows.push([
            key.bytes.to_string(),
            key.elements
                .map_or("-".to_owned(), |count| count.to_string()),
            key.db.to_string(),
            key.kind.to_owned(),
            key.key.escape_ascii().to_string(),
        ]);
    }
    table(out, &rows, [true, true, true, false, false])
}

/// Columns as wide as their widest cell; `right` ones end at the same place.
fn table<const N: usize>(
    out: &mut impl Write,
    rows: &[[String; N]],
    right: [bool; N],
) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            if right {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
