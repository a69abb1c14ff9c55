//! The requests for a value, word by word. That servers take them is seen by
//! `tests/rdb/restore_modes.rs`; newer ones than those there are only here.

use crate::rdb::{Loss, RawValue, ValueType, write_dump_payload_with_metadata};
use crate::resp::{RequestLimits, RequestScanner};

use super::*;

/// Requests as words, with how their replies are judged.
fn words(bytes: &[u8], replies: &[Reply]) -> Vec<(String, Reply)> {
    let (mut rest, mut all) = (bytes, Vec::new());
    for reply in replies {
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let request = scanner.scan(rest).unwrap().unwrap();
        let args: Vec<String> = (0..request.len())
            .map(|at| request.arg(at).escape_ascii().to_string())
            .collect();
        all.push((args.join(" "), *reply));
        rest = &rest[request.consumed..];
    }
    assert!(rest.is_empty());
    all
}

fn restorer(
    vendor: Vendor,
    version: &str,
    usage_kept: UsageKept,
    options: RestoreOptions,
) -> Restorer {
    let identity = ServerIdentity {
        vendor,
        version: ServerVersion::parse(version).unwrap(),
        usage_kept,
    };
    Restorer::new(Dialect::of(&identity), options)
}

fn whole(
    restorer: &mut Restorer,
    head: &KeyHead<'_>,
    type_id: ValueType,
    bytes: &[u8],
) -> (Result<Outcome, CannotRestore>, Vec<(String, Reply)>) {
    let (mut out, mut replies) = (Vec::new(), Vec::new());
    let mut requests = Requests {
        bytes: &mut out,
        replies: &mut replies,
    };
    let outcome = restorer.whole(&mut requests, head, &RawValue { type_id, bytes });
    let words = words(&out, &replies);
    (outcome, words)
}

fn texts(words: &[(String, Reply)]) -> Vec<&str> {
    words.iter().map(|(text, _)| &text[..]).collect()
}

const KEY: KeyHead<'_> = KeyHead {
    key: b"k",
    expires_at_ms: None,
    idle_s: None,
    freq: None,
    metadata: None,
};
const TEN: &[u8] = &[0xc0, 0x0a];
/// KEY_META of no classes.
const METADATA: &[u8] = &[243, 0];

#[test]
fn the_options_of_restore_follow_the_target() {
    let head = KeyHead {
        expires_at_ms: Some(-5),
        idle_s: Some(12),
        freq: Some(7),
        metadata: Some(METADATA),
        ..KEY
    };
    for (version, usage, wanted, lost) in [
        ("8.6.0", UsageKept::Idle, "REPLACE ABSTTL IDLETIME 12", None),
        (
            "7.0.0",
            UsageKept::Frequency,
            "REPLACE ABSTTL FREQ 7",
            Some(Loss::Metadata),
        ),
        (
            "7.0.0",
            UsageKept::Neither,
            "REPLACE ABSTTL",
            Some(Loss::Metadata),
        ),
    ] {
        let options = RestoreOptions::new(Overwrite::Always, "t");
        let mut restorer = restorer(Vendor::Redis, version, usage, options);
        let (outcome, words) = whole(&mut restorer, &head, ValueType::String, TEN);
        let (mut payload, value) = (
            Vec::new(),
            RawValue {
                type_id: ValueType::String,
                bytes: TEN,
            },
        );
        let metadata = if version == "8.6.0" { METADATA } else { &[] };
        write_dump_payload_with_metadata(&mut payload, metadata, &value).unwrap();
        // The lowest version that knows all of it.
        let stamp = payload[payload.len() - 10];
        assert_eq!(stamp, if metadata.is_empty() { 6 } else { 13 });
        let payload = payload.escape_ascii();
        assert_eq!(texts(&words), [format!("RESTORE k 1 {payload} {wanted}")]);
        assert_eq!(outcome.unwrap().lost.iter().next(), lost);
    }
    let never = RestoreOptions::new(Overwrite::Never, "t");
    let mut restorer = restorer(Vendor::Valkey, "8.1.0", UsageKept::Neither, never);
    let (_, words) = whole(&mut restorer, &KEY, ValueType::String, TEN);
    let text = texts(&words)[0];
    assert!(text.starts_with("RESTORE k 0 ") && !text.contains("TTL") && !text.contains("REPLACE"));
}

#[test]
fn fields_that_expire_are_told_so_behind_their_chunk() {
    let at = |ms: i64| ms.to_le_bytes();
    let mut hash = vec![4];
    for (field, ms) in [(b"a", 900), (b"b", 900), (b"c", -1), (b"d", 901)] {
        hash.extend_from_slice(&[1, field[0], 1, b'v']);
        hash.extend_from_slice(&at(ms));
    }
    let options = RestoreOptions::commands_only(Overwrite::Always, "t");
    let mut redis = restorer(Vendor::Redis, "7.4.0", UsageKept::Neither, options.clone());
    let (outcome, words) = whole(&mut redis, &KEY, ValueType::HashValkey2, &hash);
    assert_eq!(outcome.unwrap().how, How::Commands);
    assert_eq!(
        texts(&words),
        [
            "UNLINK __keyferry:tmp:t:0",
            "HSET __keyferry:tmp:t:0 a v b v c v d v",
            "HPEXPIREAT __keyferry:tmp:t:0 900 FIELDS 2 a b",
            "HPEXPIREAT __keyferry:tmp:t:0 901 FIELDS 1 d",
            "UNLINK k",
            "RENAME __keyferry:tmp:t:0 k",
        ]
    );
    assert_eq!(words[5].1, Reply::AcceptedOrExpired);
    let mut old = restorer(Vendor::Redis, "7.2.0", UsageKept::Neither, options);
    let (refused, words) = whole(&mut old, &KEY, ValueType::HashValkey2, &hash);
    let why = Unbuildable::FieldExpiry;
    let type_id = ValueType::HashValkey2;
    assert_eq!(refused, Err(CannotRestore::CannotHold { type_id, why }));
    assert!(words.is_empty());
}

#[test]
fn arrays_are_set_by_index_and_their_cursor_last() {
    let array = b"\x02\x01\x07\x05\x00\x01x\x07\x01\xfe\xff\xff\xff\xff\xff\xff\xff";
    let options = RestoreOptions::commands_only(Overwrite::Never, "t");
    let mut newest = restorer(Vendor::Redis, "8.8.0", UsageKept::Neither, options.clone());
    let (_, words) = whole(&mut newest, &KEY, ValueType::Array, array);
    assert_eq!(
        texts(&words),
        [
            "UNLINK __keyferry:tmp:t:0",
            "ARMSET __keyferry:tmp:t:0 5 x 7 -2",
            "ARSEEK __keyferry:tmp:t:0 8",
            "RENAMENX __keyferry:tmp:t:0 k",
            "UNLINK __keyferry:tmp:t:0",
        ]
    );
    let mut older = restorer(Vendor::Redis, "8.6.0", UsageKept::Neither, options);
    let (refused, _) = whole(&mut older, &KEY, ValueType::Array, array);
    assert!(matches!(
        refused,
        Err(CannotRestore::CannotHold {
            why: Unbuildable::NoArrays,
            ..
        })
    ));
}

/// A stream of type 27 without entries: a group with 5-1 given back, a producer.
fn newest_stream() -> Vec<u8> {
    let id = [&[0; 7][..], &[5], &[0; 7], &[1]].concat();
    [
        &[0, 0, 5, 1, 0, 0, 0, 0, 4][..],
        &[1, 1, b'g', 5, 1, 4],
        &[1],
        &id,
        &[9; 8],
        &[3],
        &[0],
        &[1],
        &id,
        b"\x40\x64\x0a\x01\x01p\x01\x01r\x05\x01\x01\x00",
    ]
    .concat()
}

#[test]
fn what_newer_streams_know_is_told_or_named() {
    let stream = newest_stream();
    let options = RestoreOptions::commands_only(Overwrite::Never, "t");
    let mut newest = restorer(Vendor::Redis, "8.8.0", UsageKept::Neither, options.clone());
    let (outcome, told) = whole(&mut newest, &KEY, ValueType::StreamListpacks5, &stream);
    let tmp = "__keyferry:tmp:t:0";
    let told_there = [
        format!("XADD {tmp} MAXLEN 0 5-1 x y"),
        format!("XSETID {tmp} 5-1 ENTRIESADDED 4 MAXDELETEDID 0-0"),
        format!("XGROUP CREATE {tmp} g 5-1 ENTRIESREAD 4"),
        format!("XNACK {tmp} g FAIL IDS 1 5-1 RETRYCOUNT 3 FORCE"),
        format!("XCFGSET {tmp} IDMP-DURATION 100 IDMP-MAXSIZE 10"),
        format!("XIDMPRECORD {tmp} p r 5-1"),
    ];
    assert_eq!(texts(&told)[1..7], told_there);
    assert_eq!(told[4].1, Reply::AcceptedOr(Loss::StreamUnowned));
    let lost: Vec<Loss> = outcome.unwrap().lost.iter().collect();
    assert_eq!(lost, [Loss::StreamCounters]);

    let mut valkey = restorer(Vendor::Valkey, "9.1.0", UsageKept::Neither, options);
    let (outcome, told) = whole(&mut valkey, &KEY, ValueType::StreamListpacks5, &stream);
    assert_eq!(texts(&told)[1..4], told_there[..3]);
    assert_eq!(told.len(), 6);
    let lost = outcome.unwrap().lost;
    assert!(lost.has(Loss::StreamUnowned) && lost.has(Loss::StreamProducers));
}

/// Feeds a value in parts of these lengths.
fn in_parts(
    restorer: &mut Restorer,
    type_id: ValueType,
    bytes: &[u8],
    lengths: &[usize],
) -> (Outcome, Vec<(String, Reply)>) {
    let (mut out, mut replies) = (Vec::new(), Vec::new());
    let mut requests = Requests {
        bytes: &mut out,
        replies: &mut replies,
    };
    let mut large = restorer.begin(&KEY, type_id).unwrap();
    let mut rest = bytes;
    for length in lengths {
        let (part, behind) = rest.split_at(*length);
        rest = behind;
        let more = large.part(restorer, &mut requests, part, false).unwrap();
        assert_eq!(more, None);
    }
    let outcome = large.part(restorer, &mut requests, rest, true).unwrap();
    let words = words(&out, &replies);
    (outcome.unwrap(), words)
}

#[test]
fn parts_make_the_requests_of_the_whole() {
    let list = b"\x03\x01a\x02bc\xc0\x05";
    let string = [&[0x44, 0x00][..], &[b's'; 1024]].concat();
    for (type_id, bytes, cuts) in [
        (
            ValueType::List,
            &list[..],
            &[&[][..], &[3], &[1], &[3, 3]][..],
        ),
        (ValueType::String, &string, &[&[], &[2], &[100, 500]]),
    ] {
        let options = RestoreOptions::commands_only(Overwrite::Never, "t");
        let mut entire = restorer(Vendor::Redis, "7.0.0", UsageKept::Neither, options.clone());
        let (wanted, whole_words) = whole(&mut entire, &KEY, type_id, bytes);
        for lengths in cuts {
            let mut parts = restorer(Vendor::Redis, "7.0.0", UsageKept::Neither, options.clone());
            let (outcome, words) = in_parts(&mut parts, type_id, bytes, lengths);
            assert_eq!(Ok(outcome), wanted);
            // Pieces of strings are as they come; all else is the same.
            // What comes in parts vanishes by itself if nobody ends it.
            let (leases, words): (Vec<_>, Vec<_>) = words
                .into_iter()
                .partition(|(text, _)| text.starts_with("PE"));
            let is_leased = !lengths.is_empty();
            assert_eq!(leases.len(), lengths.len() + usize::from(is_leased));
            if type_id == ValueType::List {
                assert_eq!(words, whole_words);
            }
            let text = |words: &[(String, Reply)]| {
                let texts = words
                    .iter()
                    .filter(|(text, _)| text.starts_with(['S', 'A']));
                let last_args = texts.filter_map(|(text, _)| text.rsplit(' ').next());
                last_args.collect::<String>()
            };
            assert_eq!(text(&words), text(&whole_words));
        }
    }
}

#[test]
fn a_stream_in_parts_is_held_while_it_is_small_enough() {
    let stream = newest_stream();
    let mut options = RestoreOptions::new(Overwrite::Always, "t");
    for (held, how) in [
        (stream.len(), How::Converted(ValueType::StreamListpacks4)),
        (stream.len() - 1, How::Commands),
        (0, How::Commands),
    ] {
        options.large_stream_bytes = held;
        let mut restorer = restorer(Vendor::Redis, "8.6.0", UsageKept::Neither, options.clone());
        for lengths in [&[][..], &[10]] {
            let (outcome, words) =
                in_parts(&mut restorer, ValueType::StreamListpacks5, &stream, lengths);
            assert_eq!(outcome.how, how);
            assert_eq!(words.len() == 1, how != How::Commands);
        }
    }
}

#[test]
fn damage_appends_nothing_and_is_abandoned_in_parts() {
    let options = RestoreOptions::commands_only(Overwrite::Never, "t");
    let mut restorer = restorer(Vendor::Redis, "7.0.0", UsageKept::Neither, options);
    let (refused, words) = whole(&mut restorer, &KEY, ValueType::List, b"\x02\x01a\x05b");
    assert!(matches!(refused, Err(CannotRestore::Malformed(_))) && words.is_empty());
    let (mut out, mut replies) = (Vec::new(), Vec::new());
    let mut requests = Requests {
        bytes: &mut out,
        replies: &mut replies,
    };
    let mut large = restorer.begin(&KEY, ValueType::List).unwrap();
    large
        .part(&mut restorer, &mut requests, b"\x02\x01a", false)
        .unwrap();
    let refused = large.part(&mut restorer, &mut requests, b"\x05b", true);
    assert!(refused.is_err());
    large.abandon(&mut requests);
    let tmp = "UNLINK __keyferry:tmp:t:1";
    let sent = self::words(&out, &replies);
    assert_eq!(
        (sent[0].0.as_str(), sent.last().unwrap().0.as_str()),
        (tmp, tmp)
    );
    assert!(!sent.iter().any(|(text, _)| text.contains("RENAME")));
}

#[test]
fn a_value_that_was_cut_off_before_its_first_byte_is_refused() {
    for version in ["2.6.0", "7.0.0"] {
        let options = RestoreOptions::new(Overwrite::Always, "t");
        let mut restorer = restorer(Vendor::Redis, version, UsageKept::Neither, options);
        let (refused, words) = whole(&mut restorer, &KEY, ValueType::String, &[]);
        assert!(matches!(refused, Err(CannotRestore::Malformed(_))) && words.is_empty());
    }
}

/// A stream with 300 entries pending in a group, whose name is given as an RDB string.
fn repetitive_stream(name: &[u8]) -> Vec<u8> {
    let (mut pending, mut owned) = (Vec::new(), Vec::new());
    for entry in 1..=300 {
        let id = [0u64.to_be_bytes(), u64::to_be_bytes(entry)].concat();
        pending.extend_from_slice(&[&id[..], &[0; 8], &[1]].concat());
        owned.extend_from_slice(&id);
    }
    let count = &[0x41, 0x2c][..];
    [
        &[0, 0, 5, 1, 1][..],
        name,
        &[5, 1],
        count,
        &pending,
        b"\x01\x01c",
        &[0; 8],
        count,
        &owned,
    ]
    .concat()
}

#[test]
fn names_that_would_be_said_again_and_again_are_refused() {
    let long = [b'g'; 100_000];
    let length = 100_000u32.to_be_bytes();
    let plain = [&[0x80][..], &length, &long].concat();
    let packed = lzf::compress(&long).unwrap();
    let packed_length = (packed.len() as u32).to_be_bytes();
    let packed = [&[0xc3, 0x80][..], &packed_length, &[0x80], &length, &packed].concat();
    let type_id = ValueType::StreamListpacks;
    let stands = |vendor, name: &[u8]| {
        let options = RestoreOptions::new(Overwrite::Always, "t");
        let mut restorer = restorer(vendor, "2.12.0", UsageKept::Neither, options);
        let (mut bytes, mut replies) = (Vec::new(), Vec::new());
        let mut requests = Requests {
            bytes: &mut bytes,
            replies: &mut replies,
        };
        let stream = repetitive_stream(name);
        let value = RawValue {
            type_id,
            bytes: &stream,
        };
        let outcome = restorer.whole(&mut requests, &KEY, &value);
        (outcome.map(|outcome| outcome.how), bytes.len())
    };
    // 30 MB of commands from 110 KB, and from 14 KB.
    let (built, bytes) = stands(Vendor::Kvrocks, &plain);
    assert_eq!(built, Ok(How::Commands));
    assert!(bytes > 300 * 100_000);
    let why = Unbuildable::Inflated;
    let refused = Err(CannotRestore::CannotHold { type_id, why });
    assert_eq!(stands(Vendor::Kvrocks, &packed), (refused, 0));
    // RESTORE says them once.
    assert_eq!(stands(Vendor::Dragonfly, &packed).0, Ok(How::Raw));
}

#[test]
fn values_without_elements_make_no_key() {
    for options in [
        RestoreOptions::new(Overwrite::Always, "t"),
        RestoreOptions::commands_only(Overwrite::Always, "t"),
    ] {
        let mut restorer = restorer(Vendor::Redis, "7.0.0", UsageKept::Neither, options);
        for (type_id, bytes) in [
            (ValueType::List, &[0][..]),
            (ValueType::Hash, &[0x80, 0, 0, 0, 0]),
        ] {
            let (outcome, words) = whole(&mut restorer, &KEY, type_id, bytes);
            assert_eq!(outcome.unwrap().how, How::Empty);
            assert!(words.is_empty());
        }
    }
}

#[test]
fn what_only_a_module_makes_is_restored_or_refused() {
    let module = b"\x81\0\0\0\0\0\0\0\x05\0";
    let options = RestoreOptions::commands_only(Overwrite::Always, "t");
    let mut redis = restorer(Vendor::Redis, "7.0.0", UsageKept::Neither, options.clone());
    let (outcome, _) = whole(&mut redis, &KEY, ValueType::Module2, module);
    assert_eq!(outcome.unwrap().how, How::Raw);
    let mut dragonfly = restorer(Vendor::Dragonfly, "1.30.0", UsageKept::Neither, options);
    let (refused, _) = whole(&mut dragonfly, &KEY, ValueType::Module2, module);
    assert!(matches!(
        refused,
        Err(CannotRestore::CannotHold {
            why: Unbuildable::Module,
            ..
        })
    ));
    assert!(redis.begin(&KEY, ValueType::Module2).is_err());
}
