//! Why a scan stops: where in the file, in which record, after which key.
//!
//! Invariant: a stop names the byte that is not understood; a scan never goes
//! on behind one.

use super::reader::Malformed;
use super::templates::{TEMPLATE_BYTES_MAX, TEMPLATES_MAX};
use super::version::FileVersion;

/// Why a scan stopped; the file cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("RDB byte {offset}{}: {kind}{}", opcode_note(*.opcode), key_note(.last_key))]
pub struct ScanError {
    /// Where, counted from the file's first byte.
    pub offset: u64,
    /// Opcode or value type of the record it is in; `None` in header and checksum.
    pub opcode: Option<u8>,
    /// The newest key read, at most its first [`LAST_KEY_BYTES_MAX`] bytes.
    pub last_key: Vec<u8>,
    /// What is wrong.
    pub kind: ScanErrorKind,
}

/// What is wrong with the file, or beyond us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanErrorKind {
    /// The first bytes are no RDB header, or of a version we do not know.
    #[error("not an RDB header of a version this build reads (REDIS0001-0015, VALKEY080-081)")]
    Header,
    /// An opcode or value type that this version of the file does not have, or we do not know.
    #[error("unknown in {0}; a newer or foreign server wrote it, its length cannot be known")]
    Unknown(FileVersion),
    /// A job of KeyDB's KEYDB.CRON, which no other server has.
    #[error(
        "a job of KeyDB's KEYDB.CRON, which no other server has; delete it before the snapshot"
    )]
    KeyDbCron,
    /// A hash goes by a template that the file did not give before.
    #[error("the hash goes by template {0}, which does not stand before it")]
    UnknownTemplate(u64),
    /// More templates than are kept.
    #[error(
        "more hash templates than are kept: {count} with {bytes} bytes, at most {TEMPLATES_MAX} with {TEMPLATE_BYTES_MAX} bytes"
    )]
    Templates {
        /// Templates, with the one that is too many.
        count: usize,
        /// Bytes of their field names.
        bytes: usize,
    },
    /// The record breaks the format.
    #[error("the record is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The record needs more than [`super::ScannerLimits::record_bytes_max`].
    #[error("the record needs at least {needed} bytes, more than the {max} allowed")]
    TooLarge {
        /// Bytes known to be needed so far.
        needed: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum of the file is not that of its bytes.
    #[error(
        "checksum {stated:016x} stated, {computed:016x} computed: the file was damaged on its way"
    )]
    Checksum {
        /// As written in the file.
        stated: u64,
        /// Of the bytes we read.
        computed: u64,
    },
    /// The input is over and the file is not.
    #[error("the file ends here, before its end record: it was cut off, or is still being written")]
    CutOff,
    /// Called again after the end or an error.
    #[error("the scan is over")]
    Finished,
}

/// How much of a key is kept for messages.
pub const LAST_KEY_BYTES_MAX: usize = 128;

fn opcode_note(byte: Option<u8>) -> String {
    byte.map(|byte| format!(" (opcode or type {byte})"))
        .unwrap_or_default()
}

fn key_note(key: &[u8]) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("; last key \"{}\"", key.escape_ascii())
    }
}
