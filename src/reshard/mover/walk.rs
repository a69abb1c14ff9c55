//! Following a source without PSYNC: SCAN, DUMP and PTTL, and what it tells of
//! changes.
//!
//! ```text
//!            listener --changed keys, markers--> inbox --.
//! source ==<                                              worker --events--> Walk::next
//!            worker: SCAN; MULTI TIME PTTL.. DUMP.. EXEC -'
//!
//! Begin -> Scanned, Key, Library .. -> CopyEnd -> Changed, Gone, Marker ..
//!   ^------- listening was interrupted: everything told before is void -'
//! ```
//!
//! With keyspace notifications (`notices`) a key is read again after each change
//! that is told; without, all keys are read in repeated passes, and those told
//! that are not as they were (`memory`).
//!
//! The promise is weaker than a tap's. Values are as of when they were read, not
//! as of each command; what is told of a key is newer than the change that made
//! us look, or as new. Invariant: a [`WalkEvent::Marker`] comes after the state
//! that every moving key had when the marker was published, or a later one.

mod following;
mod inbox;
mod listener;
mod memory;
mod notices;
mod worker;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::replication::SnapshotRecord;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;

use super::error::MoveError;
use super::marker::{Board, Expected};
use super::placement::{Placement, SourceIndex};

use inbox::Inbox;
use worker::Worker;

pub(super) use notices::why_refused;

/// Batches of events that wait for the source task: each was read at once.
const CHUNKS_MAX: usize = 2;
/// Longest wait for the source's old setting to be put back on close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);

/// What a walk hands on.
#[derive(Debug)]
pub(super) enum WalkEvent {
    /// A copy begins; what was told before is void.
    Begin,
    /// So many keys were listed, whoever owns them.
    Scanned(u64),
    /// A key of the copy that moves.
    Key(SnapshotRecord),
    /// The source of one function library.
    Library(Bytes),
    /// All keys were listed.
    CopyEnd,
    /// A key as it is now.
    Changed(SnapshotRecord),
    /// A key that is there no more.
    Gone { db: u32, key: Bytes },
    /// A marker was seen, and what came before it was told.
    Marker(Expected),
}

/// How a walk is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalkFigures {
    /// Why changes are not told by notifications, so that keys are read in
    /// repeated passes; `None` if they are.
    pub passes_because: Option<String>,
    /// Passes over all keys after the copy.
    pub passes: u64,
    /// How long the newest of them took, in milliseconds.
    pub pass_ms: Option<u64>,
    /// Keys that changed and are still to be read.
    pub waiting_keys: u64,
    /// How often listening was interrupted, and the copy began anew.
    pub interruptions: u64,
    /// What interrupted it last.
    pub last_interruption: Option<String>,
}

/// What a walk needs.
pub(super) struct WalkConfig {
    pub(super) address: ShardAddress,
    pub(super) upstream: UpstreamConfig,
    pub(super) index: SourceIndex,
    pub(super) placement: Arc<Placement>,
    pub(super) board: Board,
    /// Where the source's own setting is kept until it is put back.
    pub(super) keep_in: Option<PathBuf>,
}

/// Figures that the worker writes and the source task reads.
type Shared = Arc<Mutex<WalkFigures>>;

/// A source being walked through and listened to.
pub(super) struct Walk {
    pending: VecDeque<WalkEvent>,
    chunks: mpsc::Receiver<Result<Vec<WalkEvent>, MoveError>>,
    figures: Shared,
    inbox: Arc<Inbox>,
    worker: JoinHandle<()>,
    /// Ends the worker when it is sent or dropped.
    stop: Option<oneshot::Sender<()>>,
}

impl Walk {
    /// Connects and begins; needs a tokio runtime, which runs the worker too.
    pub(super) async fn attach(config: WalkConfig) -> Result<Walk, MoveError> {
        let (out, chunks) = mpsc::channel(CHUNKS_MAX);
        let figures = Shared::default();
        let inbox = Arc::new(Inbox::new());
        let shared = (Arc::clone(&inbox), Arc::clone(&figures));
        let worker = Worker::connect(config, shared, out).await?;
        let (stop, stopped) = oneshot::channel();
        let worker = tokio::spawn(worker.run(stopped));
        Ok(Walk {
            pending: VecDeque::new(),
            chunks,
            figures,
            inbox,
            worker,
            stop: Some(stop),
        })
    }

    /// The next event. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<WalkEvent, MoveError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match self.chunks.recv().await {
                Some(Ok(chunk)) => self.pending = chunk.into(),
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(MoveError::TaskLost {
                        task: "walk".to_owned(),
                        how: "its queue is closed".to_owned(),
                    });
                }
            }
        }
    }

    pub(super) fn figures(&self) -> WalkFigures {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        WalkFigures {
            waiting_keys: self.inbox.waiting(),
            ..figures.clone()
        }
    }

    /// Leaves the source, as it was set before.
    pub(super) async fn close(mut self) {
        drop(self.stop.take());
        // So that a worker with something to tell is not waiting for us.
        self.chunks.close();
        // A source out of reach is not waited for: the next run puts it back.
        let _ = timeout(CLOSE_TIMEOUT, &mut self.worker).await;
    }
}
