//! Values of every layout: decoded, digested, and decoded from parts, with one
//! result; no panic, and no more memory than 64 MiB and twice the input, all
//! that is allocated on the way added up.
//!
//! ```text
//! | how 1 | size 1 | input |
//!   |       '- whole values have up to that many bytes
//!   |- bits 0-5: the type's byte under REDIS0015; 34: 22 under VALKEY080
//!   |- bit 6: the input is a blob, to be written as a string ..
//!   '- bit 7: .. whose first 4 bytes are to say its length (listpack, ziplist)
//! ```

#![no_main]

use std::alloc::System;

use keyferry::rdb::{
    DecodeError, Element, FileVersion, Magic, PartDecoder, RawValue, Record, Scanner,
    ScannerLimits, ValueType, content_digest, decode,
};
use libfuzzer_sys::fuzz_target;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FREE_BYTES: usize = 64 << 20;

/// Elements, one after the other, strings without what divides them.
type Decoded = (Vec<String>, Vec<u8>);

fn take(into: &mut Decoded, element: Element<'_>) {
    match element {
        Element::String(bytes) | Element::StringPart(bytes) => into.1.extend_from_slice(bytes),
        other => into.0.push(format!("{other:?}")),
    }
}

fn known(how: u8) -> Option<(FileVersion, ValueType)> {
    let (magic, number, byte) = match how & 0x3f {
        34 => (Magic::Valkey, 80, 22),
        byte => (Magic::Redis, 15, byte),
    };
    let version = FileVersion::known(magic, number)?;
    ValueType::known(version, byte).map(|type_id| (version, type_id))
}

/// The value as the scanner finds it in a file: its parts, or the whole as one.
fn parts(version: FileVersion, value: &RawValue<'_>, size: u8) -> Option<Vec<Vec<u8>>> {
    let mut file = version.to_string().into_bytes();
    file.extend_from_slice(&[value.type_id.byte(), 1, b'k']);
    file.extend_from_slice(value.bytes);
    let mut scanner = Scanner::new(ScannerLimits {
        whole_bytes_max: usize::from(size),
        ..ScannerLimits::default()
    });
    let (mut start, mut parts) = (0, Vec::new());
    while let Ok(Some(event)) = scanner.next(&file[start..]) {
        start += event.consumed;
        match event.record {
            Record::Key(key) => return Some(vec![key.value.bytes.to_vec()]),
            Record::Part(part) => {
                parts.push(part.bytes.to_vec());
                if part.last {
                    return Some(parts);
                }
            }
            _ => {}
        }
    }
    None
}

fn decode_parts(type_id: ValueType, parts: &[Vec<u8>]) -> Result<Decoded, DecodeError> {
    let (mut decoder, mut decoded) = (PartDecoder::new(type_id), Decoded::default());
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        decoder.decode(part, last, &mut |element| take(&mut decoded, element))?;
    }
    Ok(decoded)
}

/// Decodes to nothing and answers what was allocated on the way.
fn allocated(value: &RawValue<'_>) -> usize {
    let region = Region::new(ALLOCATOR);
    let _ = decode(value, &mut |_| {});
    let change = region.change();
    change.bytes_allocated + change.bytes_reallocated.max(0) as usize
}

fuzz_target!(|data: &[u8]| {
    let [how, size, input @ ..] = data else {
        return;
    };
    let Some((version, type_id)) = known(*how) else {
        return;
    };
    let mut bytes = Vec::new();
    if how & 0x40 != 0 {
        // In front of the listpack of these stands the smallest expiry.
        if type_id == ValueType::HashListpackEx {
            bytes.extend_from_slice(&[0; 8]);
        }
        bytes.push(0x80);
        bytes.extend_from_slice(&(input.len() as u32).to_be_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(input);
        if how & 0x80 != 0 && input.len() >= 4 {
            bytes[start..start + 4].copy_from_slice(&(input.len() as u32).to_le_bytes());
        }
    } else {
        bytes.extend_from_slice(input);
    }
    let value = RawValue {
        type_id,
        bytes: &bytes,
    };
    let allocated = allocated(&value);
    assert!(allocated <= FREE_BYTES + 2 * bytes.len(), "{allocated}");
    assert_eq!(content_digest(&value).is_ok(), decode(&value, &mut |_| {}).is_ok());

    // Cut anywhere, parts are refused or not, but nothing else happens.
    let (left, right) = bytes.split_at(usize::from(*size).min(bytes.len()));
    let _ = decode_parts(type_id, &[left.to_vec(), right.to_vec()]);

    let Some(parts) = parts(version, &value, *size) else {
        return;
    };
    let joined = parts.concat();
    let value = RawValue {
        type_id,
        bytes: &joined,
    };
    let mut by_whole = Decoded::default();
    let whole = decode(&value, &mut |element| take(&mut by_whole, element));
    assert_eq!(decode_parts(type_id, &parts), whole.map(|()| by_whole));
});
