//! How much of a file a scanner hands on, and its caller holds, at once.
//!
//! Invariant: parts aimed at are smaller than the largest record allowed, or as
//! small as parts get.

use super::parts::{PART_BYTES_MAX, PART_BYTES_MIN};

/// Bounds of what a scanner accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannerLimits {
    /// Largest record, in bytes of the file; the caller holds one in memory. Of
    /// a value in parts: largest part, which is about the size aimed at and one
    /// element.
    pub record_bytes_max: usize,
    /// Values of more bytes are handed on in parts of about a quarter of this
    /// (64 bytes to 4 MiB) if they can be cut.
    pub whole_bytes_max: usize,
    /// So are values that declare more outermost elements (a quicklist's or
    /// stream's nodes).
    pub whole_elements_max: u64,
}

impl Default for ScannerLimits {
    /// Records of up to 1 GiB, no value in parts.
    fn default() -> Self {
        Self {
            record_bytes_max: 1 << 30,
            whole_bytes_max: usize::MAX,
            whole_elements_max: u64::MAX,
        }
    }
}

impl ScannerLimits {
    /// Size of the parts aimed at.
    pub(super) fn part_bytes(&self) -> usize {
        let whole = self.whole_bytes_max.min(self.record_bytes_max);
        (whole / 4).clamp(PART_BYTES_MIN, PART_BYTES_MAX)
    }
}
