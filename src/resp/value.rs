//! Replies as owned values, for connections of our own. The proxy's hot path
//! forwards bytes and never makes these.

use super::header;
use super::reply::{REPLY_DEPTH_MAX, ReplyError, ReplyScanner};

/// One decoded reply. Attributes are left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`
    Simple(Vec<u8>),
    /// `-` and `!`: code and message, without the dash.
    Error(Vec<u8>),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_`
    Null,
    /// `*`
    Array(Vec<Value>),
    /// `%`, in the order it was sent.
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
    /// `,`
    Double(f64),
    /// `#`
    Boolean(bool),
    /// `(`: decimal digits, as sent.
    BigNumber(Vec<u8>),
    /// `=`: the text after its format (`txt:`, `mkd:`).
    Verbatim(Vec<u8>),
}

impl Value {
    /// The bytes of a string of any kind (simple, bulk, verbatim).
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(bytes) | Value::Bulk(bytes) | Value::Verbatim(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Decodes `bytes`, which is exactly one reply.
///
/// # Errors
/// What [`ReplyScanner::scan`] refuses, a reply without its end, bytes after
/// it, and numbers that are none.
pub fn parse_value(bytes: &[u8]) -> Result<Value, ReplyError> {
    // The scan bounds depth and proves every length, so decoding may trust them.
    let Some(reply) = ReplyScanner::new().scan(bytes)? else {
        return Err(ReplyError::Truncated);
    };
    if reply.len < bytes.len() {
        return Err(ReplyError::TrailingBytes(bytes.len() - reply.len));
    }
    Decoder { rest: bytes }.value(0)
}

struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, ReplyError> {
        if depth > REPLY_DEPTH_MAX {
            return Err(ReplyError::TooDeep);
        }
        let (mut kind, mut line) = self.line()?;
        while kind == b'|' {
            for _ in 0..self.count(kind, line)? {
                self.value(depth + 1)?;
                self.value(depth + 1)?;
            }
            (kind, line) = self.line()?;
        }
        Ok(match kind {
            b'+' => Value::Simple(line.to_vec()),
            b'-' => Value::Error(line.to_vec()),
            b':' => Value::Integer(
                header::parse_number(line.strip_prefix(b"+").unwrap_or(line))
                    .ok_or(ReplyError::InvalidValue(kind))?,
            ),
            b'$' | b'*' if line == b"-1" => Value::Null,
            b'$' => Value::Bulk(self.body(kind, line)?.to_vec()),
            b'!' => Value::Error(self.body(kind, line)?.to_vec()),
            b'=' => match self.body(kind, line)? {
                [_, _, _, b':', text @ ..] => Value::Verbatim(text.to_vec()),
                _ => return Err(ReplyError::InvalidValue(kind)),
            },
            b'*' => Value::Array(self.elements(kind, line, depth)?),
            b'~' => Value::Set(self.elements(kind, line, depth)?),
            b'>' => Value::Push(self.elements(kind, line, depth)?),
            b'%' => Value::Map(self.pairs(line, depth)?),
            b',' => Value::Double(double(line)?),
            b'(' => Value::BigNumber(line.to_vec()),
            b'_' if line.is_empty() => Value::Null,
            b'#' if line == b"t" => Value::Boolean(true),
            b'#' if line == b"f" => Value::Boolean(false),
            b'_' | b'#' => return Err(ReplyError::InvalidValue(kind)),
            other => return Err(ReplyError::UnknownType(other)),
        })
    }

    /// The type byte and the rest of its line.
    fn line(&mut self) -> Result<(u8, &'a [u8]), ReplyError> {
        let end = self
            .rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .ok_or(ReplyError::Truncated)?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(2..).unwrap_or_default();
        match line {
            [kind, line @ ..] => Ok((*kind, line)),
            [] => Err(ReplyError::UnknownType(b'\r')),
        }
    }

    fn count(&self, kind: u8, line: &[u8]) -> Result<usize, ReplyError> {
        header::parse_number(line)
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(ReplyError::InvalidLength(kind))
    }

    fn body(&mut self, kind: u8, line: &[u8]) -> Result<&'a [u8], ReplyError> {
        let len = self.count(kind, line)?;
        let (body, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ReplyError::Truncated)?;
        self.rest = rest.get(2..).ok_or(ReplyError::Truncated)?;
        Ok(body)
    }

    fn elements(&mut self, kind: u8, line: &[u8], depth: usize) -> Result<Vec<Value>, ReplyError> {
        (0..self.count(kind, line)?)
            .map(|_| self.value(depth + 1))
            .collect()
    }

    fn pairs(&mut self, line: &[u8], depth: usize) -> Result<Vec<(Value, Value)>, ReplyError> {
        (0..self.count(b'%', line)?)
            .map(|_| Ok((self.value(depth + 1)?, self.value(depth + 1)?)))
            .collect()
    }
}

/// RESP3 doubles: digits, `inf`, `-inf`, `nan`.
fn double(line: &[u8]) -> Result<f64, ReplyError> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(ReplyError::InvalidValue(b','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_decoded() {
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        for (text, value) in [
            ("+OK\r\n", Value::Simple(b"OK".to_vec())),
            ("-ERR x\r\n", Value::Error(b"ERR x".to_vec())),
            ("!5\r\nERR x\r\n", Value::Error(b"ERR x".to_vec())),
            (":-7\r\n", Value::Integer(-7)),
            (":+7\r\n", Value::Integer(7)),
            ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("_\r\n", Value::Null),
            (
                "*2\r\n$1\r\na\r\n*0\r\n",
                Value::Array(vec![bulk("a"), Value::Array(vec![])]),
            ),
            (
                "%1\r\n$1\r\na\r\n:1\r\n",
                Value::Map(vec![(bulk("a"), Value::Integer(1))]),
            ),
            ("~1\r\n#t\r\n", Value::Set(vec![Value::Boolean(true)])),
            (">1\r\n#f\r\n", Value::Push(vec![Value::Boolean(false)])),
            (",-1.5e3\r\n", Value::Double(-1500.0)),
            (",inf\r\n", Value::Double(f64::INFINITY)),
            (
                "(12345678901234567890\r\n",
                Value::BigNumber(b"12345678901234567890".to_vec()),
            ),
            ("=7\r\ntxt:abc\r\n", Value::Verbatim(b"abc".to_vec())),
            (
                "|1\r\n+k\r\n*1\r\n:1\r\n+OK\r\n",
                Value::Simple(b"OK".to_vec()),
            ),
        ] {
            assert_eq!(parse_value(text.as_bytes()), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for (text, error) in [
            (":x\r\n", ReplyError::InvalidValue(b':')),
            ("#x\r\n", ReplyError::InvalidValue(b'#')),
            (",x\r\n", ReplyError::InvalidValue(b',')),
            ("_x\r\n", ReplyError::InvalidValue(b'_')),
            ("=1\r\na\r\n", ReplyError::InvalidValue(b'=')),
            ("+OK\r\n+OK\r\n", ReplyError::TrailingBytes(5)),
            ("*4294967295\r\n", ReplyError::Truncated),
            ("", ReplyError::Truncated),
        ] {
            assert_eq!(parse_value(text.as_bytes()), Err(error), "{text:?}");
        }
    }
}
