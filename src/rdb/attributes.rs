//! Attributes of a key, which stand before it: kept until it comes, since
//! other records may stand between.
//!
//! ```text
//! expiry 253 s, 252 ms | idle 248 s | frequency 249 | modules' metadata 243
//! ```
//!
//! Invariant: what was read is for the next key and no other.

use super::reader::{Malformed, Reader};
use super::shape::opcode;
use super::version::Magic;

/// Numbers waiting for their key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) expires_at_ms: Option<i64>,
    pub(super) idle_s: Option<u64>,
    pub(super) freq: Option<u8>,
}

/// Attributes waiting for their key.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    numbers: Numbers,
    /// The newest KEY_META record, its buffer used again for the next.
    metadata: Vec<u8>,
    metadata_waits: bool,
    /// The key that was taken last has `metadata`.
    metadata_taken: bool,
}

impl Attributes {
    /// Reads the body of a record if it is an attribute; whether it is.
    pub(super) fn read(
        &mut self,
        magic: Magic,
        opcode: u8,
        body: &[u8],
    ) -> Result<bool, Malformed> {
        let mut reader = Reader::new(body);
        match opcode {
            opcode::EXPIRE_TIME => {
                let seconds = i32::from_le_bytes(reader.array()?);
                self.numbers.expires_at_ms = expiry(i64::from(seconds) * 1000);
            }
            opcode::EXPIRE_TIME_MS => self.numbers.expires_at_ms = expiry(reader.i64_le()?),
            opcode::IDLE => self.numbers.idle_s = Some(reader.number()?),
            opcode::FREQ => self.numbers.freq = Some(reader.byte()?),
            // Of the key's place in the source, which means nothing elsewhere.
            opcode::ENTERPRISE_RAM_LRU | opcode::ENTERPRISE_SLOT => {}
            opcode::KEY_META if magic == Magic::Redis => {
                self.metadata_waits = true;
                self.metadata.clear();
                self.metadata.push(opcode);
                self.metadata.extend_from_slice(body);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The key has come.
    pub(super) fn take(&mut self) -> Numbers {
        self.metadata_taken = std::mem::take(&mut self.metadata_waits);
        std::mem::take(&mut self.numbers)
    }

    /// The KEY_META record of the key that was taken last, opcode included.
    pub(super) fn metadata(&self) -> Option<&[u8]> {
        self.metadata_taken.then_some(&self.metadata)
    }
}

/// Servers write -1 for "never".
fn expiry(at_ms: i64) -> Option<i64> {
    (at_ms != -1).then_some(at_ms)
}
