//! A log beside a model of it: after every step both say the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry::store::disk::{FaultyFiles, Files};
use keyferry::store::oplog::{Identity, Log, LogError, LogOptions, LogReader, Opened};

pub const DIR: &str = "/shard/log";
pub const SEGMENT_BYTES: u64 = 16 * 1024;

pub fn options(retain_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        retain_bytes,
    }
}

pub fn open(disk: &FaultyFiles) -> Result<Opened, LogError> {
    open_at(Arc::new(disk.clone()), Path::new(DIR))
}

pub fn open_at(files: Arc<dyn Files>, dir: &Path) -> Result<Opened, LogError> {
    Log::open(files, dir, options(0))
}

/// The file of the segment with this sequence, of a log that was not opened twice.
pub fn segment(sequence: u64) -> PathBuf {
    Path::new(DIR).join(format!("segment-{sequence:020}-{:010}", 1))
}

/// `SELECT db` and a `SET` whose value is unlike any other's.
pub fn frame(number: u64, value_bytes: usize, db: Option<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(db) = db {
        let db = db.to_string();
        out.extend(format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{db}\r\n", db.len()).bytes());
    }
    let mut random = fastrand::Rng::with_seed(number);
    let value: Vec<u8> = (0..value_bytes).map(|_| random.u8(..)).collect();
    out.extend(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${value_bytes}\r\n").bytes());
    out.extend(value);
    out.extend(b"\r\n");
    out
}

/// All bytes from `offset` to the end.
pub fn read_from(log: &Log, offset: u64) -> Vec<u8> {
    read_all(&mut log.reader(offset).unwrap())
}

pub fn read_all(reader: &mut LogReader) -> Vec<u8> {
    let mut out = Vec::new();
    while reader.read(&mut out, 1000).unwrap() > 0 {}
    out
}

/// What the log should hold.
#[derive(Clone, Debug)]
pub struct Model {
    pub base: u64,
    /// From `base` on, whatever was retired.
    pub bytes: Vec<u8>,
    /// Offset, length, database before.
    pub frames: Vec<(u64, usize, u16)>,
    pub db: u16,
    pub durable: u64,
    /// Nothing from here on may be retired.
    pub needed_from: u64,
    pub identity: Identity,
}

impl Model {
    pub fn new(base: u64, identity: Identity) -> Self {
        Self {
            base,
            bytes: Vec::new(),
            frames: Vec::new(),
            db: 0,
            durable: base,
            needed_from: base,
            identity,
        }
    }

    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub fn append(&mut self, frame: &[u8], db: u16) {
        if !frame.is_empty() {
            self.frames.push((self.end(), frame.len(), self.db));
            self.bytes.extend_from_slice(frame);
            self.db = db;
        }
    }

    /// What the log says after a crash becomes the truth, if it can be.
    pub fn recovered(&mut self, end: u64, db: u16) {
        assert!(
            self.durable <= end,
            "{} was synced, {end} found",
            self.durable
        );
        assert!(end <= self.end(), "{end} found, {} appended", self.end());
        let kept = self.frames.iter().filter(|frame| frame.0 < end).count();
        let next = self.frames.get(kept).map_or(self.db, |frame| frame.2);
        assert_eq!(db, next, "selected at {end}");
        self.frames.truncate(kept);
        let whole = self.frames.last().map_or(self.base, |f| f.0 + f.1 as u64);
        assert_eq!(end, whole, "the end is the end of a frame");
        self.bytes.truncate((end - self.base) as usize);
        self.db = db;
        self.durable = end;
    }

    pub fn slice(&self, from: u64) -> &[u8] {
        &self.bytes[(from - self.base) as usize..]
    }

    /// All that can be read of the log is what the model holds.
    pub fn assert_equals(&self, log: &Log) {
        assert_eq!(log.end(), self.end());
        assert_eq!(log.selected_db(), self.db);
        assert_eq!(log.identity(), self.identity);
        let start = log.start();
        assert!(self.base <= start && start <= self.needed_from, "{start}");
        assert_eq!(read_from(log, start), self.slice(start));
        let mut frames = self.frames.iter().filter(|frame| frame.0 >= start);
        log.replay(start, &mut |offset, bytes, db| {
            let (at, length, before) = *frames.next().unwrap();
            assert_eq!((offset, bytes.len(), db), (at, length, before));
            assert_eq!(bytes, &self.slice(offset)[..length]);
            Ok::<(), LogError>(())
        })
        .unwrap();
        assert_eq!(frames.next(), None);
    }
}
