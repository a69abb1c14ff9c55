//! Writes what CONFIG REWRITE keeps, in a thread of its own: four syncs of a busy disk take
//! long enough to be felt by all clients of a shard, and the one that asked waits anyway.
//!
//! ```text
//! idle --ask--> writing, a thread --ask..--> writing, and the latest text waits
//!   ^             '-- its end: who asked is told --'        '--> written next
//! ```
//! Invariants
//! - Who asked is told after what was to be kept when it asked, or something later, is
//!   durable; or why it is not.
//! - However many ask, one text is written and one waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use crate::store::disk::Files;
use crate::store::rows::Wake;
use crate::store::session::{ClientId, KeptTexts};

use super::kept::{self, KeptError};

/// A client that asked, by its key and its number.
pub(super) type Asker = (usize, ClientId);

/// Whom to tell, and what.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) askers: Vec<Asker>,
    pub(super) outcome: Result<(), KeptError>,
}

/// See the head of the file.
pub(super) struct Scribe {
    files: Arc<dyn Files>,
    dir: PathBuf,
    wake: Wake,
    writing: Option<Writing>,
    waiting: Option<(KeptTexts, Vec<Asker>)>,
}

struct Writing {
    askers: Vec<Asker>,
    outcome: Receiver<Result<(), KeptError>>,
    /// Nothing if it could not be begun.
    thread: Option<JoinHandle<()>>,
}

impl Scribe {
    pub(super) fn new(files: Arc<dyn Files>, dir: PathBuf, wake: Wake) -> Self {
        Self {
            files,
            dir,
            wake,
            writing: None,
            waiting: None,
        }
    }

    /// Writes it as soon as what is being written is.
    pub(super) fn ask(&mut self, texts: KeptTexts, asker: Asker) {
        let mut askers = self.waiting.take().map_or_else(Vec::new, |(_, of)| of);
        askers.push(asker);
        self.waiting = Some((texts, askers));
        self.begin();
    }

    fn begin(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let Some((texts, askers)) = self.waiting.take() else {
            return;
        };
        let (done, outcome) = sync_channel(1);
        let (files, dir, wake) = (
            Arc::clone(&self.files),
            self.dir.clone(),
            Arc::clone(&self.wake),
        );
        let work = move || {
            // There is room for it, and who does not wait for it any more has ended.
            let _ = done.send(kept::keep(&*files, &dir, &texts));
            wake();
        };
        let work = Arc::new(work);
        let of_thread = Arc::clone(&work);
        let thread = std::thread::Builder::new()
            .name("scribe".to_owned())
            .spawn(move || of_thread());
        if let Err(error) = &thread {
            tracing::warn!(%error, "no thread to write what CONFIG REWRITE keeps: all wait for it");
            work();
        }
        self.writing = Some(Writing {
            askers,
            outcome,
            thread: thread.ok(),
        });
    }

    /// What was written since this was last asked; what waits is begun.
    pub(super) fn written(&mut self) -> Option<Written> {
        let writing = self.writing.as_mut()?;
        let outcome = match writing.outcome.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => None,
            Ok(outcome) => Some(outcome),
        };
        self.end(outcome)
    }

    fn end(&mut self, outcome: Option<Result<(), KeptError>>) -> Option<Written> {
        let Writing { askers, thread, .. } = self.writing.take()?;
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        self.begin();
        let outcome = outcome?;
        Some(Written { askers, outcome })
    }

    /// Waits until all is written.
    pub(super) fn finish(mut self) {
        while let Some(writing) = &self.writing {
            let outcome = writing.outcome.recv().ok();
            let Some(Written { outcome, .. }) = self.end(outcome) else {
                return;
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "CONFIG REWRITE: not all is kept");
            }
        }
    }
}
