//! What comes out decodes to the same elements as what went in.

use proptest::prelude::*;

use super::super::decode::decode;
use super::super::digest::content_digest;
use super::super::version::FileVersion;
use super::*;

const MAX: usize = 1 << 20;

fn raw(type_id: ValueType, bytes: &[u8]) -> RawValue<'_> {
    RawValue { type_id, bytes }
}

fn elements(type_id: ValueType, bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    decode(&raw(type_id, bytes), &mut |element| {
        all.push(format!("{element:?}"));
    })
    .unwrap();
    all
}

fn converted(from: ValueType, bytes: &[u8], to: ValueType) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let lost = convert(&mut out, &raw(from, bytes), to, MAX).unwrap();
    assert!(lost.is_empty());
    out.split_off(6)
}

fn same_elements(from: ValueType, bytes: &[u8], to: ValueType) {
    let out = converted(from, bytes, to);
    assert_eq!(elements(to, &out), elements(from, bytes), "{from:?} {to:?}");
}

/// All layouts that a file of any known version may hold.
fn all_types() -> Vec<ValueType> {
    let mut all: Vec<ValueType> = Vec::new();
    for newest in [15, 80] {
        let version = FileVersion::of_dump(newest).unwrap();
        for byte in 0..=255 {
            all.extend(ValueType::known(version, byte));
        }
    }
    all.sort_by_key(|known| (known.byte(), known.lowest_version()));
    all.dedup();
    all
}

/// An RDB string of at most 63 bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 64);
    [&[bytes.len() as u8][..], bytes].concat()
}

/// A listpack, as an RDB string, of texts and integers 0 to 127.
fn listpack(elements: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        match element.parse::<u8>() {
            Ok(number) if number < 128 => body.extend_from_slice(&[number, 1]),
            _ => {
                body.push(0x80 | element.len() as u8);
                body.extend_from_slice(element.as_bytes());
                body.push(element.len() as u8 + 1);
            }
        }
    }
    let mut blob = (body.len() as u32 + 7).to_le_bytes().to_vec();
    blob.extend_from_slice(&(elements.len() as u16).to_le_bytes());
    blob.extend_from_slice(&body);
    blob.push(0xff);
    string(&blob)
}

#[test]
fn lists_sets_and_hashes_become_plain() {
    let nodes = [
        &[3, 2][..],
        &listpack(&["a", "1", ""]),
        &[1, 5],
        b"plain",
        &[2],
        &listpack(&["z"]),
    ]
    .concat();
    same_elements(ValueType::ListQuicklist2, &nodes, ValueType::List);
    assert_eq!(
        converted(ValueType::ListQuicklist2, &nodes, ValueType::List),
        b"\x80\0\0\0\x05\x01a\x011\x00\x05plain\x01z"
    );
    let ziplist = b"\x0f\x0f\0\0\0\x0c\0\0\0\x02\0\0\xf3\x02\xf6\xff";
    let quicklist = [&[1][..], ziplist].concat();
    same_elements(ValueType::ListQuicklist, &quicklist, ValueType::List);
    same_elements(ValueType::ListZiplist, ziplist, ValueType::List);
    same_elements(
        ValueType::SetListpack,
        &listpack(&["a", "7"]),
        ValueType::Set,
    );
    let intset = b"\x0c\x02\0\0\0\x02\0\0\0\xfe\xff\x05\0";
    same_elements(ValueType::SetIntset, intset, ValueType::Set);
    same_elements(
        ValueType::HashListpack,
        &listpack(&["f", "v", "1", "2"]),
        ValueType::Hash,
    );
    same_elements(ValueType::HashZiplist, ziplist, ValueType::Hash);
    let zipmap = b"\x0d\x01\x03foo\x03\x02bar..\xff";
    same_elements(ValueType::HashZipmap, zipmap, ValueType::Hash);
}

#[test]
fn templates_become_plain_hashes() {
    let names = listpack(&["field1", "field2"]);
    let packed = [&[0][..], &names, &listpack(&["0", "1", "2"])].concat();
    same_elements(ValueType::HashTemplateListpack, &packed, ValueType::Hash);
    let counted = b"\x01\x02\x06field1\x06field2\xc0\x01\xc0\x02";
    same_elements(ValueType::HashTemplateArray, counted, ValueType::Hash);
    assert_eq!(
        converted(ValueType::HashTemplateArray, counted, ValueType::Hash),
        b"\x80\0\0\0\x02\x06field1\x011\x06field2\x012"
    );
}

#[test]
fn scores_keep_their_value_as_doubles_and_as_text() {
    let packed = listpack(&["one", "1", "half", "0.5", "big", "1e300", "top", "inf"]);
    same_elements(ValueType::ZsetListpack, &packed, ValueType::Zset2);
    same_elements(ValueType::ZsetListpack, &packed, ValueType::Zset);
    let mut doubles = vec![5];
    for score in [
        f64::NEG_INFINITY,
        f64::INFINITY,
        0.1 + 0.2,
        f64::MIN_POSITIVE,
        -0.0,
    ] {
        doubles.extend_from_slice(b"\x01m");
        doubles.extend_from_slice(&score.to_le_bytes());
    }
    same_elements(ValueType::Zset2, &doubles, ValueType::Zset);
}

/// `f` expires at 1000, `g` at 3000, `h` never; layouts 22R, 23, 24, 25, 22V.
fn expiring_hashes() -> Vec<(ValueType, Vec<u8>)> {
    let packed = |fields: &[&str]| listpack(fields);
    let at = |ms: i64| ms.to_le_bytes().to_vec();
    let triples = packed(&["f", "1", "1000", "g", "2", "3000", "h", "3", "0"]);
    vec![
        (
            ValueType::HashMetadataPreGa,
            b"\x03\x43\xe8\x01f\x011\x4b\xb8\x01g\x012\0\x01h\x013".to_vec(),
        ),
        (ValueType::HashListpackExPreGa, triples.clone()),
        (
            ValueType::HashMetadata,
            [
                &at(1000)[..],
                b"\x03\x01\x01f\x011\x47\xd1\x01g\x012\0\x01h\x013",
            ]
            .concat(),
        ),
        (ValueType::HashListpackEx, [at(1000), triples].concat()),
        (
            ValueType::HashValkey2,
            [
                b"\x03\x01f\x011".to_vec(),
                at(1000),
                b"\x01g\x012".to_vec(),
                at(3000),
                b"\x01h\x013".to_vec(),
                at(-1),
            ]
            .concat(),
        ),
    ]
}

#[test]
fn fields_keep_their_expiry_between_redis_and_valkey() {
    for (from, bytes) in expiring_hashes() {
        assert_eq!(elements(from, &bytes).len(), 3, "{from:?}");
        for to in stand_ins(from) {
            if *to != ValueType::Hash {
                same_elements(from, &bytes, *to);
            }
        }
    }
    // The smallest expiry stands first, and others count from it.
    let (valkey, bytes) = expiring_hashes().pop().unwrap();
    let metadata = converted(valkey, &bytes, ValueType::HashMetadata);
    let plain = b"\xe8\x03\0\0\0\0\0\0\x80\0\0\0\x03\x01\x01f\x011\x47\xd1\x01g\x012\0\x01h\x013";
    assert_eq!(metadata, plain);
}

#[test]
fn an_expiry_that_a_layout_cannot_say_is_an_error() {
    for (from, bytes) in expiring_hashes() {
        let mut out = b"before".to_vec();
        let refused = convert(&mut out, &raw(from, &bytes), ValueType::Hash, MAX);
        assert_eq!(refused, Err(ConvertError::FieldsExpire(2)));
        assert_eq!(out, b"before");
    }
    let lasting = b"\x01\x01f\x01v\xff\xff\xff\xff\xff\xff\xff\xff";
    same_elements(ValueType::HashValkey2, lasting, ValueType::Hash);
    same_elements(ValueType::HashValkey2, lasting, ValueType::HashMetadata);
}

#[test]
fn fields_that_expired_before_1970_stay_expired() {
    // -1 would say never there, and no distance reaches from one end to the other.
    let smallest = i64::MIN + 2;
    let redis = [
        &smallest.to_le_bytes()[..],
        b"\x02\x81\x7f\xff\xff\xff\xff\xff\xff\xfe\x01f\x011\x01\x01g\x012",
    ]
    .concat();
    let valkey = converted(ValueType::HashMetadata, &redis, ValueType::HashValkey2);
    let first = b"\x80\0\0\0\x02\x01f\x011\x01\0\0\0\0\0\0\0\x01g\x012\x01\0\0\0\0\0\0\0";
    assert_eq!(valkey, first);
    let mut widest = vec![2];
    for (field, at_ms) in [(b"\x01f\x011", -2), (b"\x01g\x012", i64::MAX)] {
        widest.extend_from_slice(field);
        widest.extend_from_slice(&i64::to_le_bytes(at_ms));
    }
    let redis = converted(ValueType::HashValkey2, &widest, ValueType::HashMetadata);
    let texts = elements(ValueType::HashMetadata, &redis);
    assert!(texts[0].contains("Some(1)") && texts[1].contains(&format!("Some({})", i64::MAX)));
}

fn id(ms: u8, seq: u8) -> Vec<u8> {
    [&[0; 7][..], &[ms], &[0; 7], &[seq]].concat()
}

/// What distinguishes the layouts of streams.
#[derive(Clone, Copy)]
struct Made {
    counters: bool,
    active: bool,
    /// A pending entry that no consumer has.
    unowned: bool,
    /// A list of those, given back.
    released: bool,
    producers: bool,
}

/// Two entries and one deleted, two groups; pending 1-1 (and 2-1), consumers `a`, `b`.
fn stream(made: Made) -> Vec<u8> {
    let node = listpack(&[
        "2", "1", "1", "n", "0", "2", "0", "0", "v", "4", "3", "0", "1", "x", "4", "2", "1", "0",
        "y", "4",
    ]);
    let mut out = vec![1];
    out.extend(string(&id(1, 1)));
    out.extend(node);
    out.extend([2, 5, 0]);
    if made.counters {
        out.extend([1, 1, 1, 2, 9]);
    }
    out.push(2);
    for group in [b'g', b'h'] {
        out.extend([1, group, 2, 1]);
        if made.counters {
            out.extend(match group {
                b'g' => vec![2],
                _ => [&[0x81][..], &[0xff; 8]].concat(),
            });
        }
        let has = group == b'g';
        out.push(u8::from(has) + u8::from(has && made.unowned));
        if has {
            out.extend([id(1, 1), vec![7; 8], vec![3]].concat());
            if made.unowned {
                out.extend([id(2, 1), vec![8; 8], vec![4]].concat());
            }
        }
        out.push(if has { 2 } else { 0 });
        for consumer in [b'a', b'b'].into_iter().filter(|_| has) {
            out.extend([1, consumer]);
            out.extend([6; 8]);
            if made.active {
                out.extend([5; 8]);
            }
            out.push(u8::from(consumer == b'b'));
            if consumer == b'b' {
                out.extend(id(1, 1));
            }
        }
        if made.released {
            out.push(u8::from(has && made.unowned));
            if has && made.unowned {
                out.extend(id(2, 1));
            }
        }
    }
    if made.producers {
        out.extend(b"\x40\x64\x0a\x01\x01p\x01\x01r\x01\x01\x01\x02");
    }
    out
}

const THREE: Made = Made {
    counters: true,
    active: true,
    unowned: false,
    released: false,
    producers: false,
};

#[test]
fn a_stream_steps_down_to_the_very_bytes_of_the_older_layout() {
    let two = Made {
        active: false,
        ..THREE
    };
    let one = Made {
        counters: false,
        ..two
    };
    let four = Made {
        producers: true,
        ..THREE
    };
    let five = Made {
        released: true,
        unowned: true,
        ..four
    };
    for (from, made, to, wanted, losses) in [
        (
            ValueType::StreamListpacks5,
            five,
            ValueType::StreamListpacks4,
            four,
            &[Loss::StreamUnowned][..],
        ),
        (
            ValueType::StreamListpacks5,
            five,
            ValueType::StreamListpacks3,
            THREE,
            &[Loss::StreamProducers, Loss::StreamUnowned],
        ),
        (
            ValueType::StreamListpacks4,
            four,
            ValueType::StreamListpacks3,
            THREE,
            &[Loss::StreamProducers],
        ),
        (
            ValueType::StreamListpacks5,
            five,
            ValueType::StreamListpacks,
            one,
            &[
                Loss::StreamProducers,
                Loss::StreamUnowned,
                Loss::StreamConsumerTimes,
                Loss::StreamCounters,
            ],
        ),
        (
            ValueType::StreamListpacks3,
            THREE,
            ValueType::StreamListpacks2,
            two,
            &[Loss::StreamConsumerTimes][..],
        ),
        (
            ValueType::StreamListpacks3,
            THREE,
            ValueType::StreamListpacks,
            one,
            &[Loss::StreamConsumerTimes, Loss::StreamCounters],
        ),
        (
            ValueType::StreamListpacks2,
            two,
            ValueType::StreamListpacks,
            one,
            &[Loss::StreamCounters],
        ),
    ] {
        let (from_bytes, mut out) = (stream(made), Vec::new());
        let lost = convert(&mut out, &raw(from, &from_bytes), to, MAX).unwrap();
        assert_eq!(out, stream(wanted), "{from:?} {to:?}");
        assert_eq!(lost.iter().collect::<Vec<_>>(), losses);
        if !lost.has(Loss::StreamUnowned) && !lost.has(Loss::StreamProducers) {
            assert_eq!(
                content_digest(&raw(to, &out)),
                content_digest(&raw(from, &from_bytes))
            );
        }
        for cut in 0..from_bytes.len() {
            let mut out = b"before".to_vec();
            let cut = raw(from, &from_bytes[..cut]);
            assert!(convert(&mut out, &cut, to, MAX).is_err());
            assert_eq!(out, b"before");
        }
    }
}

#[test]
fn pending_entries_without_an_owner_go_and_are_named() {
    let made = Made {
        unowned: true,
        ..THREE
    };
    let (bytes, mut out) = (stream(made), Vec::new());
    let value = raw(ValueType::StreamListpacks3, &bytes);
    let lost = convert(&mut out, &value, ValueType::StreamListpacks2, MAX).unwrap();
    assert!(lost.has(Loss::StreamUnowned));
    assert_eq!(
        out,
        stream(Made {
            active: false,
            ..THREE
        })
    );
}

#[test]
fn what_would_grow_too_long_is_refused() {
    // 1,000 bytes of zeros, packed: a literal, then copies of it.
    let packed = b"\x00\x00\xe0\xff\x00\xe0\xff\x00\xe0\xff\x00\xe0\xc6\x00";
    let mut bytes = vec![2];
    for _ in 0..2 {
        bytes.extend_from_slice(&[0xc3, packed.len() as u8, 0x44, 0x04]);
        bytes.extend_from_slice(packed);
    }
    let value = raw(ValueType::ListQuicklist, &bytes);
    // Not a ziplist, but unpacked before that is seen.
    assert!(matches!(
        convert(&mut Vec::new(), &value, ValueType::List, MAX),
        Err(ConvertError::Malformed(_))
    ));
    let items = [&[2][..], &listpack(&["abcdefgh"]), &[2], &listpack(&["i"])].concat();
    let mut value = raw(ValueType::ListQuicklist2, &items);
    let whole = [&[2, 2][..], &items[1..]].concat();
    value.bytes = &whole;
    for (bytes_max, fits) in [(16, true), (15, false), (0, false)] {
        let mut out = Vec::new();
        let done = convert(&mut out, &value, ValueType::List, bytes_max);
        assert_eq!(done.is_ok(), fits, "{bytes_max} {done:?}");
        assert_eq!(out.is_empty(), !fits);
    }
}

#[test]
fn there_is_no_way_but_those_listed() {
    for from in all_types() {
        let listed = stand_ins(from);
        assert_eq!(listed.first(), Some(&from));
        for to in all_types() {
            let known = listed.contains(&to);
            let refused = convert(&mut Vec::new(), &raw(from, &[1, 2]), to, MAX)
                == Err(ConvertError::NoWay { from, to });
            assert_eq!(refused, !known, "{from:?} {to:?}");
        }
    }
}

#[test]
fn counts_of_the_outermost_loop() {
    for (type_id, bytes, count) in [
        (ValueType::List, &[0x43, 0xe8][..], Some(1000)),
        (
            ValueType::HashMetadata,
            &[0, 0, 0, 0, 0, 0, 0, 0, 3],
            Some(3),
        ),
        (ValueType::HashMetadata, &[0, 0], None),
        (ValueType::Set, &[], None),
        (ValueType::SetIntset, &[0], None),
        (ValueType::StreamListpacks, &[0], None),
    ] {
        assert_eq!(
            declared_elements(&raw(type_id, bytes)),
            count,
            "{type_id:?}"
        );
    }
}

proptest! {
    #[test]
    fn hashes_go_there_and_back(
        fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>(), prop::option::of(1..i64::MAX)), 1..20)
    ) {
        let mut valkey = vec![fields.len() as u8];
        for (field, value, at_ms) in &fields {
            write::string(&mut valkey, field);
            write::string(&mut valkey, value);
            valkey.extend_from_slice(&at_ms.unwrap_or(-1).to_le_bytes());
        }
        let redis = converted(ValueType::HashValkey2, &valkey, ValueType::HashMetadata);
        let back = converted(ValueType::HashMetadata, &redis, ValueType::HashValkey2);
        prop_assert_eq!(
            elements(ValueType::HashValkey2, &back),
            elements(ValueType::HashValkey2, &valkey)
        );
    }

    #[test]
    fn garbage_is_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for from in all_types() {
            for to in stand_ins(from) {
                let mut out = Vec::new();
                let done = convert(&mut out, &raw(from, &bytes), *to, 10_000);
                prop_assert!(out.len() <= 10_000);
                prop_assert!(done.is_ok() || out.is_empty());
            }
        }
    }
}
