//! Listpacks as servers write them: text that is an integer is kept as one.
//!
//! See `listpack.rs` for the bytes.

use super::listpack::{END, NOT_COUNTED, backward_len_size};

/// Total bytes and count, which are known at the end.
const HEAD_BYTES: usize = 6;
/// Longer text is no `i64`.
const DIGITS_MAX: usize = 20;

/// Elements, one behind the other.
#[derive(Clone, Debug)]
pub(super) struct ListpackWriter {
    bytes: Vec<u8>,
    count: usize,
}

impl ListpackWriter {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; HEAD_BYTES],
            count: 0,
        }
    }

    pub(super) fn number(&mut self, number: i64) {
        let begin = self.bytes.len();
        let out = &mut self.bytes;
        if let Ok(small @ 0..=0x7f) = u8::try_from(number) {
            out.push(small);
        } else if (-4096..=4095).contains(&number) {
            let bits = number as u16 & 0x1fff;
            out.extend_from_slice(&[0xc0 | (bits >> 8) as u8, bits as u8]);
        } else if let Ok(number) = i16::try_from(number) {
            out.push(0xf1);
            out.extend_from_slice(&number.to_le_bytes());
        } else if (-(1 << 23)..1 << 23).contains(&number) {
            let [low, middle, high, ..] = number.to_le_bytes();
            out.extend_from_slice(&[0xf2, low, middle, high]);
        } else if let Ok(number) = i32::try_from(number) {
            out.push(0xf3);
            out.extend_from_slice(&number.to_le_bytes());
        } else {
            out.push(0xf4);
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.end(begin);
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        if let Some(number) = integer(text) {
            return self.number(number);
        }
        let begin = self.bytes.len();
        let out = &mut self.bytes;
        match text.len() {
            len @ 0..=0x3f => out.push(0x80 | len as u8),
            len @ 0x40..=0xfff => {
                out.extend_from_slice(&[0xe0 | (len >> 8) as u8, len as u8]);
            }
            len => {
                out.push(0xf0);
                out.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        out.extend_from_slice(text);
        self.end(begin);
    }

    /// Behind an element that begins at `begin`: its size, for walks backwards.
    fn end(&mut self, begin: usize) {
        let size = self.bytes.len() - begin;
        let width = backward_len_size(size);
        for place in (0..width).rev() {
            let more = if place + 1 == width { 0 } else { 0x80 };
            self.bytes.push((size >> (7 * place)) as u8 & 0x7f | more);
        }
        self.count += 1;
    }

    /// All bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let total = (self.bytes.len() as u32).to_le_bytes();
        let count = u16::try_from(self.count)
            .unwrap_or(NOT_COUNTED)
            .to_le_bytes();
        for (byte, told) in self.bytes.iter_mut().zip(total.into_iter().chain(count)) {
            *byte = told;
        }
        self.bytes
    }
}

/// Text that an integer is told as, and no other.
fn integer(text: &[u8]) -> Option<i64> {
    if text.len() > DIGITS_MAX {
        return None;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => Some(0),
        [b'1'..=b'9', ..] => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::listpack::{Listpack, Packed};
    use super::super::text::Text;
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut texts: Vec<Vec<u8>> = [
            "",
            "a",
            "0",
            "-0",
            "00",
            "01",
            "+1",
            "-1",
            "127",
            "128",
            "4095",
            "4096",
            "-4096",
            "-4097",
            "32767",
            "32768",
            "-32769",
            "8388607",
            "8388608",
            "-8388609",
            "2147483648",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "1.5",
            "-",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into();
        // Around each width of a length and of a size.
        for len in [
            63, 64, 125, 126, 4095, 4096, 16_376, 16_377, 16_378, 16_379, 2_097_146,
        ] {
            texts.push(vec![b'x'; len]);
        }
        let mut writer = ListpackWriter::new();
        texts.iter().for_each(|text| writer.text(text));
        let blob = writer.finish();
        let mut listpack = Listpack::new(&blob).expect("a listpack");
        for text in &texts {
            let found = listpack.expect().expect("an element");
            let is_number = matches!(found, Packed::Integer(_));
            assert_eq!(
                is_number,
                integer(text).is_some(),
                "{}",
                text.escape_ascii()
            );
            assert!(*Text::from(found) == **text, "{} bytes", text.len());
        }
        assert_eq!(listpack.next(), Ok(None));
    }
}
