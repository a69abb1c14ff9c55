//! Listpacks: small lists, sets, hashes, sorted sets and stream nodes.
//!
//! ```text
//! | total bytes 4 LE | count 2 LE (65535: not counted) | entries | FF |
//! entry: | encoding and data | its size again, 7 bits a byte, 1..=5 bytes |
//! 0nnnnnnn u7        10llllll string          110nnnnn +1 i13
//! 1110llll +1 string F0 +4 LE string          F1 i16  F2 i24  F3 i32  F4 i64
//! ```
//!
//! Source: `listpack.c` of Redis 7.

use super::reader::{Malformed, Reader};
use super::text::Text;

pub(super) const END: u8 = 0xff;
pub(super) const NOT_COUNTED: u16 = u16::MAX;

/// One element as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packed<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
}

impl<'a> From<Packed<'a>> for Text<'a> {
    fn from(packed: Packed<'a>) -> Self {
        match packed {
            Packed::Integer(number) => Text::from_integer(number),
            Packed::Bytes(bytes) => bytes.into(),
        }
    }
}

/// Walks the elements of a listpack from its front.
#[derive(Clone, Debug)]
pub(super) struct Listpack<'a> {
    reader: Reader<'a>,
    counted: Option<u16>,
    seen: usize,
}

impl<'a> Listpack<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(blob);
        let total = u32::from_le_bytes(reader.array()?);
        let count = u16::from_le_bytes(reader.array()?);
        if usize::try_from(total) != Ok(blob.len()) {
            return Err(Malformed::Structure(
                "a listpack's size is not that of its bytes",
            ));
        }
        let counted = (count != NOT_COUNTED).then_some(count);
        Ok(Self {
            reader,
            counted,
            seen: 0,
        })
    }

    /// The next element; `None` after the last, once the end is as it should be.
    pub(super) fn next(&mut self) -> Result<Option<Packed<'a>>, Malformed> {
        let start = self.reader.position();
        let first = self.reader.byte()?;
        if first == END {
            self.reader.finish()?;
            if self
                .counted
                .is_some_and(|count| usize::from(count) != self.seen)
            {
                return Err(Malformed::Structure(
                    "a listpack's count is not that of its elements",
                ));
            }
            return Ok(None);
        }
        let element = self.element(first)?;
        let size = self.reader.position() - start;
        self.reader.take(backward_len_size(size))?;
        self.seen += 1;
        Ok(Some(element))
    }

    /// The next element, where one must be.
    pub(super) fn expect(&mut self) -> Result<Packed<'a>, Malformed> {
        self.next()?.ok_or(Malformed::Structure(
            "a listpack ends before its last element",
        ))
    }

    /// The next element, where an integer must be.
    pub(super) fn number(&mut self) -> Result<i64, Malformed> {
        match self.expect()? {
            Packed::Integer(number) => Ok(number),
            Packed::Bytes(bytes) => integer(bytes),
        }
    }

    fn element(&mut self, first: u8) -> Result<Packed<'a>, Malformed> {
        let reader = &mut self.reader;
        Ok(match first {
            0x00..=0x7f => Packed::Integer(first.into()),
            0x80..=0xbf => Packed::Bytes(reader.take(usize::from(first & 0x3f))?),
            0xc0..=0xdf => {
                let bits = u16::from(first & 0x1f) << 8 | u16::from(reader.byte()?);
                // 13 bits, the highest of them the sign.
                Packed::Integer(i64::from((bits << 3) as i16 >> 3))
            }
            0xe0..=0xef => {
                let len = usize::from(first & 0x0f) << 8 | usize::from(reader.byte()?);
                Packed::Bytes(reader.take(len)?)
            }
            0xf0 => {
                let len = u32::from_le_bytes(reader.array()?);
                let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
                Packed::Bytes(reader.take(len)?)
            }
            0xf1 => Packed::Integer(i16::from_le_bytes(reader.array()?).into()),
            0xf2 => Packed::Integer(i24(reader.array()?)),
            0xf3 => Packed::Integer(i32::from_le_bytes(reader.array()?).into()),
            0xf4 => Packed::Integer(reader.i64_le()?),
            _ => {
                return Err(Malformed::Structure(
                    "a listpack element has an unknown encoding",
                ));
            }
        })
    }
}

/// Bytes that an entry of `size` spends on its size for walks backwards: all but the first
/// width end one before what would fit (`lpEncodeBacklen`).
pub(super) fn backward_len_size(size: usize) -> usize {
    match size {
        0..=0x7f => 1,
        0x80..=0x3ffe => 2,
        0x3fff..=0x1f_fffe => 3,
        0x1f_ffff..=0xfff_fffe => 4,
        _ => 5,
    }
}

/// A signed little-endian number of three bytes.
pub(super) fn i24([low, middle, high]: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
}

/// Decimal text as a number.
pub(super) fn integer(text: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Malformed::Structure("text stands where an integer must be"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes entries the way `lpAppend` does, string forms by length.
    fn write(entries: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for encoded in entries {
            body.extend_from_slice(encoded);
            let mut size = encoded.len();
            let bytes = backward_len_size(size);
            let mut backward = vec![0; bytes];
            for byte in backward.iter_mut().rev() {
                *byte = (size & 0x7f) as u8 | 0x80;
                size >>= 7;
            }
            backward[0] &= 0x7f;
            body.extend_from_slice(&backward);
        }
        let mut blob = (body.len() as u32 + 7).to_le_bytes().to_vec();
        blob.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        blob.extend_from_slice(&body);
        blob.push(END);
        blob
    }

    fn read(blob: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut listpack = Listpack::new(blob)?;
        let mut all = Vec::new();
        while let Some(element) = listpack.next()? {
            all.push(Text::from(element).to_vec());
        }
        Ok(all)
    }

    #[test]
    fn vectors_of_the_format() {
        let numbers = [0x0d, 0, 0, 0, 3, 0, 0, 1, 1, 1, 2, 1, 0xff];
        assert_eq!(read(&numbers).unwrap(), [b"0", b"1", b"2"]);
        let names = b"\x17\0\0\0\x02\0\x86field1\x07\x86field2\x07\xff";
        assert_eq!(read(names).unwrap(), [b"field1", b"field2"]);
    }

    #[test]
    fn every_encoding() {
        let medium = [&[0xe0 | 1, 0x2c][..], &[b'm'; 300]].concat();
        let large = [&[0xf0, 0x88, 0x13, 0, 0][..], &[b'l'; 5000]].concat();
        let blob = write(&[
            &[0x7f],
            &[0xdf, 0xff],
            &[0xd0, 0x00],
            &[0xcf, 0xff],
            &[0x83, b'a', b'b', b'c'],
            &medium,
            &large,
            &[0xf1, 0x00, 0x80],
            &[0xf2, 0x00, 0x00, 0x80],
            &[0xf2, 0xff, 0xff, 0x7f],
            &[0xf3, 0x00, 0x00, 0x00, 0x80],
            &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80],
        ]);
        let texts = read(&blob).unwrap();
        let short: Vec<_> = texts.iter().filter(|text| text.len() < 100).collect();
        let expected = [
            "127",
            "-1",
            "-4096",
            "4095",
            "abc",
            "-32768",
            "-8388608",
            "8388607",
            "-2147483648",
            "-9223372036854775808",
        ];
        assert_eq!(
            short,
            expected
                .iter()
                .map(|text| text.as_bytes())
                .collect::<Vec<_>>()
        );
        assert_eq!((texts[5].len(), texts[6].len()), (300, 5000));
    }

    #[test]
    fn damage_is_an_error() {
        let good = write(&[&[0x83, b'a', b'b', b'c'], &[0x01]]);
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err());
        }
        let mut miscounted = good.clone();
        miscounted[4] = 3;
        assert!(read(&miscounted).is_err());
        miscounted[4..6].fill(0xff);
        assert!(read(&miscounted).is_ok());
        let mut early_end = good.clone();
        early_end[11] = 0xff;
        assert!(read(&early_end).is_err());
    }

    proptest! {
        #[test]
        fn garbage_ends(mut blob in prop::collection::vec(any::<u8>(), 6..300)) {
            let len = blob.len() as u32;
            blob[..4].copy_from_slice(&len.to_le_bytes());
            blob[4..6].fill(0xff);
            if let Ok(elements) = read(&blob) {
                prop_assert!(elements.len() <= blob.len());
            }
        }
    }
}
