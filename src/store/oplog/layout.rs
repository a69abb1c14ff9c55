//! The bytes of a segment file, version 1; all numbers are little-endian.
//!
//! ```text
//! byte 0     | magic "KFLOGSEG" 8 | version u32 | crc u32 | sequence u64 | base u64 | durable u64 |
//!            | incarnation u32 | db u16 | 0 u16 |                                     header, 48
//! byte 512   | magic "KFMK" | crc u32 | sequence u64 | durable u64 |                    mark, 24
//! byte 4096  frame, frame, ..  each at a multiple of 8:
//!            | magic "KFFR" | header crc u32 | payload crc u32 | length u32 | start u64 |
//!            | durable u64 | incarnation u32 | db before u16 | db after u16 | payload, length bytes |
//! ```
//! - `base`, `start`: offset in the stream of the first byte; `durable`: what was known to
//!   be synced when this was written;
//! - `incarnation` grows with every opening of the log and never shrinks along it, so that
//!   frames of a former life of the file, or of a tail that was cut, are told from new ones;
//! - `db`: the database that is selected before the first byte, and after the last one;
//! - each crc covers all fields behind it; a frame's header crc covers the payload's crc.
//!   They start from the log's salt, which no client knows: a frame inside a value is none.
//!
//! Drawn again in `docs/formats.md`; `tests/fixtures/oplog_v1/` must always open.
//!
//! The checksum is CRC-32 (IEEE) of `crc32fast`, as in the job's journal: carry-less
//! multiplication where the processor has it, 32 GB/s over 10 KB here. CRC-32C would be a
//! second checksum to keep, and none of what a disk does to a frame is hidden from one and
//! seen by the other.

use crc32fast::Hasher;

/// Where the first frame of a segment stands; the header's block is its own.
pub const FRAMES_AT: u64 = 4096;

/// Where the mark stands: another sector than the header's.
pub const MARK_AT: u64 = 512;

/// Length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 40;

/// Frames begin at multiples of this.
pub const FRAME_ALIGNMENT: u64 = 8;

/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"KFFR";

const SEGMENT_MAGIC: [u8; 8] = *b"KFLOGSEG";
const SEGMENT_HEADER_BYTES: usize = 48;
const MARK_MAGIC: [u8; 4] = *b"KFMK";
const MARK_BYTES: usize = 24;

/// Formats of a log; unknown numbers are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogVersion {
    /// The format drawn above.
    V1,
}

impl LogVersion {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        (number == 1).then_some(Self::V1)
    }
}

/// Where the checksums of this log start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn of_salt(salt: u64) -> Self {
        Self(crc32fast::hash(&salt.to_le_bytes()))
    }

    pub(super) fn hasher(self) -> Hasher {
        Hasher::new_with_initial(self.0)
    }

    pub(super) fn sum(self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Takes numbers off the front of bytes that come from a disk.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// First bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Place among the segments; never used twice.
    pub(super) sequence: u64,
    pub(super) base: u64,
    pub(super) durable: u64,
    pub(super) incarnation: u32,
    pub(super) db: u16,
}

impl SegmentHeader {
    pub(super) fn encode(&self, seed: Seed) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&LogVersion::V1.number().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[44..46].copy_from_slice(&self.db.to_le_bytes());
        let crc = seed.sum(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if these bytes are no header of this log.
    pub(super) fn decode(bytes: &[u8], seed: Seed) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        let mut fields = Fields(bytes);
        if fields.array()? != SEGMENT_MAGIC {
            return None;
        }
        let LogVersion::V1 = LogVersion::from_number(fields.u32()?)?;
        if fields.u32()? != seed.sum(fields.0) {
            return None;
        }
        Some(Self {
            sequence: fields.u64()?,
            base: fields.u64()?,
            durable: fields.u64()?,
            incarnation: fields.u32()?,
            db: fields.u16()?,
        })
    }
}

/// Written while nothing else is to do: all below `durable` was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) durable: u64,
}

impl Mark {
    pub(super) fn encode(&self, seed: Seed) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[0..4].copy_from_slice(&MARK_MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.durable.to_le_bytes());
        let crc = seed.sum(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if these bytes, which begin where the segment does, hold no mark.
    pub(super) fn decode(block: &[u8], seed: Seed) -> Option<Self> {
        let at = MARK_AT as usize;
        let mut fields = Fields(block.get(at..at + MARK_BYTES)?);
        if fields.array()? != MARK_MAGIC || fields.u32()? != seed.sum(fields.0) {
            return None;
        }
        Some(Self {
            sequence: fields.u64()?,
            durable: fields.u64()?,
        })
    }
}

/// First bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) payload_crc: u32,
    pub(super) length: u32,
    pub(super) start: u64,
    pub(super) durable: u64,
    pub(super) incarnation: u32,
    pub(super) db_before: u16,
    pub(super) db_after: u16,
}

impl FrameHeader {
    pub(super) fn encode(&self, seed: Seed) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&FRAME_MAGIC);
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[36..38].copy_from_slice(&self.db_before.to_le_bytes());
        bytes[38..40].copy_from_slice(&self.db_after.to_le_bytes());
        let crc = seed.sum(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if these bytes are no header of a frame of this log.
    pub(super) fn decode(bytes: &[u8], seed: Seed) -> Option<Self> {
        let mut fields = Fields(bytes.get(..FRAME_HEADER_BYTES)?);
        if fields.array()? != FRAME_MAGIC || fields.u32()? != seed.sum(fields.0) {
            return None;
        }
        Some(Self {
            payload_crc: fields.u32()?,
            length: fields.u32()?,
            start: fields.u64()?,
            durable: fields.u64()?,
            incarnation: fields.u32()?,
            db_before: fields.u16()?,
            db_after: fields.u16()?,
        })
    }

    /// Offset in the stream after the payload.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.length))
    }

    /// What the frame takes of its file.
    pub(super) fn space(&self) -> u64 {
        frame_space(u64::from(self.length))
    }
}

/// What a frame with a payload of `length` bytes takes of its file.
pub(super) fn frame_space(length: u64) -> u64 {
    (FRAME_HEADER_BYTES as u64 + length).next_multiple_of(FRAME_ALIGNMENT)
}
