//! The job's journal: an append-only file that says how far the job got.
//!
//! ```text
//! header, 16 bytes                    record, repeated to the end of the file
//! | magic "KFJOURNL" 8 |              | length u32 LE | crc32 u32 LE | payload, length bytes |
//! | version u32 LE     |                crc32 (IEEE) covers the length field and the payload;
//! | crc32 of the 12    |                payload is one JSON object (`record.rs`)
//! ```
//! Drawn again in `docs/formats.md`; `tests/fixtures/journal_v1.bin` must always open.
//!
//! What may be wrong with a file, and what opening it does:
//! - the last record is incomplete, or complete but for its checksum: a crash
//!   tore it while it was written; it is cut off and the job goes on;
//! - anything else is wrong while valid records follow: the file was damaged
//!   later; it is refused, nothing is guessed.
//!
//! Invariants: a record is on disk before [`Journal::append_synced`] returns;
//! after one failed write or sync the journal is poisoned and takes no more
//! records in this process (a failed fsync is never retried).

mod error;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::record::Record;
use crate::planted::{self, Planted};

pub use error::JournalError;

/// First eight bytes of a journal.
pub const MAGIC: [u8; 8] = *b"KFJOURNL";

/// Length of the header: magic, version, checksum.
pub const HEADER_BYTES: usize = 16;

/// Length of a record's length and checksum.
pub const FRAME_BYTES: usize = 8;

/// Longest payload; a job's largest record carries two layouts.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest journal that is read; a job writes a few records an hour.
pub const JOURNAL_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Formats of a journal; unknown numbers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalVersion {
    /// The format drawn above.
    V1,
}

impl JournalVersion {
    fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        (number == 1).then_some(Self::V1)
    }
}

/// Where records go: a file, or in tests a disk that fills up.
pub trait Medium {
    /// Appends all of `bytes` or fails; a failed append may leave a part.
    ///
    /// # Errors
    /// What the system said.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended so far survive a power cut.
    ///
    /// # Errors
    /// What the system said.
    fn sync(&mut self) -> io::Result<()>;
    /// Drops everything behind `length`.
    ///
    /// # Errors
    /// What the system said.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }
}

/// What opening a journal found.
#[derive(Debug)]
pub struct Opened<M = File> {
    /// The journal, ready for the next record.
    pub journal: Journal<M>,
    /// Every whole record, oldest first.
    pub records: Vec<Record>,
    /// Bytes of a torn record that were cut off the end; 0 for a clean file.
    pub cut_bytes: u64,
}

/// A journal open for appending.
#[derive(Debug)]
pub struct Journal<M = File> {
    path: PathBuf,
    medium: M,
    length: u64,
    poisoned: bool,
}

impl Journal<File> {
    /// Opens the journal at `path`, or makes an empty one.
    ///
    /// # Errors
    /// [`JournalError`]; a damaged file is refused, a torn end is cut off.
    pub fn open(path: &Path) -> Result<Opened, JournalError> {
        let io_error = |doing| {
            move |source| JournalError::Io {
                path: path.to_path_buf(),
                doing,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io_error("opened"))?;
        let bytes = read_bounded(&mut file, path)?;
        let read = read_records(&bytes, path)?;
        if read.length == 0 {
            Medium::cut(&mut file, 0).map_err(|source| write_error(path, "its header", source))?;
            let mut journal = Journal::over(path, file, 0);
            journal.write_header()?;
            sync_directory(path)?;
            return Ok(Opened {
                journal,
                records: Vec::new(),
                cut_bytes: bytes.len() as u64,
            });
        }
        Medium::cut(&mut file, read.length).map_err(io_error("cut at its last whole record"))?;
        Ok(Opened {
            journal: Journal::over(path, file, read.length),
            records: read.records,
            cut_bytes: bytes.len() as u64 - read.length,
        })
    }

    /// Reads the records at `path` without changing the file; `None` when there is none.
    ///
    /// # Errors
    /// [`JournalError`] as for [`Journal::open`].
    pub fn read(path: &Path) -> Result<Option<Vec<Record>>, JournalError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(JournalError::Io {
                    path: path.to_path_buf(),
                    doing: "opened",
                    source,
                });
            }
        };
        let bytes = read_bounded(&mut file, path)?;
        Ok(Some(read_records(&bytes, path)?.records))
    }
}

impl<M: Medium> Journal<M> {
    /// A journal over `medium` whose first `length` bytes are whole.
    pub fn over(path: &Path, medium: M, length: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            medium,
            length,
            poisoned: false,
        }
    }

    /// Writes the header of an empty journal and syncs it.
    ///
    /// # Errors
    /// [`JournalError::DiskFull`] or [`JournalError::WriteFailed`].
    pub fn write_header(&mut self) -> Result<(), JournalError> {
        self.put(&header(JournalVersion::V1), "its header")?;
        self.sync("its header")
    }

    /// Appends `record` and returns when it is on disk.
    ///
    /// # Errors
    /// [`JournalError`]; after one, this journal takes no more records.
    pub fn append_synced(&mut self, record: &Record) -> Result<(), JournalError> {
        self.append(record)?;
        self.sync(record.name())
    }

    /// Appends `record` so that it survives the end of this process, not a power cut.
    ///
    /// # Errors
    /// [`JournalError`]; after one, this journal takes no more records.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let step = record.name();
        let frame = encode(record).map_err(|what| JournalError::Unencodable {
            path: self.path.clone(),
            step,
            what,
        })?;
        self.put(&frame, step)
    }

    fn put(&mut self, bytes: &[u8], step: &'static str) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned {
                path: self.path.clone(),
                step,
            });
        }
        if let Err(source) = self.medium.append(bytes) {
            self.poisoned = true;
            // The part that was written is cut now so that the file stays clean;
            // if even that fails, the next opening finds a torn end and cuts it.
            let _ = self.medium.cut(self.length);
            return Err(write_error(&self.path, step, source));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self, step: &'static str) -> Result<(), JournalError> {
        self.medium.sync().map_err(|source| {
            self.poisoned = true;
            write_error(&self.path, step, source)
        })
    }
}

fn write_error(path: &Path, step: &'static str, source: io::Error) -> JournalError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::WriteZero => JournalError::DiskFull { path, step },
        _ => JournalError::WriteFailed { path, step, source },
    }
}

/// A new file is only certain to exist once its directory is on disk.
fn sync_directory(path: &Path) -> Result<(), JournalError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| write_error(path, "its directory entry", source))
}

fn read_bounded(file: &mut File, path: &Path) -> Result<Vec<u8>, JournalError> {
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| JournalError::Io {
            path: path.to_path_buf(),
            doing: "read",
            source,
        })?;
    if bytes.len() as u64 > JOURNAL_BYTES_MAX {
        return Err(JournalError::NotAJournal {
            path: path.to_path_buf(),
            what: "it is larger than a journal can be",
        });
    }
    Ok(bytes)
}

fn header(version: JournalVersion) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&version.number().to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// One record as it lies in the file.
///
/// # Errors
/// Why the record has no encoding: JSON refused it, or it is too long.
pub fn encode(record: &Record) -> Result<Vec<u8>, String> {
    let payload = serde_json::to_vec(record).map_err(|error| error.to_string())?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, {PAYLOAD_BYTES_MAX} are allowed",
            payload.len()
        ));
    }
    let length = (payload.len() as u32).to_le_bytes();
    let mut frame = Vec::with_capacity(FRAME_BYTES + payload.len());
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&checksum(length, &payload).to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

struct Read {
    records: Vec<Record>,
    /// Bytes up to the end of the last whole record; 0 when even the header is torn.
    length: u64,
}

fn read_records(bytes: &[u8], path: &Path) -> Result<Read, JournalError> {
    let not_a_journal = |what| JournalError::NotAJournal {
        path: path.to_path_buf(),
        what,
    };
    if bytes.len() < HEADER_BYTES {
        let whole = header(JournalVersion::V1);
        let torn = whole.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0);
        return if torn {
            Ok(Read {
                records: Vec::new(),
                length: 0,
            })
        } else {
            Err(not_a_journal("it does not begin like a journal"))
        };
    }
    check_header(bytes).map_err(not_a_journal)?;
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        match frame_at(&bytes[at..]) {
            Frame::Whole { payload } => {
                let record =
                    serde_json::from_slice(payload).map_err(|error| JournalError::Corrupt {
                        path: path.to_path_buf(),
                        offset: at as u64,
                        what: format!("its checksum fits but it does not read: {error}"),
                    })?;
                records.push(record);
                at += FRAME_BYTES + payload.len();
            }
            Frame::Broken(what) => {
                if whole_frame_after(&bytes[at + 1..]) {
                    return Err(JournalError::Corrupt {
                        path: path.to_path_buf(),
                        offset: at as u64,
                        what: what.to_owned(),
                    });
                }
                break;
            }
        }
    }
    Ok(Read {
        records,
        length: at as u64,
    })
}

fn check_header(bytes: &[u8]) -> Result<JournalVersion, &'static str> {
    if !bytes.starts_with(&MAGIC) {
        return Err("it does not begin like a journal");
    }
    let number = u32_at(bytes, 8).unwrap_or(0);
    if u32_at(bytes, 12) != Some(crc32fast::hash(&bytes[..12])) {
        return Err("its header is damaged");
    }
    JournalVersion::from_number(number).ok_or("it is of a format this version does not know")
}

enum Frame<'a> {
    Whole { payload: &'a [u8] },
    Broken(&'static str),
}

fn frame_at(bytes: &[u8]) -> Frame<'_> {
    let (Some(length), Some(stored)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else {
        return Frame::Broken("the record has no room for its length");
    };
    let length_bytes = length.to_le_bytes();
    let length = length as usize;
    if length == 0 || length > PAYLOAD_BYTES_MAX {
        return Frame::Broken("the record's length is out of bounds");
    }
    let Some(payload) = bytes.get(FRAME_BYTES..FRAME_BYTES + length) else {
        return Frame::Broken("the record is longer than the file");
    };
    let fits = checksum(length_bytes, payload) == stored;
    if !fits && !planted::is_on(Planted::JournalTornAccepted) {
        return Frame::Broken("the record's checksum does not fit");
    }
    Frame::Whole { payload }
}

/// Whether some whole record starts in `bytes`: then what precedes it was not torn by a crash.
fn whole_frame_after(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| matches!(frame_at(&bytes[at..]), Frame::Whole { .. }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests;
