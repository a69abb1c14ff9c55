use super::*;

fn byte_by_byte(input: &[u8]) -> Result<Vec<Reply>, ReplyError> {
    let (mut scanner, mut found, mut start) = (ReplyScanner::new(), Vec::new(), 0);
    for end in 0..=input.len() {
        while let Some(reply) = scanner.scan(&input[start..end])? {
            found.push(reply);
            start += reply.len;
        }
    }
    assert_eq!(start, input.len(), "bytes left over");
    Ok(found)
}

#[test]
fn every_type_is_found_at_any_cut() {
    for text in [
        "+OK\r\n",
        "+\r\n",
        "+a\rb\nc\r\n",
        "-ERR no\r\n",
        ":-12\r\n",
        "$0\r\n\r\n",
        "$12\r\n123456789\r\n1\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5\r\n",
        "(123456789012345678901234567890\r\n",
        "!5\r\nERR x\r\n",
        "=7\r\ntxt:abc\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n_\r\n#f\r\n",
        "~1\r\n+a\r\n",
        ">3\r\n+message\r\n+c\r\n$1\r\nm\r\n",
    ] {
        let twice = text.repeat(2);
        let one = Reply {
            len: text.len(),
            kind: text.as_bytes()[0],
        };
        assert_eq!(
            byte_by_byte(twice.as_bytes()),
            Ok(vec![one, one]),
            "{text:?}"
        );
    }
}

#[test]
fn an_attribute_belongs_to_what_follows() {
    for (text, kind) in [
        ("|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n", b'$'),
        ("|0\r\n*1\r\n|1\r\n+a\r\n*1\r\n:1\r\n:2\r\n", b'*'),
        (
            "|1\r\n+a\r\n%1\r\n+x\r\n+y\r\n|1\r\n+b\r\n+c\r\n:5\r\n",
            b':',
        ),
    ] {
        let one = Reply {
            len: text.len(),
            kind,
        };
        assert_eq!(byte_by_byte(text.as_bytes()), Ok(vec![one]), "{text:?}");
    }
}

#[test]
fn what_is_not_resp_is_refused() {
    for (text, error) in [
        ("x", ReplyError::UnknownType(b'x')),
        ("$?\r\n", ReplyError::Streamed(b'$')),
        ("*?\r\n", ReplyError::Streamed(b'*')),
        ("%?\r\n", ReplyError::Streamed(b'%')),
        (";4\r\n", ReplyError::Streamed(b';')),
        ("*1\r\n.\r\n", ReplyError::Streamed(b'.')),
        ("$-2\r\n", ReplyError::InvalidLength(b'$')),
        ("%-1\r\n", ReplyError::InvalidLength(b'%')),
        ("*x\r\n", ReplyError::InvalidLength(b'*')),
        ("*99999999999\r\n", ReplyError::InvalidLength(b'*')),
        ("$99999999999\r\n", ReplyError::InvalidLength(b'$')),
        ("$1\r\nabc", ReplyError::MissingCrlf(b'$')),
    ] {
        assert_eq!(
            ReplyScanner::new().scan(text.as_bytes()),
            Err(error),
            "{text:?}"
        );
    }
}

#[test]
fn nesting_and_lines_are_bounded() {
    let deepest = format!("{}:1\r\n", "*1\r\n".repeat(REPLY_DEPTH_MAX));
    assert!(
        ReplyScanner::new()
            .scan(deepest.as_bytes())
            .unwrap()
            .is_some()
    );
    let deeper = format!("*1\r\n{deepest}");
    assert_eq!(
        ReplyScanner::new().scan(deeper.as_bytes()),
        Err(ReplyError::TooDeep)
    );

    let endless = vec![b'+'; LINE_BYTES_MAX + 1];
    assert_eq!(
        ReplyScanner::new().scan(&endless),
        Err(ReplyError::LineTooLong)
    );
}

#[test]
fn elements_are_spans_with_their_headers() {
    let reply = b"*4\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n|1\r\n+k\r\n+v\r\n+x\r\n";
    let mut spans = Vec::new();
    array_elements(reply, &mut spans).unwrap();
    let parts: Vec<&[u8]> = spans.iter().map(|span| span.of(reply)).collect();
    assert_eq!(
        parts,
        [
            &b"$1\r\na\r\n"[..],
            b"$-1\r\n",
            b"*1\r\n:1\r\n",
            b"|1\r\n+k\r\n+v\r\n+x\r\n"
        ]
    );
    array_elements(b"|1\r\n+k\r\n+v\r\n*0\r\n", &mut spans).unwrap();
    assert!(spans.is_empty());
}

#[test]
fn only_whole_arrays_are_taken_apart() {
    for (reply, error) in [
        ("$1\r\na\r\n", ReplyError::NotAnArray(b'$')),
        ("*-1\r\n", ReplyError::NotAnArray(b'*')),
        ("%0\r\n", ReplyError::NotAnArray(b'%')),
        ("", ReplyError::Truncated),
        ("*1\r\n", ReplyError::Truncated),
        ("*4294967295\r\n+a\r\n", ReplyError::Truncated),
        ("*0\r\n+a\r\n", ReplyError::TrailingBytes(4)),
    ] {
        assert_eq!(
            array_elements(reply.as_bytes(), &mut Vec::new()),
            Err(error),
            "{reply:?}"
        );
    }
}
