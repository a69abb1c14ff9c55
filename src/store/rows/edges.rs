//! What is known of the two ends of ordered objects: sorted sets and lists.
//!
//! ```text
//!   rows of one object, in order
//!   x x x  r1 r2 r3 |  . . . . . . . . . . . . |  r8 r9  x x
//!          '------' limit                  limit '----'
//!           front                                 back       x: deleted
//! ```
//! Who pops from an end would open a walk over all generations and tables for each row,
//! and pass over what was popped before. So a walk takes more rows than are asked for,
//! and the next walk begins where it ended. What is here is told of each change, so it is
//! always what the rows are: it is never invalid, and needs no snapshot.
//!
//! Invariant: all live rows between an end and its *limit* are here. Rows beyond the
//! bounds of memory are let go of from the far side, and the limit comes nearer.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use smallvec::SmallVec;

use super::error::StoreError;
use super::range::{End, RowRange};
use crate::store::engine::SUB;
use crate::store::format::row::{RowBuf, behind, kind};

/// Space, object and kind: what all rows of one order begin with.
const PREFIX_BYTES: usize = 10;

/// Rows that the first walk takes; each further one twice as many.
const FILL_ROWS_MIN: usize = 16;
const FILL_ROWS_MAX: usize = 256;

/// Rows that are kept at an end, whatever is put there.
const ROWS_MAX: usize = 2 * FILL_ROWS_MAX;

/// Bytes that are kept at an end.
const EDGE_BYTES_MAX: usize = 64 << 10;

/// At least as many objects have room.
const OBJECTS_MIN: usize = 16;

/// What a row takes besides its bytes: its place, and an allocation.
const ROW_OVERHEAD_BYTES: usize = 112;

/// What an object takes besides its rows.
const OBJECT_OVERHEAD_BYTES: usize = 320;

/// How many rows can be asked for at once.
pub const OUTERMOST_MAX: usize = FILL_ROWS_MAX;

/// Rows next to an end, the outermost first.
pub type Outermost = SmallVec<[(RowBuf, Bytes); 1]>;

type Prefix = [u8; PREFIX_BYTES];

type Table = Cache<Prefix, Ends, ByBytes, RandomState>;

/// Bounded in bytes.
pub(super) struct Edges {
    /// Nothing is kept without it.
    of: Option<RefCell<Table>>,
    edge_bytes_max: usize,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Prefix, Ends> for ByBytes {
    fn weight(&self, _: &Prefix, ends: &Ends) -> u64 {
        let edges = [&ends.front, &ends.back].into_iter().flatten();
        let bytes: usize = edges.map(|edge| edge.bytes).sum();
        (bytes + OBJECT_OVERHEAD_BYTES) as u64
    }
}

#[derive(Clone, Default)]
struct Ends {
    front: Option<Edge>,
    back: Option<Edge>,
}

#[derive(Clone)]
struct Edge {
    /// The outermost first.
    rows: VecDeque<(RowBuf, Bytes)>,
    bytes: usize,
    /// At the front, rows before it are known; at the back, it and rows behind it.
    limit: RowBuf,
    /// Rows that the next walk takes.
    fill_rows: usize,
}

/// Where to look for more rows.
struct Gap {
    known: Outermost,
    from: RowBuf,
    to: RowBuf,
    rows: usize,
}

impl Edges {
    /// Keeps nothing if `bytes_max` is 0.
    pub(super) fn new(bytes_max: usize) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max as u64)
            .estimated_items_capacity(bytes_max / EDGE_BYTES_MAX + OBJECTS_MIN)
            .build();
        let of = options.ok().filter(|_| bytes_max > 0).map(|options| {
            let (hash, life) = (RandomState::default(), DefaultLifecycle::default());
            RefCell::new(Cache::with_options(options, ByBytes, hash, life))
        });
        Self {
            of,
            edge_bytes_max: EDGE_BYTES_MAX.min(bytes_max / OBJECTS_MIN),
        }
    }

    /// See [`super::Rows::outermost`]; `walk` opens a range.
    pub(super) fn outermost<'a>(
        &self,
        (from, to): (&[u8], &[u8]),
        end: End,
        count: usize,
        walk: impl FnOnce(&[u8], &[u8]) -> Result<RowRange<'a>, StoreError>,
    ) -> Result<Outermost, StoreError> {
        let prefix = from.first_chunk::<PREFIX_BYTES>();
        let gap = match self.known(prefix, (from, to), end, count) {
            Ok(rows) => return Ok(rows),
            Err(gap) => gap,
        };
        let mut walk = walk(&gap.from, &gap.to)?;
        let mut found = gap.known;
        let (mut more, mut bytes) = (Vec::with_capacity(gap.rows), 0);
        let is_whole = loop {
            let is_enough = found.len() + more.len() >= count;
            if is_enough && (more.len() >= gap.rows || bytes >= self.edge_bytes_max) {
                break false;
            }
            let next = match end {
                End::Front => walk.next(),
                End::Back => walk.next_back(),
            };
            let Some(row) = next.transpose()? else {
                break true;
            };
            // It may be a slice of a whole block of a table.
            let row = (RowBuf::from_slice(&row.0), Bytes::copy_from_slice(&row.1));
            bytes += bytes_of(&row);
            more.push(row);
        };
        let missing = count.saturating_sub(found.len());
        found.extend(more.iter().take(missing).cloned());
        if let Some(prefix) = prefix {
            self.keep(prefix, end, more, is_whole);
        }
        Ok(found)
    }

    fn known(
        &self,
        prefix: Option<&Prefix>,
        (from, to): (&[u8], &[u8]),
        end: End,
        count: usize,
    ) -> Result<Outermost, Gap> {
        let mut gap = Gap {
            known: Outermost::new(),
            from: from.into(),
            to: to.into(),
            rows: count,
        };
        let (Some(of), Some(prefix)) = (&self.of, prefix) else {
            return Err(gap);
        };
        gap.rows = count.max(FILL_ROWS_MIN);
        let of = of.borrow();
        let Some(ends) = of.get(prefix) else {
            return Err(gap);
        };
        if let Some(edge) = ends.at(end) {
            let rows = edge.rows.iter().take(count).cloned();
            if edge.rows.len() >= count || edge.limit == whole(prefix, end) {
                return Ok(rows.collect());
            }
            gap.known = rows.collect();
            gap.rows = count.max(edge.fill_rows);
        }
        // What is known from the other end needs no walk either.
        for (other, edge) in [(End::Front, &ends.front), (End::Back, &ends.back)] {
            let Some(edge) = edge else { continue };
            let bound = if other == end {
                edge.limit.clone()
            } else {
                edge.bound(other)
            };
            match other {
                End::Front => gap.from = gap.from.max(bound),
                End::Back => gap.to = gap.to.min(bound),
            }
        }
        Err(gap)
    }

    /// Rows that were found behind those that are here.
    fn keep(&self, prefix: &Prefix, end: End, more: Vec<(RowBuf, Bytes)>, is_whole: bool) {
        let Some(of) = &self.of else { return };
        let limit = match more.last() {
            _ if is_whole => whole(prefix, end),
            Some((key, _)) => limit_at(key, end),
            None => return,
        };
        self.change_at(of, prefix, end, |edge| {
            let edge = edge.get_or_insert_with(Edge::default);
            edge.bytes += more.iter().map(bytes_of).sum::<usize>();
            edge.rows.extend(more);
            edge.limit = limit;
            edge.fill_rows = (2 * edge.fill_rows).min(FILL_ROWS_MAX);
            edge.trim(end, self.edge_bytes_max);
        });
    }

    fn change_at(
        &self,
        of: &RefCell<Table>,
        prefix: &Prefix,
        end: End,
        change: impl FnOnce(&mut Option<Edge>),
    ) {
        let mut of = of.borrow_mut();
        if let Some(mut ends) = of.get_mut(prefix) {
            change(ends.at_mut(end));
            return;
        }
        let mut ends = Ends::default();
        change(ends.at_mut(end));
        of.insert(*prefix, ends);
    }

    /// A row has this value from now on.
    pub(super) fn change(&self, row: &[u8], value: Option<&Bytes>) {
        let (Some(of), Some(prefix)) = (&self.of, row.first_chunk::<PREFIX_BYTES>()) else {
            return;
        };
        if !matches!(prefix, [SUB, .., kind::SCORE | kind::INDEX]) {
            return;
        }
        let mut of = of.borrow_mut();
        let Some(mut ends) = of.peek_mut(prefix) else {
            return;
        };
        for end in [End::Front, End::Back] {
            if let Some(edge) = ends.at_mut(end)
                && edge.covers(end, row)
            {
                edge.change(end, row, value);
                edge.trim(end, self.edge_bytes_max);
            }
        }
    }

    /// Forgets all of the rows that begin so.
    pub(super) fn forget(&self, prefix: &[u8]) {
        if let (Some(of), Some(prefix)) = (&self.of, prefix.first_chunk()) {
            of.borrow_mut().remove(prefix);
        }
    }

    pub(super) fn clear(&self) {
        if let Some(of) = &self.of {
            of.borrow_mut().clear();
        }
    }

    /// No live row stands before it (front), it and none behind it is live (back).
    pub(super) fn bound(&self, prefix: &[u8], end: End) -> Option<RowBuf> {
        let of = self.of.as_ref()?.borrow();
        let ends = of.get(prefix.first_chunk::<PREFIX_BYTES>()?)?;
        Some(ends.at(end)?.bound(end))
    }

    /// Notes a bound that a walk came upon.
    pub(super) fn note_bound(&self, prefix: &[u8], bound: &[u8], end: End) {
        let (Some(of), Some(prefix)) = (&self.of, prefix.first_chunk()) else {
            return;
        };
        self.change_at(of, prefix, end, |edge| {
            let edge = edge.get_or_insert_with(|| Edge {
                limit: bound.into(),
                ..Edge::default()
            });
            // If no row is here, all that is known is the limit.
            let is_news = match end {
                End::Front => *bound > *edge.limit,
                End::Back => *bound < *edge.limit,
            };
            if edge.rows.is_empty() && is_news {
                edge.limit = bound.into();
            }
        });
    }

    pub(super) fn bytes(&self) -> u64 {
        self.of.as_ref().map_or(0, |of| of.borrow().weight())
    }
}

impl Ends {
    fn at(&self, end: End) -> Option<&Edge> {
        match end {
            End::Front => self.front.as_ref(),
            End::Back => self.back.as_ref(),
        }
    }

    fn at_mut(&mut self, end: End) -> &mut Option<Edge> {
        match end {
            End::Front => &mut self.front,
            End::Back => &mut self.back,
        }
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            rows: VecDeque::new(),
            bytes: 0,
            limit: RowBuf::new(),
            fill_rows: FILL_ROWS_MIN,
        }
    }
}

impl Edge {
    fn covers(&self, end: End, row: &[u8]) -> bool {
        match end {
            End::Front => *row < *self.limit,
            End::Back => *row >= *self.limit,
        }
    }

    fn bound(&self, end: End) -> RowBuf {
        match self.rows.front() {
            None => self.limit.clone(),
            Some((key, _)) if end == End::Front => key.clone(),
            Some((key, _)) => behind(key),
        }
    }

    fn place(&self, end: End, row: &[u8]) -> Result<usize, usize> {
        // Most rows come and go at the outermost place.
        match self.rows.front() {
            Some((key, _)) if **key == *row => return Ok(0),
            _ => (),
        }
        self.rows.binary_search_by(|(key, _)| match end {
            End::Front => (**key).cmp(row),
            End::Back => row.cmp(key),
        })
    }

    fn change(&mut self, end: End, row: &[u8], value: Option<&Bytes>) {
        match (self.place(end, row), value) {
            (Ok(at), Some(value)) => {
                if let Some((_, old)) = self.rows.get_mut(at) {
                    self.bytes = self.bytes + value.len() - old.len();
                    *old = value.clone();
                }
            }
            (Ok(at), None) => {
                let old = self.rows.remove(at);
                self.bytes -= old.as_ref().map_or(0, bytes_of);
            }
            (Err(at), Some(value)) => {
                let new = (RowBuf::from_slice(row), value.clone());
                self.bytes += bytes_of(&new);
                self.rows.insert(at, new);
            }
            (Err(_), None) => (),
        }
    }

    fn trim(&mut self, end: End, bytes_max: usize) {
        while self.rows.len() > ROWS_MAX || self.bytes > bytes_max {
            let Some(row) = self.rows.pop_back() else {
                break;
            };
            self.bytes -= bytes_of(&row);
            self.limit = match end {
                End::Front => row.0,
                End::Back => behind(&row.0),
            };
        }
    }
}

fn bytes_of((key, value): &(RowBuf, Bytes)) -> usize {
    key.len() + value.len() + ROW_OVERHEAD_BYTES
}

/// The limit if a row is the last that is known.
fn limit_at(row: &[u8], end: End) -> RowBuf {
    match end {
        End::Front => behind(row),
        End::Back => RowBuf::from_slice(row),
    }
}

/// The limit if all rows are known.
fn whole(prefix: &Prefix, end: End) -> RowBuf {
    let mut whole = RowBuf::from_slice(prefix);
    if let (End::Front, Some(kind)) = (end, whole.last_mut()) {
        *kind += 1;
    }
    whole
}
