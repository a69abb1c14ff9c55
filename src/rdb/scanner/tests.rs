//! Records in pieces, attributes across records, stops with their place.

use super::*;

/// A file of version `header` with its checksum.
fn file(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = [header, body, &[0xff]].concat();
    let checksum = crc64(0, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Debug text of each record of `bytes` that arrive `step` at a time.
fn records(bytes: &[u8], step: usize) -> Result<Vec<String>, ScanError> {
    let mut scanner = Scanner::new(ScannerLimits::default());
    let (mut start, mut end, mut records) = (0, 0, Vec::new());
    loop {
        match scanner.next(&bytes[start..end])? {
            Some(event) => {
                records.push(format!("{:?}", event.record));
                start += event.consumed;
                let is_end = matches!(event.record, Record::End { .. });
                assert_eq!(scanner.offset(), start as u64);
                if is_end {
                    assert_eq!(start, bytes.len());
                    return Ok(records);
                }
            }
            None if end == bytes.len() => {
                records.push("cut off".to_owned());
                return Ok(records);
            }
            None => end = bytes.len().min(end + step),
        }
    }
}

const MIXED: &[u8] = b"\xfa\x0erepl-stream-db\xc0\x03\xfe\x03\xfb\x02\x01\
    \xfc\x00\xd8\xc3\x2c\xbb\x03\x00\x00\xf9\xff\xfa\x0bmvcc-tstamp\x011\x00\x01k\x03abc\
    \xf8\x40\x4d\x02\x01s\x02\x01a\x01b\xfd\x00\x94\x35\x77\x04\xc3\x05\x10\x00a\xe0\x06\x00\x00";

#[test]
fn attributes_wait_for_their_key_across_other_records() {
    let bytes = file(b"REDIS0009", MIXED);
    let mut scanner = Scanner::new(ScannerLimits::default());
    let mut rest = &bytes[..];
    let mut keys = Vec::new();
    while let Some(event) = scanner.next(rest).unwrap() {
        rest = &rest[event.consumed..];
        match event.record {
            Record::Key(key) => {
                let value = key.value.bytes.to_vec();
                keys.push((
                    key.db,
                    key.key.to_vec(),
                    key.expires_at_ms,
                    key.idle_s,
                    key.freq,
                    value,
                ));
            }
            Record::End { checksum } => {
                assert_eq!(checksum, Checksum::Verified);
                break;
            }
            _ => {}
        }
    }
    assert!(rest.is_empty());
    let [first, second, third] = &keys[..] else {
        panic!("{keys:?}")
    };
    let at = Some(4_102_444_800_000);
    let expected = (3, b"k".to_vec(), at, None, Some(255), b"\x03abc".to_vec());
    assert_eq!(*first, expected);
    assert_eq!((second.2, second.3, second.4), (None, Some(77), None));
    assert_eq!(third.1, b"aaaaaaaaaaaaaaaa");
    assert_eq!(third.2, Some(2_000_000_000_000));
    assert_eq!(scanner.next(b"").unwrap_err().kind, ScanErrorKind::Finished);
}

#[test]
fn pieces_of_any_size_give_the_same_records() {
    let bytes = file(b"REDIS0009", MIXED);
    let whole = records(&bytes, bytes.len()).unwrap();
    assert_eq!(whole.len(), 9, "{whole:#?}");
    for step in 1..bytes.len() {
        assert_eq!(records(&bytes, step).unwrap(), whole);
    }
    for cut in 0..bytes.len() {
        let records = records(&bytes[..cut], 7).unwrap();
        assert_eq!(records.last().unwrap(), "cut off");
    }
}

#[test]
fn libraries_of_release_candidates_get_their_first_line() {
    for described in [&b"\x01\x04desc"[..], b"\x00"] {
        let body = [b"\xf6\x03lib\x03LUA", described, b"\x04code"].concat();
        for step in [1, 100] {
            let records = records(&file(b"REDIS0010", &body), step).unwrap();
            let library = &b"#!LUA name=lib\ncode"[..];
            let expected = format!("{:?}", Record::Function(library.to_vec().into()));
            assert_eq!(records[1], expected);
        }
    }
}

#[test]
fn unknown_bytes_stop_with_their_place_and_the_last_key() {
    let bytes = file(b"REDIS0012", b"\xfe\x00\x00\x01k\x03abc\x1a\x01s");
    let error = records(&bytes, 1).unwrap_err();
    assert_eq!((error.offset, error.opcode), (18, Some(26)));
    assert_eq!(error.last_key, b"k");
    let text = error.to_string();
    assert!(
        text.contains("byte 18") && text.contains("26") && text.contains("\"k\""),
        "{text}"
    );
    for unknown in [6u8, 8, 26, 30, 200, 242, 243] {
        let error = records(&file(b"REDIS0012", &[unknown]), 100).unwrap_err();
        assert!(matches!(error.kind, ScanErrorKind::Unknown(_)), "{unknown}");
    }
    let error = records(&file(b"REDIS0009", &[64]), 100).unwrap_err();
    assert_eq!(error.kind, ScanErrorKind::KeyDbCron);
    for (version, unknown) in [
        (&b"REDIS0013"[..], 27u8),
        (b"REDIS0014", 29),
        (b"REDIS0014", 242),
        (b"REDIS0015", 34),
        (b"VALKEY081", 26),
        (b"VALKEY081", 242),
    ] {
        let error = records(&file(version, &[unknown]), 100).unwrap_err();
        assert!(matches!(error.kind, ScanErrorKind::Unknown(_)), "{unknown}");
    }
}

#[test]
fn a_wrong_checksum_is_an_error_and_a_zero_one_is_none() {
    let mut bytes = file(b"REDIS0009", MIXED);
    let end = bytes.len() - 8;
    bytes[end] ^= 1;
    let error = records(&bytes, 3).unwrap_err();
    assert!(matches!(error.kind, ScanErrorKind::Checksum { .. }));
    bytes[end..].fill(0);
    let whole = records(&bytes, 3).unwrap();
    assert!(whole.last().unwrap().contains("Zero"));
    let old = [&b"REDIS0004"[..], b"\xfe\x00\x00\x01k\x01v\xff"].concat();
    assert!(records(&old, 1).unwrap().last().unwrap().contains("Absent"));
}

#[test]
fn a_declared_length_beyond_the_limit_stops_at_once() {
    let limits = ScannerLimits {
        record_bytes_max: 1000,
        ..ScannerLimits::default()
    };
    for body in [
        &b"\x00\x01k\x80\xff\xff\xff\xff"[..],
        b"\x00\x01k\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x01k\xc3\x80\xff\xff\xff\xff\x01",
        b"\xfa\x80\xff\xff\xff\xff",
        b"\x01\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff\x43\xe9",
    ] {
        let mut scanner = Scanner::new(limits);
        assert!(scanner.next(b"REDIS0011").unwrap().is_some());
        let error = scanner.next(body).unwrap_err();
        assert!(
            matches!(error.kind, ScanErrorKind::TooLarge { max: 1000, .. }),
            "{error}"
        );
    }
}

#[test]
fn metadata_belong_to_the_next_key_wherever_it_is() {
    let meta = b"\xf3\x01\x01\x02\x03\x04\x02\x07\x05\x01m\x00";
    let body = [
        &meta[..],
        b"\x00\x01k\x01v",
        meta,
        b"\xfa\x0bmvcc-tstamp\x011",
        b"\x00\x01l\x01v\xfa\x13keydb-subexpire-key\x01f\x00\x01m\x01v",
    ]
    .concat();
    let bytes = file(b"REDIS0013", &body);
    for step in 1..bytes.len() {
        let records = records(&bytes, step).unwrap();
        let keys: Vec<_> = records
            .iter()
            .filter(|text| text.starts_with("Key"))
            .collect();
        let attached: Vec<_> = keys
            .iter()
            .map(|text| text.contains("metadata: Some([243, 1, "))
            .collect();
        assert_eq!(attached, [true, true, false], "{records:#?}");
    }
}

#[test]
fn hashes_leave_with_the_names_of_their_template() {
    let body = b"\xf2\x05\x02\x01a\xc0\x07\x20\x01k\x05\x01x\xc0\x09\
        \x1e\x01l\x0e\x0e\0\0\0\x03\0\x05\x01\x81x\x02\x09\x01\xff";
    let bytes = file(b"REDIS0015", body);
    for step in 1..bytes.len() {
        let records = records(&bytes, step).unwrap();
        assert_eq!(records[1], "HashTemplate { id: 5, fields: 2 }");
        let plain = |value: &[u8]| format!("value: RawValue {{ type_id: Hash, bytes: {value:?} }}");
        assert!(
            records[2].contains(&plain(b"\x02\x01a\x01x\xc0\x07\xc0\x09")),
            "{records:#?}"
        );
        assert!(
            records[3].contains(&plain(b"\x02\x01a\x01x\xc0\x07\x019")),
            "{records:#?}"
        );
    }
    let error = records(&file(b"REDIS0015", b"\x20\x01k\x05\x01x"), 1).unwrap_err();
    assert_eq!(error.kind, ScanErrorKind::UnknownTemplate(5));
    assert_eq!(error.last_key, b"k");
}
