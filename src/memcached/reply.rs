//! Finding the end of replies, and the blocks of a retrieval's.
//!
//! ```text
//! VALUE k 0 5 CR LF hello CR LF  VALUE k2 0 0 77 CR LF CR LF  END CR LF
//! '-- header ---'   '- data -'                               '- last -'
//! STORED CR LF      42 CR LF      CLIENT_ERROR text CR LF
//! ```
//!
//! Words that no memcached says are refused: whoever says them counts its
//! replies in another way than we do.

use super::line::{Line, number};

mod tail;

pub use tail::{Passed, ReplyTail};

/// Longest line of a reply, its end counted.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Largest value.
const DATA_BYTES_MAX: u64 = u32::MAX as u64;

const CRLF: usize = 2;

/// The words of replies that are one line.
const LAST_WORDS: [&[u8]; 11] = [
    b"END",
    b"STORED",
    b"NOT_STORED",
    b"EXISTS",
    b"NOT_FOUND",
    b"DELETED",
    b"TOUCHED",
    b"OK",
    b"ERROR",
    b"CLIENT_ERROR",
    b"SERVER_ERROR",
];

/// A server that does not speak this protocol: its connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The first word is none of memcached's.
    #[error("reply starts with a word that is none of memcached's")]
    UnknownWord,
    /// A `VALUE` without key, flags and length.
    #[error("VALUE line without key, flags and length")]
    BadValue,
    /// Something else stands where CR LF belongs.
    #[error("CR LF missing in a reply")]
    MissingCrlf,
    /// A line without end.
    #[error("reply line longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
}

/// What a line of a reply says.
enum Step {
    /// A block: its header's length, and that of its data and their CR LF.
    Value { header: usize, data: usize },
    /// The last line, with its length.
    Last(usize),
    /// Its end has not arrived.
    Partial,
}

/// One block of a retrieval's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Whose value it is.
    pub key: &'a [u8],
    /// Length of the block: header, data and their line ends.
    pub len: usize,
}

/// Finds replies in a server's bytes.
#[derive(Debug, Default)]
pub struct ReplyScanner {
    /// After the last block that is whole.
    pos: usize,
    /// Nothing new is found in fewer bytes.
    need: usize,
    /// Whether the scan stopped in the data of a block that ends at `need`.
    in_data: bool,
}

impl ReplyScanner {
    /// A scanner at the first byte of a reply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets a partial reply.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Length of the reply `input` starts with; `None` if its end has not
    /// arrived. On a later call `input` holds the same bytes and more.
    ///
    /// # Errors
    /// What is none of memcached's: there is no known boundary after it.
    #[inline]
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, ReplyError> {
        if input.len() < self.need {
            return Ok(None);
        }
        let outcome = self.advance(input);
        if !matches!(outcome, Ok(None)) {
            self.reset();
        }
        outcome
    }

    fn advance(&mut self, input: &[u8]) -> Result<Option<usize>, ReplyError> {
        self.in_data = false;
        loop {
            let rest = input.get(self.pos..).unwrap_or_default();
            match step(rest)? {
                Step::Last(len) => return Ok(Some(self.pos + len)),
                Step::Partial => {
                    self.need = input.len() + 1;
                    return Ok(None);
                }
                Step::Value { header, data } => {
                    let end = header.saturating_add(data);
                    match rest.get(..end) {
                        Some(block) if block.ends_with(b"\r\n") => self.pos += end,
                        Some(_) => return Err(ReplyError::MissingCrlf),
                        None => {
                            self.need = self.pos.saturating_add(end);
                            self.in_data = true;
                            return Ok(None);
                        }
                    }
                }
            }
        }
    }

    /// The reply whose end the last scan did not find has at least this many bytes.
    #[must_use]
    pub fn bytes_min(&self) -> usize {
        self.need
    }

    /// Whether the last scan stopped inside a reply.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.need > 0
    }

    /// Lets go of the reply whose end the last scan did not find: the tail goes
    /// on with it, from the same input; the scanner is for the reply after it.
    #[must_use]
    pub fn take_tail(&mut self) -> ReplyTail {
        let known = if self.in_data { self.need } else { self.pos };
        self.reset();
        ReplyTail::after(known)
    }
}

/// What stands at the start of a line of a reply.
#[inline]
fn step(input: &[u8]) -> Result<Step, ReplyError> {
    let near = input
        .get(..LINE_BYTES_MAX.min(input.len()))
        .unwrap_or_default();
    let Some(lf) = near.iter().position(|&byte| byte == b'\n') else {
        return match near.len() < LINE_BYTES_MAX {
            true => Ok(Step::Partial),
            false => Err(ReplyError::LineTooLong),
        };
    };
    let line = near.get(..lf).unwrap_or_default();
    let Some(text) = line.strip_suffix(b"\r") else {
        return Err(ReplyError::MissingCrlf);
    };
    if text.starts_with(b"VALUE ") {
        let (_, data) = value_line(text).ok_or(ReplyError::BadValue)?;
        return Ok(Step::Value {
            header: lf + 1,
            data: data + CRLF,
        });
    }
    let len = text.iter().position(|&byte| byte == b' ');
    let word = text.get(..len.unwrap_or(text.len())).unwrap_or_default();
    let is_known =
        LAST_WORDS.contains(&word) || word == b"VERSION" || number(word, u64::MAX).is_some();
    match is_known {
        true => Ok(Step::Last(lf + 1)),
        false => Err(ReplyError::UnknownWord),
    }
}

/// Key and data length of `VALUE key flags length [unique]`.
fn value_line(text: &[u8]) -> Option<(&[u8], usize)> {
    let line = Line::of(text);
    if !matches!(line.count(), 4 | 5) {
        return None;
    }
    let data = number(line.word(3), DATA_BYTES_MAX)?;
    Some((line.word(1), usize::try_from(data).ok()?))
}

/// The block that `input`, the rest of a whole reply, starts with; `None`:
/// what follows is the last line.
#[must_use]
pub fn next_value(input: &[u8]) -> Option<Value<'_>> {
    let Ok(Step::Value { header, data }) = step(input) else {
        return None;
    };
    let text = input.get(..header)?.strip_suffix(b"\r\n")?;
    let (key, _) = value_line(text)?;
    let len = header + data;
    (input.len() >= len).then_some(Value { key, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(input: &[u8]) -> Result<Option<usize>, ReplyError> {
        ReplyScanner::new().scan(input)
    }

    #[test]
    fn replies_are_one_line_or_blocks_and_a_last_line() {
        for reply in [
            &b"STORED\r\n"[..],
            b"END\r\n",
            b"42\r\n",
            b"9  \r\n",
            b"ERROR Too many open connections\r\n",
            b"CLIENT_ERROR bad data chunk\r\n",
            b"VERSION 1.6.18\r\n",
            b"VALUE k 0 0\r\n\r\nEND\r\n",
            b"VALUE k 4294967295 7 18446744073709551615\r\nEND\r\na\0\r\nEND\r\n",
            b"VALUE k 0 1\r\na\r\nSERVER_ERROR out of memory writing get response\r\n",
        ] {
            let more = [reply, b"END\r\n"].concat();
            assert_eq!(
                scan(&more),
                Ok(Some(reply.len())),
                "{}",
                reply.escape_ascii()
            );
        }
    }

    #[test]
    fn what_no_memcached_says_is_an_error() {
        for (reply, error) in [
            (&b"HD\r\n"[..], ReplyError::UnknownWord),
            (b"+OK\r\n", ReplyError::UnknownWord),
            (b"\r\n", ReplyError::UnknownWord),
            (b"stored\r\n", ReplyError::UnknownWord),
            (b"STORED\n", ReplyError::MissingCrlf),
            (b"VALUE k 0\r\n", ReplyError::BadValue),
            (b"VALUE k 0 -1\r\n", ReplyError::BadValue),
            (b"VALUE k 0 x\r\n", ReplyError::BadValue),
            (b"VALUE k 0 1\r\nab\r\n", ReplyError::MissingCrlf),
        ] {
            assert_eq!(scan(reply), Err(error), "{}", reply.escape_ascii());
        }
        assert_eq!(scan(&[b'1'; LINE_BYTES_MAX]), Err(ReplyError::LineTooLong));
        assert_eq!(scan(&[b'1'; LINE_BYTES_MAX - 1]), Ok(None));
    }

    #[test]
    fn blocks_are_told_one_by_one() {
        let reply = b"VALUE a 0 1\r\nx\r\nVALUE b 0 3 5\r\nEND\r\nEND\r\n";
        let first = next_value(reply).unwrap();
        assert_eq!((first.key, first.len), (&b"a"[..], 16));
        let second = next_value(&reply[16..]).unwrap();
        assert_eq!((second.key, second.len), (&b"b"[..], 20));
        assert_eq!(next_value(&reply[36..]), None);
        assert_eq!(next_value(b"VALUE a 0 1\r\nx"), None);
    }
}
