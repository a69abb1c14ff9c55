//! A raw value -> its logical elements, whatever its layout.
//!
//! Elements go to a closure one by one, borrowed from the value or from a blob
//! unpacked for the moment; nothing is collected. Every element was read
//! inside its bounds; what was handed out before an error stays handed out.

use super::intset;
use super::listpack::{Listpack, Packed, integer};
use super::reader::{Malformed, Reader};
use super::stream::{self, StreamCounters, StreamId};
use super::text::Text;
use super::value_type::{RawValue, ValueKind, ValueType};
use super::ziplist::Ziplist;
use super::zipmap;

/// One logical part of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element<'a> {
    /// A whole string value.
    String(&'a [u8]),
    /// The next item of a list, from its head.
    ListItem(&'a [u8]),
    /// A member of a set.
    SetMember(&'a [u8]),
    /// A member of a sorted set.
    ScoredMember {
        /// The member.
        member: &'a [u8],
        /// Its score; never NaN.
        score: f64,
    },
    /// A field of a hash.
    HashField {
        /// Its name.
        field: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When the field expires, Unix time in ms.
        expires_at_ms: Option<i64>,
    },
    /// A live entry of a stream, ascending by id.
    StreamEntry {
        /// Its id.
        id: StreamId,
        /// Its fields in order; a name may stand twice.
        fields: &'a [(Text<'a>, Text<'a>)],
    },
    /// After a stream's entries: what it knows about itself.
    StreamState {
        /// Live entries as the stream counts them.
        length: u64,
        /// The highest id ever used.
        last_id: StreamId,
        /// Absent in type 15 (Redis 5 and 6).
        counters: Option<StreamCounters>,
    },
    /// A consumer group.
    StreamGroup {
        /// Its name.
        group: &'a [u8],
        /// The last id delivered.
        last_id: StreamId,
        /// Entries read; `None` in type 15 and where the server lost count.
        entries_read: Option<u64>,
    },
    /// A consumer of a group; its pending entries follow.
    StreamConsumer {
        /// Its group.
        group: &'a [u8],
        /// Its name.
        consumer: &'a [u8],
        /// When it last tried to read, Unix time in ms.
        seen_at_ms: i64,
        /// When it last got something, Unix time in ms; `None` before type 21 and for never.
        active_at_ms: Option<i64>,
    },
    /// An entry delivered and not acknowledged.
    StreamPending {
        /// Its group.
        group: &'a [u8],
        /// The consumer that has it; `None` if no consumer lists it.
        consumer: Option<&'a [u8]>,
        /// The entry, which may be deleted meanwhile.
        id: StreamId,
        /// When it was last delivered, Unix time in ms.
        delivered_at_ms: i64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// A module's value, which only the module understands.
    Module(&'a [u8]),
}

/// A value that breaks its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value of type {type_id:?} is malformed near its byte {at}: {what}")]
pub struct DecodeError {
    /// The value's layout.
    pub type_id: ValueType,
    /// How far into the value's bytes it was read.
    pub at: usize,
    /// What is wrong.
    pub what: Malformed,
}

/// Hands each element of `value` to `sink`, in the order the value keeps them.
///
/// # Errors
/// [`DecodeError`] as soon as the bytes do not follow the layout, and when
/// bytes are left behind the last element.
pub fn decode(value: &RawValue<'_>, sink: &mut impl FnMut(Element<'_>)) -> Result<(), DecodeError> {
    let mut reader = Reader::new(value.bytes);
    elements(value, &mut reader, sink)
        .and_then(|()| reader.finish())
        .map_err(|what| DecodeError {
            type_id: value.type_id,
            at: reader.position(),
            what,
        })
}

fn elements(
    value: &RawValue<'_>,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    match value.type_id.kind() {
        ValueKind::String => {
            sink(Element::String(&reader.string()?));
            Ok(())
        }
        ValueKind::List => list(value.type_id, reader, sink),
        ValueKind::Set => set(value.type_id, reader, sink),
        ValueKind::SortedSet => sorted_set(value.type_id, reader, sink),
        ValueKind::Hash => hash(value.type_id, reader, sink),
        ValueKind::Stream => stream::decode(value.type_id, reader, sink),
        ValueKind::Module => {
            // Opaque: the scanner's walk found its end.
            sink(Element::Module(reader.take(value.bytes.len())?));
            Ok(())
        }
    }
}

const QUICKLIST_NODE_PLAIN: u64 = 1;
const QUICKLIST_NODE_PACKED: u64 = 2;

fn list(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let mut item = |element: Text<'_>| sink(Element::ListItem(&element));
    match value_type {
        ValueType::ListZiplist => Blob::ziplist(&reader.string()?)?.each(item),
        ValueType::ListQuicklist => {
            for _ in 0..reader.number()? {
                Blob::ziplist(&reader.string()?)?.each(&mut item)?;
            }
            Ok(())
        }
        ValueType::ListQuicklist2 => {
            for _ in 0..reader.number()? {
                let container = reader.number()?;
                let node = reader.string()?;
                match container {
                    QUICKLIST_NODE_PLAIN => item(node),
                    QUICKLIST_NODE_PACKED => Blob::listpack(&node)?.each(&mut item)?,
                    _ => return Err(Malformed::Range("a quicklist node's container")),
                }
            }
            Ok(())
        }
        _ => {
            for _ in 0..reader.number()? {
                item(reader.string()?);
            }
            Ok(())
        }
    }
}

fn set(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let mut member = |element: Text<'_>| sink(Element::SetMember(&element));
    match value_type {
        ValueType::SetIntset => intset::members(&reader.string()?, |number| {
            member(Text::from_integer(number))
        }),
        ValueType::SetListpack => Blob::listpack(&reader.string()?)?.each(member),
        _ => {
            for _ in 0..reader.number()? {
                member(reader.string()?);
            }
            Ok(())
        }
    }
}

fn sorted_set(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let mut scored = |member: Text<'_>, score: f64| {
        if score.is_nan() {
            return Err(Malformed::Score);
        }
        sink(Element::ScoredMember {
            member: &member,
            score,
        });
        Ok(())
    };
    let packed = |member: Text<'_>, score: Text<'_>| scored(member, score_of(&score)?);
    match value_type {
        ValueType::ZsetZiplist => Blob::ziplist(&reader.string()?)?.pairs(packed),
        ValueType::ZsetListpack => Blob::listpack(&reader.string()?)?.pairs(packed),
        ValueType::Zset2 => {
            for _ in 0..reader.number()? {
                scored(reader.string()?, reader.f64_le()?)?;
            }
            Ok(())
        }
        _ => {
            for _ in 0..reader.number()? {
                scored(reader.string()?, text_score(reader)?)?;
            }
            Ok(())
        }
    }
}

/// A score of type 3: 253 nan, 254 inf, 255 -inf, else a length and text.
fn text_score(reader: &mut Reader<'_>) -> Result<f64, Malformed> {
    match reader.byte()? {
        253 => Err(Malformed::Score),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        len => score_of(reader.take(usize::from(len))?),
    }
}

fn score_of(text: &[u8]) -> Result<f64, Malformed> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Malformed::Score)
}

fn hash(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let mut pair = |field: &[u8], value: &[u8], expires_at_ms: Option<i64>| {
        sink(Element::HashField {
            field,
            value,
            expires_at_ms,
        });
    };
    let lasting = |field: Text<'_>, value: Text<'_>| {
        pair(&field, &value, None);
        Ok(())
    };
    match value_type {
        ValueType::HashZipmap => {
            zipmap::pairs(&reader.string()?, |field, value| pair(field, value, None))
        }
        ValueType::HashZiplist => Blob::ziplist(&reader.string()?)?.pairs(lasting),
        ValueType::HashListpack => Blob::listpack(&reader.string()?)?.pairs(lasting),
        ValueType::HashListpackEx | ValueType::HashListpackExPreGa => {
            if value_type == ValueType::HashListpackEx {
                // The smallest expiry, told for the loader's index.
                reader.i64_le()?;
            }
            let blob = reader.string()?;
            expiring_listpack(&blob, pair)
        }
        _ => {
            let expiries = match value_type {
                ValueType::HashMetadata => FieldExpiry::AfterSmallest(reader.i64_le()?),
                ValueType::HashMetadataPreGa => FieldExpiry::Before,
                ValueType::HashValkey2 => FieldExpiry::Behind,
                _ => FieldExpiry::Never,
            };
            for _ in 0..reader.number()? {
                let before = expiries.before(reader)?;
                let (field, value) = (reader.string()?, reader.string()?);
                let behind = expiries.behind(reader)?;
                pair(&field, &value, before.or(behind));
            }
            Ok(())
        }
    }
}

/// Where a hash of separate strings keeps the expiry of a field.
#[derive(Clone, Copy)]
enum FieldExpiry {
    Never,
    /// Type 22 of Redis: absolute, before the field.
    Before,
    /// Type 24: before the field, 1 + its distance to the smallest.
    AfterSmallest(i64),
    /// Type 22 of Valkey: absolute, after the value.
    Behind,
}

impl FieldExpiry {
    fn before(self, reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
        let out_of_range = Malformed::Range("the expiry of a hash field");
        let base = match self {
            Self::Before => 0,
            // The format adds one so that 0 is free to mean never.
            Self::AfterSmallest(smallest) => smallest.checked_sub(1).ok_or(out_of_range)?,
            Self::Never | Self::Behind => return Ok(None),
        };
        match i64::try_from(reader.number()?).map_err(|_| out_of_range)? {
            0 => Ok(None),
            number => base.checked_add(number).map(Some).ok_or(out_of_range),
        }
    }

    fn behind(self, reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
        match self {
            Self::Behind => Ok(Some(reader.i64_le()?).filter(|at_ms| *at_ms != -1)),
            Self::Never | Self::Before | Self::AfterSmallest(_) => Ok(None),
        }
    }
}

/// Triples of field, value and expiry (0 for never).
fn expiring_listpack(
    blob: &[u8],
    mut pair: impl FnMut(&[u8], &[u8], Option<i64>),
) -> Result<(), Malformed> {
    let mut listpack = Listpack::new(blob)?;
    while let Some(field) = listpack.next()? {
        let value = Text::from(listpack.expect()?);
        let at_ms = match listpack.expect()? {
            Packed::Integer(at_ms) => at_ms,
            Packed::Bytes(text) => integer(text)?,
        };
        pair(&Text::from(field), &value, (at_ms != 0).then_some(at_ms));
    }
    Ok(())
}

/// A blob of packed elements.
enum Blob<'a> {
    Listpack(Listpack<'a>),
    Ziplist(Ziplist<'a>),
}

impl<'a> Blob<'a> {
    fn listpack(blob: &'a [u8]) -> Result<Self, Malformed> {
        Listpack::new(blob).map(Self::Listpack)
    }

    fn ziplist(blob: &'a [u8]) -> Result<Self, Malformed> {
        Ziplist::new(blob).map(Self::Ziplist)
    }

    fn next(&mut self) -> Result<Option<Text<'a>>, Malformed> {
        let element = match self {
            Self::Listpack(listpack) => listpack.next()?,
            Self::Ziplist(ziplist) => ziplist.next()?,
        };
        Ok(element.map(Text::from))
    }

    fn each(mut self, mut element: impl FnMut(Text<'a>)) -> Result<(), Malformed> {
        while let Some(text) = self.next()? {
            element(text);
        }
        Ok(())
    }

    fn pairs(
        mut self,
        mut pair: impl FnMut(Text<'a>, Text<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        while let Some(first) = self.next()? {
            let second = self.next()?;
            pair(
                first,
                second.ok_or(Malformed::Structure("its last element has no partner"))?,
            )?;
        }
        Ok(())
    }
}
