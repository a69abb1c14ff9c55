//! Intsets: sets of integers only.
//!
//! ```text
//! | width 4 LE: 2, 4 or 8 | count 4 LE | count integers, signed LE, ascending |
//! ```

use super::reader::{Malformed, Reader};

/// Calls `member` with each integer of `blob`.
pub(super) fn members(blob: &[u8], mut member: impl FnMut(i64)) -> Result<(), Malformed> {
    let mut reader = Reader::new(blob);
    let width = u32::from_le_bytes(reader.array()?);
    let count = u32::from_le_bytes(reader.array()?);
    if !matches!(width, 2 | 4 | 8) {
        return Err(Malformed::Structure("an intset's width is not 2, 4 or 8"));
    }
    for _ in 0..count {
        member(match width {
            2 => i16::from_le_bytes(reader.array()?).into(),
            4 => i32::from_le_bytes(reader.array()?).into(),
            _ => reader.i64_le()?,
        });
    }
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(blob: &[u8]) -> Result<Vec<i64>, Malformed> {
        let mut all = Vec::new();
        members(blob, |number| all.push(number)).map(|()| all)
    }

    #[test]
    fn every_width() {
        assert_eq!(read(&[2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff]).unwrap(), [-1]);
        assert_eq!(
            read(&[4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80]).unwrap(),
            [i64::from(i32::MIN)]
        );
        let wide = [8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
        assert_eq!(read(&wide).unwrap(), [i64::MIN]);
    }

    #[test]
    fn damage_is_an_error() {
        assert!(read(&[3, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(read(&[2, 0, 0, 0, 255, 255, 255, 255, 1, 0]).is_err());
        assert!(read(&[2, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        assert!(read(&[2, 0, 0]).is_err());
    }
}
