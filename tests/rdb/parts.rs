//! Values in parts: however large values may be and however the input arrives,
//! parts are the value's bytes, and what is decoded from them is what is decoded
//! from the whole.

use std::path::PathBuf;

use keyferry::rdb::{
    Element, PartDecoder, RawValue, Record, ScanError, Scanner, ScannerLimits, ValueType, crc64,
    decode,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// A record without its borrow.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Whole {
        head: String,
        type_id: ValueType,
        value: Vec<u8>,
    },
    Large {
        head: String,
        type_id: ValueType,
    },
    Part {
        bytes: Vec<u8>,
        last: bool,
    },
    Other(String),
}

fn see(record: &Record<'_>) -> Seen {
    match record {
        Record::Key(key) => Seen::Whole {
            head: format!(
                "{} {:?} {:?} {:?} {:?} {:?}",
                key.db, key.key, key.expires_at_ms, key.idle_s, key.freq, key.metadata
            ),
            type_id: key.value.type_id,
            value: key.value.bytes.to_vec(),
        },
        Record::LargeKey(key) => Seen::Large {
            head: format!(
                "{} {:?} {:?} {:?} {:?} {:?}",
                key.db, key.key, key.expires_at_ms, key.idle_s, key.freq, key.metadata
            ),
            type_id: key.type_id,
        },
        Record::Part(part) => Seen::Part {
            bytes: part.bytes.to_vec(),
            last: part.last,
        },
        other => Seen::Other(format!("{other:?}")),
    }
}

/// Scans `bytes`, which come in pieces that end at `ends` and at the end.
fn scan(
    bytes: &[u8],
    limits: ScannerLimits,
    ends: impl IntoIterator<Item = usize>,
) -> (Vec<Seen>, Option<ScanError>) {
    let mut scanner = Scanner::new(limits);
    let (mut seen, mut start) = (Vec::new(), 0);
    for end in ends.into_iter().chain([bytes.len()]) {
        while start <= end {
            match scanner.next(&bytes[start..end]) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    assert!(event.consumed > 0);
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

/// Records with each value put together again, and how many came in parts.
fn joined(seen: &[Seen]) -> (Vec<Seen>, usize) {
    let (mut out, mut large) = (Vec::new(), 0);
    let mut open: Option<(String, ValueType, Vec<u8>)> = None;
    for record in seen {
        match (record, open.take()) {
            (Seen::Large { head, type_id }, None) => {
                large += 1;
                open = Some((head.clone(), *type_id, Vec::new()));
            }
            (Seen::Part { bytes, last }, Some((head, type_id, mut value))) => {
                assert!(!bytes.is_empty());
                value.extend_from_slice(bytes);
                if *last {
                    out.push(Seen::Whole {
                        head,
                        type_id,
                        value,
                    });
                } else {
                    open = Some((head, type_id, value));
                }
            }
            (Seen::Part { .. }, None) => panic!("a part of nothing"),
            (other, None) => out.push(other.clone()),
            (other, Some(_)) => panic!("{other:?} amid parts"),
        }
    }
    assert!(open.is_none(), "the last part is missing");
    (out, large)
}

/// Text of each element; of a string, its bytes.
fn elements(
    decoding: impl FnOnce(&mut dyn FnMut(Element<'_>)) -> Result<(), keyferry::rdb::DecodeError>,
) -> Result<(Vec<String>, Vec<u8>), String> {
    let (mut texts, mut string) = (Vec::new(), Vec::new());
    decoding(&mut |element| match element {
        Element::String(bytes) | Element::StringPart(bytes) => string.extend_from_slice(bytes),
        other => texts.push(format!("{other:?}")),
    })
    .map(|()| (texts, string))
    .map_err(|error| error.to_string())
}

/// Decodes every value that came in parts both ways.
fn compare_decoding(seen: &[Seen]) {
    let mut at = 0;
    while let Some(record) = seen.get(at) {
        at += 1;
        let Seen::Large { type_id, .. } = record else {
            continue;
        };
        let parts: Vec<(&[u8], bool)> = seen[at..]
            .iter()
            .map_while(|record| match record {
                Seen::Part { bytes, last } => Some((&bytes[..], *last)),
                _ => None,
            })
            .collect();
        let whole: Vec<u8> = parts.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        let value = RawValue {
            type_id: *type_id,
            bytes: &whole,
        };
        let by_whole = elements(|sink| decode(&value, &mut |element| sink(element)));
        let mut decoder = PartDecoder::new(*type_id);
        let by_parts = elements(|sink| {
            let mut sink = |element: Element<'_>| sink(element);
            for (bytes, last) in &parts {
                decoder.decode(bytes, *last, &mut sink)?;
            }
            Ok(())
        });
        assert_eq!(by_parts, by_whole, "{type_id:?}");
        assert!(by_whole.is_ok(), "{type_id:?} {by_whole:?}");
    }
}

fn limits(whole_bytes_max: usize, whole_elements_max: u64) -> ScannerLimits {
    ScannerLimits {
        whole_bytes_max,
        whole_elements_max,
        ..ScannerLimits::default()
    }
}

fn length(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x3f => out.push(number as u8),
        0x40..=0x3fff => out.extend_from_slice(&(0x4000 | number as u16).to_be_bytes()),
        _ => {
            out.push(0x81);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let number = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse::<i8>().ok());
    match number {
        Some(number) if number.to_string().as_bytes() == bytes => {
            out.extend_from_slice(&[0xc0, number as u8]);
        }
        _ => {
            length(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }
}

/// A listpack of strings below 64 bytes and of 7-bit numbers.
fn listpack(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        match std::str::from_utf8(element)
            .ok()
            .and_then(|text| text.parse::<u8>().ok())
        {
            Some(number) if number < 128 => body.extend_from_slice(&[number, 1]),
            _ => {
                assert!(element.len() < 64);
                body.push(0x80 | element.len() as u8);
                body.extend_from_slice(element);
                body.push(element.len() as u8 + 1);
            }
        }
    }
    let mut blob = (body.len() as u32 + 7).to_le_bytes().to_vec();
    blob.extend_from_slice(&u16::try_from(elements.len()).unwrap().to_le_bytes());
    blob.extend_from_slice(&body);
    blob.push(0xff);
    blob
}

fn node(out: &mut Vec<u8>, ms: u64, entries: &[Vec<u8>]) {
    let mut master = ms.to_be_bytes().to_vec();
    master.extend_from_slice(&1u64.to_be_bytes());
    string(out, &master);
    let number = |number: usize| number.to_string().into_bytes();
    let mut parts = vec![
        number(entries.len()),
        number(0),
        number(1),
        b"f".to_vec(),
        number(0),
    ];
    for (delta, value) in entries.iter().enumerate() {
        parts.extend([
            number(2),
            number(delta),
            number(0),
            value.clone(),
            number(4),
        ]);
    }
    string(out, &listpack(&parts));
}

fn stream(type_id: ValueType, texts: &[Vec<u8>], groups: usize) -> Vec<u8> {
    let byte = type_id.byte();
    let mut out = Vec::new();
    let nodes: Vec<_> = texts.chunks(3).collect();
    length(&mut out, nodes.len() as u64);
    for (n, entries) in nodes.iter().enumerate() {
        node(&mut out, 100 * (n as u64 + 1), entries);
    }
    for number in [texts.len() as u64, 90_000, 7] {
        length(&mut out, number);
    }
    if byte >= 19 {
        for number in [100, 1, 0, 0, texts.len() as u64] {
            length(&mut out, number);
        }
    }
    length(&mut out, groups as u64);
    for group in 0..groups {
        string(&mut out, format!("group-{group}").as_bytes());
        length(&mut out, 500);
        length(&mut out, 1);
        if byte >= 19 {
            length(&mut out, if group % 2 == 0 { u64::MAX } else { 3 });
        }
        let ids: Vec<Vec<u8>> = (0..group as u64 + 1)
            .map(|n| [(100 + n).to_be_bytes(), 1u64.to_be_bytes()].concat())
            .collect();
        length(&mut out, ids.len() as u64);
        for id in &ids {
            out.extend_from_slice(id);
            out.extend_from_slice(&1_700_000_000_000u64.to_le_bytes());
            length(&mut out, 70);
        }
        let (owned, nacked) = ids.split_at(ids.len() / 2);
        length(&mut out, 2);
        for (name, owned) in [("first", owned), ("second", &[])] {
            string(&mut out, name.as_bytes());
            out.extend_from_slice(&1_700_000_000_001u64.to_le_bytes());
            if byte >= 21 {
                out.extend_from_slice(&(-1i64).to_le_bytes());
            }
            length(&mut out, owned.len() as u64);
            out.extend_from_slice(&owned.concat());
        }
        if byte >= 27 {
            length(&mut out, nacked.len() as u64);
            out.extend_from_slice(&nacked.concat());
        }
    }
    if byte >= 26 {
        length(&mut out, 60);
        length(&mut out, 100);
        length(&mut out, groups as u64);
        for producer in 0..groups {
            string(&mut out, format!("producer-{producer}").as_bytes());
            length(&mut out, texts.len() as u64);
            for text in texts {
                string(&mut out, text);
                length(&mut out, 100);
                length(&mut out, 1);
            }
        }
        length(&mut out, 5);
        length(&mut out, 6);
    }
    out
}

const TYPES: [ValueType; 22] = [
    ValueType::String,
    ValueType::List,
    ValueType::Set,
    ValueType::Zset,
    ValueType::Zset2,
    ValueType::Hash,
    ValueType::ListQuicklist2,
    ValueType::HashListpack,
    ValueType::SetListpack,
    ValueType::HashListpackEx,
    ValueType::HashMetadataPreGa,
    ValueType::HashMetadata,
    ValueType::StreamListpacks,
    ValueType::StreamListpacks2,
    ValueType::StreamListpacks3,
    ValueType::StreamListpacks4,
    ValueType::StreamListpacks5,
    ValueType::Array,
    ValueType::HashTemplateListpack,
    ValueType::HashTemplateArray,
    ValueType::Module2,
    ValueType::Gcra,
];

/// A sound value of `type_id` made of `texts`.
fn value(type_id: ValueType, texts: &[Vec<u8>], groups: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let count = texts.len() as u64;
    match type_id {
        ValueType::String => {
            let bytes = texts.concat();
            length(&mut out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
        ValueType::Module2 => {
            length(&mut out, 1 << 40);
            for text in texts {
                out.push(5);
                string(&mut out, text);
            }
            out.push(0);
        }
        ValueType::Gcra => length(&mut out, count),
        ValueType::HashListpack | ValueType::SetListpack => {
            string(&mut out, &listpack(&[texts, texts].concat()));
        }
        ValueType::HashListpackEx => {
            out.extend_from_slice(&7u64.to_le_bytes());
            let triple = |text: &Vec<u8>| [text.clone(), text.clone(), b"7".to_vec()];
            string(
                &mut out,
                &listpack(&texts.iter().flat_map(triple).collect::<Vec<_>>()),
            );
        }
        ValueType::HashTemplateListpack => {
            out.push(0);
            string(&mut out, &listpack(texts));
            string(&mut out, &listpack(&[&[b"1".to_vec()], texts].concat()));
        }
        ValueType::HashTemplateArray => {
            out.push(groups as u8 % 2);
            if groups.is_multiple_of(2) {
                string(&mut out, &listpack(texts));
            } else {
                length(&mut out, count);
                texts.iter().for_each(|text| string(&mut out, text));
            }
            texts.iter().for_each(|text| string(&mut out, text));
        }
        ValueType::StreamListpacks
        | ValueType::StreamListpacks2
        | ValueType::StreamListpacks3
        | ValueType::StreamListpacks4
        | ValueType::StreamListpacks5 => out = stream(type_id, texts, groups),
        container => {
            if container == ValueType::HashMetadata {
                out.extend_from_slice(&1_000_000u64.to_le_bytes());
            }
            length(&mut out, count);
            if container == ValueType::Array {
                out.push(u8::from(groups > 0));
                if groups > 0 {
                    length(&mut out, 99);
                }
            }
            for (n, text) in texts.iter().enumerate() {
                item(&mut out, container, n as u64, text);
            }
        }
    }
    out
}

fn item(out: &mut Vec<u8>, container: ValueType, n: u64, text: &[u8]) {
    match container {
        ValueType::Zset => {
            string(out, text);
            match n % 3 {
                0 => out.push(254),
                _ => out.extend_from_slice(b"\x031.5"),
            }
        }
        ValueType::Zset2 => {
            string(out, text);
            out.extend_from_slice(&(n as f64).to_le_bytes());
        }
        ValueType::Hash => {
            string(out, text);
            string(out, text);
        }
        ValueType::HashMetadata | ValueType::HashMetadataPreGa => {
            length(out, n);
            string(out, text);
            string(out, text);
        }
        ValueType::ListQuicklist2 if n.is_multiple_of(2) => {
            length(out, 2);
            string(out, &listpack(&[text.to_vec(), b"5".to_vec()]));
        }
        ValueType::ListQuicklist2 => {
            length(out, 1);
            string(out, text);
        }
        ValueType::Array => {
            length(out, n * 100);
            length(out, n % 4);
            match n % 4 {
                1 => out.extend_from_slice(&(n as i64).to_le_bytes()),
                2 => out.extend_from_slice(&(n as f64 / 3.0).to_le_bytes()),
                _ => string(out, text),
            }
        }
        _ => string(out, text),
    }
}

fn file(values: &[(ValueType, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"REDIS0015\xfe\x02".to_vec();
    for (n, (type_id, value)) in values.iter().enumerate() {
        if n % 2 == 0 {
            bytes.extend_from_slice(b"\xfc\x00\xd8\xc3\x2c\xbb\x03\x00\x00\xf9\x07");
            bytes.extend_from_slice(b"\xf3\x01\x01\x02\x03\x04\x02\x07\x05\x01m\x00");
            bytes.extend_from_slice(b"\xfa\x0bmvcc-tstamp\x011");
        }
        bytes.push(type_id.byte());
        string(&mut bytes, format!("key-{n}").as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes.push(0xff);
    let checksum = crc64(0, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn a_value() -> impl Strategy<Value = (ValueType, Vec<u8>)> {
    let text = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50),
        (0u8..128).prop_map(|number| number.to_string().into_bytes()),
    ];
    let texts = prop::collection::vec(text, 0..30);
    (prop::sample::select(&TYPES[..]), texts, 0usize..5)
        .prop_map(|(type_id, texts, groups)| (type_id, value(type_id, &texts, groups)))
}

fn is_cut(type_id: ValueType) -> bool {
    !matches!(
        type_id,
        ValueType::HashListpack
            | ValueType::SetListpack
            | ValueType::HashListpackEx
            | ValueType::HashTemplateListpack
            | ValueType::HashTemplateArray
            | ValueType::Module2
            | ValueType::Gcra
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn parts_are_the_value_however_the_input_arrives(
        values in prop::collection::vec(a_value(), 1..5),
        whole_bytes_max in prop_oneof![0usize..600, Just(usize::MAX)],
        whole_elements_max in prop_oneof![0u64..20, Just(u64::MAX)],
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let bytes = file(&values);
        let whole = scan(&bytes, ScannerLimits::default(), []);
        prop_assert_eq!(&whole.1, &None);
        let limits = limits(whole_bytes_max, whole_elements_max);
        let (seen, error) = scan(&bytes, limits, []);
        prop_assert_eq!(error, None);
        let (joined, large) = joined(&seen);
        prop_assert_eq!(&joined, &whole.0);
        let too_large = |(type_id, value): &&(ValueType, Vec<u8>)| {
            value.len() > whole_bytes_max && is_cut(*type_id)
        };
        let by_bytes = values.iter().filter(too_large).count();
        if whole_elements_max == u64::MAX {
            prop_assert_eq!(large, by_bytes);
        } else {
            prop_assert!(large >= by_bytes);
        }
        compare_decoding(&seen);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        ends.sort_unstable();
        prop_assert_eq!(&scan(&bytes, limits, ends).0, &seen);
        prop_assert_eq!(&scan(&bytes, limits, 0..bytes.len()).0, &seen);
    }
}

#[test]
fn every_fixture_gives_its_values_in_parts_too() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb");
    let (mut files, mut in_parts) = (0, 0);
    for folder in [folder.join("synthetic"), folder.join("own"), folder] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rdb") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let whole = scan(&bytes, ScannerLimits::default(), []);
            for limits in [
                limits(0, u64::MAX),
                limits(300, u64::MAX),
                limits(usize::MAX, 2),
            ] {
                let (seen, error) = scan(&bytes, limits, []);
                assert_eq!(error, whole.1, "{}", path.display());
                let (joined, large) = joined(&seen);
                assert_eq!(joined, whole.0, "{}", path.display());
                compare_decoding(&seen);
                let pieces = scan(&bytes, limits, (0..bytes.len()).step_by(61));
                assert_eq!(pieces.0, seen, "{}", path.display());
                in_parts += large;
            }
            files += 1;
        }
    }
    assert!(
        files > 80 && in_parts > 500,
        "{files} files, {in_parts} values"
    );
}

/// The caller's buffer is what memory is spent on: it never needs more than a
/// part and an element.
#[test]
fn a_value_of_any_size_passes_through_a_small_buffer() {
    const ITEMS: u64 = 50_000;
    let limits = ScannerLimits {
        record_bytes_max: 4096,
        whole_bytes_max: 2048,
        whole_elements_max: u64::MAX,
    };
    let mut value = Vec::new();
    length(&mut value, ITEMS);
    for n in 0..ITEMS {
        string(
            &mut value,
            format!("an item of some length, number {n}").as_bytes(),
        );
    }
    let mut string_value = Vec::new();
    length(&mut string_value, 1_000_000);
    string_value.resize(string_value.len() + 1_000_000, b'x');
    let bytes = file(&[
        (ValueType::List, value.clone()),
        (ValueType::String, string_value.clone()),
    ]);
    let (mut scanner, mut start, mut end) = (Scanner::new(limits), 0, 0);
    let (mut joined, mut parts, mut largest) = (Vec::new(), 0, 0);
    loop {
        match scanner.next(&bytes[start..end]).unwrap() {
            None => {
                end = bytes.len().min(end + 100);
                largest = largest.max(end - start);
            }
            Some(event) => {
                start += event.consumed;
                match event.record {
                    Record::Part(part) => {
                        joined.extend_from_slice(part.bytes);
                        parts += 1;
                        assert!(part.last || (512..600).contains(&part.bytes.len()));
                    }
                    Record::End { .. } => break,
                    _ => {}
                }
            }
        }
    }
    assert!(joined == [value, string_value].concat());
    assert!(largest < 2200 && parts > 3000, "{largest} {parts}");
}

#[test]
fn a_decoder_of_parts_refuses_what_follows_the_last() {
    let mut decoder = PartDecoder::new(ValueType::Set);
    let mut sink = |_: Element<'_>| {};
    decoder.decode(b"\x02\x01a", false, &mut sink).unwrap();
    let cut_off = decoder.clone().decode(b"", true, &mut sink).unwrap_err();
    assert_eq!(cut_off.at, 3);
    decoder.decode(b"\x01b", true, &mut sink).unwrap();
    let behind = decoder.decode(b"\x01c", true, &mut sink).unwrap_err();
    assert_eq!(behind.at, 5);
    let mut decoder = PartDecoder::new(ValueType::String);
    decoder.decode(b"\x03a", false, &mut sink).unwrap();
    assert!(decoder.clone().decode(b"b", true, &mut sink).is_err());
    assert!(decoder.decode(b"bcd", true, &mut sink).is_err());
}
