//! A source whose stream is lost begins anew, alone: after a full resync its
//! keys are copied again, and what its old copy left on targets is removed first,
//! since keys may be gone by now that nothing in the new history deletes.
//!
//! ```text
//! told (row, board) -> lanes empty -> its keys removed on every target -> Snapshot
//! ```
//!
//! A source whose stream is gone on with by a promoted replica only forgets the
//! markers that are under way. The other sources go on. Invariant: nothing is removed while a request of
//! the old history is under way.

use tokio::sync::mpsc;

use super::super::begin::SourceBegin;
use super::super::error::{MoveError, Role};
use super::super::keyspace::KeyWalk;
use super::super::link::{Link, Patience};
use super::super::placement::TargetIndex;
use super::super::progress::Phase;
use super::super::removal::remove_keys;
use super::flushing::Emptied;
use super::{Draining, Source, Unit};

impl Source {
    /// A snapshot begins: what the targets hold of an older one goes first.
    pub(super) async fn clear_targets(&mut self) -> Result<(), MoveError> {
        if self.phase == Phase::Connecting && self.begin == SourceBegin::Clean {
            return Ok(());
        }
        self.begin = SourceBegin::Clean;
        self.begin_anew().await
    }

    async fn begin_anew(&mut self) -> Result<(), MoveError> {
        tracing::warn!(
            source = %self.parts.address,
            "its stream cannot be taken up where it was left: its keys are removed from the targets and copied anew"
        );
        // First of all, so that nobody trusts what was verified before.
        self.restarts += 1;
        self.phase = Phase::Connecting;
        self.show();
        self.parts.board.clear();
        self.parts.pending.clear();
        self.cut = None;
        self.abandon_large()?;
        self.unit = Unit::Outside;
        // Before anything is removed: nobody goes on with what is left.
        for queue in &mut self.parts.queues {
            queue.begin_history();
        }
        self.note_nothing_pending()?;
        self.empty_lanes().await?;
        let mut removed = 0;
        for target in self.targets() {
            removed += self.remove_arrived(target, Emptied::All).await?;
        }
        tracing::info!(source = %self.parts.address, removed, "its old copy is gone");
        self.guard.begin_anew();

        self.draining = Draining::Nothing;
        (self.scanned, self.sent, self.expired, self.by_commands) = (0, 0, 0, 0);
        self.bytes = 0;
        for meter in &self.parts.meters {
            meter.restart();
        }
        self.snapshot_at_ms = None;
        self.parts.shortfalls.forget();
        Ok(())
    }

    /// A replica that was promoted goes on with the stream, and may never have had
    /// the markers that its master was given: whoever waits for one sends it again.
    pub(super) fn forget_markers(&mut self) {
        tracing::info!(source = %self.parts.address, "another server took its place and goes on with its stream");
        self.parts.board.clear();
        if self.cut.is_some() {
            // What keeps clients off the old master is not in the new one.
            self.refuse_cut(MoveError::Restarted {
                source_server: self.parts.address.clone(),
            });
        }
        if matches!(self.draining, Draining::Settling) {
            self.draining = Draining::ToSettle;
        }
    }

    /// Waits until every lane was answered for all it was given.
    pub(super) async fn empty_lanes(&mut self) -> Result<(), MoveError> {
        let lanes = self.parts.queues.len();
        let (passed, mut words) = mpsc::channel(lanes.max(1));
        self.barrier(&passed);
        drop(passed);
        self.flush_all().await?;
        for _ in 0..lanes {
            words.recv().await.ok_or(MoveError::Stopped)?;
        }
        Ok(())
    }

    /// Removes from one target all keys that came, or can have come, from this
    /// source, or from that database of it; how many.
    pub(super) async fn remove_arrived(
        &self,
        target: TargetIndex,
        what: Emptied,
    ) -> Result<u64, MoveError> {
        let placement = &self.parts.placement;
        let Some(server) = placement.targets().get(target.0) else {
            return Ok(0);
        };
        let mut link = Link::connect(Role::Target, server, &self.parts.upstream).await?;
        let mut walk = match what {
            Emptied::All => KeyWalk::new(&mut link).await?,
            Emptied::Database(db) => KeyWalk::of(db),
        };
        let mut removed = 0;
        let mut patience = Patience::default();
        loop {
            let stepped = async {
                let Some(page) = walk.next(&mut link).await? else {
                    return Ok(None);
                };
                let (db, mut keys) = (page.db, page.keys);
                keys.retain(|key| {
                    placement.arrives_at(target, key) == Some(self.parts.index)
                        && !placement.is_skipped(db, key)
                });
                remove_keys(&mut link, &keys).await?;
                Ok(Some(keys.len() as u64))
            };
            match stepped.await {
                Ok(Some(count)) => removed += count,
                Ok(None) => return Ok(removed),
                Err(error) => {
                    // A page may be half done: from the beginning.
                    link.revive(&mut patience, error).await?;
                    walk = match what {
                        Emptied::All => KeyWalk::new(&mut link).await?,
                        Emptied::Database(db) => KeyWalk::of(db),
                    };
                }
            }
        }
    }
}
