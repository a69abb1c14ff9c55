//! When a master's relative times came.
//!
//! `SETEX k 10 v` stands in the log as a master before Redis 7 said it, byte for byte. What
//! a restart applies again must end when it was to end the first time, so it is kept beside
//! the log what time it was then:
//!
//! ```text
//! DIR/times   | crc u32 | offset u64 | unix ms u64 |, 20 bytes each, little-endian
//!              '- of the 16 bytes behind it   '- of the frame in the log
//! ```
//! Written before the frame is; without one, such a key lives longer after a restart, and
//! nothing else happens. What the engine has durably needs none any more.
//!
//! Invariant: offsets grow from record to record. One that does not belongs to another
//! history, which began below: those before it are forgotten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "times";
const RECORD_BYTES: usize = 20;
/// So many records at least before those that are not needed are dropped.
const RECORDS_MIN: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    offset: u64,
    at_ms: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Times {
    path: PathBuf,
    file: Option<File>,
    records: Vec<Record>,
    drop_from: usize,
}

impl Times {
    /// What was kept; a record that is torn ends it.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let records: Vec<Record> = bytes
            .chunks_exact(RECORD_BYTES)
            .map_while(Record::decode)
            .collect();
        // What is behind a torn one would be taken for it.
        if records.len() * RECORD_BYTES < bytes.len() {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len((records.len() * RECORD_BYTES) as u64)?;
        }
        Ok(Self {
            path,
            file: None,
            drop_from: RECORDS_MIN.max(2 * records.len()),
            records,
        })
    }

    /// What time it was when the frame at an offset was applied first.
    pub(super) fn at(&self, offset: u64) -> Option<u64> {
        let place = self.records.binary_search_by_key(&offset, |of| of.offset);
        let record = self.records.get(place.ok()?)?;
        Some(record.at_ms)
    }

    /// Keeps it. The engine has what is before `durable`; `is_synced`: a power loss must not
    /// take it.
    pub(super) fn note(
        &mut self,
        offset: u64,
        at_ms: u64,
        durable: u64,
        is_synced: bool,
    ) -> io::Result<()> {
        let record = Record { offset, at_ms };
        let is_another = self.records.last().is_some_and(|of| of.offset >= offset);
        if is_another {
            self.records.clear();
        }
        let is_long = self.records.len() >= self.drop_from;
        if is_long {
            self.records.retain(|of| of.offset >= durable);
            self.drop_from = RECORDS_MIN.max(2 * self.records.len());
        }
        self.records.push(record);
        if is_another || is_long {
            return self.write_anew();
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)?,
            ),
        };
        file.write_all(&record.encode())?;
        match is_synced {
            true => file.sync_data(),
            false => Ok(()),
        }
    }

    fn write_anew(&mut self) -> io::Result<()> {
        self.file = None;
        let new = self.path.with_extension("new");
        let bytes: Vec<u8> = self.records.iter().flat_map(Record::encode).collect();
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[4..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..].copy_from_slice(&self.at_ms.to_le_bytes());
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (crc, body) = bytes.split_first_chunk::<4>()?;
        let (offset, rest) = body.split_first_chunk::<8>()?;
        let at_ms = rest.first_chunk::<8>()?;
        (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then_some(Self {
            offset: u64::from_le_bytes(*offset),
            at_ms: u64::from_le_bytes(*at_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: u64 = u64::MAX;

    #[test]
    fn times_are_known_again_until_another_history_begins() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut times = Times::open(dir.path()).expect("none yet");
        times.note(100, 1_000, 0, false).expect("kept");
        times.note(250, 2_000, 0, true).expect("kept");
        let times = Times::open(dir.path()).expect("read");
        assert_eq!(
            [100, 250, 200].map(|at| times.at(at)),
            [Some(1_000), Some(2_000), None]
        );
        let mut times = times;
        times.note(120, 3_000, 0, false).expect("kept");
        times.note(130, 4_000, 0, false).expect("kept");
        let times = Times::open(dir.path()).expect("read");
        let found = [100, 120, 130, 250].map(|at| times.at(at));
        assert_eq!(found, [None, Some(3_000), Some(4_000), None]);
    }

    #[test]
    fn a_torn_record_is_cut_and_what_comes_behind_it_is_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut times = Times::open(dir.path()).expect("none yet");
        times.note(1, 10, 0, false).expect("kept");
        times.note(2, 20, 0, false).expect("kept");
        let file = dir.path().join(NAME);
        let bytes = fs::read(&file).expect("there");
        fs::write(&file, &bytes[..bytes.len() - 3]).expect("torn");
        let mut times = Times::open(dir.path()).expect("read");
        assert_eq!((times.at(1), times.at(2)), (Some(10), None));
        times.note(3, 30, 0, false).expect("kept");
        let times = Times::open(dir.path()).expect("read");
        assert_eq!((times.at(1), times.at(3)), (Some(10), Some(30)));
    }

    #[test]
    fn what_the_engine_has_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut times = Times::open(dir.path()).expect("none yet");
        for offset in 0..=RECORDS_MIN as u64 {
            times.note(offset, offset, LATE, false).expect("kept");
        }
        assert_eq!(times.records.len(), 1);
        let bytes = fs::metadata(dir.path().join(NAME)).expect("there").len();
        assert_eq!(bytes, RECORD_BYTES as u64);
    }
}
