//! Containers as counted strings, one after the other.
//!
//! ```text
//! list, set   count, count x element
//! hash        count, count x (field, value)
//! zset        count, count x (member, score as 1 byte length and text, 254 inf, 255 -inf)
//! zset_2      count, count x (member, score 8 LE)
//! 24          smallest expiry 8 LE, count, count x (0 or expiry - smallest + 1, field, value)
//! 22 Valkey   count, count x (field, value, expiry 8 LE or -1)
//! ```

use super::super::decode::decode;
use super::super::element::Element;
use super::super::value_type::{RawValue, ValueType};
use super::ConvertError;
use super::write::{self, Count};

/// Longest text of a score: `-2.2250738585072014e-308`.
const SCORE_TEXT_MAX: usize = 252;

/// A time before 1970 has passed as much as its first millisecond has; and -1 and
/// 0, where layouts say "never", are no times any more.
const EXPIRY_MS_MIN: i64 = 1;

pub(super) fn rewrite(
    out: &mut Vec<u8>,
    value: &RawValue<'_>,
    to: ValueType,
    bytes_max: usize,
) -> Result<(), ConvertError> {
    let no_way = ConvertError::NoWay {
        from: value.type_id,
        to,
    };
    let mut smallest = None;
    if to == ValueType::HashMetadata {
        smallest = smallest_expiry(value)?;
        out.extend_from_slice(&smallest.unwrap_or(0).to_le_bytes());
    }
    let count = Count::reserve(out);
    let end = out.len().saturating_add(bytes_max);
    let mut writer = Writer {
        out,
        to,
        smallest: smallest.unwrap_or(0),
        elements: 0,
        expiring: 0,
        unfit: false,
    };
    decode(value, &mut |element| {
        // The decoder cannot be stopped; what is too long is not written on.
        if writer.out.len() <= end {
            writer.element(element);
        }
    })?;
    let Writer {
        elements,
        expiring,
        unfit,
        ..
    } = writer;
    if expiring > 0 {
        return Err(ConvertError::FieldsExpire(expiring));
    }
    if unfit || !count.fill(out, elements) {
        return Err(no_way);
    }
    Ok(())
}

fn smallest_expiry(value: &RawValue<'_>) -> Result<Option<i64>, ConvertError> {
    let mut smallest: Option<i64> = None;
    decode(value, &mut |element| {
        if let Element::HashField {
            expires_at_ms: Some(at_ms),
            ..
        } = element
        {
            let at_ms = at_ms.max(EXPIRY_MS_MIN);
            smallest = Some(smallest.map_or(at_ms, |least| least.min(at_ms)));
        }
    })?;
    Ok(smallest)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    to: ValueType,
    smallest: i64,
    elements: u64,
    /// Fields whose expiry `to` cannot say.
    expiring: u64,
    /// An element came that `to` has no place for.
    unfit: bool,
}

impl Writer<'_> {
    fn element(&mut self, element: Element<'_>) {
        self.elements += 1;
        match (element, self.to) {
            (Element::ListItem(bytes), ValueType::List)
            | (Element::SetMember(bytes), ValueType::Set) => write::string(self.out, bytes),
            (Element::ScoredMember { member, score }, ValueType::Zset2) => {
                write::string(self.out, member);
                self.out.extend_from_slice(&score.to_le_bytes());
            }
            (Element::ScoredMember { member, score }, ValueType::Zset) => {
                write::string(self.out, member);
                text_score(self.out, score);
            }
            (
                Element::HashField {
                    field,
                    value,
                    expires_at_ms,
                },
                _,
            ) => self.field(field, value, expires_at_ms),
            _ => self.unfit = true,
        }
    }

    fn field(&mut self, field: &[u8], value: &[u8], expires_at_ms: Option<i64>) {
        let expires_at_ms = expires_at_ms.map(|at_ms| at_ms.max(EXPIRY_MS_MIN));
        match self.to {
            ValueType::Hash => {
                self.expiring += u64::from(expires_at_ms.is_some());
                write::string(self.out, field);
                write::string(self.out, value);
            }
            ValueType::HashMetadata => {
                let distance = expires_at_ms.map(|at_ms| {
                    let distance = at_ms.checked_sub(self.smallest)?;
                    u64::try_from(distance).ok()?.checked_add(1)
                });
                self.unfit |= distance == Some(None);
                write::length(self.out, distance.flatten().unwrap_or(0));
                write::string(self.out, field);
                write::string(self.out, value);
            }
            ValueType::HashValkey2 => {
                write::string(self.out, field);
                write::string(self.out, value);
                let at_ms = expires_at_ms.unwrap_or(-1);
                self.out.extend_from_slice(&at_ms.to_le_bytes());
            }
            _ => self.unfit = true,
        }
    }
}

/// A score of type 3.
fn text_score(out: &mut Vec<u8>, score: f64) {
    if score == f64::INFINITY {
        out.push(254);
    } else if score == f64::NEG_INFINITY {
        out.push(255);
    } else {
        // An exponent keeps the text short of every bound; it reads back exactly.
        let text = format!("{score:e}");
        debug_assert!(text.len() <= SCORE_TEXT_MAX);
        out.push(text.len().min(SCORE_TEXT_MAX) as u8);
        out.extend_from_slice(text.as_bytes());
    }
}
