//! A raw value -> its logical elements, whatever its layout, whole or in parts.
//!
//! ```text
//! whole      decode(value)        head, element, element .., tail
//! in parts   PartDecoder          |head, element ..|, |element ..|, |element .., tail|
//! ```
//!
//! Elements go to a closure one by one, borrowed from the value or from a blob
//! unpacked for the moment; nothing is collected. Every element was read
//! inside its bounds; what was handed out before an error stays handed out.

use super::element::Element;
use super::reader::{Malformed, Reader};
use super::steps::Steps;
use super::value_type::{RawValue, ValueType};

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
    elements(value.type_id, &mut reader, sink)
        .and_then(|()| reader.finish())
        .map_err(|what| DecodeError {
            type_id: value.type_id,
            at: reader.position(),
            what,
        })
}

fn elements(
    type_id: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    if type_id == ValueType::String {
        sink(Element::String(&reader.string()?));
        return Ok(());
    }
    let mut steps = Steps::new(type_id);
    while !steps.are_over() {
        steps.next(reader, sink)?;
    }
    Ok(())
}

/// Decodes a value whose bytes come in the parts that the scanner makes.
///
/// The same elements come as from [`decode`], but for strings, which come as
/// [`Element::StringPart`]s.
#[derive(Clone, Debug)]
pub struct PartDecoder {
    type_id: ValueType,
    steps: Steps,
    /// Bytes of a string that are still to come; `None` before its length.
    string_left: Option<u64>,
    /// Bytes of earlier parts.
    before: usize,
}

impl PartDecoder {
    /// A decoder at the first byte of a value.
    pub fn new(type_id: ValueType) -> Self {
        Self {
            type_id,
            steps: Steps::new(type_id),
            string_left: None,
            before: 0,
        }
    }

    /// Hands the elements of the next part to `sink`; `last` as the scanner said.
    ///
    /// # Errors
    /// [`DecodeError`] as from [`decode`], with the place in the whole value;
    /// nothing may be decoded after one.
    pub fn decode(
        &mut self,
        part: &[u8],
        last: bool,
        sink: &mut impl FnMut(Element<'_>),
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(part);
        let read = if self.type_id == ValueType::String {
            self.string(&mut reader, last, sink)
        } else {
            self.elements(&mut reader, last, sink)
        };
        let at = self.before.saturating_add(reader.position());
        self.before = self.before.saturating_add(part.len());
        read.and_then(|()| reader.finish())
            .map_err(|what| DecodeError {
                type_id: self.type_id,
                at,
                what,
            })
    }

    fn elements(
        &mut self,
        reader: &mut Reader<'_>,
        last: bool,
        sink: &mut impl FnMut(Element<'_>),
    ) -> Result<(), Malformed> {
        while !self.steps.are_over() && (last || !reader.is_empty()) {
            self.steps.next(reader, sink)?;
        }
        Ok(())
    }

    fn string(
        &mut self,
        reader: &mut Reader<'_>,
        last: bool,
        sink: &mut impl FnMut(Element<'_>),
    ) -> Result<(), Malformed> {
        let left = match self.string_left {
            Some(left) => left,
            None => match reader.plain_string_header()? {
                Some(len) => len,
                // Packed and integer strings are never cut.
                None => {
                    sink(Element::StringPart(&reader.string()?));
                    self.string_left = Some(0);
                    return Ok(());
                }
            },
        };
        let here = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(reader.left());
        if here > 0 {
            sink(Element::StringPart(reader.take(here)?));
        }
        let left = left.saturating_sub(here as u64);
        self.string_left = Some(left);
        if last && left > 0 {
            return Err(Malformed::Truncated);
        }
        Ok(())
    }
}
