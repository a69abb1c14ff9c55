//! A string of an RDB: a slice of the input, unpacked bytes, or an integer
//! that the format stores as a number and a client sees as decimal text.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::ops::Deref;

/// `-9223372036854775808`
const DIGITS_MAX: usize = 20;

/// Bytes of one string; derefs to them.
#[derive(Clone)]
pub struct Text<'a>(Form<'a>);

#[derive(Clone)]
enum Form<'a> {
    Slice(&'a [u8]),
    Owned(Vec<u8>),
    Digits { buffer: [u8; DIGITS_MAX], len: u8 },
}

impl<'a> Text<'a> {
    /// Decimal text of `number`, kept inline.
    pub fn from_integer(number: i64) -> Self {
        let mut buffer = [0; DIGITS_MAX];
        let mut rest = &mut buffer[..];
        // The buffer holds every i64, so the write cannot fall short.
        let fits = write!(rest, "{number}").is_ok();
        debug_assert!(fits);
        let len = (DIGITS_MAX - rest.len()) as u8;
        Self(Form::Digits { buffer, len })
    }

    /// The string, copied only if it is neither a slice of the input nor owned already.
    pub fn into_cow(self) -> Cow<'a, [u8]> {
        match self.0 {
            Form::Slice(bytes) => Cow::Borrowed(bytes),
            Form::Owned(bytes) => Cow::Owned(bytes),
            Form::Digits { .. } => Cow::Owned(self.to_vec()),
        }
    }
}

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Form::Slice(bytes))
    }
}

impl From<Vec<u8>> for Text<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Form::Owned(bytes))
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Slice(bytes) => bytes,
            Form::Owned(bytes) => bytes,
            Form::Digits { buffer, len } => buffer.get(..usize::from(*len)).unwrap_or(&[]),
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_their_decimal_text() {
        for number in [0, -1, 12, i64::MIN, i64::MAX] {
            let text = Text::from_integer(number);
            assert_eq!(&*text, number.to_string().as_bytes());
            assert_eq!(text, Text::from(number.to_string().into_bytes()));
            assert_eq!(&*text.into_cow(), number.to_string().as_bytes());
        }
    }
}
