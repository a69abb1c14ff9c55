//! A copy of an object: of its rows, whatever they say.

use crate::store::format::object::{Collection, ListValue, Object, Stored, StringStored, Value};
use crate::store::format::row::{self, ObjectId, kind};
use crate::store::keyspace::Keyspace;
use crate::store::rows::StoreError;

/// Rows that are copied at once.
const ROWS_AT_ONCE: usize = 256;
/// All kinds of sub rows, the lowest first.
const KINDS: [u8; 6] = [
    kind::CHUNK,
    kind::ENTRY,
    kind::FIELD,
    kind::GROUP,
    kind::INDEX,
    kind::SCORE,
];

/// The same value, with rows of its own.
///
/// # Errors
/// [`StoreError`] of the engine; what was copied has no name then.
pub fn object(keyspace: &mut Keyspace, of: &Object) -> Result<Object, StoreError> {
    let mut copy = of.clone();
    if let Some(id) = id_mut(&mut copy.value) {
        let new = keyspace.new_object_id();
        rows(keyspace, *id, new)?;
        *id = new;
    }
    Ok(copy)
}

fn id_mut(value: &mut Value) -> Option<&mut ObjectId> {
    match value {
        Value::String(string) => match &mut string.stored {
            StringStored::Chunks { id, .. } => Some(id),
            StringStored::Whole(_) => None,
        },
        Value::List(ListValue::Rows { id, .. }) => Some(id),
        Value::List(ListValue::Inline(_)) => None,
        Value::Stream(of) => Some(&mut of.id),
        Value::Hash(Collection { stored, .. })
        | Value::Set(Collection { stored, .. })
        | Value::Zset(Collection { stored, .. }) => match stored {
            Stored::Rows { id, .. } => Some(id),
            Stored::Inline(_) => None,
        },
    }
}

fn rows(keyspace: &mut Keyspace, from: ObjectId, to: ObjectId) -> Result<(), StoreError> {
    for kind in KINDS {
        let (mut next, end) = (row::sub(from, kind), row::sub(from, kind + 1));
        let head = row::sub(to, kind);
        loop {
            let range = keyspace.rows().range(&next, &end)?;
            let found = range.take(ROWS_AT_ONCE).collect::<Result<Vec<_>, _>>()?;
            for (key, value) in &found {
                let name = key.get(head.len()..).unwrap_or(&[]);
                keyspace.rows().put(&[&head, name].concat(), value.clone());
            }
            match found.last() {
                Some((last, _)) if found.len() == ROWS_AT_ONCE => {
                    // What stands right behind it.
                    next = row::behind(last);
                }
                _ => break,
            }
        }
    }
    Ok(())
}
