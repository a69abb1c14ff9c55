//! Makes a list of items that come one after the other, in rows as soon as it must.

use super::{MIDDLE, in_rows, put};
use crate::store::format::object::ListValue;
use crate::store::format::packed::PackedWriter;
use crate::store::format::row::ObjectId;
use crate::store::keyspace::Keyspace;
use crate::store::kinds::{INLINE_BYTES_MAX, INLINE_ITEMS_MAX};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Builder {
    writer: PackedWriter,
    items: usize,
    rows: Option<(ObjectId, u64)>,
}

impl Builder {
    /// One more item at the tail.
    pub fn push(&mut self, keyspace: &mut Keyspace, item: &[u8]) {
        if self.rows.is_none() {
            let bytes = self.writer.len() + item.len() + 2;
            if bytes <= INLINE_BYTES_MAX && self.items < INLINE_ITEMS_MAX {
                self.writer.push(item);
                self.items += 1;
                return;
            }
            let held = std::mem::take(&mut self.writer).finish();
            if let ListValue::Rows { id, end, .. } = in_rows(keyspace, &held) {
                self.rows = Some((id, end));
            }
        }
        if let Some((id, end)) = &mut self.rows {
            put(keyspace.rows(), *id, *end, item);
            *end += 1;
        }
    }

    /// The list; it may be empty, and then is none to be put.
    pub fn finish(self) -> ListValue {
        match self.rows {
            Some((id, end)) => ListValue::Rows {
                id,
                first: MIDDLE,
                end,
            },
            None => ListValue::Inline(self.writer.finish()),
        }
    }
}
