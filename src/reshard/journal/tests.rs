use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::reshard::record::Record;

fn records() -> Vec<Record> {
    vec![
        Record::Started {
            incarnation: 1,
            at_ms: 10,
        },
        Record::CopyingBegan {
            at_ms: 11,
            beside_others: false,
        },
        Record::Started {
            incarnation: 2,
            at_ms: 12,
        },
        Record::Cancelled {
            at_ms: 13,
            why: "asked to".to_owned(),
        },
    ]
}

fn written(directory: &Path) -> (PathBuf, Vec<u8>) {
    let path = directory.join("journal");
    let mut opened = Journal::open(&path).unwrap();
    assert!(opened.records.is_empty());
    for record in records() {
        opened.journal.append_synced(&record).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn what_was_appended_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = written(directory.path());
    let opened = Journal::open(&path).unwrap();
    assert_eq!(opened.records, records());
    assert_eq!(opened.cut_bytes, 0);
    assert_eq!(Journal::read(&path).unwrap(), Some(records()));
}

#[test]
fn a_missing_journal_reads_as_none_and_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    assert_eq!(Journal::read(&path).unwrap(), None);
    assert!(!path.exists());
}

#[test]
fn cut_at_every_byte_it_opens_with_the_whole_records_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = written(directory.path());
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut opened = Journal::open(&path).unwrap();
        let whole = opened.records.len();
        assert_eq!(opened.records, records()[..whole], "cut at {length}");
        opened.journal.append_synced(&records()[0]).unwrap();
        drop(opened);
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.records.len(), whole + 1, "cut at {length}");
        assert_eq!(again.cut_bytes, 0);
    }
}

#[test]
fn a_tail_of_zeros_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (path, mut bytes) = written(directory.path());
    bytes.resize(bytes.len() + 4096, 0);
    std::fs::write(&path, &bytes).unwrap();
    let opened = Journal::open(&path).unwrap();
    assert_eq!(opened.records, records());
    assert_eq!(opened.cut_bytes, 4096);
}

#[test]
fn any_flipped_bit_is_refused_or_costs_only_the_last_record() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = written(directory.path());
    let last = bytes.len() - encode(&records()[3]).unwrap().len();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(&path, &damaged).unwrap();
            match Journal::read(&path) {
                Err(JournalError::NotAJournal { .. }) => assert!(at < HEADER_BYTES),
                Err(JournalError::Corrupt { offset, .. }) => {
                    assert!((HEADER_BYTES..last).contains(&at), "byte {at}");
                    assert!(offset as usize <= at);
                }
                Ok(Some(read)) => {
                    assert!(at >= last, "byte {at} bit {bit} went unseen");
                    assert_eq!(read, records()[..3]);
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn another_file_is_not_taken_for_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    for content in [
        &b"hello"[..],
        b"a file of somebody else, longer than a header",
    ] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(
            Journal::open(&path),
            Err(JournalError::NotAJournal { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), content, "left as it was");
    }
}

/// A disk with room for `room` more bytes.
struct SmallDisk {
    bytes: Vec<u8>,
    room: usize,
}

impl Medium for SmallDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = bytes.len().min(self.room);
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.room -= taken;
        if taken < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.room += self.bytes.len() - length as usize;
        self.bytes.truncate(length as usize);
        Ok(())
    }
}

#[test]
fn a_full_disk_is_one_clear_error_and_leaves_whole_records() {
    let path = Path::new("/state/journal");
    let whole: usize = HEADER_BYTES
        + records()
            .iter()
            .map(|record| encode(record).unwrap().len())
            .sum::<usize>();
    for room in 0..whole {
        let disk = SmallDisk {
            bytes: Vec::new(),
            room,
        };
        let mut journal = Journal::over(path, disk, 0);
        let mut kept = 0;
        let failed = match journal.write_header() {
            Err(error) => error,
            Ok(()) => loop {
                match journal.append_synced(&records()[kept]) {
                    Ok(()) => kept += 1,
                    Err(error) => break error,
                }
            },
        };
        assert!(matches!(failed, JournalError::DiskFull { .. }), "{failed}");
        assert!(failed.is_temporary());
        assert!(failed.to_string().contains("/state/journal"));
        assert!(matches!(
            journal.append_synced(&records()[0]),
            Err(JournalError::Poisoned { .. })
        ));
        let read = read_records(&journal.medium.bytes, path).unwrap();
        assert_eq!(read.records, records()[..kept]);
        assert_eq!(read.length as usize, journal.medium.bytes.len());
    }
}

#[test]
fn the_fixture_of_version_one_opens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal_v1.bin");
    let read = Journal::read(&path).unwrap();
    assert_eq!(read.map(|read| read.len()), Some(4));
}

#[test]
#[ignore = "writes tests/fixtures/journal_v1.bin; the fixture of a released version never changes"]
fn write_the_fixture_of_version_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal_v1.bin");
    let mut bytes = header(JournalVersion::V1).to_vec();
    for record in records() {
        bytes.extend_from_slice(&encode(&record).unwrap());
    }
    std::fs::write(path, bytes).unwrap();
}
