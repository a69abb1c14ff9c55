//! The scanner: an RDB file in pieces of any size -> whole records.
//!
//! ```text
//! Header -> Opcode -> Body -> Opcode ..         an opcode's record
//!             |-----> Key -> Value -> Opcode    a value type's record
//!             |                |---> Parts      .. whose value is too large
//!             '-----> Trailer -> Finished       opcode 255, then the checksum
//! ```
//!
//! A record is handed on when its last byte is there; the caller keeps the
//! bytes until then. Attributes of a key (expiry, idle time, frequency) are
//! kept here until the key comes, since other records may stand between.
//!
//! Invariants: each byte enters the checksum once, and only bytes of records
//! do; after an error or the end the scanner gives nothing more.

use super::attributes::Attributes;
use super::crc64::crc64;
use super::limits::ScannerLimits;
use super::parts::{PartEnd, Parts};
use super::reader::{Reader, plain_length, string_extent};
use super::record::{Checksum, Event, KeyRecord, LargeKey, Record, ValuePart, read_record};
use super::scan_error::{LAST_KEY_BYTES_MAX, ScanError, ScanErrorKind};
use super::shape::{Stored, TEMPLATE_VALUES_PROGRAM, opcode, record_program, value_program};
use super::skip::{Skip, Walk};
use super::templates::Templates;
use super::value_type::{RawValue, ValueType};
use super::version::{FileVersion, Magic};

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
    Parts(Parts),
    Trailer,
    Finished,
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
    templates: Templates,
    /// The newest hash that went by a template, as a plain one.
    resolved: Vec<u8>,
    /// The value of the record at hand is in `resolved`, not in the input.
    is_resolved: bool,
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
            templates: Templates::default(),
            resolved: Vec::new(),
            is_resolved: false,
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
                // Of a value in parts more may be hashed than is consumed.
                (self.at, self.hashed) = (0, self.hashed.saturating_sub(consumed));
                match &mut record {
                    Record::Key(key) => {
                        key.metadata = self.attributes.metadata();
                        if self.is_resolved {
                            key.value.bytes = &self.resolved;
                        }
                    }
                    Record::LargeKey(key) => {
                        key.metadata = self.attributes.metadata();
                    }
                    _ => {}
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
                    let rest = input.get(start..).unwrap_or(&[]);
                    match string_extent(rest)? {
                        None => return self.wait(input.len() + 1),
                        Some(extent) if extent > rest.len() => {
                            return self.wait(start.saturating_add(extent));
                        }
                        Some(extent) => self.at = start + extent,
                    }
                    // Walked at once, without a detour over the state.
                    if let Some(skip) = self.begin_value(stored, start, input)? {
                        return self.value(stored, start, self.at, skip, input);
                    }
                }
                State::TemplateId { key, start } => {
                    if let Some(needed) = self.template_id(key, start, input)? {
                        return self.wait(needed);
                    }
                }
                State::Value {
                    stored,
                    key,
                    start,
                    skip,
                } => return self.value(stored, key, start, skip, input),
                State::Parts(parts) => return self.part(parts, input),
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
        let magic = self.version.ok_or(ScanErrorKind::Header)?.magic();
        if self.attributes.read(magic, opcode, body)? {
            return Ok(None);
        }
        let record = read_record(opcode, body)?;
        match record {
            Record::SelectDb(db) => self.db = db,
            Record::HashTemplate { .. } => self.templates.add(body)?,
            _ => {}
        }
        Ok(Some(record))
    }

    /// The key that starts at `key` is whole; its value follows.
    fn begin_value(
        &mut self,
        stored: Stored,
        key: usize,
        input: &[u8],
    ) -> Result<Option<Skip>, ScanErrorKind> {
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
                return Ok(None);
            }
        };
        Ok(Some(Skip::new(program)))
    }

    /// Reads which template a hash goes by; how many bytes are needed if it is cut off.
    fn template_id(
        &mut self,
        key: usize,
        start: usize,
        input: &[u8],
    ) -> Result<Option<usize>, ScanErrorKind> {
        let rest = input.get(start..).unwrap_or(&[]);
        let Some((id, size)) = plain_length(rest)? else {
            return Ok(Some(input.len() + 1));
        };
        let fields = self.templates.fields(id)?;
        self.at = start + size;
        self.state = State::Value {
            stored: Stored::TemplateArray,
            key,
            start,
            skip: Skip::holding(TEMPLATE_VALUES_PROGRAM, fields),
        };
        Ok(None)
    }

    fn value<'a>(
        &mut self,
        stored: Stored,
        key: usize,
        start: usize,
        mut skip: Skip,
        input: &'a [u8],
    ) -> Result<Option<Record<'a>>, ScanErrorKind> {
        let walk = skip.run(input, &mut self.at)?;
        let needed = match walk {
            Walk::Needs(bytes) => bytes,
            Walk::Done | Walk::Boundary => self.at,
        };
        let is_large = needed.saturating_sub(start) > self.limits.whole_bytes_max
            || skip.elements() > self.limits.whole_elements_max;
        if is_large && let Some(record) = self.large_key(stored, key, start, input)? {
            return Ok(Some(record));
        }
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
        self.key(key, stored, bytes).map(Some)
    }

    fn part<'a>(
        &mut self,
        mut parts: Parts,
        input: &'a [u8],
    ) -> Result<Option<Record<'a>>, ScanErrorKind> {
        let bytes = self.limits.part_bytes();
        let end = parts.walk(input, &mut self.at, bytes)?;
        self.state = State::Parts(parts);
        let last = match end {
            PartEnd::Needs(bytes) => return self.wait(bytes),
            PartEnd::Here { last } => last,
        };
        if last {
            self.state = State::Opcode;
        }
        let bytes = input.get(..self.at).unwrap_or(&[]);
        Ok(Some(Record::Part(ValuePart { bytes, last })))
    }

    /// Turns to parts, unless values like the one that starts at `start` are
    /// never cut. It is walked anew from there, up to what was walked of it.
    fn large_key<'a>(
        &mut self,
        stored: Stored,
        key: usize,
        start: usize,
        input: &'a [u8],
    ) -> Result<Option<Record<'a>>, ScanErrorKind> {
        let Stored::Plain(type_id) = stored else {
            return Ok(None);
        };
        let Some(parts) = Parts::begin(type_id, input.get(start..).unwrap_or(&[]))? else {
            return Ok(None);
        };
        self.hash_walked(input);
        self.at = start;
        self.state = State::Parts(parts);
        let attributes = self.attributes.take();
        let name = input.get(key..start).unwrap_or(&[]);
        Ok(Some(Record::LargeKey(LargeKey {
            db: self.db,
            key: Reader::new(name).string()?.into_cow(),
            expires_at_ms: attributes.expires_at_ms,
            idle_s: attributes.idle_s,
            freq: attributes.freq,
            metadata: None,
            type_id,
        })))
    }

    fn key<'a>(
        &mut self,
        key: &'a [u8],
        stored: Stored,
        bytes: &'a [u8],
    ) -> Result<Record<'a>, ScanErrorKind> {
        let attributes = self.attributes.take();
        let key = Reader::new(key).string()?.into_cow();
        let limit = self.limits.record_bytes_max;
        self.is_resolved = !matches!(stored, Stored::Plain(_));
        let type_id = match stored {
            Stored::Plain(type_id) => type_id,
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

#[cfg(test)]
mod tests;
