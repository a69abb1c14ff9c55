//! How far a group is behind: Redis 7.0's reckoning, which knows no more than the stream's
//! counters.

use crate::rdb::StreamId;
use crate::store::format::object::StreamValue;

use super::Group;

/// Whether an entry at or behind `from` was deleted, as far as that is known.
fn has_gaps(stream: &StreamValue, from: StreamId) -> bool {
    let is_known = stream.entries > 0 && stream.max_deleted != StreamId::MIN;
    is_known && stream.first <= stream.max_deleted && from <= stream.max_deleted
}

/// Which of all entries that were ever added is the one of this id, the first being 1.
/// `None` where nobody knows.
pub(super) fn place(stream: &StreamValue, id: StreamId) -> Option<u64> {
    if stream.added == 0 {
        return Some(0);
    }
    if id == stream.last || (stream.entries == 0 && id < stream.last) {
        return Some(stream.added);
    }
    if id > stream.last {
        return None;
    }
    let gone = stream.added.wrapping_sub(stream.entries);
    let is_whole = stream.max_deleted == StreamId::MIN || stream.max_deleted < stream.first;
    match id.cmp(&stream.first) {
        std::cmp::Ordering::Less if is_whole => Some(gone),
        std::cmp::Ordering::Equal if is_whole => Some(gone.wrapping_add(1)),
        _ => None,
    }
}

/// The group was given the entry of `id`, which is behind what it had.
pub fn count_read(stream: &StreamValue, group: &mut Group, id: StreamId) {
    if let Some(read) = group.entries_read
        && !has_gaps(stream, id)
    {
        group.entries_read = Some(read.wrapping_add(1));
    } else if stream.added > 0 {
        group.entries_read = place(stream, id);
    }
    group.last = id;
}

/// Entries that the group was not given yet. `None` where nobody knows.
pub fn lag(stream: &StreamValue, group: &Group) -> Option<i64> {
    let read = match group.entries_read {
        _ if stream.added == 0 => return Some(0),
        Some(read) if !has_gaps(stream, group.last) => read,
        _ => place(stream, group.last)?,
    };
    Some(stream.added.wrapping_sub(read) as i64)
}
