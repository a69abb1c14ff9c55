//! An engine in memory: for tests, and as the model that the other one is held against.
//!
//! A snapshot is the map itself; the next write copies it. Writes can be made to fail
//! by plan.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::dead::DeadIds;
use super::spaces::Owner;
use super::{Change, Engine, EngineError, EngineSnapshot, EngineStats, Row, RowIter, check_row};

type Rows = Arc<BTreeMap<Bytes, Bytes>>;

/// Ordered rows in memory.
#[derive(Default)]
pub struct MemoryEngine {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Rows,
    /// What survives [`MemoryEngine::lose_power`].
    persisted: Rows,
    dead: Option<Arc<DeadIds>>,
    refusals: VecDeque<EngineError>,
}

impl MemoryEngine {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next write or `persist` fails like this; several calls queue up.
    pub fn refuse_next(&self, error: EngineError) {
        self.state().refusals.push_back(error);
    }

    /// Goes back to what was persisted.
    pub fn lose_power(&self) {
        let mut state = self.state();
        state.rows = Arc::clone(&state.persisted);
    }

    /// Drops rows of dead ids, as a compaction of everything would.
    pub fn compact(&self) {
        let mut state = self.state();
        if let Some(dead) = state.dead.clone() {
            let rows = Arc::make_mut(&mut state.rows);
            rows.retain(|key, value| !dead.may_drop(Owner::of(key), value));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for MemoryEngine {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state().rows.get(row).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        Walk::boxed(&self.state().rows, from, to)
    }

    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        Ok(Box::new(Moment(Arc::clone(&self.state().rows))))
    }

    fn write<'a>(&self, batch: &mut dyn Iterator<Item = Change<'a>>) -> Result<(), EngineError> {
        let mut state = self.state();
        if let Some(error) = state.refusals.pop_front() {
            return Err(error);
        }
        let changes: Vec<Change<'a>> = batch.collect();
        for (key, value) in &changes {
            check_row(key, *value)?;
        }
        let rows = Arc::make_mut(&mut state.rows);
        for (key, value) in changes {
            match value {
                Some(value) => rows.insert(Bytes::copy_from_slice(key), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn write_sorted<'a>(
        &self,
        batch: &mut dyn Iterator<Item = Change<'a>>,
        _: usize,
    ) -> Result<(), EngineError> {
        let changes: Vec<Change<'a>> = batch.collect();
        if !changes.is_sorted_by(|one, next| one.0 < next.0) {
            return Err(EngineError::Unsorted);
        }
        self.write(&mut changes.into_iter())
    }

    fn persist(&self) -> Result<(), EngineError> {
        let mut state = self.state();
        if let Some(error) = state.refusals.pop_front() {
            return Err(error);
        }
        state.persisted = Arc::clone(&state.rows);
        Ok(())
    }

    fn mark_dead(&self, dead: Arc<DeadIds>) {
        self.state().dead = Some(dead);
    }

    fn stats(&self) -> EngineStats {
        let state = self.state();
        let bytes = state
            .rows
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum::<usize>();
        EngineStats {
            memtable_bytes: bytes as u64,
            ..EngineStats::default()
        }
    }
}

struct Moment(Rows);

impl EngineSnapshot for Moment {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.get(row).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        Walk::boxed(&self.0, from, to)
    }
}

/// What is left of a range: it is looked up again at each step, and so owns its rows.
struct Walk {
    rows: Rows,
    from: Bound<Bytes>,
    to: Bytes,
}

impl Walk {
    fn boxed(rows: &Rows, from: &[u8], to: &[u8]) -> RowIter {
        Box::new(Self {
            rows: Arc::clone(rows),
            from: Bound::Included(Bytes::copy_from_slice(from)),
            to: Bytes::copy_from_slice(to),
        })
    }

    fn left(&self) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        let from = match &self.from {
            Bound::Included(key) | Bound::Excluded(key) if *key >= self.to => None,
            from => Some(from.clone()),
        };
        from.into_iter()
            .flat_map(|from| self.rows.range((from, Bound::Excluded(self.to.clone()))))
    }
}

impl Iterator for Walk {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.left().next().map(|(k, v)| (k.clone(), v.clone()))?;
        self.from = Bound::Excluded(key.clone());
        Some(Ok((key, value)))
    }
}

impl DoubleEndedIterator for Walk {
    fn next_back(&mut self) -> Option<Self::Item> {
        let (key, value) = self
            .left()
            .next_back()
            .map(|(k, v)| (k.clone(), v.clone()))?;
        self.to = key.clone();
        Some(Ok((key, value)))
    }
}
