//! What is in an RDB file, told while its bytes go by: every record and every value is
//! read, the checksum compared.

use std::collections::BTreeMap;

use crate::rdb::{
    Checksum, DecodeError, Element, FileVersion, ModuleId, PartDecoder, Record, ScanError, Scanner,
    ScannerLimits, ValueKind, decode,
};
use crate::store::format::row::KEY_BYTES_MAX;
use crate::store::keyspace::DATABASES;
use crate::store::kinds::build::what_is_not_kept;
use crate::store::kinds::digest::{Digest, KeyDigest, WholeDigest};
use crate::store::session::KeptTexts;
use crate::store::sync::{SETTINGS_FIELD, USERS_FIELD};

/// Larger values come in parts, so that little is held.
const WHOLE_BYTES_MAX: usize = 1024 * 1024;
const WHOLE_ELEMENTS_MAX: u64 = 4096;
/// Of a key that is named in a message.
const TOLD_BYTES_MAX: usize = 128;

/// A file that is not whole, or not readable.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// It cannot be scanned.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// One of its values cannot be read.
    #[error("key {key:?} cannot be read: {cause}")]
    Decode {
        /// Which.
        key: String,
        /// Why.
        cause: DecodeError,
    },
    /// It is over before its end.
    #[error(
        "it ends at byte {at}, before its end record: it was cut off, or is still being written"
    )]
    CutOff {
        /// Its length.
        at: u64,
    },
    /// It goes on behind its end.
    #[error("{bytes} bytes follow its end record")]
    Trailing {
        /// How many.
        bytes: u64,
    },
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All.
    pub keys: u64,
    /// Those that expire.
    pub expiring: u64,
}

/// What a whole file holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Of the format.
    pub version: FileVersion,
    /// What stood in the place of its checksum.
    pub checksum: Checksum,
    /// Its length.
    pub bytes: u64,
    /// Databases that have keys.
    pub databases: BTreeMap<u32, Counted>,
    /// As DEBUG DIGEST of who has the same; nothing if it holds what that does not know.
    pub digest: Option<Digest>,
    /// Function libraries.
    pub libraries: u64,
    /// Fields about the server: `redis-ver`, `repl-id`, `repl-offset`, `ctime`..
    pub about: BTreeMap<String, String>,
    /// Settings and users of a built-in shard, if they are in it.
    pub kept: Option<KeptTexts>,
    /// The first thing in it that this shard does not keep.
    pub not_kept: Option<String>,
}

impl Contents {
    /// Keys of all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|of| of.keys).sum()
    }

    /// How many parameters and users beside those of every shard there are, if that is in it.
    ///
    /// # Errors
    /// The parameters cannot be read.
    pub fn kept_counts(&self) -> Result<Option<(usize, usize)>, serde_json::Error> {
        let Some(kept) = &self.kept else {
            return Ok(None);
        };
        Ok(Some((kept.parameters()?.len(), kept.user_lines().count())))
    }
}

/// A value that comes in parts.
struct Large {
    db: u32,
    key: Vec<u8>,
    expires: bool,
    decoder: PartDecoder,
    digest: Option<KeyDigest>,
}

/// See the head of the file.
pub(super) struct Reading {
    scanner: Scanner,
    buffer: Vec<u8>,
    large: Option<Large>,
    version: Option<FileVersion>,
    /// Behind the end record.
    ended: Option<Checksum>,
    tally: Tally,
    libraries: u64,
    about: BTreeMap<String, String>,
    kept: Option<KeptTexts>,
    not_kept: Option<String>,
}

/// What its keys come to.
#[derive(Default)]
struct Tally {
    databases: BTreeMap<u32, Counted>,
    keys: u64,
    digest: WholeDigest,
    has_no_digest: bool,
}

impl Tally {
    fn add(&mut self, db: u32, expires: bool, digest: Option<KeyDigest>) {
        let of = self.databases.entry(db).or_default();
        of.keys += 1;
        of.expiring += u64::from(expires);
        self.keys += 1;
        match digest {
            Some(digest) => self.digest.add(db, &digest.finish(expires)),
            None => self.has_no_digest = true,
        }
    }
}

impl Reading {
    pub(super) fn new() -> Self {
        Self {
            scanner: Scanner::new(ScannerLimits {
                whole_bytes_max: WHOLE_BYTES_MAX,
                whole_elements_max: WHOLE_ELEMENTS_MAX,
                ..ScannerLimits::default()
            }),
            buffer: Vec::new(),
            large: None,
            version: None,
            ended: None,
            tally: Tally::default(),
            libraries: 0,
            about: BTreeMap::new(),
            kept: None,
            not_kept: None,
        }
    }

    pub(super) fn keys(&self) -> u64 {
        self.tally.keys
    }

    /// Whether the end record was read.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// What came behind the end record.
    pub(super) fn behind(&self) -> &[u8] {
        match self.is_over() {
            true => &self.buffer,
            false => &[],
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// The file is damaged, or beyond us; there is no going on.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), ContentsError> {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        while self.ended.is_none() {
            let rest = buffer.get(at..).unwrap_or(&[]);
            let Some(consumed) = self.one(rest)? else {
                break;
            };
            at += consumed;
        }
        self.buffer = buffer;
        self.buffer.drain(..at);
        Ok(())
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// The file is not whole, or goes on.
    pub(super) fn finish(self) -> Result<Contents, ContentsError> {
        match self.behind().len() as u64 {
            0 => self.finish_before_more(),
            bytes => Err(ContentsError::Trailing { bytes }),
        }
    }

    /// Says that what follows is of no file.
    ///
    /// # Errors
    /// The file is not whole.
    pub(super) fn finish_before_more(self) -> Result<Contents, ContentsError> {
        let (bytes, left) = (self.scanner.offset(), self.buffer.len() as u64);
        let (Some(checksum), Some(version)) = (self.ended, self.version) else {
            return Err(ContentsError::CutOff { at: bytes + left });
        };
        Ok(Contents {
            version,
            checksum,
            bytes,
            digest: (!self.tally.has_no_digest).then(|| self.tally.digest.finish()),
            databases: self.tally.databases,
            libraries: self.libraries,
            about: self.about,
            kept: self.kept,
            not_kept: self.not_kept,
        })
    }

    /// Reads one record; how many bytes that were, if it is whole.
    fn one(&mut self, rest: &[u8]) -> Result<Option<usize>, ContentsError> {
        let Some(event) = self.scanner.next(rest)? else {
            return Ok(None);
        };
        let consumed = event.consumed;
        let mut not_kept = None;
        match event.record {
            Record::Header(version) => self.version = Some(version),
            Record::Aux { key, value } if &*key == SETTINGS_FIELD.as_bytes() => {
                self.kept.get_or_insert_default().settings = value.to_vec();
            }
            Record::Aux { key, value } if &*key == USERS_FIELD.as_bytes() => {
                self.kept.get_or_insert_default().users = value.to_vec();
            }
            Record::Aux { key, value } => {
                self.about.insert(text(&key), text(&value));
            }
            Record::SelectDb(_)
            | Record::ResizeDb { .. }
            | Record::SlotInfo { .. }
            | Record::HashTemplate { .. } => {}
            Record::Function(_) => self.libraries += 1,
            Record::ModuleAux(bytes) => not_kept = Some(module("data", bytes)),
            Record::SlotImport { .. } => {
                not_kept = Some("slots that were being imported".to_owned());
            }
            Record::Key(record) => {
                let kind = record.value.type_id.kind();
                not_kept = why_not(record.db, &record.key, kind, Some(record.value.bytes));
                let expires = record.expires_at_ms.is_some();
                let mut digest = KeyDigest::new(&record.key, kind);
                let mut has_field_expiry = false;
                let decoded = decode(&record.value, &mut |element| {
                    has_field_expiry |= has_expiry(&element);
                    if let Some(digest) = &mut digest {
                        digest.add(element);
                    }
                });
                decoded.map_err(|cause| ContentsError::Decode {
                    key: text(&record.key),
                    cause,
                })?;
                if has_field_expiry {
                    not_kept = not_kept.or(Some(field_expiry(&record.key)));
                }
                self.tally.add(record.db, expires, digest);
            }
            Record::LargeKey(record) => {
                let kind = record.type_id.kind();
                not_kept = why_not(record.db, &record.key, kind, None);
                self.large = Some(Large {
                    db: record.db,
                    key: record.key.to_vec(),
                    expires: record.expires_at_ms.is_some(),
                    decoder: PartDecoder::new(record.type_id),
                    digest: KeyDigest::new(&record.key, kind),
                });
            }
            Record::Part(part) => {
                if let Some(large) = &mut self.large {
                    let digest = &mut large.digest;
                    let mut has_field_expiry = false;
                    let decoded = large.decoder.decode(part.bytes, part.last, &mut |element| {
                        has_field_expiry |= has_expiry(&element);
                        if let Some(digest) = digest {
                            digest.add(element);
                        }
                    });
                    decoded.map_err(|cause| ContentsError::Decode {
                        key: text(&large.key),
                        cause,
                    })?;
                    not_kept = has_field_expiry.then(|| field_expiry(&large.key));
                }
                if part.last
                    && let Some(large) = self.large.take()
                {
                    self.tally.add(large.db, large.expires, large.digest);
                }
            }
            Record::End { checksum } => self.ended = Some(checksum),
        }
        if self.not_kept.is_none() {
            self.not_kept = not_kept;
        }
        Ok(Some(consumed))
    }
}

fn why_not(db: u32, key: &[u8], kind: ValueKind, value: Option<&[u8]>) -> Option<String> {
    let named = |what: &str| format!("key {:?} in database {db}, {what}", text(key));
    if usize::try_from(db).is_ok_and(|db| db >= DATABASES) {
        return Some(named("of which there are 16 here"));
    }
    if key.len() > KEY_BYTES_MAX {
        let long = format!(
            "whose name has {} bytes, at most {KEY_BYTES_MAX}",
            key.len()
        );
        return Some(named(&long));
    }
    match (kind, value) {
        (ValueKind::Module, Some(bytes)) => Some(named(&module("a value", bytes))),
        _ => what_is_not_kept(kind).map(named),
    }
}

fn module(what: &str, bytes: &[u8]) -> String {
    match ModuleId::of(bytes) {
        Some(id) => format!("{what} of the module {id}"),
        None => format!("{what} of a module"),
    }
}

fn has_expiry(element: &Element<'_>) -> bool {
    let Element::HashField { expires_at_ms, .. } = element else {
        return false;
    };
    expires_at_ms.is_some()
}

fn field_expiry(key: &[u8]) -> String {
    format!("key {:?}, with fields that expire", text(key))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..TOLD_BYTES_MAX).unwrap_or(bytes)).into_owned()
}
