//! A reply that is passed on while it arrives.
//!
//! ```text
//!   *2 $536870912 xxxxxx..................xxxxx CR LF $1 a     next reply
//!   ^-- scanned, still held --^-- ReplyTail::pass ---------^ done
//! ```
//!
//! A [`ReplyScanner`] is given a reply from its first byte each time; a tail
//! takes over what it knows, says which bytes may go, and never sees them
//! again. Only a line (`+`, `-`, a length) has to be whole before it goes, so
//! the owner holds at most one line.
//!
//! Invariants: a tail takes and refuses exactly what the scanner would have,
//! whatever the cuts; only that it judges the CR LF after a body byte by byte,
//! so it may refuse one byte earlier.

use std::mem;

use super::super::header::{self, Header};
use super::{Element, ReplyError, ReplyScanner};

/// How far a tail came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Bytes from the start of the input that belong to the reply and may go.
    pub bytes: usize,
    /// Whether they end it.
    pub done: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct ReplyTail {
    /// Where in the reply we are; its offsets count from the first byte that
    /// was not passed.
    scanner: ReplyScanner,
    /// Type of the body we are in.
    body_kind: u8,
    /// Bytes before the end of that body, CR LF counted; 0 outside of one.
    missing: usize,
}

impl ReplyScanner {
    /// The reply whose end the last scan did not find has at least this many bytes.
    #[must_use]
    pub fn bytes_min(&self) -> usize {
        self.need
    }

    /// Its type, if that is known; attributes come before the type. `input` is
    /// what was scanned.
    #[must_use]
    pub fn started_kind(&self, input: &[u8]) -> Option<u8> {
        match (self.kind, self.outer.as_slice()) {
            (0, []) => input.get(self.pos).copied().filter(|&kind| kind != b'|'),
            (0, _) => None,
            (kind, _) => Some(kind),
        }
    }

    /// Lets go of the reply whose end the last scan did not find: the tail goes
    /// on with it, from the same input; the scanner is for the reply after it.
    #[must_use]
    pub fn take_tail(&mut self) -> ReplyTail {
        ReplyTail {
            scanner: mem::take(self),
            body_kind: 0,
            missing: 0,
        }
    }
}

impl ReplyTail {
    /// Finds how many bytes of `input` may go. The next input starts with the
    /// first one that may not.
    ///
    /// # Errors
    /// What is not RESP: there is no known reply boundary after it.
    pub fn pass(&mut self, input: &[u8]) -> Result<Passed, ReplyError> {
        if self.missing > 0 && !self.pass_body(input)? {
            return Ok(self.forget(false));
        }
        loop {
            if self.is_closed() {
                return Ok(self.forget(true));
            }
            let at = self.scanner.pos;
            let kind = input.get(at).copied().unwrap_or(0);
            match self.scanner.element(input, at)? {
                Element::Scalar { end } => {
                    self.scanner.pos = end;
                    self.scanner.note_kind(kind);
                    self.scanner.left -= 1;
                }
                Element::Aggregate { elements, body } => {
                    self.scanner.pos = body;
                    if kind != b'|' {
                        self.scanner.note_kind(kind);
                        self.scanner.left -= 1;
                    }
                    self.scanner.open(elements)?;
                }
                Element::Partial { .. } => {
                    let Some((header_bytes, body_bytes)) = body_at(input, at) else {
                        return Ok(self.forget(false));
                    };
                    self.scanner.pos = at + header_bytes;
                    self.scanner.note_kind(kind);
                    self.scanner.left -= 1;
                    self.body_kind = kind;
                    self.missing = body_bytes + 2;
                    if !self.pass_body(input)? {
                        return Ok(self.forget(false));
                    }
                }
            }
        }
    }

    /// Type of the reply; 0 until it is known.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.scanner.kind
    }

    /// Leaves the aggregates that are complete; true after the last of the reply.
    fn is_closed(&mut self) -> bool {
        while self.scanner.left == 0 {
            match self.scanner.outer.pop() {
                Some(left) => self.scanner.left = left,
                None => return true,
            }
        }
        false
    }

    /// Takes bytes of a body and its CR LF; true at its end.
    fn pass_body(&mut self, input: &[u8]) -> Result<bool, ReplyError> {
        let from = self.scanner.pos;
        let arrived = input.len().saturating_sub(from);
        let mut taken = arrived.min(self.missing.saturating_sub(2));
        self.missing -= taken;
        while (1..=2).contains(&self.missing)
            && let Some(&byte) = input.get(from + taken)
        {
            if byte != b"\n\r"[self.missing - 1] {
                return Err(ReplyError::MissingCrlf(self.body_kind));
            }
            taken += 1;
            self.missing -= 1;
        }
        self.scanner.pos = from + taken;
        Ok(self.missing == 0)
    }

    /// What was passed is seen no more: offsets count from here.
    fn forget(&mut self, done: bool) -> Passed {
        let bytes = mem::take(&mut self.scanner.pos);
        self.scanner.searched = self.scanner.searched.saturating_sub(bytes);
        Passed { bytes, done }
    }
}

/// Lengths of the header and of the body at `at`, if a body with a whole header
/// is there.
fn body_at(input: &[u8], at: usize) -> Option<(usize, usize)> {
    let (&kind, tail) = input.get(at..)?.split_first()?;
    match (kind, header::parse(tail)) {
        (b'$' | b'=' | b'!', Header::Length { value, len }) => {
            Some((1 + len, usize::try_from(value).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
