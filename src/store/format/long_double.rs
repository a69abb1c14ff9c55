//! The 80-bit floats of x86, in which Redis adds for INCRBYFLOAT and HINCRBYFLOAT.
//!
//! ```text
//! finite   sign, mantissa * 2^exponent     mantissa of 64 bits with the highest one set,
//!                                          or the exponent is the least there is
//! ```
//! Reading, adding and writing round once, to the nearest and to even, as `strtold`, `fadd`
//! and `printf("%.17Lf")` do; in between everything is exact.

mod wide;

use std::cmp::Ordering;

use wide::Wide;

/// Redis takes shorter texts only.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Of the last bit of what is smallest.
const EXPONENT_MIN: i64 = -16_445;
/// Of the last bit of what is largest.
const EXPONENT_MAX: i64 = 16_383 - 63;
/// Exponents as they are written are cut off here: far beyond what there is.
const WRITTEN_EXPONENT_MAX: i64 = 1 << 20;
/// Decimal digits that are written behind the point.
const FRACTION_DIGITS: u32 = 17;
/// Bits that a mantissa is shifted up for adding, so that one bit may carry.
const GUARD_BITS: u32 = 62;

/// A number, or an infinity; never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    is_negative: bool,
    size: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Finite { mantissa: u64, exponent: i64 },
    Infinite,
}

impl LongDouble {
    /// Nothing.
    pub const ZERO: LongDouble = LongDouble {
        is_negative: false,
        size: Size::Finite {
            mantissa: 0,
            exponent: EXPONENT_MIN,
        },
    };

    /// Whether it is an infinity.
    pub fn is_infinite(self) -> bool {
        self.size == Size::Infinite
    }

    /// The sum. `None` where it is NaN or an infinity.
    pub fn plus(self, other: Self) -> Option<Self> {
        let (
            Size::Finite { mantissa, exponent },
            Size::Finite {
                mantissa: other_mantissa,
                exponent: other_exponent,
            },
        ) = (self.size, other.size)
        else {
            return None;
        };
        let ours = (exponent, mantissa, self.is_negative);
        let theirs = (other_exponent, other_mantissa, other.is_negative);
        let (large, small) = match (mantissa, other_mantissa) {
            (0, _) => return Some(other),
            (_, 0) => return Some(self),
            _ if ours >= theirs => (ours, theirs),
            _ => (theirs, ours),
        };
        let sum = u128::from(large.1) << GUARD_BITS;
        let shift = large.0 - small.0;
        let whole = u128::from(small.1) << GUARD_BITS;
        let (addend, is_sticky) = match u32::try_from(shift).ok().filter(|shift| *shift < 128) {
            Some(shift) => (whole >> shift, (whole >> shift) << shift != whole),
            None => (0, true),
        };
        let sum = match large.2 == small.2 {
            true => sum + addend,
            false => sum - addend - u128::from(is_sticky),
        };
        if sum == 0 {
            return Some(Self::ZERO);
        }
        let size = rounded(sum, large.0 - i64::from(GUARD_BITS), is_sticky)?;
        Some(Self {
            is_negative: large.2,
            size,
        })
    }

    /// As `%.17Lf` writes it, without zeros at the end.
    pub fn text(&self) -> String {
        let Size::Finite { mantissa, exponent } = self.size else {
            return if self.is_negative { "-inf" } else { "inf" }.to_owned();
        };
        let (mut whole, mut fraction) = (Wide::from(mantissa), 0);
        match u32::try_from(-exponent) {
            Err(_) => whole.shift_left(usize::try_from(exponent).unwrap_or(0)),
            Ok(bits) => {
                let kept = mantissa.checked_shr(bits).unwrap_or(0);
                whole = Wide::from(kept);
                let below = mantissa - kept.checked_shl(bits).unwrap_or(0);
                fraction = scaled_fraction(below, bits);
            }
        }
        if fraction == 10_u64.pow(FRACTION_DIGITS) {
            fraction = 0;
            whole.add_small(1);
        }
        let mut text = whole.decimal();
        if fraction != 0 {
            let digits = format!("{fraction:0width$}", width = FRACTION_DIGITS as usize);
            text.push('.');
            text.push_str(digits.trim_end_matches('0'));
        }
        if self.is_negative && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// `mantissa / 2^bits`, which is less than one, times 10^17: to the nearest, halves to even.
fn scaled_fraction(mantissa: u64, bits: u32) -> u64 {
    let scaled = u128::from(mantissa) * u128::from(10_u64.pow(FRACTION_DIGITS));
    // Less than 2^121: with so many bits behind the point it is less than a half.
    if bits > 122 {
        return 0;
    }
    let kept = scaled >> bits;
    let rest = scaled - (kept << bits);
    let half = (1_u128 << bits) >> 1;
    let is_up = match rest.cmp(&half) {
        Ordering::Less => false,
        Ordering::Equal => bits > 0 && kept & 1 == 1,
        Ordering::Greater => true,
    };
    kept as u64 + u64::from(is_up)
}

/// `value * 2^exponent`, and a bit more if it is sticky, in 64 bits. `None` if it is too
/// large; 0 if too small.
fn rounded(value: u128, exponent: i64, is_sticky: bool) -> Option<Size> {
    let bits = i64::from(128 - value.leading_zeros());
    let dropped = (bits - 64).max(EXPONENT_MIN - exponent);
    let (mut mantissa, mut exponent) = match u32::try_from(dropped) {
        // It is exact, with room below.
        Err(_) => (value << dropped.unsigned_abs(), exponent + dropped),
        Ok(dropped) if dropped > 127 => (0, exponent + i64::from(dropped)),
        Ok(dropped) => {
            let kept = value >> dropped;
            let rest = value - (kept << dropped);
            let half = (1_u128 << dropped) >> 1;
            let is_up = match rest.cmp(&half) {
                Ordering::Less => false,
                Ordering::Equal if dropped == 0 => false,
                Ordering::Equal => is_sticky || kept & 1 == 1,
                Ordering::Greater => true,
            };
            (kept + u128::from(is_up), exponent + i64::from(dropped))
        }
    };
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    (exponent <= EXPONENT_MAX).then_some(Size::Finite {
        mantissa: mantissa as u64,
        exponent,
    })
}

/// `over / under * 2^exponent`. `None` if it is too large, or too small for any bit.
fn quotient(mut over: Wide, mut under: Wide, exponent: i64) -> Option<Size> {
    // A quotient of 66 or 67 bits: what is beyond 64 and the rest are for rounding.
    let shift = over.bits() as i64 - under.bits() as i64 - 66;
    match usize::try_from(shift) {
        Ok(up) => under.shift_left(up),
        Err(_) => over.shift_left(shift.unsigned_abs() as usize),
    }
    let (value, is_exact) = over.divide_small(under, 67);
    let size = rounded(value, exponent + shift, !is_exact)?;
    let is_gone = matches!(size, Size::Finite { mantissa: 0, .. });
    (!is_gone).then_some(size)
}

/// A number as `strtold` takes it, nothing before or behind it: decimal, hexadecimal or an
/// infinity. `None` for others, and for what is too large or too small for one.
pub fn parse(text: &[u8]) -> Option<LongDouble> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (is_negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let size = match unsigned {
        [b'0', b'x' | b'X', digits @ ..] => parse_digits(digits, 16, b'p')?,
        [b'0'..=b'9' | b'.', ..] => parse_digits(unsigned, 10, b'e')?,
        word if word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity") => {
            Size::Infinite
        }
        _ => return None,
    };
    Some(LongDouble { is_negative, size })
}

fn parse_digits(text: &[u8], radix: u32, mark: u8) -> Option<Size> {
    let (digits, mut exponent) = match text
        .iter()
        .position(|byte| byte.to_ascii_lowercase() == mark)
    {
        Some(at) => (text.get(..at)?, parse_exponent(text.get(at + 1..)?)?),
        None => (text, 0),
    };
    let (mut value, mut has_digits, mut is_behind_point) = (Wide::from(0), false, false);
    let per_digit = if radix == 16 { 4 } else { 1 };
    for byte in digits {
        if *byte == b'.' && !is_behind_point {
            is_behind_point = true;
            continue;
        }
        let digit = char::from(*byte).to_digit(radix)?;
        has_digits = true;
        value.multiply_small(u64::from(radix));
        value.add_small(u64::from(digit));
        exponent -= if is_behind_point { per_digit } else { 0 };
    }
    if !has_digits {
        return None;
    }
    if value.is_zero() {
        return Some(LongDouble::ZERO.size);
    }
    if radix == 16 {
        return quotient(value, Wide::from(1), exponent);
    }
    let magnitude = value.bits() as i64 * 3 / 10 + exponent;
    if !(-5_100..=5_100).contains(&magnitude) {
        return None;
    }
    let mut under = Wide::from(1);
    let scaled = if exponent < 0 { &mut under } else { &mut value };
    scaled.multiply_power_of_ten(exponent.unsigned_abs() as usize);
    quotient(value, under, 0)
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut exponent = 0_i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        exponent = (exponent * 10 + i64::from(digit)).min(WRITTEN_EXPONENT_MAX);
    }
    Some(if is_negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(one: &str, other: &str) -> Option<String> {
        let read = |text: &str| parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        read(one).plus(read(other)).map(|sum| sum.text())
    }

    #[test]
    fn numbers_are_written_as_redis_writes_them() {
        for (text, written) in [
            ("0", "0"),
            ("-0", "0"),
            ("3.0e3", "3000"),
            ("5.0e-5", "0.00005"),
            ("0.1", "0.1"),
            ("-1.50", "-1.5"),
            ("10.50", "10.5"),
            ("1e17", "100000000000000000"),
            ("9223372036854775807", "9223372036854775807"),
            ("18446744073709551617", "18446744073709551616"),
            ("0.000000000000000005", "0"),
            ("-1e-30", "0"),
            ("0x1.8p1", "3"),
            ("0x.8", "0.5"),
            ("inf", "inf"),
            ("-Infinity", "-inf"),
            ("3.14159265358979323846264338", "3.14159265358979324"),
            ("99999.999999999999999999999", "100000"),
        ] {
            assert_eq!(
                parse(text.as_bytes()).map(|of| of.text()).as_deref(),
                Some(written),
                "{text}"
            );
        }
        let large = parse(b"1e4932").map(|of| of.text()).unwrap_or_default();
        assert_eq!(large.len(), 4933);
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "",
            " 1",
            "1 ",
            "1e",
            "0x",
            "0x1p",
            ".",
            "nan",
            "1e4933",
            "1e-5000",
            "1e999999999999",
            "--1",
            "1.2.3",
            "e5",
            "0x.p1",
            "infin",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(&[b'1'; 6000]), None);
        // Below what is normal, but not nothing.
        assert!(parse(b"1e-4950").is_some());
        assert_eq!(parse(b"0e99999").map(|of| of.text()).as_deref(), Some("0"));
    }

    #[test]
    fn sums_are_rounded_once() {
        assert_eq!(sum("0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(sum("3", "1.1").as_deref(), Some("4.1"));
        assert_eq!(sum("-1.1", "1.1").as_deref(), Some("0"));
        assert_eq!(sum("1e4932", "-1e4932").as_deref(), Some("0"));
        assert_eq!(sum("1.18e4932", "1.18e4932"), None);
        assert_eq!(sum("inf", "-inf"), None);
        assert_eq!(
            sum("18446744073709551615", "1").as_deref(),
            Some("18446744073709551616")
        );
        // Half of the last bit goes to even, a bit more than half goes up.
        assert_eq!(
            sum("18446744073709551616", "1").as_deref(),
            Some("18446744073709551616")
        );
        assert_eq!(
            sum("18446744073709551616", "1.001").as_deref(),
            Some("18446744073709551618")
        );
        assert_eq!(
            sum("18446744073709551616", "-1e-9").as_deref(),
            Some("18446744073709551616")
        );
        assert_eq!(
            sum("18446744073709551616", "-0.6").as_deref(),
            Some("18446744073709551615")
        );
    }
}
