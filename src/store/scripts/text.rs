//! Numbers and other values as C and Lua 5.1 write them.

use mlua::Value;

/// C's `%.<precision>g`.
pub(super) fn general(number: f64, precision: usize) -> String {
    if !number.is_finite() {
        let sign = if number.is_sign_negative() { "-" } else { "" };
        let word = if number.is_nan() { "nan" } else { "inf" };
        return format!("{sign}{word}");
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let written = format!("{number:.*e}", precision - 1);
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let places = i32::try_from(precision).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= places {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", bare(digits), exponent.unsigned_abs());
    }
    let behind = usize::try_from(places - 1 - exponent).unwrap_or(0);
    bare(&format!("{number:.behind$}")).to_owned()
}

/// Without zeros at the end of its fraction.
fn bare(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

/// As Lua 5.1 writes a number.
pub(super) fn number_text(number: f64) -> String {
    general(number, 14)
}

/// As `tostring` writes a value without a metatable.
pub(super) fn value_text(value: &Value) -> Vec<u8> {
    match value {
        Value::Nil => b"nil".to_vec(),
        Value::Boolean(value) => value.to_string().into_bytes(),
        Value::Integer(number) => number_text(*number as f64).into_bytes(),
        Value::Number(number) => number_text(*number).into_bytes(),
        Value::String(text) => text.as_bytes().to_vec(),
        other => format!("{}: {:p}", type_name(other), other.to_pointer()).into_bytes(),
    }
}

/// As `type` names it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// C's cast to a 64-bit integer, as processors do it.
pub(super) fn truncated(number: f64) -> i64 {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match (-BEYOND..BEYOND).contains(&number) {
        true => number as i64,
        false => i64::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, precision, text) in [
            (3.0, 17, "3"),
            (0.1, 17, "0.10000000000000001"),
            (0.1, 14, "0.1"),
            (1e15, 14, "1e+15"),
            (123_456_789_012_345.0, 14, "1.2345678901234e+14"),
            (1e-5, 14, "1e-05"),
            (0.0001, 14, "0.0001"),
            (-2.5, 14, "-2.5"),
            (1e100, 17, "1e+100"),
            (9_007_199_254_740_993.0, 17, "9007199254740992"),
            (f64::INFINITY, 14, "inf"),
            (-0.0, 14, "-0"),
        ] {
            assert_eq!(general(number, precision), text);
        }
        assert_eq!(truncated(1e300), i64::MIN);
        assert_eq!(truncated(-3.9), -3);
    }
}
