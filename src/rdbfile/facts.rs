//! What a file says of a key apart from its value, which may follow in parts.

use crate::rdb::{KeyRecord, LargeKey, ScannerLimits, ValueType};

/// Values of more bytes come in parts, where their layout can be cut.
pub const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Limits for reading a file: what can be cut is never held whole.
pub fn limits() -> ScannerLimits {
    ScannerLimits {
        whole_bytes_max: WHOLE_BYTES_MAX,
        ..ScannerLimits::default()
    }
}

/// A key without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFacts<'a> {
    /// The database it is in.
    pub db: u32,
    /// Its name.
    pub key: &'a [u8],
    /// When it expires, Unix time in ms.
    pub expires_at_ms: Option<i64>,
    /// Seconds since it was used.
    pub idle_s: Option<u64>,
    /// Its logarithmic access frequency.
    pub freq: Option<u8>,
    /// Its KEY_META record, opcode first.
    pub metadata: Option<&'a [u8]>,
    /// Its value's layout.
    pub type_id: ValueType,
}

impl<'a> From<&'a KeyRecord<'_>> for KeyFacts<'a> {
    fn from(record: &'a KeyRecord<'_>) -> Self {
        Self {
            db: record.db,
            key: &record.key,
            expires_at_ms: record.expires_at_ms,
            idle_s: record.idle_s,
            freq: record.freq,
            metadata: record.metadata,
            type_id: record.value.type_id,
        }
    }
}

impl<'a> From<&'a LargeKey<'_>> for KeyFacts<'a> {
    fn from(record: &'a LargeKey<'_>) -> Self {
        Self {
            db: record.db,
            key: &record.key,
            expires_at_ms: record.expires_at_ms,
            idle_s: record.idle_s,
            freq: record.freq,
            metadata: record.metadata,
            type_id: record.type_id,
        }
    }
}
