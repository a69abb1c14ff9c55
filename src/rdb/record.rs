//! Records of an RDB file as the scanner hands them on.

use std::borrow::Cow;

use super::reader::{Malformed, Reader};
use super::shape::opcode;
use super::value_type::{RawValue, ValueType};
use super::version::FileVersion;

/// One record, and how much of the input it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Bytes of the input, from its start, that belong to this record (and to
    /// attributes of the next key that stood before it).
    pub consumed: usize,
    /// What was read.
    pub record: Record<'a>,
}

/// One record. Expiry, idle time and frequency are part of the key they precede.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The 9-byte header; always first.
    Header(FileVersion),
    /// A pair about the file or the server; may stand anywhere.
    Aux {
        /// Its name, such as `repl-stream-db`.
        key: Cow<'a, [u8]>,
        /// Its value; integers as decimal text.
        value: Cow<'a, [u8]>,
    },
    /// The keys that follow are in this database.
    SelectDb(u32),
    /// How large the database's tables are: a hint.
    ResizeDb {
        /// Keys in the database.
        keys: u64,
        /// Keys among them that have an expiry.
        expires: u64,
    },
    /// Source of one function library, for FUNCTION LOAD.
    Function(Cow<'a, [u8]>),
    /// A module's data outside any key: the bytes after the opcode, up to and
    /// with the end of its items.
    ModuleAux(&'a [u8]),
    /// Sizes of a cluster slot whose keys follow: a hint.
    SlotInfo {
        /// The slot.
        slot: u16,
        /// Keys in it.
        keys: u64,
        /// Keys among them that have an expiry.
        expires: u64,
    },
    /// Valkey: slots being imported when the file was written; their keys do
    /// not belong to this server.
    SlotImport {
        /// Name of the import.
        job: Cow<'a, [u8]>,
        /// Its slots.
        ranges: Vec<SlotRange>,
    },
    /// Field names that hashes of this file go by; such hashes are handed on
    /// with their names, so this is for counting only.
    HashTemplate {
        /// Its number in this file.
        id: u64,
        /// How many names it has.
        fields: u64,
    },
    /// A key with its value.
    Key(KeyRecord<'a>),
    /// A key whose value is too large to be handed on whole: [`Record::Part`]s
    /// of it follow, and nothing else until the last of them.
    LargeKey(LargeKey<'a>),
    /// More of the value of the newest [`Record::LargeKey`].
    Part(ValuePart<'a>),
    /// The end of the file, checksum included.
    End {
        /// What the file's checksum said.
        checksum: Checksum,
    },
}

/// Cluster slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// First slot.
    pub first: u16,
    /// Last slot.
    pub last: u16,
}

/// A key with its attributes and its raw value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord<'a> {
    /// The database it is in.
    pub db: u32,
    /// Its name.
    pub key: Cow<'a, [u8]>,
    /// When it expires, Unix time in ms; may be in the past.
    pub expires_at_ms: Option<i64>,
    /// Seconds since it was last used, where the server kept that.
    pub idle_s: Option<u64>,
    /// Its logarithmic access frequency, where the server kept that.
    pub freq: Option<u8>,
    /// What modules attached to it: the KEY_META record with its opcode, as a
    /// DUMP payload begins with it.
    pub metadata: Option<&'a [u8]>,
    /// Its value.
    pub value: RawValue<'a>,
}

/// A key with its attributes, whose value comes in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeKey<'a> {
    /// The database it is in.
    pub db: u32,
    /// Its name.
    pub key: Cow<'a, [u8]>,
    /// When it expires, Unix time in ms; may be in the past.
    pub expires_at_ms: Option<i64>,
    /// Seconds since it was last used, where the server kept that.
    pub idle_s: Option<u64>,
    /// Its logarithmic access frequency, where the server kept that.
    pub freq: Option<u8>,
    /// As [`KeyRecord::metadata`].
    pub metadata: Option<&'a [u8]>,
    /// How its value is laid out.
    pub type_id: ValueType,
}

/// A part of a value: with those before and behind it, the value's bytes. It
/// begins with an outermost element (the first with the head of the value, the
/// last ends with its tail) or somewhere inside a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValuePart<'a> {
    /// Its bytes, never none.
    pub bytes: &'a [u8],
    /// Whether the value ends here.
    pub last: bool,
}

/// What stood in the place of the file's checksum. A wrong one is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// RDB versions 1 to 4 have none.
    Absent,
    /// Written as zero: the server had checksums switched off.
    Zero,
    /// It matches the bytes.
    Verified,
}

/// Reads the body of an opcode's record that is handed on.
pub(super) fn read_record<'a>(opcode: u8, body: &'a [u8]) -> Result<Record<'a>, Malformed> {
    let mut reader = Reader::new(body);
    let reader = &mut reader;
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
        opcode::FUNCTION_PRE_GA => Record::Function(pre_ga_library(reader)?.into()),
        opcode::SLOT_INFO => Record::SlotInfo {
            slot: slot(reader)?,
            keys: reader.number()?,
            expires: reader.number()?,
        },
        opcode::HASH_TEMPLATE => Record::HashTemplate {
            id: reader.number()?,
            fields: reader.number()?,
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

/// A library as Redis 7.0's release candidates wrote it, with the first line that
/// names it since: Redis 7.0 reads it so.
fn pre_ga_library(reader: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let (name, engine) = (reader.string()?, reader.string()?);
    for _ in 0..reader.number()? {
        let _description = reader.string()?;
    }
    let code = reader.string()?;
    Ok([b"#!", &*engine, b" name=", &*name, b"\n", &*code].concat())
}

fn slot(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let number = reader.number()?;
    u16::try_from(number)
        .ok()
        .filter(|slot| *slot < 16_384)
        .ok_or(Malformed::Range("a cluster slot"))
}
