//! A reply that is passed on while it arrives.
//!
//! ```text
//!   VALUE k 0 536870912 CR LF xxx.............xxx CR LF END CR LF    next reply
//!   ^-- scanned, still held --^-- ReplyTail::pass ------------^ done
//! ```
//!
//! Only a line has to be whole before it goes, so the owner holds at most one
//! line. What follows a block's data is not judged: if it is no CR LF, the next
//! line is none of memcached's.

use super::{ReplyError, Step, step};

/// How far a tail came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes from the start of the input that belong to the reply and may go.
    pub bytes: usize,
    /// Whether they end it.
    pub done: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct ReplyTail {
    /// Bytes before the next line.
    known: usize,
}

impl ReplyTail {
    /// Of a reply whose first `known` bytes are whole blocks, or one that began.
    pub(super) fn after(known: usize) -> Self {
        Self { known }
    }

    /// Finds how many bytes of `input` may go. The next input starts with the
    /// first one that may not.
    ///
    /// # Errors
    /// What is none of memcached's: there is no known boundary after it.
    pub fn pass(&mut self, input: &[u8]) -> Result<Passed, ReplyError> {
        let mut bytes = 0;
        loop {
            let rest = input.get(bytes..).unwrap_or_default();
            let taken = self.known.min(rest.len());
            (self.known, bytes) = (self.known - taken, bytes + taken);
            if self.known > 0 {
                return Ok(Passed { bytes, done: false });
            }
            match step(rest.get(taken..).unwrap_or_default())? {
                Step::Partial => return Ok(Passed { bytes, done: false }),
                Step::Value { header, data } => self.known = header + data,
                Step::Last(len) => {
                    return Ok(Passed {
                        bytes: bytes + len,
                        done: true,
                    });
                }
            }
        }
    }
}
