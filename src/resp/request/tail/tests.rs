use super::*;

const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nvalue\r\nvalue\r\n";

fn scanner() -> RequestScanner {
    RequestScanner::new(RequestLimits::default())
}

/// Scans `input` up to `cut`, feeds the rest `step` bytes at a time; where the
/// request ended.
fn end_of(input: &[u8], cut: usize, step: usize) -> Result<Option<usize>, ProtocolError> {
    let mut scanner = scanner();
    if let Some(request) = scanner.scan(&input[..cut])? {
        return Ok(Some(request.consumed));
    }
    let Some(mut tail) = scanner.take_tail(&input[..cut])? else {
        return Ok(None);
    };
    assert!(scanner.started().is_none());
    let mut at = cut;
    for piece in input[cut..].chunks(step) {
        let fed = tail.feed(piece)?;
        at += fed.consumed;
        if fed.done {
            return Ok(Some(at));
        }
        assert_eq!(fed.consumed, piece.len());
    }
    Ok(None)
}

#[test]
fn the_end_is_found_from_any_cut_in_any_steps() {
    let input = [SET, b"*1\r\n$4\r\nPING\r\n"].concat();
    for cut in 4..SET.len() {
        for step in 1..=input.len() {
            assert_eq!(
                end_of(&input, cut, step),
                Ok(Some(SET.len())),
                "{cut} {step}"
            );
        }
    }
}

#[test]
fn what_has_started_is_told() {
    let mut scanner = scanner();
    assert!(scanner.started().is_none());
    for (cut, args, bytes_min) in [
        (4, 0, 5),
        (13, 1, 14),
        (20, 2, 21),
        (24, 2, 25),
        (25, 2, 39),
    ] {
        assert!(scanner.scan(&SET[..cut]).unwrap().is_none());
        let started = scanner.started().expect("it has");
        let told = (started.args.len(), started.args_total, started.bytes_min);
        assert_eq!(told, (args, 3, bytes_min), "cut at {cut}");
    }
    assert!(scanner.scan(SET).unwrap().is_some());
    assert!(scanner.started().is_none());
    for early in ["*", "*3\r", "inline without en"] {
        scanner.reset();
        assert!(scanner.scan(early.as_bytes()).unwrap().is_none());
        assert!(scanner.started().is_none(), "{early:?}");
        assert!(scanner.take_tail(early.as_bytes()).unwrap().is_none());
    }
}

#[test]
fn the_longest_argument_takes_no_memory() {
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
    let mut scanner = scanner();
    assert!(scanner.scan(head).unwrap().is_none());
    let mut tail = scanner.take_tail(head).unwrap().unwrap();
    let piece = vec![b'v'; 1 << 20];
    for left in (1..=512).rev() {
        assert_eq!(tail.missing_bytes_min(), left * piece.len() + 2);
        let fed = tail.feed(&piece).unwrap();
        assert_eq!((fed.consumed, fed.done), (piece.len(), false));
    }
    assert!(!tail.feed(b"\r").unwrap().done);
    let last = tail.feed(b"\nPING\r\n").unwrap();
    assert_eq!((last.consumed, last.done), (1, true));
    assert_eq!(tail.missing_bytes_min(), 0);
}

#[test]
fn mistakes_have_the_words_of_the_scanner() {
    let long = format!("$1{}\r\n", "0".repeat(70_000));
    for (bad, error) in [
        ("+1\r\n", ProtocolError::ExpectedDollar(b'+')),
        ("$-1\r\n", ProtocolError::InvalidBulkLength),
        ("$x\r\n", ProtocolError::InvalidBulkLength),
        ("$01\r\n", ProtocolError::InvalidBulkLength),
        ("$1\rx", ProtocolError::InvalidBulkLength),
        ("$\r\n", ProtocolError::InvalidBulkLength),
        ("$536870913\r\n", ProtocolError::InvalidBulkLength),
        (
            "$123456789012345678901234567890\r\n",
            ProtocolError::InvalidBulkLength,
        ),
        ("$2\r\nabc\r\n", ProtocolError::ExpectedCrlf),
        ("$2\r\nab\rx", ProtocolError::ExpectedCrlf),
        (&long, ProtocolError::TooBigBulkCount),
    ] {
        let input = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n{bad}");
        let shown: String = bad.chars().take(40).collect();
        assert_eq!(
            end_of(input.as_bytes(), input.len(), 1),
            Err(error),
            "{shown}"
        );
        for step in [1, 2, 3, 7, 1000, 100_000] {
            assert_eq!(
                end_of(input.as_bytes(), 5, step),
                Err(error),
                "{shown} by {step}"
            );
        }
    }
}

#[test]
fn the_request_as_a_whole_stays_bounded() {
    let limits = RequestLimits {
        request_bytes_max: 40,
        ..RequestLimits::default()
    };
    for (bulks, outcome) in [
        ("$3\r\nGET\r\n$15\r\nabcdeabcdeabcde\r\n", Ok(true)),
        (
            "$3\r\nGET\r\n$21\r\nabcdeabcdeabcde\r\n",
            Err(ProtocolError::TooBigRequest),
        ),
    ] {
        let mut scanner = RequestScanner::new(limits);
        assert!(scanner.scan(b"*2\r\n").unwrap().is_none());
        let mut tail = scanner.take_tail(b"*2\r\n").unwrap().unwrap();
        assert_eq!(
            tail.feed(bulks.as_bytes()).map(|fed| fed.done),
            outcome,
            "{bulks:?}"
        );
    }
}
