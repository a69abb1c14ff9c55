//! Lengths and strings, written as every server reads them.

/// Appends a length in its shortest form of 6, 14, 32 or 64 bits.
pub fn length(out: &mut Vec<u8>, number: u64) {
    if number < 1 << 6 {
        out.push(number as u8);
    } else if number < 1 << 14 {
        out.extend_from_slice(&(0x4000 | number as u16).to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(0x80);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        // Known since RDB 8; a string or count of that size is older nowhere.
        out.push(0x81);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a string as its length and bytes.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A count that is only known once what it counts is written: 32 bits wide,
/// which loaders read for small counts as well.
pub(super) struct Count {
    at: usize,
}

impl Count {
    pub(super) fn reserve(out: &mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(&[0x80, 0, 0, 0, 0]);
        Self { at }
    }

    /// Puts `count` into its place; `false` if it is wider than 32 bits.
    pub(super) fn fill(self, out: &mut [u8], count: u64) -> bool {
        let place = out.get_mut(self.at + 1..self.at + 5);
        match (place, u32::try_from(count)) {
            (Some(place), Ok(count)) => {
                place.copy_from_slice(&count.to_be_bytes());
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reader::plain_length;
    use super::*;

    #[test]
    fn lengths_are_read_back() {
        for number in [
            0,
            63,
            64,
            16_383,
            16_384,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            length(&mut out, number);
            assert_eq!(plain_length(&out).unwrap(), Some((number, out.len())));
        }
        let mut out = b"before".to_vec();
        let count = Count::reserve(&mut out);
        assert!(count.fill(&mut out, 7));
        assert_eq!(plain_length(&out[6..]).unwrap(), Some((7, 5)));
    }
}
