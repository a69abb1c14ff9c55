use super::*;
use crate::resp::reply::{LINE_BYTES_MAX, REPLY_DEPTH_MAX};

/// Scans up to `cut`, passes the rest as `step` bytes more arrive each time;
/// where the reply ended and what its type is. No more than one line is held.
fn end_of(input: &[u8], cut: usize, step: usize) -> Result<Option<(usize, u8)>, ReplyError> {
    let mut scanner = ReplyScanner::new();
    if let Some(reply) = scanner.scan(&input[..cut])? {
        return Ok(Some((reply.len, reply.kind)));
    }
    let mut tail = scanner.take_tail();
    let (mut start, mut end) = (0, cut);
    loop {
        let passed = tail.pass(&input[start..end])?;
        start += passed.bytes;
        if passed.done {
            return Ok(Some((start, tail.kind())));
        }
        if end == input.len() {
            return Ok(None);
        }
        end = (end + step).min(input.len());
    }
}

#[test]
fn every_type_is_passed_from_any_cut_in_any_steps() {
    for text in [
        "+OK\r\n",
        "+a\rb\nc\r\n",
        "-ERR no\r\n",
        ":-12\r\n",
        "$0\r\n\r\n",
        "$12\r\n123456789\r\n1\r\n",
        "$-1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        "_\r\n",
        "(123456789012345678901234567890\r\n",
        "!5\r\nERR x\r\n",
        "=7\r\ntxt:abc\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n_\r\n#f\r\n",
        "~1\r\n$3\r\nabc\r\n",
        "|1\r\n+ttl\r\n$4\r\n3600\r\n$1\r\na\r\n",
    ] {
        let whole = ReplyScanner::new().scan(text.as_bytes()).unwrap().unwrap();
        let input = [text, "$5\r\nafter\r\n"].concat();
        for cut in 0..text.len() {
            for step in 1..input.len() {
                assert_eq!(
                    end_of(input.as_bytes(), cut, step),
                    Ok(Some((whole.len, whole.kind))),
                    "{text:?} cut at {cut} by {step}"
                );
            }
        }
    }
}

#[test]
fn the_longest_body_takes_no_memory() {
    let head = b"*2\r\n$4294967200\r\nabc";
    let mut scanner = ReplyScanner::new();
    assert_eq!(scanner.scan(head), Ok(None));
    assert_eq!(scanner.bytes_min(), 17 + 4_294_967_200 + 2);
    assert_eq!(scanner.started_kind(head), Some(b'*'));
    let mut tail = scanner.take_tail();
    assert_eq!(scanner.bytes_min(), 1, "ready for the next reply");
    assert_eq!(
        tail.pass(head),
        Ok(Passed {
            bytes: head.len(),
            done: false
        })
    );
    let piece = vec![b'v'; 1 << 20];
    let mut left: usize = 4_294_967_200 - 3;
    while left > 0 {
        let bytes = left.min(piece.len());
        assert_eq!(
            tail.pass(&piece[..bytes]),
            Ok(Passed { bytes, done: false })
        );
        left -= bytes;
    }
    assert_eq!(
        tail.pass(b"\r\n:"),
        Ok(Passed {
            bytes: 2,
            done: false
        })
    );
    assert_eq!(
        tail.pass(b":1\r\n+OK\r\n"),
        Ok(Passed {
            bytes: 4,
            done: true
        })
    );
}

#[test]
fn mistakes_are_those_of_the_scanner() {
    for (text, error) in [
        ("*2\r\n$1\r\na\r\nx", ReplyError::UnknownType(b'x')),
        ("*1\r\n$?\r\n", ReplyError::Streamed(b'$')),
        ("*1\r\n$-2\r\n", ReplyError::InvalidLength(b'$')),
        ("*1\r\n$99999999999\r\n", ReplyError::InvalidLength(b'$')),
        ("*1\r\n=3\r\nabcd\r\n", ReplyError::MissingCrlf(b'=')),
        ("$3\r\nabc\rx", ReplyError::MissingCrlf(b'$')),
    ] {
        for cut in 0..text.len() {
            for step in 1..text.len() {
                assert_eq!(
                    end_of(text.as_bytes(), cut, step),
                    Err(error),
                    "{text:?} {cut} {step}"
                );
            }
        }
    }
    let deeper = "*1\r\n".repeat(REPLY_DEPTH_MAX + 1);
    assert_eq!(end_of(deeper.as_bytes(), 5, 7), Err(ReplyError::TooDeep));
    let mut endless = b"*2\r\n:1\r\n+".to_vec();
    endless.resize(endless.len() + LINE_BYTES_MAX + 1, b'x');
    assert_eq!(end_of(&endless, 5, 50_000), Err(ReplyError::LineTooLong));
}

#[test]
fn the_type_is_known_as_early_as_it_can_be() {
    for (input, kind) in [
        ("", None),
        ("$100\r\nabc", Some(b'$')),
        (">2\r\n$7\r\nmess", Some(b'>')),
        ("|1\r\n", None),
        ("|1\r\n+a\r\n", None),
        ("|1\r\n+a\r\n+b\r\n", None),
        ("|1\r\n+a\r\n+b\r\n$9\r\n", Some(b'$')),
    ] {
        let mut scanner = ReplyScanner::new();
        assert_eq!(scanner.scan(input.as_bytes()), Ok(None));
        assert_eq!(scanner.started_kind(input.as_bytes()), kind, "{input:?}");
    }
}
