//! Scanning what clients send: where a request ends and where its arguments are.
//!
//! ```text
//! *2\r\n $3\r\nGET\r\n $1\r\nk\r\n        GET k\r\n
//!        ^args[0]^     ^args[1]           inline: rebuilt as the array on the left
//!
//!          '*' ok                      last argument
//!   Fresh ---------> Arguments{left} ----------------> whole request, Fresh again
//!     '-- any other byte: an inline line, taken whole
//! ```
//!
//! Invariants: bytes of an array are never copied; a number that was declared
//! reserves nothing, only arguments that arrived take a span each; when bytes
//! run out the scanner keeps its place and `need`, the input length below
//! which asking again is answered without looking.
//!
//! A line is judged when Redis judges it: when its end and, after a CR, one byte
//! more are here; a NUL byte hides the end.
//!
//! Stricter than Redis in one point: CR LF must really stand after every length
//! and body. Redis skips those two bytes unseen, but requests of many clients
//! share one connection to a shard, and a shard that does check would close it
//! for all of them.

use super::header::{self, Header};
use super::inline::InlineBuffer;
use super::opening::Opening;
use super::span::Span;

mod error;
mod tail;

pub use error::ProtocolError;
pub use tail::{Fed, RequestTail, Started};

/// Spans kept between requests; a longer list is given back after its request.
const RETAINED_SPANS_MAX: usize = 16 * 1024;

/// Rebuilt as an array, a line grows at most 3.5-fold (`a a a`), and must stay
/// addressable by a [`Span`].
const INLINE_BYTES_CAP: usize = 64 * 1024 * 1024;
const _: () = assert!(INLINE_BYTES_CAP * 4 < u32::MAX as usize);

/// What a client may send. The defaults are Redis's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Whole request with its headers, in bytes; at most `u32::MAX`.
    pub request_bytes_max: usize,
    /// Arguments of one request, the command's name included.
    pub args_max: usize,
    /// One inline line, or one length line, in bytes; at most 64 MiB.
    pub inline_bytes_max: usize,
    /// One argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Whether a line that is no array is an inline command; an error else.
    pub takes_inline: bool,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            request_bytes_max: 512 * 1024 * 1024 + 64 * 1024,
            args_max: 1024 * 1024,
            inline_bytes_max: 64 * 1024,
            bulk_bytes_max: 512 * 1024 * 1024,
            takes_inline: true,
        }
    }
}

/// One whole request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Canonical RESP array of bulk strings, ready to forward. For an inline
    /// command this is the scanner's own buffer.
    pub bytes: &'a [u8],
    /// Arguments as spans of `bytes`. Empty for `*0`, `*-1` and blank inline
    /// lines: those get no reply and are dropped.
    pub args: &'a [Span],
    /// Bytes of the input this request took.
    pub consumed: usize,
    /// It names the same command with as many arguments as the request this
    /// scanner found before, so that what was looked up for that one holds.
    /// False is no promise of a difference.
    pub repeats: bool,
    /// It was an inline command: `bytes` are not the client's own.
    pub inline: bool,
}

impl<'a> Request<'a> {
    /// Argument `i`; empty if there is none.
    #[must_use]
    #[inline]
    pub fn arg(&self, i: usize) -> &'a [u8] {
        match self.args.get(i) {
            Some(span) => span.of(self.bytes),
            None => &[],
        }
    }

    /// Number of arguments, the command's name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the first byte of a request.
    Fresh,
    /// Inside an array, `left` arguments before its end.
    Arguments { left: usize },
}

/// A request was found.
struct Found {
    consumed: usize,
    inline: bool,
    repeats: bool,
}

/// Finds requests in a client's bytes. Keeps its buffers: no allocation for a
/// request in steady state.
#[derive(Debug)]
pub struct RequestScanner {
    limits: RequestLimits,
    state: State,
    args: Vec<Span>,
    inline: InlineBuffer,
    /// Offset of the first byte not yet understood.
    pos: usize,
    /// With fewer input bytes than this nothing new can be found.
    need: usize,
    /// Up to here no line end was found (only while a line is partial).
    searched: usize,
    partial: bool,
    /// How the last request began, if it was short; `args[0]` is its name.
    opening: Option<Opening>,
    repeats: bool,
}

impl RequestScanner {
    /// A scanner at the start of a connection.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits: RequestLimits {
                request_bytes_max: limits.request_bytes_max.min(u32::MAX as usize),
                inline_bytes_max: limits.inline_bytes_max.min(INLINE_BYTES_CAP),
                ..limits
            },
            state: State::Fresh,
            args: Vec::new(),
            inline: InlineBuffer::default(),
            pos: 0,
            need: 1,
            searched: 0,
            partial: false,
            opening: None,
            repeats: false,
        }
    }

    /// Finds the request `input` starts with; `None` if its end has not arrived.
    ///
    /// `input` starts at the first byte of a request; on a later call it holds
    /// the same bytes and more. After `Some`, go on with `input[consumed..]`.
    ///
    /// # Errors
    /// What is not RESP or above a limit. The scanner is reset then, but the
    /// connection has no known request boundary any more.
    #[inline]
    pub fn scan<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Request<'a>>, ProtocolError> {
        if input.len() < self.need {
            self.partial = !input.is_empty();
            return Ok(None);
        }
        match self.advance(input) {
            Ok(Some(found)) => {
                self.state = State::Fresh;
                self.need = 1;
                self.searched = 0;
                self.partial = false;
                let bytes = if found.inline {
                    &self.inline.rebuilt
                } else {
                    input.get(..found.consumed).unwrap_or_default()
                };
                Ok(Some(Request {
                    bytes,
                    args: &self.args,
                    consumed: found.consumed,
                    repeats: found.repeats,
                    inline: found.inline,
                }))
            }
            Ok(None) => {
                self.partial = true;
                Ok(None)
            }
            Err(error) => {
                self.reset();
                Err(error)
            }
        }
    }

    /// Finds a whole request that begins like the last one and has only short
    /// lengths; `None` says nothing: ask [`RequestScanner::scan`].
    #[inline(always)]
    pub fn scan_repeated<'a>(&'a mut self, input: &'a [u8]) -> Option<Request<'a>> {
        let opening = self.opening.as_ref()?;
        if self.need != 1 || !opening.opens(input) {
            return None;
        }
        self.args.truncate(1);
        let mut pos = opening.len;
        for _ in 0..opening.left {
            let Some([b'$', tail @ ..]) = input.get(pos..) else {
                return None;
            };
            let (len, header_len) = header::parse_short(tail)?;
            let start = pos + 1 + header_len;
            let end = start + len;
            if input.get(end..end + 2)? != b"\r\n" || len > self.limits.bulk_bytes_max {
                return None;
            }
            self.args.push(Span {
                start: start as u32,
                end: end as u32,
            });
            pos = end + 2;
        }
        if pos > self.limits.request_bytes_max {
            return None;
        }
        Some(Request {
            bytes: input.get(..pos)?,
            args: &self.args,
            consumed: pos,
            repeats: true,
            inline: false,
        })
    }

    /// Whether the last scan saw a request without its end.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Forgets a partial request: the next scan starts at a first byte.
    pub fn reset(&mut self) {
        self.state = State::Fresh;
        self.args.clear();
        self.pos = 0;
        self.need = 1;
        self.searched = 0;
        self.partial = false;
        self.opening = None;
        self.repeats = false;
    }

    #[inline]
    fn advance(&mut self, input: &[u8]) -> Result<Option<Found>, ProtocolError> {
        match self.state {
            State::Arguments { left } => return self.arguments(input, left),
            State::Fresh => {}
        }
        if let Some(opening) = &self.opening
            && opening.opens(input)
        {
            self.args.truncate(1);
            self.pos = opening.len;
            self.searched = 0;
            self.repeats = true;
            let left = opening.left;
            return self.arguments(input, left);
        }
        if input.first() != Some(&b'*') {
            return self.inline_line(input);
        }
        let Some(count) = self.argument_count(input)? else {
            return Ok(None);
        };
        let found = self.arguments(input, count)?;
        if found.is_some()
            && let Some(name) = self.args.first()
        {
            self.opening = Opening::of(input, name.end as usize, count);
        }
        Ok(found)
    }

    /// Takes `*<n>\r\n`; `None` if it is partial.
    #[inline]
    fn argument_count(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let (count, len) = match header::parse_short(input.get(1..).unwrap_or_default()) {
            Some(short) => short,
            None => match self.long_length(input, 0)? {
                Some(long) => long,
                None => return Ok(None),
            },
        };
        if count > self.limits.args_max {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        self.begin();
        self.pos = 1 + len;
        Ok(Some(count))
    }

    fn begin(&mut self) {
        self.opening = None;
        self.repeats = false;
        self.args.clear();
        self.searched = 0;
        if self.args.capacity() > RETAINED_SPANS_MAX {
            self.args.shrink_to(RETAINED_SPANS_MAX);
        }
        self.inline.shrink();
    }

    /// Takes bulk strings until none is left or bytes run out.
    #[inline]
    fn arguments(&mut self, input: &[u8], count: usize) -> Result<Option<Found>, ProtocolError> {
        let mut pos = self.pos;
        for left in (1..=count).rev() {
            let (len, header_len) = match input.get(pos..) {
                Some([b'$', tail @ ..]) => match header::parse_short(tail) {
                    Some(short) => short,
                    None => match self.long_length(input, pos)? {
                        Some(long) => long,
                        None => return self.pause(pos, left, self.need),
                    },
                },
                Some([]) | None => return self.pause(pos, left, pos + 1),
                Some(_) => match self.no_dollar(input, pos) {
                    Some(error) => return Err(error),
                    None => return self.pause(pos, left, self.need),
                },
            };
            if len > self.limits.bulk_bytes_max {
                return Err(ProtocolError::InvalidBulkLength);
            }
            let start = pos + 1 + header_len;
            let end = start + len;
            if end + 2 > self.limits.request_bytes_max {
                return Err(ProtocolError::TooBigRequest);
            }
            match input.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::ExpectedCrlf),
                // The header is read again then; it is at most 22 bytes.
                None => return self.pause(pos, left, end + 2),
            }
            self.args.push(Span {
                start: start as u32,
                end: end as u32,
            });
            pos = end + 2;
        }
        Ok(Some(Found {
            consumed: pos,
            inline: false,
            repeats: self.repeats,
        }))
    }

    fn pause(
        &mut self,
        pos: usize,
        left: usize,
        need: usize,
    ) -> Result<Option<Found>, ProtocolError> {
        self.pos = pos;
        self.need = need;
        self.state = State::Arguments { left };
        Ok(None)
    }

    /// Reads the length line at `at` when it is not a short one: `None` if it
    /// is partial (`need` is set then). Answers value and length after the type byte.
    #[cold]
    fn long_length(
        &mut self,
        input: &[u8],
        at: usize,
    ) -> Result<Option<(usize, usize)>, ProtocolError> {
        let is_count = at == 0;
        let (too_long, invalid) = if is_count {
            (
                ProtocolError::TooBigMultibulkCount,
                ProtocolError::InvalidMultibulkLength,
            )
        } else {
            (
                ProtocolError::TooBigBulkCount,
                ProtocolError::InvalidBulkLength,
            )
        };
        // Redis judges a length once its line has an end, so the words a client
        // sees do not depend on how its bytes were cut.
        if self.line_end(input, at, b'\r', too_long)?.is_none() {
            return Ok(None);
        }
        match header::parse(input.get(at + 1..).unwrap_or_default()) {
            Header::Partial => {
                self.need = input.len() + 1;
                Ok(None)
            }
            Header::Invalid => Err(invalid),
            Header::Length { value, len } => match usize::try_from(value) {
                Ok(value) => Ok(Some((value, len))),
                // `*-1` is a request of no arguments; `$-1` is nothing at all.
                Err(_) if is_count => Ok(Some((0, len))),
                Err(_) => Err(invalid),
            },
        }
    }

    /// What is wrong with the argument at `at`, which does not start with `$`,
    /// once its line has an end; `None` before that.
    #[cold]
    fn no_dollar(&mut self, input: &[u8], at: usize) -> Option<ProtocolError> {
        match self.line_end(input, at, b'\r', ProtocolError::TooBigBulkCount) {
            Err(error) => Some(error),
            Ok(None) => None,
            Ok(Some(_)) => {
                let other = input.get(at).copied().unwrap_or_default();
                Some(ProtocolError::ExpectedDollar(other))
            }
        }
    }

    /// Where the line that starts at `at` has its `end`; `None` if that is not
    /// here, or is a CR and the byte after it is not (`need` is set then). Redis reads lines as C strings: what follows a
    /// NUL byte is never seen, so that such a line ends by being too long.
    fn line_end(
        &mut self,
        input: &[u8],
        at: usize,
        end: u8,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.searched.max(at).min(input.len());
        let rest = input.get(from..).unwrap_or_default();
        let stop = rest.iter().position(|&byte| byte == end || byte == 0);
        let is_end = stop.is_some_and(|stop| rest.get(stop) == Some(&end));
        let stop = from + stop.unwrap_or(rest.len());
        let length = if is_end { stop } else { input.len() } - at;
        if length > self.limits.inline_bytes_max {
            return Err(too_long);
        }
        let follows = usize::from(end == b'\r');
        if is_end && stop + follows < input.len() {
            return Ok(Some(stop));
        }
        self.searched = stop;
        self.need = input.len() + 1;
        Ok(None)
    }

    /// Takes an inline command.
    #[cold]
    fn inline_line(&mut self, input: &[u8]) -> Result<Option<Found>, ProtocolError> {
        if !self.limits.takes_inline {
            return Err(ProtocolError::NotAnArray);
        }
        let Some(end) = self.line_end(input, 0, b'\n', ProtocolError::TooBigInline)? else {
            return Ok(None);
        };
        self.begin();
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.inline.rebuild(line, &mut self.args) {
            Ok(()) => Ok(Some(Found {
                consumed: end + 1,
                inline: true,
                repeats: false,
            })),
            Err(_) => Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

#[cfg(test)]
mod tests;
