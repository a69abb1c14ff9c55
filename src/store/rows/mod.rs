//! The rows of a shard as its executor sees them: what it wrote is there at once, and
//! gets into the engine behind its back.
//!
//! ```text
//!   put delete        freeze             applier, one batch each
//!  ----------> active ------> frozen ... ------> engine
//!                 \             \                  \
//!   get range <----+-------------+--- row cache ----+      newest wins
//! ```
//!
//! The log has everything that is here before it is answered for; the overlay is what
//! of it the engine does not have yet. Each batch carries the offset of the log that it
//! goes up to: after a crash, the log is applied from there on.
//!
//! Invariants: one thread owns it. A generation leaves the overlay only when the engine
//! has it whole. Rows of a generation and its offset are in the engine together or not
//! at all. The log may forget what is below [`Rows::durable_offset`], nothing else.

mod applier;
mod board;
mod cache;
mod edges;
mod error;
mod generation;
mod hashed;
mod key;
mod key_hash;
mod options;
mod range;
mod snapshot;
mod sweeper;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::store::engine::{DeadId, DeadIds, Engine, EngineError, EngineStats};
use crate::store::format::row::{self, ObjectId, RowBuf, kind};
use applier::{APPLIED_OFFSET_ROW, Applier};
use board::{Frozen, Then};
use cache::RowCache;
use edges::Edges;
use generation::Generation;
use sweeper::Sweeper;

pub use edges::{OUTERMOST_MAX, Outermost};
pub use error::StoreError;
pub use key_hash::KeyHash;
pub use options::{RowsOptions, Wake};
pub use range::{End, RowRange};
pub use snapshot::{DurableTicket, RowSnapshot, SnapshotTicket};

/// Generations that may wait for the applier: their sizes are bounded by the overlay's,
/// but each snapshot freezes one, be it ever so small.
const GENERATIONS_MAX: usize = 64;

/// This part of the memory for rows is for those at the ends of objects.
const EDGES_PART: usize = 8;

/// All rows of a shard; the executor owns it.
pub struct Rows {
    engine: Arc<dyn Engine>,
    options: RowsOptions,
    active: Generation,
    /// When the active generation was first seen to hold something.
    active_since: Option<Instant>,
    /// Oldest first.
    frozen: VecDeque<Arc<Frozen>>,
    frozen_bytes: usize,
    generations: u64,
    /// Offset of the last generation that was frozen.
    frozen_offset: u64,
    cache: RowCache,
    edges: Edges,
    applier: Applier,
}

/// Sizes and progress, for INFO.
#[derive(Clone, Debug)]
pub struct RowsStats {
    /// What is not yet in the engine.
    pub overlay_bytes: usize,
    /// Generations that wait for the applier.
    pub generations_waiting: usize,
    /// Memory of cached rows.
    pub cache_bytes: u64,
    /// See [`Rows::applied_offset`].
    pub applied_offset: u64,
    /// See [`Rows::durable_offset`].
    pub durable_offset: u64,
    /// Dead objects and namespaces whose rows are not all gone.
    pub dead_left: usize,
    /// Why the applier waits, if it does.
    pub waits_for: Option<EngineError>,
    /// The engine's own.
    pub engine: EngineStats,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("overlay_bytes", &self.overlay_bytes())
            .field("applied_offset", &self.applied_offset())
            .finish_non_exhaustive()
    }
}

impl Rows {
    /// Over an engine that nobody else writes to; it goes on with what is in it.
    pub fn open(engine: Arc<dyn Engine>, options: RowsOptions) -> Result<Self, StoreError> {
        // What is found below is taken for durable from here on.
        engine.persist()?;
        let applied_offset = match engine.get(APPLIED_OFFSET_ROW)? {
            None => 0,
            Some(value) => {
                let bytes = <[u8; 8]>::try_from(&value[..]);
                u64::from_be_bytes(bytes.map_err(|_| StoreError::BadRow {
                    row: APPLIED_OFFSET_ROW.escape_ascii().to_string(),
                })?)
            }
        };
        let dead = Arc::new(DeadIds::new(options.object_of));
        let sweeper = Sweeper::resume(Arc::clone(&engine), Arc::clone(&dead))?;
        engine.mark_dead(dead);
        let edges_bytes = options.cache_bytes / EDGES_PART;
        let applier = Applier::start(Arc::clone(&engine), sweeper, applied_offset, &options)?;
        Ok(Self {
            cache: RowCache::new(options.cache_bytes - edges_bytes),
            edges: Edges::new(edges_bytes),
            engine,
            options,
            active: Generation::default(),
            active_since: None,
            frozen: VecDeque::new(),
            frozen_bytes: 0,
            generations: 0,
            frozen_offset: applied_offset,
            applier,
        })
    }

    /// One row.
    pub fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(value) = self.cache.get(row) {
            return Ok(value);
        }
        if let Some(value) = self.active.get(row) {
            return Ok(value.clone());
        }
        for frozen in self.frozen.iter().rev() {
            if let Some(value) = frozen.generation.get(row) {
                return Ok(value.clone());
            }
        }
        // The engine's own may hold a whole block of a table, and is kept for long.
        let found = self.engine.get(row)?;
        let found = found.map(|value| Bytes::copy_from_slice(&value));
        self.cache.keep(row, &found);
        Ok(found)
    }

    /// Puts a row. The value should own its bytes: a slice of something large keeps all
    /// of that in memory, and is not counted. Keys are at most
    /// [`crate::store::engine::ROW_KEY_BYTES_MAX`] long: a longer one makes the applier
    /// fail.
    pub fn put(&mut self, row: &[u8], value: Bytes) {
        self.set(row, Some(value));
    }

    /// The same, with a key that need not be copied.
    pub fn put_owned(&mut self, row: RowBuf, value: Bytes) {
        self.set_owned(row, Some(value));
    }

    /// How keys are hashed here.
    pub fn key_hash(&self) -> KeyHash {
        self.active.key_hash()
    }

    /// Brings near what puts of meta rows, by the hashes of their keys, will look at.
    pub fn warm(&self, hashes: &[u32]) {
        self.active.warm(hashes);
    }

    /// Deletes a row, if it is there.
    pub fn delete(&mut self, row: &[u8]) {
        self.set(row, None);
    }

    /// The same, with a key that need not be copied.
    pub fn delete_owned(&mut self, row: RowBuf) {
        self.set_owned(row, None);
    }

    /// Says that nobody will read the rows of `id` again, once the change that made it so
    /// (the meta row's removal, the database's new namespace) is applied; it must be in
    /// the same generation: do both in one tick.
    pub fn bury(&mut self, id: DeadId) {
        if let DeadId::Object(id) = id {
            for kind in [kind::SCORE, kind::INDEX] {
                self.edges.forget(&row::sub(ObjectId(id), kind));
            }
        }
        self.active.bury(id);
    }

    /// Rows from `from` up to `to`, which is not included, from either end.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Result<RowRange<'_>, StoreError> {
        if from >= to {
            return Ok(RowRange::empty());
        }
        let frozen = self.frozen.iter().rev().map(|frozen| &frozen.generation);
        let overlay = std::iter::once(&self.active)
            .chain(frozen)
            .flat_map(|generation| generation.range(from, to));
        Ok(RowRange::new(overlay, self.engine.range(from, to)))
    }

    /// Up to `count` rows next to an end of an ordered object (sorted set, list), at most
    /// [`OUTERMOST_MAX`]; without a walk if they are known. `from` begins with what all
    /// rows of the order begin with; of these, none outside of `from..to` is there.
    pub fn outermost(
        &self,
        from: &[u8],
        to: &[u8],
        end: End,
        count: usize,
    ) -> Result<Outermost, StoreError> {
        let walk = |from: &[u8], to: &[u8]| self.range(from, to);
        self.edges.outermost((from, to), end, count, walk)
    }

    /// A bound of an ordered object's live rows, if one is known: none stands before it
    /// (front), or none from it on (back). `prefix` is what its rows begin with.
    pub fn bound(&self, prefix: &[u8], end: End) -> Option<RowBuf> {
        self.edges.bound(prefix, end)
    }

    /// Keeps such a bound in mind, which a walk came upon.
    pub fn note_bound(&self, prefix: &[u8], bound: &[u8], end: End) {
        self.edges.note_bound(prefix, bound, end);
    }

    /// Forgets what is only a copy of rows.
    pub fn forget_copies(&mut self) {
        self.edges.clear();
    }

    /// To be called at the end of a tick with the end of the log: hands the active
    /// generation to the applier if it is large or old enough, and lets go of what the
    /// engine has by now.
    pub fn freeze_if_due(&mut self, log_end: u64) {
        if self.is_freeze_due(log_end) {
            self.freeze(log_end, Then::Nothing);
        }
    }

    /// Lets go of what the engine has by now, and tells whether the active generation is
    /// large or old enough to be handed to the applier: rows that belong into each
    /// generation are put before [`Rows::freeze_now`] then.
    pub fn is_freeze_due(&mut self, log_end: u64) -> bool {
        self.let_go_of_applied();
        // Bytes of the log that change no rows must not keep it from forgetting.
        let skipped = log_end.saturating_sub(self.frozen_offset);
        let is_far = skipped >= self.options.freeze_bytes as u64;
        if self.active.is_empty() && !is_far {
            self.active_since = None;
            return false;
        }
        let since = *self.active_since.get_or_insert_with(Instant::now);
        let bytes = self.active.bytes();
        let is_due = bytes >= self.options.freeze_bytes
            || is_far
            || self.is_full()
            || since.elapsed() >= self.options.freeze_age;
        let is_free = self.frozen.is_empty() || bytes >= self.options.freeze_busy_bytes;
        let has_room = self.frozen.len() < GENERATIONS_MAX && !self.applier.has_failed();
        is_due && is_free && has_room
    }

    /// Hands the active generation to the applier.
    pub fn freeze_now(&mut self, log_end: u64) {
        self.freeze(log_end, Then::Nothing);
    }

    /// When [`Rows::freeze_if_due`] should be called at the latest, if nothing else
    /// happens; the applier's end of work is told by [`RowsOptions::wake`].
    pub fn freeze_due_in(&self) -> Option<Duration> {
        let since = self.active_since.filter(|_| self.frozen.is_empty())?;
        Some(self.options.freeze_age.saturating_sub(since.elapsed()))
    }

    /// Asks for a snapshot of all rows as they are now, at `log_end`.
    pub fn snapshot_at(&mut self, log_end: u64) -> SnapshotTicket {
        self.let_go_of_applied();
        let (sender, ticket) = SnapshotTicket::new();
        let waiting = self.frozen.len();
        if let Some(error) = self.applier.failure() {
            let _ = sender.try_send(Err(error));
        } else if waiting >= GENERATIONS_MAX {
            let _ = sender.try_send(Err(StoreError::Behind { waiting }));
        } else {
            self.freeze(log_end, Then::Snapshot(sender));
        }
        ticket
    }

    /// Hands the active generation to the applier, which goes up to `log_end`, even if that
    /// is less than what came before; the ticket tells when it is durable.
    pub fn freeze_durably(&mut self, log_end: u64) -> DurableTicket {
        let (sender, ticket) = DurableTicket::new();
        self.freeze(log_end, Then::Persist(sender));
        ticket
    }

    /// The engine has everything up to this offset of the log, in memory at least.
    pub fn applied_offset(&self) -> u64 {
        self.applier.applied_offset()
    }

    /// What the engine has up to this offset of the log survives a power loss.
    pub fn durable_offset(&self) -> u64 {
        self.applier.durable_offset()
    }

    /// What the overlay takes up.
    pub fn overlay_bytes(&self) -> usize {
        self.active.bytes() + self.frozen_bytes
    }

    /// The overlay is at its bound: no more commands that write, until
    /// [`RowsOptions::wake`] is called.
    pub fn is_full(&self) -> bool {
        self.overlay_bytes() >= self.options.overlay_bytes_max
    }

    /// Why nothing gets into the engine any more, for good. What is in the overlay can
    /// still be read, and the log has it; new writes should be refused.
    pub fn failure(&self) -> Option<StoreError> {
        self.applier.failure()
    }

    /// Why the applier waits, if it does: a full disk, or flushes that are behind.
    pub fn waits_for(&self) -> Option<EngineError> {
        self.applier.waits_for()
    }

    /// Sizes and progress.
    pub fn stats(&self) -> RowsStats {
        RowsStats {
            overlay_bytes: self.overlay_bytes(),
            generations_waiting: self.frozen.len(),
            cache_bytes: self.cache.bytes() + self.edges.bytes(),
            applied_offset: self.applied_offset(),
            durable_offset: self.durable_offset(),
            dead_left: self.applier.dead_left(),
            waits_for: self.waits_for(),
            engine: self.engine.stats(),
        }
    }

    /// Applies everything, up to the end of the log, and makes it durable. Without it,
    /// the log is applied again from [`Rows::applied_offset`] on at the next start.
    pub fn close(mut self, log_end: u64) -> Result<(), StoreError> {
        if !self.active.is_empty() || self.frozen_offset != log_end {
            self.freeze(log_end, Then::Nothing);
        }
        self.applier.finish()
    }

    fn set(&mut self, row: &[u8], value: Option<Bytes>) {
        self.change_copies(row, &value);
        self.active.set(row, value);
    }

    fn set_owned(&mut self, row: RowBuf, value: Option<Bytes>) {
        self.change_copies(&row, &value);
        self.active.set_owned(row, value);
    }

    fn change_copies(&mut self, row: &[u8], value: &Option<Bytes>) {
        self.cache.change(row, value);
        self.edges.change(row, value.as_ref());
    }

    fn freeze(&mut self, offset: u64, then: Then) {
        let next = Generation::after(&self.active);
        let generation = std::mem::replace(&mut self.active, next);
        self.active_since = None;
        self.frozen_bytes += generation.bytes();
        self.frozen_offset = offset;
        self.generations += 1;
        let frozen = Arc::new(Frozen {
            id: self.generations,
            offset,
            generation,
        });
        self.frozen.push_back(Arc::clone(&frozen));
        self.applier.order(frozen, then);
    }

    fn let_go_of_applied(&mut self) {
        let applied = self.applier.applied_generation();
        while let Some(frozen) = self.frozen.pop_front_if(|frozen| frozen.id <= applied) {
            self.frozen_bytes -= frozen.generation.bytes();
            self.applier.dispose(frozen);
        }
    }
}
