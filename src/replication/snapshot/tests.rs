use super::*;
use crate::rdb::ScanErrorKind;

const DISK: &[u8] = include_bytes!("../../../tests/fixtures/replication/wire_disk_len.bin");
const DISKLESS: &[u8] =
    include_bytes!("../../../tests/fixtures/replication/wire_diskless_eofmark.bin");

fn limits(record_bytes_max: usize) -> ScannerLimits {
    ScannerLimits {
        record_bytes_max,
        ..ScannerLimits::default()
    }
}

/// What follows the answer to PSYNC.
fn after_answer(wire: &[u8]) -> Vec<u8> {
    let mut buffer = BytesMut::from(wire);
    let answer = take_line(&mut buffer).unwrap().unwrap();
    assert!(answer.starts_with(b"+FULLRESYNC"), "{answer:?}");
    buffer.to_vec()
}

/// Receives `pieces`; answers the events and what is left for the stream.
fn receive<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<TapEvent>, Vec<u8>), TapErrorKind> {
    let (mut snapshot, mut buffer) = (Snapshot::new(limits(1024)), BytesMut::new());
    let (mut events, mut ended) = (Vec::new(), false);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !ended {
            match snapshot.next(&mut buffer)? {
                Progress::Event(event) => events.push(event),
                Progress::NeedsBytes => break,
                Progress::Ended => ended = true,
            }
        }
    }
    assert!(ended, "the snapshot has no end");
    assert_eq!(snapshot.stream_db, 3);
    Ok((events, buffer.to_vec()))
}

fn error_of(bytes: &[u8]) -> TapErrorKind {
    receive([bytes]).unwrap_err()
}

#[test]
fn both_frames_hold_the_same_and_leave_the_stream() {
    let (disk, stream) = receive([&after_answer(DISK)[..]]).unwrap();
    let (diskless, same_stream) = receive([&after_answer(DISKLESS)[..]]).unwrap();
    assert_eq!(disk, diskless);
    assert_eq!(stream, same_stream);
    assert!(stream.starts_with(b"*2\r\n$6\r\nSELECT"));
    let keys: Vec<&SnapshotRecord> = disk
        .iter()
        .filter_map(|event| match event {
            TapEvent::Snapshot(record) => Some(record),
            _ => None,
        })
        .collect();
    assert_eq!(keys.len(), 2);
    // 2100-01-01.
    assert_eq!(keys[0].expires_at_ms, Some(4_102_444_800_000));
    assert_eq!(
        (keys[0].key.as_ref(), keys[0].value.as_ref()),
        (&b"k"[..], DISK_VALUE)
    );
    assert_eq!(
        (keys[1].key.as_ref(), keys[1].type_id),
        (&b"h"[..], ValueType::Hash)
    );
    assert!(disk.contains(&TapEvent::Aux {
        key: Bytes::from_static(b"repl-stream-db"),
        value: Bytes::from_static(b"3"),
    }));
}

/// `abc` with a 64-bit length, as the fixture spells it.
const DISK_VALUE: &[u8] = b"\x81\0\0\0\0\0\0\0\x03abc";

#[test]
fn every_cut_gives_the_same() {
    for wire in [after_answer(DISK), after_answer(DISKLESS)] {
        let whole = receive([&wire[..]]).unwrap();
        assert_eq!(receive(wire.chunks(1)).unwrap(), whole);
        for cut in 0..wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(receive([first, second]).unwrap(), whole, "cut at {cut}");
        }
    }
}

#[test]
fn the_end_must_be_where_the_frame_says() {
    let disk = after_answer(DISK);
    let rdb = disk.windows(5).position(|five| five == b"REDIS").unwrap();
    let framed = |length: &str| [format!("${length}\r\n").as_bytes(), &disk[rdb..]].concat();
    for length in ["97", "99", "40"] {
        let error = error_of(&framed(length));
        assert!(
            matches!(error, TapErrorKind::FrameLength { .. }),
            "{length}: {error}"
        );
    }

    let mut diskless = after_answer(DISKLESS);
    let stream = diskless
        .windows(4)
        .position(|four| four == b"*2\r\n")
        .unwrap();
    diskless[stream - 1] ^= 1;
    assert!(matches!(error_of(&diskless), TapErrorKind::FrameMark));
}

#[test]
fn damage_and_size_are_noticed() {
    let mut damaged = after_answer(DISK);
    let at = damaged
        .windows(3)
        .position(|three| three == b"abc")
        .unwrap();
    damaged[at] ^= 1;
    let TapErrorKind::Rdb(error) = error_of(&damaged) else {
        panic!("damage was not noticed");
    };
    assert!(
        matches!(error.kind, ScanErrorKind::Checksum { .. }),
        "{error}"
    );

    // The bound is on what has to be waited for.
    let (mut snapshot, mut buffer) = (Snapshot::new(limits(16)), BytesMut::new());
    let error = after_answer(DISK).iter().find_map(|&byte| {
        buffer.extend_from_slice(&[byte]);
        loop {
            match snapshot.next(&mut buffer) {
                Ok(Progress::Event(_)) => {}
                Ok(_) => return None,
                Err(error) => return Some(error),
            }
        }
    });
    assert!(matches!(error, Some(TapErrorKind::Rdb(_))), "{error:?}");
}

#[test]
fn frames_that_are_none_are_refused() {
    for (line, aborted) in [
        ("-ERR BGSAVE failed\r\n", true),
        ("+OK\r\n", false),
        ("$x\r\n", false),
        ("$-1\r\n", false),
        ("$EOF:short\r\n", false),
    ] {
        let error = Snapshot::new(limits(1024))
            .next(&mut BytesMut::from(line))
            .unwrap_err();
        assert_eq!(
            matches!(error, TapErrorKind::Aborted(_)),
            aborted,
            "{line:?}: {error}"
        );
    }
    let endless = vec![b'$'; 5000];
    assert!(
        Snapshot::new(limits(1024))
            .next(&mut BytesMut::from(&endless[..]))
            .is_err()
    );
}
