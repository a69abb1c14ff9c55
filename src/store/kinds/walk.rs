//! All elements of an object, whatever kind it is and wherever they are.

use super::{hash, list, set, stream, string, zset};
use crate::rdb::{Element, StreamId};
use crate::store::format::object::Value;
use crate::store::rows::{Rows, StoreError};

/// Hands each element to `each`, in the order in which Redis tells them: a string as one,
/// of a stream its entries.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn walk(
    rows: &Rows,
    value: &Value,
    each: &mut dyn FnMut(Element<'_>),
) -> Result<(), StoreError> {
    match value {
        Value::String(of) => each(Element::String(&string::read_all(rows, of)?)),
        Value::Hash(of) => {
            for element in hash::iter(rows, of)? {
                let element = element?;
                each(Element::HashField {
                    field: &element.member,
                    value: &element.value,
                    expires_at_ms: None,
                });
            }
        }
        Value::Set(of) => {
            for element in set::iter(rows, of)? {
                each(Element::SetMember(&element?.member));
            }
        }
        Value::List(of) => {
            for item in list::items(rows, of, 0, list::len(of))? {
                each(Element::ListItem(&item?));
            }
        }
        Value::Zset(of) => {
            for entry in zset::walk_all(rows, of)? {
                let zset::Entry { member, score } = entry?;
                let member = &member;
                each(Element::ScoredMember { member, score });
            }
        }
        Value::Stream(of) => {
            for entry in stream::range(rows, of, StreamId::MIN, StreamId::MAX)? {
                let stream::Entry { id, fields } = entry?;
                let pairs = fields.iter().pairs();
                let fields: Vec<_> = pairs
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect();
                each(Element::StreamEntry {
                    id,
                    fields: &fields,
                });
            }
        }
    }
    Ok(())
}
