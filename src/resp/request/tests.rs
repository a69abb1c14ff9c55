use super::*;

fn scanner() -> RequestScanner {
    RequestScanner::new(RequestLimits::default())
}

fn args_of(request: &Request<'_>) -> Vec<Vec<u8>> {
    (0..request.len())
        .map(|i| request.arg(i).to_vec())
        .collect()
}

/// Feeds `input` one more byte at a time and takes whatever is found.
fn byte_by_byte(input: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
    let (mut scanner, mut found, mut start) = (scanner(), Vec::new(), 0);
    for end in 0..=input.len() {
        while let Some(request) = scanner.scan(&input[start..end])? {
            found.push(args_of(&request));
            start += request.consumed;
        }
        assert_eq!(scanner.is_partial(), start < end);
    }
    Ok(found)
}

fn error_of(input: &[u8]) -> String {
    let whole = scanner().scan(input).map(|found| found.is_some());
    let cut = byte_by_byte(input).map(|found| !found.is_empty());
    assert_eq!(whole, cut, "{:?}", input.escape_ascii().to_string());
    whole.unwrap_err().to_string()
}

#[test]
fn an_array_is_not_copied() {
    let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n";
    let mut scanner = scanner();
    let request = scanner.scan(input).unwrap().unwrap();
    assert_eq!(request.bytes.as_ptr(), input.as_ptr());
    assert_eq!(request.consumed, 20);
    assert_eq!(args_of(&request), [b"GET".to_vec(), b"k".to_vec()]);
    assert_eq!(request.arg(2), b"");
}

#[test]
fn pipelines_are_taken_one_by_one_at_any_cut() {
    let input = b"*1\r\n$4\r\nPING\r\nECHO 'a b'\r\n*0\r\n\r\n*-1\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n";
    let expected: Vec<Vec<Vec<u8>>> = vec![
        vec![b"PING".to_vec()],
        vec![b"ECHO".to_vec(), b"a b".to_vec()],
        vec![],
        vec![],
        vec![],
        vec![b"GET".to_vec(), b"".to_vec()],
    ];
    assert_eq!(byte_by_byte(input).unwrap(), expected);
}

#[test]
fn the_words_are_those_of_redis() {
    for (input, words) in [
        ("*1048577\r\n", "invalid multibulk length"),
        ("*3x\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
            "expected '$', got 'f'",
        ),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n",
            "invalid bulk length",
        ),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2000000000\r\n",
            "invalid bulk length",
        ),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$blabla\r\n",
            "invalid bulk length",
        ),
        ("*1\r\nfoo\r\n", "expected '$', got 'f'"),
        ("*1\r\n$1\r\nabc\r\n", "expected CRLF after bulk"),
        (
            "set \"\"\"test-key\"\"\" test-value\r\n",
            "unbalanced quotes in request",
        ),
    ] {
        assert_eq!(error_of(input.as_bytes()), words, "{input:?}");
    }
}

#[test]
fn lines_without_end_are_bounded() {
    for (first, words) in [
        ("", "too big inline request"),
        ("*", "too big mbulk count string"),
        ("*1\r\n$", "too big bulk count string"),
    ] {
        let mut input = first.as_bytes().to_vec();
        input.resize(first.len() + 64 * 1024 + 1, b'1');
        assert_eq!(scanner().scan(&input).unwrap_err().to_string(), words);
        input.extend_from_slice(b"\r\n");
        assert_eq!(scanner().scan(&input).unwrap_err().to_string(), words);
    }
    let mut longest = vec![b'a'; 64 * 1024 - 1];
    longest.extend_from_slice(b"\r\n");
    assert!(scanner().scan(&longest).unwrap().is_some());
}

#[test]
fn a_line_is_judged_when_redis_judges_it() {
    // A CR needs one byte after it; after a NUL no end is seen any more.
    for half in [
        "*1\r\nX",
        "*1\r\nX4\r",
        "*1\r\n$\r",
        "*x\r",
        "*1\0\r\n",
        "*1\r\n$4\0\r\nPING\r\n",
        "*1\r\nX\0\r\n",
        "PING\0\r\nPING\r\n",
    ] {
        assert_eq!(byte_by_byte(half.as_bytes()).unwrap().len(), 0, "{half:?}");
        let mut long = half.as_bytes().to_vec();
        long.resize(half.len() + 64 * 1024, b'1');
        let whole = scanner().scan(&long).unwrap_err();
        assert_eq!(byte_by_byte(&long).unwrap_err(), whole, "{half:?}");
    }
    let error = scanner().scan(b"*1\r\n\xff4\r\n").unwrap_err();
    assert_eq!(error.words(), b"expected '$', got '\xff'");
}

#[test]
fn a_line_is_searched_from_its_start_after_a_request_that_was_cut_in_one() {
    for next in ["PING\r\n", "*1\r\n$000\r\n"] {
        let input = ["*1\r\n$4\r\nPING\r\n", next].concat();
        let mut scanner = scanner();
        assert!(scanner.scan(&input.as_bytes()[..6]).unwrap().is_none());
        let first = scanner.scan(input.as_bytes()).unwrap().unwrap().consumed;
        let rest = &input.as_bytes()[first..];
        assert!(!matches!(scanner.scan(rest), Ok(None)), "{next:?}");
    }
}

#[test]
fn the_request_as_a_whole_is_bounded() {
    let limits = RequestLimits {
        request_bytes_max: 40,
        ..RequestLimits::default()
    };
    let mut scanner = RequestScanner::new(limits);
    assert!(
        scanner
            .scan(b"*2\r\n$3\r\nGET\r\n$15\r\nabcdeabcdeabcde\r\n")
            .unwrap()
            .is_some()
    );
    let error = scanner.scan(b"*2\r\n$3\r\nGET\r\n$21\r\n").unwrap_err();
    assert_eq!(error, ProtocolError::TooBigRequest);
}

#[test]
fn a_declared_length_allocates_nothing() {
    let mut scanner = scanner();
    assert!(
        scanner
            .scan(b"*1048576\r\n$536870912\r\nabc")
            .unwrap()
            .is_none()
    );
    assert_eq!(scanner.args.capacity(), 0);
    assert_eq!(scanner.need, 10 + 12 + 536_870_912 + 2);
}

#[test]
fn long_lists_are_given_back() {
    let mut scanner = scanner();
    let mut input = b"*100000\r\n".to_vec();
    for _ in 0..100_000 {
        input.extend_from_slice(b"$0\r\n\r\n");
    }
    assert_eq!(scanner.scan(&input).unwrap().unwrap().len(), 100_000);
    assert!(scanner.scan(b"*1\r\n$4\r\nPING\r\n").unwrap().is_some());
    assert!(scanner.args.capacity() <= RETAINED_SPANS_MAX);
}

#[test]
fn long_headers_are_resumed() {
    let mut input = b"*2\r\n$3\r\nSET\r\n$70000\r\n".to_vec();
    input.resize(input.len() + 70_000, b'v');
    input.extend_from_slice(b"\r\n");
    let mut scanner = scanner();
    for cut in 0..100 {
        assert!(scanner.scan(&input[..cut]).unwrap().is_none());
    }
    let request = scanner.scan(&input).unwrap().unwrap();
    assert_eq!(request.arg(1).len(), 70_000);
}

#[test]
fn reset_forgets_the_first_half() {
    let mut scanner = scanner();
    assert!(scanner.scan(b"*2\r\n$3\r\nGET\r\n").unwrap().is_none());
    scanner.reset();
    assert!(!scanner.is_partial());
    assert_eq!(scanner.scan(b"PING\r\n").unwrap().unwrap().arg(0), b"PING");
}
