//! What clients write as a number, and how numbers are answered: as Redis 7.0 does.

/// An integer, as Redis takes one: digits without leading zeros, `-` before them or not.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value = value.checked_mul(10)?;
        value = match is_negative {
            true => value.checked_sub(i64::from(digit))?,
            false => value.checked_add(i64::from(digit))?,
        };
    }
    Some(value)
}

/// A float, as C's `strtod` takes one, hexadecimal and `inf` included; not NaN, nothing
/// before or behind it, and not what is too large or too small for one.
pub fn parse_float(text: &[u8]) -> Option<f64> {
    let unsigned = match text {
        [b'+' | b'-', rest @ ..] => rest,
        rest => rest,
    };
    if let [b'0', b'x' | b'X', digits @ ..] = unsigned {
        let value = parse_hex_float(digits)?;
        return Some(if text.starts_with(b"-") {
            -value
        } else {
            value
        });
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let is_word = unsigned.first().is_some_and(u8::is_ascii_alphabetic);
    let is_underflow = || {
        let mantissa = unsigned.split(|byte| matches!(byte, b'e' | b'E')).next();
        value == 0.0 && mantissa.is_some_and(|m| m.iter().any(|byte| matches!(byte, b'1'..=b'9')))
    };
    let is_out_of_range = value.is_infinite() && !is_word;
    (!value.is_nan() && !is_out_of_range && !is_underflow()).then_some(value)
}

/// What follows `0x`: `h.hhhp±d`.
fn parse_hex_float(text: &[u8]) -> Option<f64> {
    let (digits, power) = match text.iter().position(|byte| matches!(byte, b'p' | b'P')) {
        Some(at) => {
            let power = std::str::from_utf8(&text[at + 1..])
                .ok()?
                .parse::<i32>()
                .ok()?;
            (&text[..at], power)
        }
        None => (text, 0),
    };
    let (mut mantissa, mut exponent) = (0_u64, i64::from(power));
    let (mut has_digits, mut is_behind_point, mut is_sticky) = (false, false, false);
    for byte in digits {
        if *byte == b'.' && !is_behind_point {
            is_behind_point = true;
            continue;
        }
        let digit = u64::from(char::from(*byte).to_digit(16)?);
        has_digits = true;
        if mantissa >> 58 == 0 {
            mantissa = mantissa << 4 | digit;
            exponent -= if is_behind_point { 4 } else { 0 };
        } else {
            is_sticky |= digit != 0;
            exponent += if is_behind_point { 0 } else { 4 };
        }
    }
    // Far below what is kept, so rounding is that of the whole number.
    let mantissa = mantissa << 1 | u64::from(is_sticky);
    let exponent = (exponent - 1).clamp(-2_400, 2_400) as i32;
    let half = exponent / 2;
    let value = mantissa as f64 * 2_f64.powi(half) * 2_f64.powi(exponent - half);
    let is_in_range = value.is_finite() && (value != 0.0 || mantissa == 0);
    (has_digits && is_in_range).then_some(value)
}

/// Whole numbers below have at most 17 digits: all of them are written.
const WHOLE_BELOW: f64 = 1e17;

/// A float as C's `%.17g` writes it; infinities as `inf` and `-inf`.
pub fn float_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    if value.abs() < WHOLE_BELOW && value.fract() == 0.0 {
        return (value as i64).to_string();
    }
    let text = format!("{value:.16e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    let (first, rest) = digits.split_at(1);
    if !(-4..17).contains(&exponent) {
        let point = if rest.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{mark}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent as usize + 1;
    match digits.split_at_checked(whole) {
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, rest)) => format!("{sign}{whole}.{rest}"),
        None => format!("{sign}{digits:0<whole$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_taken_as_redis_takes_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn floats_are_taken_as_strtod_takes_them() {
        for (text, value) in [
            ("1.5", Some(1.5)),
            ("+1e3", Some(1000.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("Infinity", Some(f64::INFINITY)),
            ("nan", None),
            ("1e400", None),
            ("1e-400", None),
            ("0e-400", Some(0.0)),
            ("5e-324", Some(5e-324)),
            ("0x10", Some(16.0)),
            ("-0x1.8p1", Some(-3.0)),
            ("0x", None),
            ("0x1p2000", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("1e", None),
            (".", None),
        ] {
            assert_eq!(parse_float(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn floats_are_written_as_printf_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (100.0, "100"),
            (0.1, "0.10000000000000001"),
            (3.3, "3.2999999999999998"),
            (-2.5, "-2.5"),
            (-123_456_789.0, "-123456789"),
            (9_007_199_254_740_994.0, "9007199254740994"),
            (99_999_999_999_999_984.0, "99999999999999984"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float_text(value), text);
        }
    }
}
