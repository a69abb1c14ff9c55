//! Sorted sets: members in the order of their scores, then of their bytes.
//!
//! ```text
//! inline   score 8, member, score 8, member ..    in their order, in the meta row
//! rows     F | place, member -> score 8           what a member's score is, see `fields`
//!          Z | score, member -> (empty)           their order
//! ```
//! Scores are the bits of a double, big-endian. A member that is too long for a row's key
//! is whole in both values: of Z that is `minus 1 | member`. A score of -0 stands in the order as 0, and *minus* says that it is -0; where
//! the value is empty, it is not.
//!
//! Invariant: each member has one row of either kind, of the same score.

mod builder;
mod draw;
mod layout;
mod range;
#[cfg(test)]
mod tests;
mod walk;

use bytes::Bytes;

use super::fields;
use super::{INLINE_BYTES_MAX, INLINE_ITEMS_MAX};
use crate::store::format::object::{Collection, Stored};
use crate::store::format::packed::{Packed, PackedWriter};
use crate::store::format::row::{self, ObjectId, kind};
use crate::store::keyspace::Keyspace;
use crate::store::rows::{End, OUTERMOST_MAX, Rows, StoreError};

pub use builder::Builder;
pub use draw::{Scanned, draw, scan};
pub use range::{LexBound, LexRange, Range, ScoreRange};
pub use walk::{Direction, Entry, Walk, rank, walk, walk_all};

/// Members have their order by their scores, not by when they came.
const NO_TURN: u64 = 0;

/// What Redis calls a listpack has at most so many and so long members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members.
    pub members: u64,
    /// Bytes of one.
    pub member_bytes: u64,
}

/// A sorted set without members.
pub fn empty() -> Collection {
    Collection {
        stored: Stored::Inline(Packed::default()),
        is_compact: true,
    }
}

/// How many members there are.
pub fn len(zset: &Collection) -> u64 {
    match &zset.stored {
        Stored::Inline(held) => held.count() as u64 / 2,
        Stored::Rows { count, .. } => *count,
    }
}

/// The score of a member, if it is one.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn score(rows: &Rows, zset: &Collection, member: &[u8]) -> Result<Option<f64>, StoreError> {
    match &zset.stored {
        Stored::Inline(held) => {
            let mut pairs = held.iter().pairs();
            let found = pairs.find(|(_, of)| *of == member);
            found.map(|(score, _)| layout::score_of(score)).transpose()
        }
        Stored::Rows { id, .. } => {
            let found = fields::get(rows, *id, member)?;
            found
                .map(|element| layout::score_of(&element.value))
                .transpose()
        }
    }
}

/// Gives a member a score; `old` is the one it has.
///
/// # Errors
/// [`StoreError`] of a row that is none.
pub fn put(
    keyspace: &mut Keyspace,
    zset: &mut Collection,
    member: &[u8],
    score: f64,
    old: Option<f64>,
    limits: Limits,
) -> Result<(), StoreError> {
    if old.is_none() && zset.is_compact {
        let is_long = member.len() as u64 > limits.member_bytes;
        zset.is_compact = !is_long && len(zset) < limits.members;
    }
    // A listpack has integers where it can, and none is -0.
    let score = if zset.is_compact { score + 0.0 } else { score };
    if let Stored::Inline(held) = &zset.stored {
        let changed = inline_with(held, member, score)?;
        zset.stored = match changed.as_bytes().len() <= INLINE_BYTES_MAX
            && changed.count() <= 2 * INLINE_ITEMS_MAX
        {
            true => Stored::Inline(changed),
            false => in_rows(keyspace, &changed)?,
        };
        return Ok(());
    }
    if let Stored::Rows { id, count } = &mut zset.stored {
        match old {
            Some(old) => keyspace.rows().delete_owned(row::score(*id, old, member)),
            None => *count += 1,
        }
        put_rows(keyspace, *id, member, score);
    }
    Ok(())
}

fn put_rows(keyspace: &mut Keyspace, id: ObjectId, member: &[u8], score: f64) {
    let rows = keyspace.rows();
    fields::put(rows, id, NO_TURN, member, &score.to_bits().to_be_bytes());
    let ordered = row::score(id, score, member);
    rows.put_owned(ordered, layout::score_value(member, score));
}

/// The same, and a member among them.
fn inline_with(held: &Packed, member: &[u8], score: f64) -> Result<Packed, StoreError> {
    let mut writer = PackedWriter::with_capacity(held.as_bytes().len() + member.len() + 12);
    let mut is_written = false;
    for (bits, of) in held.iter().pairs() {
        if of == member {
            continue;
        }
        let is_before = layout::is_before((score, member), (layout::score_of(bits)?, of));
        if !is_written && is_before {
            is_written = true;
            push_inline(&mut writer, score, member);
        }
        writer.push(bits);
        writer.push(of);
    }
    if !is_written {
        push_inline(&mut writer, score, member);
    }
    Ok(writer.finish())
}

fn push_inline(writer: &mut PackedWriter, score: f64, member: &[u8]) {
    writer.push(&score.to_bits().to_be_bytes());
    writer.push(member);
}

fn in_rows(keyspace: &mut Keyspace, held: &Packed) -> Result<Stored, StoreError> {
    let id = keyspace.new_object_id();
    let mut count = 0;
    for (bits, member) in held.iter().pairs() {
        put_rows(keyspace, id, member, layout::score_of(bits)?);
        count += 1;
    }
    Ok(Stored::Rows { id, count })
}

/// Removes members with the scores that they have. If that is all of them, rows are left
/// for the set's removal to bury.
pub fn remove(rows: &mut Rows, zset: &mut Collection, entries: &[Entry]) {
    match &mut zset.stored {
        Stored::Inline(held) => {
            let is_removed = |of: &[u8]| entries.iter().any(|entry| *entry.member == *of);
            let mut writer = PackedWriter::with_capacity(held.as_bytes().len());
            for (bits, of) in held.iter().pairs().filter(|(_, of)| !is_removed(of)) {
                writer.push(bits);
                writer.push(of);
            }
            *held = writer.finish();
        }
        Stored::Rows { id, count } => {
            *count = count.saturating_sub(entries.len() as u64);
            if *count == 0 {
                return;
            }
            for Entry { member, score } in entries {
                rows.delete_owned(row::score(*id, *score, member));
                fields::delete(rows, *id, member);
            }
        }
    }
}

/// Takes up to `count` members from an end: the first ones of that direction. If that is
/// all of them, rows are left for the set's removal to bury.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn pop(
    keyspace: &mut Keyspace,
    zset: &mut Collection,
    direction: Direction,
    count: u64,
) -> Result<Vec<Entry>, StoreError> {
    let len = len(zset);
    let count = count.min(len);
    if let Stored::Rows { id, count: held } = &mut zset.stored
        && count <= OUTERMOST_MAX as u64
    {
        return pop_few(keyspace.rows(), *id, held, direction, count);
    }
    let range = match direction {
        Direction::Forward => Range::Rank(0..count),
        Direction::Backward => Range::Rank(len - count..len),
    };
    let taken: Vec<Entry> = walk(keyspace, zset, &range, direction)?.collect::<Result<_, _>>()?;
    remove(keyspace.rows(), zset, &taken);
    Ok(taken)
}

/// Of a set in rows: a few at once are mostly known, without a walk.
fn pop_few(
    rows: &mut Rows,
    id: ObjectId,
    held: &mut u64,
    direction: Direction,
    count: u64,
) -> Result<Vec<Entry>, StoreError> {
    let end = match direction {
        Direction::Forward => End::Front,
        Direction::Backward => End::Back,
    };
    let (from, to) = (row::sub(id, kind::SCORE), walk::behind_all(id));
    let found = rows.outermost(&from, &to, end, count as usize)?;
    let taken = found
        .iter()
        .map(|(key, value)| layout::entry_of_score(key, value, owned))
        .collect::<Result<Vec<_>, _>>()?;
    *held = held.saturating_sub(taken.len() as u64);
    if *held > 0 {
        for ((key, _), entry) in found.into_iter().zip(&taken) {
            rows.delete_owned(key);
            fields::delete(rows, id, &entry.member);
        }
    }
    Ok(taken)
}

/// Puts elements into the order of a sorted set.
pub fn sort(entries: &mut [Entry]) {
    let is_less = |one: &Entry, other: &Entry| {
        layout::is_before((one.score, &one.member), (other.score, &other.member))
    };
    entries.sort_by(|one, other| is_less(other, one).cmp(&is_less(one, other)));
}

/// Bytes that keep nothing else in memory.
fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
