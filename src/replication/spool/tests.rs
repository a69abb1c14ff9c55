use super::*;

fn spool(dir: &Path, bytes_max: u64) -> Spool {
    let room = Arc::new(DiskRoom::new(bytes_max));
    Spool::new(dir.to_owned(), "stream", room)
}

fn chunks(texts: &[&str]) -> Vec<BytesMut> {
    texts.iter().map(|text| BytesMut::from(*text)).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_segment_is_written_as_it_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), u64::MAX);
    spool.append(&chunks(&["ab", "c"])).unwrap();
    let path = dir.path().join("stream-00000001.spool");
    let mut drawn = b"KFSPOOL\x01\x01\0\0\0\0\0\0\0\x03\0\0\0".to_vec();
    drawn.extend_from_slice(&crc32fast::hash(b"\x03\0\0\0abc").to_le_bytes());
    drawn.extend_from_slice(b"abc");
    assert_eq!(fs::read(path).unwrap(), drawn);
}

#[test]
fn blocks_come_back_in_order_and_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    // A fourth of this is a segment.
    let mut spool = spool(dir.path(), 8000);
    let text = |i: u32| format!("{i:0100}");
    let (mut written, mut read) = (0, 0);
    for round in 1..40 {
        for _ in 0..round % 9 {
            spool.append(&chunks(&[&text(written)])).unwrap();
            written += 1;
        }
        for _ in 0..round % 7 {
            if read < written {
                assert_eq!(spool.read().unwrap(), text(read).as_bytes());
                read += 1;
            }
        }
    }
    assert!(spool.next_number > 4);
    while read < written {
        assert_eq!(spool.read().unwrap(), text(read).as_bytes());
        read += 1;
    }
    assert!(files(dir.path()).is_empty());
    assert_eq!(spool.room.used_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn the_bound_holds_and_a_refused_block_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), 1000);
    let block = "x".repeat(300);
    let mut appended = 0;
    let refused = loop {
        match spool.append(&chunks(&[&block])) {
            Ok(()) => appended += 1,
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(refused, NotSpooled::BoundReached(1000)),
        "{refused}"
    );
    assert!(appended >= 2);
    let used: u64 = files(dir.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(used <= 1000, "{used}");
    spool.read().unwrap();
    spool.append(&chunks(&["again"])).unwrap();
    for _ in 1..appended {
        assert_eq!(spool.read().unwrap(), block.as_bytes());
    }
    assert_eq!(spool.read().unwrap(), &b"again"[..]);
}

#[test]
fn a_directory_that_takes_nothing_is_told_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let mut spool = spool(&gone, u64::MAX);
    let refused = spool.append(&chunks(&["x"])).unwrap_err();
    assert!(
        refused.to_string().contains("gone/stream-00000001.spool"),
        "{refused}"
    );
    assert_eq!(spool.room.used_bytes.load(Ordering::Relaxed), 0);
    sweep(&gone).unwrap();
    spool.append(&chunks(&["x"])).unwrap();
    assert_eq!(spool.read().unwrap(), &b"x"[..]);
}

#[test]
fn every_damaged_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream-00000001.spool");
    let length = {
        let mut spool = spool(dir.path(), u64::MAX);
        spool.append(&chunks(&["some bytes"])).unwrap();
        fs::metadata(&path).unwrap().len()
    };
    for at in 0..length {
        let mut spool = spool(dir.path(), u64::MAX);
        spool.append(&chunks(&["some bytes"])).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let damage = spool.read().unwrap_err();
        assert!(
            matches!(damage, TapErrorKind::SpoolDamaged { .. }),
            "byte {at}: {damage}"
        );
    }
    let mut spool = spool(dir.path(), u64::MAX);
    spool.append(&chunks(&["some bytes"])).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let short = spool.read().unwrap_err();
    assert!(
        matches!(short, TapErrorKind::SpoolUnreadable { .. }),
        "{short}"
    );
}

#[test]
fn what_an_earlier_process_left_is_swept_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "snapshot-00000007.spool",
        "stream-00000001.spool",
        "journal",
    ] {
        fs::write(dir.path().join(name), "left").unwrap();
    }
    sweep(dir.path()).unwrap();
    assert_eq!(files(dir.path()), [dir.path().join("journal")]);
    let file = dir.path().join("journal");
    let error = sweep(&file).unwrap_err();
    assert!(
        matches!(error, TapErrorKind::SpoolUnusable { .. }),
        "{error}"
    );
}
