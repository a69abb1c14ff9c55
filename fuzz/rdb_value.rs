//! Values of every layout: decoded, digested, and decoded from parts, with one
//! result; no panic, and no more memory than `memory.rs` allows.
//!
//! ```text
//! | how 1 (`values.rs`) | size 1 | input |
//!                         '- whole values have up to that many bytes
//! ```

#![no_main]

mod memory;
mod values;

use keyferry::rdb::{
    DecodeError, Element, PartDecoder, RawValue, ValueType, content_digest, decode,
};
use libfuzzer_sys::fuzz_target;
use memory::Meter;
use values::{known, parts, value_bytes};

/// Elements, one after the other, strings without what divides them.
type Decoded = (Vec<String>, Vec<u8>);

fn take(into: &mut Decoded, element: Element<'_>) {
    match element {
        Element::String(bytes) | Element::StringPart(bytes) => into.1.extend_from_slice(bytes),
        other => into.0.push(format!("{other:?}")),
    }
}

fn decode_parts(type_id: ValueType, parts: &[Vec<u8>]) -> Result<Decoded, DecodeError> {
    let (mut decoder, mut decoded) = (PartDecoder::new(type_id), Decoded::default());
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        decoder.decode(part, last, &mut |element| take(&mut decoded, element))?;
    }
    Ok(decoded)
}

fuzz_target!(|data: &[u8]| {
    let [how, size, input @ ..] = data else {
        return;
    };
    let Some((version, type_id)) = known(*how) else {
        return;
    };
    let bytes = value_bytes(type_id, *how, input);
    let value = RawValue {
        type_id,
        bytes: &bytes,
    };
    let mut meter = Meter::default();
    let decoded = meter.of(|| decode(&value, &mut |_| {}).is_ok());
    meter.check(bytes.len());
    let mut meter = Meter::default();
    let digested = meter.of(|| content_digest(&value).is_ok());
    meter.check(bytes.len());
    assert_eq!(digested, decoded);

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
