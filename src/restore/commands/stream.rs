//! A stream as commands.
//!
//! ```text
//! entries     XADD tmp id f v ..                      one each
//! none live   XADD tmp MAXLEN 0 id x y                makes the key, keeps nothing
//! state       XSETID tmp last [ENTRIESADDED n MAXDELETEDID id]      7.0
//! group       XGROUP CREATE tmp g last [ENTRIESREAD n]              7.0
//! consumer    XGROUP CREATECONSUMER tmp g c           6.2; before: a read of its past
//! pending     XCLAIM tmp g c 0 id TIME ms RETRYCOUNT n JUSTID FORCE
//! given back  XNACK tmp g FAIL IDS 1 id RETRYCOUNT n FORCE          8.8
//! producers   XCFGSET tmp IDMP-DURATION s IDMP-MAXSIZE n            8.6
//!             XIDMPRECORD tmp producer request id
//! ```
//!
//! XCLAIM makes nothing pending for an entry that is gone; its reply says so
//! ([`Reply::Claimed`]). When consumers were seen is lost.

use crate::rdb::{Element, Loss, StreamCounters, StreamId};
use crate::resp::{write_array_header, write_bulk};

use super::super::reply::Reply;
use super::super::restorer::Requests;
use super::Builder;

/// Where a stream's building stands.
#[derive(Debug, Default)]
pub(super) struct StreamProgress {
    entries: u64,
    /// The first live entry.
    first_id: Option<StreamId>,
    last_id: StreamId,
    /// Whether the value says how far each group has read.
    counts_reads: bool,
}

impl StreamProgress {
    /// How many entries a group has read that stands at `id`, as servers reckon
    /// for streams without that count; `None` where they cannot tell.
    fn reads_up_to(&self, id: StreamId) -> Option<u64> {
        let first = self.first_id.unwrap_or(self.last_id);
        if self.entries == 0 || id < first {
            Some(0)
        } else if id == self.last_id {
            Some(self.entries)
        } else {
            (id == first).then_some(1)
        }
    }
}

/// An id that XADD takes where a stream never had one.
const FIRST_ID: StreamId = StreamId { ms: 0, seq: 1 };

impl Builder {
    pub(super) fn stream_element(&mut self, requests: &mut Requests<'_>, element: Element<'_>) {
        match element {
            Element::StreamEntry { id, fields } => {
                self.begun = true;
                self.stream.entries += 1;
                self.stream.first_id.get_or_insert(id);
                write_array_header(requests.bytes, 3 + 2 * fields.len());
                write_bulk(requests.bytes, b"XADD");
                write_bulk(requests.bytes, &self.temporary);
                write_bulk(requests.bytes, id.to_string().as_bytes());
                for (name, value) in fields {
                    write_bulk(requests.bytes, name);
                    write_bulk(requests.bytes, value);
                }
                requests.replies.push(Reply::Accepted);
            }
            Element::StreamState {
                length: _,
                last_id,
                counters,
            } => self.state(requests, last_id, counters),
            Element::StreamGroup {
                group,
                last_id,
                entries_read,
            } => self.group(requests, group, last_id, entries_read),
            Element::StreamConsumer {
                group, consumer, ..
            } => self.consumer(requests, group, consumer),
            Element::StreamPending {
                group,
                consumer: Some(consumer),
                id,
                delivered_at_ms,
                deliveries,
            } => requests.judged(
                &[
                    b"XCLAIM",
                    &self.temporary,
                    group,
                    consumer,
                    b"0",
                    id.to_string().as_bytes(),
                    b"TIME",
                    delivered_at_ms.to_string().as_bytes(),
                    b"RETRYCOUNT",
                    deliveries.to_string().as_bytes(),
                    b"JUSTID",
                    b"FORCE",
                ],
                Reply::Claimed,
            ),
            Element::StreamPending { consumer: None, .. } => self.lose(Loss::StreamUnowned),
            Element::StreamNacked {
                group,
                id,
                deliveries,
                ..
            } => self.given_back(requests, group, id, deliveries),
            Element::StreamIdempotence { .. }
            | Element::StreamProduced { .. }
            | Element::StreamProducedCounters { .. } => self.produced(requests, element),
            // Other kinds are built by the caller.
            _ => {}
        }
    }

    fn state(
        &mut self,
        requests: &mut Requests<'_>,
        last_id: StreamId,
        counters: Option<StreamCounters>,
    ) {
        self.begun = true;
        self.stream.last_id = last_id;
        self.stream.counts_reads = counters.is_some();
        if self.stream.entries == 0 {
            let id = last_id.max(FIRST_ID).to_string();
            requests.command(&[
                b"XADD",
                &self.temporary,
                b"MAXLEN",
                b"0",
                id.as_bytes(),
                b"x",
                b"y",
            ]);
        }
        let last = last_id.to_string();
        if !self.dialect.stream_counters {
            if counters.is_some() {
                self.lose(Loss::StreamCounters);
            }
            return requests.command(&[b"XSETID", &self.temporary, last.as_bytes()]);
        }
        // Told in every case: the entry that made an empty stream was counted.
        let added = counters.map_or(self.stream.entries, |counters| counters.entries_added);
        let deleted = counters.map(|counters| counters.max_deleted_id);
        requests.command(&[
            b"XSETID",
            &self.temporary,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.to_string().as_bytes(),
            b"MAXDELETEDID",
            deleted.unwrap_or_default().to_string().as_bytes(),
        ]);
    }

    fn group(
        &mut self,
        requests: &mut Requests<'_>,
        group: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
    ) {
        let last = last_id.to_string();
        let create: [&[u8]; 5] = [
            b"XGROUP",
            b"CREATE",
            &self.temporary,
            group,
            last.as_bytes(),
        ];
        let entries_read = match self.stream.counts_reads {
            true => entries_read,
            false => self.stream.reads_up_to(last_id),
        };
        match entries_read.filter(|_| self.dialect.stream_counters) {
            None => requests.command(&create),
            Some(count) => {
                let count = count.to_string();
                let [verb, create, key, group, last] = create;
                requests.command(&[
                    verb,
                    create,
                    key,
                    group,
                    last,
                    b"ENTRIESREAD",
                    count.as_bytes(),
                ]);
            }
        }
    }

    fn consumer(&mut self, requests: &mut Requests<'_>, group: &[u8], consumer: &[u8]) {
        self.lose(Loss::StreamConsumerTimes);
        let key = &self.temporary[..];
        if self.dialect.create_consumer {
            requests.command(&[b"XGROUP", b"CREATECONSUMER", key, group, consumer]);
        } else {
            // Reading what is pending for it, which is nothing, makes the consumer.
            requests.command(&[
                b"XREADGROUP",
                b"GROUP",
                group,
                consumer,
                b"COUNT",
                b"1",
                b"STREAMS",
                key,
                b"0",
            ]);
        }
    }

    fn given_back(
        &mut self,
        requests: &mut Requests<'_>,
        group: &[u8],
        id: StreamId,
        deliveries: u64,
    ) {
        if !self.dialect.stream_nacks {
            return self.lose(Loss::StreamUnowned);
        }
        let (id, deliveries) = (id.to_string(), deliveries.to_string());
        let args: [&[u8]; 10] = [
            b"XNACK",
            &self.temporary,
            group,
            b"FAIL",
            b"IDS",
            b"1",
            id.as_bytes(),
            b"RETRYCOUNT",
            deliveries.as_bytes(),
            b"FORCE",
        ];
        requests.judged(&args, Reply::AcceptedOr(Loss::StreamUnowned));
    }

    fn produced(&mut self, requests: &mut Requests<'_>, element: Element<'_>) {
        let reply = Reply::AcceptedOr(Loss::StreamProducers);
        match element {
            Element::StreamIdempotence {
                duration_s,
                entries_max,
            } if self.dialect.stream_producers => {
                let (duration, entries) = (duration_s.to_string(), entries_max.to_string());
                let args: [&[u8]; 6] = [
                    b"XCFGSET",
                    &self.temporary,
                    b"IDMP-DURATION",
                    duration.as_bytes(),
                    b"IDMP-MAXSIZE",
                    entries.as_bytes(),
                ];
                requests.judged(&args, reply);
            }
            Element::StreamProduced {
                producer,
                request,
                id,
            } if self.dialect.stream_producers => {
                let id = id.to_string();
                let args: [&[u8]; 5] = [
                    b"XIDMPRECORD",
                    &self.temporary,
                    producer,
                    request,
                    id.as_bytes(),
                ];
                requests.judged(&args, reply);
            }
            Element::StreamProduced { .. } => self.lose(Loss::StreamProducers),
            // No command sets the counters; without producers they are 0.
            Element::StreamProducedCounters { added, duplicates }
                if added > 0 || duplicates > 0 =>
            {
                self.lose(Loss::StreamCounters);
            }
            _ => {}
        }
    }
}
