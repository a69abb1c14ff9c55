//! What a tap says while it listens: a task for each link, so that neither a
//! caller who is busy nor a full spool makes the source believe that we are gone.
//!
//! ```text
//! Newlines --snapshot is whole--> Acks       REPLCONF ACK at once when asked, else on time
//!   "\n" every second       '---> Silence    SYNC: the source knows no ACK
//! ```
//!
//! Invariant: an ACK never carries more than the caller acknowledged, of the
//! history that the link is in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::resp::write_command;
use crate::upstream::socket::WriteHalf;

/// A real replica refreshes the source's timer like this while it loads.
const NEWLINE_EVERY: Duration = Duration::from_secs(1);

/// Longest time one line may take to be sent; the reading side finds out what is wrong.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the caller acknowledged.
#[derive(Debug, Default)]
pub(super) struct AckBoard {
    acknowledged: Mutex<Acknowledged>,
    asked: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    history: u64,
    offset: u64,
}

impl AckBoard {
    /// A new history: ACKs start at `offset`, whatever was said before.
    pub(super) fn begin(&self, history: u64, offset: u64) {
        *self.lock() = Acknowledged { history, offset };
    }

    /// From now on ACKs carry `offset`, unless they carry a higher one already
    /// or are of another history by now.
    pub(super) fn acknowledge(&self, history: u64, offset: u64) {
        let mut acknowledged = self.lock();
        if acknowledged.history == history {
            acknowledged.offset = acknowledged.offset.max(offset);
        }
    }

    /// An ACK is wanted at once.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    fn offset(&self) -> u64 {
        self.lock().offset
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Newlines,
    Acks,
    Nothing,
}

/// The task's handle; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Voice {
    say: watch::Sender<Say>,
    task: JoinHandle<()>,
}

impl Voice {
    /// Starts with newlines.
    pub(super) fn start(half: WriteHalf, ack_every: Duration, board: Arc<AckBoard>) -> Self {
        let (say, listen) = watch::channel(Say::Newlines);
        let task = tokio::spawn(speak(half, ack_every, board, listen));
        Self { say, task }
    }

    /// From now on this is said, at once first.
    pub(super) fn say(&self, say: Say) {
        self.say.send_replace(say);
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        // At worst half a line is sent, on a link that is closed right then.
        self.task.abort();
    }
}

async fn speak(
    mut half: WriteHalf,
    ack_every: Duration,
    board: Arc<AckBoard>,
    mut say: watch::Receiver<Say>,
) {
    let mut line = Vec::new();
    let mut acks = interval(ack_every);
    let mut newlines = interval(NEWLINE_EVERY);
    // Late ticks are of no use to anybody: one ACK says it all.
    acks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    newlines.set_missed_tick_behavior(MissedTickBehavior::Delay);
    newlines.reset();
    let mut said_acks = false;
    loop {
        line.clear();
        let order = *say.borrow_and_update();
        let changed = match order {
            Say::Newlines => tokio::select! {
                changed = say.changed() => Some(changed),
                _ = newlines.tick() => None,
            },
            Say::Nothing => Some(say.changed().await),
            Say::Acks if !said_acks => None,
            Say::Acks => tokio::select! {
                changed = say.changed() => Some(changed),
                () = board.asked.notified() => None,
                _ = acks.tick() => None,
            },
        };
        match changed {
            Some(Ok(())) => continue,
            Some(Err(_)) => return,
            None => {}
        }
        if order == Say::Acks {
            said_acks = true;
            acks.reset();
            let offset = board.offset().to_string();
            write_command(&mut line, &[b"REPLCONF", b"ACK", offset.as_bytes()]);
        } else {
            line.push(b'\n');
        }
        // A link that takes nothing is found out by the side that reads.
        match timeout(WRITE_TIMEOUT, half.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
