//! A group that is being changed: what changed is put when it is done, each row once.
//!
//! ```text
//! group --> Membership::open -- join, give, take, leave --> put
//! ```

use std::collections::HashMap;

use bytes::Bytes;

use crate::rdb::StreamId;
use crate::store::format::object::StreamValue;
use crate::store::kinds::source::RowSource;
use crate::store::rows::{Rows, StoreError};

use super::group::{
    self, Consumer, Group, GroupPart, Pending, owned_row, pending_row, row_of_consumer,
    row_of_group, rows_of_group, value_of_pending,
};

/// Rows that are deleted in one go.
const ROWS_AT_ONCE: usize = 4096;

/// See the head of this file. Not put, its counts are wrong.
#[derive(Debug)]
pub struct Membership {
    /// The group, as it is now.
    pub group: Group,
    /// Consumers that were looked for and found.
    consumers: HashMap<Bytes, Consumer>,
}

/// Makes a group, of whose name there is none.
pub fn create_group(
    stream: &mut StreamValue,
    name: &[u8],
    last: StreamId,
    entries_read: Option<u64>,
) -> Membership {
    stream.groups += 1;
    stream.numbered += 1;
    Membership::open(Group {
        name: Bytes::copy_from_slice(name),
        number: stream.numbered,
        last,
        entries_read,
        consumers: 0,
        pending: 0,
        first_pending: StreamId::MIN,
        last_pending: StreamId::MIN,
    })
}

/// Removes a group with all that is in it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn destroy_group(
    rows: &mut Rows,
    stream: &mut StreamValue,
    group: &Group,
) -> Result<(), StoreError> {
    for part in GroupPart::ALL {
        let [mut from, to] = rows_of_group(stream.id, part, group.number);
        loop {
            let found = rows.rows_between(&from, &to)?.take(ROWS_AT_ONCE);
            let keys = found
                .map(|row| Ok(row?.0))
                .collect::<Result<Vec<_>, StoreError>>()?;
            keys.iter().for_each(|key| rows.delete(key));
            match keys.last() {
                Some(last) if keys.len() == ROWS_AT_ONCE => from = last.as_ref().into(),
                _ => break,
            }
        }
    }
    rows.delete(&row_of_group(stream.id, group).0);
    stream.groups = stream.groups.saturating_sub(1);
    Ok(())
}

impl Membership {
    /// Begins to change a group.
    pub fn open(group: Group) -> Self {
        Self {
            group,
            consumers: HashMap::new(),
        }
    }

    /// A consumer, as it is now.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn consumer(
        &mut self,
        rows: &Rows,
        stream: &StreamValue,
        name: &[u8],
    ) -> Result<Option<&mut Consumer>, StoreError> {
        if !self.consumers.contains_key(name) {
            let Some(found) = group::consumer(rows, stream, &self.group, name)? else {
                return Ok(None);
            };
            self.consumers.insert(found.name.clone(), found);
        }
        Ok(self.consumers.get_mut(name))
    }

    /// Makes a consumer, of whose name there is none.
    pub fn join(&mut self, stream: &mut StreamValue, name: &[u8], seen_ms: i64) {
        stream.numbered += 1;
        self.group.consumers += 1;
        let name = Bytes::copy_from_slice(name);
        let consumer = Consumer {
            name: name.clone(),
            number: stream.numbered,
            seen_ms,
            pending: 0,
        };
        self.consumers.insert(name, consumer);
    }

    /// Removes a consumer with what is pending for it, if there is one: how much that was.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn leave(
        &mut self,
        rows: &mut Rows,
        stream: &StreamValue,
        name: &[u8],
    ) -> Result<Option<u64>, StoreError> {
        let Some(consumer) = self.consumer(rows, stream, name)?.cloned() else {
            return Ok(None);
        };
        let group = self.group.number;
        let mut from = StreamId::MIN;
        loop {
            let found =
                group::owned_between(rows, stream, &self.group, &consumer, from, StreamId::MAX)?;
            let ids = found.take(ROWS_AT_ONCE).collect::<Result<Vec<_>, _>>()?;
            for id in &ids {
                rows.delete(&owned_row(stream.id, group, consumer.number, *id));
                rows.delete(&pending_row(stream.id, group, *id));
            }
            match ids.last() {
                Some(last) if ids.len() == ROWS_AT_ONCE => from = *last,
                _ => break,
            }
        }
        self.group.pending = self.group.pending.saturating_sub(consumer.pending);
        self.group.consumers = self.group.consumers.saturating_sub(1);
        rows.delete(&row_of_consumer(stream.id, group, &consumer).0);
        self.consumers.remove(name);
        Ok(Some(consumer.pending))
    }

    /// What is pending of an entry.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn pending(
        &self,
        rows: &Rows,
        stream: &StreamValue,
        id: StreamId,
    ) -> Result<Option<Pending>, StoreError> {
        group::pending(rows, stream, &self.group, id)
    }

    /// An entry is pending for a consumer that is there, in place of what was `before` of
    /// the same entry.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn give(
        &mut self,
        rows: &mut Rows,
        stream: &StreamValue,
        pending: &Pending,
        before: Option<&Pending>,
    ) -> Result<(), StoreError> {
        let (group, id) = (self.group.number, pending.id);
        let key = pending_row(stream.id, group, id);
        if before.is_some_and(|before| before.consumer == pending.consumer) {
            rows.put(&key, value_of_pending(pending));
            return Ok(());
        }
        // It is known from here on: nothing may fail once something is changed.
        self.consumer(rows, stream, &pending.consumer)?;
        match before {
            Some(before) => self.disown(rows, stream, before)?,
            None => {
                let group = &mut self.group;
                let (first, last) = match group.pending {
                    0 => (id, id),
                    _ => (id.min(group.first_pending), id.max(group.last_pending)),
                };
                (group.first_pending, group.last_pending) = (first, last);
                self.group.pending += 1;
            }
        }
        rows.put(&key, value_of_pending(pending));
        if let Some(consumer) = self.consumer(rows, stream, &pending.consumer)? {
            consumer.pending += 1;
            let row = owned_row(stream.id, group, consumer.number, id);
            rows.put(&row, Bytes::new());
        }
        Ok(())
    }

    /// What was pending is not: it was acknowledged, or its entry is gone.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn take(
        &mut self,
        rows: &mut Rows,
        stream: &StreamValue,
        pending: &Pending,
    ) -> Result<(), StoreError> {
        self.disown(rows, stream, pending)?;
        rows.delete(&pending_row(stream.id, self.group.number, pending.id));
        self.group.pending = self.group.pending.saturating_sub(1);
        // What is acknowledged in order is not walked over again.
        if pending.id == self.group.first_pending {
            self.group.first_pending = pending.id.next().unwrap_or(StreamId::MAX);
        }
        Ok(())
    }

    fn disown(
        &mut self,
        rows: &mut Rows,
        stream: &StreamValue,
        pending: &Pending,
    ) -> Result<(), StoreError> {
        let group = self.group.number;
        if let Some(consumer) = self.consumer(rows, stream, &pending.consumer)? {
            consumer.pending = consumer.pending.saturating_sub(1);
            rows.delete(&owned_row(stream.id, group, consumer.number, pending.id));
        }
        Ok(())
    }

    /// Puts what changed.
    pub fn put(self, rows: &mut Rows, stream: &StreamValue) {
        let (key, value) = row_of_group(stream.id, &self.group);
        rows.put(&key, value);
        for consumer in self.consumers.values() {
            let (key, value) = row_of_consumer(stream.id, self.group.number, consumer);
            rows.put(&key, value);
        }
    }
}
