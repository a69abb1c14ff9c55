//! The source task's end of a lane: encodes operations into batches and hands
//! them over, waiting when the lane's queue is full.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::rdb::{RawValue, ValueType};
use crate::resp::write_command;
use crate::restore::{
    CannotRestore, Dialect, KeyHead, LargeValue, Outcome, Overwrite, Reply, Requests, Restorer,
};

use super::config::{BATCH_BYTES, BATCH_OPS_MAX, QUEUE_BATCHES_MAX};
use super::error::MoveError;
use super::lane::{Batch, LaneMeter, LaneNames, Op};
use super::placement::TargetIndex;

/// One lane, as its source task sees it.
pub(super) struct LaneQueue {
    pub(super) target: TargetIndex,
    names: LaneNames,
    bytes: Vec<u8>,
    ops: Vec<Op>,
    /// The database that the connection will be in after what was pushed.
    db: Option<u32>,
    restorer: Restorer,
    /// What the restorer says of its requests; kept for its capacity.
    replies: Vec<Reply>,
    sender: mpsc::Sender<Batch>,
    budget: Arc<Semaphore>,
    budget_max: u32,
    meter: Arc<LaneMeter>,
}

impl LaneQueue {
    /// The queue and the end that the lane's task reads.
    pub(super) fn new(
        target: TargetIndex,
        names: LaneNames,
        (queue_bytes, restorer): (usize, Restorer),
        meter: Arc<LaneMeter>,
    ) -> (LaneQueue, mpsc::Receiver<Batch>) {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        let budget_max = u32::try_from(queue_bytes).unwrap_or(u32::MAX).max(1);
        let queue = LaneQueue {
            target,
            names,
            bytes: Vec::new(),
            ops: Vec::new(),
            db: None,
            restorer,
            replies: Vec::new(),
            sender,
            budget: Arc::new(Semaphore::new(budget_max as usize)),
            budget_max,
            meter,
        };
        (queue, receiver)
    }

    /// Makes `db` the database of what is pushed next.
    pub(super) fn select(&mut self, db: u32) {
        if self.db != Some(db) {
            write_command(&mut self.bytes, &[b"SELECT", db.to_string().as_bytes()]);
            self.ops.push(Op::Select(db));
            self.db = Some(db);
        }
    }

    /// Adds encoded bytes with what their replies mean.
    pub(super) fn push(&mut self, bytes: &[u8], op: Op) {
        self.bytes.extend_from_slice(bytes);
        self.ops.push(op);
    }

    /// Adds what recreates a key whose value is whole, in the database `db`.
    pub(super) fn push_key(
        &mut self,
        db: u32,
        key: &Bytes,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
    ) -> Result<Outcome, CannotRestore> {
        self.push_whole((db, key), head, value, true)
    }

    /// The same for a key that is known already: it is not counted again, and
    /// replaced whatever the policy for keys that were there before us.
    pub(super) fn push_again(
        &mut self,
        db: u32,
        key: &Bytes,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
    ) -> Result<Outcome, CannotRestore> {
        let policy = self.restorer.set_overwrite(Overwrite::Always);
        let outcome = self.push_whole((db, key), head, value, false);
        self.restorer.set_overwrite(policy);
        outcome
    }

    fn push_whole(
        &mut self,
        (db, key): (u32, &Bytes),
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
        counts: bool,
    ) -> Result<Outcome, CannotRestore> {
        self.select(db);
        let mut requests = Requests {
            bytes: &mut self.bytes,
            replies: &mut self.replies,
        };
        let outcome = self.restorer.whole(&mut requests, head, value)?;
        self.take_replies(db, key, counts);
        Ok(outcome)
    }

    /// Begins a value that comes in parts.
    pub(super) fn begin_large(
        &mut self,
        head: &KeyHead<'_>,
        type_id: ValueType,
    ) -> Result<LargeValue, CannotRestore> {
        self.restorer.begin(head, type_id)
    }

    /// Adds a part of it; with the last one the key is there and the outcome known.
    /// A value that fails is to be abandoned.
    pub(super) fn add_to_large(
        &mut self,
        db: u32,
        key: &Bytes,
        value: &mut LargeValue,
        (bytes, last): (&[u8], bool),
    ) -> Result<Option<Outcome>, CannotRestore> {
        // Between its parts the connection may have been in another database.
        self.select(db);
        let mut requests = Requests {
            bytes: &mut self.bytes,
            replies: &mut self.replies,
        };
        let added = value.part(&mut self.restorer, &mut requests, bytes, last);
        self.take_replies(db, key, last && added.is_ok());
        added
    }

    /// Removes what was built of it.
    pub(super) fn abandon_large(&mut self, db: u32, key: &Bytes, value: LargeValue) {
        self.select(db);
        let mut requests = Requests {
            bytes: &mut self.bytes,
            replies: &mut self.replies,
        };
        value.abandon(&mut requests);
        self.take_replies(db, key, false);
    }

    /// What the restorer appended becomes operations; the last of them ends the
    /// key if it `is_whole` with them.
    fn take_replies(&mut self, db: u32, key: &Bytes, is_whole: bool) {
        let mut left = self.replies.len();
        for reply in self.replies.drain(..) {
            left -= 1;
            self.ops.push(Op::Key {
                db,
                key: key.clone(),
                reply,
                last: is_whole && left == 0,
            });
        }
    }

    /// What its target takes.
    pub(super) fn dialect(&self) -> &Dialect {
        self.restorer.dialect()
    }

    /// Adds a part of a split command.
    pub(super) fn push_args(&mut self, args: &[&[u8]], op: Op) {
        write_command(&mut self.bytes, args);
        self.ops.push(op);
    }

    /// True when the batch is worth handing over.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.ops.len() >= BATCH_OPS_MAX
    }

    /// Bytes that wait for the next `flush`.
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Hands over what was pushed; `offset` is the stream position it reaches.
    pub(super) async fn flush(&mut self, offset: u64) -> Result<(), MoveError> {
        if self.ops.is_empty() {
            return Ok(());
        }
        // A batch larger than the whole queue passes alone.
        let bytes = u32::try_from(self.bytes.len())
            .unwrap_or(u32::MAX)
            .min(self.budget_max);
        let budget = Arc::clone(&self.budget);
        let share = budget.acquire_many_owned(bytes).await.ok();
        let batch = Batch {
            bytes: std::mem::take(&mut self.bytes),
            ops: std::mem::take(&mut self.ops),
            offset,
            share,
        };
        self.meter.sent();
        self.sender
            .send(batch)
            .await
            .map_err(|_| MoveError::TaskLost {
                task: format!("lane {} -> {}", self.names.source, self.names.target),
                how: "its queue is closed".to_owned(),
            })
    }
}
