//! Streams: entries packed in listpacks, then groups with what is pending.
//!
//! ```text
//! nodes: n, n x (master id 16 BE, listpack) | length | last id
//! | from type 19: first id, max deleted id, entries added
//! groups: n, n x (name, last id, [19: entries read],
//!   pending:   n, n x (id 16 BE, delivered at 8 LE, deliveries)
//!   consumers: n, n x (name, seen at 8 LE, [21: active at 8 LE], n x id 16 BE)
//!   [27: given back: n, n x id 16 BE])
//! | from type 26: seconds, entries | producers: n, n x (id, n x (request, entry's id)) | added, again
//!
//! listpack: count deleted fields=f name*f 0
//!           then each entry: flags ms-delta seq-delta [f name value ..| value*f] back-count
//! ```
//!
//! Source: `rdb.c` and `t_stream.c` of Redis 7.2.

use super::element::Element;
use super::listpack::Listpack;
use super::reader::{Malformed, Reader};
use super::text::Text;
use super::value_type::ValueType;

const FLAG_DELETED: i64 = 1;
pub(super) const FLAG_SAME_FIELDS: i64 = 2;

/// Fields of one entry, and names of one node, that are held while it is
/// decoded: 48 MiB of them. A request of that many arguments is beyond what
/// servers take by default.
const ENTRY_FIELDS_MAX: usize = 1 << 19;

/// Least bytes of a pending entry: id, time, count.
const PENDING_BYTES_MIN: usize = 16 + 8 + 1;

/// Id of a stream entry: Unix time in ms, and a sequence number within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix time in ms.
    pub ms: u64,
    /// Sequence number.
    pub seq: u64,
}

impl StreamId {
    /// Before all others.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    /// Behind all others.
    pub const MAX: StreamId = StreamId {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The one behind it.
    pub fn next(self) -> Option<StreamId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId {
                ms: self.ms.checked_add(1)?,
                seq: 0,
            }),
        }
    }

    /// The one before it.
    pub fn before(self) -> Option<StreamId> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId {
                ms: self.ms.checked_sub(1)?,
                seq: u64::MAX,
            }),
        }
    }

    /// As 16 bytes, big-endian: in the order of ids.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (ms, seq) = bytes.split_at_mut(8);
        ms.copy_from_slice(&self.ms.to_be_bytes());
        seq.copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    /// The id of [`StreamId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> StreamId {
        let both = u128::from_be_bytes(bytes);
        StreamId {
            ms: (both >> 64) as u64,
            seq: both as u64,
        }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Counters that streams carry since type 19 (Redis 7.0), for lag estimates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCounters {
    /// Id of the first live entry, 0-0 if there is none.
    pub first_id: StreamId,
    /// Highest id that was deleted.
    pub max_deleted_id: StreamId,
    /// Entries ever added.
    pub entries_added: u64,
}

/// Whether values of this type end with what is remembered of producers.
pub(super) fn has_producers(value_type: ValueType) -> bool {
    matches!(
        value_type,
        ValueType::StreamListpacks4 | ValueType::StreamListpacks5
    )
}

/// Which fields a stream type has.
#[derive(Clone, Copy)]
struct Layout {
    counters: bool,
    active_times: bool,
    nacked: bool,
}

impl Layout {
    fn of(value_type: ValueType) -> Self {
        Self {
            counters: value_type != ValueType::StreamListpacks,
            active_times: !matches!(
                value_type,
                ValueType::StreamListpacks | ValueType::StreamListpacks2
            ),
            nacked: value_type == ValueType::StreamListpacks5,
        }
    }
}

/// One node: the entries of a master id.
pub(super) fn node(
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let master = reader.string()?;
    let listpack = reader.string()?;
    entries(&master, &listpack, sink)
}

/// What a stream knows about itself, up to the count of its groups.
pub(super) fn state(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let length = reader.number()?;
    let last_id = short_id(reader)?;
    let counters = if Layout::of(value_type).counters {
        Some(StreamCounters {
            first_id: short_id(reader)?,
            max_deleted_id: short_id(reader)?,
            entries_added: reader.number()?,
        })
    } else {
        None
    };
    sink(Element::StreamState {
        length,
        last_id,
        counters,
    });
    Ok(())
}

/// How long producers are remembered, up to the count of those that are.
pub(super) fn idempotence(
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    sink(Element::StreamIdempotence {
        duration_s: reader.number()?,
        entries_max: reader.number()?,
    });
    Ok(())
}

/// One producer with its requests.
pub(super) fn producer(
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let producer = reader.string()?;
    for _ in 0..reader.number()? {
        let request = reader.string()?;
        sink(Element::StreamProduced {
            producer: &producer,
            request: &request,
            id: short_id(reader)?,
        });
    }
    Ok(())
}

/// The last of a stream.
pub(super) fn producer_counters(
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    sink(Element::StreamProducedCounters {
        added: reader.number()?,
        duplicates: reader.number()?,
    });
    Ok(())
}

fn entries(
    master: &[u8],
    blob: &[u8],
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let mut id_reader = Reader::new(master);
    let master = long_id(&mut id_reader)?;
    id_reader.finish()?;
    let mut listpack = Listpack::new(blob)?;
    let live = listpack.number()?;
    let deleted = listpack.number()?;
    let entries = live
        .checked_add(deleted)
        .filter(|_| live >= 0 && deleted >= 0)
        .ok_or(Malformed::Range("a stream node's count of entries"))?;
    let mut names = Vec::new();
    for _ in 0..field_count(&mut listpack)? {
        within_bound(names.len())?;
        names.push(Text::from(listpack.expect()?));
    }
    if listpack.number()? != 0 {
        return Err(Malformed::Structure(
            "a stream node's master entry does not end with 0",
        ));
    }
    let mut fields = Vec::new();
    for _ in 0..entries {
        let flags = listpack.number()?;
        // Deltas are differences modulo 2^64.
        let id = StreamId {
            ms: master.ms.wrapping_add_signed(listpack.number()?),
            seq: master.seq.wrapping_add_signed(listpack.number()?),
        };
        fields.clear();
        if flags & FLAG_SAME_FIELDS != 0 {
            for name in &names {
                fields.push((name.clone(), listpack.expect()?.into()));
            }
        } else {
            for _ in 0..field_count(&mut listpack)? {
                within_bound(fields.len())?;
                fields.push((listpack.expect()?.into(), listpack.expect()?.into()));
            }
        }
        listpack.number()?;
        if flags & FLAG_DELETED == 0 {
            sink(Element::StreamEntry {
                id,
                fields: &fields,
            });
        }
    }
    match listpack.next()? {
        None => Ok(()),
        Some(_) => Err(Malformed::Structure(
            "elements follow a stream node's last entry",
        )),
    }
}

fn field_count(listpack: &mut Listpack<'_>) -> Result<u64, Malformed> {
    u64::try_from(listpack.number()?).map_err(|_| Malformed::Range("a count of stream fields"))
}

fn within_bound(fields: usize) -> Result<(), Malformed> {
    if fields < ENTRY_FIELDS_MAX {
        Ok(())
    } else {
        Err(Malformed::Range("how many fields a stream's entry has"))
    }
}

/// One entry of a group's list of pending entries.
struct Pending {
    id: StreamId,
    delivered_at_ms: i64,
    deliveries: u64,
    owned: bool,
}

/// One consumer group with all that is pending in it.
pub(super) fn group(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let layout = Layout::of(value_type);
    let group = reader.string()?;
    let last_id = short_id(reader)?;
    let entries_read = if layout.counters {
        Some(reader.number()?).filter(|count| *count != u64::MAX)
    } else {
        None
    };
    sink(Element::StreamGroup {
        group: &group,
        last_id,
        entries_read,
    });
    let mut pending = pending_entries(reader)?;
    for _ in 0..reader.number()? {
        let consumer = reader.string()?;
        let seen_at_ms = reader.i64_le()?;
        let active_at_ms = if layout.active_times {
            Some(reader.i64_le()?).filter(|at_ms| *at_ms != -1)
        } else {
            None
        };
        sink(Element::StreamConsumer {
            group: &group,
            consumer: &consumer,
            seen_at_ms,
            active_at_ms,
        });
        for _ in 0..reader.number()? {
            let entry = take(&mut pending, long_id(reader)?)?;
            emit(&group, Some(&consumer), entry, sink);
        }
    }
    if layout.nacked {
        for _ in 0..reader.number()? {
            let entry = take(&mut pending, long_id(reader)?)?;
            sink(Element::StreamNacked {
                group: &group,
                id: entry.id,
                delivered_at_ms: entry.delivered_at_ms,
                deliveries: entry.deliveries,
            });
        }
    }
    for entry in pending.iter().filter(|entry| !entry.owned) {
        emit(&group, None, entry, sink);
    }
    Ok(())
}

/// The pending entry `id`, which nobody took before.
fn take(pending: &mut [Pending], id: StreamId) -> Result<&Pending, Malformed> {
    let at = pending.binary_search_by_key(&id, |entry| entry.id).ok();
    let entry = at.and_then(|at| pending.get_mut(at));
    let entry = entry
        .filter(|entry| !entry.owned)
        .ok_or(Malformed::Structure(
            "a consumer's pending id is not its group's to give",
        ))?;
    entry.owned = true;
    Ok(entry)
}

fn emit(
    group: &[u8],
    consumer: Option<&[u8]>,
    entry: &Pending,
    sink: &mut impl FnMut(Element<'_>),
) {
    sink(Element::StreamPending {
        group,
        consumer,
        id: entry.id,
        delivered_at_ms: entry.delivered_at_ms,
        deliveries: entry.deliveries,
    });
}

/// The pending entries of a group, ascending by id.
fn pending_entries(reader: &mut Reader<'_>) -> Result<Vec<Pending>, Malformed> {
    let count = reader.number()?;
    let fits = reader.left() / PENDING_BYTES_MIN;
    let mut pending = Vec::with_capacity(fits.min(usize::try_from(count).unwrap_or(fits)));
    for _ in 0..count {
        pending.push(Pending {
            id: long_id(reader)?,
            delivered_at_ms: reader.i64_le()?,
            deliveries: reader.number()?,
            owned: false,
        });
    }
    // Servers write them ascending; the search above depends on it.
    pending.sort_unstable_by_key(|entry| entry.id);
    if pending
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.id == b.id))
    {
        return Err(Malformed::Structure(
            "a group has the same pending id twice",
        ));
    }
    Ok(pending)
}

/// An id as 16 bytes big-endian.
fn long_id(reader: &mut Reader<'_>) -> Result<StreamId, Malformed> {
    Ok(StreamId {
        ms: u64::from_be_bytes(reader.array()?),
        seq: u64::from_be_bytes(reader.array()?),
    })
}

/// An id as two lengths.
fn short_id(reader: &mut Reader<'_>) -> Result<StreamId, Malformed> {
    Ok(StreamId {
        ms: reader.number()?,
        seq: reader.number()?,
    })
}
