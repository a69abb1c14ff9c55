//! Gives guarded keys their exact expiry times whenever the guard's horizon
//! shrinks (see `guard`).
//!
//! ```text
//! Drained   barrier comes back fast -> horizon 15 min -> times as of markers -> Settled
//! Prepare                              horizon 2 s    -> times as of markers -> told
//! Exact     at a cut: the few keys that are left      -> times as of markers -> told, asked again for more
//! ```
//!
//! The times are read from the source together with a marker, and set on the
//! targets at that marker's place in the lanes: whatever changed the key before
//! is before, whatever changes it after is after.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::config::{FOLLOWING_MARKER_MS_MAX, FOLLOWING_RETRY_MS};
use super::error::MoveError;
use super::guard::{Guarded, Shrink};
use super::link::{Link, Patience, info_field};
use super::marker::{Board, Expected, MARKER_CHANNEL, Nonces};
use super::placement::TargetIndex;
use super::reads::{Clock, Depth, read_at_marker};

const STEP: &str = "publish a marker";
/// Keys whose times are read at one marker.
const SETTLE_KEYS_MAX: usize = 256;
/// Things that a settler may be asked at once: one job has three.
pub(super) const SETTLE_QUEUE_MAX: usize = 8;

/// What is to be settled.
#[derive(Debug)]
pub(super) enum Ask {
    /// The snapshot is drained: the source is to be followed.
    Drained,
    /// A cut comes soon.
    Prepare {
        number: u64,
        /// Told when the times are on their way; gone if the source begins anew.
        done: oneshot::Sender<()>,
    },
    /// A cut was met: these are left.
    Exact { number: u64, guarded: Guarded },
}

/// What the settling of one source needs.
pub(super) struct Settler {
    pub(super) link: Link,
    pub(super) board: Board,
    pub(super) nonces: std::sync::Arc<Nonces>,
    /// Lanes of the source: so many words does a barrier get, and one more.
    pub(super) lanes: usize,
    /// The stream that is being settled.
    pub(super) history: u64,
}

/// Settles what it is asked to.
pub(super) async fn settle(
    mut settler: Settler,
    mut asks: mpsc::Receiver<Ask>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let work = async {
        // A source task that ended has its own reason.
        while let Some(ask) = settler.link.keep_until(asks.recv()).await? {
            match settler.settle_once(ask).await {
                // It is told again when the new copy is drained.
                Ok(()) | Err(MoveError::Restarted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = work => done,
    }
}

impl Settler {
    async fn settle_once(&mut self, ask: Ask) -> Result<(), MoveError> {
        self.history = self.board.history();
        match ask {
            Ask::Drained => {
                self.catch_up().await?;
                let guarded = self.shrink(Shrink::Following).await?;
                self.set_all(guarded).await?;
                self.say(Expected::Settled).await
            }
            Ask::Prepare { number, done } => {
                let guarded = self.shrink(Shrink::Prepared(number)).await?;
                self.set_all(guarded).await?;
                // Who asked may have given up.
                let _ = done.send(());
                Ok(())
            }
            Ask::Exact { number, guarded } => {
                self.set_all(guarded).await?;
                self.say(Expected::Exact { number }).await
            }
        }
    }

    fn restarted(&self) -> MoveError {
        MoveError::Restarted {
            source_server: self.link.server().clone(),
        }
    }

    async fn say(&mut self, what: Expected) -> Result<(), MoveError> {
        let message = self.nonces.next("settle");
        if !self.board.expect_in(self.history, message.clone(), what) {
            return Err(self.restarted());
        }
        let args: [&[u8]; 3] = [b"PUBLISH", MARKER_CHANNEL, &message];
        let mut patience = Patience::default();
        // Published twice, a marker counts once.
        while let Err(error) = self.link.call(STEP, &args).await {
            self.link.revive(&mut patience, error).await?;
        }
        Ok(())
    }

    /// Waits until a marker comes through all lanes at once.
    async fn catch_up(&mut self) -> Result<(), MoveError> {
        loop {
            let (passed, mut words) = mpsc::channel(self.lanes + 1);
            let asked = Instant::now();
            self.say(Expected::Barrier(passed)).await?;
            for _ in 0..=self.lanes {
                let word = self.link.keep_until(words.recv()).await?;
                word.ok_or_else(|| self.restarted())?;
            }
            if asked.elapsed() <= Duration::from_millis(FOLLOWING_MARKER_MS_MAX) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(FOLLOWING_RETRY_MS)).await;
        }
    }

    async fn shrink(&mut self, to: Shrink) -> Result<Guarded, MoveError> {
        let (guarded, keys) = oneshot::channel();
        self.say(Expected::Shrink { to, guarded }).await?;
        let keys = self.link.keep_until(keys).await?;
        keys.map_err(|_| self.restarted())
    }

    async fn set_all(&mut self, mut guarded: Guarded) -> Result<(), MoveError> {
        guarded.sort_by_key(|(db, _, _)| *db);
        for of_db in guarded.chunk_by(|(one, _, _), (other, _, _)| one == other) {
            let db = of_db.first().map_or(0, |(db, _, _)| *db);
            for chunk in of_db.chunks(SETTLE_KEYS_MAX) {
                let keys = chunk.iter().map(|(_, key, to)| (key.clone(), *to));
                let keys: Vec<(Bytes, TargetIndex)> = keys.collect();
                let mut patience = Patience::default();
                // Times whose marker was not read come to nothing.
                while let Err(error) = self.set(db, &keys).await {
                    self.link.revive(&mut patience, error).await?;
                }
            }
        }
        Ok(())
    }

    async fn set(&mut self, db: u32, keys: &[(Bytes, TargetIndex)]) -> Result<(), MoveError> {
        let info = self.link.text("read INFO", &[b"INFO", b"server"]).await?;
        let clock = Clock::of_version(info_field(&info, "redis_version").unwrap_or_default());
        let db_name = db.to_string();
        self.link
            .call(
                "choose a database (SELECT)",
                &[b"SELECT", db_name.as_bytes()],
            )
            .await?;
        let message = self.nonces.next("settle");
        let (ready, times) = oneshot::channel();
        let expected = Expected::Times {
            db,
            keys: keys.to_vec(),
            times,
        };
        if !self
            .board
            .expect_in(self.history, message.clone(), expected)
        {
            return Err(self.restarted());
        }
        let names: Vec<&Bytes> = keys.iter().map(|(key, _)| key).collect();
        let depth = Depth::Presence;
        let seen = read_at_marker(&mut self.link, &names, &message, depth, clock).await?;
        // The source task waits for them at the marker, unless its stream is lost,
        // which the next marker tells, or they come too late: then they stay guarded.
        let _ = ready.send(seen);
        Ok(())
    }
}
