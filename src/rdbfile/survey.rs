//! What a file holds, counted while it is read.
//!
//! ```text
//! (db, kind) -> keys, bytes, expiring, expired at ctime and now, encodings
//! aux, functions, module data, slots; the largest keys by bytes and by elements
//! ```
//!
//! Invariants: memory is bounded by the constants below and the number of
//! databases, whatever the file holds; what exceeds a bound is still counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::rdb::{
    Checksum, DecodeError, Element, FileVersion, KeyRecord, LargeKey as LargeKeyRecord, ModuleId,
    PartDecoder, Record, ValueKind, ValuePart, ValueType, decode,
};

use super::facts::KeyFacts;
use super::words::kind_word;

/// Names of aux fields kept; KeyDB writes one field per key, of few names.
const AUX_NAMES_MAX: usize = 256;
/// Bytes of an aux field's name or value kept.
const AUX_BYTES_MAX: usize = 256;
/// Function libraries, modules and slot imports named.
const NAMED_MAX: usize = 1024;
/// Bytes of a key kept.
const KEY_BYTES_MAX: usize = 1024;
/// Largest keys kept, at most.
pub const TOP_MAX: usize = 10_000;

/// Everything counted so far.
#[derive(Debug)]
pub struct Survey {
    now_ms: i64,
    top: usize,
    /// Magic and version; `None` until the header was read.
    pub version: Option<FileVersion>,
    /// Aux fields by name.
    pub aux: BTreeMap<Vec<u8>, AuxSeen>,
    /// When the server wrote the file, Unix time in ms, if it says.
    pub created_at_ms: Option<i64>,
    /// Function libraries.
    pub functions: Named,
    /// Modules' data outside keys.
    pub module_data: Named,
    /// Cluster slots whose sizes are told.
    pub slots: u64,
    /// Imports of slots under way, Valkey.
    pub slot_imports: Named,
    /// Hash templates, Redis 8.10; hashes that go by one are counted as plain ones.
    pub templates: u64,
    /// Keys by database and kind.
    pub groups: BTreeMap<(u32, &'static str), Group>,
    /// Values that break their format.
    pub broken: Broken,
    /// What stood in the place of the file's checksum; `None` if its end was not reached.
    pub checksum: Option<Checksum>,
    largest_bytes: Largest,
    largest_elements: Largest,
    /// The key whose value comes in parts.
    parts: Option<Parts>,
}

/// A value that comes in parts.
#[derive(Debug)]
struct Parts {
    decoder: PartDecoder,
    key: LargeKey,
    type_id: ValueType,
    elements: u64,
    error: Option<DecodeError>,
}

/// How often an aux field stands in the file, and its newest value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AuxSeen {
    /// Times.
    pub count: u64,
    /// The value, cut.
    pub value: Vec<u8>,
}

/// Things with a name and a size.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// The first ones: name and bytes.
    pub first: Vec<(String, u64)>,
}

impl Named {
    fn add(&mut self, name: String, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        if self.first.len() < NAMED_MAX {
            self.first.push((name, bytes as u64));
        }
    }
}

/// Keys of one kind in one database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Keys.
    pub keys: u64,
    /// Bytes of their values as they lie in the file.
    pub bytes: u64,
    /// Keys with an expiry.
    pub expiring: u64,
    /// Among them, expired when the file was written.
    pub expired_at_creation: u64,
    /// Among them, expired now.
    pub expired_now: u64,
    /// Keys of each layout.
    pub encodings: Vec<(ValueType, u64)>,
}

/// Values that could not be decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// How many.
    pub count: u64,
    /// Key and error of the first.
    pub first: Option<(Vec<u8>, String)>,
}

/// A key among the largest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LargeKey {
    /// Its database.
    pub db: u32,
    /// Its name, cut.
    pub key: Vec<u8>,
    /// Its kind.
    pub kind: &'static str,
    /// Bytes of its value in the file.
    pub bytes: u64,
    /// Elements of its value; `None` for strings and modules.
    pub elements: Option<u64>,
}

impl Survey {
    /// Nothing counted yet. `now_ms` is what "expired now" goes by; `top` is
    /// how many of the largest keys are kept, at most [`TOP_MAX`].
    pub fn new(now_ms: i64, top: usize) -> Self {
        let top = top.min(TOP_MAX);
        Self {
            now_ms,
            top,
            version: None,
            aux: BTreeMap::new(),
            created_at_ms: None,
            functions: Named::default(),
            module_data: Named::default(),
            slots: 0,
            slot_imports: Named::default(),
            templates: 0,
            groups: BTreeMap::new(),
            broken: Broken::default(),
            checksum: None,
            largest_bytes: Largest::default(),
            largest_elements: Largest::default(),
            parts: None,
        }
    }

    /// The largest keys by bytes, largest first.
    pub fn largest_by_bytes(&self) -> Vec<&LargeKey> {
        self.largest_bytes.sorted()
    }

    /// The largest keys by elements, largest first.
    pub fn largest_by_elements(&self) -> Vec<&LargeKey> {
        self.largest_elements.sorted()
    }

    /// Counts one record.
    pub fn add(&mut self, record: &Record<'_>) {
        match record {
            Record::Header(version) => self.version = Some(*version),
            Record::Aux { key, value } => self.aux(key, value),
            Record::SelectDb(_) | Record::ResizeDb { .. } => {}
            Record::Function(source) => {
                self.functions.add(library_name(source), source.len());
            }
            Record::ModuleAux(bytes) => {
                let name = ModuleId::of(bytes).map(|id| id.to_string());
                self.module_data.add(name.unwrap_or_default(), bytes.len());
            }
            Record::SlotInfo { .. } => self.slots += 1,
            Record::HashTemplate { .. } => self.templates += 1,
            Record::SlotImport { job, ranges } => {
                let ranges: Vec<String> = ranges
                    .iter()
                    .map(|range| format!("{}-{}", range.first, range.last))
                    .collect();
                let name = format!("{} slots {}", job.escape_ascii(), ranges.join(","));
                self.slot_imports.add(name, 0);
            }
            Record::Key(key) => self.key(key),
            Record::LargeKey(key) => self.large(key),
            Record::Part(part) => self.part(part),
            Record::End { checksum } => self.checksum = Some(*checksum),
        }
    }

    fn aux(&mut self, key: &[u8], value: &[u8]) {
        if key == b"ctime" {
            let seconds = std::str::from_utf8(value).ok();
            let seconds: Option<i64> = seconds.and_then(|text| text.parse().ok());
            self.created_at_ms = seconds.and_then(|seconds| seconds.checked_mul(1000));
        }
        let mut name = cut(key, AUX_BYTES_MAX);
        if self.aux.len() >= AUX_NAMES_MAX && !self.aux.contains_key(&name) {
            name = b"(others)".to_vec();
        }
        let seen = self.aux.entry(name).or_default();
        seen.count += 1;
        seen.value = cut(value, AUX_BYTES_MAX);
    }

    fn key(&mut self, record: &KeyRecord<'_>) {
        let facts = KeyFacts::from(record);
        let bytes = record.value.bytes.len() as u64;
        self.count(&facts);
        let mut elements = 0;
        let decoded = decode(&record.value, &mut |element| {
            elements += u64::from(is_item(&element));
        });
        let large = || large_key(&facts, bytes);
        self.finish(
            facts.db,
            facts.type_id,
            bytes,
            elements,
            decoded.err(),
            large,
        );
    }

    fn large(&mut self, record: &LargeKeyRecord<'_>) {
        let facts = KeyFacts::from(record);
        self.count(&facts);
        self.parts = Some(Parts {
            decoder: PartDecoder::new(facts.type_id),
            key: large_key(&facts, 0),
            type_id: facts.type_id,
            elements: 0,
            error: None,
        });
    }

    fn part(&mut self, part: &ValuePart<'_>) {
        let Some(mut parts) = self.parts.take() else {
            return;
        };
        parts.key.bytes += part.bytes.len() as u64;
        if parts.error.is_none() {
            let elements = &mut parts.elements;
            let decoded = parts.decoder.decode(part.bytes, part.last, &mut |element| {
                *elements += u64::from(is_item(&element));
            });
            parts.error = decoded.err();
        }
        if !part.last {
            self.parts = Some(parts);
            return;
        }
        let (db, bytes) = (parts.key.db, parts.key.bytes);
        let large = || parts.key.clone();
        self.finish(db, parts.type_id, bytes, parts.elements, parts.error, large);
    }

    /// All of a value was seen.
    fn finish(
        &mut self,
        db: u32,
        type_id: ValueType,
        bytes: u64,
        elements: u64,
        error: Option<DecodeError>,
        large: impl Fn() -> LargeKey,
    ) {
        let kind = type_id.kind();
        self.groups.entry((db, kind_word(kind))).or_default().bytes += bytes;
        if let Some(error) = error {
            self.broken.count += 1;
            let first = || (large().key, error.to_string());
            self.broken.first.get_or_insert_with(first);
        }
        let elements = match kind {
            ValueKind::String | ValueKind::Module | ValueKind::RateLimiter => None,
            _ => Some(elements),
        };
        let large = || LargeKey {
            elements,
            ..large()
        };
        self.largest_bytes.offer(self.top, bytes, large);
        if let Some(elements) = elements {
            self.largest_elements.offer(self.top, elements, large);
        }
    }

    fn count(&mut self, facts: &KeyFacts<'_>) {
        let kind = facts.type_id.kind();
        let group = self.groups.entry((facts.db, kind_word(kind))).or_default();
        group.keys += 1;
        if let Some(at_ms) = facts.expires_at_ms {
            group.expiring += 1;
            group.expired_now += u64::from(at_ms <= self.now_ms);
            let created = self.created_at_ms;
            group.expired_at_creation += u64::from(created.is_some_and(|now| at_ms <= now));
        }
        let mut known = group.encodings.iter_mut();
        match known.find(|(known, _)| *known == facts.type_id) {
            Some((_, keys)) => *keys += 1,
            None => group.encodings.push((facts.type_id, 1)),
        }
    }
}

fn large_key(facts: &KeyFacts<'_>, bytes: u64) -> LargeKey {
    LargeKey {
        db: facts.db,
        key: cut(facts.key, KEY_BYTES_MAX),
        kind: kind_word(facts.type_id.kind()),
        bytes,
        elements: None,
    }
}

/// Whether an element is what LLEN, SCARD, ZCARD, HLEN or XLEN counts.
fn is_item(element: &Element<'_>) -> bool {
    matches!(
        element,
        Element::ListItem(_)
            | Element::SetMember(_)
            | Element::ScoredMember { .. }
            | Element::HashField { .. }
            | Element::StreamEntry { .. }
            | Element::ArrayItem { .. }
    )
}

fn cut(bytes: &[u8], max: usize) -> Vec<u8> {
    bytes.iter().take(max).copied().collect()
}

/// The name in a library's first line, `#!lua name=mylib`.
pub fn library_name(source: &[u8]) -> String {
    let line = source.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let line = String::from_utf8_lossy(line.get(..AUX_BYTES_MAX).unwrap_or(line)).into_owned();
    let name = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("name="));
    name.unwrap_or("(no name)").to_owned()
}

/// The `top` keys of the largest sizes.
#[derive(Debug, Default)]
struct Largest(BinaryHeap<Reverse<(u64, LargeKey)>>);

impl Largest {
    fn offer(&mut self, top: usize, size: u64, key: impl FnOnce() -> LargeKey) {
        let smallest = self.0.peek().map(|Reverse((size, _))| *size);
        let full = self.0.len() >= top;
        if top == 0 || full && smallest.is_some_and(|smallest| size <= smallest) {
            return;
        }
        if full {
            self.0.pop();
        }
        self.0.push(Reverse((size, key())));
    }

    fn sorted(&self) -> Vec<&LargeKey> {
        let mut keys: Vec<_> = self.0.iter().map(|Reverse(entry)| entry).collect();
        keys.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        keys.into_iter().map(|(_, key)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::rdb::RawValue;

    fn list(key: &[u8], items: u8, expires_at_ms: Option<i64>) -> (Vec<u8>, Vec<u8>, Option<i64>) {
        let mut bytes = vec![items];
        for _ in 0..items {
            bytes.extend_from_slice(b"\x01x");
        }
        (key.to_vec(), bytes, expires_at_ms)
    }

    fn survey(top: usize, lists: &[(Vec<u8>, Vec<u8>, Option<i64>)]) -> Survey {
        let mut survey = Survey::new(10_000, top);
        survey.add(&Record::Aux {
            key: Cow::Borrowed(b"ctime"),
            value: Cow::Borrowed(b"5"),
        });
        for (key, bytes, expires_at_ms) in lists {
            survey.add(&Record::Key(KeyRecord {
                db: 1,
                key: Cow::Borrowed(key),
                expires_at_ms: *expires_at_ms,
                idle_s: None,
                freq: None,
                metadata: None,
                value: RawValue {
                    type_id: ValueType::List,
                    bytes,
                },
            }));
        }
        survey
    }

    #[test]
    fn expiry_is_counted_against_the_files_time_and_now() {
        let survey = survey(
            0,
            &[
                list(b"a", 1, None),
                list(b"b", 1, Some(4_999)),
                list(b"c", 1, Some(5_001)),
                list(b"d", 1, Some(10_001)),
            ],
        );
        let group = &survey.groups[&(1, "list")];
        assert_eq!((group.keys, group.bytes, group.expiring), (4, 12, 3));
        assert_eq!((group.expired_at_creation, group.expired_now), (1, 2));
        assert!(survey.largest_by_bytes().is_empty());
    }

    #[test]
    fn the_largest_keys_stay_and_broken_values_are_told() {
        let mut lists: Vec<_> = (1..60).map(|n| list(&[n], n, None)).collect();
        lists.push((b"bad".to_vec(), b"\x02\x01x".to_vec(), None));
        let survey = survey(3, &lists);
        let elements: Vec<_> = survey
            .largest_by_elements()
            .iter()
            .map(|key| key.elements)
            .collect();
        assert_eq!(elements, [Some(59), Some(58), Some(57)]);
        assert_eq!(survey.largest_by_bytes()[0].bytes, 1 + 59 * 2);
        assert_eq!(survey.broken.count, 1);
        assert_eq!(survey.broken.first.as_ref().unwrap().0, b"bad");
    }

    #[test]
    fn libraries_are_named_by_their_first_line() {
        assert_eq!(library_name(b"#!lua name=mylib\nreturn 1"), "mylib");
        assert_eq!(library_name(b""), "(no name)");
    }
}
