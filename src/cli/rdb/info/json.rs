//! A survey as one JSON object. Names that are no UTF-8 are
//! `{"base64":..}`, as in `keyferry rdb cat`.

use std::io::{self, Write};

use crate::rdb::{Checksum, Magic};
use crate::rdbfile::json::Emitter;
use crate::rdbfile::source::FileError;
use crate::rdbfile::survey::{Group, LargeKey, Named};
use crate::rdbfile::words::encoding_word;

use super::Told;

pub(super) fn write(out: &mut impl Write, told: &Told<'_>) -> io::Result<()> {
    let survey = told.survey;
    let mut json = Emitter::new(out);
    json.object();
    number(&mut json, "v", 1);
    text(&mut json, "file", told.file);
    number(&mut json, "complete", told.error.is_none());
    if let Some(error) = told.error {
        json.name("error");
        write_error(&mut json, error);
    }
    number(&mut json, "bytes", told.bytes);
    number(&mut json, "bytes_behind_end", told.behind);
    if let Some(version) = survey.version {
        let magic = match version.magic() {
            Magic::Redis => "REDIS",
            Magic::Valkey => "VALKEY",
        };
        text(&mut json, "magic", magic);
        number(&mut json, "rdb_version", version.number());
    }
    if let Some(checksum) = survey.checksum {
        text(&mut json, "checksum", checksum_word(checksum));
    }
    if let Some(at_ms) = survey.created_at_ms {
        number(&mut json, "created_at_ms", at_ms);
    }
    json.name("aux");
    json.array();
    for (name, seen) in &survey.aux {
        json.object();
        json.name("name");
        json.bytes(name);
        json.name("value");
        json.bytes(&seen.value);
        number(&mut json, "count", seen.count);
        json.close();
    }
    json.close();
    named(&mut json, "functions", &survey.functions);
    named(&mut json, "module_data", &survey.module_data);
    number(&mut json, "slots", survey.slots);
    named(&mut json, "slot_imports", &survey.slot_imports);
    number(&mut json, "hash_templates", survey.templates);
    json.name("groups");
    json.array();
    for ((db, kind), group) in &survey.groups {
        write_group(&mut json, *db, kind, group);
    }
    json.close();
    largest(&mut json, "largest_by_bytes", &survey.largest_by_bytes());
    largest(
        &mut json,
        "largest_by_elements",
        &survey.largest_by_elements(),
    );
    number(&mut json, "broken_values", survey.broken.count);
    json.end_line();
    json.check()
}

pub(super) fn checksum_word(checksum: Checksum) -> &'static str {
    match checksum {
        Checksum::Absent => "absent",
        Checksum::Zero => "zero",
        Checksum::Verified => "verified",
    }
}

fn write_error<W: Write>(json: &mut Emitter<W>, error: &FileError) {
    json.object();
    text(json, "message", &error.to_string());
    match error {
        FileError::Read { offset, .. } => number(json, "offset", offset),
        FileError::Scan(error) => {
            number(json, "offset", error.offset);
            if let Some(opcode) = error.opcode {
                number(json, "opcode", opcode);
            }
            json.name("last_key");
            json.bytes(&error.last_key);
        }
    }
    json.close();
}

fn write_group<W: Write>(json: &mut Emitter<W>, db: u32, kind: &str, group: &Group) {
    json.object();
    number(json, "db", db);
    text(json, "type", kind);
    number(json, "keys", group.keys);
    number(json, "bytes", group.bytes);
    number(json, "expiring", group.expiring);
    number(json, "expired_at_creation", group.expired_at_creation);
    number(json, "expired_now", group.expired_now);
    json.name("encodings");
    json.object();
    for (value_type, keys) in &group.encodings {
        number(json, encoding_word(*value_type), keys);
    }
    json.close();
    json.close();
}

fn named<W: Write>(json: &mut Emitter<W>, name: &str, named: &Named) {
    json.name(name);
    json.object();
    number(json, "count", named.count);
    number(json, "bytes", named.bytes);
    json.name("first");
    json.array();
    for (name, bytes) in &named.first {
        json.object();
        text(json, "name", name);
        number(json, "bytes", bytes);
        json.close();
    }
    json.close();
    json.close();
}

fn largest<W: Write>(json: &mut Emitter<W>, name: &str, keys: &[&LargeKey]) {
    json.name(name);
    json.array();
    for key in keys {
        json.object();
        number(json, "db", key.db);
        json.name("key");
        json.bytes(&key.key);
        text(json, "type", key.kind);
        number(json, "bytes", key.bytes);
        if let Some(elements) = key.elements {
            number(json, "elements", elements);
        }
        json.close();
    }
    json.close();
}

fn number<W: Write>(json: &mut Emitter<W>, name: &str, number: impl std::fmt::Display) {
    json.name(name);
    json.literal(number);
}

fn text<W: Write>(json: &mut Emitter<W>, name: &str, text: &str) {
    json.name(name);
    json.text(text);
}
