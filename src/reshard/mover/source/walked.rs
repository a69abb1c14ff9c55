//! What a walk tells: keys of the copy, and keys as they are after they changed.
//!
//! ```text
//! Key      as a snapshot's
//! Changed  RESTORE .. REPLACE, or its commands   (its target cannot hold it: UNLINK)
//! Gone     UNLINK
//! ```
//!
//! Such requests say all there is of a key, so that it does not matter what its
//! target has; lanes of a walk always replace.

use bytes::Bytes;

use crate::replication::SnapshotRecord;

use super::super::error::MoveError;
use super::super::lane::Op;
use super::super::placement::{Place, TargetIndex};
use super::super::progress::Phase;
use super::super::walk::WalkEvent;
use super::Source;

const UNLINK: &[u8] = b"UNLINK";

impl Source {
    pub(super) async fn on_walk_event(&mut self, event: WalkEvent) -> Result<(), MoveError> {
        match event {
            WalkEvent::Begin => {
                self.clear_targets().await?;
                // Nothing of it is needed: see `Feed::needs_guard`.
                self.guard.turn_off();
                self.phase = Phase::Snapshot;
                self.show();
            }
            WalkEvent::Scanned(keys) => self.scanned += keys,
            WalkEvent::Key(record) => self.copy_record(&record).await?,
            WalkEvent::Library(code) => self.on_library(&code).await?,
            WalkEvent::CopyEnd => self.on_snapshot_applied().await?,
            WalkEvent::Changed(record) => self.on_changed(&record).await?,
            WalkEvent::Gone { db, key } => self.on_gone(db, &key).await?,
            WalkEvent::Marker(expected) => self.on_expected(expected).await?,
        }
        Ok(())
    }

    async fn on_changed(&mut self, record: &SnapshotRecord) -> Result<(), MoveError> {
        let SnapshotRecord { db, key, .. } = record;
        let Place::Moves(target) = self.parts.placement.place(self.parts.index, *db, key) else {
            return Ok(());
        };
        // It is written as a whole.
        self.parts.shortfalls.held_again(*db, key);
        self.offset += (key.len() + record.value.len()) as u64;
        self.commands += 1;
        self.write_whole(target, record)?;
        self.flush_if_full(target).await
    }

    async fn on_gone(&mut self, db: u32, key: &Bytes) -> Result<(), MoveError> {
        let Place::Moves(target) = self.parts.placement.place(self.parts.index, db, key) else {
            return Ok(());
        };
        self.parts.shortfalls.held_again(db, key);
        self.unlink(target, db, key)?;
        self.offset += key.len() as u64;
        self.commands += 1;
        self.flush_if_full(target).await
    }

    pub(super) fn unlink(
        &mut self,
        target: TargetIndex,
        db: u32,
        key: &Bytes,
    ) -> Result<(), MoveError> {
        let queue = self.queue(target)?;
        queue.select(db);
        let op = Op::Command {
            db,
            name: Bytes::from_static(UNLINK),
            key: key.clone(),
        };
        queue.push_args(&[UNLINK, key], op);
        Ok(())
    }
}
