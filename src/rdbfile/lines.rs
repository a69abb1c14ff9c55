//! A key of a file -> one line of JSON, written as its value is decoded.
//!
//! ```text
//! {"db":0,"key":K,"type":"zset","encoding":"zset_2","expires_at_ms":1,"idle_s":1,"freq":1,"value":V}
//! string  K or {"base64":..}      list, set   [item, ..]
//! zset    [{"member":M,"score":1.5}, ..]      highest score first in most files
//! hash    [{"field":F,"value":V,"expires_at_ms":1}, ..]
//! module  {"base64":..}           with "module" and "module_version" before it
//! array   {"inserted_at":1, "items":[{"index":3,"value":V}, ..]}      gcra   a number
//! stream  {"entries":[{"id":"1-1","fields":[[F,V], ..]}, ..], "length":.., "last_id":..,
//!          "groups":[{"name":.., "consumers":[{"name":.., "pending":[..]}], "nacked":[..], "unowned":[..]}],
//!          "idempotence":{.., "produced":[{"producer":.., "request":.., "id":..}], ..}}
//! ```
//!
//! A value that comes in parts is written part by part; a string among them is
//! always base64, since nobody knows yet whether all of it will be UTF-8.
//!
//! Lists of pairs instead of objects: fields are any bytes, and stand twice in
//! stream entries. Absent attributes have no member. A value that breaks its
//! format ends where it does: what is open is closed, and `"error"` says why.

use std::io::{self, Write};

use crate::rdb::{
    DecodeError, Element, KeyRecord, LargeKey, ModuleId, PartDecoder, StreamId, ValueKind,
    ValuePart, decode,
};

use super::facts::KeyFacts;
use super::json::{Base64, Emitter};
use super::words::{encoding_word, kind_word};

/// Open brackets inside a value that is an object.
const VALUE_DEPTH: usize = 2;
/// Open brackets inside a stream's `groups`.
const GROUPS_DEPTH: usize = VALUE_DEPTH + 1;
const GROUP_DEPTH: usize = GROUPS_DEPTH + 1;
const CONSUMERS_DEPTH: usize = GROUP_DEPTH + 1;

/// How much of a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All of it.
    Whole,
    /// No `value`.
    KeyOnly,
}

/// Writes keys as lines.
#[derive(Debug)]
pub struct LineWriter<W> {
    json: Emitter<W>,
    detail: Detail,
    /// The list behind a group's consumers that is open.
    tail: Option<&'static str>,
    /// The value at hand, while it comes in parts.
    parts: Option<Parts>,
    /// What encodes the string or module value at hand.
    base64: Option<Base64>,
    broken: u64,
}

/// A value that comes in parts.
#[derive(Debug)]
struct Parts {
    decoder: PartDecoder,
    /// Where it broke its format; what follows is not read.
    error: Option<DecodeError>,
}

impl<W: Write> LineWriter<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W, detail: Detail) -> Self {
        Self {
            json: Emitter::new(out),
            detail,
            tail: None,
            parts: None,
            base64: None,
            broken: 0,
        }
    }

    /// Lines written with an `error`.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// The output.
    pub fn into_inner(self) -> W {
        self.json.into_inner()
    }

    /// Writes the line of one key.
    ///
    /// # Errors
    /// The output's.
    pub fn key(&mut self, record: &KeyRecord<'_>) -> io::Result<()> {
        self.begin(&record.into(), Some(record.value.bytes));
        if self.detail == Detail::Whole {
            self.begin_value(record.value.type_id.kind());
            let decoded = decode(&record.value, &mut |element| self.element(element));
            self.end_value(decoded.err());
        }
        self.json.end_line();
        self.json.check()
    }

    /// Begins the line of a key whose value comes in parts.
    ///
    /// # Errors
    /// The output's.
    pub fn large(&mut self, record: &LargeKey<'_>) -> io::Result<()> {
        self.begin(&record.into(), None);
        if self.detail == Detail::KeyOnly {
            self.json.end_line();
            return self.json.check();
        }
        let kind = record.type_id.kind();
        self.begin_value(kind);
        if matches!(kind, ValueKind::String | ValueKind::Module) {
            self.json.begin_base64();
            self.base64 = Some(Base64::default());
        }
        self.parts = Some(Parts {
            decoder: PartDecoder::new(record.type_id),
            error: None,
        });
        self.json.check()
    }

    /// Writes more of it, and ends the line with the last part.
    ///
    /// # Errors
    /// The output's.
    pub fn part(&mut self, part: &ValuePart<'_>) -> io::Result<()> {
        // A line without its value ended with its head.
        let Some(mut parts) = self.parts.take() else {
            return Ok(());
        };
        if parts.error.is_none() {
            let decoded = parts
                .decoder
                .decode(part.bytes, part.last, &mut |element| self.element(element));
            parts.error = decoded.err();
        }
        if part.last {
            if let Some(encoder) = self.base64.take() {
                self.json.end_base64(encoder);
            }
            self.end_value(parts.error);
            self.json.end_line();
        } else {
            self.parts = Some(parts);
        }
        self.json.check()
    }

    /// Ends a line whose value the file does not hold to its end.
    ///
    /// # Errors
    /// The output's.
    pub fn cut_off(&mut self, why: &str) -> io::Result<()> {
        if self.parts.take().is_some() {
            if let Some(encoder) = self.base64.take() {
                self.json.end_base64(encoder);
            }
            self.json.close_to(1);
            self.json.name("error");
            self.json.text(why);
            self.json.end_line();
        }
        self.json.check()
    }

    fn end_value(&mut self, error: Option<DecodeError>) {
        self.json.close_to(1);
        if let Some(error) = error {
            self.broken += 1;
            self.json.name("error");
            self.json.text(&error.to_string());
        }
    }

    fn begin(&mut self, record: &KeyFacts<'_>, value: Option<&[u8]>) {
        let value_type = record.type_id;
        self.json.object();
        self.number("db", record.db);
        self.json.name("key");
        self.json.bytes(record.key);
        self.json.name("type");
        self.json.text(kind_word(value_type.kind()));
        self.json.name("encoding");
        self.json.text(encoding_word(value_type));
        self.optional("expires_at_ms", record.expires_at_ms);
        self.optional("idle_s", record.idle_s);
        self.optional("freq", record.freq);
        if let Some(metadata) = record.metadata {
            self.json.name("metadata");
            self.json.base64_bytes(metadata);
        }
        if value_type.kind() == ValueKind::Module
            && let Some(id) = value.and_then(ModuleId::of)
        {
            self.json.name("module");
            self.json.text(&id.to_string());
            self.number("module_version", id.encoding_version());
        }
    }

    fn begin_value(&mut self, kind: ValueKind) {
        self.json.name("value");
        match kind {
            ValueKind::String | ValueKind::Module | ValueKind::RateLimiter => {}
            ValueKind::Array => self.json.object(),
            ValueKind::List | ValueKind::Set | ValueKind::SortedSet | ValueKind::Hash => {
                self.json.array();
            }
            ValueKind::Stream => {
                self.json.object();
                self.json.name("entries");
                self.json.array();
            }
        }
    }

    fn element(&mut self, element: Element<'_>) {
        match element {
            Element::StringPart(bytes) | Element::Module(bytes) if self.base64.is_some() => {
                if let Some(encoder) = &mut self.base64 {
                    self.json.base64(encoder, bytes);
                }
            }
            Element::String(bytes) | Element::ListItem(bytes) | Element::SetMember(bytes) => {
                self.json.bytes(bytes);
            }
            Element::Module(bytes) => self.json.base64_bytes(bytes),
            Element::RateLimiter(state) => self.json.literal(state),
            Element::ArrayCursor { inserted_at } => self.number("inserted_at", inserted_at),
            Element::ArrayItem { index, value } => {
                if self.json.depth() == VALUE_DEPTH {
                    self.json.name("items");
                    self.json.array();
                }
                self.json.object();
                self.number("index", index);
                self.bytes("value", value);
                self.json.close();
            }
            Element::ScoredMember { member, score } => {
                self.json.object();
                self.bytes("member", member);
                self.json.name("score");
                self.json.score(score);
                self.json.close();
            }
            Element::HashField {
                field,
                value,
                expires_at_ms,
            } => {
                self.json.object();
                self.bytes("field", field);
                self.bytes("value", value);
                self.optional("expires_at_ms", expires_at_ms);
                self.json.close();
            }
            stream_part => self.stream(stream_part),
        }
    }

    fn stream(&mut self, element: Element<'_>) {
        match element {
            Element::StreamEntry { id, fields } => {
                self.json.object();
                self.id("id", id);
                self.json.name("fields");
                self.json.array();
                for (name, value) in fields {
                    self.json.array();
                    self.json.bytes(name);
                    self.json.bytes(value);
                    self.json.close();
                }
                self.json.close();
                self.json.close();
            }
            Element::StreamState {
                length,
                last_id,
                counters,
            } => {
                self.json.close();
                self.number("length", length);
                self.id("last_id", last_id);
                if let Some(counters) = counters {
                    self.id("first_id", counters.first_id);
                    self.id("max_deleted_id", counters.max_deleted_id);
                    self.number("entries_added", counters.entries_added);
                }
                self.json.name("groups");
                self.json.array();
            }
            Element::StreamIdempotence {
                duration_s,
                entries_max,
            } => {
                self.json.close_to(VALUE_DEPTH);
                self.json.name("idempotence");
                self.json.object();
                self.number("duration_s", duration_s);
                self.number("entries_max", entries_max);
                self.json.name("produced");
                self.json.array();
            }
            Element::StreamProduced {
                producer,
                request,
                id,
            } => {
                self.json.object();
                self.bytes("producer", producer);
                self.bytes("request", request);
                self.id("id", id);
                self.json.close();
            }
            Element::StreamProducedCounters { added, duplicates } => {
                self.json.close_to(VALUE_DEPTH + 1);
                self.number("added", added);
                self.number("duplicates", duplicates);
            }
            group_part => self.group(group_part),
        }
    }

    fn group(&mut self, element: Element<'_>) {
        match element {
            Element::StreamGroup {
                group,
                last_id,
                entries_read,
            } => {
                self.json.close_to(GROUPS_DEPTH);
                self.tail = None;
                self.json.object();
                self.bytes("name", group);
                self.id("last_id", last_id);
                self.optional("entries_read", entries_read);
                self.json.name("consumers");
                self.json.array();
            }
            Element::StreamConsumer {
                consumer,
                seen_at_ms,
                active_at_ms,
                ..
            } => {
                self.json.close_to(CONSUMERS_DEPTH);
                self.json.object();
                self.bytes("name", consumer);
                self.number("seen_at_ms", seen_at_ms);
                self.optional("active_at_ms", active_at_ms);
                self.json.name("pending");
                self.json.array();
            }
            Element::StreamPending {
                consumer,
                id,
                delivered_at_ms,
                deliveries,
                ..
            } => {
                if consumer.is_none() {
                    self.open_tail("unowned");
                }
                self.pending(id, delivered_at_ms, deliveries);
            }
            Element::StreamNacked {
                id,
                delivered_at_ms,
                deliveries,
                ..
            } => {
                self.open_tail("nacked");
                self.pending(id, delivered_at_ms, deliveries);
            }
            // The other kinds were written by the callers.
            _ => {}
        }
    }

    /// Opens a list behind a group's consumers, if it is not the open one.
    fn open_tail(&mut self, name: &'static str) {
        if self.tail.replace(name) != Some(name) {
            self.json.close_to(GROUP_DEPTH);
            self.json.name(name);
            self.json.array();
        }
    }

    fn pending(&mut self, id: StreamId, delivered_at_ms: i64, deliveries: u64) {
        self.json.object();
        self.id("id", id);
        self.number("delivered_at_ms", delivered_at_ms);
        self.number("deliveries", deliveries);
        self.json.close();
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.json.name(name);
        self.json.bytes(bytes);
    }

    fn number(&mut self, name: &str, number: impl std::fmt::Display) {
        self.json.name(name);
        self.json.literal(number);
    }

    fn optional(&mut self, name: &str, number: Option<impl std::fmt::Display>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    fn id(&mut self, name: &str, id: StreamId) {
        self.json.name(name);
        self.json.text(&id.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::rdb::{RawValue, ValueType};

    fn line(type_id: ValueType, bytes: &[u8], detail: Detail) -> (String, u64) {
        let mut lines = LineWriter::new(Vec::new(), detail);
        lines
            .key(&KeyRecord {
                db: 3,
                key: Cow::Borrowed(b"k\xff"),
                expires_at_ms: Some(5),
                idle_s: None,
                freq: Some(9),
                metadata: None,
                value: RawValue { type_id, bytes },
            })
            .unwrap();
        let broken = lines.broken();
        (String::from_utf8(lines.into_inner()).unwrap(), broken)
    }

    #[test]
    fn a_line_has_the_key_its_attributes_and_its_value() {
        let head = r#"{"db":3,"key":{"base64":"a/8="},"type":"list","encoding":"list","expires_at_ms":5,"freq":9"#;
        let list = b"\x02\x01a\xc0\x07";
        let whole = line(ValueType::List, list, Detail::Whole);
        assert_eq!(whole, (format!("{head},\"value\":[\"a\",\"7\"]}}\n"), 0));
        let short = line(ValueType::List, list, Detail::KeyOnly);
        assert_eq!(short, (format!("{head}}}\n"), 0));
    }

    #[test]
    fn a_broken_value_is_a_whole_line_that_says_so() {
        let (text, broken) = line(
            ValueType::Zset2,
            b"\x02\x01a\0\0\0\0\0\0\xf8\x3f",
            Detail::Whole,
        );
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(broken, 1);
        assert_eq!(object["value"][0]["score"], 1.5);
        assert!(object["error"].as_str().unwrap().contains("malformed"));
    }
}
