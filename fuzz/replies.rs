//! What shards send, in one piece and cut where the data says: replies end at the
//! same bytes, by [`ReplyScanner`] and by [`ReplyTail`], and are refused alike; no
//! panic, and what takes replies apart takes no more memory than they have.
//!
//! ```text
//! | cuts, how many 1 | cuts, 1 each: distance from the one before | input |
//! ```

#![no_main]

use keyferry::resp::{ReplyError, ReplyScanner, array_body, array_elements, parse_value};
use libfuzzer_sys::fuzz_target;

/// Where each reply ends, its type, and why there are no more.
type Ends = (Vec<(usize, u8)>, Option<ReplyError>);

fn scan(input: &[u8], ends: &[usize]) -> Ends {
    let (mut scanner, mut start, mut found) = (ReplyScanner::new(), 0, Vec::new());
    for &end in ends {
        loop {
            match scanner.scan(&input[start..end]) {
                Ok(Some(reply)) => {
                    assert!(reply.len > 0 && start + reply.len <= end);
                    start += reply.len;
                    found.push((start, reply.kind));
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn first_end(input: &[u8], ends: &[usize]) -> Result<Option<(usize, u8)>, ReplyError> {
    let (&cut, later) = ends.split_first().expect("the input's end");
    let mut scanner = ReplyScanner::new();
    if let Some(reply) = scanner.scan(&input[..cut])? {
        return Ok(Some((reply.len, reply.kind)));
    }
    let mut tail = scanner.take_tail();
    let mut start = 0;
    for &end in [cut].iter().chain(later) {
        let passed = tail.pass(&input[start..end])?;
        start += passed.bytes;
        if passed.done {
            return Ok(Some((start, tail.kind())));
        }
    }
    Ok(None)
}

fuzz_target!(|data: &[u8]| {
    let [cuts, rest @ ..] = data else { return };
    let Some((cuts, input)) = rest.split_at_checked(usize::from(cuts % 16)) else {
        return;
    };
    let mut ends: Vec<usize> = Vec::new();
    for &cut in cuts {
        let end = ends.last().copied().unwrap_or(0) + usize::from(cut);
        ends.push(end.min(input.len()));
    }
    ends.push(input.len());

    let whole = scan(input, &[input.len()]);
    assert_eq!(scan(input, &ends), whole);
    let first = |input: &[u8]| {
        let found = ReplyScanner::new().scan(input);
        found.map(|reply| reply.map(|reply| (reply.len, reply.kind)))
    };
    let by_tail = first_end(input, &ends);
    // A tail may refuse one byte before the scanner does.
    let sooner = || {
        let longer = [input, b"x"].concat();
        first(input) == Ok(None) && by_tail.is_err() && by_tail == first(&longer)
    };
    assert!(by_tail == first(input) || sooner(), "{by_tail:?}");

    let mut spans = Vec::new();
    let mut start = 0;
    for (end, _) in whole.0 {
        let reply = &input[start..end];
        // A scanner finds ends; it looks at no values.
        let decoded = parse_value(reply);
        assert!(
            matches!(decoded, Ok(_) | Err(ReplyError::InvalidValue(_))),
            "{decoded:?}"
        );
        let _ = array_body(reply);
        let _ = array_elements(reply, &mut spans);
        assert!(spans.len() <= reply.len());
        start = end;
    }
    let _ = parse_value(input);
    let _ = array_body(input);
    let _ = array_elements(input, &mut spans);
    assert!(spans.len() <= input.len());
});
