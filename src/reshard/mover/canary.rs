//! Canaries: while a source is followed, some of its moving keys are compared with
//! their targets all the time, and markers tell how far behind the targets are.
//!
//! ```text
//! every second:  marker through all lanes -> lag;  the next batch of the walk -> compared
//! ```
//!
//! The walk goes round through all keys for as long as the job follows. A canary
//! that cannot be read is no finding: the tap and the lanes know better what ails
//! the servers. While a cut is in force nothing is asked, since what is behind
//! its marker waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::compare::Difference;
use super::error::{MoveError, Role};
use super::keyspace::KeyWalk;
use super::link::Link;
use super::marker::{Expected, MARKER_CHANNEL};
use super::placement::SourceIndex;
use super::progress::{Phase, SourceRow};
use super::reads::{Batch, Depth};
use super::verify::{Found, Reader, Verifier, batches, sizes};

/// Time between two canaries of one source.
const CANARY_EVERY: Duration = Duration::from_secs(1);
/// Pages without a moving key that are passed over for one canary.
const PAGES_MAX: usize = 16;
const STEP: &str = "publish a marker";

/// What the canaries of one source have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanaryFigures {
    /// How long the last marker took through all lanes, or takes by now, in
    /// milliseconds; `None` before the first.
    pub lag_ms: Option<u64>,
    /// Keys compared.
    pub keys_compared: u64,
    /// Keys that differed, also when they were read again.
    pub differences: u64,
    /// The last of them.
    pub last_difference: Option<Difference>,
}

/// What the canaries of one source need.
pub(super) struct Canaries {
    pub(super) source: SourceIndex,
    pub(super) verifier: Arc<Verifier>,
    pub(super) row: Arc<SourceRow>,
    /// Lanes of the source: so many words does a barrier get, and one more.
    pub(super) lanes: usize,
    /// The cut in force.
    pub(super) cut: watch::Receiver<Option<u64>>,
}

/// Sends canaries until told to stop.
pub(super) async fn send_canaries(
    mut canaries: Canaries,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let work = async {
        let mut tick = tokio::time::interval(CANARY_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = None;
        loop {
            tick.tick().await;
            // The mover is ending when nobody can cut any more.
            if canaries.cut.wait_for(Option::is_none).await.is_err() {
                return Ok(());
            }
            if canaries.row.read().phase != Phase::Following {
                continue;
            }
            if let Err(error) = canaries.send_one(&mut round).await {
                tracing::debug!(%error, "a canary was not read");
                round = None;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        done = work => done,
    }
}

/// A walk through the keys, and where it is.
struct Round {
    walking: Link,
    walk: KeyWalk,
    reader: Reader,
    waiting: VecDeque<(Batch, u64)>,
}

impl Canaries {
    async fn send_one(&mut self, round: &mut Option<Round>) -> Result<(), MoveError> {
        let Some(server) = self.verifier.source(self.source).cloned() else {
            return Ok(());
        };
        let at = match round {
            Some(at) => at,
            None => {
                let upstream = &self.verifier.upstream;
                let mut walking = Link::connect(Role::Source, &server, upstream).await?;
                let walk = KeyWalk::new(&mut walking).await?;
                let reader = self.verifier.reader(self.source, &server).await?;
                round.insert(Round {
                    walking,
                    walk,
                    reader,
                    waiting: VecDeque::new(),
                })
            }
        };
        self.measure_lag(&mut at.reader).await?;
        if at.waiting.is_empty() && !self.refill(at).await? {
            *round = None;
            return Ok(());
        }
        let Some(batch) = at.waiting.pop_front() else {
            return Ok(());
        };
        let mut found = Found::default();
        self.verifier
            .check(&mut at.reader, vec![batch], Depth::Content, &mut found)
            .await?;
        let report = found.report;
        for example in &report.examples {
            tracing::error!("a canary found a key that differs: {example}");
        }
        self.row.update(|row| {
            row.canary.keys_compared += report.keys_compared;
            row.canary.differences += report.differences;
            if let Some(last) = report.examples.into_iter().last() {
                row.canary.last_difference = Some(last);
            }
        });
        Ok(())
    }

    /// The next keys of the walk; `false` at its end.
    async fn refill(&self, round: &mut Round) -> Result<bool, MoveError> {
        for _ in 0..PAGES_MAX {
            let Some(page) = round.walk.next(&mut round.walking).await? else {
                return Ok(false);
            };
            let moving = self.verifier.moving(self.source, &page);
            if moving.is_empty() {
                continue;
            }
            let sizes = sizes(&mut round.walking, &moving).await?;
            round.waiting.extend(batches(page.db, moving, &sizes));
            break;
        }
        Ok(true)
    }

    /// How long a marker takes through all lanes.
    async fn measure_lag(&self, reader: &mut Reader) -> Result<(), MoveError> {
        let Some(board) = self.verifier.boards.get(self.source.0) else {
            return Ok(());
        };
        reader.keep().await?;
        let (passed, mut words) = mpsc::channel(self.lanes + 1);
        let message = self.verifier.nonces.next("canary");
        board.expect(message.clone(), Expected::Barrier(passed));
        let asked = Instant::now();
        let args: [&[u8]; 3] = [b"PUBLISH", MARKER_CHANNEL, &message];
        reader.link.call(STEP, &args).await?;
        let all = async {
            for _ in 0..=self.lanes {
                // A source that begins anew forgets its markers.
                if words.recv().await.is_none() {
                    break;
                }
            }
        };
        tokio::pin!(all);
        let mut look = tokio::time::interval(CANARY_EVERY);
        loop {
            let is_through = tokio::select! {
                () = &mut all => true,
                _ = look.tick() => false,
            };
            let lag_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            let is_first = self.row.read().canary.lag_ms.is_none();
            if is_through || is_first || lag_ms >= 1000 {
                self.row.update(|row| row.canary.lag_ms = Some(lag_ms));
            }
            if is_through {
                return Ok(());
            }
        }
    }
}
