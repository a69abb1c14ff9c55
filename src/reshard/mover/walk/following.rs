//! After the copy: by notifications or by repeated passes, and what a marker
//! has to wait for.
//!
//! ```text
//!                   by notifications                    by passes
//! a key changed     read, told                          -
//! marker: Reads     quiet keys among them read again    its keys read again
//! marker: others    all quiet keys read again           a pass that begins after it
//! ```
//!
//! While the copy goes on all markers wait: before its end nothing is complete.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::super::config::IDLE_PING_MS;
use super::super::error::MoveError;
use super::super::link::Patience;
use super::super::marker::Expected;
use super::WalkEvent;
use super::inbox::{KeyIn, Taken};
use super::worker::{Break, Told, Worker};

/// Changed keys read together.
const CHANGED_KEYS_MAX: usize = 512;
/// Lots of changed keys that are read between two pages, at most: the copy must
/// get on.
const LOTS_BETWEEN_PAGES: usize = 4;
/// Between two passes at least this long.
const PASS_PAUSE_MIN: Duration = Duration::from_secs(1);
/// And not longer.
const PASS_PAUSE_MAX: Duration = Duration::from_secs(60);

impl Worker {
    /// Tells of changes until they cannot be told.
    pub(super) async fn follow(&mut self) -> Result<Infallible, Break> {
        for marker in std::mem::take(&mut self.deferred) {
            self.on_marker(marker).await?;
        }
        if self.notices.is_none() {
            return self.repeat().await;
        }
        loop {
            if !self.deal_with_next().await? {
                self.wait_for_news(None).await?;
            }
        }
    }

    /// A few of the things that came while a page was listed and read.
    pub(super) async fn between_pages(&mut self) -> Result<(), Break> {
        for _ in 0..LOTS_BETWEEN_PAGES {
            if !self.deal_with_next().await? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there was something.
    async fn deal_with_next(&mut self) -> Result<bool, Break> {
        match self.inbox.take(CHANGED_KEYS_MAX) {
            Taken::Nothing => return Ok(false),
            Taken::Lost(why) => return Err(Break::Anew(why)),
            Taken::Keys(keys) => self.bring_all(keys).await?,
            Taken::Marker(marker) if self.copied => self.on_marker(marker).await?,
            Taken::Marker(marker) => self.deferred.push(marker),
        }
        Ok(true)
    }

    async fn on_marker(&mut self, marker: Expected) -> Result<(), Break> {
        match (&marker, self.notices.is_some()) {
            (Expected::Reads { db, keys, .. }, by_notices) => {
                let keys = keys.iter().map(|key| (*db, key.clone()));
                // The keys that nobody tells us about.
                let silent = |key: &KeyIn| !by_notices || self.memory.knows(key);
                let keys = keys.filter(silent).collect();
                self.bring_all(keys).await?;
            }
            (_, true) => {
                if !self.notices_are_on().await? {
                    let why = "notify-keyspace-events was changed by somebody else";
                    return Err(Break::Anew(why.to_owned()));
                }
                self.bring_all(self.memory.all()).await?;
            }
            (_, false) => {
                self.deferred.push(marker);
                return Ok(());
            }
        }
        self.send(vec![WalkEvent::Marker(marker)]).await
    }

    async fn notices_are_on(&mut self) -> Result<bool, MoveError> {
        let mut patience = Patience::default();
        loop {
            let Some(notices) = &self.notices else {
                return Ok(false);
            };
            match notices.still_on(&mut self.link).await {
                Ok(on) => return Ok(on),
                Err(error) => self.redial(&mut patience, error).await?,
            }
        }
    }

    /// Pass after pass, with as much time between two as one takes; at once when
    /// a marker waits.
    async fn repeat(&mut self) -> Result<Infallible, Break> {
        let mut pause = PASS_PAUSE_MIN;
        loop {
            let until = Instant::now() + pause;
            loop {
                while self.deal_with_next().await? {}
                if !self.deferred.is_empty() || Instant::now() >= until {
                    break;
                }
                self.wait_for_news(Some(until)).await?;
            }
            // Those that come from here on wait for the pass after this one.
            let waiting = std::mem::take(&mut self.deferred);
            let began = Instant::now();
            self.pass += 1;
            self.walk_all(Told::Again).await?;
            // Gone, or moved behind the cursor: SCAN does not tell which.
            self.bring_all(self.memory.unseen(self.pass)).await?;
            let took = began.elapsed();
            self.note(|figures| {
                figures.passes += 1;
                figures.pass_ms = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            });
            pause = took.clamp(PASS_PAUSE_MIN, PASS_PAUSE_MAX);
            let markers = waiting.into_iter().map(WalkEvent::Marker);
            self.send(markers.collect()).await?;
        }
    }

    /// Until something comes, or that moment; keeps the connection meanwhile.
    async fn wait_for_news(&mut self, until: Option<Instant>) -> Result<(), MoveError> {
        let inbox = std::sync::Arc::clone(&self.inbox);
        loop {
            let idle = Instant::now() + Duration::from_millis(IDLE_PING_MS);
            let next = until.map_or(idle, |until| until.min(idle));
            if timeout_at(next, inbox.news()).await.is_ok() {
                return Ok(());
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            self.keep().await?;
        }
    }
}
