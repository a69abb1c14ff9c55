//! What goes through a lane: requests, and what their replies mean.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::resp::Value;
use crate::restore::Reply;

/// What was asked, in the order of the replies.
#[derive(Debug)]
pub(in super::super) enum Op {
    /// SELECT of this database.
    Select(u32),
    /// One of the requests that recreate a key.
    Key {
        /// Database number.
        db: u32,
        /// The key.
        key: Bytes,
        /// How its reply is judged.
        reply: Reply,
        /// Whether it is the key's last one.
        last: bool,
    },
    /// A command of the live stream, or our part of one.
    Command {
        /// Database number.
        db: u32,
        /// The command's name.
        name: Bytes,
        /// Its first key that moves.
        key: Bytes,
    },
    /// FUNCTION ...: several sources say the same, so "already gone" is no error.
    Library(Bytes),
    /// SET of the checkpoint.
    Checkpoint,
    /// Told when everything before it was answered; has no reply of its own.
    Barrier(mpsc::Sender<()>),
    /// PING of an idle lane; whatever is answered will do.
    Ping,
    /// Replies to hand back; an error reply among them is a value.
    Reads(Reads),
    /// Reads of which nobody wants the replies, which are so many, any more.
    Spent(usize),
}

impl Op {
    /// How many replies it gets.
    pub(super) fn replies(&self) -> usize {
        match self {
            Op::Barrier(_) => 0,
            Op::Reads(Reads { count, .. }) | Op::Spent(count) => *count,
            _ => 1,
        }
    }
}

/// A run of reads whose replies somebody waits for.
#[derive(Debug)]
pub(in super::super) struct Reads {
    /// How many replies they get.
    pub(in super::super) count: usize,
    /// Those that came.
    pub(in super::super) replies: Vec<Value>,
    /// Who waits for them. Dropped if the connection breaks meanwhile.
    pub(in super::super) done: oneshot::Sender<Vec<Value>>,
}

/// What becomes of a batch that was sent when it is not known to have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Carriage {
    /// It changes nothing: it is not sent again.
    Bare,
    /// Sent again, from its first request: done twice it does what it does once.
    /// Its last request is the checkpoint of this number.
    Repeatable(u64),
    /// In MULTI and EXEC with its checkpoint: sent again unless that is there.
    Once(u64),
}

impl Carriage {
    /// The number of its checkpoint.
    pub(super) fn sequence(self) -> Option<u64> {
        match self {
            Carriage::Bare => None,
            Carriage::Repeatable(sequence) | Carriage::Once(sequence) => Some(sequence),
        }
    }
}

/// Encoded requests and what their replies mean. It begins and ends in database 0.
#[derive(Debug)]
pub(in super::super) struct Batch {
    pub(in super::super) carriage: Carriage,
    /// With MULTI and EXEC around them where they are carried once.
    pub(in super::super) bytes: Bytes,
    /// Neither MULTI nor EXEC among them.
    pub(in super::super) ops: Vec<Op>,
    /// Stream offset that is applied once all of it is answered.
    pub(in super::super) offset: u64,
    /// Its share of the queue, given back when the lane takes it.
    pub(in super::super) share: Option<OwnedSemaphorePermit>,
}
