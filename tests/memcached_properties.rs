//! Scanning memcached's text protocol: random requests and replies, cut at any
//! byte, come out as they went in; garbage neither panics nor makes a scanner
//! take more than it was given.
//!
//! proptest prints the seed of a failing case.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use keyferry::memcached::{Asked, ReplyScanner, Request, RequestScanner, next_value};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Bytes a key may have.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no blank or control", |byte| *byte > b' ' && *byte != 0x7f);
    vec(byte, 1..=250)
}

fn storage() -> impl Strategy<Value = Vec<u8>> {
    let verbs = select(vec!["set", "add", "replace", "append", "prepend", "cas"]);
    let words = (verbs, key(), any::<u32>(), any::<i32>(), any::<u64>());
    (words, any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(
        |((verb, key, flags, exptime, unique), quiet, data)| {
            let mut out = format!("{verb} ").into_bytes();
            out.extend(key);
            out.extend(format!(" {flags} {exptime} {}", data.len()).bytes());
            if verb == "cas" {
                out.extend(format!(" {unique}").bytes());
            }
            out.extend_from_slice(if quiet { b" noreply\r\n" } else { b"\r\n" });
            out.extend(data);
            out.extend_from_slice(b"\r\n");
            out
        },
    )
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let keys = vec(key(), 1..6).prop_map(|keys| keys.join(&b' '));
    let verbs = select(vec!["get ", "gets ", "gat 10 ", "gats -1 "]);
    let retrieval = (verbs, keys).prop_map(|(verb, keys)| [verb.as_bytes(), &keys].concat());
    let verbs = select(vec![
        ("incr ", " 5"),
        ("touch ", " 0"),
        ("delete ", " noreply"),
    ]);
    let change = (verbs, key())
        .prop_map(|((verb, rest), key)| [verb.as_bytes(), &key, rest.as_bytes()].concat());
    let others = select(vec!["version", "stats", "", "GET a"]);
    let other = others.prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![retrieval, change, other].prop_map(|line| [&line[..], b"\r\n"].concat())
}

fn requests() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(prop_oneof![storage(), line()], 1..12)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    (
        key(),
        any::<u32>(),
        vec(any::<u8>(), 0..300),
        any::<Option<u64>>(),
    )
        .prop_map(|(key, flags, data, unique)| {
            let mut out = b"VALUE ".to_vec();
            out.extend(key);
            out.extend(format!(" {flags} {}", data.len()).bytes());
            if let Some(unique) = unique {
                out.extend(format!(" {unique}").bytes());
            }
            out.extend_from_slice(b"\r\n");
            out.extend(data);
            out.extend_from_slice(b"\r\n");
            out
        })
}

/// Blocks, and the last line.
fn reply() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    let last = select(vec![
        "END",
        "STORED",
        "NOT_STORED",
        "EXISTS",
        "NOT_FOUND",
        "DELETED",
        "TOUCHED",
        "OK",
        "ERROR",
        "VERSION 1.6.18",
        "CLIENT_ERROR bad data chunk",
        "SERVER_ERROR out of memory",
        "0",
        "18446744073709551615",
        "5  ",
    ]);
    let last = last.prop_map(|text| format!("{text}\r\n").into_bytes());
    prop_oneof![
        (vec(value(), 0..5), Just(b"END\r\n".to_vec())),
        (Just(Vec::new()), last),
    ]
}

/// A client's bytes as they come in pieces: the requests found.
fn scan_pieces(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut scanner = RequestScanner::new(REQUEST_BYTES_MAX);
    let (mut held, mut found, mut from) = (Vec::new(), Vec::new(), 0);
    for &to in cuts.iter().chain([&stream.len()]) {
        held.extend_from_slice(&stream[from..to]);
        from = to;
        while let Some(request) = scanner.scan(&held).unwrap() {
            let bytes = request.bytes.to_vec();
            held.drain(..bytes.len());
            found.push(bytes);
            if held.is_empty() {
                break;
            }
        }
    }
    assert!(held.is_empty(), "{}", held.escape_ascii());
    found
}

fn cuts(len: usize, random: &[u16]) -> Vec<usize> {
    let mut cuts: Vec<usize> = random
        .iter()
        .map(|&cut| usize::from(cut) % (len + 1))
        .collect();
    cuts.sort_unstable();
    cuts
}

/// What goes to a server for a request with one key.
fn sent(request: &Request<'_>) -> Option<Vec<u8>> {
    match request.asked {
        Asked::Keyed(keyed) if keyed.as_it_is => Some(request.bytes.to_vec()),
        Asked::Keyed(keyed) => Some([keyed.line, b"\r\n", request.data()].concat()),
        _ => None,
    }
}

proptest! {
    #[test]
    fn requests_are_found_whatever_the_cuts(requests in requests(), random in vec(any::<u16>(), 0..8)) {
        let stream = requests.concat();
        prop_assert_eq!(scan_pieces(&stream, &cuts(stream.len(), &random)), requests);
    }

    #[test]
    fn requests_are_found_at_every_cut(request in prop_oneof![storage(), line()]) {
        for cut in 0..request.len() {
            prop_assert_eq!(scan_pieces(&request, &[cut]), vec![request.clone()]);
        }
    }

    #[test]
    fn what_is_sent_is_one_request_with_a_reply(request in prop_oneof![storage(), line()]) {
        let mut scanner = RequestScanner::new(REQUEST_BYTES_MAX);
        let found = scanner.scan(&request).unwrap().unwrap();
        if let Some(sent) = sent(&found) {
            let again = scanner.scan(&sent).unwrap().unwrap();
            prop_assert_eq!(again.bytes, &sent[..]);
            let (Asked::Keyed(before), Asked::Keyed(after)) = (found.asked, again.asked) else {
                panic!("{:?}", again.asked)
            };
            prop_assert_eq!((before.key, found.data()), (after.key, again.data()));
            prop_assert!(!after.quiet && after.as_it_is);
        }
    }

    #[test]
    fn a_started_request_says_what_is_missing(request in storage(), random in any::<u16>()) {
        let head = request.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let cut = head + usize::from(random) % (request.len() - head);
        let mut scanner = RequestScanner::new(REQUEST_BYTES_MAX);
        prop_assert_eq!(scanner.scan(&request[..cut]).unwrap(), None);
        let started = scanner.started(&request[..cut]).unwrap();
        prop_assert_eq!(started.total, request.len());
        prop_assert_eq!(started.missing as usize, request.len() - cut);
        prop_assert_eq!(started.data, &request[head..cut]);
    }

    #[test]
    fn replies_are_found_whatever_the_cuts(
        replies in vec(reply(), 1..8),
        random in vec(any::<u16>(), 0..8),
    ) {
        let whole: Vec<Vec<u8>> =
            replies.iter().map(|(blocks, last)| [&blocks.concat()[..], last].concat()).collect();
        let stream = whole.concat();
        let mut scanner = ReplyScanner::new();
        let (mut held, mut found, mut from) = (Vec::new(), Vec::new(), 0);
        for to in cuts(stream.len(), &random).into_iter().chain([stream.len()]) {
            held.extend_from_slice(&stream[from..to]);
            from = to;
            while let Some(len) = scanner.scan(&held).unwrap() {
                found.push(held.drain(..len).collect::<Vec<u8>>());
            }
        }
        prop_assert_eq!(&found, &whole);
        for (reply, (blocks, last)) in whole.iter().zip(&replies) {
            let mut rest = &reply[..];
            for block in blocks {
                let value = next_value(rest).unwrap();
                prop_assert_eq!(value.len, block.len());
                prop_assert!(block[6..].starts_with(value.key));
                rest = &rest[value.len..];
            }
            prop_assert_eq!((rest, next_value(rest)), (&last[..], None));
        }
    }

    #[test]
    fn a_tail_passes_what_the_scanner_would_have_found(
        (blocks, last) in reply(),
        cut in any::<u16>(),
        piece in 1_usize..70,
    ) {
        let whole = [&blocks.concat()[..], &last].concat();
        let stream = [&whole[..], b"STORED\r\n"].concat();
        let cut = usize::from(cut) % whole.len();
        let mut scanner = ReplyScanner::new();
        prop_assert_eq!(scanner.scan(&stream[..cut]).unwrap(), None);
        let mut tail = scanner.take_tail();
        let (mut held, mut passed) = (stream[..cut].to_vec(), 0);
        let mut to = cut;
        loop {
            let step = tail.pass(&held).unwrap();
            passed += step.bytes;
            if step.done {
                break;
            }
            held.drain(..step.bytes);
            prop_assert!(held.len() < 400, "no more than a line is held");
            let next = (to + piece).min(stream.len());
            prop_assert!(next > to, "an end is found");
            held.extend_from_slice(&stream[to..next]);
            to = next;
        }
        prop_assert_eq!(passed, whole.len());
    }

    #[test]
    fn garbage_takes_nothing_that_is_not_there(bytes in vec(any::<u8>(), 0..600)) {
        let mut scanner = RequestScanner::new(REQUEST_BYTES_MAX);
        if let Ok(Some(request)) = scanner.scan(&bytes) {
            prop_assert!(!request.bytes.is_empty() && request.bytes.len() <= bytes.len());
        }
        let _ = scanner.started(&bytes);
        if let Ok(Some(len)) = ReplyScanner::new().scan(&bytes) {
            prop_assert!(0 < len && len <= bytes.len());
        }
        let mut scanner = ReplyScanner::new();
        if scanner.scan(&bytes) == Ok(None) {
            let _ = scanner.take_tail().pass(&bytes);
        }
        if let Some(value) = next_value(&bytes) {
            prop_assert!(value.len <= bytes.len());
        }
    }
}
