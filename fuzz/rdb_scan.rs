//! RDB files, in one piece and cut where the data says, with values whole and in
//! parts: the same records and the same error; no panic, and no more memory than
//! `memory.rs` allows.
//!
//! ```text
//! | how 1 | cuts, how many 1 | cuts, 1 each: distance from the one before | input |
//!   |- bits 0-1: a whole file, or what follows a header (REDIS0015, VALKEY080, REDIS0009)
//!   |- bit 2: the end and its checksum are written behind the input
//!   |- bits 3-4: whole values have up to any, 0, 16 or 300 bytes
//!   '- bits 5-6: and up to any, 0, 1 or 5 elements
//! ```

#![no_main]

mod memory;

use keyferry::rdb::{Record, ScanError, ScanErrorKind, Scanner, ScannerLimits, crc64};
use libfuzzer_sys::fuzz_target;
use memory::Meter;

/// A record without its borrow; parts are put together before they are compared.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Key(String, Vec<u8>),
    Other(String),
}

#[derive(Debug, PartialEq)]
struct Scanned {
    seen: Vec<Seen>,
    error: Option<ScanError>,
    /// Bytes of records, without those of a value whose last part is missing.
    offset: u64,
    /// The value whose last part is missing.
    open: Option<(String, Vec<u8>)>,
    large: usize,
}

fn scan(input: &[u8], limits: ScannerLimits, ends: &[usize]) -> Scanned {
    let mut scanner = Scanner::new(limits);
    let mut meter = Meter::default();
    let (mut start, mut whole_offset) = (0, 0);
    let mut scanned = Scanned {
        seen: Vec::new(),
        error: None,
        offset: 0,
        open: None,
        large: 0,
    };
    'input: for &end in ends {
        loop {
            let (reader, piece) = (&mut scanner, &input[start..end]);
            let event = match meter.of(move || reader.next(piece)) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    assert!(error.offset <= input.len() as u64);
                    scanned.error = Some(error);
                    break 'input;
                }
            };
            assert!(event.consumed > 0 && start + event.consumed <= end);
            start += event.consumed;
            let is_end = matches!(event.record, Record::End { .. });
            scanned.take(&event.record);
            if scanned.open.is_none() {
                whole_offset = start as u64;
            }
            if is_end {
                break 'input;
            }
        }
    }
    meter.check(input.len());
    assert_eq!(scanner.offset(), start as u64);
    scanned.offset = whole_offset;
    scanned
}

impl Scanned {
    fn take(&mut self, record: &Record<'_>) {
        match record {
            Record::Part(part) => {
                let (head, mut value) = self.open.take().expect("a part of a value");
                assert!(!part.bytes.is_empty());
                value.extend_from_slice(part.bytes);
                if part.last {
                    self.seen.push(Seen::Key(head, value));
                } else {
                    self.open = Some((head, value));
                }
                return;
            }
            Record::LargeKey(key) => {
                let head = format!(
                    "{} {:?} {:?} {:?} {:?} {:?} {:?}",
                    key.db,
                    key.key,
                    key.expires_at_ms,
                    key.idle_s,
                    key.freq,
                    key.metadata,
                    key.type_id
                );
                self.open = Some((head, Vec::new()));
                self.large += 1;
                return;
            }
            Record::Key(key) => {
                let head = format!(
                    "{} {:?} {:?} {:?} {:?} {:?} {:?}",
                    key.db,
                    key.key,
                    key.expires_at_ms,
                    key.idle_s,
                    key.freq,
                    key.metadata,
                    key.value.type_id
                );
                self.seen.push(Seen::Key(head, key.value.bytes.to_vec()));
            }
            other => self.seen.push(Seen::Other(format!("{other:?}"))),
        }
        assert!(self.open.is_none(), "nothing stands amid parts");
    }
}

fn limits(how: u8) -> ScannerLimits {
    ScannerLimits {
        whole_bytes_max: [usize::MAX, 0, 16, 300][usize::from(how >> 3 & 3)],
        whole_elements_max: [u64::MAX, 0, 1, 5][usize::from(how >> 5 & 3)],
        ..ScannerLimits::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let [how, cuts, rest @ ..] = data else {
        return;
    };
    let Some((cuts, body)) = rest.split_at_checked(usize::from(cuts % 16)) else {
        return;
    };
    let header = [&b""[..], b"REDIS0015", b"VALKEY080", b"REDIS0009"][usize::from(how & 3)];
    let mut input = [header, body].concat();
    if how & 4 != 0 {
        input.push(0xff);
        let checksum = crc64(0, &input);
        input.extend_from_slice(&checksum.to_le_bytes());
    }
    let mut ends: Vec<usize> = Vec::new();
    for &cut in cuts {
        let end = ends.last().copied().unwrap_or(0) + usize::from(cut);
        ends.push(end.min(input.len()));
    }
    ends.push(input.len());

    let whole = scan(&input, ScannerLimits::default(), &[input.len()]);
    assert!(whole.open.is_none());
    assert_eq!(scan(&input, ScannerLimits::default(), &ends), whole);

    let in_parts = scan(&input, limits(*how), &[input.len()]);
    let in_pieces = scan(&input, limits(*how), &ends);
    assert_eq!(in_pieces.seen, in_parts.seen);
    assert_eq!(in_pieces.offset, in_parts.offset);
    assert_eq!(in_pieces.error, in_parts.error);
    // The head of a value that breaks the format is told or not, as its pieces come.
    if in_parts.error.is_none() {
        assert_eq!(in_pieces, in_parts);
    }
    assert_eq!(in_parts.seen, whole.seen);
    assert_eq!(in_parts.offset, whole.offset);
    // What is too large as one record may be taken in parts, or fail later.
    let too_large = matches!(
        &whole.error,
        Some(error) if matches!(error.kind, ScanErrorKind::TooLarge { .. })
    );
    assert!(too_large || in_parts.error == whole.error);
});
