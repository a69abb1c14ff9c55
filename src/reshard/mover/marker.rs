//! Markers: unique messages published on a source and recognised in its stream.
//!
//! ```text
//! who asks:     board.expect(nonce, what)   PUBLISH __keyferry job:nonce --> source
//! source task:  sees the PUBLISH in the stream, board.take(nonce), puts `what` into its lanes
//! ```
//!
//! Everything the source did before the PUBLISH is before it in the stream, so
//! what is put into the lanes at that place is "as of the marker".

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::compare::Seen;
use super::error::MoveError;
use super::guard::{Guarded, Shrink};
use super::placement::TargetIndex;

/// The channel our markers are published on.
pub(super) const MARKER_CHANNEL: &[u8] = b"__keyferry";

/// What to put into the lanes when a marker is seen.
#[derive(Debug)]
pub(super) enum Expected {
    /// A barrier in every lane; the source task adds its own word.
    Barrier(mpsc::Sender<()>),
    /// The same, and the source is not read on while this cut is in force. One
    /// that comes late, after its cut was taken back, is a mere barrier.
    Cut {
        number: u64,
        passed: mpsc::Sender<()>,
    },
    /// Reads on the targets of these keys.
    Reads {
        db: u32,
        keys: Vec<Bytes>,
        reads: Vec<TargetReads>,
        remarks: Remarks,
    },
    /// The guard's horizon shrinks: what it remembered goes to the settler.
    Shrink {
        to: Shrink,
        guarded: oneshot::Sender<Guarded>,
    },
    /// Expiry times, read from the source together with the marker.
    Times {
        db: u32,
        keys: Vec<(Bytes, TargetIndex)>,
        /// In the order of the keys.
        times: oneshot::Receiver<Vec<Seen>>,
    },
    /// Pending keys, read from the source together with the marker.
    Refresh {
        db: u32,
        keys: Vec<Bytes>,
        /// In the order of the keys.
        values: oneshot::Receiver<Vec<Seen>>,
        /// Told when they are taken.
        met: oneshot::Sender<()>,
    },
    /// All keys of a pending database were read again.
    Rescanned { db: u32, met: oneshot::Sender<()> },
    /// All times are right: the source is followed.
    Settled,
    /// Those that the cut of this number asked for are set.
    Exact { number: u64 },
}

/// What the source task knows of keys that are read at a marker.
#[derive(Debug, Clone, Default)]
pub(super) struct Remarks(Arc<Mutex<HashMap<Bytes, Remark>>>);

/// Why a target's key is not what its source's is, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remark {
    /// It is pending: to be looked at again.
    Pending,
    /// It is guarded: it ends later than it says.
    Guarded,
}

impl Remarks {
    pub(super) fn add(&self, key: &Bytes, remark: Remark) {
        self.map().insert(key.clone(), remark);
    }

    pub(super) fn of(&self, key: &Bytes) -> Option<Remark> {
        self.map().get(key).copied()
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<Bytes, Remark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads for one target at the place of a marker.
#[derive(Debug)]
pub(super) struct TargetReads {
    pub(super) target: TargetIndex,
    /// Encoded requests.
    pub(super) bytes: Vec<u8>,
    /// How many.
    pub(super) count: usize,
    pub(super) done: oneshot::Sender<Vec<crate::resp::Value>>,
}

/// The markers that one source is expected to show.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<Markers>>);

#[derive(Debug, Default)]
struct Markers {
    expected: HashMap<Vec<u8>, Expected>,
    /// Why the last cut was not let through, if it was not.
    refused: Option<MoveError>,
    /// How often the stream was lost: what belongs to an older one is void.
    history: u64,
}

impl Board {
    /// Must be called before the marker is published.
    pub(super) fn expect(&self, message: Vec<u8>, what: Expected) {
        self.markers().expected.insert(message, what);
    }

    /// The same, unless the stream of `history` is lost by now.
    pub(super) fn expect_in(&self, history: u64, message: Vec<u8>, what: Expected) -> bool {
        let mut markers = self.markers();
        let holds = markers.history == history;
        if holds {
            markers.expected.insert(message, what);
        }
        holds
    }

    /// The source task does not let a cut through.
    pub(super) fn refuse_cut(&self, why: MoveError) {
        self.markers().refused = Some(why);
    }

    /// Why it did not, if so.
    pub(super) fn refused_cut(&self) -> Option<MoveError> {
        self.markers().refused.take()
    }

    /// What was to come with a marker that may not have been published.
    pub(super) fn forget(&self, message: &[u8]) {
        self.markers().expected.remove(message);
    }

    /// Number of the stream that is read now.
    pub(super) fn history(&self) -> u64 {
        self.markers().history
    }

    fn markers(&self) -> std::sync::MutexGuard<'_, Markers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all: the stream they were to come in is lost. Whoever waits is
    /// told by the end of its channel.
    pub(super) fn clear(&self) {
        let mut markers = self.markers();
        markers.expected.clear();
        markers.history += 1;
    }

    /// Called by the source task for each message on our channel; `None` for
    /// markers of other jobs and of earlier runs.
    pub(super) fn take(&self, message: &[u8]) -> Option<Expected> {
        self.markers().expected.remove(message)
    }
}

/// Makes messages that were never published before.
#[derive(Debug)]
pub(super) struct Nonces {
    prefix: String,
    next: AtomicU64,
}

impl Nonces {
    /// `run` tells this run of the job from earlier ones.
    pub(super) fn new(job: &str, run: u64) -> Nonces {
        Nonces {
            prefix: format!("{job}:{run:016x}"),
            next: AtomicU64::new(0),
        }
    }

    /// `<job>:<run>:<label>:<number>`.
    pub(super) fn next(&self, label: &str) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}:{label}:{number}", self.prefix).into_bytes()
    }
}
