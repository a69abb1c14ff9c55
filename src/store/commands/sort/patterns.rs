//! Patterns of BY and GET.
//!
//! ```text
//! #              the element itself
//! weight_*       the string at a key, its `*` being the element
//! object_*->name the field of a hash
//! ```

use bytes::Bytes;

use crate::store::commands::context::Context;
use crate::store::commands::failure::Failure;
use crate::store::format::object::Value;
use crate::store::kinds::{hash, string};

const ARROW: &[u8] = b"->";

/// What a pattern finds for an element.
pub(super) fn value_of(
    context: &mut Context<'_>,
    pattern: &[u8],
    element: &Bytes,
) -> Result<Option<Bytes>, Failure> {
    if pattern == b"#" {
        return Ok(Some(element.clone()));
    }
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else {
        return Ok(None);
    };
    let (before, behind) = pattern.split_at(star);
    let behind = behind.get(1..).unwrap_or(&[]);
    let arrow = behind
        .windows(ARROW.len())
        .position(|window| window == ARROW);
    let (behind, field) = match arrow.and_then(|at| behind.split_at_checked(at)) {
        Some((behind, field)) if field.len() > ARROW.len() => (behind, field.get(ARROW.len()..)),
        _ => (behind, None),
    };
    let key = [before, element, behind].concat();
    let found = context.read(&key)?.map(|object| object.value);
    let rows = context.keyspace.rows_read();
    Ok(match (found, field) {
        (Some(Value::Hash(of)), Some(field)) => hash::get(rows, &of, field)?,
        (Some(Value::String(of)), None) => Some(string::read_all(rows, &of)?),
        _ => None,
    })
}
