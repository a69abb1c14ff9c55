//! Rows in order over all generations and the engine, from either end.
//!
//! ```text
//!   active      b=2        d=x              (x: deleted)
//!   frozen 2         c=1   d=5
//!   engine  a=1 b=1        d=4  e=7
//!   ------------------------------
//!   yields  a=1 b=2  c=1        e=7
//! ```
//!
//! The sources are kept newest first: of equal keys the first one's counts, and the
//! others' are skipped.

use std::cmp::Ordering;

use bytes::Bytes;

use super::error::StoreError;
use super::generation::Within;
use crate::store::engine::{Row, RowIter};

/// Rows of [`super::Rows::range`]. After an error there is nothing more to be had.
pub struct RowRange<'a> {
    sources: Vec<Source<'a>>,
    has_failed: bool,
}

struct Source<'a> {
    rows: Rows<'a>,
    /// Taken out of `rows` to be looked at. If `rows` is used up, one slot may hold the
    /// last row for both ends.
    front: Option<Entry<'a>>,
    back: Option<Entry<'a>>,
}

enum Rows<'a> {
    Overlay(Within<'a>),
    Engine(RowIter),
}

enum Entry<'a> {
    Overlay(&'a [u8], Option<&'a Bytes>),
    Engine(Bytes, Bytes),
}

/// One of the two ends of rows in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The lowest row.
    Front,
    /// The highest row.
    Back,
}

impl<'a> RowRange<'a> {
    /// Newest first.
    pub(super) fn new(overlay: impl Iterator<Item = Within<'a>>, engine: RowIter) -> Self {
        let overlay = overlay.map(Rows::Overlay);
        let sources = overlay.chain(std::iter::once(Rows::Engine(engine)));
        Self {
            sources: sources.map(Source::new).collect(),
            has_failed: false,
        }
    }

    /// No rows.
    pub(super) fn empty() -> Self {
        Self {
            sources: Vec::new(),
            has_failed: false,
        }
    }

    fn step(&mut self, end: End) -> Option<Result<Row, StoreError>> {
        if self.has_failed {
            return None;
        }
        loop {
            match self.take_newest(end) {
                Ok(Some(entry)) => {
                    if let Some(row) = entry.into_row() {
                        return Some(Ok(row));
                    }
                }
                Ok(None) => return None,
                Err(error) => {
                    self.has_failed = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The row next to that end, as the newest source has it; from all others it is
    /// taken away.
    fn take_newest(&mut self, end: End) -> Result<Option<Entry<'a>>, StoreError> {
        let mut best: Option<usize> = None;
        for at in 0..self.sources.len() {
            let (before, rest) = self.sources.split_at_mut(at);
            let Some(source) = rest.first_mut() else {
                break;
            };
            source.look(end)?;
            let Some(key) = source.key(end) else { continue };
            let is_next = match best.and_then(|best| before.get(best)?.key(end)) {
                None => true,
                Some(best) => end.is_nearer(key, best),
            };
            if is_next {
                best = Some(at);
            }
        }
        let Some(best) = best else { return Ok(None) };
        let (newer, older) = self.sources.split_at_mut(best + 1);
        let Some(entry) = newer.last_mut().and_then(|source| source.slot(end).take()) else {
            return Ok(None);
        };
        for source in older {
            if source.key(end) == Some(entry.key()) {
                source.slot(end).take();
            }
        }
        Ok(Some(entry))
    }
}

impl End {
    fn is_nearer(self, key: &[u8], best: &[u8]) -> bool {
        let wanted = match self {
            Self::Front => Ordering::Less,
            Self::Back => Ordering::Greater,
        };
        key.cmp(best) == wanted
    }
}

impl<'a> Source<'a> {
    fn new(rows: Rows<'a>) -> Self {
        Self {
            rows,
            front: None,
            back: None,
        }
    }

    fn slot(&mut self, end: End) -> &mut Option<Entry<'a>> {
        match end {
            End::Front => &mut self.front,
            End::Back => &mut self.back,
        }
    }

    fn key(&self, end: End) -> Option<&[u8]> {
        match end {
            End::Front => self.front.as_ref().map(Entry::key),
            End::Back => self.back.as_ref().map(Entry::key),
        }
    }

    /// Fills the slot of that end.
    fn look(&mut self, end: End) -> Result<(), StoreError> {
        if self.slot(end).is_some() {
            return Ok(());
        }
        let mut found = self.rows.next(end)?;
        if found.is_none() {
            found = match end {
                End::Front => self.back.take(),
                End::Back => self.front.take(),
            };
        }
        *self.slot(end) = found;
        Ok(())
    }
}

impl<'a> Rows<'a> {
    fn next(&mut self, end: End) -> Result<Option<Entry<'a>>, StoreError> {
        match self {
            Self::Overlay(rows) => {
                let next = match end {
                    End::Front => rows.next(),
                    End::Back => rows.next_back(),
                };
                Ok(next.map(|(key, value)| Entry::Overlay(key, value)))
            }
            Self::Engine(rows) => {
                let next = match end {
                    End::Front => rows.next(),
                    End::Back => rows.next_back(),
                };
                let next = next.transpose()?;
                Ok(next.map(|(key, value)| Entry::Engine(key, value)))
            }
        }
    }
}

impl Entry<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Self::Overlay(key, _) => key,
            Self::Engine(key, _) => key,
        }
    }

    /// Nothing if it is a deletion.
    fn into_row(self) -> Option<Row> {
        match self {
            Self::Overlay(key, value) => {
                value.map(|value| (Bytes::copy_from_slice(key), value.clone()))
            }
            Self::Engine(key, value) => Some((key, value)),
        }
    }
}

impl Iterator for RowRange<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(End::Front)
    }
}

impl DoubleEndedIterator for RowRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(End::Back)
    }
}
