//! Makes a sorted set of members that come one after the other.

use bytes::Bytes;

use super::{Entry, Limits, owned, push_inline, put_rows, sort};
use crate::store::format::object::{Collection, Stored};
use crate::store::format::packed::PackedWriter;
use crate::store::format::row::ObjectId;
use crate::store::keyspace::Keyspace;
use crate::store::kinds::fields;
use crate::store::kinds::{INLINE_BYTES_MAX, INLINE_ITEMS_MAX};
use crate::store::rows::StoreError;

/// What an inline element takes besides its member, at most for short ones.
const ELEMENT_BYTES: usize = 11;

/// See the head of this file. In rows as soon as it must.
#[derive(Debug, Default)]
pub struct Builder {
    held: Vec<Entry>,
    held_bytes: usize,
    rows: Option<ObjectId>,
    count: u64,
    longest: usize,
    /// Members in rows whose score is -0, as long as they may be few.
    minus_zeros: Vec<Bytes>,
}

impl Builder {
    /// One more member, in any order; false if it came before, and then nothing is done.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn push(
        &mut self,
        keyspace: &mut Keyspace,
        member: &[u8],
        score: f64,
    ) -> Result<bool, StoreError> {
        let is_known = match self.rows {
            None => self.held.iter().any(|entry| *entry.member == *member),
            Some(id) => fields::has(keyspace.rows_read(), id, member)?,
        };
        if is_known {
            return Ok(false);
        }
        self.push_new(keyspace, member, score);
        Ok(true)
    }

    /// One more member, which did not come before.
    pub fn push_new(&mut self, keyspace: &mut Keyspace, member: &[u8], score: f64) {
        self.count += 1;
        self.longest = self.longest.max(member.len());
        if score == 0.0 && score.is_sign_negative() && self.minus_zeros.len() < INLINE_ITEMS_MAX {
            self.minus_zeros.push(owned(member));
        }
        if let Some(id) = self.rows {
            return put_rows(keyspace, id, member, score);
        }
        self.held_bytes += member.len() + ELEMENT_BYTES;
        let member: Bytes = owned(member);
        self.held.push(Entry { member, score });
        if self.held_bytes > INLINE_BYTES_MAX || self.held.len() > INLINE_ITEMS_MAX {
            let id = keyspace.new_object_id();
            for entry in self.held.drain(..) {
                put_rows(keyspace, id, &entry.member, entry.score);
            }
            self.rows = Some(id);
        }
    }

    /// Members so far.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is none: then it is no set to be put.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The set. It is what Redis calls a listpack if it is within the limits, and then no
    /// score is -0.
    pub fn finish(mut self, keyspace: &mut Keyspace, limits: Limits) -> Collection {
        let is_short = self.longest as u64 <= limits.member_bytes;
        let is_compact = is_short && self.count <= limits.members;
        if is_compact {
            self.held.iter_mut().for_each(|entry| entry.score += 0.0);
            if let Some(id) = self.rows {
                let members = self.minus_zeros.iter();
                members.for_each(|member| put_rows(keyspace, id, member, 0.0));
            }
        }
        let stored = match self.rows {
            Some(id) => Stored::Rows {
                id,
                count: self.count,
            },
            None => {
                sort(&mut self.held);
                let mut writer = PackedWriter::with_capacity(self.held_bytes);
                for entry in &self.held {
                    push_inline(&mut writer, entry.score, &entry.member);
                }
                Stored::Inline(writer.finish())
            }
        };
        Collection { stored, is_compact }
    }
}
