//! A stream put together of the elements that an RDB has of it.
//!
//! ```text
//! entry* state (group (consumer pending*)*)*
//! ```

use crate::rdb::{Element, StreamCounters, StreamId};
use crate::store::format::object::StreamValue;
use crate::store::format::packed::PackedWriter;
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

use super::{Membership, Pending, append, counters, create_group, empty, group};

/// See the head of this file.
#[derive(Debug)]
pub struct Builder {
    stream: StreamValue,
    state: State,
    /// The group whose consumers come now.
    open: Option<Membership>,
}

/// Whether the stream's own numbers were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awaited,
    /// In type 15: the others are reckoned.
    Short,
    Told,
}

impl Builder {
    /// A stream without entries.
    pub fn new(keyspace: &mut Keyspace) -> Self {
        Self {
            stream: empty(keyspace),
            state: State::Awaited,
            open: None,
        }
    }

    /// The next element; false if it is not of a stream, or was there already.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn push(&mut self, rows: &mut Rows, element: &Element<'_>) -> Result<bool, StoreError> {
        match *element {
            Element::StreamEntry { id, fields } => {
                let is_next = self.stream.entries == 0 || id > self.stream.last;
                if self.state != State::Awaited || !is_next {
                    return Ok(false);
                }
                let mut packed = PackedWriter::default();
                for (name, value) in fields {
                    packed.push(name);
                    packed.push(value);
                }
                append(rows, &mut self.stream, id, &packed.finish());
                Ok(true)
            }
            Element::StreamState {
                last_id, counters, ..
            } => {
                self.set_state(last_id, counters);
                Ok(true)
            }
            Element::StreamGroup {
                group: name,
                last_id,
                entries_read,
            } => {
                self.close(rows);
                let read = match self.state {
                    State::Awaited => return Ok(false),
                    State::Short => counters::place(&self.stream, last_id),
                    State::Told => entries_read,
                };
                if group(rows, &self.stream, name)?.is_some() {
                    return Ok(false);
                }
                self.open = Some(create_group(&mut self.stream, name, last_id, read));
                Ok(true)
            }
            Element::StreamConsumer {
                consumer: name,
                seen_at_ms,
                ..
            } => {
                let Some(open) = &mut self.open else {
                    return Ok(false);
                };
                if open.consumer(rows, &self.stream, name)?.is_some() {
                    return Ok(false);
                }
                open.join(&mut self.stream, name, seen_at_ms);
                Ok(true)
            }
            Element::StreamPending {
                consumer: Some(consumer),
                id,
                delivered_at_ms,
                deliveries,
                ..
            } => {
                let Some(open) = &mut self.open else {
                    return Ok(false);
                };
                let pending = Pending {
                    id,
                    delivered_ms: delivered_at_ms,
                    times: deliveries,
                    consumer: bytes::Bytes::copy_from_slice(consumer),
                };
                open.give(rows, &self.stream, &pending, None)?;
                Ok(true)
            }
            // How long to remember producers, and how many: of no use without any.
            Element::StreamIdempotence { .. } | Element::StreamProducedCounters { .. } => Ok(true),
            _ => Ok(false),
        }
    }

    fn set_state(&mut self, last: StreamId, told: Option<StreamCounters>) {
        let stream = &mut self.stream;
        stream.last = stream.last.max(last);
        self.state = match told {
            None => State::Short,
            Some(told) => {
                stream.max_deleted = told.max_deleted_id;
                stream.added = told.entries_added;
                State::Told
            }
        };
    }

    fn close(&mut self, rows: &mut Rows) {
        if let Some(open) = self.open.take() {
            open.put(rows, &self.stream);
        }
    }

    /// The stream, also if it has no entry.
    pub fn finish(mut self, rows: &mut Rows) -> StreamValue {
        self.close(rows);
        self.stream
    }
}
