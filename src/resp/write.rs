//! Writers: what we send, in canonical RESP.

/// Appends a request: an array of bulk strings.
pub fn write_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    write_array_header(out, args.len());
    for arg in args {
        write_bulk(out, arg);
    }
}

/// Appends `*<n>\r\n`.
pub fn write_array_header(out: &mut Vec<u8>, n: usize) {
    out.push(b'*');
    write_unsigned(out, n as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends `$<len>\r\n<bytes>\r\n`.
pub fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    write_bulk_header(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends `$<len>\r\n`, for a body that the caller writes, with its `\r\n`.
pub fn write_bulk_header(out: &mut Vec<u8>, len: usize) {
    out.push(b'$');
    write_unsigned(out, len as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends `value` as a bulk string of its decimal digits.
pub fn write_bulk_integer(out: &mut Vec<u8>, value: i64) {
    let magnitude = value.unsigned_abs();
    let digits = magnitude.checked_ilog10().map_or(1, |log| log as usize + 1);
    write_bulk_header(out, digits + usize::from(value < 0));
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(out, magnitude);
    out.extend_from_slice(b"\r\n");
}

/// Appends `:<value>\r\n`.
pub fn write_integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(out, value.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// Appends `+<text>\r\n`; line ends inside `text` become blanks.
pub fn write_simple(out: &mut Vec<u8>, text: &str) {
    write_line(out, b'+', text);
}

/// Appends `-<text>\r\n`; `text` carries its code (`ERR ...`) but no dash. Line
/// ends inside it become blanks, as Redis does, so no input can forge a reply.
pub fn write_error(out: &mut Vec<u8>, text: &str) {
    write_line(out, b'-', text);
}

fn write_line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            byte
        }
    }));
    out.extend_from_slice(b"\r\n");
}

/// Decimal digits without the formatting machinery: lengths are written for
/// every argument we send.
fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn everything_is_canonical() {
        assert_eq!(
            written(|out| write_command(out, &[b"GET", b""])),
            "*2\r\n$3\r\nGET\r\n$0\r\n\r\n"
        );
        assert_eq!(
            written(|out| write_integer(out, i64::MIN)),
            ":-9223372036854775808\r\n"
        );
        assert_eq!(
            written(|out| write_integer(out, i64::MAX)),
            ":9223372036854775807\r\n"
        );
        assert_eq!(written(|out| write_integer(out, 0)), ":0\r\n");
        for value in [0, 9, 10, -1, 4_102_444_800_123, i64::MIN, i64::MAX] {
            let text = value.to_string();
            assert_eq!(
                written(|out| write_bulk_integer(out, value)),
                format!("${}\r\n{text}\r\n", text.len())
            );
        }
        assert_eq!(
            written(|out| write_array_header(out, 1_048_576)),
            "*1048576\r\n"
        );
        assert_eq!(written(|out| write_simple(out, "OK")), "+OK\r\n");
        assert_eq!(
            written(|out| write_error(out, "ERR a\r\n+b")),
            "-ERR a  +b\r\n"
        );
    }
}
