//! Zipmaps: small hashes of Redis up to 2.4.
//!
//! ```text
//! | count 1 (254, 255: not counted) | pairs | FF |
//! pair: | length | field | length | unused 1 | value | as many unused bytes |
//! length: 1 byte below 254, or FE + 4 LE
//! ```

use super::reader::{Malformed, Reader};

const END: u8 = 0xff;
const WIDE: u8 = 0xfe;
const NOT_COUNTED: u8 = 0xfe;

/// Calls `pair` with each field and its value.
pub(super) fn pairs(blob: &[u8], mut pair: impl FnMut(&[u8], &[u8])) -> Result<(), Malformed> {
    let mut reader = Reader::new(blob);
    let count = reader.byte()?;
    let mut seen = 0usize;
    while let Some(len) = length(&mut reader)? {
        let field = reader.take(len)?;
        let len = length(&mut reader)?;
        let len = len.ok_or(Malformed::Structure("a zipmap's field has no value"))?;
        let unused = reader.byte()?;
        let value = reader.take(len)?;
        reader.take(usize::from(unused))?;
        pair(field, value);
        seen += 1;
    }
    if count < NOT_COUNTED && usize::from(count) != seen {
        return Err(Malformed::Structure(
            "a zipmap's count is not that of its pairs",
        ));
    }
    reader.finish()
}

/// A length, or `None` at the end.
fn length(reader: &mut Reader<'_>) -> Result<Option<usize>, Malformed> {
    Ok(match reader.byte()? {
        END => None,
        WIDE => {
            let len = u32::from_le_bytes(reader.array()?);
            Some(usize::try_from(len).map_err(|_| Malformed::Truncated)?)
        }
        len => Some(usize::from(len)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(blob: &[u8]) -> Result<Pairs, Malformed> {
        let mut all = Vec::new();
        pairs(blob, |field, value| {
            all.push((field.to_vec(), value.to_vec()))
        })
        .map(|()| all)
    }

    #[test]
    fn vector_of_the_format() {
        let blob = b"\x02\x03foo\x03\x00bar\x05hello\x05\x00world\xff";
        let pair = |field: &str, value: &str| (field.into(), value.into());
        assert_eq!(
            read(blob).unwrap(),
            [pair("foo", "bar"), pair("hello", "world")]
        );
        for cut in 0..blob.len() {
            assert!(read(&blob[..cut]).is_err());
        }
    }

    #[test]
    fn unused_bytes_and_wide_lengths() {
        let blob = b"\xfe\x01a\xfe\x02\x00\x00\x00\x03bc...\xff";
        assert_eq!(read(blob).unwrap(), [(b"a".to_vec(), b"bc".to_vec())]);
    }
}
