//! Getting a link, at the start and after one was lost.
//!
//! ```text
//! round: every address once --none--> pause 50 ms, 100 ms, .. 2 s --> round ...
//!        a lasting refusal by all, or no patience left: the last error
//! ```
//!
//! A new snapshot voids everything that was copied, so an address that cannot go
//! on where we were is set aside while another one may: the one whose link was
//! lost is asked first, and a full resync is taken when all that answer want
//! one, or when half of the patience is gone.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::config::{ResumePoint, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::handshake::{self, Link};
use crate::upstream::{Retry, ShardAddress};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Snapshots that may break off, one after the other, before we give up: each
/// costs the source a fork.
const BROKEN_SNAPSHOTS_MAX: u32 = 5;

/// What has been tried since the source last sent something of use.
#[derive(Debug)]
pub(super) struct Regain {
    config: TapConfig,
    lost_since: Option<Instant>,
    pause: Duration,
    broken_snapshots: u32,
    /// Asked first: most likely to go on where it was.
    last_used: Option<ShardAddress>,
    /// Said that it cannot go on.
    set_aside: Vec<ShardAddress>,
}

impl Regain {
    pub(super) fn new(config: TapConfig) -> Self {
        Self {
            config,
            lost_since: None,
            pause: PAUSE_MIN,
            broken_snapshots: 0,
            last_used: None,
            set_aside: Vec::new(),
        }
    }

    /// The source sent what we can go on from.
    pub(super) fn made_progress(&mut self) {
        self.lost_since = None;
        self.pause = PAUSE_MIN;
        self.broken_snapshots = 0;
    }

    /// A link, after the one before was lost to `lost`. Without `resume` it
    /// begins with a snapshot.
    ///
    /// # Errors
    /// The last error, when there is no hope or no patience left.
    pub(super) async fn link(
        &mut self,
        resume: Option<&ResumePoint>,
        lost: Option<TapError>,
    ) -> Result<Link, TapError> {
        let now = Instant::now();
        let since = *self.lost_since.get_or_insert(now);
        if let Some(error) = lost {
            if resume.is_none() {
                self.broken_snapshots += 1;
            }
            self.may_go_on(since, error, self.broken_snapshots < BROKEN_SNAPSHOTS_MAX)?;
            self.pause().await;
        }
        self.set_aside.clear();
        loop {
            match self.round(resume, since).await {
                Ok(link) => {
                    self.last_used = Some(link.address.clone());
                    // A snapshot takes its time, and its breaks are counted.
                    if !link.continues() {
                        self.lost_since = None;
                    }
                    return Ok(link);
                }
                Err(error) => self.may_go_on(since, error, true)?,
            }
            self.pause().await;
        }
    }

    fn may_go_on(&self, since: Instant, error: TapError, tries_left: bool) -> Result<(), TapError> {
        let patient = since.elapsed() + self.pause <= self.config.patience;
        if patient && tries_left && error.retry() == Retry::Safe {
            tracing::debug!(%error, "trying again");
            return Ok(());
        }
        Err(error)
    }

    async fn pause(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Asks every address once.
    async fn round(
        &mut self,
        resume: Option<&ResumePoint>,
        since: Instant,
    ) -> Result<Link, TapError> {
        let mut addresses: Vec<ShardAddress> = self.config.addresses().cloned().collect();
        if resume.is_some()
            && let Some(at) = addresses
                .iter()
                .position(|a| Some(a) == self.last_used.as_ref())
        {
            let last_used = addresses.remove(at);
            addresses.insert(0, last_used);
        }
        let only = addresses.len() == 1;
        let mut failed: Option<TapError> = None;
        for address in addresses {
            if self.set_aside.contains(&address) {
                continue;
            }
            match handshake::attach(&address, &self.config, resume).await {
                Ok(link) if link.continues() || resume.is_none() || only => return Ok(link),
                // Dropping the link ends the snapshot before it has begun.
                Ok(link) => self.set_aside.push(link.address),
                Err(error) => {
                    if error.step == TapStep::SecondSocket {
                        // A firewall, a limit on clients: one socket does, too.
                        tracing::warn!(%error, "asking for the snapshot on one connection");
                        self.config.two_sockets = false;
                    }
                    // Of several errors, one that may pass counts.
                    if failed
                        .as_ref()
                        .is_none_or(|first| first.retry() != Retry::Safe)
                    {
                        failed = Some(error);
                    }
                }
            }
        }
        let waits_for_others = failed.as_ref().is_some_and(|error| {
            error.retry() == Retry::Safe && since.elapsed() < self.config.patience / 2
        });
        match (self.set_aside.first(), failed) {
            (Some(address), _) if !waits_for_others => {
                handshake::attach(&address.clone(), &self.config, None).await
            }
            (_, Some(error)) => Err(error),
            (_, None) => Err(TapErrorKind::Closed.at(&self.config.address, TapStep::Connect)),
        }
    }
}
