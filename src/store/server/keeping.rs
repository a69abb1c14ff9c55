//! The log as a turn sees it: effects in, durable or not, and what to say when it fails.
//!
//! ```text
//!          append               ENOSPC: refused, tried again each turn
//! Keeping --------> Keeping     ------------------------------------> Full ---> Keeping
//!    '- any other failure: Poisoned, for good
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::Waker;

use crate::store::oplog::{Identity, Log, LogError, Syncer};

/// When effects are made to survive a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before they are acknowledged.
    Always,
    /// Once a second.
    EverySecond,
    /// When the system likes to.
    No,
}

impl Durability {
    /// As `appendfsync` and `--durability` spell it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "always" => Some(Self::Always),
            "everysec" => Some(Self::EverySecond),
            "no" => Some(Self::No),
            _ => None,
        }
    }

    /// The same word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }
}

const SYNC_EVERY: Duration = Duration::from_secs(1);
const SYNC_SELDOM: Duration = Duration::from_secs(30);
/// A sync that is late by so much is waited for: what a crash may lose stays bounded.
const SYNC_LATE: Duration = Duration::from_secs(2);

/// Whether the turn's effects are kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// They are, as durably as was asked for.
    Yes,
    /// The disk is full: they can be tried again.
    NotNow(String),
    /// They are not, and nothing will be.
    Never(String),
}

pub(super) struct Keeper {
    log: Log,
    syncer: Syncer,
    durability: Durability,
    /// The thread that syncs; it ends when the sender is dropped.
    second: Option<(SyncSender<()>, JoinHandle<()>)>,
    waker: Arc<Waker>,
    /// Since when something waits to be synced.
    unsynced_since: Option<Instant>,
    /// Effects that were kept since the start.
    appended_bytes: u64,
}

impl Keeper {
    pub(super) fn new(
        log: Log,
        durability: Durability,
        waker: Arc<Waker>,
    ) -> Result<Self, LogError> {
        let syncer = log.syncer();
        let mut keeper = Self {
            log,
            syncer,
            durability: Durability::No,
            second: None,
            waker,
            unsynced_since: None,
            appended_bytes: 0,
        };
        keeper.set_durability(durability);
        Ok(keeper)
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    pub(super) fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        self.stop_second();
        let every = match durability {
            // Whatever is acknowledged is synced before: this marks an idle log as whole.
            Durability::Always | Durability::EverySecond => SYNC_EVERY,
            // The log can only be shortened below what is durable.
            Durability::No => SYNC_SELDOM,
        };
        let (stop, stopped) = sync_channel(0);
        let syncer = self.syncer.clone();
        let waker = Arc::clone(&self.waker);
        let thread = std::thread::Builder::new()
            .name("log sync".to_owned())
            .spawn(move || sync_each(every, &syncer, &stopped, &waker));
        match thread {
            Ok(thread) => self.second = Some((stop, thread)),
            // Slower, and as safe.
            Err(error) => {
                tracing::error!(%error, "no thread to sync the log: each turn syncs it");
                self.durability = Durability::Always;
            }
        }
    }

    fn stop_second(&mut self) {
        if let Some((stop, thread)) = self.second.take() {
            drop(stop);
            // It ends by itself; a panic in it has been told by then.
            let _ = thread.join();
        }
    }

    /// Appends the effects of a turn, after which `db` is selected (the same as before, if it
    /// names none), and syncs them if they must be before they are acknowledged.
    pub(super) fn keep(&mut self, frame: &[u8], db: Option<u16>) -> Kept {
        if let Some(why) = self.log.is_poisoned() {
            return Kept::Never(why);
        }
        if frame.is_empty() {
            return Kept::Yes;
        }
        let db = db.unwrap_or(self.log.selected_db());
        let kept = self.log.append(frame, db).and_then(|_| self.sync_if_due());
        match kept {
            Ok(()) => {
                self.appended_bytes += frame.len() as u64;
                Kept::Yes
            }
            Err(error @ LogError::DiskFull { .. }) => Kept::NotNow(error.to_string()),
            Err(error) => Kept::Never(error.to_string()),
        }
    }

    fn sync_if_due(&mut self) -> Result<(), LogError> {
        match self.durability {
            Durability::No => return Ok(()),
            Durability::Always => {}
            Durability::EverySecond => {
                if !self.syncer.is_behind() {
                    self.unsynced_since = None;
                    return Ok(());
                }
                let since = *self.unsynced_since.get_or_insert_with(Instant::now);
                if since.elapsed() < SYNC_LATE {
                    return Ok(());
                }
            }
        }
        self.syncer.sync()?;
        self.unsynced_since = None;
        Ok(())
    }

    /// What failed for good, whoever met it.
    pub(super) fn poison(&self) -> Option<String> {
        self.log.is_poisoned()
    }

    /// To be read, by replicas.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn end(&self) -> u64 {
        self.log.end()
    }

    pub(super) fn start(&self) -> u64 {
        self.log.start()
    }

    pub(super) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    pub(super) fn set_backlog_bytes(&mut self, bytes: u64) {
        self.log.set_retain_bytes(bytes);
    }

    /// Selected behind the last effect.
    pub(super) fn selected_db(&self) -> u16 {
        self.log.selected_db()
    }

    /// See [`Log::history`].
    pub(super) fn history(&self) -> u64 {
        self.log.history()
    }

    /// Whether the log ever began anew: behind a master's snapshot.
    pub(super) fn has_followed(&self) -> bool {
        self.log.history() > 1
    }

    /// See [`Log::begin_history`].
    pub(super) fn begin_history(&mut self) -> Result<(), LogError> {
        self.log.begin_history().map(drop)
    }

    /// See [`Log::set_identity`].
    pub(super) fn set_identity(&mut self, identity: Identity) -> Result<(), LogError> {
        self.log.set_identity(identity)
    }

    /// See [`Log::restart_in`].
    pub(super) fn restart(
        &mut self,
        offset: u64,
        selected_db: u16,
        identity: Identity,
    ) -> Result<(), LogError> {
        self.unsynced_since = None;
        self.log.restart_in(offset, selected_db, identity)
    }

    pub(super) fn identity(&self) -> Identity {
        self.log.identity()
    }

    /// What is below the engine's durable offset is not needed to start again, and what is
    /// below all replicas not for them.
    pub(super) fn let_go_below(&mut self, durable_offset: u64, needed_from: Option<u64>) {
        let needed = needed_from.unwrap_or(durable_offset);
        self.log.retain_from(durable_offset.min(needed));
    }

    /// Ends the log; what was appended is synced.
    pub(super) fn close(mut self) -> Result<(), LogError> {
        self.stop_second();
        self.syncer.sync()?;
        self.log.close()
    }
}

fn sync_each(every: Duration, syncer: &Syncer, stopped: &Receiver<()>, waker: &Waker) {
    while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = syncer.sync() {
            tracing::error!(%error, "the log cannot be synced");
            // The executor looks at the log by itself if it cannot be woken.
            let _ = waker.wake();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mio::{Poll, Token};

    use super::*;
    use crate::store::disk::FaultyFiles;
    use crate::store::oplog::LogOptions;

    const DIR: &str = "/shard/log";
    /// Places between two syncs at which the power goes.
    const CRASHES: u64 = 40;

    fn opened(files: &FaultyFiles) -> Log {
        let options = LogOptions {
            segment_bytes: 256 * 1024,
            retain_bytes: u64::MAX,
        };
        let opened = Log::open(Arc::new(files.clone()), Path::new(DIR), options);
        opened.expect("the log opens").log
    }

    fn keeper(files: &FaultyFiles, durability: Durability) -> (Keeper, Poll) {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let keeper = Keeper::new(opened(files), durability, Arc::new(waker));
        (keeper.expect("a keeper"), poll)
    }

    /// Writes go on, and nobody but the keeper's thread syncs. What was acknowledged before
    /// the last sync but one began survives a power loss: so what may be lost is what was
    /// acknowledged within the time from one sync to the next, which is a second.
    #[test]
    fn a_power_loss_takes_what_came_since_the_last_sync_and_no_more() {
        let files = FaultyFiles::new();
        let (mut keeper, _poll) = keeper(&files, Durability::EverySecond);
        let (mut durable, mut ends_at_syncs) = (0, vec![0]);
        let (mut frames, mut crashes, mut lost_max) = (0_u64, 0, 0);
        while crashes < CRASHES {
            assert_eq!(keeper.keep(&[b'x'; 100], None), Kept::Yes);
            frames += 1;
            let synced = keeper.log().durable();
            if synced != durable {
                durable = synced;
                ends_at_syncs.push(keeper.end());
            }
            // A few frames after each of the first syncs, at many places.
            if ends_at_syncs.len() > 3 && frames.is_multiple_of(50) {
                crashes += 1;
                let after = files.crashed(crashes);
                let found = opened(&after).end();
                // It began before this was noted, and after the one before it was.
                let sure = ends_at_syncs[ends_at_syncs.len() - 2];
                assert!(found >= sure, "{found} of {sure}, power loss {crashes}");
                assert!(found >= durable, "{found} of {durable} that were synced");
                lost_max = lost_max.max(keeper.end() - found);
            }
            // So that some hundreds come in a second, and not millions.
            std::thread::sleep(Duration::from_millis(1));
        }
        println!(
            "{frames} frames, at most {lost_max} bytes of {} lost",
            keeper.end()
        );
        keeper.close().expect("closed");
    }

    #[test]
    fn a_power_loss_takes_nothing_that_was_acknowledged_with_always() {
        let files = FaultyFiles::new();
        let (mut keeper, _poll) = keeper(&files, Durability::Always);
        for frame in 0..CRASHES {
            assert_eq!(keeper.keep(&[b'x'; 1_000], None), Kept::Yes);
            let after = files.crashed(frame);
            assert_eq!(opened(&after).end(), keeper.end(), "power loss {frame}");
        }
        keeper.close().expect("closed");
    }
}
