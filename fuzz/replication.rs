//! What a source sends behind its answer to PSYNC, in one piece and cut where the
//! data says: the same events and the same error; each command is the bytes that its
//! offset says, in the database that was selected last; no panic, and no more memory
//! than `memory.rs` allows.
//!
//! ```text
//! | how 1 | cuts, how many 1 | cuts, 1 each: distance from the one before | rdb bytes 1 | input |
//!   |- bits 0-1: the input is all that is sent; or it is the stream behind +CONTINUE;
//!   |            or its first bytes are records, and frame, header, end, checksum are
//!   |            written around them, by a mark (2) or by a length (3)
//!   |- bit 2: a header of VALKEY080, not REDIS0015
//!   |- bits 3-4: whole values have up to any, 0, 16 or 300 bytes
//!   '- bit 5: a newline before the frame and before the stream
//! ```

#![no_main]

mod arrays;
mod memory;

use arrays::commands;
use keyferry::rdb::{ScannerLimits, crc64};
use keyferry::replication::replay::{Heard, Replay};
use keyferry::replication::{StreamCommand, TapErrorKind, TapEvent};
use libfuzzer_sys::fuzz_target;
use memory::Meter;

const MARK: &[u8; 40] = b"0123456789abcdef0123456789abcdef01234567";
/// Where the stream begins.
const OFFSET: u64 = 1_000;

struct Played {
    events: Vec<TapEvent>,
    /// Its words; errors of the system cannot occur.
    error: Option<String>,
    /// Bytes of frame and snapshot.
    snapshot_bytes: usize,
}

fn play(mut replay: Replay, input: &[u8], ends: &[usize]) -> Played {
    let (mut meter, mut heard) = (Meter::default(), Vec::new());
    let (mut start, mut error, mut owed) = (0, None, 0);
    for &end in ends {
        let piece = &input[start..end];
        start = end;
        let fed = meter.of(|| replay.feed(piece, &mut |what| heard.push(what)));
        error = fed.err();
        if error.is_some() {
            break;
        }
        let unparsed = replay.unparsed_bytes();
        assert!(unparsed <= start, "{unparsed} of {start} bytes");
        let idle = heard.iter().rev().find_map(|what| match what {
            Heard::Event(TapEvent::Idle { offset, .. }) => Some(*offset),
            _ => None,
        });
        assert!(idle.unwrap_or(0) >= owed, "the offset went back");
        owed = idle.unwrap_or(0);
    }
    meter.check(input.len());
    let mut events: Vec<TapEvent> = heard
        .into_iter()
        .filter_map(|what| match what {
            // Told where the bytes happen to end.
            Heard::Event(TapEvent::Idle { .. }) | Heard::AckWanted => None,
            Heard::Event(event) => Some(event),
        })
        .collect();
    if error.is_some() {
        drop_open_value(&mut events);
    }
    Played {
        events,
        error: error.as_ref().map(words),
        snapshot_bytes: replay.snapshot_bytes(),
    }
}

/// How far apart two ends are is only known as far as the bytes have come.
fn words(error: &TapErrorKind) -> String {
    match error {
        TapErrorKind::EndsDiffer { content_first, .. } => format!("ends differ {content_first}"),
        other => other.to_string(),
    }
}

/// The head of a value that breaks the format is told or not, as its pieces come.
fn drop_open_value(events: &mut Vec<TapEvent>) {
    let head = events
        .iter()
        .rposition(|event| matches!(event, TapEvent::LargeKey(_)));
    if let Some(head) = head {
        let whole = |event: &TapEvent| matches!(event, TapEvent::Part { last: true, .. });
        if !events[head..].iter().any(whole) {
            events.truncate(head);
        }
    }
}

/// Follows the events along the stream's bytes.
struct Follower<'a> {
    stream: &'a [u8],
    at: usize,
    db: u32,
    in_transaction: bool,
}

impl<'a> Follower<'a> {
    /// Goes on to `offset_end`; answers the last command before it. Those before
    /// that one have no events of their own.
    fn reach(&mut self, offset_end: u64) -> Vec<&'a [u8]> {
        let end = usize::try_from(offset_end - OFFSET).expect("inside the input");
        let mut passed = commands(&self.stream[self.at..end]);
        self.at = end;
        let last = passed.pop().expect("each event is of a command");
        for command in passed {
            self.pass(&command);
        }
        last
    }

    fn pass(&mut self, command: &[&[u8]]) {
        let Some(name) = command.first().map(|name| name.to_ascii_uppercase()) else {
            return;
        };
        match name.as_slice() {
            b"SELECT" => {
                let db = std::str::from_utf8(command[1]).expect("digits");
                self.db = db.parse().expect("a database");
            }
            b"PING" | b"REPLCONF" => {}
            other => panic!("no event for {}", other.escape_ascii()),
        }
    }

    fn command(&mut self, told: &StreamCommand) {
        let start = told.offset_end - OFFSET - told.bytes.len() as u64;
        let start = usize::try_from(start).expect("inside the input");
        assert!(self.stream[start..].starts_with(&told.bytes));
        let args = self.reach(told.offset_end);
        assert!(told.args().eq(args), "other arguments");
        assert_eq!(
            (told.db, told.in_transaction),
            (self.db, self.in_transaction)
        );
    }

    fn event(&mut self, event: &TapEvent) {
        match event {
            TapEvent::Command(told) => self.command(told),
            TapEvent::TransactionBegin { offset_end } => {
                assert!(self.reach(*offset_end)[0].eq_ignore_ascii_case(b"MULTI"));
                assert!(!std::mem::replace(&mut self.in_transaction, true));
            }
            TapEvent::TransactionEnd { offset_end, db } => {
                assert!(self.reach(*offset_end)[0].eq_ignore_ascii_case(b"EXEC"));
                assert!(std::mem::replace(&mut self.in_transaction, false));
                assert_eq!(*db, self.db);
            }
            other => panic!("{other:?} in the stream"),
        }
    }
}

/// The database that the snapshot says was selected.
fn selected(events: &[TapEvent]) -> u32 {
    let told = events.iter().rev().find_map(|event| match event {
        TapEvent::Aux { key, value } if **key == *b"repl-stream-db" => Some(value),
        _ => None,
    });
    let text = told.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn follow(played: &Played, input: &[u8], continued: bool) {
    let end = played
        .events
        .iter()
        .position(|event| *event == TapEvent::SnapshotEnd);
    let (db, events) = match end {
        Some(end) => (selected(&played.events[..end]), &played.events[end + 1..]),
        None if continued => (0, &played.events[..]),
        None => return,
    };
    let mut stream = &input[played.snapshot_bytes..];
    while let [b'\n', rest @ ..] = stream {
        stream = rest;
    }
    let mut follower = Follower {
        stream,
        at: 0,
        db,
        in_transaction: false,
    };
    for event in events {
        follower.event(event);
    }
}

/// The bytes of a source, as `how` says.
fn sent(how: u8, rdb_bytes: u8, input: &[u8]) -> Vec<u8> {
    if how & 2 == 0 {
        return input.to_vec();
    }
    let (records, stream) = input.split_at(usize::from(rdb_bytes).min(input.len()));
    let header: &[u8] = if how & 4 == 0 {
        b"REDIS0015"
    } else {
        b"VALKEY080"
    };
    let mut rdb = [header, records, b"\xff"].concat();
    rdb.extend_from_slice(&crc64(0, &rdb).to_le_bytes());
    let newline: &[u8] = if how & 0x20 == 0 { b"" } else { b"\n" };
    if how & 1 == 0 {
        [
            newline, b"$EOF:", MARK, b"\r\n", &rdb, MARK, newline, stream,
        ]
        .concat()
    } else {
        let frame = format!("${}\r\n", rdb.len());
        [newline, frame.as_bytes(), &rdb, newline, stream].concat()
    }
}

fuzz_target!(|data: &[u8]| {
    let [how, cuts, rest @ ..] = data else {
        return;
    };
    let Some((cuts, [rdb_bytes, input @ ..])) = rest.split_at_checked(usize::from(cuts % 16))
    else {
        return;
    };
    let input = sent(*how, *rdb_bytes, input);
    let mut ends: Vec<usize> = Vec::new();
    for &cut in cuts {
        let end = ends.last().copied().unwrap_or(0) + usize::from(cut);
        ends.push(end.min(input.len()));
    }
    ends.push(input.len());
    let limits = ScannerLimits {
        whole_bytes_max: [usize::MAX, 0, 16, 300][usize::from(how >> 3 & 3)],
        ..ScannerLimits::default()
    };
    let continued = how & 3 == 1;
    let replay = || match continued {
        true => Replay::continued(OFFSET, 0),
        false => Replay::full(limits, OFFSET),
    };

    let whole = play(replay(), &input, &[input.len()]);
    follow(&whole, &input, continued);
    let pieces = play(replay(), &input, &ends);
    assert_eq!(pieces.events, whole.events);
    assert_eq!(pieces.error, whole.error);
});
