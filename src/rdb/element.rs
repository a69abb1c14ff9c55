//! Logical elements: what values are made of, whatever their layout.
//!
//! ```text
//! string  String                      list  ListItem*          set  SetMember*
//! zset    ScoredMember*               hash  HashField*         array  [ArrayCursor] ArrayItem*
//! stream  StreamEntry* StreamState (StreamGroup (StreamConsumer StreamPending*)* StreamNacked*
//!         StreamPending*)* [StreamIdempotence StreamProduced* StreamProducedCounters]
//! ```

use super::stream::{StreamCounters, StreamId};
use super::text::Text;

/// One logical part of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element<'a> {
    /// A whole string value.
    String(&'a [u8]),
    /// More of a string value that comes in parts; only
    /// [`PartDecoder`](super::decode::PartDecoder) gives it.
    StringPart(&'a [u8]),
    /// The next item of a list, from its head.
    ListItem(&'a [u8]),
    /// A member of a set.
    SetMember(&'a [u8]),
    /// A member of a sorted set.
    ScoredMember {
        /// The member.
        member: &'a [u8],
        /// Its score; never NaN.
        score: f64,
    },
    /// A field of a hash.
    HashField {
        /// Its name.
        field: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When the field expires, Unix time in ms.
        expires_at_ms: Option<i64>,
    },
    /// A live entry of a stream, ascending by id.
    StreamEntry {
        /// Its id.
        id: StreamId,
        /// Its fields in order; a name may stand twice.
        fields: &'a [(Text<'a>, Text<'a>)],
    },
    /// After a stream's entries: what it knows about itself.
    StreamState {
        /// Live entries as the stream counts them.
        length: u64,
        /// The highest id ever used.
        last_id: StreamId,
        /// Absent in type 15 (Redis 5 and 6).
        counters: Option<StreamCounters>,
    },
    /// A consumer group.
    StreamGroup {
        /// Its name.
        group: &'a [u8],
        /// The last id delivered.
        last_id: StreamId,
        /// Entries read; `None` in type 15 and where the server lost count.
        entries_read: Option<u64>,
    },
    /// A consumer of a group; its pending entries follow.
    StreamConsumer {
        /// Its group.
        group: &'a [u8],
        /// Its name.
        consumer: &'a [u8],
        /// When it last tried to read, Unix time in ms.
        seen_at_ms: i64,
        /// When it last got something, Unix time in ms; `None` before type 21 and for never.
        active_at_ms: Option<i64>,
    },
    /// An entry delivered and not acknowledged.
    StreamPending {
        /// Its group.
        group: &'a [u8],
        /// The consumer that has it; `None` if no consumer lists it.
        consumer: Option<&'a [u8]>,
        /// The entry, which may be deleted meanwhile.
        id: StreamId,
        /// When it was last delivered, Unix time in ms.
        delivered_at_ms: i64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// An entry that a consumer gave back with XNACK: pending, and nobody's.
    StreamNacked {
        /// Its group.
        group: &'a [u8],
        /// The entry, which may be deleted meanwhile.
        id: StreamId,
        /// When it was last delivered, Unix time in ms.
        delivered_at_ms: i64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// After a stream's groups, from type 26 on: how long it remembers what
    /// producers sent (XCFGSET), so that nothing is added twice.
    StreamIdempotence {
        /// Seconds.
        duration_s: u64,
        /// Requests of each producer.
        entries_max: u64,
    },
    /// A request of a producer that is remembered (XIDMPRECORD).
    StreamProduced {
        /// The producer's id.
        producer: &'a [u8],
        /// The request's id.
        request: &'a [u8],
        /// The entry it made.
        id: StreamId,
    },
    /// Last of a stream, from type 26 on: what its producers did so far.
    StreamProducedCounters {
        /// Requests with an id that made an entry.
        added: u64,
        /// Requests that came again.
        duplicates: u64,
    },
    /// Before an array's items: where the last insertion without an index went
    /// (ARSEEK one behind it).
    ArrayCursor {
        /// That index.
        inserted_at: u64,
    },
    /// An item of an array, ascending by index.
    ArrayItem {
        /// Its index.
        index: u64,
        /// Its text; doubles in the shortest form that reads as the same number.
        value: &'a [u8],
    },
    /// A module's value, which only the module understands.
    Module(&'a [u8]),
    /// A rate limiter: its theoretical arrival time, as the server keeps it.
    RateLimiter(u64),
}
