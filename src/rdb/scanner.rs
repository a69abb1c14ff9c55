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
use super::reader::{Reader, plain_length};
use super::record::{Checksum, Event, KeyRecord, Record, read_record};
use super::scan_error::{LAST_KEY_BYTES_MAX, ScanError, ScanErrorKind};
use super::shape::{
    KEY_PROGRAM, Stored, TEMPLATE_VALUES_PROGRAM, opcode, record_program, value_program,
};
use super::skip::{Skip, Walk};
use super::templates::Templates;
use super::value_type::{RawValue, ValueType};
use super::version::{FileVersion, Magic};

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

/// KeyDB's, beside the types of the Redis it was made from.
const KEYDB_CRON_TYPE: u8 = 64;

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
        stored: Stored,
        start: usize,
    },
    /// The id of the template of a hash that is not walked yet.
    TemplateId {
        key: usize,
        start: usize,
    },
    Value {
        stored: Stored,
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
    /// The KEY_META record is in [`Scanner::metadata`].
    has_metadata: bool,
}

/// What of the record at hand lies in the scanner, not in the input.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    metadata: bool,
    value: bool,
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
    /// The KEY_META record of the next key.
    metadata: Vec<u8>,
    templates: Templates,
    /// The newest hash that went by a template, as a plain one.
    resolved: Vec<u8>,
    kept: Kept,
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
            metadata: Vec::new(),
            templates: Templates::default(),
            resolved: Vec::new(),
            kept: Kept::default(),
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
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Event<'a>>, ScanError> {
        match self.advance(input) {
            Ok(Some(mut record)) => {
                let consumed = self.at;
                self.hash_walked(input);
                self.offset += consumed as u64;
                (self.at, self.hashed) = (0, 0);
                if let Record::Key(key) = &mut record {
                    key.metadata = self.kept.metadata.then_some(&self.metadata);
                    if self.kept.value {
                        key.value.bytes = &self.resolved;
                    }
                }
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
                State::Key { stored, start } => {
                    let walk = Skip::new(KEY_PROGRAM).run(input, &mut self.at)?;
                    if let Walk::Needs(bytes) = walk {
                        return self.wait(bytes);
                    }
                    self.begin_value(stored, start, input)?;
                }
                State::TemplateId { key, start } => {
                    let rest = input.get(start..).unwrap_or(&[]);
                    let Some((id, size)) = plain_length(rest)? else {
                        return self.wait(input.len() + 1);
                    };
                    let fields = self.templates.fields(id)?;
                    self.at = start + size;
                    self.state = State::Value {
                        stored: Stored::TemplateArray,
                        key,
                        start,
                        skip: Skip::holding(TEMPLATE_VALUES_PROGRAM, fields),
                    };
                }
                State::Value {
                    stored,
                    key,
                    start,
                    mut skip,
                } => {
                    let walk = skip.run(input, &mut self.at)?;
                    if let Walk::Needs(bytes) = walk {
                        self.state = State::Value {
                            stored,
                            key,
                            start,
                            skip,
                        };
                        return self.wait(bytes);
                    }
                    self.state = State::Opcode;
                    let key = input.get(key..start).unwrap_or(&[]);
                    let bytes = input.get(start..self.at).unwrap_or(&[]);
                    return self.key(key, stored, bytes).map(Some);
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
        } else if let Some(stored) = Stored::known(version, byte) {
            State::Key { stored, start }
        } else if byte == opcode::EOF {
            State::Trailer
        } else if byte == opcode::FUNCTION_PRE_GA {
            return Err(ScanErrorKind::FunctionPreGa);
        } else if byte == KEYDB_CRON_TYPE && version.magic() == Magic::Redis {
            return Err(ScanErrorKind::KeyDbCron);
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
            opcode::KEY_META if self.is_redis() => {
                self.attributes.has_metadata = true;
                self.metadata.clear();
                self.metadata.push(opcode);
                self.metadata.extend_from_slice(body);
            }
            _ => {
                let record = read_record(opcode, &mut reader, body)?;
                match record {
                    Record::SelectDb(db) => self.db = db,
                    Record::HashTemplate { .. } => self.templates.add(body)?,
                    _ => {}
                }
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn is_redis(&self) -> bool {
        self.version
            .is_some_and(|version| version.magic() == Magic::Redis)
    }

    /// The key that starts at `key` is whole; its value follows.
    fn begin_value(
        &mut self,
        stored: Stored,
        key: usize,
        input: &[u8],
    ) -> Result<(), ScanErrorKind> {
        let start = self.at;
        let name = input.get(key..start).unwrap_or(&[]);
        let name = Reader::new(name).string_within(self.limits.record_bytes_max)?;
        self.last_key.clear();
        let kept = name.len().min(LAST_KEY_BYTES_MAX);
        self.last_key
            .extend_from_slice(name.get(..kept).unwrap_or(&[]));
        let program = match stored {
            Stored::Plain(value_type) => value_program(value_type),
            Stored::TemplateListpack => value_program(ValueType::HashListpack),
            Stored::TemplateArray => {
                self.state = State::TemplateId { key, start };
                return Ok(());
            }
        };
        self.state = State::Value {
            stored,
            key,
            start,
            skip: Skip::new(program),
        };
        Ok(())
    }

    fn key<'a>(
        &mut self,
        key: &'a [u8],
        stored: Stored,
        bytes: &'a [u8],
    ) -> Result<Record<'a>, ScanErrorKind> {
        let attributes = std::mem::take(&mut self.attributes);
        let key = Reader::new(key).string()?.into_cow();
        let limit = self.limits.record_bytes_max;
        self.kept = Kept {
            metadata: attributes.has_metadata,
            value: true,
        };
        let type_id = match stored {
            Stored::Plain(type_id) => {
                self.kept.value = false;
                type_id
            }
            Stored::TemplateListpack => {
                self.templates
                    .resolve_listpack(bytes, limit, &mut self.resolved)?;
                ValueType::Hash
            }
            Stored::TemplateArray => {
                self.templates
                    .resolve_array(bytes, limit, &mut self.resolved)?;
                ValueType::Hash
            }
        };
        Ok(Record::Key(KeyRecord {
            db: self.db,
            key,
            expires_at_ms: attributes.expires_at_ms,
            idle_s: attributes.idle_s,
            freq: attributes.freq,
            metadata: None,
            value: RawValue { type_id, bytes },
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

#[cfg(test)]
mod tests;
