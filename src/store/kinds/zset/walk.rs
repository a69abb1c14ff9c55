//! Walking a sorted set: by rank, by score, by name, in either direction.

use bytes::Bytes;

use super::range::{LexBound, LexRange, Range};
use super::{layout, len};
use crate::store::format::object::{Collection, Stored};
use crate::store::format::packed::Packed;
use crate::store::format::row::{self, ObjectId, RowBuf, kind};
use crate::store::keyspace::Keyspace;
use crate::store::kinds::source::{RowSource, RowsBetween};
use crate::store::rows::{End, StoreError};

/// A member and its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The member.
    pub member: Bytes,
    /// Its score, never NaN.
    pub score: f64,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest score on.
    Forward,
    /// From the highest score on.
    Backward,
}

/// Elements, in the direction that was asked for.
pub struct Walk<'a>(Source<'a>);

enum Source<'a> {
    Held(std::vec::IntoIter<Entry>),
    Rows {
        rows: RowsBetween<'a>,
        direction: Direction,
        left: u64,
        /// Taken out of `rows` already.
        next: Option<Result<Entry, StoreError>>,
    },
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Held(entries) => entries.next().map(Ok),
            Source::Rows { left: 0, .. } => None,
            Source::Rows {
                rows,
                direction,
                left,
                next,
            } => {
                *left -= 1;
                let next = next.take().or_else(|| step(rows, *direction))?;
                if next.is_err() {
                    *left = 0;
                }
                Some(next)
            }
        }
    }
}

fn step(rows: &mut RowsBetween<'_>, direction: Direction) -> Option<Result<Entry, StoreError>> {
    let found = match direction {
        Direction::Forward => rows.next(),
        Direction::Backward => rows.next_back(),
    }?;
    Some(found.and_then(|(key, value)| {
        layout::entry_of_score(&key, &value, |member| key.slice_ref(member))
    }))
}

/// All elements, lowest score first, of the shard now or of a snapshot.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn walk_all<'a>(source: &'a impl RowSource, zset: &Collection) -> Result<Walk<'a>, StoreError> {
    Ok(Walk(match &zset.stored {
        Stored::Inline(held) => Source::Held(decoded(held)?.into_iter()),
        Stored::Rows { id, count } => Source::Rows {
            rows: source.rows_between(&row::sub(*id, kind::SCORE), &behind_all(*id))?,
            direction: Direction::Forward,
            left: *count,
            next: None,
        },
    }))
}

pub(super) fn behind_all(id: ObjectId) -> RowBuf {
    row::sub(id, kind::SCORE + 1)
}

pub(super) fn decoded(held: &Packed) -> Result<Vec<Entry>, StoreError> {
    let decoded = held.iter().pairs().map(|(score, member)| {
        let score = layout::score_of(score)?;
        let member = held.share(member);
        Ok(Entry { member, score })
    });
    decoded.collect()
}

/// Elements of a range.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn walk<'a>(
    keyspace: &'a Keyspace,
    zset: &Collection,
    range: &Range<'_>,
    direction: Direction,
) -> Result<Walk<'a>, StoreError> {
    match &zset.stored {
        Stored::Inline(held) => Ok(Walk(held_of(decoded(held)?, range, direction))),
        Stored::Rows { id, count } => Ordered {
            keyspace,
            id: *id,
            count: *count,
        }
        .walk(range, direction),
    }
}

fn held_of(mut entries: Vec<Entry>, range: &Range<'_>, direction: Direction) -> Source<'static> {
    match range {
        Range::Rank(ranks) => {
            let bounded = |rank: u64| {
                usize::try_from(rank)
                    .unwrap_or(usize::MAX)
                    .min(entries.len())
            };
            let (from, to) = (bounded(ranks.start), bounded(ranks.end));
            entries.truncate(to);
            entries.drain(..from.min(to));
        }
        Range::Score(range) => entries.retain(|entry| range.has(entry.score)),
        Range::Lex(range) => return Source::Held(range.named(entries, direction).into_iter()),
    }
    if direction == Direction::Backward {
        entries.reverse();
    }
    Source::Held(entries.into_iter())
}

/// A sorted set in rows.
#[derive(Clone, Copy)]
struct Ordered<'a> {
    keyspace: &'a Keyspace,
    id: ObjectId,
    count: u64,
}

impl<'a> Ordered<'a> {
    fn walk(self, range: &Range<'_>, direction: Direction) -> Result<Walk<'a>, StoreError> {
        match range {
            Range::Rank(ranks) => self.by_rank(ranks, direction),
            Range::Score(range) if range.is_empty() => Ok(nothing()),
            Range::Score(range) => {
                let from = row::score_bits(range.min) + u64::from(range.excludes_min);
                let to = row::score_bits(range.max) + u64::from(!range.excludes_max);
                let from = row::score_bits_from(self.id, from);
                let to = row::score_bits_from(self.id, to);
                Ok(self.between(from, to, direction, self.count)?.into_walk())
            }
            Range::Lex(range) => self.by_name(range, direction),
        }
    }

    /// Rows between two keys. What is found first at an open end is kept in mind.
    fn between(
        self,
        from: RowBuf,
        to: RowBuf,
        direction: Direction,
        left: u64,
    ) -> Result<Found<'a>, StoreError> {
        let rows = self.keyspace.rows_read();
        let (order, end) = (row::sub(self.id, kind::SCORE), behind_all(self.id));
        let low = rows.bound(&order, End::Front).unwrap_or(order.clone());
        let high = rows.bound(&order, End::Back).unwrap_or(end);
        let (is_open_low, is_open_high) = (from <= low, to >= high);
        let (from, to) = (from.max(low), to.min(high));
        let mut between = rows.rows_between(&from, &to)?;
        let found = match direction {
            Direction::Forward => between.next(),
            Direction::Backward => between.next_back(),
        };
        let found = found.transpose()?;
        match (&found, direction) {
            (Some((key, _)), Direction::Forward) if is_open_low => {
                rows.note_bound(&order, key, End::Front);
            }
            (Some((key, _)), Direction::Backward) if is_open_high => {
                rows.note_bound(&order, &row::behind(key), End::Back);
            }
            (None, Direction::Forward) if is_open_low && from < to => {
                rows.note_bound(&order, &to, End::Front);
            }
            _ => {}
        }
        Ok(Found {
            first: found,
            rows: between,
            direction,
            left,
        })
    }

    fn all(self, direction: Direction, left: u64) -> Result<Found<'a>, StoreError> {
        self.between(
            row::sub(self.id, kind::SCORE),
            behind_all(self.id),
            direction,
            left,
        )
    }

    fn by_rank(
        self,
        ranks: &std::ops::Range<u64>,
        direction: Direction,
    ) -> Result<Walk<'a>, StoreError> {
        let (from, to) = (ranks.start, ranks.end.min(self.count));
        if from >= to {
            return Ok(nothing());
        }
        // So many are passed over before the first one, from this end or the other.
        let (near, far) = match direction {
            Direction::Forward => (from, self.count - from),
            Direction::Backward => (self.count - to, to),
        };
        if near <= far {
            let found = self.all(direction, to - from + near)?;
            let mut walk = found.into_walk();
            for passed in walk
                .by_ref()
                .take(usize::try_from(near).unwrap_or(usize::MAX))
            {
                passed?;
            }
            return Ok(walk);
        }
        let mut behind = self.all(direction.reversed(), far)?.into_keys();
        let at = usize::try_from(far - 1).unwrap_or(usize::MAX);
        let Some(key) = behind.nth(at).transpose()? else {
            return Ok(nothing());
        };
        let (first, end) = match direction {
            Direction::Forward => (RowBuf::from_slice(&key), behind_all(self.id)),
            Direction::Backward => (row::sub(self.id, kind::SCORE), row::behind(&key)),
        };
        Ok(self.between(first, end, direction, to - from)?.into_walk())
    }

    fn by_name(self, range: &LexRange<'_>, direction: Direction) -> Result<Walk<'a>, StoreError> {
        let first = self
            .all(Direction::Forward, 1)?
            .into_walk()
            .next()
            .transpose()?;
        let last = self
            .all(Direction::Backward, 1)?
            .into_walk()
            .next()
            .transpose()?;
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(nothing());
        };
        if first.score != last.score {
            // Names have no order then; as Redis walks a listpack.
            let all = self.all(Direction::Forward, self.count)?.into_walk();
            let entries = all.collect::<Result<Vec<_>, _>>()?;
            return Ok(Walk(held_of(entries, &Range::Lex(*range), direction)));
        }
        let named = |member: &[u8]| row::score(self.id, first.score, member);
        let behind = |member: &[u8]| row::behind(&named(member));
        let from = match range.min {
            LexBound::Least => row::sub(self.id, kind::SCORE),
            LexBound::Included(min) => named(min),
            LexBound::Excluded(min) => behind(min),
            LexBound::Greatest => return Ok(nothing()),
        };
        let to = match range.max {
            LexBound::Least => return Ok(nothing()),
            LexBound::Included(max) => behind(max),
            LexBound::Excluded(max) => named(max),
            LexBound::Greatest => behind_all(self.id),
        };
        if from >= to {
            return Ok(nothing());
        }
        let mut walk = self.between(from, to, direction, self.count)?.into_walk();
        for passed in walk.by_ref().take(range.skipped) {
            passed?;
        }
        Ok(walk)
    }
}

impl Direction {
    /// The other one.
    pub fn reversed(self) -> Direction {
        match self {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        }
    }
}

/// Rows whose first one was looked at.
struct Found<'a> {
    first: Option<(Bytes, Bytes)>,
    rows: RowsBetween<'a>,
    direction: Direction,
    left: u64,
}

impl<'a> Found<'a> {
    fn into_walk(self) -> Walk<'a> {
        let Found {
            first,
            rows,
            direction,
            left,
        } = self;
        let Some((key, value)) = first else {
            return nothing();
        };
        let next = Some(layout::entry_of_score(&key, &value, |member| {
            key.slice_ref(member)
        }));
        Walk(Source::Rows {
            rows,
            direction,
            left,
            next,
        })
    }

    fn into_keys(mut self) -> impl Iterator<Item = Result<Bytes, StoreError>> + 'a {
        let first = self.first.take().map(|(key, _)| Ok(key));
        let rest = std::iter::from_fn(move || {
            let row = match self.direction {
                Direction::Forward => self.rows.next(),
                Direction::Backward => self.rows.next_back(),
            };
            row.map(|row| row.map(|(key, _)| key))
        });
        first.into_iter().chain(rest)
    }
}

fn nothing() -> Walk<'static> {
    Walk(Source::Held(Vec::new().into_iter()))
}

/// How many elements stand before one that is there, `None` if it is not.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn rank(
    keyspace: &Keyspace,
    zset: &Collection,
    member: &[u8],
) -> Result<Option<u64>, StoreError> {
    let id = match &zset.stored {
        Stored::Inline(held) => {
            let place = held.iter().pairs().position(|(_, of)| of == member);
            return Ok(place.map(|place| place as u64));
        }
        Stored::Rows { id, .. } => *id,
    };
    let Some(score) = super::score(keyspace.rows_read(), zset, member)? else {
        return Ok(None);
    };
    let ordered = Ordered {
        keyspace,
        id,
        count: len(zset),
    };
    let key = row::score(id, score, member);
    let behind = row::behind(&key);
    let first = row::sub(id, kind::SCORE);
    let mut before = ordered
        .between(first, key, Direction::Forward, ordered.count)?
        .into_keys();
    let last = behind_all(id);
    let mut after = ordered
        .between(behind, last, Direction::Backward, ordered.count)?
        .into_keys();
    // From both ends at once: the nearer one tells.
    let mut counted = 0;
    loop {
        match (before.next().transpose()?, after.next().transpose()?) {
            (None, _) => return Ok(Some(counted)),
            (_, None) => return Ok(Some((ordered.count - 1).saturating_sub(counted))),
            _ => counted += 1,
        }
    }
}
