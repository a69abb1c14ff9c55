//! The rows of groups: who reads a stream, what each was given, and has not acknowledged.
//!
//! ```text
//! G | 0 | group                            number 8, last id 16, entries read 8,
//!                                          consumers 8, pending 8, first and last pending
//!                                          16 each [, name]
//! G | 1 | group's 8 | consumer             number 8, seen at 8, pending 8 [, name]
//! G | 2 | group's 8 | id 16                delivered at 8, times 8, consumer
//! G | 3 | group's 8 | consumer's 8 | id 16 (empty)
//! ```
//! Names are members (`row::push_member`): of long ones the value has all. What is pending
//! stands twice: for the group (2) and for its consumer (3). Entries read are 2^64 - 1
//! where nobody knows.
//!
//! Invariant: nothing is pending in a group before its first pending id, nor behind its last
//! one; they need not be those of rows. So nobody walks over what was acknowledged long ago,
//! nor looks for what was never given.

use bytes::{BufMut, Bytes, BytesMut};

use crate::rdb::StreamId;
use crate::store::format::object::StreamValue;
use crate::store::format::row::{self, Member, ObjectId, RowBuf, kind};
use crate::store::kinds::source::{RowSource, bad_row};
use crate::store::rows::StoreError;

use super::id_of_row;

const GROUP: u8 = 0;
const CONSUMER: u8 = 1;
const PENDING: u8 = 2;
const OWNED: u8 = 3;
/// Bytes of a sub row's key before its part, with it.
const HEAD_BYTES: usize = 11;
const NUMBER_BYTES: usize = 8;

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is called.
    pub name: Bytes,
    /// What its rows call it.
    pub number: u64,
    /// The last entry that was given to a consumer.
    pub last: StreamId,
    /// Which of all entries ever added that is. `None` where nobody knows.
    pub entries_read: Option<u64>,
    /// Consumers.
    pub consumers: u64,
    /// Entries that are pending.
    pub pending: u64,
    /// None is pending before it.
    pub first_pending: StreamId,
    /// None is pending behind it.
    pub last_pending: StreamId,
}

/// One who reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// What it is called.
    pub name: Bytes,
    /// What its group's rows call it.
    pub number: u64,
    /// When it last did something, Unix ms.
    pub seen_ms: i64,
    /// Entries that are pending for it.
    pub pending: u64,
}

/// An entry that was given to a consumer and is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The entry, which may be gone.
    pub id: StreamId,
    /// When it was last given to somebody, Unix ms.
    pub delivered_ms: i64,
    /// How often.
    pub times: u64,
    /// To whom.
    pub consumer: Bytes,
}

fn part(stream: ObjectId, part: u8) -> RowBuf {
    let mut row = row::sub(stream, kind::GROUP);
    row.push(part);
    row
}

fn part_of(stream: ObjectId, of: u8, group: u64) -> RowBuf {
    let mut row = part(stream, of);
    row.extend_from_slice(&group.to_be_bytes());
    row
}

fn group_row(stream: ObjectId, name: &[u8]) -> RowBuf {
    let mut row = part(stream, GROUP);
    row::push_member(&mut row, name);
    row
}

fn consumer_row(stream: ObjectId, group: u64, name: &[u8]) -> RowBuf {
    let mut row = part_of(stream, CONSUMER, group);
    row::push_member(&mut row, name);
    row
}

/// Key of the row of what is pending.
pub(super) fn pending_row(stream: ObjectId, group: u64, id: StreamId) -> RowBuf {
    let mut row = part_of(stream, PENDING, group);
    row.extend_from_slice(&id.to_bytes());
    row
}

/// Key of the row that says so for its consumer.
pub(super) fn owned_row(stream: ObjectId, group: u64, consumer: u64, id: StreamId) -> RowBuf {
    let mut row = owned_by(stream, group, consumer);
    row.extend_from_slice(&id.to_bytes());
    row
}

fn owned_by(stream: ObjectId, group: u64, consumer: u64) -> RowBuf {
    let mut row = part_of(stream, OWNED, group);
    row.extend_from_slice(&consumer.to_be_bytes());
    row
}

/// From and to of all rows of a group's part.
pub(super) fn rows_of_group(stream: ObjectId, of: GroupPart, group: u64) -> [RowBuf; 2] {
    let of = match of {
        GroupPart::Consumers => CONSUMER,
        GroupPart::Pending => PENDING,
        GroupPart::Owned => OWNED,
    };
    let end = match group.checked_add(1) {
        Some(next) => part_of(stream, of, next),
        None => part(stream, of + 1),
    };
    [part_of(stream, of, group), end]
}

/// The rows that a group has besides its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupPart {
    Consumers,
    Pending,
    Owned,
}

impl GroupPart {
    pub(super) const ALL: [GroupPart; 3] =
        [GroupPart::Consumers, GroupPart::Pending, GroupPart::Owned];
}

/// Numbers in front of a value, and what is behind them.
fn numbers<const N: usize>(key: &[u8], value: &Bytes) -> Result<([u64; N], Bytes), StoreError> {
    let mut numbers = [0; N];
    for (at, number) in numbers.iter_mut().enumerate() {
        let rest = value.get(NUMBER_BYTES * at..);
        let bytes = rest.and_then(|rest| rest.first_chunk::<NUMBER_BYTES>());
        *number = u64::from_be_bytes(*bytes.ok_or_else(|| bad_row(key))?);
    }
    Ok((numbers, value.slice(NUMBER_BYTES * N..)))
}

fn value_of(numbers: &[u64], rest: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(NUMBER_BYTES * numbers.len() + rest.len());
    numbers.iter().for_each(|number| value.put_u64(*number));
    value.put_slice(rest);
    value.freeze()
}

/// A name that is in the key of its row, or in what is left of its value.
fn name_of(key: &Bytes, named: usize, rest: Bytes) -> Result<Bytes, StoreError> {
    let in_key = key.get(named..).ok_or_else(|| bad_row(key))?;
    Ok(match row::named_member(in_key) {
        Member::Whole(name) => key.slice_ref(name),
        Member::InValue => rest,
    })
}

/// What of a name its row's value has to hold.
fn long_name(name: &[u8]) -> &[u8] {
    match name.len() > row::MEMBER_BYTES_MAX {
        true => name,
        false => &[],
    }
}

fn read_group(key: &Bytes, value: &Bytes) -> Result<Group, StoreError> {
    let (
        [
            number,
            ms,
            seq,
            read,
            consumers,
            pending,
            first_ms,
            first_seq,
            last_ms,
            last_seq,
        ],
        rest,
    ) = numbers(key, value)?;
    Ok(Group {
        name: name_of(key, HEAD_BYTES, rest)?,
        number,
        last: StreamId { ms, seq },
        entries_read: Some(read).filter(|read| *read != u64::MAX),
        consumers,
        pending,
        first_pending: StreamId {
            ms: first_ms,
            seq: first_seq,
        },
        last_pending: StreamId {
            ms: last_ms,
            seq: last_seq,
        },
    })
}

/// Key and value of a group's row.
pub(super) fn row_of_group(stream: ObjectId, group: &Group) -> (RowBuf, Bytes) {
    let numbers = [
        group.number,
        group.last.ms,
        group.last.seq,
        group.entries_read.unwrap_or(u64::MAX),
        group.consumers,
        group.pending,
        group.first_pending.ms,
        group.first_pending.seq,
        group.last_pending.ms,
        group.last_pending.seq,
    ];
    let value = value_of(&numbers, long_name(&group.name));
    (group_row(stream, &group.name), value)
}

fn read_consumer(key: &Bytes, value: &Bytes) -> Result<Consumer, StoreError> {
    let ([number, seen_ms, pending], rest) = numbers(key, value)?;
    Ok(Consumer {
        name: name_of(key, HEAD_BYTES + NUMBER_BYTES, rest)?,
        number,
        seen_ms: seen_ms as i64,
        pending,
    })
}

/// Key and value of a consumer's row.
pub(super) fn row_of_consumer(
    stream: ObjectId,
    group: u64,
    consumer: &Consumer,
) -> (RowBuf, Bytes) {
    let numbers = [consumer.number, consumer.seen_ms as u64, consumer.pending];
    let value = value_of(&numbers, long_name(&consumer.name));
    (consumer_row(stream, group, &consumer.name), value)
}

fn read_pending(key: &[u8], value: &Bytes) -> Result<Pending, StoreError> {
    let ([delivered_ms, times], consumer) = numbers(key, value)?;
    Ok(Pending {
        id: id_of_row(key)?,
        delivered_ms: delivered_ms as i64,
        times,
        consumer,
    })
}

/// Value of the row of what is pending.
pub(super) fn value_of_pending(pending: &Pending) -> Bytes {
    let numbers = [pending.delivered_ms as u64, pending.times];
    value_of(&numbers, &pending.consumer)
}

/// A group by its name.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn group(
    rows: &impl RowSource,
    stream: &StreamValue,
    name: &[u8],
) -> Result<Option<Group>, StoreError> {
    if stream.groups == 0 {
        return Ok(None);
    }
    let key = Bytes::copy_from_slice(&group_row(stream.id, name));
    rows.row(&key)?
        .map(|value| read_group(&key, &value))
        .transpose()
}

/// All groups, in the order of their names.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn groups(rows: &impl RowSource, stream: &StreamValue) -> Result<Vec<Group>, StoreError> {
    if stream.groups == 0 {
        return Ok(Vec::new());
    }
    let (from, to) = (part(stream.id, GROUP), part(stream.id, GROUP + 1));
    let found = rows.rows_between(&from, &to)?;
    found
        .map(|row| {
            let (key, value) = row?;
            read_group(&key, &value)
        })
        .collect()
}

/// A consumer by its name.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn consumer(
    rows: &impl RowSource,
    stream: &StreamValue,
    group: &Group,
    name: &[u8],
) -> Result<Option<Consumer>, StoreError> {
    let key = Bytes::copy_from_slice(&consumer_row(stream.id, group.number, name));
    rows.row(&key)?
        .map(|value| read_consumer(&key, &value))
        .transpose()
}

/// All consumers of a group, in the order of their names.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn consumers(
    rows: &impl RowSource,
    stream: &StreamValue,
    group: &Group,
) -> Result<Vec<Consumer>, StoreError> {
    if group.consumers == 0 {
        return Ok(Vec::new());
    }
    let [from, to] = rows_of_group(stream.id, GroupPart::Consumers, group.number);
    let found = rows.rows_between(&from, &to)?;
    found
        .map(|row| {
            let (key, value) = row?;
            read_consumer(&key, &value)
        })
        .collect()
}

/// What is pending of an entry.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn pending(
    rows: &impl RowSource,
    stream: &StreamValue,
    group: &Group,
    id: StreamId,
) -> Result<Option<Pending>, StoreError> {
    if group.pending == 0 || !(group.first_pending..=group.last_pending).contains(&id) {
        return Ok(None);
    }
    let key = pending_row(stream.id, group.number, id);
    rows.row(&key)?
        .map(|value| read_pending(&key, &value))
        .transpose()
}

/// What is read of rows in order, from either end.
pub type Found<'a, T> = Box<dyn DoubleEndedIterator<Item = Result<T, StoreError>> + 'a>;

/// What is pending in a group, from one id to another, both included.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn pending_between<'a>(
    rows: &'a impl RowSource,
    stream: &StreamValue,
    group: &Group,
    from: StreamId,
    to: StreamId,
) -> Result<Found<'a, Pending>, StoreError> {
    let Some(from) = begin(group, from, to) else {
        return Ok(Box::new(std::iter::empty()));
    };
    let [first, end] = [from, to].map(|id| pending_row(stream.id, group.number, id));
    let found = rows.rows_between(&first, &behind(end))?;
    Ok(Box::new(found.map(|row| {
        let (key, value) = row?;
        read_pending(&key, &value)
    })))
}

/// Which entries are pending for a consumer, from one id to another, both included.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn owned_between<'a>(
    rows: &'a impl RowSource,
    stream: &StreamValue,
    group: &Group,
    consumer: &Consumer,
    from: StreamId,
    to: StreamId,
) -> Result<Found<'a, StreamId>, StoreError> {
    let Some(from) = begin(group, from, to).filter(|_| consumer.pending > 0) else {
        return Ok(Box::new(std::iter::empty()));
    };
    let row = |id| owned_row(stream.id, group.number, consumer.number, id);
    let found = rows.rows_between(&row(from), &behind(row(to)))?;
    Ok(Box::new(found.map(|row| id_of_row(&row?.0))))
}

/// Where to begin looking, if there can be something.
fn begin(group: &Group, from: StreamId, to: StreamId) -> Option<StreamId> {
    let from = from.max(group.first_pending);
    (group.pending > 0 && from <= to).then_some(from)
}

/// The first key behind one.
fn behind(mut key: RowBuf) -> RowBuf {
    key.push(0);
    key
}
