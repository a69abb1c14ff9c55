//! Files of many servers and years, listed with source and licence in
//! `tests/fixtures/rdb/fixtures.tsv`: each is scanned to the end or to where
//! the list says that it stops, in pieces of any size, and what is decoded
//! agrees with other people's decoders.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Cursor;
use std::path::PathBuf;

use keyferry::rdb::{
    self, Checksum, ContentDigest, Element, FileVersion, RawValue, Record, ScanError,
    ScanErrorKind, Scanner, ScannerLimits, StreamId, ValueKind, ValueType, content_digest,
    split_dump_payload, write_dump_payload,
};
use serde_json::{Map, Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb")
}

/// A row of `fixtures.tsv`.
struct Fixture {
    name: String,
    bytes: Vec<u8>,
    holds: String,
    notes: String,
}

fn fixtures() -> Vec<Fixture> {
    let table = std::fs::read_to_string(folder().join("fixtures.tsv")).unwrap();
    let fixtures: Vec<_> = table
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            Fixture {
                name: columns[0].to_owned(),
                bytes: std::fs::read(folder().join(columns[0])).unwrap(),
                holds: columns[7].to_owned(),
                notes: columns[8].to_owned(),
            }
        })
        .collect();
    assert!(fixtures.len() > 70, "the list is there");
    fixtures
}

/// A record without its borrow, so that two scans compare.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Key {
        db: u32,
        key: Vec<u8>,
        expires_at_ms: Option<i64>,
        rest: String,
        value: OwnedValue,
    },
    End(Checksum),
    Other(&'static str, String),
}

#[derive(Clone, Debug, PartialEq)]
struct OwnedValue {
    type_id: ValueType,
    bytes: Vec<u8>,
}

impl OwnedValue {
    fn raw(&self) -> RawValue<'_> {
        RawValue {
            type_id: self.type_id,
            bytes: &self.bytes,
        }
    }
}

fn see(record: &Record<'_>) -> Seen {
    let name = match record {
        Record::Key(key) => {
            return Seen::Key {
                db: key.db,
                key: key.key.to_vec(),
                expires_at_ms: key.expires_at_ms,
                rest: format!("{:?} {:?} {:?}", key.idle_s, key.freq, key.metadata),
                value: OwnedValue {
                    type_id: key.value.type_id,
                    bytes: key.value.bytes.to_vec(),
                },
            };
        }
        Record::End { checksum } => return Seen::End(*checksum),
        Record::Header(_) => "HEADER",
        Record::Aux { .. } => "AUX",
        Record::SelectDb(_) => "SELECTDB",
        Record::ResizeDb { .. } => "RESIZEDB",
        Record::Function(_) => "FUNCTION2",
        Record::ModuleAux(_) => "MODULE_AUX",
        Record::SlotInfo { .. } => "SLOT_INFO",
        Record::SlotImport { .. } => "SLOT_IMPORT",
        Record::HashTemplate { .. } => "HASH_TEMPLATE",
        Record::LargeKey(_) | Record::Part(_) => panic!("by default no value comes in parts"),
    };
    Seen::Other(name, format!("{record:?}"))
}

/// Scans `bytes`, which come in pieces that end at `ends` and at the end.
fn scan(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> (Vec<Seen>, Option<ScanError>) {
    let mut scanner = Scanner::new(ScannerLimits::default());
    let mut seen = Vec::new();
    let mut start = 0;
    for end in ends.into_iter().chain([bytes.len()]) {
        loop {
            match scanner.next(&bytes[start..end]) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    seen.push(see(&event.record));
                    start += event.consumed;
                    if matches!(event.record, Record::End { .. }) {
                        return (seen, None);
                    }
                }
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

fn keys(seen: &[Seen]) -> impl Iterator<Item = (u32, &[u8], Option<i64>, &OwnedValue)> {
    seen.iter().filter_map(|record| match record {
        Seen::Key {
            db,
            key,
            expires_at_ms,
            value,
            ..
        } => Some((*db, &key[..], *expires_at_ms, value)),
        _ => None,
    })
}

/// `0:string x2,18:quicklist2 x3` as counts by type.
fn held(text: &str) -> BTreeMap<u8, usize> {
    text.split(',')
        .filter(|part| *part != "no keys")
        .map(|part| {
            let (type_byte, rest) = part.split_once(':').unwrap();
            let (_, count) = rest.rsplit_once('x').unwrap();
            (type_byte.parse().unwrap(), count.parse().unwrap())
        })
        .collect()
}

/// Opcodes that give a record of their own.
const RECORD_NAMES: [&str; 7] = [
    "AUX",
    "SELECTDB",
    "RESIZEDB",
    "FUNCTION2",
    "MODULE_AUX",
    "SLOT_INFO",
    "SLOT_IMPORT",
];

#[test]
fn every_fixture_scans_as_the_list_says() {
    for Fixture {
        name,
        bytes,
        holds,
        notes,
    } in fixtures()
    {
        let (seen, error) = scan(&bytes, []);
        if name.contains("rdb987") {
            assert_eq!(error.unwrap().kind, ScanErrorKind::Header, "{name}");
            continue;
        }
        let mut counts = BTreeMap::new();
        for (_, _, _, value) in keys(&seen) {
            *counts.entry(value.type_id.byte()).or_insert(0) += 1;
        }
        assert_eq!(counts, held(&holds), "{name}");
        match error.map(|error| (error.kind, error.offset)) {
            Some((ScanErrorKind::Checksum { .. }, _)) => {
                assert!(notes.contains("crc=BAD"), "{name}");
            }
            Some((ScanErrorKind::Unknown(_), offset)) => {
                let byte = bytes[usize::try_from(offset).unwrap()];
                assert!(
                    notes.contains(&format!("unknown type {byte} ")),
                    "{name} at {offset}"
                );
            }
            Some((kind, offset)) => panic!("{name}: {kind} at {offset}"),
            None => {
                let expected = match seen.last() {
                    Some(Seen::End(Checksum::Verified)) => "crc=ok",
                    Some(Seen::End(Checksum::Zero)) => "crc=zero",
                    Some(Seen::End(Checksum::Absent)) => "no crc field",
                    other => panic!("{name} ends with {other:?}"),
                };
                assert!(notes.contains(expected), "{name}");
            }
        }
        let opcodes = notes.split(';').next().unwrap().trim_start_matches("ops:");
        let listed: BTreeSet<_> = opcodes
            .split('+')
            // Handed on as the libraries that they are since.
            .map(|name| match name {
                "FUNCTION_PRE_GA" => "FUNCTION2",
                name => name,
            })
            .filter(|name| RECORD_NAMES.contains(name))
            .collect();
        let found: BTreeSet<_> = seen
            .iter()
            .filter_map(|record| match record {
                Seen::Other(name, _) if *name != "HEADER" => Some(*name),
                _ => None,
            })
            .collect();
        assert_eq!(found, listed, "{name}");
    }
}

#[test]
fn pieces_of_any_size_give_the_same_records() {
    for Fixture { name, bytes, .. } in fixtures() {
        let whole = scan(&bytes, []);
        assert!(scan(&bytes, 0..bytes.len()) == whole, "{name} byte by byte");
        assert!(
            scan(&bytes, (0..bytes.len()).step_by(97)) == whole,
            "{name} in pieces of 97"
        );
        if bytes.len() < 2500 {
            for split in 0..bytes.len() {
                assert!(scan(&bytes, [split]) == whole, "{name} split at {split}");
            }
        }
    }
}

#[test]
fn every_value_decodes_or_is_a_known_bad_one() {
    let mut kinds = BTreeSet::new();
    for Fixture { name, bytes, .. } in fixtures() {
        for (_, key, _, value) in keys(&scan(&bytes, []).0) {
            let digest = content_digest(&value.raw());
            let digest = digest.unwrap_or_else(|error| panic!("{name} {key:?}: {error}"));
            let may_be_empty =
                name == "redis__corrupt_empty_keys.rdb" || digest.kind == ValueKind::Stream;
            assert!(digest.length > 0 || may_be_empty, "{name} {key:?}");
            kinds.insert(value.type_id.byte());

            let mut payload = Vec::new();
            write_dump_payload(&mut payload, &value.raw()).unwrap();
            let (split, version) = split_dump_payload(&payload).unwrap();
            assert_eq!(split, value.raw(), "{name}");
            assert_eq!(version, value.type_id.lowest_version());
        }
    }
    let expected: BTreeSet<u8> = [
        0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 24, 25,
    ]
    .into();
    assert_eq!(kinds, expected);
}

#[test]
fn hand_made_files_scan_or_stop_at_what_is_unknown() {
    for (name, stop) in [
        ("v1_expiretime_seconds_zset_str", None),
        ("v9_len64_lua_freq_idle", None),
        ("v9_stream_type15_groups_pel_deleted", None),
        ("v10_stream_type19_groups_pel_deleted", None),
        ("v11_stream_type21_groups_pel_deleted", None),
        ("v12_hfe_22_23_24_25_slotinfo", None),
        ("valkey080_hash2_slotimport", None),
        ("v13_stream_type26_groups_pel_deleted", None),
        ("v14_stream_type27_groups_pel_deleted", None),
        ("v14_array28_keymeta243", None),
        ("v15_hash_templates_242_29_30_31_32", None),
    ] {
        let bytes = std::fs::read(folder().join(format!("synthetic/{name}.rdb"))).unwrap();
        let whole = scan(&bytes, []);
        for split in 0..bytes.len() {
            assert!(scan(&bytes, [split]) == whole, "{name} split at {split}");
        }
        match (&whole.1, stop) {
            (None, None) => {}
            (Some(error), Some(byte)) => {
                assert_eq!(error.opcode, Some(byte), "{name}");
                assert!(matches!(error.kind, ScanErrorKind::Unknown(_)), "{name}");
                let at = usize::try_from(error.offset).unwrap();
                assert_eq!(bytes[at], byte, "{name}: the offset is that of the opcode");
            }
            (error, _) => panic!("{name}: {error:?}"),
        }
        for (_, key, _, value) in keys(&whole.0) {
            content_digest(&value.raw()).unwrap_or_else(|error| panic!("{name} {key:?}: {error}"));
        }
    }
}

fn synthetic_value(file: &str, key: &[u8]) -> OwnedValue {
    let bytes = std::fs::read(folder().join("synthetic").join(file)).unwrap();
    let (seen, _) = scan(&bytes, []);
    let found = keys(&seen).find(|(_, name, ..)| *name == key);
    found
        .unwrap_or_else(|| panic!("{file} has {key:?}"))
        .3
        .clone()
}

#[test]
fn field_expiries_are_the_same_moment_in_every_layout_of_hashes() {
    const AT_MS: i64 = 4_102_444_800_000;
    let file = "v12_hfe_22_23_24_25_slotinfo.rdb";
    let fields = |value: &OwnedValue| {
        let mut fields = BTreeMap::new();
        rdb::decode(&value.raw(), &mut |element| match element {
            Element::HashField {
                field,
                value,
                expires_at_ms,
            } => {
                fields.insert(text(field), (text(value), expires_at_ms));
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
        fields
    };
    let pair = |n: u8, at: Option<i64>| (format!("f{n}"), (format!("v{n}"), at));
    let two = BTreeMap::from([pair(0, None), pair(1, Some(AT_MS))]);
    let three = |last| BTreeMap::from([pair(0, None), pair(1, Some(AT_MS)), pair(2, Some(last))]);
    let layout_24 = synthetic_value(file, b"h24");
    assert_eq!(fields(&layout_24), three(AT_MS + 5000));
    assert_eq!(fields(&synthetic_value(file, b"h25")), three(AT_MS + 9));
    assert_eq!(fields(&synthetic_value(file, b"h22")), two);
    assert_eq!(fields(&synthetic_value(file, b"h23")), two);
    let valkey = synthetic_value("valkey080_hash2_slotimport.rdb", b"h");
    assert_eq!(fields(&valkey), two);
    let digest = |value: &OwnedValue| content_digest(&value.raw()).unwrap();
    assert_eq!(digest(&valkey), digest(&synthetic_value(file, b"h22")));
    assert_eq!(digest(&valkey), digest(&synthetic_value(file, b"h23")));
    assert_ne!(digest(&layout_24), digest(&synthetic_value(file, b"h25")));
}

/// The same commands were given to four servers, which saved.
#[test]
fn one_data_set_saved_by_redis_and_by_valkey_has_equal_digests() {
    let mut first: BTreeMap<Vec<u8>, ContentDigest> = BTreeMap::new();
    let mut types = HashSet::new();
    for name in [
        "redis-8.0.2-packed",
        "redis-8.0.2-plain",
        "valkey-9.1.2-packed",
        "valkey-9.1.2-plain",
    ] {
        let bytes = std::fs::read(folder().join(format!("own/{name}.rdb"))).unwrap();
        let (seen, error) = scan(&bytes, []);
        assert_eq!(error, None);
        assert_eq!(seen.last(), Some(&Seen::End(Checksum::Verified)));
        assert_eq!(scan(&bytes, 0..bytes.len()), (seen.clone(), None));
        assert_eq!(keys(&seen).count(), 11);
        for (_, key, expires, value) in keys(&seen) {
            let digest = content_digest(&value.raw()).unwrap();
            let known = first.entry(key.to_vec()).or_insert(digest);
            assert_eq!(*known, digest, "{name} {}", text(key));
            assert_eq!(expires, (key == b"e").then_some(4_102_444_800_000));
            types.insert(value.type_id);
        }
    }
    for type_id in [
        ValueType::HashMetadata,
        ValueType::HashListpackEx,
        ValueType::HashValkey2,
        ValueType::SetListpack,
        ValueType::StreamListpacks3,
    ] {
        assert!(types.contains(&type_id), "{type_id:?}");
    }
}

#[test]
fn one_stream_has_one_digest_in_four_layouts() {
    let digest = |file| content_digest(&synthetic_value(file, b"s").raw()).unwrap();
    let oldest = digest("v9_stream_type15_groups_pel_deleted.rdb");
    assert_eq!(oldest.length, 3);
    assert_eq!(oldest, digest("v10_stream_type19_groups_pel_deleted.rdb"));
    assert_eq!(oldest, digest("v11_stream_type21_groups_pel_deleted.rdb"));
    // What it remembers of producers is not content.
    assert_eq!(oldest, digest("v13_stream_type26_groups_pel_deleted.rdb"));
    // An entry that was given back is.
    assert_ne!(oldest, digest("v14_stream_type27_groups_pel_deleted.rdb"));
}

/// Text of each element that `pick` takes.
fn elements_of(value: &OwnedValue, pick: impl Fn(&Element<'_>) -> bool) -> Vec<String> {
    let mut texts = Vec::new();
    rdb::decode(&value.raw(), &mut |element| {
        if pick(&element) {
            texts.push(format!("{element:?}"));
        }
    })
    .unwrap();
    texts
}

#[test]
fn streams_of_redis_8_have_what_producers_and_xnack_left() {
    let value = synthetic_value("v14_stream_type27_groups_pel_deleted.rdb", b"s");
    let newest = elements_of(&value, |element| {
        matches!(
            element,
            Element::StreamNacked { .. }
                | Element::StreamIdempotence { .. }
                | Element::StreamProduced { .. }
                | Element::StreamProducedCounters { .. }
        )
    });
    let group = format!("{:?}", b"g1");
    let producer = format!("{:?}", b"pid1");
    let expected = [
        format!(
            "StreamNacked {{ group: {group}, id: StreamId {{ ms: 1009, seq: 1 }}, \
             delivered_at_ms: 1700000001009, deliveries: 2 }}"
        ),
        "StreamIdempotence { duration_s: 60, entries_max: 100 }".to_owned(),
        format!(
            "StreamProduced {{ producer: {producer}, request: {:?}, \
             id: StreamId {{ ms: 1000, seq: 1 }} }}",
            b"iid1"
        ),
        format!(
            "StreamProduced {{ producer: {producer}, request: {:?}, \
             id: StreamId {{ ms: 1009, seq: 1 }} }}",
            b"iid2"
        ),
        "StreamProducedCounters { added: 2, duplicates: 0 }".to_owned(),
    ];
    assert_eq!(newest, expected);
}

#[test]
fn arrays_are_items_by_index_behind_their_cursor() {
    let value = synthetic_value("v14_array28_keymeta243.rdb", b"arr");
    let mut items = Vec::new();
    rdb::decode(&value.raw(), &mut |element| match element {
        Element::ArrayCursor { inserted_at } => items.push((inserted_at, "cursor".to_owned())),
        Element::ArrayItem { index, value } => items.push((index, text(value))),
        other => panic!("{other:?}"),
    })
    .unwrap();
    let item = |index, text: &str| (index, text.to_owned());
    let expected = [
        item(1_000_000, "cursor"),
        item(0, "-5"),
        item(3, "1.5"),
        item(7, "abc"),
        item(1 << 40, "long string value"),
    ];
    assert_eq!(items, expected);
    let digest = content_digest(&value.raw()).unwrap();
    assert_eq!((digest.kind, digest.length), (ValueKind::Array, 4));
}

#[test]
fn hashes_by_templates_are_plain_hashes_in_every_form() {
    let file = "v15_hash_templates_242_29_30_31_32.rdb";
    let mut digests = HashSet::new();
    for (key, type_id) in [
        (&b"ref_lp"[..], ValueType::Hash),
        (b"ref_arr", ValueType::Hash),
        (b"self_lp", ValueType::HashTemplateListpack),
        (b"self_arr", ValueType::HashTemplateArray),
    ] {
        let value = synthetic_value(file, key);
        assert_eq!(value.type_id, type_id);
        assert_eq!(
            ours(&value),
            [
                (b"field1".to_vec(), b"1".to_vec()),
                (b"field2".to_vec(), b"2".to_vec())
            ]
        );
        digests.insert(content_digest(&value.raw()).unwrap());
    }
    assert_eq!(digests.len(), 1);
    let plain = RawValue {
        type_id: ValueType::Hash,
        bytes: b"\x02\x06field1\x011\x06field2\x012",
    };
    assert!(digests.contains(&content_digest(&plain).unwrap()));
}

#[test]
fn metadata_of_modules_stand_before_the_type_in_payloads_too() {
    let bytes = std::fs::read(folder().join("synthetic/v14_array28_keymeta243.rdb")).unwrap();
    let mut scanner = Scanner::new(ScannerLimits::default());
    let (mut rest, mut payload) = (&bytes[..], Vec::new());
    while let Some(event) = scanner.next(rest).unwrap() {
        rest = &rest[event.consumed..];
        if let Record::Key(key) = event.record
            && let Some(metadata) = key.metadata
        {
            payload.extend_from_slice(metadata);
            payload.push(key.value.type_id.byte());
            payload.extend_from_slice(key.value.bytes);
            break;
        }
    }
    payload.extend_from_slice(&14u16.to_le_bytes());
    let checksum = rdb::crc64(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    let (value, version) = split_dump_payload(&payload).unwrap();
    assert_eq!(
        (value.type_id, value.bytes, version),
        (ValueType::String, &b"\x01v"[..], 14)
    );
    // Before version 13 no payload begins so.
    let end = payload.len() - 10;
    payload[end..].fill(0);
    payload[end] = 12;
    assert!(split_dump_payload(&payload).is_err());
}

/// Text as Go's encoder writes it: one U+FFFD for each byte that is not UTF-8.
fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}

fn id(id: StreamId) -> Value {
    id.to_string().into()
}

/// Our decoding in the words of HDT3213/rdb, without its sizes and encodings.
fn described(value: &RawValue<'_>) -> Value {
    let mut out = Map::new();
    let mut items = Vec::new();
    let (mut hash, mut expire) = (Map::new(), Map::new());
    let mut groups: Vec<Value> = Vec::new();
    rdb::decode(value, &mut |element| match element {
        Element::String(bytes) => items.push(text(bytes).into()),
        Element::ListItem(bytes) | Element::SetMember(bytes) => items.push(text(bytes).into()),
        Element::ScoredMember { member, score } => {
            items.push(json!({"member": text(member), "score": score}));
        }
        Element::HashField {
            field,
            value,
            expires_at_ms,
        } => {
            hash.insert(text(field), text(value).into());
            expire.insert(text(field), expires_at_ms.unwrap_or(0).into());
        }
        Element::StreamEntry { id: entry, fields } => {
            let fields: Map<_, _> = fields
                .iter()
                .map(|(name, value)| (text(name), text(value).into()))
                .collect();
            items.push(json!({"id": id(entry), "fields": fields}));
        }
        Element::StreamState {
            length,
            last_id,
            counters,
        } => {
            out.insert("len".into(), length.into());
            out.insert("lastId".into(), id(last_id));
            if let Some(counters) = counters {
                out.insert("firstId".into(), id(counters.first_id));
                out.insert("maxDeletedId".into(), id(counters.max_deleted_id));
                out.insert("addedEntriesCount".into(), counters.entries_added.into());
            }
        }
        Element::StreamGroup { group, last_id, .. } => groups.push(json!({
            "name": text(group), "lastId": id(last_id), "pending": [], "consumers": [],
        })),
        Element::StreamConsumer {
            consumer,
            seen_at_ms,
            ..
        } => {
            let group = groups.last_mut().unwrap();
            group["consumers"].as_array_mut().unwrap().push(json!({
                "name": text(consumer), "seenTime": seen_at_ms, "pending": [],
            }));
        }
        Element::StreamPending {
            consumer,
            id: entry,
            delivered_at_ms,
            deliveries,
            ..
        } => {
            let group = groups.last_mut().unwrap();
            let consumers = group["consumers"].as_array_mut().unwrap();
            let owner = consumers.last_mut().unwrap();
            assert_eq!(owner["name"].as_str().unwrap(), text(consumer.unwrap()));
            owner["pending"].as_array_mut().unwrap().push(id(entry));
            group["pending"].as_array_mut().unwrap().push(json!({
                "id": id(entry), "deliveryTime": delivered_at_ms, "deliveryCount": deliveries,
            }));
        }
        Element::Module(_) => {}
        other => panic!("the oracle knows no {other:?}"),
    })
    .unwrap();
    for group in &mut groups {
        let pending = group["pending"].as_array_mut().unwrap();
        pending.sort_by_key(|entry| {
            let (ms, seq) = entry["id"].as_str().unwrap().split_once('-').unwrap();
            (ms.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap())
        });
    }
    out.insert("items".into(), items.into());
    out.insert("hash".into(), hash.into());
    out.insert("expire".into(), expire.into());
    out.insert("groups".into(), groups.into());
    Value::Object(out)
}

/// An oracle's entry in the shape of [`described`].
fn oracle(entry: &Value) -> Value {
    let mut items = Vec::new();
    for name in ["value", "values", "members"] {
        match &entry[name] {
            Value::Array(values) => items.extend(values.iter().cloned()),
            Value::Null => {}
            value => items.push(value.clone()),
        }
    }
    let stream = entry["type"] == "stream";
    for part in entry["entries"].as_array().into_iter().flatten() {
        if !stream {
            let score = part["score"].as_f64().unwrap();
            items.push(json!({"member": part["member"], "score": score}));
            continue;
        }
        for message in part["msgs"].as_array().into_iter().flatten() {
            if message["deleted"] == false {
                items.push(json!({"id": message["id"], "fields": message["fields"]}));
            }
        }
    }
    let hash = entry["hash"].as_object().cloned().unwrap_or_default();
    let expire = match entry["expire"].as_object() {
        Some(expire) => expire.clone(),
        None => hash.keys().map(|field| (field.clone(), 0.into())).collect(),
    };
    let mut out = json!({"items": items, "hash": hash, "expire": expire});
    let mut groups = entry["groups"].as_array().cloned().unwrap_or_default();
    for group in &mut groups {
        let group = group.as_object_mut().unwrap();
        group.remove("entriesRead");
        group.entry("pending").or_insert(json!([]));
        let consumers = group.entry("consumers").or_insert(json!([]));
        for consumer in consumers.as_array_mut().unwrap() {
            let consumer = consumer.as_object_mut().unwrap();
            consumer.remove("activeTime");
            consumer.entry("pending").or_insert(json!([]));
        }
    }
    out["groups"] = groups.into();
    for name in [
        "len",
        "lastId",
        "firstId",
        "maxDeletedId",
        "addedEntriesCount",
    ] {
        if stream && !entry[name].is_null() {
            out[name] = entry[name].clone();
        }
    }
    out
}

#[test]
fn decoded_values_agree_with_hdt3213() {
    let (mut files, mut entries) = (0, 0);
    for Fixture { name, bytes, .. } in fixtures() {
        let Ok(oracle_text) =
            std::fs::read_to_string(folder().join(format!("{name}.hdt3213.json")))
        else {
            continue;
        };
        let listed: Vec<Value> = serde_json::from_str(&oracle_text).unwrap();
        let listed: Vec<_> = listed
            .iter()
            .filter(|entry| entry["type"] != "aux" && entry["type"] != "functions")
            .collect();
        let (seen, _) = scan(&bytes, []);
        assert_eq!(keys(&seen).count(), listed.len(), "{name}");
        for ((db, key, expires, value), entry) in keys(&seen).zip(&listed) {
            assert_eq!(entry["key"], text(key), "{name}");
            assert_eq!(entry["db"], db, "{name}");
            assert_eq!(entry["expiration"].is_string(), expires.is_some(), "{name}");
            assert_eq!(
                described(&value.raw()),
                oracle(entry),
                "{name} {}",
                text(key)
            );
            entries += 1;
        }
        files += 1;
    }
    assert!(
        files == 29 && entries > 80,
        "{files} files with {entries} entries"
    );
}

#[test]
fn quicklists_agree_with_rdb_rs() {
    for name in [
        "rdbrs__quicklist_with_one_node",
        "rdbrs__quicklist_with_multiple_nodes",
    ] {
        let bytes = std::fs::read(folder().join(format!("{name}.rdb"))).unwrap();
        let oracle = std::fs::read(folder().join(format!("{name}.rdb.rdbrs.json"))).unwrap();
        let oracle: Value = serde_json::from_slice(&oracle).unwrap();
        let (seen, _) = scan(&bytes, []);
        let (_, key, _, value) = keys(&seen).next().unwrap();
        assert_eq!(
            described(&value.raw())["items"],
            oracle[0][text(key)],
            "{name}"
        );
    }
}

/// A file of one key with `value`, as the `rdb` crate reads it.
fn mini_rdb(value: &OwnedValue) -> Vec<u8> {
    let mut bytes = b"REDIS0012\xfe\x00".to_vec();
    bytes.extend_from_slice(&[value.type_id.byte(), 1, b'k']);
    bytes.extend_from_slice(&value.bytes);
    bytes.push(0xff);
    let checksum = rdb::crc64(0, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

type Elements = Vec<(Vec<u8>, Vec<u8>)>;

fn ours(value: &OwnedValue) -> Elements {
    let mut elements = Vec::new();
    rdb::decode(&value.raw(), &mut |element| match element {
        Element::String(bytes) | Element::ListItem(bytes) | Element::SetMember(bytes) => {
            elements.push((bytes.to_vec(), Vec::new()));
        }
        Element::ScoredMember { member, score } => {
            elements.push((member.to_vec(), score.to_bits().to_be_bytes().to_vec()));
        }
        Element::HashField { field, value, .. } => elements.push((field.to_vec(), value.to_vec())),
        other => panic!("{other:?}"),
    })
    .unwrap();
    elements
}

fn theirs(value: ::rdb::RdbValue) -> Option<Elements> {
    use ::rdb::RdbValue;
    let alone = |bytes| (bytes, Vec::new());
    Some(match value {
        RdbValue::String { value, .. } => vec![alone(value)],
        RdbValue::List { values, .. } => values.into_iter().map(alone).collect(),
        RdbValue::Set { members, .. } => members.into_iter().map(alone).collect(),
        RdbValue::Hash { values, .. } => values.into_iter().collect(),
        RdbValue::SortedSet { values, .. } => values
            .into_iter()
            .map(|(score, member)| (member, score.to_bits().to_be_bytes().to_vec()))
            .collect(),
        _ => return None,
    })
}

#[test]
fn decoded_values_agree_with_the_rdb_crate() {
    let mut compared = 0;
    for Fixture { name, bytes, .. } in fixtures() {
        for (_, key, _, value) in keys(&scan(&bytes, []).0) {
            // It skips streams and modules, and does not know Valkey's type 22.
            if matches!(value.type_id.byte(), 7 | 15 | 19 | 21 | 22) {
                continue;
            }
            let mini = mini_rdb(value);
            assert!(scan(&mini, []).1.is_none(), "{name} {key:?}");
            let decoder =
                ::rdb::RdbDecoder::new(Cursor::new(mini), ::rdb::filter::Simple::new()).unwrap();
            let read: Vec<_> = decoder.collect::<Result<_, _>>().unwrap();
            let read: Vec<_> = read.into_iter().filter_map(theirs).collect();
            assert_eq!(read, [ours(value)], "{name} {}", text(key));
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn both_families_of_headers_are_told_apart() {
    let (seen, error) = scan(b"VALKEY080\xff\0\0\0\0\0\0\0\0", []);
    assert!(error.is_none());
    assert_eq!(seen.last(), Some(&Seen::End(Checksum::Zero)));
    assert_eq!(
        FileVersion::parse(b"VALKEY080").unwrap().to_string(),
        "VALKEY080"
    );
}
