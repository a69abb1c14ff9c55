//! The rest of a request that is passed on while it arrives.
//!
//! ```text
//!   *3 $3 SET $1 k $536870912 xxxx......................xxxx CR LF   next request
//!   ^-- scanned, kept by the owner ---^-- RequestTail::feed --------^ done
//!
//!   Header --- `$<n>` CR LF ---> Body { missing } --- n bytes, CR LF ---> Header | done
//! ```
//!
//! A scanner needs the request from its first byte; a tail needs no byte twice,
//! so that a request of any length takes no memory here.
//!
//! Invariants: a tail takes and refuses exactly what the scanner would have,
//! in the same words, whatever the cuts; only that it judges the CR LF after
//! an argument byte by byte, so it may refuse one byte earlier.

use super::super::header::{self, Header};
use super::super::span::Span;
use super::{ProtocolError, RequestLimits, RequestScanner, State};

/// `$`, the longest number there is, CR LF, and a byte that makes it too long.
const HEADER_BYTES_KEPT: usize = 25;

/// What is known of a request whose end has not arrived.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    /// Arguments that arrived whole, as spans of the scanned input.
    pub args: &'a [Span],
    /// Arguments the request says it has.
    pub args_total: usize,
    /// The request has at least this many bytes.
    pub bytes_min: usize,
}

/// How far a tail came with the bytes it was fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that belong to the request.
    pub consumed: usize,
    /// Whether they end it.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In an argument's length line, `seen` bytes after its start.
    Header { seen: usize, line: Line },
    /// In an argument, `missing` bytes before its end, CR LF counted.
    Body { missing: usize },
}

/// Whether a length line has its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    /// CR was there.
    Ended,
    /// A NUL byte was there first, so that its end is never seen.
    Endless,
}

/// Before the first byte of a length line.
const NEXT_HEADER: Place = Place::Header {
    seen: 0,
    line: Line::Open,
};

/// See the head of this file.
#[derive(Debug)]
pub struct RequestTail {
    limits: RequestLimits,
    /// Arguments before the end, the one that is arriving counted.
    left: usize,
    /// Bytes of the request up to the argument that is arriving.
    offset: usize,
    place: Place,
    /// The first bytes of the length line that is arriving.
    header: [u8; HEADER_BYTES_KEPT],
}

impl RequestScanner {
    /// What the last scan saw of an array without its end; `None` if it saw
    /// none, or not even how many arguments it has.
    #[must_use]
    pub fn started(&self) -> Option<Started<'_>> {
        match self.state {
            State::Arguments { left } if self.partial => Some(Started {
                args: &self.args,
                args_total: self.args.len() + left,
                bytes_min: self.need,
            }),
            State::Arguments { .. } | State::Fresh => None,
        }
    }

    /// Lets go of the array that [`RequestScanner::started`] tells of. `input`
    /// is what was scanned: all of it belongs to the request. The next scan
    /// starts at the first byte after the tail's end.
    ///
    /// # Errors
    /// If the last bytes of `input` are wrong, which the scanner would have
    /// found with the next one.
    pub fn take_tail(&mut self, input: &[u8]) -> Result<Option<RequestTail>, ProtocolError> {
        let State::Arguments { left } = self.state else {
            return Ok(None);
        };
        let mut tail = RequestTail {
            limits: self.limits,
            left,
            offset: self.pos,
            place: NEXT_HEADER,
            header: [0; HEADER_BYTES_KEPT],
        };
        let last = input.get(self.pos..).unwrap_or_default();
        self.reset();
        tail.feed(last)?;
        Ok(Some(tail))
    }
}

impl RequestTail {
    /// Takes the bytes of the request that `bytes` starts with.
    ///
    /// # Errors
    /// What the scanner would have refused: no request boundary is known after it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, ProtocolError> {
        let mut rest = bytes;
        while self.left > 0 && !rest.is_empty() {
            let taken = match self.place {
                Place::Header { seen, line } => self.header(rest, seen, line)?,
                Place::Body { missing } => self.body(rest, missing)?,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(Fed {
            consumed: bytes.len() - rest.len(),
            done: self.left == 0,
        })
    }

    /// Bytes that are known to follow; the request may be longer.
    #[must_use]
    pub fn missing_bytes_min(&self) -> usize {
        match self.place {
            _ if self.left == 0 => 0,
            Place::Header { .. } => 1,
            Place::Body { missing } => missing,
        }
    }

    /// Takes bytes of a length line until it is whole.
    fn header(
        &mut self,
        bytes: &[u8],
        mut seen: usize,
        mut line: Line,
    ) -> Result<usize, ProtocolError> {
        for (i, &byte) in bytes.iter().enumerate() {
            if let Some(place) = self.header.get_mut(seen) {
                *place = byte;
            }
            let ended_before = line == Line::Ended;
            line = match (line, byte) {
                (Line::Open, b'\r') => Line::Ended,
                (Line::Open, 0) => Line::Endless,
                (line, _) => line,
            };
            if line != Line::Ended && seen >= self.limits.inline_bytes_max {
                return Err(ProtocolError::TooBigBulkCount);
            }
            seen += 1;
            // Redis judges a length once its line has an end.
            if ended_before && self.line_is_whole(seen)? {
                return Ok(i + 1);
            }
        }
        self.place = Place::Header { seen, line };
        Ok(bytes.len())
    }

    /// Judges a length line of `seen` bytes; with its LF, it is whole.
    fn line_is_whole(&mut self, seen: usize) -> Result<bool, ProtocolError> {
        let [first, ..] = self.header;
        if first != b'$' {
            return Err(ProtocolError::ExpectedDollar(first));
        }
        let kept = self
            .header
            .get(1..seen)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        let value = match header::parse(kept) {
            Header::Partial => return Ok(false),
            Header::Invalid => return Err(ProtocolError::InvalidBulkLength),
            Header::Length { value, .. } => value,
        };
        let len = usize::try_from(value)
            .ok()
            .filter(|&len| len <= self.limits.bulk_bytes_max)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        let end = self.offset + seen + len + 2;
        if end > self.limits.request_bytes_max {
            return Err(ProtocolError::TooBigRequest);
        }
        self.offset = end;
        self.place = Place::Body { missing: len + 2 };
        Ok(true)
    }

    /// Takes bytes of an argument and its CR LF.
    fn body(&mut self, bytes: &[u8], mut missing: usize) -> Result<usize, ProtocolError> {
        let mut taken = bytes.len().min(missing.saturating_sub(2));
        missing -= taken;
        while (1..=2).contains(&missing)
            && let Some(&byte) = bytes.get(taken)
        {
            if byte != b"\n\r"[missing - 1] {
                return Err(ProtocolError::ExpectedCrlf);
            }
            taken += 1;
            missing -= 1;
        }
        self.place = Place::Body { missing };
        if missing == 0 {
            self.left -= 1;
            self.place = NEXT_HEADER;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
