//! Finding the end of replies, RESP2 and RESP3, without decoding them.
//!
//! ```text
//! + - : , # _ (   one line                         $ = !   length, body
//! * ~ >           length, that many elements       %       length, twice that many
//! |               length, twice that many, and then the reply it belongs to
//! ```
//!
//! Nesting is a stack of counters: how many elements each open aggregate still
//! lacks. The stack is bounded, bodies are skipped by length, and a scan that
//! ran out of bytes goes on at the element it stopped in.
//!
//! Streamed forms (`$?`, `*?`, `;`, `.`) are refused: no server sends them.

use super::header::{self, Header};
use super::span::Span;

mod tail;

pub use tail::{Passed, ReplyTail};

/// Aggregates open at the same time.
pub const REPLY_DEPTH_MAX: usize = 128;

/// Bytes of one bulk body: what a [`Span`] can address.
const BULK_BYTES_MAX: i64 = u32::MAX as i64 - 64;

/// Elements of one aggregate.
const ELEMENTS_MAX: i64 = u32::MAX as i64;

/// One line (`+`, `-`, `(` and the like), in bytes.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The bounds of one whole reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Length in bytes, attributes included.
    pub len: usize,
    /// First byte of the reply proper: `b'+'`, `b'-'`, `b':'`, `b'$'`, `b'*'`, `b'%'`, `b'>'`...
    pub kind: u8,
}

/// A shard that does not speak RESP: its connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The first byte of a reply or element is no RESP type.
    #[error("reply starts with byte 0x{0:02x}, which is no RESP type")]
    UnknownType(u8),
    /// A length is no number, or out of range.
    #[error("invalid length after '{}' in a reply", char::from(*.0))]
    InvalidLength(u8),
    /// RESP3's streamed strings and aggregates.
    #[error("streamed reply ('{}?'): not supported, and no known server sends it", char::from(*.0))]
    Streamed(u8),
    /// Something else stands where CR LF belongs.
    #[error("CR LF missing after '{}' in a reply", char::from(*.0))]
    MissingCrlf(u8),
    /// More than [`REPLY_DEPTH_MAX`] nested aggregates.
    #[error("reply nests deeper than {REPLY_DEPTH_MAX} levels")]
    TooDeep,
    /// A line without end.
    #[error("reply line longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// A number, boolean or null that does not spell one.
    #[error("invalid value after '{}' in a reply", char::from(*.0))]
    InvalidValue(u8),
    /// Decoding: the reply has no end.
    #[error("reply is cut short")]
    Truncated,
    /// Decoding: bytes follow the reply.
    #[error("{0} bytes follow the reply")]
    TrailingBytes(usize),
    /// An array was expected.
    #[error("reply of type '{}' where an array was expected", char::from(*.0))]
    NotAnArray(u8),
    /// The reply is longer than a [`Span`] can address.
    #[error("reply of {0} bytes is too long to take apart")]
    TooLong(usize),
}

/// What one element's first line says.
enum Element {
    /// A whole scalar: where it ends.
    Scalar { end: usize },
    /// An aggregate of `elements`, starting at `body`.
    Aggregate { elements: u64, body: usize },
    /// Not there yet: nothing new below this input length.
    Partial { need: usize },
}

/// Finds replies in a shard's bytes.
#[derive(Debug)]
pub struct ReplyScanner {
    /// Elements the innermost open aggregate lacks; at the top, the reply itself.
    left: u64,
    /// The same for the aggregates around it.
    outer: Vec<u64>,
    pos: usize,
    need: usize,
    searched: usize,
    kind: u8,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyScanner {
    /// A scanner at the first byte of a reply.
    #[must_use]
    pub fn new() -> Self {
        Self {
            left: 1,
            outer: Vec::new(),
            pos: 0,
            need: 1,
            searched: 0,
            kind: 0,
        }
    }

    /// Finds the reply `input` starts with; `None` if its end has not arrived.
    ///
    /// `input` starts at the first byte of a reply; on a later call it holds
    /// the same bytes and more. An attribute is part of the reply after it.
    ///
    /// # Errors
    /// What is not RESP: there is no known reply boundary after it.
    #[inline]
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<Reply>, ReplyError> {
        if input.len() < self.need {
            return Ok(None);
        }
        if self.need == 1
            && let Some(reply) = short(input)
        {
            return Ok(Some(reply)); // nothing was begun, so nothing is to be forgotten
        }
        let outcome = self.advance(input);
        match outcome {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => self.reset(),
        }
        outcome
    }

    /// Forgets a partial reply: the next scan starts at a first byte.
    #[inline]
    pub fn reset(&mut self) {
        self.left = 1;
        self.outer.clear();
        self.pos = 0;
        self.need = 1;
        self.searched = 0;
        self.kind = 0;
    }

    #[inline]
    fn advance(&mut self, input: &[u8]) -> Result<Option<Reply>, ReplyError> {
        loop {
            let rest = input.get(self.pos..).unwrap_or_default();
            let kind = rest.first().copied().unwrap_or(0);
            let element = match short(rest) {
                Some(whole) => Element::Scalar {
                    end: self.pos + whole.len,
                },
                None => self.element(input, self.pos)?,
            };
            match element {
                Element::Partial { need } => {
                    self.need = need;
                    return Ok(None);
                }
                Element::Scalar { end } => {
                    self.pos = end;
                    self.note_kind(kind);
                    self.left -= 1;
                }
                Element::Aggregate { elements, body } => {
                    self.pos = body;
                    // An attribute does not count as the element it precedes.
                    if kind != b'|' {
                        self.note_kind(kind);
                        self.left -= 1;
                    }
                    self.open(elements)?;
                }
            }
            while self.left == 0 {
                match self.outer.pop() {
                    Some(left) => self.left = left,
                    None => {
                        return Ok(Some(Reply {
                            len: self.pos,
                            kind: self.kind,
                        }));
                    }
                }
            }
        }
    }

    #[inline]
    fn note_kind(&mut self, kind: u8) {
        if self.outer.is_empty() {
            self.kind = kind;
        }
    }

    fn open(&mut self, elements: u64) -> Result<(), ReplyError> {
        if elements == 0 {
            return Ok(());
        }
        if self.outer.len() == REPLY_DEPTH_MAX {
            return Err(ReplyError::TooDeep);
        }
        self.outer.push(self.left);
        self.left = elements;
        Ok(())
    }

    #[inline]
    fn element(&mut self, input: &[u8], at: usize) -> Result<Element, ReplyError> {
        let Some([kind, tail @ ..]) = input.get(at..) else {
            return Ok(Element::Partial { need: at + 1 });
        };
        match *kind {
            b'$' => {
                if let Some((len, header_len)) = header::parse_short(tail) {
                    return bulk_end(input, b'$', at + 1 + header_len, len);
                }
                length_element(input, b'$', at, tail)
            }
            b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                length_element(input, *kind, at, tail)
            }
            b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => self.line(input, at),
            b';' | b'.' => Err(ReplyError::Streamed(*kind)),
            other => Err(ReplyError::UnknownType(other)),
        }
    }

    /// A line ends at its first CR LF; a lone CR or LF is part of it.
    #[inline]
    fn line(&mut self, input: &[u8], at: usize) -> Result<Element, ReplyError> {
        let mut from = self.searched.max(at + 1);
        while let Some(found) = input
            .get(from..)
            .and_then(|tail| tail.iter().position(|&byte| byte == b'\r'))
        {
            let cr = from + found;
            match input.get(cr + 1) {
                Some(b'\n') if cr - at <= LINE_BYTES_MAX => {
                    return Ok(Element::Scalar { end: cr + 2 });
                }
                Some(b'\n') => return Err(ReplyError::LineTooLong),
                Some(_) => from = cr + 1,
                None => {
                    self.searched = cr;
                    return Ok(Element::Partial { need: cr + 2 });
                }
            }
        }
        if input.len() - at > LINE_BYTES_MAX {
            return Err(ReplyError::LineTooLong);
        }
        self.searched = input.len();
        Ok(Element::Partial {
            need: input.len() + 1,
        })
    }
}

/// The replies that make up most of what shards send: a bulk string below
/// 10,000 bytes, a null, `+OK`. `None` says nothing.
#[inline(always)]
fn short(input: &[u8]) -> Option<Reply> {
    match *input {
        [b'$', ref tail @ ..] => {
            if let Some((len, header_len)) = header::parse_short(tail) {
                let end = 1 + header_len + len;
                return (input.get(end..end + 2)? == b"\r\n").then_some(Reply {
                    len: end + 2,
                    kind: b'$',
                });
            }
            input
                .starts_with(b"$-1\r\n")
                .then_some(Reply { len: 5, kind: b'$' })
        }
        [b'+', b'O', b'K', b'\r', b'\n', ..] => Some(Reply { len: 5, kind: b'+' }),
        _ => None,
    }
}

/// A body of `len` bytes at `body`, and its CR LF.
#[inline]
fn bulk_end(input: &[u8], kind: u8, body: usize, len: usize) -> Result<Element, ReplyError> {
    let end = body + len;
    match input.get(end..end + 2) {
        Some(b"\r\n") => Ok(Element::Scalar { end: end + 2 }),
        Some(_) => Err(ReplyError::MissingCrlf(kind)),
        None => Ok(Element::Partial { need: end + 2 }),
    }
}

/// An element that starts with a length line; `tail` follows its type byte.
fn length_element(input: &[u8], kind: u8, at: usize, tail: &[u8]) -> Result<Element, ReplyError> {
    if tail.first() == Some(&b'?') {
        return Err(ReplyError::Streamed(kind));
    }
    let (value, header_len) = match header::parse(tail) {
        Header::Partial => {
            return Ok(Element::Partial {
                need: input.len() + 1,
            });
        }
        Header::Invalid => return Err(ReplyError::InvalidLength(kind)),
        Header::Length { value, len } => (value, len),
    };
    let body = at + 1 + header_len;
    match (kind, value) {
        (b'$' | b'*', -1) => Ok(Element::Scalar { end: body }),
        (b'$' | b'=' | b'!', 0..=BULK_BYTES_MAX) => bulk_end(input, kind, body, value as usize),
        (b'*' | b'~' | b'>', 0..=ELEMENTS_MAX) => Ok(Element::Aggregate {
            elements: value as u64,
            body,
        }),
        (b'%' | b'|', 0..=ELEMENTS_MAX) => Ok(Element::Aggregate {
            elements: value as u64 * 2,
            body,
        }),
        _ => Err(ReplyError::InvalidLength(kind)),
    }
}

/// How many elements an array (or set, or push) has, and the offset of the
/// first. An attribute before it is skipped.
///
/// # Errors
/// A reply of another type (a null array, too), or one that is not whole.
pub fn array_body(reply: &[u8]) -> Result<(u64, usize), ReplyError> {
    let mut at = 0;
    loop {
        let kind = reply.get(at).copied().ok_or(ReplyError::Truncated)?;
        match ReplyScanner::new().element(reply, at)? {
            Element::Partial { .. } => return Err(ReplyError::Truncated),
            Element::Aggregate { elements, body } if kind == b'|' => {
                at = body;
                for _ in 0..elements {
                    at += element_len(reply, at)?;
                }
            }
            Element::Aggregate { elements, body } if kind != b'%' => return Ok((elements, body)),
            Element::Scalar { .. } | Element::Aggregate { .. } => {
                return Err(ReplyError::NotAnArray(kind));
            }
        }
    }
}

/// Takes an array (or set, or push) apart: one span for each element with its
/// header, in `reply`'s offsets. An attribute is part of the element after it.
///
/// # Errors
/// A reply of another type (a null array, too), or one that is not whole.
pub fn array_elements(reply: &[u8], out: &mut Vec<Span>) -> Result<(), ReplyError> {
    if u32::try_from(reply.len()).is_err() {
        return Err(ReplyError::TooLong(reply.len()));
    }
    out.clear();
    let (mut left, mut at) = array_body(reply)?;
    while left > 0 {
        let end = at + element_len(reply, at)?;
        out.push(Span {
            start: at as u32,
            end: end as u32,
        });
        at = end;
        left -= 1;
    }
    if at < reply.len() {
        return Err(ReplyError::TrailingBytes(reply.len() - at));
    }
    Ok(())
}

fn element_len(reply: &[u8], at: usize) -> Result<usize, ReplyError> {
    let tail = reply.get(at..).unwrap_or_default();
    match ReplyScanner::new().scan(tail)? {
        Some(element) => Ok(element.len),
        None => Err(ReplyError::Truncated),
    }
}

#[cfg(test)]
mod tests;
