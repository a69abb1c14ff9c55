//! A key of a snapshot as the RESTORE that recreates it.
//!
//! ```text
//! RESTORE key ttl payload [REPLACE] ABSTTL      ttl: Unix time in ms, 0 for none
//! payload = type | value bytes as in the snapshot | version 2 LE | crc64 8 LE
//! ```

use crate::rdb::{NotRestorable, RawValue, write_dump_payload};
use crate::resp::{write_array_header, write_bulk};

use super::config::BULK_BYTES_MAX;

/// Type byte, version and checksum around a value.
const PAYLOAD_EXTRA_BYTES: usize = 1 + 2 + 8;

/// Why a key cannot be sent.
#[derive(Debug)]
pub(super) enum Unsendable {
    /// Its payload would be this many bytes.
    TooLarge(usize),
    /// Its type has no DUMP form.
    NotRestorable(NotRestorable),
}

/// Whether a RESTORE may overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overwrite {
    /// An existing key is an error.
    Never,
    /// An existing key is replaced.
    Always,
}

/// Appends the RESTORE of one key.
pub(super) fn write_restore(
    out: &mut Vec<u8>,
    key: &[u8],
    expires_at_ms: Option<i64>,
    value: &RawValue<'_>,
    overwrite: Overwrite,
) -> Result<(), Unsendable> {
    let payload = value.bytes.len() + PAYLOAD_EXTRA_BYTES;
    if payload > BULK_BYTES_MAX {
        return Err(Unsendable::TooLarge(payload));
    }
    let replaces = overwrite == Overwrite::Always;
    write_array_header(out, if replaces { 6 } else { 5 });
    write_bulk(out, b"RESTORE");
    write_bulk(out, key);
    // A time before 1970 has passed as much as its first millisecond has.
    let ttl = expires_at_ms.map_or(0, |at| at.max(1));
    write_bulk(out, ttl.to_string().as_bytes());
    out.extend_from_slice(format!("${payload}\r\n").as_bytes());
    write_dump_payload(out, value).map_err(Unsendable::NotRestorable)?;
    out.extend_from_slice(b"\r\n");
    if replaces {
        write_bulk(out, b"REPLACE");
    }
    write_bulk(out, b"ABSTTL");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::ValueType;
    use crate::resp::{RequestLimits, RequestScanner};

    #[test]
    fn the_request_is_whole_and_its_payload_has_the_known_footer() {
        // "10" as an integer of one byte: the vector of rdb-format section 6.1,
        // with the lowest version that knows strings.
        let value = RawValue {
            type_id: ValueType::String,
            bytes: &[0xc0, 0x0a],
        };
        let mut out = Vec::new();
        write_restore(&mut out, b"k", Some(-5), &value, Overwrite::Always).unwrap();
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let request = scanner.scan(&out).unwrap().unwrap();
        assert_eq!(request.consumed, out.len());
        let args: Vec<&[u8]> = (0..request.len()).map(|at| request.arg(at)).collect();
        assert_eq!(args[..3], [&b"RESTORE"[..], b"k", b"1"]);
        assert_eq!(args[3][..5], [0, 0xc0, 0x0a, 6, 0]);
        assert_eq!(args[4..], [&b"REPLACE"[..], b"ABSTTL"]);
    }
}
