//! Streams: entries packed in listpacks, then groups with what is pending.
//!
//! ```text
//! nodes: n, n x (master id 16 BE, listpack) | length | last id
//! | from type 19: first id, max deleted id, entries added
//! groups: n, n x (name, last id, [19: entries read],
//!   pending:   n, n x (id 16 BE, delivered at 8 LE, deliveries)
//!   consumers: n, n x (name, seen at 8 LE, [21: active at 8 LE], n x id 16 BE))
//!
//! listpack: count deleted fields=f name*f 0
//!           then each entry: flags ms-delta seq-delta [f name value ..| value*f] back-count
//! ```
//!
//! Source: `rdb.c` and `t_stream.c` of Redis 7.2.

use super::decode::Element;
use super::listpack::Listpack;
use super::reader::{Malformed, Reader};
use super::text::Text;
use super::value_type::ValueType;

const FLAG_DELETED: i64 = 1;
const FLAG_SAME_FIELDS: i64 = 2;

/// Id of a stream entry: Unix time in ms, and a sequence number within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix time in ms.
    pub ms: u64,
    /// Sequence number.
    pub seq: u64,
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

/// Which fields a stream type has.
#[derive(Clone, Copy)]
struct Layout {
    counters: bool,
    active_times: bool,
}

pub(super) fn decode(
    value_type: ValueType,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
    let layout = Layout {
        counters: value_type != ValueType::StreamListpacks,
        active_times: value_type == ValueType::StreamListpacks3,
    };
    for _ in 0..reader.number()? {
        let master = reader.string()?;
        let listpack = reader.string()?;
        node(&master, &listpack, sink)?;
    }
    let length = reader.number()?;
    let last_id = short_id(reader)?;
    let counters = if layout.counters {
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
    for _ in 0..reader.number()? {
        group(layout, reader, sink)?;
    }
    Ok(())
}

fn node(master: &[u8], blob: &[u8], sink: &mut impl FnMut(Element<'_>)) -> Result<(), Malformed> {
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

/// One entry of a group's list of pending entries.
struct Pending {
    id: StreamId,
    delivered_at_ms: i64,
    deliveries: u64,
    owned: bool,
}

fn group(
    layout: Layout,
    reader: &mut Reader<'_>,
    sink: &mut impl FnMut(Element<'_>),
) -> Result<(), Malformed> {
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
            let id = long_id(reader)?;
            let entry = pending
                .binary_search_by_key(&id, |entry| entry.id)
                .ok()
                .and_then(|at| pending.get_mut(at))
                .filter(|entry| !entry.owned)
                .ok_or(Malformed::Structure(
                    "a consumer's pending id is not its group's to give",
                ))?;
            entry.owned = true;
            emit(&group, Some(&consumer), entry, sink);
        }
    }
    for entry in pending.iter().filter(|entry| !entry.owned) {
        emit(&group, None, entry, sink);
    }
    Ok(())
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
    let mut pending = Vec::new();
    for _ in 0..reader.number()? {
        pending.push(Pending {
            id: long_id(reader)?,
            delivered_at_ms: reader.i64_le()?,
            deliveries: reader.number()?,
            owned: false,
        });
    }
    // Servers write them ascending; the search above depends on it.
    pending.sort_by_key(|entry| entry.id);
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
