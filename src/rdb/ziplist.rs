//! Ziplists: what listpacks replaced in Redis 7.
//!
//! ```text
//! | total bytes 4 | tail offset 4 | count 2 (65535: not counted) | entries | FF |   all LE
//! entry: | size of the one before: 1, or FE + 4 | encoding | data |
//! 00llllll string       01llllll +1 BE string   10...... +4 BE string
//! C0 i16  D0 i32  E0 i64  F0 i24  FE i8         F1..=FD  0..=12 in the low bits, plus one
//! ```
//!
//! Source: `ziplist.c` of Redis 6.

use super::listpack::{Packed, i24};
use super::reader::{Malformed, Reader};

const END: u8 = 0xff;
const WIDE_PREVIOUS: u8 = 0xfe;
const NOT_COUNTED: u16 = u16::MAX;

/// Walks the elements of a ziplist from its front.
#[derive(Clone, Debug)]
pub(super) struct Ziplist<'a> {
    reader: Reader<'a>,
    counted: Option<u16>,
    seen: usize,
}

impl<'a> Ziplist<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(blob);
        let total = u32::from_le_bytes(reader.array()?);
        reader.take(4)?;
        let count = u16::from_le_bytes(reader.array()?);
        if usize::try_from(total) != Ok(blob.len()) {
            return Err(Malformed::Structure(
                "a ziplist's size is not that of its bytes",
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
        match self.reader.byte()? {
            END => {
                self.reader.finish()?;
                if self
                    .counted
                    .is_some_and(|count| usize::from(count) != self.seen)
                {
                    return Err(Malformed::Structure(
                        "a ziplist's count is not that of its elements",
                    ));
                }
                return Ok(None);
            }
            WIDE_PREVIOUS => {
                self.reader.take(4)?;
            }
            _ => {}
        }
        self.seen += 1;
        self.element().map(Some)
    }

    fn element(&mut self) -> Result<Packed<'a>, Malformed> {
        let reader = &mut self.reader;
        let first = reader.byte()?;
        Ok(match first {
            0x00..=0x3f => Packed::Bytes(reader.take(usize::from(first))?),
            0x40..=0x7f => {
                let len = usize::from(first & 0x3f) << 8 | usize::from(reader.byte()?);
                Packed::Bytes(reader.take(len)?)
            }
            0x80..=0xbf => {
                let len = u32::from_be_bytes(reader.array()?);
                let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
                Packed::Bytes(reader.take(len)?)
            }
            0xc0 => Packed::Integer(i16::from_le_bytes(reader.array()?).into()),
            0xd0 => Packed::Integer(i32::from_le_bytes(reader.array()?).into()),
            0xe0 => Packed::Integer(reader.i64_le()?),
            0xf0 => Packed::Integer(i24(reader.array()?)),
            0xfe => Packed::Integer(i8::from_le_bytes(reader.array()?).into()),
            0xf1..=0xfd => Packed::Integer(i64::from(first & 0x0f) - 1),
            _ => {
                return Err(Malformed::Structure(
                    "a ziplist element has an unknown encoding",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::Text;
    use super::*;
    use proptest::prelude::*;

    fn read(blob: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut ziplist = Ziplist::new(blob)?;
        let mut all = Vec::new();
        while let Some(element) = ziplist.next()? {
            all.push(Text::from(element).to_vec());
        }
        Ok(all)
    }

    fn write(entries: &[&[u8]]) -> Vec<u8> {
        let body = entries.concat();
        let mut blob = (body.len() as u32 + 11).to_le_bytes().to_vec();
        blob.extend_from_slice(&[0; 4]);
        blob.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        blob.extend_from_slice(&body);
        blob.push(END);
        blob
    }

    #[test]
    fn vector_of_the_format() {
        let blob = [
            0x0f, 0, 0, 0, 0x0c, 0, 0, 0, 2, 0, 0x00, 0xf3, 0x02, 0xf6, 0xff,
        ];
        assert_eq!(read(&blob).unwrap(), [b"2", b"5"]);
    }

    #[test]
    fn every_encoding() {
        let medium = [&[0, 0x41, 0x2c][..], &[b'm'; 300]].concat();
        let large = [
            &[0xfe, 0x2f, 1, 0, 0, 0x80, 0, 0, 0x13, 0x88][..],
            &[b'l'; 5000],
        ]
        .concat();
        let blob = write(&[
            &[0, 0x03, b'a', b'b', b'c'],
            &medium,
            &large,
            &[0, 0xc0, 0, 0x80],
            &[0, 0xd0, 0, 0, 0, 0x80],
            &[0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80],
            &[0, 0xf0, 0, 0, 0x80],
            &[0, 0xfe, 0x80],
            &[0, 0xf1],
            &[0, 0xfd],
        ]);
        let texts = read(&blob).unwrap();
        let short: Vec<_> = texts.iter().filter(|text| text.len() < 100).collect();
        let expected = [
            "abc",
            "-32768",
            "-2147483648",
            "-9223372036854775808",
            "-8388608",
            "-128",
            "0",
            "12",
        ];
        assert_eq!(
            short,
            expected
                .iter()
                .map(|text| text.as_bytes())
                .collect::<Vec<_>>()
        );
        for cut in 0..blob.len() {
            assert!(read(&blob[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_ends(mut blob in prop::collection::vec(any::<u8>(), 10..300)) {
            let len = blob.len() as u32;
            blob[..4].copy_from_slice(&len.to_le_bytes());
            blob[8..10].fill(0xff);
            if let Ok(elements) = read(&blob) {
                prop_assert!(elements.len() <= blob.len());
            }
        }
    }
}
