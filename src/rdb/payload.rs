//! DUMP payloads: what RESTORE takes and DUMP gives.
//!
//! ```text
//! | type 1 | value, exactly as in an RDB | version 2 LE | crc64 8 LE |
//! ```
//!
//! From version 13 on, what modules attached to the key may stand before the
//! type, as the KEY_META record of an RDB.
//!
//! The checksum covers everything before it. Servers compare the version with
//! their own and parse by the type byte alone, so we stamp the lowest version
//! that knows the type.

use super::crc64::crc64;
use super::reader::{Malformed, Reader};
use super::shape::{opcode, record_program};
use super::skip::{Skip, Walk};
use super::value_type::{RawValue, ValueType};
use super::version::{FileVersion, Magic};

/// Version and checksum.
const FOOTER_BYTES: usize = 10;
/// First RDB version with KEY_META records.
const METADATA_VERSION: u16 = 13;

/// A value that no RESTORE accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRestorable {
    /// No layout has values of zero bytes.
    #[error("a value of type {0:?} has no bytes: it was cut off before it came here")]
    Empty(ValueType),
}

/// Why bytes are not a DUMP payload we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Shorter than a type, one byte of value and the footer.
    #[error("a DUMP payload of {0} bytes is too short")]
    TooShort(usize),
    /// A version no server we know writes.
    #[error("DUMP payload of unknown RDB version {0}")]
    Version(u16),
    /// A value type that its version does not have, or we do not know.
    #[error("DUMP payload of unknown value type {byte} at byte 0, RDB version {version}")]
    Type {
        /// The type byte.
        byte: u8,
        /// The version in the footer.
        version: u16,
    },
    /// What modules attached to the key breaks its format.
    #[error("DUMP payload whose module metadata are malformed: {0}")]
    Metadata(#[from] Malformed),
    /// The checksum is not that of the bytes.
    #[error(
        "DUMP payload states checksum {stated:016x} but has {computed:016x}: damaged on its way"
    )]
    Checksum {
        /// As written in the footer.
        stated: u64,
        /// Of the bytes.
        computed: u64,
    },
}

/// Appends `value` as RESTORE takes it.
///
/// # Errors
/// [`NotRestorable`] if no server would accept it; nothing is appended then.
pub fn write_dump_payload(out: &mut Vec<u8>, value: &RawValue<'_>) -> Result<(), NotRestorable> {
    write_dump_payload_with_metadata(out, &[], value)
}

/// As [`write_dump_payload`], with the key's KEY_META record (its opcode
/// first; empty for none) before the type, where Redis 8.6 and later read it.
///
/// # Errors
/// [`NotRestorable`] if no server would accept it; nothing is appended then.
pub fn write_dump_payload_with_metadata(
    out: &mut Vec<u8>,
    metadata: &[u8],
    value: &RawValue<'_>,
) -> Result<(), NotRestorable> {
    if value.bytes.is_empty() {
        return Err(NotRestorable::Empty(value.type_id));
    }
    let start = out.len();
    let lowest = value.type_id.lowest_version();
    let version = if metadata.is_empty() {
        lowest
    } else {
        lowest.max(METADATA_VERSION)
    };
    out.reserve(metadata.len() + 1 + value.bytes.len() + FOOTER_BYTES);
    out.extend_from_slice(metadata);
    out.push(value.type_id.byte());
    out.extend_from_slice(value.bytes);
    out.extend_from_slice(&version.to_le_bytes());
    let checksum = crc64(0, out.get(start..).unwrap_or(&[]));
    out.extend_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// A string as an RDB file has it at the beginning of some bytes, and what is behind it.
/// Nothing if it is not whole.
pub fn split_string(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut reader = Reader::new(bytes);
    let string = reader.string().ok()?;
    let string = string.to_vec();
    Some((string, reader.rest()))
}

/// Splits a payload into its value and the version it states. A checksum of
/// zero is taken as none, as servers from Redis 8.4 on do.
///
/// # Errors
/// [`PayloadError`] names what does not fit. The value's own bytes are not
/// looked into.
pub fn split_dump_payload(payload: &[u8]) -> Result<(RawValue<'_>, u16), PayloadError> {
    split_dump_payload_with_metadata(payload).map(|(_, value, version)| (value, version))
}

/// As [`split_dump_payload`], with the key's KEY_META record (its opcode first;
/// empty for none) before the value.
///
/// # Errors
/// As [`split_dump_payload`].
pub fn split_dump_payload_with_metadata(
    payload: &[u8],
) -> Result<(&[u8], RawValue<'_>, u16), PayloadError> {
    let too_short = PayloadError::TooShort(payload.len());
    let (checked, stated) = payload.split_last_chunk::<8>().ok_or(too_short)?;
    let (body, number) = checked.split_last_chunk::<2>().ok_or(too_short)?;
    let number = u16::from_le_bytes(*number);
    let version = FileVersion::of_dump(number).ok_or(PayloadError::Version(number))?;
    let stated = u64::from_le_bytes(*stated);
    if stated != 0 {
        let computed = crc64(0, checked);
        if stated != computed {
            return Err(PayloadError::Checksum { stated, computed });
        }
    }
    let (metadata, body) = split_metadata(version, body)?;
    let (&byte, bytes) = body.split_first().ok_or(too_short)?;
    if bytes.is_empty() {
        return Err(too_short);
    }
    let type_id = ValueType::known(version, byte).ok_or(PayloadError::Type {
        byte,
        version: number,
    })?;
    Ok((metadata, RawValue { type_id, bytes }, number))
}

/// Splits the KEY_META record, if there is one, from what stands behind it.
fn split_metadata(version: FileVersion, body: &[u8]) -> Result<(&[u8], &[u8]), PayloadError> {
    let Some(rest) = body.strip_prefix(&[opcode::KEY_META]) else {
        return Ok((&[], body));
    };
    let program = match record_program(version, opcode::KEY_META) {
        Some(program) if version.magic() == Magic::Redis => program,
        _ => return Ok((&[], body)),
    };
    let mut at = 0;
    match Skip::new(program).run(rest, &mut at)? {
        Walk::Done => body
            .split_at_checked(at + 1)
            .ok_or(PayloadError::TooShort(body.len())),
        Walk::Needs(_) | Walk::Boundary => Err(Malformed::Truncated.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: [u8; 13] = [
        0x00, 0xc0, 0x0a, 0x0a, 0x00, 0x6e, 0x9f, 0x57, 0x45, 0x0e, 0xae, 0x63, 0xbb,
    ];

    #[test]
    fn a_payload_of_a_server_is_split() {
        let (value, version) = split_dump_payload(&TEN).unwrap();
        assert_eq!(version, 10);
        assert_eq!(
            value,
            RawValue {
                type_id: ValueType::String,
                bytes: &[0xc0, 0x0a]
            }
        );
    }

    #[test]
    fn what_is_written_is_split_again_with_the_lowest_version() {
        let value = RawValue {
            type_id: ValueType::Zset2,
            bytes: &[0x00],
        };
        let mut out = b"before".to_vec();
        write_dump_payload(&mut out, &value).unwrap();
        assert_eq!(split_dump_payload(&out[6..]).unwrap(), (value, 8));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for byte in 0..TEN.len() {
            for bit in 0..8 {
                let mut damaged = TEN;
                damaged[byte] ^= 1 << bit;
                assert!(split_dump_payload(&damaged).is_err());
            }
        }
    }

    #[test]
    fn a_zero_checksum_means_none() {
        let mut payload = TEN;
        payload[5..].fill(0);
        assert!(split_dump_payload(&payload).is_ok());
    }

    #[test]
    fn short_payloads_and_unknown_types_are_refused() {
        for len in 0..12 {
            let refused = split_dump_payload(&TEN[..len]);
            assert!(refused.is_err(), "{len}");
        }
        let mut payload = TEN;
        payload[5..].fill(0);
        payload[0] = 30;
        let refused = split_dump_payload(&payload);
        assert_eq!(
            refused,
            Err(PayloadError::Type {
                byte: 30,
                version: 10
            })
        );
        let empty = RawValue {
            type_id: ValueType::String,
            bytes: &[],
        };
        assert!(write_dump_payload(&mut Vec::new(), &empty).is_err());
    }
}
