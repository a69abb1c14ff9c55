//! What clients send, in one piece and cut where the data says: the same requests
//! and the same error, by [`RequestScanner`] and by [`RequestTail`]; no panic, and
//! no more memory than the bytes that came.
//!
//! ```text
//! | how 1 | cuts, how many 1 | cuts, 1 each: distance from the one before | input |
//!   '- bit 0: small limits; bit 1: the input says what requests to write
//! ```

#![no_main]

use keyferry::resp::{ProtocolError, RequestLimits, RequestScanner, write_command};
use libfuzzer_sys::fuzz_target;

type Requests = Vec<Vec<Vec<u8>>>;

/// So small that short inputs meet them.
const SMALL: RequestLimits = RequestLimits {
    takes_inline: true,
    request_bytes_max: 60,
    args_max: 4,
    inline_bytes_max: 20,
    bulk_bytes_max: 30,
};

/// Requests of an input that a tail is tried on.
const TAILS_MAX: usize = 8;

/// Requests found, where the next one begins, and why there is none.
#[derive(Debug, PartialEq)]
struct Found {
    requests: Requests,
    /// Where each of them begins.
    starts: Vec<usize>,
    start: usize,
    error: Option<ProtocolError>,
}

/// Scans `input` as it grows to each of `ends`.
fn scan(limits: RequestLimits, input: &[u8], ends: &[usize], repeated: bool) -> Found {
    let mut scanner = RequestScanner::new(limits);
    let mut found = Found {
        requests: Vec::new(),
        starts: Vec::new(),
        start: 0,
        error: None,
    };
    for &end in ends {
        loop {
            let rest = &input[found.start..end];
            let by_opening = if repeated {
                scanner.scan_repeated(rest)
            } else {
                None
            };
            let request = match by_opening {
                Some(request) => Some(request),
                None => match scanner.scan(rest) {
                    Ok(request) => request,
                    Err(error) => {
                        found.error = Some(error);
                        return found;
                    }
                },
            };
            let Some(request) = request else { break };
            assert!(request.consumed > 0 && request.consumed <= rest.len());
            assert!(request.len() <= limits.args_max.max(limits.inline_bytes_max));
            assert!(request.bytes.len() <= 16 + 4 * request.consumed);
            let args = (0..request.len()).map(|at| request.arg(at).to_vec());
            found.requests.push(args.collect());
            found.starts.push(found.start);
            found.start += request.consumed;
        }
    }
    found
}

/// Where the first request ends, by a scan of the first bytes and a tail for the rest.
fn first_end(
    limits: RequestLimits,
    input: &[u8],
    ends: &[usize],
) -> Result<Option<usize>, ProtocolError> {
    let (&cut, later) = ends.split_first().expect("the input's end");
    let mut scanner = RequestScanner::new(limits);
    if let Some(request) = scanner.scan(&input[..cut])? {
        return Ok(Some(request.consumed));
    }
    let Some(mut tail) = scanner.take_tail(&input[..cut])? else {
        let found = RequestScanner::new(limits)
            .scan(input)?
            .map(|request| request.consumed);
        return Ok(found);
    };
    let mut at = cut;
    for &end in later {
        let fed = tail.feed(&input[at..end])?;
        at += fed.consumed;
        if fed.done {
            return Ok(Some(at));
        }
        assert_eq!(at, end);
    }
    Ok(None)
}

/// Writes requests: one byte of `plan` is one argument (its length), the end of a
/// request, or a byte as it is, so that sound ones are near the limits often.
fn write(plan: &[u8]) -> Vec<u8> {
    let (mut out, mut lengths) = (Vec::new(), Vec::new());
    let mut plan = plan.iter();
    while let Some(&byte) = plan.next() {
        match byte {
            0..160 => lengths.push(usize::from(byte % 40)),
            160..240 => {
                let args: Vec<Vec<u8>> = lengths.drain(..).map(|len| vec![b'x'; len]).collect();
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                write_command(&mut out, &args);
            }
            _ => out.extend(plan.next()),
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let [how, cuts, rest @ ..] = data else {
        return;
    };
    let limits = if how & 1 == 0 {
        RequestLimits::default()
    } else {
        SMALL
    };
    let Some((cuts, input)) = rest.split_at_checked(usize::from(cuts % 16)) else {
        return;
    };
    let written = (how & 2 != 0).then(|| write(input));
    let input = written.as_deref().unwrap_or(input);
    let mut ends: Vec<usize> = Vec::new();
    for &cut in cuts {
        let end = ends.last().copied().unwrap_or(0) + usize::from(cut);
        ends.push(end.min(input.len()));
    }
    ends.push(input.len());

    let whole = scan(limits, input, &[input.len()], false);
    assert_eq!(scan(limits, input, &ends, false), whole);
    assert_eq!(scan(limits, input, &ends, true), whole);

    let mut starts = whole.starts;
    starts.push(whole.start);
    for start in starts.into_iter().take(TAILS_MAX) {
        let later = ends.iter().filter(|end| **end >= start);
        let ends: Vec<usize> = later.map(|end| end - start).collect();
        compare_tail(limits, &input[start..], &ends);
    }
});

/// A tail takes and refuses what the scanner does; it may refuse one byte before.
fn compare_tail(limits: RequestLimits, input: &[u8], ends: &[usize]) {
    let first = |input: &[u8]| {
        let mut scanner = RequestScanner::new(limits);
        let found = scanner.scan(input);
        found.map(|found| found.map(|request| request.consumed))
    };
    let (by_tail, by_scanner) = (first_end(limits, input, ends), first(input));
    let sooner = || {
        let longer = [input, b"x"].concat();
        by_scanner == Ok(None) && by_tail.is_err() && by_tail == first(&longer)
    };
    assert!(
        by_tail == by_scanner || sooner(),
        "tail {by_tail:?}, scanner {by_scanner:?}"
    );
}
