//! What a tap says while it listens: a task of its own, so that a caller who is
//! busy does not make the source believe that we are gone.
//!
//! ```text
//! Newlines --snapshot is whole--> Acks --close--> Stop
//!   "\n" every second               REPLCONF ACK at once when asked, else on time
//! ```
//!
//! Invariant: an ACK never carries more than [`Voice::acknowledge`] was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::resp::write_command;
use crate::upstream::socket::WriteHalf;

/// A real replica refreshes the source's timer like this while it loads.
const NEWLINE_EVERY: Duration = Duration::from_secs(1);

/// Longest time one line may take to be sent; the reading side finds out what is wrong.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the task to end on close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Newlines,
    /// `asked` grows with each ACK that is wanted at once.
    Acks {
        asked: u64,
    },
    Stop,
}

/// The task's handle; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Voice {
    orders: watch::Sender<Order>,
    acknowledged: Arc<AtomicU64>,
    task: Option<JoinHandle<()>>,
}

impl Voice {
    /// Starts with newlines; `acknowledged` is what the first ACK will carry.
    pub(super) fn start(half: WriteHalf, ack_every: Duration, acknowledged: u64) -> Self {
        let (orders, listen) = watch::channel(Order::Newlines);
        let acknowledged = Arc::new(AtomicU64::new(acknowledged));
        let task = tokio::spawn(speak(half, ack_every, Arc::clone(&acknowledged), listen));
        Self {
            orders,
            acknowledged,
            task: Some(task),
        }
    }

    /// From now on ACKs carry `offset`, unless they carry a higher one already.
    pub(super) fn acknowledge(&self, offset: u64) {
        self.acknowledged.fetch_max(offset, Ordering::Relaxed);
    }

    /// Sends an ACK at once, and from now on ACKs instead of newlines.
    pub(super) fn ack_now(&self) {
        self.orders.send_modify(|order| {
            *order = match *order {
                Order::Newlines => Order::Acks { asked: 0 },
                Order::Acks { asked } => Order::Acks {
                    asked: asked.wrapping_add(1),
                },
                Order::Stop => Order::Stop,
            }
        });
    }

    /// Ends the task and waits for it.
    pub(super) async fn stop(mut self) {
        self.orders.send_replace(Order::Stop);
        let Some(mut task) = self.task.take() else {
            return;
        };
        if timeout(CLOSE_TIMEOUT, &mut task).await.is_err() {
            // It hangs in a write to a source that takes nothing.
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn speak(
    mut half: WriteHalf,
    ack_every: Duration,
    acknowledged: Arc<AtomicU64>,
    mut orders: watch::Receiver<Order>,
) {
    let mut line = Vec::new();
    let mut acks = interval(ack_every);
    let mut newlines = interval(NEWLINE_EVERY);
    // Late ticks are of no use to anybody: one ACK says it all.
    acks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    newlines.set_missed_tick_behavior(MissedTickBehavior::Delay);
    newlines.reset();
    loop {
        let order = *orders.borrow_and_update();
        line.clear();
        match order {
            Order::Stop => return,
            Order::Newlines => {
                tokio::select! {
                    changed = orders.changed() => {
                        if changed.is_err() { return; }
                        continue;
                    }
                    _ = newlines.tick() => line.push(b'\n'),
                }
            }
            Order::Acks { .. } => {
                let offset = acknowledged.load(Ordering::Relaxed).to_string();
                write_command(&mut line, &[b"REPLCONF", b"ACK", offset.as_bytes()]);
                acks.reset();
            }
        }
        // A link that takes nothing is found out by the side that reads.
        match timeout(WRITE_TIMEOUT, half.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        if matches!(order, Order::Acks { .. }) {
            tokio::select! {
                changed = orders.changed() => {
                    if changed.is_err() { return; }
                }
                _ = acks.tick() => {}
            }
        }
    }
}
