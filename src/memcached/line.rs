//! One line of a client, cut into words as memcached cuts it: at spaces, and
//! what follows a NUL is not there.

/// Words that are told apart; a retrieval has more, which are keys.
const WORDS_MAX: usize = 8;

/// The words of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Without its end.
    pub text: &'a [u8],
    /// Its first words; the others are empty.
    words: [&'a [u8]; WORDS_MAX],
    /// Where each of them ends in `text`.
    ends: [usize; WORDS_MAX],
    /// How many there are, `WORDS_MAX + 1` if more than are told apart.
    count: usize,
    /// What came after a NUL was cut off.
    pub is_cut: bool,
}

impl<'a> Line<'a> {
    /// Of the bytes before a LF.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Self {
        let text = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let nul = text.contains(&0);
        let text = match nul {
            true => text.split(|&byte| byte == 0).next().unwrap_or_default(),
            false => text,
        };
        let mut line = Self {
            text,
            words: [&[]; WORDS_MAX],
            ends: [0; WORDS_MAX],
            count: 0,
            is_cut: nul,
        };
        for (word, end) in (Words { text, at: 0 }) {
            if let (Some(place), Some(ends)) = (
                line.words.get_mut(line.count),
                line.ends.get_mut(line.count),
            ) {
                (*place, *ends) = (word, end);
            }
            line.count += 1;
            if line.count > WORDS_MAX {
                break;
            }
        }
        line
    }

    /// How many words there are, as far as they are counted.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A word; empty if there are fewer.
    pub fn word(&self, index: usize) -> &'a [u8] {
        self.words.get(index).copied().unwrap_or_default()
    }

    /// Where a word ends in the text.
    pub fn end_of(&self, index: usize) -> usize {
        self.ends.get(index).copied().unwrap_or_default()
    }

    /// Whether the last word asks for no reply.
    pub fn is_quiet(&self) -> bool {
        self.count
            .checked_sub(1)
            .is_some_and(|last| self.word(last) == b"noreply")
    }

    /// The last word, if it is one of those that are told apart or the line is
    /// looked through for it.
    pub fn last_word(&self) -> &'a [u8] {
        let words = Words {
            text: self.text,
            at: 0,
        };
        words.last().map(|(word, _)| word).unwrap_or_default()
    }
}

/// Words between spaces, each with the place after it.
#[derive(Debug, Clone)]
pub(super) struct Words<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = (&'a [u8], usize);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.at..)?;
        let start = self.at + rest.iter().position(|&byte| byte != b' ')?;
        let rest = self.text.get(start..)?;
        let len = rest.iter().position(|&byte| byte == b' ');
        let end = start + len.unwrap_or(rest.len());
        self.at = end;
        Some((self.text.get(start..end)?, end))
    }
}

/// Decimal digits and nothing else, up to `max`.
pub(super) fn number(word: &[u8], max: u64) -> Option<u64> {
    let mut value = 0_u64;
    for &byte in word {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!word.is_empty() && value <= max).then_some(value)
}

/// A time of expiry: seconds, or a point of time; below zero is "now".
pub(super) fn is_exptime(word: &[u8]) -> bool {
    match word.strip_prefix(b"-") {
        Some(digits) => number(digits, 1 << 31).is_some(),
        None => number(word, i32::MAX as u64).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8]) -> Vec<&[u8]> {
        let line = Line::of(text);
        (0..line.count()).map(|index| line.word(index)).collect()
    }

    #[test]
    fn lines_are_cut_at_spaces_and_end_at_nul() {
        assert_eq!(words(b"get a\r"), [b"get", &b"a"[..]]);
        assert_eq!(words(b"  get  a  "), [b"get", &b"a"[..]]);
        assert_eq!(words(b"get a\tb\r"), [b"get", &b"a\tb"[..]]);
        assert_eq!(words(b"get a\0b c\r"), [b"get", &b"a"[..]]);
        assert!(Line::of(b"get a\0").is_cut && !Line::of(b"get a").is_cut);
        assert_eq!(words(b"\0"), [&b""[..]; 0]);
        assert_eq!(words(b"\r"), [&b""[..]; 0]);
        assert_eq!(Line::of(b"a b c d e f g h i j").count(), WORDS_MAX + 1);
        assert_eq!(Line::of(b"a b c d e f g h i j ").last_word(), b"j");
        let line = Line::of(b"set  k 1 noreply ");
        assert_eq!((line.end_of(1), line.is_quiet()), (6, true));
        assert!(!Line::of(b"").is_quiet());
    }

    #[test]
    fn numbers_are_digits_within_their_bounds() {
        assert_eq!(number(b"0042", 42), Some(42));
        assert_eq!(number(b"18446744073709551615", u64::MAX), Some(u64::MAX));
        for wrong in [&b""[..], b"43", b"-1", b"+1", b"1x", b" 1"] {
            assert_eq!(number(wrong, 42), None, "{}", wrong.escape_ascii());
        }
        assert_eq!(number(b"18446744073709551616", u64::MAX), None);
        for right in [&b"0"[..], b"-1", b"2147483647", b"-2147483648"] {
            assert!(is_exptime(right), "{}", right.escape_ascii());
        }
        for wrong in [&b""[..], b"-", b"--1", b"2147483648", b"-2147483649", b"1s"] {
            assert!(!is_exptime(wrong), "{}", wrong.escape_ascii());
        }
    }
}
