//! Keys whose values cannot be followed command by command: what the stream says
//! of them is passed over until they were read from the source again (`pending`,
//! `refresh`).
//!
//! ```text
//! RENAME a b, a and b for different targets:   a, b pending
//! ... INCR b ...                               passed over
//! marker of the batch with a, b                RESTORE b .. REPLACE, UNLINK a into their lanes
//! ... INCR b ...                               applied
//! ```

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::planted::{self, Planted};
use crate::replication::{SnapshotRecord, StreamCommand};
use crate::restore::{CannotRestore, How, KeyHead, Outcome};

use super::super::compare::{Seen, State};
use super::super::config::MARKER_MS_MAX;
use super::super::error::MoveError;
use super::super::pending::TooMany;
use super::super::placement::{Place, TargetIndex};
use super::super::reads::record_of;
use super::super::route::Because;
use super::super::shortfall::Short;
use super::noting::Note;
use super::snapshot::in_words;
use super::{Source, unix_ms};

/// Longest wait at a marker for the values that were read with it: they may be
/// longer than the stream behind them. Later they are read again.
const VALUES_WAIT: Duration = Duration::from_millis(MARKER_MS_MAX);
/// More spanning commands than this, and more than one in `SHARE` of all that
/// are followed: worth a warning.
const SPANNING_MANY: u64 = 1_000;
const SPANNING_SHARE: u64 = 100;

impl Source {
    /// A command that writes these keys, by database and argument, is not applied.
    pub(super) fn mark_pending(
        &mut self,
        command: &StreamCommand,
        name: &'static str,
        keys: &[(u32, usize)],
        because: Because,
    ) -> Result<(), MoveError> {
        for (db, index) in keys {
            self.mark(*db, command.arg(*index))?;
        }
        if because == Because::Spans {
            *self.spanning.entry(name).or_default() += 1;
            self.warn_of_spanning();
        }
        Ok(())
    }

    /// From here on the key is pending.
    pub(super) fn mark(&mut self, db: u32, key: &[u8]) -> Result<(), MoveError> {
        let Place::Moves(target) = self.parts.placement.place(self.parts.index, db, key) else {
            return Ok(());
        };
        let marked = self.parts.pending.mark(db, key);
        if marked.map_err(|TooMany| self.too_many_pending())? {
            self.note_pending(target, Note::Key(db, key))?;
        }
        Ok(())
    }

    /// The same for one that an earlier run has noted.
    pub(super) fn mark_noted(&mut self, db: u32, key: &[u8]) -> Result<(), MoveError> {
        let marked = self.parts.pending.mark(db, key);
        marked
            .map(|_| ())
            .map_err(|TooMany| self.too_many_pending())
    }

    fn too_many_pending(&self) -> MoveError {
        MoveError::TooManyPending {
            source_server: self.parts.address.clone(),
        }
    }

    /// All keys of a database were read again.
    pub(super) fn on_rescanned(
        &mut self,
        db: u32,
        met: oneshot::Sender<()>,
    ) -> Result<(), MoveError> {
        self.parts.pending.rescanned(db);
        if !self.parts.pending.is_rescanning(db) {
            for target in self.targets() {
                self.note_settled(target, Note::Database(db))?;
            }
        }
        // A refresher that was told to stop needs no word.
        let _ = met.send(());
        Ok(())
    }

    fn warn_of_spanning(&mut self) {
        let spanning: u64 = self.spanning.values().sum();
        let all = self.commands + spanning;
        if spanning <= SPANNING_MANY || spanning * SPANNING_SHARE <= all || self.spanning_told {
            return;
        }
        self.spanning_told = true;
        let mut by_name: Vec<(&str, u64)> = self.spanning.iter().map(|(n, c)| (*n, *c)).collect();
        by_name.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        tracing::warn!(
            source = %self.parts.address,
            spanning,
            of = all,
            most = ?by_name.first(),
            "more than 1 % of the commands have keys that go to different servers: each reads whole keys again; after the switch a client's command of that kind is refused, so such keys want a hash tag"
        );
    }

    /// At the marker they were read with.
    pub(super) async fn on_refresh(
        &mut self,
        db: u32,
        keys: Vec<Bytes>,
        values: oneshot::Receiver<Vec<Seen>>,
        met: oneshot::Sender<()>,
    ) -> Result<(), MoveError> {
        // Not read, or not in time: they stay pending, and whoever reads them
        // learns it from the end of `met`.
        let Ok(Ok(seen)) = tokio::time::timeout(VALUES_WAIT, values).await else {
            return Ok(());
        };
        for (key, seen) in keys.into_iter().zip(seen) {
            let Place::Moves(target) = self.parts.placement.place(self.parts.index, db, &key)
            else {
                continue;
            };
            self.bring(target, (db, key), seen).await?;
        }
        // A refresher that was told to stop needs no word.
        let _ = met.send(());
        Ok(())
    }

    async fn bring(
        &mut self,
        target: TargetIndex,
        (db, key): (u32, Bytes),
        seen: Seen,
    ) -> Result<(), MoveError> {
        self.parts.pending.settle(db, &key);
        if planted::is_on(Planted::RefreshDropped) {
            return Ok(());
        }
        self.refreshed += 1;
        self.parts.shortfalls.held_again(db, &key);
        match seen.state {
            State::Here {
                expires_at_ms,
                payload: Some(payload),
            } => {
                let payload = Bytes::from(payload);
                let now_ms = unix_ms();
                let ends = self
                    .guard
                    .time_of((db, &key), target, expires_at_ms, now_ms);
                let record = record_of((db, key.clone()), ends, &payload);
                let record = record.map_err(|error| MoveError::Answer {
                    role: super::super::error::Role::Source,
                    server: self.parts.address.clone(),
                    step: "read keys (DUMP)",
                    reply: format!("the value of a key (db {db}): {error}"),
                })?;
                self.note_fields((db, &key), record.type_id, &record.value);
                self.write_whole(target, &record)?;
            }
            _ => {
                self.guard.forget(db, &key);
                self.unlink(target, db, &key)?;
            }
        }
        self.note_settled(target, Note::Key(db, &key))?;
        self.flush_if_full(target).await
    }

    /// A key as it is now, whatever its target has.
    pub(super) fn write_whole(
        &mut self,
        target: TargetIndex,
        record: &SnapshotRecord,
    ) -> Result<(), MoveError> {
        let SnapshotRecord { db, key, .. } = record;
        let head = KeyHead {
            key,
            expires_at_ms: record.expires_at_ms,
            metadata: record.metadata.as_deref(),
            ..KeyHead::default()
        };
        let queue = self.queue(target)?;
        match queue.push_again(*db, key, &head, &record.raw_value()) {
            Ok(Outcome { how, lost }) => {
                if how == How::Empty {
                    self.unlink(target, *db, key)?;
                }
                if !lost.is_empty() {
                    self.add_shortfall(Short::Loses, target, (*db, key), in_words(lost));
                }
            }
            Err(CannotRestore::Malformed(cause)) => return Err(self.malformed(*db, key, cause)),
            Err(beyond) => {
                // What is there was its value once, and is no more.
                self.unlink(target, *db, key)?;
                let why = beyond.to_string();
                self.add_shortfall(Short::CannotHold, target, (*db, key), why);
            }
        }
        Ok(())
    }
}
