//! Replies, in the client's protocol.
//!
//! What RESP2 has no word for is told as Redis tells it there: maps as flat arrays, sets as
//! arrays, doubles and big texts as bulk strings, truth as 1 or 0.

use crate::resp;
use crate::store::format::numbers::float_text;

/// Replies of one client that were not sent yet, or of one turn.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    out: Vec<u8>,
    is_resp3: bool,
}

impl Reply {
    /// None yet.
    pub fn new(is_resp3: bool) -> Self {
        Self {
            out: Vec::new(),
            is_resp3,
        }
    }

    /// Whether it is RESP3.
    pub fn is_resp3(&self) -> bool {
        self.is_resp3
    }

    /// Says which protocol what follows is in.
    pub fn set_resp3(&mut self, is_resp3: bool) {
        self.is_resp3 = is_resp3;
    }

    /// Bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Bytes so far, to be added to by who speaks RESP already.
    pub fn raw(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Forgets all behind a length it had.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// `+text`.
    pub fn status(&mut self, text: &str) {
        resp::write_simple(&mut self.out, text);
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`.
    pub fn error(&mut self, text: &str) {
        resp::write_error(&mut self.out, text);
    }

    /// The same of any bytes; ends of lines are told as blanks.
    pub fn error_bytes(&mut self, words: &[u8]) {
        self.out.push(b'-');
        let shown = words.iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            byte => *byte,
        });
        self.out.extend(shown);
        self.out.extend_from_slice(b"\r\n");
    }

    /// `:value`.
    pub fn integer(&mut self, value: i64) {
        resp::write_integer(&mut self.out, value);
    }

    /// A count.
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// 1 or 0, in either protocol.
    pub fn flag(&mut self, value: bool) {
        self.integer(i64::from(value));
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        resp::write_bulk(&mut self.out, bytes);
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// No value.
    pub fn null(&mut self) {
        self.out
            .extend_from_slice(if self.is_resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.out
            .extend_from_slice(if self.is_resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The head of an array.
    pub fn array(&mut self, len: usize) {
        resp::write_array_header(&mut self.out, len);
    }

    /// The head of a map of so many pairs.
    pub fn map(&mut self, pairs: usize) {
        match self.is_resp3 {
            true => self.head(b'%', pairs),
            false => self.array(2 * pairs),
        }
    }

    /// The head of a set.
    pub fn set(&mut self, len: usize) {
        match self.is_resp3 {
            true => self.head(b'~', len),
            false => self.array(len),
        }
    }

    /// The head of a message that answers nothing.
    pub fn push(&mut self, len: usize) {
        match self.is_resp3 {
            true => self.head(b'>', len),
            false => self.array(len),
        }
    }

    fn head(&mut self, kind: u8, len: usize) {
        self.out.push(kind);
        self.out.extend_from_slice(len.to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// A double.
    pub fn double(&mut self, value: f64) {
        let text = float_text(value);
        match self.is_resp3 {
            true => {
                self.out.push(b',');
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
            false => self.bulk(text.as_bytes()),
        }
    }

    /// Truth.
    pub fn boolean(&mut self, value: bool) {
        match (self.is_resp3, value) {
            (true, true) => self.out.extend_from_slice(b"#t\r\n"),
            (true, false) => self.out.extend_from_slice(b"#f\r\n"),
            (false, _) => self.flag(value),
        }
    }

    /// A text for people.
    pub fn verbatim(&mut self, text: &str) {
        if !self.is_resp3 {
            return self.bulk(text.as_bytes());
        }
        self.head(b'=', text.len() + 4);
        self.out.extend_from_slice(b"txt:");
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }
}
