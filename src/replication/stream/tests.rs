use super::*;
use crate::resp::write_command;

fn command(words: &[&str]) -> Vec<u8> {
    let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut out = Vec::new();
    write_command(&mut out, &args);
    out
}

/// A short spelling of what a stream gives, with offsets.
fn told(progress: Progress) -> String {
    match progress {
        Progress::AckWanted => "ack".to_owned(),
        Progress::NeedsBytes => "more".to_owned(),
        Progress::Event(TapEvent::Command(command)) => format!(
            "{}@{}{} {}",
            command.name().escape_ascii(),
            command.db,
            if command.in_transaction { " in" } else { "" },
            command.offset_end
        ),
        Progress::Event(TapEvent::TransactionBegin { offset_end }) => format!("begin {offset_end}"),
        Progress::Event(TapEvent::TransactionEnd { offset_end, db }) => {
            format!("end@{db} {offset_end}")
        }
        Progress::Event(TapEvent::Idle { offset, db }) => format!("idle@{db} {offset}"),
        Progress::Event(other) => panic!("a stream gives no {other:?}"),
    }
}

fn drain(stream: &mut CommandStream, buffer: &mut BytesMut) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let progress = told(stream.next(buffer).unwrap());
        let done = progress == "more";
        all.push(progress);
        if done {
            return all;
        }
    }
}

#[test]
fn every_byte_counts_and_databases_are_followed() {
    let bytes = [
        command(&["SELECT", "3"]),
        command(&["SET", "k", "v"]),
        command(&["PING"]),
        command(&["REPLCONF", "GETACK", "*"]),
        command(&["select", "0"]),
    ]
    .concat();
    let mut stream = CommandStream::new(1000, 7);
    let mut buffer = BytesMut::from(&bytes[..]);
    let all = drain(&mut stream, &mut buffer);
    let after_set = 1000 + 23 + 27;
    let end = 1000 + bytes.len();
    assert_eq!(
        all,
        [
            format!("SET@3 {after_set}"),
            "ack".to_owned(),
            format!("idle@0 {end}"),
            "more".to_owned()
        ]
    );
    assert!(buffer.is_empty());
    assert_eq!(drain(&mut stream, &mut buffer), ["more"]);
}

#[test]
fn transactions_are_units_and_may_select() {
    let parts = [
        command(&["MULTI"]),
        command(&["SELECT", "1"]),
        command(&["INCR", "a"]),
        command(&["SELECT", "2"]),
    ];
    let mut stream = CommandStream::new(0, 0);
    let mut buffer = BytesMut::from(&parts.concat()[..]);
    let after_incr: usize = parts[..3].iter().map(Vec::len).sum();
    let incr = format!("INCR@1 in {after_incr}");
    assert_eq!(
        drain(&mut stream, &mut buffer),
        ["begin 15", &incr, "more"],
        "no idle inside"
    );
    buffer.extend_from_slice(&command(&["EXEC"]));
    let end = parts.concat().len() + 14;
    assert_eq!(
        drain(&mut stream, &mut buffer),
        [format!("end@2 {end}"), "more".to_owned()]
    );
}

#[test]
fn newlines_count_only_as_part_of_the_stream() {
    let mut stream = CommandStream::new(10, 0);
    assert_eq!(drain(&mut stream, &mut BytesMut::from("\n\n")), ["more"]);
    let mut buffer = BytesMut::from(&[&b"\n"[..], &command(&["PING"])].concat()[..]);
    assert_eq!(drain(&mut stream, &mut buffer), ["idle@0 24", "more"]);
    let error = stream.next(&mut BytesMut::from("\n")).unwrap_err();
    assert!(
        matches!(
            error,
            TapErrorKind::NotACommand {
                offset: 24,
                byte: b'\n'
            }
        ),
        "{error}"
    );
}

#[test]
fn every_cut_gives_the_same_commands() {
    let bytes = [
        command(&["MULTI"]),
        command(&["SET", "key", "some value\r\n*1\r\n"]),
        command(&["EXEC"]),
        command(&["DEL", "a", "b"]),
    ]
    .concat();
    let mut whole_buffer = BytesMut::from(&bytes[..]);
    let whole = drain(&mut CommandStream::new(0, 0), &mut whole_buffer);
    for cut in 0..bytes.len() {
        let mut stream = CommandStream::new(0, 0);
        let mut buffer = BytesMut::from(&bytes[..cut]);
        let mut all = drain(&mut stream, &mut buffer);
        all.pop();
        buffer.extend_from_slice(&bytes[cut..]);
        all.extend(drain(&mut stream, &mut buffer));
        assert_eq!(all, whole, "cut at {cut}");
    }
}

#[test]
fn what_cannot_be_is_an_error_with_its_offset() {
    for (bytes, says) in [
        (
            command(&["EXEC"]),
            "the stream has EXEC without MULTI at offset 5",
        ),
        (
            command(&["SELECT", "x"]),
            "the stream has SELECT without a database at offset 5",
        ),
        (
            b"*1\r\n+a\r\n".to_vec(),
            "the stream breaks at offset 5: expected '$', got '+'",
        ),
        (
            b"-ERR x\r\n".to_vec(),
            "the stream has byte 0x2d at offset 5",
        ),
    ] {
        let error = CommandStream::new(5, 0)
            .next(&mut BytesMut::from(&bytes[..]))
            .unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
    }
    let nested = [command(&["MULTI"]), command(&["MULTI"])].concat();
    let (mut stream, mut buffer) = (CommandStream::new(0, 0), BytesMut::from(&nested[..]));
    stream.next(&mut buffer).unwrap();
    assert!(
        stream
            .next(&mut buffer)
            .unwrap_err()
            .to_string()
            .contains("MULTI inside MULTI")
    );
}
