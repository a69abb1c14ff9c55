//! RESTORE of one value.
//!
//! ```text
//! RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME s | FREQ n]
//! ttl: Unix time in ms, 0 for none        payload: `rdb::payload`
//! ```
//!
//! This is the path of nearly every key: one pass, one checksum, no allocation
//! but the growth of the buffer.

use crate::rdb::{RawValue, write_dump_payload_with_metadata};
use crate::resp::{write_array_header, write_bulk, write_bulk_header, write_bulk_integer};

/// Type byte, version and checksum around a value.
pub(super) const PAYLOAD_EXTRA_BYTES: usize = 1 + 2 + 8;

/// What is said of how the key was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Untold,
    IdleSeconds(u64),
    Frequency(u8),
}

/// Everything of a RESTORE but its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestoreCall<'a> {
    pub(super) key: &'a [u8],
    /// Absolute, Unix time in ms; needs a server that knows ABSTTL.
    pub(super) expires_at_ms: Option<i64>,
    pub(super) replace: bool,
    pub(super) usage: Usage,
    /// KEY_META record to put before the type, or empty.
    pub(super) metadata: &'a [u8],
}

/// Appends the request; `false`, and nothing, if the value has no bytes.
pub(super) fn write_restore(
    out: &mut Vec<u8>,
    call: &RestoreCall<'_>,
    value: &RawValue<'_>,
) -> bool {
    if value.bytes.is_empty() {
        return false;
    }
    let absolute = call.expires_at_ms.is_some();
    let usage_args = if call.usage == Usage::Untold { 0 } else { 2 };
    let args = 4 + usize::from(call.replace) + usize::from(absolute) + usage_args;
    write_array_header(out, args);
    write_bulk(out, b"RESTORE");
    write_bulk(out, call.key);
    // A time before 1970 has passed as much as its first millisecond has.
    write_bulk_integer(out, call.expires_at_ms.map_or(0, |at| at.max(1)));
    let payload = call.metadata.len() + value.bytes.len() + PAYLOAD_EXTRA_BYTES;
    write_bulk_header(out, payload);
    if write_dump_payload_with_metadata(out, call.metadata, value).is_err() {
        return false;
    }
    out.extend_from_slice(b"\r\n");
    if call.replace {
        write_bulk(out, b"REPLACE");
    }
    if absolute {
        write_bulk(out, b"ABSTTL");
    }
    match call.usage {
        Usage::Untold => {}
        Usage::IdleSeconds(seconds) => {
            write_bulk(out, b"IDLETIME");
            write_bulk_integer(out, i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        Usage::Frequency(frequency) => {
            write_bulk(out, b"FREQ");
            write_bulk_integer(out, i64::from(frequency));
        }
    }
    true
}
