//! RESP scanning against an oracle (the `redis-protocol` crate): random
//! requests and replies, cut at every byte, must come out as they went in, and
//! garbage must neither panic nor make memory grow.
//!
//! proptest prints the seed of a failing case.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use keyferry::resp::{
    ProtocolError, ReplyError, ReplyScanner, RequestLimits, RequestScanner, Span, Value,
    array_elements, parse_value, write_command,
};
use proptest::collection::vec;
use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp3::types::OwnedFrame as Frame3;

type Command = Vec<Vec<u8>>;

fn command() -> impl Strategy<Value = Command> {
    vec(vec(any::<u8>(), 0..150), 1..6)
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    "[a-zA-Z0-9 :$*]{0,20}".prop_map(String::into_bytes)
}

fn scalar2() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::Simple),
        text().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        vec(any::<u8>(), 0..300).prop_map(Value::Bulk),
        Just(Value::Null),
    ]
}

fn reply2() -> impl Strategy<Value = Value> {
    scalar2().prop_recursive(4, 24, 6, |inner| vec(inner, 0..6).prop_map(Value::Array))
}

fn reply3() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        scalar2(),
        any::<bool>().prop_map(Value::Boolean),
        prop::num::f64::NORMAL.prop_map(Value::Double),
        "-?[1-9][0-9]{20,40}".prop_map(|digits| Value::BigNumber(digits.into_bytes())),
        text().prop_map(Value::Verbatim),
    ];
    scalar.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec(inner.clone(), 0..4).prop_map(|values| {
                Value::Map(
                    values
                        .into_iter()
                        .enumerate()
                        .map(|(i, v)| (unique(i), v))
                        .collect(),
                )
            }),
            (0..5_usize).prop_map(|n| Value::Set((0..n).map(unique).collect())),
        ]
    })
}

/// The oracle keeps maps and sets hashed: keys must be distinct scalars.
fn unique(i: usize) -> Value {
    Value::Bulk(format!("key {i}").into_bytes())
}

/// How the tree is spelled: RESP2 has its own nulls; attributes may precede anything.
#[derive(Clone, Copy)]
enum Dialect {
    Resp2,
    Resp3,
    Resp3WithAttributes,
}

fn encode(out: &mut Vec<u8>, value: &Value, dialect: Dialect) {
    if matches!(dialect, Dialect::Resp3WithAttributes) {
        out.extend_from_slice(b"|1\r\n+seen\r\n*2\r\n:1\r\n$3\r\na\r\n\r\n");
    }
    let line = |out: &mut Vec<u8>, kind: u8, text: &[u8]| {
        out.push(kind);
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    };
    let length = |out: &mut Vec<u8>, kind: u8, n: usize| line(out, kind, n.to_string().as_bytes());
    match value {
        Value::Simple(text) => line(out, b'+', text),
        Value::Error(text) => line(out, b'-', text),
        Value::Integer(n) => line(out, b':', n.to_string().as_bytes()),
        Value::Double(n) => line(out, b',', n.to_string().as_bytes()),
        Value::Boolean(true) => line(out, b'#', b"t"),
        Value::Boolean(false) => line(out, b'#', b"f"),
        Value::BigNumber(digits) => line(out, b'(', digits),
        Value::Null if matches!(dialect, Dialect::Resp2) => line(out, b'$', b"-1"),
        Value::Null => line(out, b'_', b""),
        Value::Bulk(bytes) => {
            length(out, b'$', bytes.len());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Value::Verbatim(text) => {
            length(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        Value::Array(values) | Value::Set(values) | Value::Push(values) => {
            let kind = match value {
                Value::Array(_) => b'*',
                Value::Set(_) => b'~',
                _ => b'>',
            };
            length(out, kind, values.len());
            values.iter().for_each(|value| encode(out, value, dialect));
        }
        Value::Map(pairs) => {
            length(out, b'%', pairs.len());
            for (key, value) in pairs {
                encode(out, key, dialect);
                encode(out, value, dialect);
            }
        }
    }
}

fn encoded(value: &Value, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, value, dialect);
    out
}

fn from_frame2(frame: Frame2) -> Value {
    match frame {
        Frame2::SimpleString(text) => Value::Simple(text),
        Frame2::Error(text) => Value::Error(text.into_bytes()),
        Frame2::Integer(n) => Value::Integer(n),
        Frame2::BulkString(bytes) => Value::Bulk(bytes),
        Frame2::Array(frames) => Value::Array(frames.into_iter().map(from_frame2).collect()),
        Frame2::Null => Value::Null,
    }
}

fn from_frame3(frame: Frame3) -> Value {
    let all = |frames: Vec<Frame3>| frames.into_iter().map(from_frame3).collect();
    match frame {
        Frame3::SimpleString { data, .. } => Value::Simple(data),
        Frame3::SimpleError { data, .. } => Value::Error(data.into_bytes()),
        Frame3::Number { data, .. } => Value::Integer(data),
        Frame3::Double { data, .. } => Value::Double(data),
        Frame3::Boolean { data, .. } => Value::Boolean(data),
        Frame3::BigNumber { data, .. } => Value::BigNumber(data),
        Frame3::BlobString { data, .. } => Value::Bulk(data),
        Frame3::VerbatimString { data, .. } => Value::Verbatim(data),
        Frame3::Null => Value::Null,
        Frame3::Array { data, .. } => Value::Array(all(data)),
        Frame3::Set { data, .. } => {
            let mut values: Vec<Value> = data.into_iter().map(from_frame3).collect();
            values.sort_by_key(|value| format!("{value:?}"));
            Value::Set(values)
        }
        Frame3::Map { data, .. } => {
            let mut pairs: Vec<(Value, Value)> = data
                .into_iter()
                .map(|(k, v)| (from_frame3(k), from_frame3(v)))
                .collect();
            pairs.sort_by_key(|(key, _)| format!("{key:?}"));
            Value::Map(pairs)
        }
        other => panic!("the generator makes no {other:?}"),
    }
}

/// Offers `input` one byte more at a time; answers where each reply ended.
fn reply_ends(input: &[u8]) -> Result<Vec<usize>, ReplyError> {
    let (mut scanner, mut ends, mut start) = (ReplyScanner::new(), Vec::new(), 0);
    for end in 0..=input.len() {
        while let Some(reply) = scanner.scan(&input[start..end])? {
            start += reply.len;
            ends.push(start);
        }
    }
    Ok(ends)
}

fn args_of(request: &keyferry::resp::Request<'_>) -> Command {
    (0..request.len())
        .map(|i| request.arg(i).to_vec())
        .collect()
}

/// Cuts `input` at each of `cuts` and takes all requests as they become whole.
fn requests_of(input: &[u8], cuts: impl Iterator<Item = usize>) -> Vec<Command> {
    let mut scanner = RequestScanner::new(RequestLimits::default());
    let (mut found, mut start) = (Vec::new(), 0);
    for end in cuts.chain([input.len()]) {
        while let Some(request) = scanner.scan(&input[start..end]).unwrap() {
            found.push(args_of(&request));
            start += request.consumed;
        }
    }
    assert_eq!(start, input.len());
    found
}

/// Quotes an argument the way `redis-cli` prints one.
fn inline_word(word: &[u8]) -> String {
    let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"")
}

proptest! {
    #[test]
    fn requests_survive_any_cut(commands in vec(command(), 1..4)) {
        let mut input = Vec::new();
        for command in &commands {
            let before = input.len();
            let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            write_command(&mut input, &args);
            let (frame, len) =
                redis_protocol::resp2::decode::decode(&input[before..]).unwrap().unwrap();
            prop_assert_eq!(len, input.len() - before);
            let expected = command.iter().cloned().map(Value::Bulk).collect();
            prop_assert_eq!(from_frame2(frame), Value::Array(expected));
        }
        prop_assert_eq!(&requests_of(&input, std::iter::empty()), &commands);
        prop_assert_eq!(&requests_of(&input, 0..input.len()), &commands);
        for cut in 0..input.len() {
            prop_assert_eq!(&requests_of(&input, [cut].into_iter()), &commands);
        }
    }

    #[test]
    fn inline_commands_are_rebuilt(commands in vec(vec(vec(any::<u8>(), 0..20), 1..5), 1..4)) {
        let mut input = Vec::new();
        for command in &commands {
            let words: Vec<String> = command.iter().map(|word| inline_word(word)).collect();
            input.extend_from_slice(words.join(" \t").as_bytes());
            input.extend_from_slice(b"\r\n");
        }
        prop_assert_eq!(&requests_of(&input, std::iter::empty()), &commands);
        prop_assert_eq!(&requests_of(&input, 0..input.len()), &commands);
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let mut canonical = Vec::new();
        let args: Vec<&[u8]> = commands[0].iter().map(Vec::as_slice).collect();
        write_command(&mut canonical, &args);
        prop_assert_eq!(scanner.scan(&input).unwrap().unwrap().bytes, &canonical[..]);
    }

    #[test]
    fn resp2_replies_survive_any_cut(value in reply2()) {
        let input = encoded(&value, Dialect::Resp2);
        let (frame, len) = redis_protocol::resp2::decode::decode(&input).unwrap().unwrap();
        prop_assert_eq!(len, input.len());
        prop_assert_eq!(&from_frame2(frame), &value);
        prop_assert_eq!(parse_value(&input), Ok(value));
        let twice = input.repeat(2);
        prop_assert_eq!(reply_ends(&twice), Ok(vec![len, 2 * len]));
        for cut in 0..len {
            let mut scanner = ReplyScanner::new();
            prop_assert_eq!(scanner.scan(&input[..cut]), Ok(None));
            prop_assert_eq!(scanner.scan(&twice).unwrap().map(|reply| reply.len), Some(len));
            prop_assert_eq!(parse_value(&input[..cut]), Err(ReplyError::Truncated));
        }
    }

    #[test]
    fn resp3_replies_survive_any_cut(value in reply3()) {
        let input = encoded(&value, Dialect::Resp3);
        let (frame, len) =
            redis_protocol::resp3::decode::complete::decode(&input).unwrap().unwrap();
        prop_assert_eq!(len, input.len());
        prop_assert_eq!(&from_frame3(frame), &value);
        prop_assert_eq!(parse_value(&input), Ok(value.clone()));
        prop_assert_eq!(reply_ends(&input.repeat(2)), Ok(vec![len, 2 * len]));

        let with_attributes = encoded(&value, Dialect::Resp3WithAttributes);
        let len = with_attributes.len();
        prop_assert_eq!(reply_ends(&with_attributes.repeat(2)), Ok(vec![len, 2 * len]));
        prop_assert_eq!(parse_value(&with_attributes), Ok(value));
    }

    #[test]
    fn arrays_come_apart_into_their_elements(values in vec(reply3(), 0..6)) {
        let input = encoded(&Value::Array(values.clone()), Dialect::Resp3);
        let mut spans: Vec<Span> = Vec::new();
        array_elements(&input, &mut spans).unwrap();
        let parts: Vec<Value> =
            spans.iter().map(|span| parse_value(span.of(&input)).unwrap()).collect();
        prop_assert_eq!(parts, values);
    }

    #[test]
    fn a_request_tail_ends_where_the_request_does(
        commands in vec(command(), 2..3), steps in vec(1..40_usize, 1..8),
    ) {
        let mut input = Vec::new();
        for command in &commands {
            let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            write_command(&mut input, &args);
        }
        let end = scan_whole(&input);
        for cut in 0..input.len() {
            prop_assert_eq!(&scan_with_tail(&input, cut, &steps), &end);
        }
    }

    #[test]
    fn a_reply_tail_ends_where_the_reply_does(
        values in vec(reply3(), 2..3), steps in vec(1..40_usize, 1..8),
    ) {
        for dialect in [Dialect::Resp3, Dialect::Resp3WithAttributes] {
            let mut input = Vec::new();
            values.iter().for_each(|value| encode(&mut input, value, dialect));
            let whole = ReplyScanner::new().scan(&input).unwrap().unwrap();
            for cut in 0..input.len() {
                let passed = pass_with_tail(&input, cut, &steps);
                prop_assert_eq!(passed, Ok(Some((whole.len, whole.kind))));
            }
        }
    }

    #[test]
    fn tails_judge_garbage_as_scanners_do(
        pieces in vec(garbage(), 1..3), steps in vec(1..20_usize, 1..8),
    ) {
        let mut input = b"*9\r\n".to_vec();
        input.extend(pieces.concat());
        let longer = [&input[..], b"x"].concat();
        let scan = |input: &[u8]| {
            let scanned = ReplyScanner::new().scan(input);
            scanned.map(|reply| reply.map(|reply| (reply.len, reply.kind)))
        };
        let (request, request_longer) = (scan_whole(&input), scan_whole(&longer));
        let (reply, reply_longer) = (scan(&input), scan(&longer));
        for cut in 0..input.len() {
            let tail = scan_with_tail(&input, cut, &steps);
            prop_assert!(tail == request || sooner(&tail, &request, &request_longer), "{tail:?}");
            let tail = pass_with_tail(&input, cut, &steps);
            prop_assert!(tail == reply || sooner(&tail, &reply, &reply_longer), "{tail:?}");
        }
    }

    #[test]
    fn garbage_is_judged_alike_at_any_cut(input in garbage()) {
        let whole = drain_requests(&input, std::iter::empty());
        prop_assert_eq!(drain_requests(&input, 0..input.len()), whole);

        let ends = drain_replies(&input, std::iter::empty());
        prop_assert_eq!(drain_replies(&input, 0..input.len()), ends);
        let _ = parse_value(&input);
        let mut spans = Vec::new();
        let _ = array_elements(&input, &mut spans);
        prop_assert!(spans.len() <= input.len());
    }
}

/// Bytes that look like RESP more often than chance would have it.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        Just(b"\r\n".to_vec()),
        "[*$%~>|=!:,+_#(;.-][0-9?-]{0,12}".prop_map(String::into_bytes),
        "[*$%~>|=!:,+_#(-][0-9]{1,2}\r\n".prop_map(String::into_bytes),
        "[a-z\"'\\\\ ]{0,8}".prop_map(String::into_bytes),
    ];
    vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn drain_requests(input: &[u8], cuts: impl Iterator<Item = usize>) -> (Vec<Command>, String) {
    let mut scanner = RequestScanner::new(RequestLimits::default());
    let (mut found, mut start) = (Vec::new(), 0);
    for end in cuts.chain([input.len()]) {
        loop {
            match scanner.scan(&input[start..end]) {
                Ok(Some(request)) => {
                    found.push(args_of(&request));
                    start += request.consumed;
                }
                Ok(None) => break,
                Err(error) => return (found, error.to_string()),
            }
        }
    }
    (found, String::new())
}

fn drain_replies(input: &[u8], cuts: impl Iterator<Item = usize>) -> (usize, Option<ReplyError>) {
    let (mut scanner, mut start) = (ReplyScanner::new(), 0);
    for end in cuts.chain([input.len()]) {
        loop {
            match scanner.scan(&input[start..end]) {
                Ok(Some(reply)) => start += reply.len,
                Ok(None) => break,
                Err(error) => return (start, Some(error)),
            }
        }
    }
    (start, None)
}

/// A tail may refuse one byte before its scanner does.
fn sooner<T: PartialEq, E: PartialEq>(
    tail: &Result<Option<T>, E>,
    scanner: &Result<Option<T>, E>,
    scanner_one_byte_later: &Result<Option<T>, E>,
) -> bool {
    matches!(scanner, Ok(None)) && tail.is_err() && tail == scanner_one_byte_later
}

/// Where the first request of `input` ends, if it has an end.
fn scan_whole(input: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let mut scanner = RequestScanner::new(RequestLimits::default());
    let found = scanner.scan(input)?;
    Ok(found.map(|request| request.consumed))
}

/// The same, by a scan of the first `cut` bytes and a tail for the others,
/// which arrive in pieces of `steps` over and over.
fn scan_with_tail(
    input: &[u8],
    cut: usize,
    steps: &[usize],
) -> Result<Option<usize>, ProtocolError> {
    let mut scanner = RequestScanner::new(RequestLimits::default());
    if let Some(request) = scanner.scan(&input[..cut])? {
        return Ok(Some(request.consumed));
    }
    let Some(mut tail) = scanner.take_tail(&input[..cut])? else {
        return scan_whole(input);
    };
    let mut at = cut;
    for step in steps.iter().cycle() {
        let piece = &input[at..(at + step).min(input.len())];
        let missing = tail.missing_bytes_min();
        let fed = tail.feed(piece)?;
        at += fed.consumed;
        if fed.done {
            return Ok(Some(at));
        }
        assert_eq!(fed.consumed, piece.len());
        assert!(piece.len() < missing || tail.missing_bytes_min() > 0);
        if at == input.len() {
            break;
        }
    }
    Ok(None)
}

/// Where the first reply of `input` ends, and its type: found by a scan of the
/// first `cut` bytes and a tail for the others.
fn pass_with_tail(
    input: &[u8],
    cut: usize,
    steps: &[usize],
) -> Result<Option<(usize, u8)>, ReplyError> {
    let mut scanner = ReplyScanner::new();
    if let Some(reply) = scanner.scan(&input[..cut])? {
        return Ok(Some((reply.len, reply.kind)));
    }
    let mut tail = scanner.take_tail();
    let (mut start, mut end) = (0, cut);
    for step in steps.iter().cycle() {
        let passed = tail.pass(&input[start..end])?;
        start += passed.bytes;
        if passed.done {
            return Ok(Some((start, tail.kind())));
        }
        if end == input.len() {
            break;
        }
        end = (end + step).min(input.len());
    }
    Ok(None)
}
