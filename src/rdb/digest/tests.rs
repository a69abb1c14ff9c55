//! One content in every layout has one digest; any change of it another.

use proptest::prelude::*;

use super::super::value_type::ValueType;
use super::*;

fn digest(type_id: ValueType, bytes: &[u8]) -> ContentDigest {
    content_digest(&RawValue { type_id, bytes }).unwrap()
}

/// An RDB string of at most 63 bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(bytes.len()).unwrap()];
    assert!(bytes.len() < 64);
    out.extend_from_slice(bytes);
    out
}

/// A listpack of short strings, and of integers below 128 as integers.
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

/// A ziplist of short strings, integers below 13 as integers.
fn ziplist(elements: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        // Walks forward do not look at the size of the entry before.
        body.push(0);
        match element.parse::<u8>() {
            Ok(number) if number < 13 => body.push(0xf1 + number),
            _ => {
                body.push(element.len() as u8);
                body.extend_from_slice(element.as_bytes());
            }
        }
    }
    let mut blob = (body.len() as u32 + 11).to_le_bytes().to_vec();
    blob.extend_from_slice(&[0; 4]);
    blob.extend_from_slice(&(elements.len() as u16).to_le_bytes());
    blob.extend_from_slice(&body);
    blob.push(0xff);
    string(&blob)
}

/// A count, then strings; numbers as RDB integers.
fn strings(count: u8, elements: &[&str]) -> Vec<u8> {
    let mut out = vec![count];
    for element in elements {
        match element.parse::<i8>() {
            Ok(number) => out.extend_from_slice(&[0xc0, number as u8]),
            Err(_) => out.extend_from_slice(&string(element.as_bytes())),
        }
    }
    out
}

#[test]
fn a_set_in_every_layout_and_order() {
    let one = digest(ValueType::Set, &strings(3, &["1", "2", "30"]));
    assert_eq!((one.kind, one.length), (ValueKind::Set, 3));
    assert_eq!(one, digest(ValueType::Set, &strings(3, &["30", "1", "2"])));
    assert_eq!(one, digest(ValueType::Set, b"\x03\x011\x012\x0230"));
    assert_eq!(
        one,
        digest(ValueType::SetListpack, &listpack(&["2", "30", "1"]))
    );
    let intset = string(&[2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 2, 0, 30, 0]);
    assert_eq!(one, digest(ValueType::SetIntset, &intset));
    assert_ne!(one, digest(ValueType::Set, &strings(3, &["1", "2", "31"])));
    assert_ne!(one, digest(ValueType::Set, &strings(2, &["1", "2"])));
}

#[test]
fn a_list_in_every_layout_but_one_order() {
    let items = ["a", "5", "", "bcd"];
    let one = digest(ValueType::List, &strings(4, &items));
    assert_eq!((one.kind, one.length), (ValueKind::List, 4));
    assert_eq!(one, digest(ValueType::ListZiplist, &ziplist(&items)));
    let quicklist = [&[2][..], &ziplist(&items[..1]), &ziplist(&items[1..])].concat();
    assert_eq!(one, digest(ValueType::ListQuicklist, &quicklist));
    let quicklist_2 = [
        &[3, 2][..],
        &listpack(&items[..2]),
        &[1, 0, 2],
        &listpack(&items[3..]),
    ];
    assert_eq!(
        one,
        digest(ValueType::ListQuicklist2, &quicklist_2.concat())
    );
    assert_ne!(
        one,
        digest(ValueType::List, &strings(4, &["5", "a", "", "bcd"]))
    );
    assert_ne!(
        one,
        digest(ValueType::List, &strings(4, &["a", "", "5", "bcd"]))
    );
}

#[test]
fn a_hash_in_every_layout_and_order() {
    let one = digest(ValueType::Hash, &strings(2, &["f", "1", "gg", "vv"]));
    assert_eq!((one.kind, one.length), (ValueKind::Hash, 2));
    assert_eq!(
        one,
        digest(ValueType::Hash, &strings(2, &["gg", "vv", "f", "1"]))
    );
    assert_eq!(
        one,
        digest(ValueType::HashListpack, &listpack(&["gg", "vv", "f", "1"]))
    );
    assert_eq!(
        one,
        digest(ValueType::HashZiplist, &ziplist(&["f", "1", "gg", "vv"]))
    );
    let zipmap = string(b"\x02\x01f\x01\x001\x02gg\x02\x01vv.\xff");
    assert_eq!(one, digest(ValueType::HashZipmap, &zipmap));
    let no_expiry = string(&listpack(&["f", "1", "0", "gg", "vv", "0"])[1..]);
    assert_eq!(one, digest(ValueType::HashListpackExPreGa, &no_expiry));
    let expiry = string(&listpack(&["f", "1", "9", "gg", "vv", "0"])[1..]);
    assert_ne!(one, digest(ValueType::HashListpackExPreGa, &expiry));
    assert_ne!(
        one,
        digest(ValueType::Hash, &strings(2, &["f", "1", "g", "gvv"]))
    );
    assert_ne!(
        one,
        digest(ValueType::Hash, &strings(2, &["1", "f", "gg", "vv"]))
    );
}

#[test]
fn scores_are_compared_as_numbers() {
    let doubles = |scores: [f64; 3]| {
        let mut out = vec![3];
        for (name, score) in [b"a", b"b", b"c"].into_iter().zip(scores) {
            out.extend_from_slice(&string(name));
            out.extend_from_slice(&score.to_le_bytes());
        }
        out
    };
    let one = digest(ValueType::Zset2, &doubles([1.0, -0.5, f64::INFINITY]));
    assert_eq!((one.kind, one.length), (ValueKind::SortedSet, 3));
    let as_text = b"\x03\x01a\x011\x01b\x04-0.5\x01c\xfe";
    assert_eq!(one, digest(ValueType::Zset, as_text));
    let packed = listpack(&["b", "-0.5", "a", "1", "c", "inf"]);
    assert_eq!(one, digest(ValueType::ZsetListpack, &packed));
    let zipped = ziplist(&["b", "-5e-1", "a", "1.0", "c", "inf"]);
    assert_eq!(one, digest(ValueType::ZsetZiplist, &zipped));
    assert_ne!(
        one,
        digest(ValueType::Zset2, &doubles([1.0, -0.5, f64::NEG_INFINITY]))
    );
    let zero = digest(ValueType::Zset2, &doubles([0.0, 1.0, 2.0]));
    assert_eq!(zero, digest(ValueType::Zset2, &doubles([-0.0, 1.0, 2.0])));
    for bytes in [
        &b"\x01\x01a\xfd"[..],
        b"\x01\x01a\x03nan",
        b"\x01\x01a\x00",
        b"\x01\x01a\x02x1",
    ] {
        let refused = content_digest(&RawValue {
            type_id: ValueType::Zset,
            bytes,
        });
        assert!(refused.is_err(), "{bytes:?}");
    }
}

#[test]
fn a_string_is_its_text() {
    let one = digest(ValueType::String, b"\xc0\x0a");
    assert_eq!((one.kind, one.length), (ValueKind::String, 2));
    assert_eq!(one, digest(ValueType::String, b"\x0210"));
    assert_ne!(one, digest(ValueType::String, b"\x0211"));
    let packed = digest(ValueType::String, b"\xc3\x05\x10\x00a\xe0\x06\x00");
    assert_eq!(packed, digest(ValueType::String, b"\x10aaaaaaaaaaaaaaaa"));
}

#[test]
fn bytes_behind_a_value_are_an_error() {
    let error = content_digest(&RawValue {
        type_id: ValueType::Set,
        bytes: b"\x01\x01a!",
    });
    let error = error.unwrap_err();
    assert_eq!((error.type_id, error.at), (ValueType::Set, 3));
    assert!(error.to_string().contains("byte 3"), "{error}");
}

const EVERY_TYPE: [ValueType; 25] = [
    ValueType::String,
    ValueType::List,
    ValueType::Set,
    ValueType::Zset,
    ValueType::Hash,
    ValueType::Zset2,
    ValueType::Module2,
    ValueType::HashZipmap,
    ValueType::ListZiplist,
    ValueType::SetIntset,
    ValueType::ZsetZiplist,
    ValueType::HashZiplist,
    ValueType::ListQuicklist,
    ValueType::StreamListpacks,
    ValueType::HashListpack,
    ValueType::ZsetListpack,
    ValueType::ListQuicklist2,
    ValueType::StreamListpacks2,
    ValueType::SetListpack,
    ValueType::StreamListpacks3,
    ValueType::HashMetadataPreGa,
    ValueType::HashListpackExPreGa,
    ValueType::HashMetadata,
    ValueType::HashListpackEx,
    ValueType::HashValkey2,
];

proptest! {
    #[test]
    fn garbage_of_any_type_ends(
        which in 0..EVERY_TYPE.len(),
        bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
    ) {
        if let Ok(digest) = content_digest(&RawValue { type_id: EVERY_TYPE[which], bytes: &bytes }) {
            prop_assert!(digest.kind == EVERY_TYPE[which].kind());
        }
    }
}
