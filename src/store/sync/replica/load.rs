//! A master's snapshot, loaded as it comes into databases beside the ones in use.
//!
//! ```text
//! Head --$<length>-----> Records --> Over (so many bytes)
//!   '----$EOF:<mark>---> Records --> Mark --> Over       behind it, the stream
//! ```
//! Values are put one by one, large ones in parts: what is held is what one part takes.

use bytes::Bytes;

use crate::rdb::{DecodeError, PartDecoder, Record, ScanError, Scanner, ScannerLimits, decode};
use crate::store::format::object::Object;
use crate::store::format::row::KEY_BYTES_MAX;
use crate::store::keyspace::{DATABASES, Keyspace};
use crate::store::kinds::build::{BuildError, BuildLimits, Building};

/// Values of more bytes come in parts, so that little is held.
const WHOLE_BYTES_MAX: usize = 1024 * 1024;
/// So do those of more elements.
const WHOLE_ELEMENTS_MAX: u64 = 4096;
/// Longest line before the snapshot.
const HEAD_BYTES_MAX: usize = 256;
const MARK_BYTES: usize = 40;

/// A snapshot that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The master gave up, in these words.
    #[error("the master sent no snapshot: {0}")]
    Refused(String),
    /// What comes before it is not known.
    #[error("the master's snapshot begins with {0:?}")]
    Head(String),
    /// It is not what the master said.
    #[error("the snapshot's end is not where the master said")]
    End,
    /// It cannot be read.
    #[error("the snapshot cannot be read: {0}")]
    Scan(#[from] ScanError),
    /// One of its values cannot be read.
    #[error("key {key:?} of the snapshot cannot be read: {cause}")]
    Decode {
        /// Which.
        key: String,
        /// Why.
        cause: DecodeError,
    },
    /// One of its values cannot be kept.
    #[error("key {key:?} of the snapshot cannot be kept: {cause}")]
    Build {
        /// Which.
        key: String,
        /// Why.
        cause: BuildError,
    },
    /// A key is too long for a row.
    #[error("a key of the snapshot has {bytes} bytes; this shard takes {KEY_BYTES_MAX}")]
    LongKey {
        /// Its length.
        bytes: usize,
    },
    /// There are fewer databases here.
    #[error("the snapshot has keys in database {db}; this shard has {DATABASES}")]
    Database {
        /// Its number.
        db: u32,
    },
}

#[derive(Debug)]
enum Stage {
    Head,
    Records { end: End },
    Mark { mark: [u8; MARK_BYTES] },
    Over,
}

#[derive(Clone, Copy, Debug)]
enum End {
    AfterBytes(u64),
    AtMark([u8; MARK_BYTES]),
}

/// A value that comes in parts.
#[derive(Debug)]
struct Large {
    db: usize,
    key: Box<[u8]>,
    expires_at_ms: Option<u64>,
    decoder: PartDecoder,
    building: Building,
}

/// What came of a whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The stream behind it begins in this database.
    pub selected_db: u16,
    /// What came of the stream already.
    pub stream: Vec<u8>,
    /// Texts of function libraries.
    pub libraries: Vec<Bytes>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Load {
    stage: Stage,
    scanner: Scanner,
    limits: BuildLimits,
    buffer: Vec<u8>,
    large: Option<Large>,
    selected_db: u16,
    keys: u64,
    libraries: Vec<Bytes>,
}

impl Load {
    /// Before the first byte behind `+FULLRESYNC`; the keyspace has begun a load.
    pub fn new(limits: BuildLimits) -> Self {
        let scanner = Scanner::new(ScannerLimits {
            whole_bytes_max: WHOLE_BYTES_MAX,
            whole_elements_max: WHOLE_ELEMENTS_MAX,
            ..ScannerLimits::default()
        });
        Self {
            stage: Stage::Head,
            scanner,
            limits,
            buffer: Vec::new(),
            large: None,
            selected_db: 0,
            keys: 0,
            libraries: Vec::new(),
        }
    }

    /// Keys so far.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Takes what came, and puts what is whole of it; the end, if that is there.
    ///
    /// # Errors
    /// [`LoadError`]: the load is over, and to be abandoned.
    pub fn feed(
        &mut self,
        keyspace: &mut Keyspace,
        bytes: &[u8],
    ) -> Result<Option<Loaded>, LoadError> {
        self.buffer.extend_from_slice(bytes);
        let fed = self.advance(keyspace);
        if fed.is_err()
            && let Some(large) = self.large.take()
        {
            large.building.abandon(keyspace);
        }
        fed
    }

    /// The rows of a value that is not whole are dropped; the rest goes with its databases.
    pub fn abandon(self, keyspace: &mut Keyspace) {
        if let Some(large) = self.large {
            large.building.abandon(keyspace);
        }
    }

    fn advance(&mut self, keyspace: &mut Keyspace) -> Result<Option<Loaded>, LoadError> {
        loop {
            match &self.stage {
                Stage::Head => {
                    let Some(end) = self.head()? else {
                        return Ok(None);
                    };
                    self.stage = Stage::Records { end };
                }
                Stage::Records { end } => {
                    let end = *end;
                    if !self.records(keyspace)? {
                        return Ok(None);
                    }
                    self.stage = match end {
                        End::AfterBytes(bytes) if bytes == self.scanner.offset() => Stage::Over,
                        End::AfterBytes(_) => return Err(LoadError::End),
                        End::AtMark(mark) => Stage::Mark { mark },
                    };
                }
                Stage::Mark { mark } => {
                    let Some(found) = self.buffer.first_chunk::<MARK_BYTES>() else {
                        return Ok(None);
                    };
                    if found != mark {
                        return Err(LoadError::End);
                    }
                    self.buffer.drain(..MARK_BYTES);
                    self.stage = Stage::Over;
                }
                Stage::Over => {
                    return Ok(Some(Loaded {
                        selected_db: self.selected_db,
                        stream: std::mem::take(&mut self.buffer),
                        libraries: std::mem::take(&mut self.libraries),
                    }));
                }
            }
        }
    }

    /// Where the snapshot ends, once its first line is there.
    fn head(&mut self) -> Result<Option<End>, LoadError> {
        let newlines = self
            .buffer
            .iter()
            .take_while(|byte| **byte == b'\n')
            .count();
        self.buffer.drain(..newlines);
        let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") else {
            return match self.buffer.len() > HEAD_BYTES_MAX {
                true => Err(LoadError::Head(text(&self.buffer))),
                false => Ok(None),
            };
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
        let unknown = || LoadError::Head(text(&line));
        if let [b'-', words @ ..] = &*line {
            return Err(LoadError::Refused(text(words)));
        }
        let rest = line.strip_prefix(b"$").ok_or_else(unknown)?;
        if let Some(mark) = rest.strip_prefix(b"EOF:") {
            let mark = mark.try_into().map_err(|_| unknown())?;
            return Ok(Some(End::AtMark(mark)));
        }
        let length = std::str::from_utf8(rest)
            .ok()
            .and_then(|text| text.parse().ok());
        length.map(End::AfterBytes).map(Some).ok_or_else(unknown)
    }

    /// Puts all records that are whole; true behind the last one.
    fn records(&mut self, keyspace: &mut Keyspace) -> Result<bool, LoadError> {
        let mut at = 0;
        let mut is_over = false;
        while !is_over {
            let rest = self.buffer.get(at..).unwrap_or(&[]);
            let Some(event) = self.scanner.next(rest)? else {
                break;
            };
            at += event.consumed;
            match event.record {
                Record::Header(_)
                | Record::ResizeDb { .. }
                | Record::SlotInfo { .. }
                | Record::HashTemplate { .. } => {}
                Record::Aux { key, value } => {
                    if &*key == b"repl-stream-db" {
                        self.selected_db = stream_db(&value)?;
                    }
                }
                Record::SelectDb(db) => drop(database(db)?),
                Record::Function(text) => {
                    self.libraries.push(Bytes::copy_from_slice(&text));
                }
                Record::ModuleAux(_) | Record::SlotImport { .. } => {
                    return Err(LoadError::Head(
                        "data of a module or of a slot import".into(),
                    ));
                }
                Record::Key(record) => {
                    let db = database(record.db)?;
                    let key = checked(&record.key[..])?;
                    let value = whole(keyspace, self.limits, key, &record.value)?;
                    if let Some(value) = value {
                        self.keys += 1;
                        let expires_at_ms = time(record.expires_at_ms);
                        let object = Object {
                            expires_at_ms,
                            value,
                        };
                        keyspace.load(db, key, &object);
                    }
                }
                Record::LargeKey(record) => {
                    let key = checked(&record.key[..])?;
                    let building = Building::new(record.type_id.kind(), self.limits);
                    self.large = Some(Large {
                        db: database(record.db)?,
                        key: Box::from(key),
                        expires_at_ms: time(record.expires_at_ms),
                        decoder: PartDecoder::new(record.type_id),
                        building: building.map_err(|cause| built(key, cause))?,
                    });
                }
                Record::Part(part) => {
                    let Some(large) = &mut self.large else {
                        return Err(LoadError::End);
                    };
                    large.part(keyspace, part.bytes, part.last)?;
                    if part.last
                        && let Some(large) = self.large.take()
                    {
                        self.keys += u64::from(large.finish(keyspace));
                    }
                }
                Record::End { .. } => is_over = true,
            }
        }
        self.buffer.drain(..at);
        Ok(is_over)
    }
}

impl Large {
    fn part(
        &mut self,
        keyspace: &mut Keyspace,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<(), LoadError> {
        let mut refused = None;
        let building = &mut self.building;
        let decoded = self.decoder.decode(bytes, is_last, &mut |element| {
            if refused.is_none() {
                refused = building.push(keyspace, &element).err();
            }
        });
        decoded.map_err(|cause| LoadError::Decode {
            key: text(&self.key),
            cause,
        })?;
        refused.map_or(Ok(()), |cause| Err(built(&self.key, cause)))
    }

    /// Whether there was a value.
    fn finish(self, keyspace: &mut Keyspace) -> bool {
        let Some(value) = self.building.finish(keyspace) else {
            return false;
        };
        let object = Object {
            expires_at_ms: self.expires_at_ms,
            value,
        };
        keyspace.load(self.db, &self.key, &object);
        true
    }
}

fn whole(
    keyspace: &mut Keyspace,
    limits: BuildLimits,
    key: &[u8],
    value: &crate::rdb::RawValue<'_>,
) -> Result<Option<crate::store::format::object::Value>, LoadError> {
    let building = Building::new(value.type_id.kind(), limits);
    let mut building = building.map_err(|cause| built(key, cause))?;
    let mut refused = None;
    let decoded = decode(value, &mut |element| {
        if refused.is_none() {
            refused = building.push(keyspace, &element).err();
        }
    });
    let failure = match (decoded, refused) {
        (Ok(()), None) => return Ok(building.finish(keyspace)),
        (_, Some(cause)) => built(key, cause),
        (Err(cause), None) => LoadError::Decode {
            key: text(key),
            cause,
        },
    };
    building.abandon(keyspace);
    Err(failure)
}

fn built(key: &[u8], cause: BuildError) -> LoadError {
    LoadError::Build {
        key: text(key),
        cause,
    }
}

fn checked(key: &[u8]) -> Result<&[u8], LoadError> {
    match key.len() > KEY_BYTES_MAX {
        true => Err(LoadError::LongKey { bytes: key.len() }),
        false => Ok(key),
    }
}

fn database(db: u32) -> Result<usize, LoadError> {
    let known = usize::try_from(db).ok().filter(|db| *db < DATABASES);
    known.ok_or(LoadError::Database { db })
}

fn stream_db(value: &[u8]) -> Result<u16, LoadError> {
    let db: i64 = text(value).parse().unwrap_or(-1);
    match db {
        // None was selected yet.
        ..0 => Ok(0),
        0..16 => Ok(db as u16),
        _ => Err(LoadError::Database {
            db: u32::try_from(db).unwrap_or(u32::MAX),
        }),
    }
}

/// A time before 1970 is over as well as 1970 is.
fn time(expires_at_ms: Option<i64>) -> Option<u64> {
    expires_at_ms.map(|at| u64::try_from(at).unwrap_or(0))
}

fn text(bytes: &[u8]) -> String {
    const TOLD_BYTES_MAX: usize = 128;
    String::from_utf8_lossy(bytes.get(..TOLD_BYTES_MAX).unwrap_or(bytes)).into_owned()
}
