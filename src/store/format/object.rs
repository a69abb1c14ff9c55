//! A key's value as its meta row holds it.
//!
//! ```text
//! | tag 1 | expires at, ms 8 | payload |       the time only if the tag says so
//!
//! tag       low 3 bits: kind; 0x08 expires; 0x10 its parts are rows; 0x20 compact;
//!           0x40 text
//! payload   string  bytes                     | rows: id 8, bytes 8
//!           list    items                     | rows: id 8, first index 8, end index 8
//!           hash    field, value ..           | rows: id 8, count 8
//!           set     member ..                 | rows: id 8, count 8
//!           zset    score bits 8, member ..   | rows: id 8, count 8     in their order
//!           stream  rows: id 8, entries 8, last id 16, first id 16, largest deleted id 16,
//!                   entries ever added 8, groups 8, names given out 8
//! ```
//! *Compact* is what OBJECT ENCODING tells, whatever the bytes look like here: of hashes
//! and sorted sets that they are still a listpack, of sets that they are an intset, of
//! strings that they were not written in pieces. *Text* are strings whose encoding is not
//! int, though they look like it.

use bytes::{BufMut, Bytes};

use super::packed::Packed;
use super::row::ObjectId;
use super::shared;
use crate::rdb::StreamId;

const KIND_MASK: u8 = 0x07;
const EXPIRES: u8 = 0x08;
const IN_ROWS: u8 = 0x10;
const COMPACT: u8 = 0x20;
const TEXT: u8 = 0x40;
/// Bytes of a stream's payload.
const STREAM_BYTES: usize = 88;

/// Longer strings are kept in chunks.
pub const WHOLE_BYTES_MAX: u64 = 64 * 1024;

/// A value and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Unix time in ms.
    pub expires_at_ms: Option<u64>,
    /// What it is.
    pub value: Value,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Bytes.
    String(StringValue),
    /// Items in order.
    List(ListValue),
    /// Fields with values.
    Hash(Collection),
    /// Members.
    Set(Collection),
    /// Members with scores.
    Zset(Collection),
    /// Entries by their ids, always in rows.
    Stream(Box<StreamValue>),
}

/// A stream. Its entries and groups are rows, see `kinds::stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamValue {
    /// Names the rows.
    pub id: ObjectId,
    /// Entries.
    pub entries: u64,
    /// The largest id that was ever given out.
    pub last: StreamId,
    /// That of the first entry; 0-0 without any.
    pub first: StreamId,
    /// The largest id that was deleted by XDEL.
    pub max_deleted: StreamId,
    /// Entries that were ever added.
    pub added: u64,
    /// Groups.
    pub groups: u64,
    /// Numbers that were given to groups and consumers; none is given twice.
    pub numbered: u64,
}

/// A string.
#[derive(Clone, Debug, PartialEq)]
pub struct StringValue {
    /// Where its bytes are.
    pub stored: StringStored,
    /// How it came to be.
    pub written: Written,
}

/// How a string came to be: its encoding, where it is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// As a whole: int or embstr.
    Whole,
    /// By INCRBYFLOAT: embstr, also if it is an integer.
    Text,
    /// In pieces: raw.
    Pieces,
}

/// Where a string's bytes are.
#[derive(Clone, Debug, PartialEq)]
pub enum StringStored {
    /// Here.
    Whole(Bytes),
    /// In rows of one chunk each.
    Chunks {
        /// Names the rows.
        id: ObjectId,
        /// Length in bytes.
        len: u64,
    },
}

/// A list.
#[derive(Clone, Debug, PartialEq)]
pub enum ListValue {
    /// All items.
    Inline(Packed),
    /// One row an item, at indexes `first..end`.
    Rows {
        /// Names the rows.
        id: ObjectId,
        /// Index of the head.
        first: u64,
        /// Index behind the tail.
        end: u64,
    },
}

/// A hash, a set or a sorted set.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Where its elements are.
    pub stored: Stored,
    /// It is still what Redis calls a listpack, or an intset.
    pub is_compact: bool,
}

/// Where a collection's elements are.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// Here.
    Inline(Packed),
    /// In rows.
    Rows {
        /// Names the rows.
        id: ObjectId,
        /// Elements.
        count: u64,
    },
}

/// Kinds of values, by their number in the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See [`Value::String`].
    String = 0,
    /// See [`Value::List`].
    List = 1,
    /// See [`Value::Hash`].
    Hash = 2,
    /// See [`Value::Set`].
    Set = 3,
    /// See [`Value::Zset`].
    Zset = 4,
    /// See [`Value::Stream`].
    Stream = 5,
}

impl Kind {
    /// What TYPE answers.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::Zset => "zset",
            Kind::Stream => "stream",
        }
    }
}

impl StringValue {
    /// A string that was written as a whole.
    pub fn whole(bytes: Bytes) -> Self {
        Self {
            stored: StringStored::Whole(bytes),
            written: Written::Whole,
        }
    }

    /// One without a byte, to be written into.
    pub fn empty() -> Self {
        Self {
            stored: StringStored::Whole(Bytes::new()),
            written: Written::Pieces,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match &self.stored {
            StringStored::Whole(bytes) => bytes.len() as u64,
            StringStored::Chunks { len, .. } => *len,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// A string that was written as a whole.
    pub fn string(bytes: Bytes) -> Self {
        Value::String(StringValue::whole(bytes))
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Value::String(_) => Kind::String,
            Value::List(_) => Kind::List,
            Value::Hash(_) => Kind::Hash,
            Value::Set(_) => Kind::Set,
            Value::Zset(_) => Kind::Zset,
            Value::Stream(_) => Kind::Stream,
        }
    }

    /// Names its rows, if it has rows of its own.
    pub fn id(&self) -> Option<ObjectId> {
        match self {
            Value::String(StringValue {
                stored: StringStored::Chunks { id, .. },
                ..
            })
            | Value::List(ListValue::Rows { id, .. })
            | Value::Hash(Collection {
                stored: Stored::Rows { id, .. },
                ..
            })
            | Value::Set(Collection {
                stored: Stored::Rows { id, .. },
                ..
            })
            | Value::Zset(Collection {
                stored: Stored::Rows { id, .. },
                ..
            }) => Some(*id),
            Value::Stream(of) => Some(of.id),
            _ => None,
        }
    }

    fn is_compact(&self) -> bool {
        match self {
            Value::String(string) => string.written != Written::Pieces,
            Value::List(_) | Value::Stream(_) => false,
            Value::Hash(of) | Value::Set(of) | Value::Zset(of) => of.is_compact,
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Value::String(string) if string.written == Written::Text)
    }

    fn inline_len(&self) -> usize {
        match self {
            Value::String(string) => match &string.stored {
                StringStored::Whole(bytes) => bytes.len(),
                StringStored::Chunks { .. } => 16,
            },
            Value::List(ListValue::Inline(items)) => items.as_bytes().len(),
            Value::List(ListValue::Rows { .. }) => 24,
            Value::Stream(_) => STREAM_BYTES,
            Value::Hash(of) | Value::Set(of) | Value::Zset(of) => match &of.stored {
                Stored::Inline(items) => items.as_bytes().len(),
                Stored::Rows { .. } => 16,
            },
        }
    }
}

impl Object {
    /// An object that does not expire.
    pub fn lasting(value: Value) -> Self {
        Self {
            expires_at_ms: None,
            value,
        }
    }

    /// A string that was written as a whole and does not expire, and its meta row's value,
    /// in one piece of memory. Nothing if it is too long to be kept whole.
    pub fn of_text(text: &[u8]) -> Option<(Self, Bytes)> {
        if text.len() as u64 > WHOLE_BYTES_MAX {
            return None;
        }
        let row = shared::joined(Kind::String as u8 | COMPACT, text);
        Some((Self::lasting(Value::string(row.slice(1..))), row))
    }

    /// As its meta row's value.
    pub fn encode(&self) -> Bytes {
        // Exactly: what is longer than its bytes takes another piece of memory.
        let head_bytes = if self.expires_at_ms.is_some() { 9 } else { 1 };
        let mut row = Vec::with_capacity(head_bytes + self.value.inline_len());
        let mut tag = self.value.kind() as u8;
        for (is_set, bit) in [
            (self.expires_at_ms.is_some(), EXPIRES),
            (self.value.id().is_some(), IN_ROWS),
            (self.value.is_compact(), COMPACT),
            (self.value.is_text(), TEXT),
        ] {
            tag |= if is_set { bit } else { 0 };
        }
        row.put_u8(tag);
        if let Some(at) = self.expires_at_ms {
            row.put_u64(at);
        }
        match &self.value {
            Value::String(string) => match &string.stored {
                StringStored::Whole(bytes) => row.put_slice(bytes),
                StringStored::Chunks { id, len } => put_numbers(&mut row, &[id.0, *len]),
            },
            Value::List(ListValue::Inline(items)) => row.put_slice(items.as_bytes()),
            Value::List(ListValue::Rows { id, first, end }) => {
                put_numbers(&mut row, &[id.0, *first, *end]);
            }
            Value::Stream(of) => {
                put_numbers(&mut row, &[of.id.0, of.entries]);
                for id in [of.last, of.first, of.max_deleted] {
                    row.put_slice(&id.to_bytes());
                }
                put_numbers(&mut row, &[of.added, of.groups, of.numbered]);
            }
            Value::Hash(of) | Value::Set(of) | Value::Zset(of) => match &of.stored {
                Stored::Inline(items) => row.put_slice(items.as_bytes()),
                Stored::Rows { id, count } => put_numbers(&mut row, &[id.0, *count]),
            },
        }
        Bytes::from(row)
    }

    /// Reads a meta row's value; inline parts share its memory.
    ///
    /// `None` if it is none.
    pub fn decode(row: &Bytes) -> Option<Self> {
        let tag = *row.first()?;
        let mut at = 1;
        let expires_at_ms = match tag & EXPIRES {
            0 => None,
            _ => {
                at = 9;
                Some(number(row.get(1..9)?, 0)?)
            }
        };
        let payload = row.slice(at..);
        let is_compact = tag & COMPACT != 0;
        let in_rows = tag & IN_ROWS != 0;
        let written = match (is_compact, tag & TEXT) {
            (true, 0) => Written::Whole,
            (true, _) => Written::Text,
            (false, _) => Written::Pieces,
        };
        let value = match (tag & KIND_MASK, in_rows) {
            (0, false) => Value::String(StringValue {
                stored: StringStored::Whole(payload),
                written,
            }),
            (0, true) => Value::String(StringValue {
                stored: StringStored::Chunks {
                    id: ObjectId(number(&payload, 0)?),
                    len: number(&payload, 1)?,
                },
                written,
            }),
            (1, false) => Value::List(ListValue::Inline(Packed::from_bytes(payload)?)),
            (1, true) => Value::List(ListValue::Rows {
                id: ObjectId(number(&payload, 0)?),
                first: number(&payload, 1)?,
                end: number(&payload, 2)?,
            }),
            (5, true) => {
                let id = |at| {
                    let (ms, seq) = (number(&payload, at)?, number(&payload, at + 1)?);
                    Some(StreamId { ms, seq })
                };
                Value::Stream(Box::new(StreamValue {
                    id: ObjectId(number(&payload, 0)?),
                    entries: number(&payload, 1)?,
                    last: id(2)?,
                    first: id(4)?,
                    max_deleted: id(6)?,
                    added: number(&payload, 8)?,
                    groups: number(&payload, 9)?,
                    numbered: number(&payload, 10)?,
                }))
            }
            (kind @ 2..=4, _) => {
                let stored = match in_rows {
                    false => Stored::Inline(Packed::from_bytes(payload)?),
                    true => Stored::Rows {
                        id: ObjectId(number(&payload, 0)?),
                        count: number(&payload, 1)?,
                    },
                };
                let of = Collection { stored, is_compact };
                match kind {
                    2 => Value::Hash(of),
                    3 => Value::Set(of),
                    _ => Value::Zset(of),
                }
            }
            _ => return None,
        };
        Some(Self {
            expires_at_ms,
            value,
        })
    }
}

/// Names the rows that a meta row's value refers to, if it does.
pub fn id_of_row(row: &[u8]) -> Option<u64> {
    let tag = *row.first()?;
    let payload = row.get(if tag & EXPIRES == 0 { 1 } else { 9 }..)?;
    match tag & IN_ROWS {
        0 => None,
        _ => number(payload, 0),
    }
}

fn put_numbers(row: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        row.put_u64(*number);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(8 * at..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_back_from_their_rows() {
        let items: Packed = [b"a".as_slice(), b"bc"].into_iter().collect();
        let id = ObjectId(9);
        let collections = [Stored::Inline(items.clone()), Stored::Rows { id, count: 5 }]
            .into_iter()
            .flat_map(|stored| {
                let of = |is_compact| Collection {
                    stored: stored.clone(),
                    is_compact,
                };
                [
                    Value::Hash(of(true)),
                    Value::Set(of(false)),
                    Value::Zset(of(true)),
                ]
            });
        let others = [
            Value::string(Bytes::from_static(b"text")),
            Value::String(StringValue {
                stored: StringStored::Chunks { id, len: 1 << 20 },
                written: Written::Pieces,
            }),
            Value::String(StringValue {
                stored: StringStored::Whole(Bytes::from_static(b"3")),
                written: Written::Text,
            }),
            Value::List(ListValue::Inline(items.clone())),
            Value::List(ListValue::Rows {
                id,
                first: 1 << 63,
                end: (1 << 63) + 3,
            }),
            Value::Stream(Box::new(StreamValue {
                id,
                entries: 1,
                last: StreamId { ms: 2, seq: 3 },
                first: StreamId { ms: 4, seq: 5 },
                max_deleted: StreamId { ms: 6, seq: 7 },
                added: 8,
                groups: 9,
                numbered: 10,
            })),
        ];
        for value in collections.chain(others) {
            for expires_at_ms in [None, Some(1 << 50)] {
                let object = Object {
                    expires_at_ms,
                    value: value.clone(),
                };
                let row = object.encode();
                assert_eq!(Object::decode(&row), Some(object.clone()));
                assert_eq!(id_of_row(&row), object.value.id().map(|id| id.0));
                if object.value.id().is_some() {
                    assert_eq!(Object::decode(&row.slice(..row.len() - 1)), None);
                }
            }
        }
        let (object, row) = Object::of_text(b"text").expect("it is short");
        assert_eq!(
            object,
            Object::lasting(Value::string(Bytes::from_static(b"text")))
        );
        assert_eq!(row, object.encode());
        assert_eq!(Object::of_text(&[0; WHOLE_BYTES_MAX as usize + 1]), None);
        assert_eq!(Object::decode(&Bytes::new()), None);
        assert_eq!(Object::decode(&Bytes::from_static(&[7])), None);
    }
}
