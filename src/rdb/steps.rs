//! One value, step by step: its head, each outermost element, its tail.
//!
//! ```text
//! blobs       Head -> Over
//! containers  Head -> Element * count -> Over
//! streams     Head -> Element * nodes -> StreamState -> StreamGroup * groups
//!             [-> StreamIdempotence -> StreamProducer * producers -> StreamCounters] -> Over
//! ```
//!
//! Invariant: a step reads what it is named after and nothing else, so a value
//! may be cut wherever the scanner cuts it: between two elements.

use super::element::Element;
use super::intset;
use super::listpack::{Listpack, Packed, integer};
use super::reader::{Malformed, Reader};
use super::stream;
use super::text::Text;
use super::value_type::{ValueKind, ValueType};
use super::ziplist::Ziplist;
use super::zipmap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Head,
    Element,
    StreamState,
    StreamGroup,
    StreamIdempotence,
    StreamProducer,
    StreamCounters,
    Over,
}

/// Where the decoding of a value stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    type_id: ValueType,
    next: Step,
    /// How often `next` is still to be done.
    left: u64,
    expiries: FieldExpiry,
}

impl Steps {
    pub(super) fn new(type_id: ValueType) -> Self {
        Self {
            type_id,
            next: Step::Head,
            left: 1,
            expiries: FieldExpiry::Never,
        }
    }

    pub(super) fn are_over(&self) -> bool {
        self.next == Step::Over
    }

    /// Reads one step.
    pub(super) fn next(
        &mut self,
        reader: &mut Reader<'_>,
        sink: &mut impl FnMut(Element<'_>),
    ) -> Result<(), Malformed> {
        let (then, times) = match self.next {
            Step::Over => return Ok(()),
            Step::Head => (Step::Element, self.head(reader, sink)?),
            Step::Element => {
                self.element(reader, sink)?;
                (Step::StreamState, 1)
            }
            Step::StreamState => {
                stream::state(self.type_id, reader, sink)?;
                (Step::StreamGroup, reader.number()?)
            }
            Step::StreamGroup => {
                stream::group(self.type_id, reader, sink)?;
                (Step::StreamIdempotence, 1)
            }
            Step::StreamIdempotence => {
                stream::idempotence(reader, sink)?;
                (Step::StreamProducer, reader.number()?)
            }
            Step::StreamProducer => {
                stream::producer(reader, sink)?;
                (Step::StreamCounters, 1)
            }
            Step::StreamCounters => {
                stream::producer_counters(reader, sink)?;
                (Step::Over, 1)
            }
        };
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.enter(then, times);
        }
        Ok(())
    }

    /// Goes on to `step`, or to what stands behind it if it is not there.
    fn enter(&mut self, step: Step, times: u64) {
        let is_stream = self.type_id.kind() == ValueKind::Stream;
        let has_producers = stream::has_producers(self.type_id);
        (self.next, self.left) = match step {
            Step::Element if times == 0 && is_stream => (Step::StreamState, 1),
            Step::StreamState if !is_stream => (Step::Over, 0),
            Step::StreamGroup if times == 0 && has_producers => (Step::StreamIdempotence, 1),
            Step::StreamIdempotence if !has_producers => (Step::Over, 0),
            Step::StreamProducer if times == 0 => (Step::StreamCounters, 1),
            _ if times == 0 => (Step::Over, 0),
            step => (step, times),
        };
    }

    /// Reads what stands before the elements and says how many there are; a
    /// value that is one blob is read here and has none.
    fn head(
        &mut self,
        reader: &mut Reader<'_>,
        sink: &mut impl FnMut(Element<'_>),
    ) -> Result<u64, Malformed> {
        self.expiries = match self.type_id {
            ValueType::HashMetadata => FieldExpiry::AfterSmallest(reader.i64_le()?),
            ValueType::HashMetadataPreGa => FieldExpiry::Before,
            ValueType::HashValkey2 => FieldExpiry::Behind,
            _ => FieldExpiry::Never,
        };
        match self.type_id {
            ValueType::List
            | ValueType::ListQuicklist
            | ValueType::ListQuicklist2
            | ValueType::Set
            | ValueType::Zset
            | ValueType::Zset2
            | ValueType::Hash
            | ValueType::HashMetadata
            | ValueType::HashMetadataPreGa
            | ValueType::HashValkey2
            | ValueType::StreamListpacks
            | ValueType::StreamListpacks2
            | ValueType::StreamListpacks3
            | ValueType::StreamListpacks4
            | ValueType::StreamListpacks5 => reader.number(),
            ValueType::Array => {
                let count = reader.number()?;
                match reader.number()? {
                    0 => {}
                    1 => sink(Element::ArrayCursor {
                        inserted_at: reader.number()?,
                    }),
                    _ => return Err(Malformed::Range("a flag")),
                }
                Ok(count)
            }
            blob => self::blob(blob, reader, sink).map(|()| 0),
        }
    }

    fn element(
        &self,
        reader: &mut Reader<'_>,
        sink: &mut impl FnMut(Element<'_>),
    ) -> Result<(), Malformed> {
        match self.type_id {
            ValueType::ListQuicklist => {
                Blob::ziplist(&reader.string()?)?.each(|element| sink(Element::ListItem(&element)))
            }
            ValueType::ListQuicklist2 => quicklist_node(reader, sink),
            ValueType::Zset => scored(&reader.string()?, text_score(reader)?, sink),
            ValueType::Zset2 => scored(&reader.string()?, reader.f64_le()?, sink),
            ValueType::Array => array_item(reader, sink),
            other => {
                match other.kind() {
                    ValueKind::List => sink(Element::ListItem(&reader.string()?)),
                    ValueKind::Set => sink(Element::SetMember(&reader.string()?)),
                    ValueKind::Stream => return stream::node(reader, sink),
                    _ => {
                        let before = self.expiries.before(reader)?;
                        let (field, value) = (reader.string()?, reader.string()?);
                        let behind = self.expiries.behind(reader)?;
                        sink(Element::HashField {
                            field: &field,
                            value: &value,
                            expires_at_ms: before.or(behind),
                        });
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reads a value that is one string, or that cannot be told apart from outside.
fn blob(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    match value_type {
        ValueType::ListZiplist => {
            Blob::ziplist(&reader.string()?)?.each(|element| sink(Element::ListItem(&element)))
        }
        ValueType::SetIntset => intset::members(&reader.string()?, |number| {
            sink(Element::SetMember(&Text::from_integer(number)));
        }),
        ValueType::SetListpack => {
            Blob::listpack(&reader.string()?)?.each(|element| sink(Element::SetMember(&element)))
        }
        ValueType::ZsetZiplist => Blob::ziplist(&reader.string()?)?
            .pairs(|member, score| scored(&member, score_of(&score)?, sink)),
        ValueType::ZsetListpack => Blob::listpack(&reader.string()?)?
            .pairs(|member, score| scored(&member, score_of(&score)?, sink)),
        ValueType::HashZipmap => zipmap::pairs(&reader.string()?, |field, value| {
            lasting(field, value, sink);
        }),
        ValueType::HashZiplist => Blob::ziplist(&reader.string()?)?.pairs(|field, value| {
            lasting(&field, &value, sink);
            Ok(())
        }),
        ValueType::HashListpack => Blob::listpack(&reader.string()?)?.pairs(|field, value| {
            lasting(&field, &value, sink);
            Ok(())
        }),
        ValueType::HashListpackEx => {
            // The smallest expiry, told for the loader's index.
            reader.i64_le()?;
            expiring_listpack(&reader.string()?, sink)
        }
        ValueType::HashListpackExPreGa => expiring_listpack(&reader.string()?, sink),
        ValueType::HashTemplateListpack | ValueType::HashTemplateArray => {
            templated(value_type, reader, sink)
        }
        ValueType::Gcra => {
            sink(Element::RateLimiter(reader.number()?));
            Ok(())
        }
        // Opaque: the scanner's walk found its end.
        _ => {
            sink(Element::Module(reader.take(reader.left())?));
            Ok(())
        }
    }
}

fn lasting(field: &[u8], value: &[u8], sink: &mut impl FnMut(Element<'_>)) {
    sink(Element::HashField {
        field,
        value,
        expires_at_ms: None,
    });
}

const QUICKLIST_NODE_PLAIN: u64 = 1;
const QUICKLIST_NODE_PACKED: u64 = 2;

fn quicklist_node(
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let container = reader.number()?;
    let node = reader.string()?;
    match container {
        QUICKLIST_NODE_PLAIN => {
            sink(Element::ListItem(&node));
            Ok(())
        }
        QUICKLIST_NODE_PACKED => {
            Blob::listpack(&node)?.each(|element| sink(Element::ListItem(&element)))
        }
        _ => Err(Malformed::Range("a quicklist node's container")),
    }
}

fn scored(member: &[u8], score: f64, sink: &mut impl FnMut(Element<'_>)) -> Result<(), Malformed> {
    if score.is_nan() {
        return Err(Malformed::Score);
    }
    sink(Element::ScoredMember { member, score });
    Ok(())
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

/// An item of an array: index, and how it is written: 0 and 3 string, 1 integer, 2 double.
fn array_item(
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let index = reader.number()?;
    let value = match reader.number()? {
        0 | 3 => reader.string()?,
        1 => Text::from_integer(reader.i64_le()?),
        2 => Text::from(double_text(reader.f64_le()?).into_bytes()),
        _ => return Err(Malformed::Range("the tag of an array's item")),
    };
    sink(Element::ArrayItem {
        index,
        value: &value,
    });
    Ok(())
}

/// Doubles below and from these are written with an exponent.
const PLAIN_DOUBLES: std::ops::Range<f64> = 1e-5..1e17;

fn double_text(number: f64) -> String {
    if number.is_nan() {
        "nan".to_owned()
    } else if number == 0.0 || number.is_infinite() || PLAIN_DOUBLES.contains(&number.abs()) {
        number.to_string()
    } else {
        format!("{number:e}")
    }
}

/// Names in a listpack (0) or one by one (1), then values in one (29) or one by one (31).
fn templated(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let packed;
    let mut names = match reader.number()? {
        0 => {
            packed = reader.string()?;
            Names::Packed(Listpack::new(&packed)?)
        }
        1 => {
            let count = reader.number()?;
            let listed = reader.clone();
            for _ in 0..count {
                reader.raw_string()?;
            }
            Names::Listed(listed, count)
        }
        _ => return Err(Malformed::Range("a flag")),
    };
    if value_type == ValueType::HashTemplateArray {
        while let Some(name) = names.next()? {
            lasting(&name, &reader.string()?, sink);
        }
        return Ok(());
    }
    let blob = reader.string()?;
    let mut values = Listpack::new(&blob)?;
    // The id of a template, which means nothing outside its server.
    values.number()?;
    while let Some(name) = names.next()? {
        lasting(&name, &Text::from(values.expect()?), sink);
    }
    match values.next()? {
        None => Ok(()),
        Some(_) => Err(Malformed::Structure("a hash has more values than names")),
    }
}

/// Field names, apart from their values.
enum Names<'a> {
    Packed(Listpack<'a>),
    Listed(Reader<'a>, u64),
}

impl<'a> Names<'a> {
    fn next(&mut self) -> Result<Option<Text<'a>>, Malformed> {
        match self {
            Self::Packed(listpack) => Ok(listpack.next()?.map(Text::from)),
            Self::Listed(_, 0) => Ok(None),
            Self::Listed(reader, left) => {
                *left -= 1;
                reader.string().map(Some)
            }
        }
    }
}

/// Where a hash of separate strings keeps the expiry of a field.
#[derive(Clone, Copy, Debug)]
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
fn expiring_listpack(blob: &[u8], sink: &mut impl FnMut(Element<'_>)) -> Result<(), Malformed> {
    let mut listpack = Listpack::new(blob)?;
    while let Some(field) = listpack.next()? {
        let value = Text::from(listpack.expect()?);
        let at_ms = match listpack.expect()? {
            Packed::Integer(at_ms) => at_ms,
            Packed::Bytes(text) => integer(text)?,
        };
        sink(Element::HashField {
            field: &Text::from(field),
            value: &value,
            expires_at_ms: (at_ms != 0).then_some(at_ms),
        });
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
