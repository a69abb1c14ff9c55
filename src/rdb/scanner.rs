//! The scanner: an RDB file in pieces of any size -> whole records.
//!
//! ```text
//! Header -> Opcode -> Body -> Opcode ..         an opcode's record
//!             |-----> Key -> Value -> Opcode    a value type's record
//!             '-----> Trailer -> Finished       opcode 255, then the checksum
//! ```
//!
//! A record is handed on when its last byte is there; the caller keeps the
//! bytes until then. Attributes of a key (expiry, idle time, frequency) are
//! kept here until the key comes, since other records may stand between.
//!
//! Invariants: each byte enters the checksum once, and only bytes of records
//! do; after an error or the end the scanner gives nothing more.

use super::crc64::crc64;
use super::reader::{Malformed, Reader};
use super::record::{Checksum, Event, KeyRecord, Record, SlotRange};
use super::shape::{KEY_PROGRAM, opcode, record_program, value_program};
use super::skip::{Skip, Walk};
use super::value_type::{RawValue, ValueType};
use super::version::FileVersion;

/// Bounds of what a scanner accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannerLimits {
    /// Largest record, in bytes of the file; the caller holds one in memory.
    pub record_bytes_max: usize,
}

impl Default for ScannerLimits {
    /// Records of up to 1 GiB.
    fn default() -> Self {
        Self {
            record_bytes_max: 1 << 30,
        }
    }
}

/// Why a scan stopped; the file cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("RDB byte {offset}{}: {kind}{}", opcode_note(*.opcode), key_note(.last_key))]
pub struct ScanError {
    /// Where, counted from the file's first byte.
    pub offset: u64,
    /// Opcode or value type of the record it is in; `None` in header and checksum.
    pub opcode: Option<u8>,
    /// The newest key read, at most its first [`LAST_KEY_BYTES_MAX`] bytes.
    pub last_key: Vec<u8>,
    /// What is wrong.
    pub kind: ScanErrorKind,
}

/// What is wrong with the file, or beyond us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanErrorKind {
    /// The first bytes are no RDB header, or of a version we do not know.
    #[error("not an RDB header of a version this build reads (REDIS0001-0015, VALKEY080-081)")]
    Header,
    /// An opcode or value type that this version of the file does not have, or we do not know.
    #[error("unknown in {0}; a newer or foreign server wrote it, its length cannot be known")]
    Unknown(FileVersion),
    /// Functions as Redis 7.0 release candidates wrote them; no release loads them.
    #[error("functions of a Redis 7.0 release candidate, which no released server loads")]
    FunctionPreGa,
    /// The record breaks the format.
    #[error("the record is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The record needs more than [`ScannerLimits::record_bytes_max`].
    #[error("the record needs at least {needed} bytes, more than the {max} allowed")]
    TooLarge {
        /// Bytes known to be needed so far.
        needed: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum of the file is not that of its bytes.
    #[error(
        "checksum {stated:016x} stated, {computed:016x} computed: the file was damaged on its way"
    )]
    Checksum {
        /// As written in the file.
        stated: u64,
        /// Of the bytes we read.
        computed: u64,
    },
    /// The input is over and the file is not.
    #[error("the file ends here, before its end record: it was cut off, or is still being written")]
    CutOff,
    /// Called again after the end or an error.
    #[error("the scan is over")]
    Finished,
}

/// How much of a key is kept for messages.
pub const LAST_KEY_BYTES_MAX: usize = 128;

fn opcode_note(byte: Option<u8>) -> String {
    byte.map(|byte| format!(" (opcode or type {byte})"))
        .unwrap_or_default()
}

fn key_note(key: &[u8]) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("; last key \"{}\"", key.escape_ascii())
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Opcode,
    Body {
        opcode: u8,
        start: usize,
        skip: Skip,
    },
    Key {
        value_type: ValueType,
        start: usize,
    },
    Value {
        value_type: ValueType,
        key: usize,
        start: usize,
        skip: Skip,
    },
    Trailer,
    Finished,
}

/// Attributes waiting for their key.
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    expires_at_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
}

/// See the module's head.
#[derive(Debug)]
pub struct Scanner {
    limits: ScannerLimits,
    state: State,
    version: Option<FileVersion>,
    /// Bytes of handed-on records.
    offset: u64,
    /// How far the record at hand is walked, from the start of the input.
    at: usize,
    /// How much of that is in `checksum`.
    hashed: usize,
    checksum: u64,
    opcode: Option<u8>,
    db: u32,
    attributes: Attributes,
    last_key: Vec<u8>,
}

impl Scanner {
    /// A scanner at the first byte of a file.
    pub fn new(limits: ScannerLimits) -> Self {
        Self {
            limits,
            state: State::Header,
            version: None,
            offset: 0,
            at: 0,
            hashed: 0,
            checksum: 0,
            opcode: None,
            db: 0,
            attributes: Attributes::default(),
            last_key: Vec::new(),
        }
    }

    /// Bytes of the file that were handed on as records.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, or `None` if its end is not in `input` yet.
    ///
    /// `input` starts behind what the last event consumed; a call after `None`
    /// brings the same bytes and more behind them.
    ///
    /// # Errors
    /// [`ScanError`] for anything that is not understood; the scan is over then.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<Event<'a>>, ScanError> {
        match self.advance(input) {
            Ok(Some(record)) => {
                let consumed = self.at;
                self.hash_walked(input);
                self.offset += consumed as u64;
                (self.at, self.hashed) = (0, 0);
                Ok(Some(Event { consumed, record }))
            }
            Ok(None) => {
                self.hash_walked(input);
                Ok(None)
            }
            Err(kind) => {
                self.state = State::Finished;
                Err(ScanError {
                    offset: self.offset + self.at as u64,
                    opcode: self.opcode,
                    last_key: self.last_key.clone(),
                    kind,
                })
            }
        }
    }

    /// The error for an input that ended while [`Self::next`] waits for more
    /// than `input`, what is left of it.
    pub fn cut_off(&self, input: &[u8]) -> ScanError {
        ScanError {
            offset: self.offset + input.len() as u64,
            opcode: self.opcode,
            last_key: self.last_key.clone(),
            kind: ScanErrorKind::CutOff,
        }
    }

    fn advance<'a>(&mut self, input: &'a [u8]) -> Result<Option<Record<'a>>, ScanErrorKind> {
        loop {
            match self.state {
                State::Header => return self.header(input),
                State::Opcode => {
                    let Some(&byte) = input.get(self.at) else {
                        return self.wait(self.at + 1);
                    };
                    self.opcode(byte)?;
                }
                State::Body {
                    opcode,
                    start,
                    mut skip,
                } => {
                    let walk = skip.run(input, &mut self.at)?;
                    if let Walk::Needs(bytes) = walk {
                        self.state = State::Body {
                            opcode,
                            start,
                            skip,
                        };
                        return self.wait(bytes);
                    }
                    self.state = State::Opcode;
                    let body = input.get(start..self.at).unwrap_or(&[]);
                    if let Some(record) = self.body(opcode, body)? {
                        return Ok(Some(record));
                    }
                }
                State::Key { value_type, start } => {
                    let walk = Skip::new(KEY_PROGRAM).run(input, &mut self.at)?;
                    if let Walk::Needs(bytes) = walk {
                        return self.wait(bytes);
                    }
                    self.begin_value(value_type, start, input)?;
                }
                State::Value {
                    value_type,
                    key,
                    start,
                    mut skip,
                } => {
                    let walk = skip.run(input, &mut self.at)?;
                    if let Walk::Needs(bytes) = walk {
                        self.state = State::Value {
                            value_type,
                            key,
                            start,
                            skip,
                        };
                        return self.wait(bytes);
                    }
                    self.state = State::Opcode;
                    let key = input.get(key..start).unwrap_or(&[]);
                    let bytes = input.get(start..self.at).unwrap_or(&[]);
                    let value = RawValue {
                        type_id: value_type,
                        bytes,
                    };
                    return self.key(key, value).map(Some);
                }
                State::Trailer => return self.trailer(input),
                State::Finished => return Err(ScanErrorKind::Finished),
            }
        }
    }

    /// Waits for more input, unless no input allowed could be enough.
    fn wait<'a>(&self, needed: usize) -> Result<Option<Record<'a>>, ScanErrorKind> {
        let max = self.limits.record_bytes_max;
        if needed > max {
            return Err(ScanErrorKind::TooLarge { needed, max });
        }
        Ok(None)
    }

    fn hash_walked(&mut self, input: &[u8]) {
        // The checksum's own bytes are walked but not hashed.
        if matches!(self.state, State::Finished) {
            return;
        }
        if let Some(bytes) = input.get(self.hashed..self.at) {
            self.checksum = crc64(self.checksum, bytes);
            self.hashed = self.at;
        }
    }

    fn header<'a>(&mut self, input: &'a [u8]) -> Result<Option<Record<'a>>, ScanErrorKind> {
        let Some(header) = input.get(..FileVersion::HEADER_BYTES) else {
            return Ok(None);
        };
        let version = FileVersion::parse(header).ok_or(ScanErrorKind::Header)?;
        self.version = Some(version);
        self.at = FileVersion::HEADER_BYTES;
        self.state = State::Opcode;
        Ok(Some(Record::Header(version)))
    }

    fn opcode(&mut self, byte: u8) -> Result<(), ScanErrorKind> {
        let version = self.version.ok_or(ScanErrorKind::Header)?;
        self.opcode = Some(byte);
        let start = self.at + 1;
        self.state = if let Some(program) = record_program(version, byte) {
            State::Body {
                opcode: byte,
                start,
                skip: Skip::new(program),
            }
        } else if let Some(value_type) = ValueType::known(version, byte) {
            State::Key { value_type, start }
        } else if byte == opcode::EOF {
            State::Trailer
        } else if byte == opcode::FUNCTION_PRE_GA {
            return Err(ScanErrorKind::FunctionPreGa);
        } else {
            return Err(ScanErrorKind::Unknown(version));
        };
        self.at = start;
        Ok(())
    }

    /// Reads the body of an opcode's record; attributes are kept, not handed on.
    fn body<'a>(
        &mut self,
        opcode: u8,
        body: &'a [u8],
    ) -> Result<Option<Record<'a>>, ScanErrorKind> {
        let mut reader = Reader::new(body);
        match opcode {
            opcode::EXPIRE_TIME => {
                let seconds = i32::from_le_bytes(reader.array()?);
                self.attributes.expires_at_ms = expiry(i64::from(seconds) * 1000);
            }
            opcode::EXPIRE_TIME_MS => self.attributes.expires_at_ms = expiry(reader.i64_le()?),
            opcode::IDLE => self.attributes.idle_s = Some(reader.number()?),
            opcode::FREQ => self.attributes.freq = Some(reader.byte()?),
            opcode::ENTERPRISE_RAM_LRU | opcode::ENTERPRISE_SLOT => {}
            _ => {
                let record = read_record(opcode, &mut reader, body)?;
                if let Record::SelectDb(db) = record {
                    self.db = db;
                }
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The key that starts at `key` is whole; its value follows.
    fn begin_value(
        &mut self,
        value_type: ValueType,
        key: usize,
        input: &[u8],
    ) -> Result<(), ScanErrorKind> {
        let start = self.at;
        let name = Reader::new(input.get(key..start).unwrap_or(&[])).string()?;
        self.last_key.clear();
        self.last_key.extend(name.iter().take(LAST_KEY_BYTES_MAX));
        let skip = Skip::new(value_program(value_type));
        self.state = State::Value {
            value_type,
            key,
            start,
            skip,
        };
        Ok(())
    }

    fn key<'a>(&mut self, key: &'a [u8], value: RawValue<'a>) -> Result<Record<'a>, ScanErrorKind> {
        let Attributes {
            expires_at_ms,
            idle_s,
            freq,
        } = std::mem::take(&mut self.attributes);
        let key = Reader::new(key).string()?.into_cow();
        Ok(Record::Key(KeyRecord {
            db: self.db,
            key,
            expires_at_ms,
            idle_s,
            freq,
            value,
        }))
    }

    fn trailer<'a>(&mut self, input: &'a [u8]) -> Result<Option<Record<'a>>, ScanErrorKind> {
        self.hash_walked(input);
        let has_checksum = self.version.is_some_and(FileVersion::has_checksum);
        let checksum = if has_checksum {
            let Some(stated) = input.get(self.at..).and_then(|rest| rest.first_chunk()) else {
                return self.wait(self.at + 8);
            };
            let stated = u64::from_le_bytes(*stated);
            self.opcode = None;
            if stated != 0 && stated != self.checksum {
                return Err(ScanErrorKind::Checksum {
                    stated,
                    computed: self.checksum,
                });
            }
            self.at += 8;
            if stated == 0 {
                Checksum::Zero
            } else {
                Checksum::Verified
            }
        } else {
            self.opcode = None;
            Checksum::Absent
        };
        self.state = State::Finished;
        Ok(Some(Record::End { checksum }))
    }
}

/// Servers write -1 for "never".
fn expiry(at_ms: i64) -> Option<i64> {
    (at_ms != -1).then_some(at_ms)
}

fn read_record<'a>(
    opcode: u8,
    reader: &mut Reader<'a>,
    body: &'a [u8],
) -> Result<Record<'a>, Malformed> {
    Ok(match opcode {
        opcode::SELECT_DB => {
            let db = u32::try_from(reader.number()?);
            Record::SelectDb(db.map_err(|_| Malformed::Range("a database number"))?)
        }
        opcode::RESIZE_DB => Record::ResizeDb {
            keys: reader.number()?,
            expires: reader.number()?,
        },
        opcode::AUX => Record::Aux {
            key: reader.string()?.into_cow(),
            value: reader.string()?.into_cow(),
        },
        opcode::FUNCTION2 => Record::Function(reader.string()?.into_cow()),
        opcode::SLOT_INFO => Record::SlotInfo {
            slot: slot(reader)?,
            keys: reader.number()?,
            expires: reader.number()?,
        },
        opcode::VALKEY_SLOT_IMPORT => {
            let job = reader.string()?.into_cow();
            let mut ranges = Vec::new();
            for _ in 0..reader.number()? {
                ranges.push(SlotRange {
                    first: slot(reader)?,
                    last: slot(reader)?,
                });
            }
            Record::SlotImport { job, ranges }
        }
        _ => Record::ModuleAux(body),
    })
}

fn slot(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let number = reader.number()?;
    u16::try_from(number)
        .ok()
        .filter(|slot| *slot < 16_384)
        .ok_or(Malformed::Range("a cluster slot"))
}

#[cfg(test)]
mod tests;
