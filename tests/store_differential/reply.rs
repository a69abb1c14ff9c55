//! Replies as the bytes they came in: two are equal when their bytes are. This
//! knows of RESP only what it takes to look at their parts.

use crate::support::client;

/// One reply's bytes.
pub type Raw = Vec<u8>;

/// The first byte, which says what it is.
pub fn kind(raw: &[u8]) -> u8 {
    raw.first().copied().unwrap_or(b'?')
}

/// True for `-...`.
pub fn is_error(raw: &[u8]) -> bool {
    kind(raw) == b'-'
}

/// True for `$-1`, `*-1` and `_`.
pub fn is_null(raw: &[u8]) -> bool {
    matches!(raw, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// True for an array, a map, a set or a push.
pub fn is_aggregate(raw: &[u8]) -> bool {
    matches!(kind(raw), b'*' | b'%' | b'~' | b'>') && !is_null(raw)
}

/// The integer of `:n`.
pub fn integer(raw: &[u8]) -> Option<i64> {
    let text = raw.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What a bulk or simple string holds.
pub fn text(raw: &[u8]) -> Option<&[u8]> {
    let (head, body) = raw.split_at(line_end(raw)?);
    match kind(raw) {
        b'+' => head.get(1..head.len() - 2),
        b'$' if !is_null(raw) => body.strip_suffix(b"\r\n"),
        _ => None,
    }
}

/// The elements of an aggregate; a map's are its keys and values in turn. Nothing of
/// any other reply.
pub fn elements(raw: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    if !is_aggregate(raw) {
        return found;
    }
    let mut at = line_end(raw).unwrap_or(raw.len());
    while at < raw.len() {
        let size = size_of(&raw[at..]);
        found.push(&raw[at..at + size]);
        at += size;
    }
    found
}

/// The parts of a reply that are not aggregates, from left to right.
pub fn leaves(raw: &[u8]) -> Vec<&[u8]> {
    if !is_aggregate(raw) {
        return vec![raw];
    }
    elements(raw).into_iter().flat_map(leaves).collect()
}

/// A bulk string.
pub fn bulk(text: &[u8]) -> Raw {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// An array of these.
pub fn array<R: AsRef<[u8]>>(elements: &[R]) -> Raw {
    let mut raw = format!("*{}\r\n", elements.len()).into_bytes();
    elements
        .iter()
        .for_each(|element| raw.extend(element.as_ref()));
    raw
}

/// For a report.
pub fn shown(raw: &[u8]) -> String {
    const SHOWN_MAX: usize = 600;
    let text = match client::parse(raw) {
        Ok(_) if is_null(raw) => format!("null ({})", raw.trim_ascii_end().escape_ascii()),
        Ok(value) => format!("{value:?}"),
        Err(_) => raw.escape_ascii().to_string(),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], raw.len()),
        None => text,
    }
}

fn line_end(raw: &[u8]) -> Option<usize> {
    raw.windows(2)
        .position(|two| two == b"\r\n")
        .map(|at| at + 2)
}

/// Bytes of the reply that `raw` begins with. The client that read it has found it
/// whole.
fn size_of(raw: &[u8]) -> usize {
    let Some(head) = line_end(raw) else {
        return raw.len();
    };
    let number = || {
        let digits = std::str::from_utf8(&raw[1..head - 2]).ok()?;
        digits.parse::<i64>().ok()
    };
    let count = usize::try_from(number().unwrap_or(-1)).ok();
    match (kind(raw), count) {
        (b'$' | b'=', Some(length)) => head + length + 2,
        (b'*' | b'~' | b'>', Some(count)) => skip(raw, head, count),
        (b'%', Some(count)) => skip(raw, head, count * 2),
        _ => head,
    }
}

fn skip(raw: &[u8], from: usize, count: usize) -> usize {
    (0..count).fold(from, |at, _| at + size_of(&raw[at..]))
}

#[cfg(test)]
mod tests {
    use super::{elements, integer, leaves, text};

    #[test]
    fn a_nested_reply_is_taken_apart() {
        let raw = b"*3\r\n$2\r\n\r\n\r\n%1\r\n+a\r\n:1\r\n*-1\r\n";
        let parts: [&[u8]; 3] = [b"$2\r\n\r\n\r\n", b"%1\r\n+a\r\n:1\r\n", b"*-1\r\n"];
        assert_eq!(elements(raw), parts);
        assert_eq!(leaves(raw).len(), 4);
        assert_eq!(text(parts[0]), Some(b"\r\n".as_slice()));
        assert_eq!(integer(b":-7\r\n"), Some(-7));
    }
}
