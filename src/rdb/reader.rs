//! Lengths and strings of an RDB, read from bytes that may end anywhere.
//!
//! ```text
//! 00llllll                 length of 6 bits
//! 01llllll llllllll        length of 14 bits
//! 10000000 + 4 bytes BE    length of 32 bits
//! 10000001 + 8 bytes BE    length of 64 bits
//! 110000tt                 a string in another form: t = 0 i8, 1 i16, 2 i32
//!                          (little-endian), 3 LZF: length packed, length unpacked, bytes
//! ```
//!
//! [`length`] and [`string_extent`] answer `None` when the bytes end too soon,
//! which the scanner takes as "wait". [`Reader`] works on a value that is
//! whole, where the same is an error.

use super::lzf;
use super::text::Text;

/// What is wrong with bytes that should follow the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length or an element reaches past the end of the value.
    #[error("it ends in the middle of an element")]
    Truncated,
    /// Bytes follow the value's last element.
    #[error("bytes follow its last element")]
    TrailingBytes,
    /// The first byte of a length is none of the known forms.
    #[error("byte {0:#04x} does not start a length")]
    LengthByte(u8),
    /// A length or position does not fit into this machine's address space.
    #[error("length {0} is beyond any input")]
    LengthOverflow(u64),
    /// LZF data refer to bytes before their start or end too soon.
    #[error("its LZF data are corrupt")]
    Lzf,
    /// LZF data that unpack to more than is taken here.
    #[error("it unpacks to {unpacked} bytes, more than the {max} taken here")]
    Unpacked {
        /// Bytes declared.
        unpacked: u64,
        /// The limit.
        max: usize,
    },
    /// LZF data cannot unpack, or did not unpack, to the length declared.
    #[error("its LZF data do not unpack to the declared length")]
    LzfLength,
    /// A module value has an item opcode other than 0 to 5.
    #[error("module item opcode {0} is unknown")]
    ModuleItem(u64),
    /// An integer field is outside its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// A listpack, ziplist, intset, zipmap or stream node breaks its own rules.
    #[error("{0}")]
    Structure(&'static str),
    /// A sorted set's score is not a number.
    #[error("a score is not a number")]
    Score,
}

/// First field of a string or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Plain(u64),
    /// Low 6 bits of a first byte `11......`: integer or LZF string.
    Encoded(u8),
}

const INT8: u8 = 0;
const INT16: u8 = 1;
const INT32: u8 = 2;
const LZF: u8 = 3;

/// Reads the length at the start of `input`: itself and its size in bytes.
pub(super) fn length(input: &[u8]) -> Result<Option<(Length, usize)>, Malformed> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    Ok(match (first >> 6, first) {
        (0, _) => Some((Length::Plain(u64::from(first)), 1)),
        (1, _) => rest.first().map(|&low| {
            let high = u64::from(first & 0x3f) << 8;
            (Length::Plain(high | u64::from(low)), 2)
        }),
        (_, 0x80) => rest
            .first_chunk()
            .map(|bytes| (Length::Plain(u64::from(u32::from_be_bytes(*bytes))), 5)),
        (_, 0x81) => rest
            .first_chunk()
            .map(|bytes| (Length::Plain(u64::from_be_bytes(*bytes)), 9)),
        (3, _) => Some((Length::Encoded(first & 0x3f), 1)),
        _ => return Err(Malformed::LengthByte(first)),
    })
}

/// Reads a count or number, where no encoded string may stand.
pub(super) fn plain_length(input: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    match length(input)? {
        None => Ok(None),
        Some((Length::Plain(number), size)) => Ok(Some((number, size))),
        Some((Length::Encoded(form), _)) => Err(Malformed::LengthByte(0xc0 | form)),
    }
}

/// Size in bytes of the string at the start of `input`, its header included;
/// may reach past the end of `input`. `None` while the header is cut off.
pub(super) fn string_extent(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some((head, head_size)) = length(input)? else {
        return Ok(None);
    };
    let (header, body) = match head {
        Length::Plain(len) => (head_size, len),
        Length::Encoded(INT8) => (head_size, 1),
        Length::Encoded(INT16) => (head_size, 2),
        Length::Encoded(INT32) => (head_size, 4),
        Length::Encoded(LZF) => {
            let rest = input.get(head_size..).unwrap_or(&[]);
            let Some((packed, packed_size)) = plain_length(rest)? else {
                return Ok(None);
            };
            let rest = rest.get(packed_size..).unwrap_or(&[]);
            let Some((_, unpacked_size)) = plain_length(rest)? else {
                return Ok(None);
            };
            (head_size + packed_size + unpacked_size, packed)
        }
        Length::Encoded(form) => return Err(Malformed::LengthByte(0xc0 | form)),
    };
    usize::try_from(body)
        .ok()
        .and_then(|body| body.checked_add(header))
        .map(Some)
        .ok_or(Malformed::LengthOverflow(body))
}

/// A cursor over a whole value.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// Reads the length of a string that is written as it is; `None`, and
    /// nothing read, for one in another form.
    pub(super) fn plain_string_header(&mut self) -> Result<Option<u64>, Malformed> {
        match length(self.rest())?.ok_or(Malformed::Truncated)? {
            (Length::Plain(len), size) => {
                self.at += size;
                Ok(Some(len))
            }
            (Length::Encoded(_), _) => Ok(None),
        }
    }

    /// The string at the cursor as it is written, its header included.
    pub(super) fn raw_string(&mut self) -> Result<&'a [u8], Malformed> {
        let extent = string_extent(self.rest())?.ok_or(Malformed::Truncated)?;
        self.take(extent)
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or(&[])
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.input.len()
    }

    /// Succeeds only when everything was read.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::TrailingBytes)
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let bytes = self.rest().get(..len).ok_or(Malformed::Truncated)?;
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = *self.rest().first_chunk().ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn i64_le(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn f64_le(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    /// A count or number.
    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let (number, size) = plain_length(self.rest())?.ok_or(Malformed::Truncated)?;
        self.at += size;
        Ok(number)
    }

    /// A string, unpacked if it is LZF, as decimal text if it is an integer.
    pub(super) fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.string_within(usize::MAX)
    }

    /// The same, if it does not unpack to more than `unpacked_max` bytes.
    pub(super) fn string_within(&mut self, unpacked_max: usize) -> Result<Text<'a>, Malformed> {
        let (head, size) = length(self.rest())?.ok_or(Malformed::Truncated)?;
        self.at += size;
        Ok(match head {
            Length::Plain(len) => self.take(in_memory(len)?)?.into(),
            Length::Encoded(INT8) => Text::from_integer(i8::from_le_bytes(self.array()?).into()),
            Length::Encoded(INT16) => Text::from_integer(i16::from_le_bytes(self.array()?).into()),
            Length::Encoded(INT32) => Text::from_integer(i32::from_le_bytes(self.array()?).into()),
            Length::Encoded(LZF) => {
                let packed_len = in_memory(self.number()?)?;
                let unpacked_len = self.number()?;
                if usize::try_from(unpacked_len).is_ok_and(|len| len > unpacked_max) {
                    return Err(Malformed::Unpacked {
                        unpacked: unpacked_len,
                        max: unpacked_max,
                    });
                }
                lzf::decompress(self.take(packed_len)?, unpacked_len)?.into()
            }
            Length::Encoded(form) => return Err(Malformed::LengthByte(0xc0 | form)),
        })
    }
}

fn in_memory(len: u64) -> Result<usize, Malformed> {
    usize::try_from(len).map_err(|_| Malformed::LengthOverflow(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_form() {
        for (bytes, number) in [
            (&[0x05][..], 5),
            (&[0x40, 0x64], 100),
            (&[0x43, 0xe8], 1000),
            (&[0x80, 0, 1, 0x86, 0xa0], 100_000),
            (&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
            (&[0x81, 255, 255, 255, 255, 255, 255, 255, 255], u64::MAX),
            (&[0x81, 0, 0, 0, 0, 0, 0, 0, 3], 3),
        ] {
            assert_eq!(plain_length(bytes).unwrap(), Some((number, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(plain_length(&bytes[..cut]).unwrap(), None);
            }
        }
        assert_eq!(plain_length(&[0x82]), Err(Malformed::LengthByte(0x82)));
        assert_eq!(plain_length(&[0xc0]), Err(Malformed::LengthByte(0xc0)));
        assert_eq!(string_extent(&[0xc4]), Err(Malformed::LengthByte(0xc4)));
    }

    #[test]
    fn strings_of_every_form() {
        for (bytes, text) in [
            (&b"\x03abc"[..], &b"abc"[..]),
            (b"\xc0\x0a", b"10"),
            (b"\xc0\xff", b"-1"),
            (b"\xc1\x10\x27", b"10000"),
            (b"\xc2\x40\xe2\x01\x00", b"123456"),
            (b"\xc3\x05\x10\x00a\xe0\x06\x00", b"aaaaaaaaaaaaaaaa"),
            (b"\x00", b""),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(&*reader.string().unwrap(), text);
            assert!(reader.finish().is_ok());
            assert_eq!(string_extent(bytes).unwrap(), Some(bytes.len()));
            for cut in 0..bytes.len() {
                assert!(Reader::new(&bytes[..cut]).string().is_err());
                let extent = string_extent(&bytes[..cut]).unwrap();
                assert!(extent.is_none() || extent == Some(bytes.len()));
            }
        }
    }

    #[test]
    fn huge_declared_lengths_do_not_wrap() {
        let huge = [0x81, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(
            string_extent(&huge),
            Err(Malformed::LengthOverflow(u64::MAX))
        );
        assert_eq!(Reader::new(&huge).string(), Err(Malformed::Truncated));
    }
}
