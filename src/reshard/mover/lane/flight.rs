//! A batch that was taken and is not fully answered.
//!
//! ```text
//! Each       one reply an operation
//! Opening -- +OK (MULTI) --> Queueing -- +QUEUED, each --> Running -- EXEC's array --> Each, at its end
//!
//! the connection broke:   covered by the checkpoint, or back to where it began
//! ```
//!
//! Invariant: each operation is judged once, whatever is sent again.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::resp::{ReplyError, Span, array_elements, parse_value};

use super::super::error::MoveError;
use super::batch::{Batch, Carriage, Op, Reads};
use super::judge::{Judge, Sent, error_text, is_error};

/// See the head of this file.
pub(super) struct Flight {
    pub(super) carriage: Carriage,
    /// Kept to be sent again.
    pub(super) bytes: Bytes,
    ops: Vec<Op>,
    /// The operation that the next reply answers, or the next barrier.
    at: usize,
    /// Replies of it that came.
    came: usize,
    /// Operations before this one were judged.
    judged: usize,
    sent: Sent,
    progress: Progress,
    /// `None`: nobody sent it, so the meter does not count it.
    pub(super) offset: Option<u64>,
}

enum Progress {
    Each,
    Opening,
    Queueing {
        left: usize,
        /// The first that was refused, by its number among the replies.
        refused: Option<(usize, String)>,
    },
    Running {
        refused: Option<(usize, String)>,
    },
    /// The target has all of it, whatever it answered.
    Covered,
}

/// Why a reply could not be taken.
pub(super) enum Fault {
    /// It is none.
    Noise(ReplyError),
    /// EXEC answered something else than one reply a request.
    Odd(&'static str),
    /// The job cannot go on.
    Job(MoveError),
}

impl From<MoveError> for Fault {
    fn from(error: MoveError) -> Fault {
        Fault::Job(error)
    }
}

impl From<ReplyError> for Fault {
    fn from(error: ReplyError) -> Fault {
        Fault::Noise(error)
    }
}

impl Flight {
    pub(super) fn new(batch: Batch) -> Flight {
        Flight {
            progress: Progress::of(batch.carriage),
            carriage: batch.carriage,
            bytes: batch.bytes,
            ops: batch.ops,
            at: 0,
            came: 0,
            judged: 0,
            sent: Sent::First,
            offset: Some(batch.offset),
        }
    }

    /// A PING of our own.
    pub(super) fn ping(request: Bytes) -> Flight {
        Flight {
            carriage: Carriage::Bare,
            bytes: request,
            ops: vec![Op::Ping],
            at: 0,
            came: 0,
            judged: 0,
            sent: Sent::First,
            progress: Progress::Each,
            offset: None,
        }
    }

    /// Its share of the window.
    pub(super) fn ops(&self) -> usize {
        self.ops.len()
    }

    /// Takes the next reply. Nothing may be left of it to be passed.
    pub(super) fn on_reply(&mut self, reply: &[u8], judge: &Judge) -> Result<(), Fault> {
        match std::mem::replace(&mut self.progress, Progress::Each) {
            Progress::Each => self.on_each(reply, judge)?,
            Progress::Covered => return Err(Fault::Odd("more replies than requests")),
            Progress::Opening if is_error(reply) => {
                return Err(judge.no_transaction(reply).into());
            }
            Progress::Opening => {
                let left = self.ops.iter().map(Op::replies).sum();
                let refused = None;
                self.progress = match left {
                    0 => Progress::Running { refused },
                    left => Progress::Queueing { left, refused },
                };
            }
            Progress::Queueing { left, mut refused } => {
                if is_error(reply) && refused.is_none() {
                    let total: usize = self.ops.iter().map(Op::replies).sum();
                    refused = Some((total - left, error_text(reply)));
                }
                self.progress = match left - 1 {
                    0 => Progress::Running { refused },
                    left => Progress::Queueing { left, refused },
                };
            }
            Progress::Running { refused } => self.on_exec(reply, refused, judge)?,
        }
        Ok(())
    }

    fn on_each(&mut self, reply: &[u8], judge: &Judge) -> Result<(), Fault> {
        let Some(op) = self.ops.get_mut(self.at) else {
            return Err(Fault::Odd("more replies than requests"));
        };
        if let Op::Reads(reads) = op {
            reads.replies.push(parse_value(reply)?);
        } else if self.at >= self.judged {
            judge.reply(op, self.sent, reply)?;
        }
        self.came += 1;
        if self.came >= op.replies() {
            hand_back(op);
            self.came = 0;
            self.at += 1;
            self.judged = self.judged.max(self.at);
        }
        Ok(())
    }

    fn on_exec(
        &mut self,
        reply: &[u8],
        refused: Option<(usize, String)>,
        judge: &Judge,
    ) -> Result<(), Fault> {
        if is_error(reply) {
            let first = refused.and_then(|(number, text)| Some((self.op_of(number)?, text)));
            return Err(judge.nothing_applied(first, reply).into());
        }
        let mut elements = Vec::new();
        array_elements(reply, &mut elements)?;
        let mut elements = elements.into_iter().map(|span: Span| span.of(reply));
        for op in &mut self.ops {
            for _ in 0..op.replies() {
                let element = elements.next();
                let element = element.ok_or(Fault::Odd("EXEC with too few replies"))?;
                if let Op::Reads(reads) = op {
                    reads.replies.push(parse_value(element)?);
                } else {
                    judge.reply(op, Sent::First, element)?;
                }
            }
            hand_back(op);
        }
        if elements.next().is_some() {
            return Err(Fault::Odd("EXEC with too many replies"));
        }
        self.judged = self.ops.len();
        self.progress = Progress::Covered;
        Ok(())
    }

    /// The operation that gets the reply of this number.
    fn op_of(&self, number: usize) -> Option<&Op> {
        let mut before = 0;
        self.ops.iter().find(|op| {
            before += op.replies();
            before > number
        })
    }

    /// Hands out the barriers whose turn it is; true when all of it is done.
    pub(super) fn pass(&mut self, judge: &Judge, passed: &mut Vec<mpsc::Sender<()>>) -> bool {
        while let Some(op) = self.ops.get(self.at) {
            match (op, &self.progress) {
                (Op::Barrier(barrier), Progress::Each | Progress::Covered) => {
                    if self.at >= self.judged || matches!(self.progress, Progress::Covered) {
                        passed.push(barrier.clone());
                    }
                }
                (op, Progress::Covered) => {
                    if self.at >= self.judged {
                        judge.covered(op);
                    }
                }
                _ => return false,
            }
            self.at += 1;
            if matches!(self.progress, Progress::Each) {
                self.judged = self.judged.max(self.at);
            }
        }
        matches!(self.progress, Progress::Each | Progress::Covered)
    }

    /// The connection broke; the target has applied batches up to `applied`.
    /// What is to be sent again.
    pub(super) fn renew(&mut self, applied: u64) -> Option<Bytes> {
        self.came = 0;
        for op in &mut self.ops {
            if let Op::Reads(reads) = op {
                // Whoever waits is told by the end of the channel: as of this place
                // there is nothing to be read any more.
                *op = Op::Spent(reads.count);
            }
        }
        match self.carriage.sequence() {
            Some(sequence) if sequence > applied => {
                (self.at, self.sent) = (0, Sent::Again);
                self.progress = Progress::of(self.carriage);
                Some(self.bytes.clone())
            }
            _ => {
                self.progress = Progress::Covered;
                None
            }
        }
    }
}

impl Progress {
    fn of(carriage: Carriage) -> Progress {
        match carriage {
            Carriage::Once(_) => Progress::Opening,
            Carriage::Bare | Carriage::Repeatable(_) => Progress::Each,
        }
    }
}

/// Gives reads that are complete to whom they are for.
fn hand_back(op: &mut Op) {
    let Op::Reads(Reads { count, .. }) = op else {
        return;
    };
    let spent = Op::Spent(*count);
    if let Op::Reads(reads) = std::mem::replace(op, spent) {
        // Whoever asked may have given up: nothing is lost by that.
        let _ = reads.done.send(reads.replies);
    }
}
