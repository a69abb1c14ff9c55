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
                assert_eq!(scanner.offset(), start as u64);
                if matches!(event.record, Record::End { .. }) {
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
            Record::Key(key) => keys.push(key),
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
    assert_eq!(
        (first.db, &*first.key, first.freq),
        (3, &b"k"[..], Some(255))
    );
    assert_eq!(first.expires_at_ms, Some(4_102_444_800_000));
    assert_eq!(first.value.bytes, b"\x03abc");
    assert_eq!(
        (second.idle_s, second.freq, second.expires_at_ms),
        (Some(77), None, None)
    );
    assert_eq!(&*third.key, b"aaaaaaaaaaaaaaaa");
    assert_eq!(third.expires_at_ms, Some(2_000_000_000_000));
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
fn unknown_bytes_stop_with_their_place_and_the_last_key() {
    let bytes = file(b"REDIS0013", b"\xfe\x00\x00\x01k\x03abc\x1a\x01s");
    let error = records(&bytes, 1).unwrap_err();
    assert_eq!((error.offset, error.opcode), (18, Some(26)));
    assert_eq!(error.last_key, b"k");
    let text = error.to_string();
    assert!(
        text.contains("byte 18") && text.contains("26") && text.contains("\"k\""),
        "{text}"
    );
    for unknown in [6u8, 8, 26, 30, 64, 200, 242, 243] {
        let error = records(&file(b"REDIS0012", &[unknown]), 100).unwrap_err();
        assert!(matches!(error.kind, ScanErrorKind::Unknown(_)), "{unknown}");
    }
    let error = records(&file(b"REDIS0010", &[246]), 100).unwrap_err();
    assert_eq!(error.kind, ScanErrorKind::FunctionPreGa);
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
