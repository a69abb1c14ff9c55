//! Length headers: the `3\r\n` of `*3\r\n` and `$3\r\n`.
//!
//! Nearly every length on the wire has one to four digits, so those are
//! tried first; the rest goes digit by digit. Numbers are as
//! strict as Redis's `string2ll`: no sign but `-`, no leading zeros, no blanks.

/// What a length header turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The line has no end yet.
    Partial,
    /// A number, and how many bytes it took with its CR LF.
    Length { value: i64, len: usize },
    /// Not a number, or not ended by CR LF.
    Invalid,
}

/// The longest text `i64` has; a length line beyond it cannot become valid.
const LENGTH_DIGITS_MAX: usize = 20;

/// Reads `<digits>\r\n` for one to four digits. `None` says nothing: use [`parse`].
#[inline(always)]
pub(super) fn parse_short(tail: &[u8]) -> Option<(usize, usize)> {
    // One bounds check for all lengths. What ends before has no body yet, or is
    // the last line of the input.
    let &[a, b, c, d, e, f] = tail.first_chunk::<6>()?;
    let one = digit(a)?;
    if (b, c) == (b'\r', b'\n') {
        return Some((one, 3));
    }
    if one == 0 {
        return None;
    }
    let two = one * 10 + digit(b)?;
    if (c, d) == (b'\r', b'\n') {
        return Some((two, 4));
    }
    let three = two * 10 + digit(c)?;
    if (d, e) == (b'\r', b'\n') {
        return Some((three, 5));
    }
    let four = three * 10 + digit(d)?;
    ((e, f) == (b'\r', b'\n')).then_some((four, 6))
}

#[inline(always)]
fn digit(byte: u8) -> Option<usize> {
    byte.is_ascii_digit().then(|| usize::from(byte - b'0'))
}

/// Reads `<number>\r\n` from the start of `tail`, in time bounded by the longest number.
#[inline]
pub(super) fn parse(tail: &[u8]) -> Header {
    if let Some((value, len)) = parse_short(tail) {
        return Header::Length {
            value: value as i64,
            len,
        };
    }
    let window = tail.get(..LENGTH_DIGITS_MAX + 1).unwrap_or(tail);
    let Some(digits) = window.iter().position(|&byte| byte == b'\r') else {
        return if window.len() > LENGTH_DIGITS_MAX {
            Header::Invalid
        } else {
            Header::Partial
        };
    };
    let Some(value) = parse_number(&tail[..digits]) else {
        return Header::Invalid;
    };
    match tail.get(digits + 1) {
        None => Header::Partial,
        Some(b'\n') => Header::Length {
            value,
            len: digits + 2,
        },
        Some(_) => Header::Invalid,
    }
}

/// A decimal `i64` in its one canonical spelling.
pub(super) fn parse_number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return if negative { None } else { Some(0) },
        [b'0', ..] => return None,
        _ => {}
    }
    // Counted downwards, because i64::MIN has no positive twin.
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_strict_as_redis() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("1048576", Some(1_048_576)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(parse_number(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn short_and_long_headers_agree() {
        for value in [
            0_i64,
            1,
            9,
            10,
            99,
            100,
            999,
            1000,
            9999,
            10_000,
            65_536,
            -1,
            i64::MAX,
            i64::MIN,
        ] {
            let line = format!("{value}\r\n$rest");
            let len = line.len() - 5;
            assert_eq!(parse(line.as_bytes()), Header::Length { value, len });
            for cut in 0..len {
                assert_eq!(
                    parse(&line.as_bytes()[..cut]),
                    Header::Partial,
                    "{value} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn bad_headers_are_invalid_at_once() {
        for line in [
            "x\r\n",
            "1x\r\n",
            "012\r\n",
            "1\rx",
            "\r\n",
            "123456789012345678901",
        ] {
            assert_eq!(parse(line.as_bytes()), Header::Invalid, "{line:?}");
        }
    }
}
