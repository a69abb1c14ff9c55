//! The source task's end of a lane: encodes operations into batches and hands
//! them over, waiting when the lane's queue is full.
//!
//! ```text
//! once         MULTI  [SELECT n ..] requests [SELECT 0]  SET checkpoint  EXEC
//! repeatable   [SELECT n ..] requests [SELECT 0]  SET checkpoint
//! bare         [SELECT n] reads [SELECT 0]
//! ```
//!
//! Every batch begins and ends in database 0, so that it can be sent on any
//! connection. One request that must not be done twice makes its batch one that
//! is done once.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::planted::{self, Planted};
use crate::rdb::{RawValue, ValueType};
use crate::resp::write_command;
use crate::restore::{
    CannotRestore, Dialect, How, KeyHead, LargeValue, Outcome, Overwrite, Reply, Requests, Restorer,
};

use super::checkpoint::{Checkpoint, StreamAt};
use super::config::{BATCH_BYTES, BATCH_OPS_MAX, IDLE_CHECKPOINT_MS, QUEUE_BATCHES_MAX};
use super::error::MoveError;
use super::lane::{Batch, Carriage, LaneMeter, LaneNames, Op};
use super::placement::TargetIndex;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// What the gathered requests are, the most careful kind of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Bare,
    Repeatable,
    Once,
}

/// One lane, as its source task sees it.
pub(super) struct LaneQueue {
    pub(super) target: TargetIndex,
    names: LaneNames,
    /// What is gathered, behind a MULTI that goes only with what is done once.
    bytes: Vec<u8>,
    ops: Vec<Op>,
    load: Load,
    /// The database that the connection will be in after what was pushed.
    db: u32,
    /// Where the checkpoint goes.
    key: Vec<u8>,
    /// That of the newest batch.
    checkpoint: Checkpoint,
    noted: Instant,
    /// The target has the stream up to this byte since an earlier run.
    covered_to: u64,
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
        (key, checkpoint): (Vec<u8>, Checkpoint),
        (queue_bytes, restorer): (usize, Restorer),
        meter: Arc<LaneMeter>,
    ) -> (LaneQueue, mpsc::Receiver<Batch>) {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        let budget_max = u32::try_from(queue_bytes).unwrap_or(u32::MAX).max(1);
        let queue = LaneQueue {
            target,
            names,
            bytes: MULTI.to_vec(),
            ops: Vec::new(),
            load: Load::Bare,
            db: 0,
            key,
            covered_to: checkpoint.at.as_ref().map_or(0, |at| at.offset),
            checkpoint,
            noted: Instant::now(),
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
        if self.db != db {
            write_command(&mut self.bytes, &[b"SELECT", db.to_string().as_bytes()]);
            self.ops.push(Op::Select(db));
            self.db = db;
        }
    }

    /// Adds encoded bytes with what their replies mean.
    pub(super) fn push(&mut self, bytes: &[u8], op: Op) {
        self.bytes.extend_from_slice(bytes);
        self.push_op(op);
    }

    fn push_op(&mut self, op: Op) {
        let load = match &op {
            Op::Command { .. } => Load::Once,
            // LOAD replaces, and what is gone already is taken for done.
            Op::Library(_) => Load::Repeatable,
            _ => Load::Bare,
        };
        self.load = self.load.max(load);
        self.ops.push(op);
    }

    /// True when something that is done once was pushed since the last `flush`.
    pub(super) fn holds_once(&self) -> bool {
        self.load == Load::Once
    }

    /// Whether the target has what is at this offset of the stream.
    pub(super) fn covers(&self, offset: u64) -> bool {
        offset <= self.covered_to
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
        self.load = self.load.max(match outcome.how {
            // Whatever is there, RESTORE leaves the same.
            How::Raw | How::Converted(_) | How::Empty => Load::Repeatable,
            How::Commands => Load::Once,
        });
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
        self.load = Load::Once;
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
        self.load = Load::Once;
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
        self.push_op(op);
    }

    /// True when the batch is worth handing over.
    pub(super) fn is_full(&self) -> bool {
        self.pending_bytes() >= BATCH_BYTES || self.ops.len() >= BATCH_OPS_MAX
    }

    /// Bytes that wait for the next `flush`.
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.len() - MULTI.len()
    }

    /// What is pushed from now on belongs to a new history of the source, of which
    /// the target has nothing.
    pub(super) fn begin_history(&mut self) {
        self.checkpoint.lineage.history += 1;
        self.covered_to = 0;
        self.note();
    }

    /// Has the next `flush` put a checkpoint down, whatever else it carries.
    pub(super) fn note(&mut self) {
        self.load = self.load.max(Load::Repeatable);
    }

    /// Whether a checkpoint is due for a stream that was read up to `at`, although
    /// nothing of it is for this target.
    pub(super) fn is_note_due(&self, at: &StreamAt) -> bool {
        match &self.checkpoint.at {
            None => true,
            Some(noted) if noted == at => false,
            Some(_) => self.noted.elapsed().as_millis() >= u128::from(IDLE_CHECKPOINT_MS),
        }
    }

    /// Hands over what was pushed. `offset` is the stream position it reaches;
    /// `at` is given if the stream can be gone on with there, with nothing of it
    /// missing.
    pub(super) async fn flush(
        &mut self,
        offset: u64,
        at: Option<&StreamAt>,
    ) -> Result<(), MoveError> {
        if self.ops.is_empty() && self.load == Load::Bare {
            return Ok(());
        }
        if planted::is_on(Planted::CheckpointOutsideMulti) && self.holds_once() {
            let gathered = std::mem::replace(&mut self.bytes, MULTI.to_vec());
            let ops = std::mem::take(&mut self.ops);
            let db = std::mem::replace(&mut self.db, 0);
            self.load = Load::Repeatable;
            self.send(offset, at).await?;
            (self.bytes, self.ops, self.db) = (gathered, ops, db);
            self.load = Load::Once;
        }
        self.send(offset, at).await
    }

    async fn send(&mut self, offset: u64, at: Option<&StreamAt>) -> Result<(), MoveError> {
        let (carriage, bytes) = self.seal(at);
        // A batch larger than the whole queue passes alone.
        let share = u32::try_from(bytes.len())
            .unwrap_or(u32::MAX)
            .min(self.budget_max);
        let budget = Arc::clone(&self.budget);
        let share = budget.acquire_many_owned(share).await.ok();
        let batch = Batch {
            carriage,
            bytes,
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

    /// Ends the batch in database 0, with its checkpoint.
    fn seal(&mut self, at: Option<&StreamAt>) -> (Carriage, Bytes) {
        self.select(0);
        let load = std::mem::replace(&mut self.load, Load::Bare);
        let is_noted = load == Load::Once && planted::is_on(Planted::CheckpointOutsideMulti);
        if load > Load::Bare && !is_noted {
            self.checkpoint.sequence += 1;
            self.checkpoint.at = at.cloned();
            self.noted = Instant::now();
            let text = self.checkpoint.text();
            let args: [&[u8]; 3] = [b"SET", &self.key, text.as_bytes()];
            write_command(&mut self.bytes, &args);
            self.ops.push(Op::Checkpoint);
        }
        if load == Load::Once {
            self.bytes.extend_from_slice(EXEC);
        }
        let bytes = Bytes::from(std::mem::replace(&mut self.bytes, MULTI.to_vec()));
        let sequence = self.checkpoint.sequence;
        match load {
            Load::Bare => (Carriage::Bare, bytes.slice(MULTI.len()..)),
            Load::Repeatable => (Carriage::Repeatable(sequence), bytes.slice(MULTI.len()..)),
            Load::Once => (Carriage::Once(sequence), bytes),
        }
    }
}
