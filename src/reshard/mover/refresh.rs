//! Reads pending keys from their source, each batch together with a marker, for
//! the source task to bring at the marker's place (see `pending`).
//!
//! ```text
//! Idle --keys are pending--> Sizing --> Asking: MULTI TIME PEXPIRETIME.. DUMP.. PUBLISH EXEC
//!   ^                                      |
//!   '--- the source task met the marker ---'   or did not: the keys are given back
//! ```
//!
//! One batch is under way at a time, of so many bytes or of one value: while the
//! stream lags, no more than that waits for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::error::MoveError;
use super::keyspace::KeyWalk;
use super::link::{Link, Patience, info_field};
use super::marker::{Board, Expected, MARKER_CHANNEL, Nonces};
use super::pending::{Due, Pending, TooMany};
use super::placement::{Place, Placement, SourceIndex, TargetIndex};
use super::reads::{Clock, Depth, read_at_marker};
use super::verify::{batches, sizes};

const PUBLISH: &str = "publish a marker";
const SELECT: &str = "choose a database (SELECT)";
/// Keys that are sized together; those of a batch are among them.
const SIZED_KEYS_MAX: usize = 512;

/// What the refreshing of one source needs.
pub(super) struct Refresher {
    pub(super) link: Link,
    pub(super) index: SourceIndex,
    pub(super) placement: Arc<Placement>,
    pub(super) board: Board,
    pub(super) nonces: Arc<Nonces>,
    pub(super) pending: Pending,
}

/// Refreshes until told to stop.
pub(super) async fn refresh(
    mut refresher: Refresher,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = refresher.work() => done,
    }
}

impl Refresher {
    async fn work(&mut self) -> Result<(), MoveError> {
        loop {
            while let Some(due) = self.pending.take(SIZED_KEYS_MAX) {
                self.bring(due).await?;
            }
            match self.pending.to_rescan() {
                Some(db) => self.rescan(db).await?,
                None => {
                    let pending = self.pending.clone();
                    self.link.keep_until(pending.news()).await?;
                }
            }
        }
    }

    /// Brings keys in batches; those that could not be brought are given back.
    async fn bring(&mut self, due: Due) -> Result<(), MoveError> {
        let db = due.db;
        let sizes = self.sizes(&due).await?;
        let keys = due.keys.into_iter();
        // Which target they are for does not matter to the source.
        let keys = keys.map(|key| (key, TargetIndex(0))).collect();
        for (batch, _) in batches(db, keys, &sizes) {
            let keys: Vec<Bytes> = batch.keys.into_iter().map(|(key, _)| key).collect();
            if !self.ask(db, &keys).await? {
                self.pending.give_back(Due { db, keys });
            }
        }
        Ok(())
    }

    async fn sizes(&mut self, due: &Due) -> Result<Vec<u64>, MoveError> {
        let keys: Vec<(Bytes, TargetIndex)> = due
            .keys
            .iter()
            .map(|key| (key.clone(), TargetIndex(0)))
            .collect();
        let mut patience = Patience::default();
        loop {
            let sized = async {
                self.select(due.db).await?;
                sizes(&mut self.link, &keys).await
            };
            match sized.await {
                Ok(sizes) => return Ok(sizes),
                Err(error) => self.link.revive(&mut patience, error).await?,
            }
        }
    }

    /// Whether the source task took them.
    async fn ask(&mut self, db: u32, keys: &[Bytes]) -> Result<bool, MoveError> {
        let mut patience = Patience::default();
        loop {
            let history = self.board.history();
            let message = self.nonces.next("refresh");
            let (ready, values) = oneshot::channel();
            let (met, taken) = oneshot::channel();
            let expected = Expected::Refresh {
                db,
                keys: keys.to_vec(),
                values,
                met,
            };
            if !self.board.expect_in(history, message.clone(), expected) {
                return Ok(false);
            }
            let read = async {
                let info = self.link.text("read INFO", &[b"INFO", b"server"]).await?;
                let version = info_field(&info, "redis_version").unwrap_or_default();
                self.select(db).await?;
                let keys: Vec<&Bytes> = keys.iter().collect();
                let clock = Clock::of_version(version);
                read_at_marker(&mut self.link, &keys, &message, Depth::Content, clock).await
            };
            match read.await {
                Ok(seen) => {
                    // A source task that does not listen any more says so below.
                    let _ = ready.send(seen);
                    return Ok(self.link.keep_until(taken).await?.is_ok());
                }
                // A marker that came through all the same finds no values.
                Err(error) => {
                    drop(ready);
                    self.board.forget(&message);
                    self.link.revive(&mut patience, error).await?;
                }
            }
        }
    }

    async fn select(&mut self, db: u32) -> Result<(), MoveError> {
        let number = db.to_string();
        let args: [&[u8]; 2] = [b"SELECT", number.as_bytes()];
        self.link.call(SELECT, &args).await.map(|_| ())
    }

    /// Marks all moving keys of a database, bringing each page before the next.
    async fn rescan(&mut self, db: u32) -> Result<(), MoveError> {
        let history = self.board.history();
        let mut patience = Patience::default();
        let mut walk = KeyWalk::of(db);
        loop {
            let page = match walk.next(&mut self.link).await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) => {
                    self.link.revive(&mut patience, error).await?;
                    walk.reconnected();
                    continue;
                }
            };
            if self.board.history() != history {
                // What was to be listed is forgotten with its stream.
                return Ok(());
            }
            for key in &page.keys {
                if matches!(self.placement.place(self.index, db, key), Place::Moves(_)) {
                    self.pending
                        .mark(db, key)
                        .map_err(|TooMany| self.too_many())?;
                }
            }
            while let Some(due) = self.pending.take(SIZED_KEYS_MAX) {
                self.bring(due).await?;
            }
            walk.reconnected();
        }
        self.say_rescanned(history, db).await
    }

    /// Behind all of its keys' markers.
    async fn say_rescanned(&mut self, history: u64, db: u32) -> Result<(), MoveError> {
        let message = self.nonces.next("rescan");
        let (met, taken) = oneshot::channel();
        let expected = Expected::Rescanned { db, met };
        if !self.board.expect_in(history, message.clone(), expected) {
            return Ok(());
        }
        let args: [&[u8]; 3] = [b"PUBLISH", MARKER_CHANNEL, &message];
        let mut patience = Patience::default();
        // Published twice, a marker counts once.
        while let Err(error) = self.link.call(PUBLISH, &args).await {
            self.link.revive(&mut patience, error).await?;
        }
        // Gone without a word, it is void with its stream.
        let _ = self.link.keep_until(taken).await?;
        Ok(())
    }

    fn too_many(&self) -> MoveError {
        MoveError::TooManyPending {
            source_server: self.link.server().clone(),
        }
    }
}
