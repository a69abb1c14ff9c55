//! `tests/fixtures/oplog_v1/` was written by the first version and must always open.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use keyferry::store::disk::RealFiles;
use keyferry::store::oplog::{Identity, LogError};

use crate::world::{open_at, read_from};

fn frames() -> [(Vec<u8>, u16); 4] {
    [
        (b"*1\r\n$4\r\nPING\r\n".to_vec(), 0),
        (b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n".to_vec(), 3),
        (vec![b'x'; 5000], 3),
        (b"*1\r\n$7\r\nFLUSHDB\r\n".to_vec(), 3),
    ]
}

#[test]
fn a_log_of_version_1_opens() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oplog_v1");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let opened = open_at(Arc::new(RealFiles), dir.path()).unwrap();
    assert!(opened.is_clean);
    let log = opened.log;
    let identity = Identity {
        replid: [b'a'; 40],
        replid2: Some(([b'b'; 40], 1_000_000)),
    };
    assert_eq!(log.identity(), identity);
    assert_eq!((log.start(), log.selected_db()), (1_000_000, 3));
    let whole = frames().map(|(bytes, _)| bytes).concat();
    assert_eq!(read_from(&log, 1_000_000), whole);
    let mut before = Vec::new();
    log.replay(1_000_000, &mut |_, _, db| {
        before.push(db);
        Ok::<(), LogError>(())
    })
    .unwrap();
    assert_eq!(before, [0, 0, 3, 3]);
}
