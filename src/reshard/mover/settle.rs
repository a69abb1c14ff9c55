//! Gives guarded keys their exact expiry times, once their source is followed
//! closely (see `guard`).
//!
//! ```text
//! Drained --barrier comes back fast--> Lifted --each batch: times as of a marker--> Settled
//!    ^---------------- the source began anew, and its copy is drained again --------'
//! ```
//!
//! The times are read from the source together with a marker, and set on the
//! targets at that marker's place in the lanes: whatever changed the key before
//! is before, whatever changes it after is after.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::resp::write_command;

use super::compare::State;
use super::config::{FOLLOWING_MARKER_MS_MAX, FOLLOWING_RETRY_MS};
use super::error::MoveError;
use super::guard::Guarded;
use super::link::{Link, Patience, info_field};
use super::marker::{Board, Expected, MARKER_CHANNEL, Nonces};
use super::placement::TargetIndex;
use super::reads::{Clock, Depth, read_at_marker};

const STEP: &str = "publish a marker";
/// Keys whose times are read at one marker.
const SETTLE_KEYS_MAX: usize = 256;

/// One key's time, as a request for its target.
#[derive(Debug)]
pub(super) struct Fix {
    pub(super) target: TargetIndex,
    pub(super) name: &'static [u8],
    pub(super) key: Bytes,
    pub(super) request: Vec<u8>,
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

/// Each time that the snapshot is drained: settles, and says so in the stream.
pub(super) async fn settle(
    mut settler: Settler,
    mut drained: mpsc::Receiver<()>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let work = async {
        // A source task that ended has its own reason.
        while settler.link.keep_until(drained.recv()).await?.is_some() {
            match settler.settle_once().await {
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
    async fn settle_once(&mut self) -> Result<(), MoveError> {
        self.history = self.board.history();
        self.catch_up().await?;
        let guarded = self.lift().await?;
        self.fix_all(guarded).await?;
        self.say(Expected::Settled).await
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

    async fn lift(&mut self) -> Result<Guarded, MoveError> {
        let (lifted, guarded) = oneshot::channel();
        self.say(Expected::Lift(lifted)).await?;
        guarded.await.map_err(|_| self.restarted())
    }

    async fn fix_all(&mut self, guarded: Guarded) -> Result<(), MoveError> {
        let mut keys: Vec<(u32, Bytes, TargetIndex)> = guarded
            .into_iter()
            .map(|((db, key), target)| (db, Bytes::from(key), target))
            .collect();
        keys.sort_by_key(|(db, _, _)| *db);
        for of_db in keys.chunk_by(|(one, _, _), (other, _, _)| one == other) {
            let db = of_db.first().map_or(0, |(db, _, _)| *db);
            for chunk in of_db.chunks(SETTLE_KEYS_MAX) {
                let mut patience = Patience::default();
                // Fixes whose marker was not read come to nothing.
                while let Err(error) = self.fix(db, chunk).await {
                    self.link.revive(&mut patience, error).await?;
                }
            }
        }
        Ok(())
    }

    async fn fix(&mut self, db: u32, keys: &[(u32, Bytes, TargetIndex)]) -> Result<(), MoveError> {
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
        let (ready, fixes) = oneshot::channel();
        let expected = Expected::Fixes { db, fixes };
        if !self
            .board
            .expect_in(self.history, message.clone(), expected)
        {
            return Err(self.restarted());
        }
        let names: Vec<&Bytes> = keys.iter().map(|(_, key, _)| key).collect();
        let depth = Depth::Presence;
        let seen = read_at_marker(&mut self.link, &names, &message, depth, clock).await?;
        let made = keys
            .iter()
            .zip(seen)
            .map(|((_, key, target), seen)| fix(*target, key, &seen.state));
        // The source task waits for them at the marker, unless its stream is lost.
        ready.send(made.collect()).map_err(|_| self.restarted())
    }
}

fn fix(target: TargetIndex, key: &Bytes, at_source: &State) -> Fix {
    let mut request = Vec::new();
    let name: &'static [u8] = match at_source {
        State::Missing => {
            write_command(&mut request, &[b"DEL", key]);
            b"DEL"
        }
        State::Here {
            expires_at_ms: None,
            ..
        } => {
            write_command(&mut request, &[b"PERSIST", key]);
            b"PERSIST"
        }
        State::Here {
            expires_at_ms: Some(at),
            ..
        } => {
            write_command(
                &mut request,
                &[b"PEXPIREAT", key, at.to_string().as_bytes()],
            );
            b"PEXPIREAT"
        }
    };
    Fix {
        target,
        name,
        key: key.clone(),
        request,
    }
}
