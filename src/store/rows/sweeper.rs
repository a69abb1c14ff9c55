//! The sweeper removes the rows of dead ids, a bounded number at a time.
//!
//! ```text
//!   buried --applied--> applied --persisted--> swept: object, or metas -> expiries
//!                                                 `-- then its G row, and it is gone
//! ```
//!
//! Compactions drop such rows for nothing when they pass them, from the moment the
//! burial survives a power loss; what they have not met is deleted here. The G row goes
//! in the batch with the last row, so that a restart begins again with what is left.
//!
//! Invariant: it goes forward through a range, never back to its start: deleted rows
//! are slow to step over.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::error::StoreError;
use crate::store::engine::{
    DEAD, DeadId, DeadIds, Engine, EngineError, META, Owner, SUB, TTL, rows_of,
};

/// Rows looked at in one round.
const ROUND_ROWS_MAX: usize = 1_024;

/// Whose rows go, and where the sweeper is. There are as many as G rows on disk.
pub(super) struct Sweeper {
    engine: Arc<dyn Engine>,
    dead: Arc<DeadIds>,
    /// In the engine, but a power loss could undo it.
    applied: Vec<DeadId>,
    tasks: VecDeque<Task>,
}

#[derive(Clone)]
struct Task {
    kind: Kind,
    from: Bytes,
    to: Bytes,
}

#[derive(Clone, Copy)]
enum Kind {
    Object(u64),
    Metas(u32),
    Expiries(u32),
}

/// What one round will do, if the engine takes it.
#[derive(Default)]
struct Round {
    looked_at: usize,
    changes: Vec<(Bytes, Option<Bytes>)>,
    found: Vec<u64>,
    finished: Vec<DeadId>,
}

impl Sweeper {
    /// Takes up what was not finished before the restart. The engine has synced it.
    pub(super) fn resume(engine: Arc<dyn Engine>, dead: Arc<DeadIds>) -> Result<Self, StoreError> {
        let (from, to) = rows_of(DEAD, &[]);
        let mut sweeper = Self {
            engine,
            dead,
            applied: Vec::new(),
            tasks: VecDeque::new(),
        };
        for row in sweeper.engine.range(&from, &to) {
            let (row, _) = row?;
            let id = DeadId::of_row(&row).ok_or_else(|| StoreError::BadRow {
                row: row.escape_ascii().to_string(),
            })?;
            sweeper.applied.push(id);
        }
        sweeper.persisted();
        Ok(sweeper)
    }

    pub(super) fn applied(&mut self, buried: &[DeadId]) {
        self.applied.extend_from_slice(buried);
    }

    /// All that was applied survives a power loss now.
    pub(super) fn persisted(&mut self) {
        for id in std::mem::take(&mut self.applied) {
            self.begin(id);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Ids whose rows are not all gone.
    pub(super) fn left(&self) -> usize {
        self.tasks.len() + self.applied.len()
    }

    /// One round. If the engine cannot write now, nothing has changed.
    pub(super) fn sweep(&mut self) -> Result<(), EngineError> {
        let mut round = Round::default();
        let mut done = 0;
        let mut left = Vec::new();
        while round.looked_at < ROUND_ROWS_MAX
            && let Some(task) = self.tasks.get(done)
        {
            done += 1;
            left.extend(round.plan(&*self.engine, &self.dead, task)?);
        }
        let changes = round.changes.iter();
        self.engine
            .write(&mut changes.map(|(row, value)| (&row[..], value.as_ref())))?;
        self.tasks.drain(..done);
        self.tasks.extend(left);
        for id in round.finished {
            self.dead.remove(id);
        }
        // Its key cannot come back: the namespace's burial survives a power loss.
        for id in round.found {
            self.begin(DeadId::Object(id));
        }
        Ok(())
    }

    fn begin(&mut self, id: DeadId) {
        if !self.dead.insert(id) {
            return;
        }
        let (kind, (from, to)) = match id {
            DeadId::Object(id) => (Kind::Object(id), rows_of(SUB, &id.to_be_bytes())),
            DeadId::Namespace(ns) => (Kind::Metas(ns), rows_of(META, &ns.to_be_bytes())),
        };
        self.tasks.push_back(Task { kind, from, to });
    }
}

impl Round {
    /// Adds what is to do for `task`; returns what is left of it, if that is something.
    fn plan(
        &mut self,
        engine: &dyn Engine,
        dead: &DeadIds,
        task: &Task,
    ) -> Result<Option<Task>, EngineError> {
        self.looked_at += 1;
        for row in engine.range(&task.from, &task.to) {
            let (key, value) = row?;
            if self.looked_at >= ROUND_ROWS_MAX {
                return Ok(Some(Task {
                    from: Bytes::copy_from_slice(&key),
                    ..task.clone()
                }));
            }
            self.looked_at += 1;
            match task.kind {
                Kind::Object(_) => self.changes.push((key, None)),
                Kind::Metas(_) => {
                    if let Some(id) = dead.object_of(&value) {
                        let burial = DeadId::Object(id).row();
                        self.changes.push((burial.into(), Some(Bytes::new())));
                        self.found.push(id);
                    }
                    self.changes.push((key, None));
                }
                Kind::Expiries(ns) => {
                    if Owner::of(&key) == Owner::ExpiryOf(ns) {
                        self.changes.push((key, None));
                    }
                }
            }
        }
        Ok(self.after(task.kind))
    }

    /// The end of its range was reached.
    fn after(&mut self, kind: Kind) -> Option<Task> {
        let id = match kind {
            Kind::Metas(ns) => {
                let (from, to) = rows_of(TTL, &[]);
                let kind = Kind::Expiries(ns);
                return Some(Task { kind, from, to });
            }
            Kind::Object(id) => DeadId::Object(id),
            Kind::Expiries(ns) => DeadId::Namespace(ns),
        };
        self.changes.push((id.row().into(), None));
        self.finished.push(id);
        None
    }
}
