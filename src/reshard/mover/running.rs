//! A mover at work: what the job can ask of it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::planted::{self, Planted};
use crate::replication::Haste;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;

use super::config::{
    Attach, FOLLOWING_MARKER_MS_MAX, FOLLOWING_RETRY_MS, MARKER_MS_MAX, PASS_MARKER_MS_MAX,
};
use super::error::MoveError;
use super::guard::Stance;
use super::marker::{Board, Expected, MARKER_CHANNEL, Nonces};
use super::placement::Placement;
use super::progress::{MoverProgress, SourceRow};
use super::settle::Ask;
use super::strain::Held;
use super::tasks::{Failure, Tasks};
use super::verify::{RECHECKS_SCAN_MIN, Verifier, VerifyOptions, VerifyReport, verify};

/// How long a marker took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarkerReport {
    /// From the call to the last lane's word.
    pub elapsed: Duration,
    /// Each source, with the time until all its lanes had passed the marker.
    pub sources: Vec<(ShardAddress, Duration)>,
}

/// A marker that somebody else publishes: together with a fence, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Herald {
    /// Where.
    pub source: ShardAddress,
    /// On which channel.
    pub channel: &'static [u8],
    /// The marker.
    pub message: Vec<u8>,
}

/// What `start` puts together.
pub(super) struct MoverParts {
    pub(super) placement: Arc<Placement>,
    pub(super) upstream: UpstreamConfig,
    pub(super) attach: Attach,
    pub(super) boards: Vec<Board>,
    pub(super) publishers: Vec<mpsc::Sender<Vec<u8>>>,
    pub(super) lane_counts: Vec<usize>,
    /// Of the sources that are tapped.
    pub(super) settlers: Vec<(ShardAddress, mpsc::Sender<Ask>)>,
    pub(super) stance: Stance,
    pub(super) haste: Haste,
    pub(super) cut: watch::Sender<Option<u64>>,
    pub(super) nonces: Arc<Nonces>,
    pub(super) rows: Vec<Arc<SourceRow>>,
    pub(super) held: watch::Receiver<Held>,
    pub(super) progress: watch::Receiver<MoverProgress>,
    pub(super) tasks: Tasks,
    pub(super) failure: Failure,
}

/// Taps and lanes at work. End it with [`Mover::stop`].
pub struct Mover {
    parts: MoverParts,
    /// How many cuts there were: the number of the next.
    cuts: AtomicU64,
}

impl Mover {
    pub(super) fn new(parts: MoverParts) -> Mover {
        Mover {
            parts,
            cuts: AtomicU64::new(0),
        }
    }

    /// How far each source is; renewed several times a second.
    pub fn progress(&self) -> watch::Receiver<MoverProgress> {
        self.parts.progress.clone()
    }

    /// How far each source is, as of this call.
    pub fn progress_now(&self) -> MoverProgress {
        MoverProgress {
            sources: self.parts.rows.iter().map(|row| row.read()).collect(),
            held: self.parts.held.borrow().clone(),
        }
    }

    /// Waits until every source has its snapshot applied and is followed
    /// closely: a marker comes through all lanes at once.
    ///
    /// # Errors
    /// Whatever made the mover fail meanwhile.
    pub async fn wait_following(&self) -> Result<(), MoveError> {
        loop {
            let mut progress = self.progress();
            let caught_up = async {
                let seen = progress.wait_for(MoverProgress::is_following).await;
                seen.map(|_| ()).map_err(|_| MoveError::Stopped)
            };
            self.at_work(caught_up).await?;
            // Behind a pass no marker is fast: one that came through is all there is.
            let is_by_passes = self.progress_now().is_by_passes();
            let close = Duration::from_millis(FOLLOWING_MARKER_MS_MAX);
            match self.marker("following").await {
                Ok(marker) if is_by_passes || marker.elapsed <= close => return Ok(()),
                // A long spool drains, a source that began anew is copied: in time
                // it is followed again, or the mover fails.
                Ok(_) | Err(MoveError::MarkerLate { .. } | MoveError::Restarted { .. }) => {}
                Err(error) => return Err(error),
            }
            let pause = tokio::time::sleep(Duration::from_millis(FOLLOWING_RETRY_MS));
            self.at_work(async {
                pause.await;
                Ok(())
            })
            .await?;
        }
    }

    /// Resolves when the mover has failed, with the reason.
    pub async fn failed(&self) -> MoveError {
        self.parts.failure.wait().await
    }

    /// Publishes a unique marker on every source; resolves when every lane has
    /// had its target's replies for everything that came before it. `label`
    /// shows in the marker's text. May be dropped at any time.
    ///
    /// # Errors
    /// Whatever made the mover fail, or [`MoveError::MarkerLate`].
    pub async fn marker(&self, label: &str) -> Result<MarkerReport, MoveError> {
        self.pass(label, Expected::Barrier, None).await
    }

    /// As [`Mover::marker`], but no source is read on behind it: until
    /// [`Mover::uncut`] nothing that came after the marker reaches a target.
    /// Once clients write to the new owners, a key that expires or is evicted
    /// at its old one must not be deleted at the new one too.
    ///
    /// # Errors
    /// As [`Mover::marker`], or [`MoveError::Restarted`] when sources were copied
    /// anew more often than `restarts`: what was verified before does not hold
    /// for them; or [`MoveError::Unheld`], [`MoveError::TooManyEnding`] or
    /// [`MoveError::TooFarBehind`]. The cut stays until [`Mover::uncut`].
    pub async fn cut(&self, label: &str, restarts: u64) -> Result<MarkerReport, MoveError> {
        self.cut_with(label, restarts, None).await
    }

    /// As [`Mover::cut`]; with `heralds` we publish nothing, each source's marker
    /// is handed there.
    ///
    /// # Errors
    /// As [`Mover::cut`].
    pub async fn cut_with(
        &self,
        label: &str,
        restarts: u64,
        heralds: Option<mpsc::Sender<Herald>>,
    ) -> Result<MarkerReport, MoveError> {
        let number = self.cuts.fetch_add(1, Ordering::Relaxed);
        for board in &self.parts.boards {
            // Of an earlier one that nobody waited for.
            let _ = board.refused_cut();
        }
        self.parts.haste.hurry();
        self.parts.cut.send_replace(Some(number));
        let cut = |passed| Expected::Cut { number, passed };
        let report = self.pass(label, cut, heralds).await.map_err(|error| {
            let mut refused = self.parts.boards.iter().filter_map(Board::refused_cut);
            refused.next().unwrap_or(error)
        })?;
        let rows = self.progress_now().sources;
        if let Some(unheld) = rows.iter().find(|row| row.shortfalls.cannot_hold > 0) {
            return Err(MoveError::Unheld {
                source_server: unheld.source.clone(),
                count: unheld.shortfalls.cannot_hold,
            });
        }
        if rows.iter().map(|row| row.restarts).sum::<u64>() == restarts {
            return Ok(report);
        }
        let restarted = rows.into_iter().max_by_key(|row| row.restarts);
        Err(
            restarted.map_or(MoveError::Stopped, |row| MoveError::Restarted {
                source_server: row.source,
            }),
        )
    }

    /// Makes a cut quick: gives all keys that do not end within seconds their
    /// exact expiry times, so that few are left for the cut itself. To be called
    /// just before it, since commands must reach the targets fast from here on;
    /// [`Mover::uncut`] takes it back.
    ///
    /// # Errors
    /// Whatever made the mover fail, or [`MoveError::Restarted`].
    pub async fn prepare_cut(&self) -> Result<(), MoveError> {
        self.parts.haste.hurry();
        let number = self.parts.stance.prepare();
        let preparing = async {
            let mut waiting = Vec::new();
            for (server, settler) in &self.parts.settlers {
                let (done, prepared) = oneshot::channel();
                let asked = settler.send(Ask::Prepare { number, done }).await;
                asked.map_err(|_| MoveError::Stopped)?;
                waiting.push((server, prepared));
            }
            let limit = Duration::from_millis(MARKER_MS_MAX);
            for (server, prepared) in waiting {
                let prepared = tokio::time::timeout(limit, prepared).await;
                let prepared = prepared.map_err(|_| MoveError::MarkerLate {
                    source_server: server.clone(),
                    waited_ms: MARKER_MS_MAX,
                })?;
                prepared.map_err(|_| MoveError::Restarted {
                    source_server: server.clone(),
                })?;
            }
            Ok(())
        };
        self.at_work(preparing).await
    }

    /// Reads the sources on, after a cut or its preparation.
    pub fn uncut(&self) {
        self.parts.haste.relax();
        self.parts.stance.relax();
        self.parts.cut.send_replace(None);
    }

    async fn pass(
        &self,
        label: &str,
        what: impl Fn(mpsc::Sender<()>) -> Expected,
        heralds: Option<mpsc::Sender<Herald>>,
    ) -> Result<MarkerReport, MoveError> {
        let waited_ms = match self.progress_now().is_by_passes() {
            false => MARKER_MS_MAX,
            true => PASS_MARKER_MS_MAX,
        };
        let limit = Duration::from_millis(waited_ms);
        let passing = async {
            let started = Instant::now();
            let mut waiting: Vec<_> = self.send_markers(label, what, heralds).await?;
            if planted::is_on(Planted::MarkerIgnored) && label.starts_with("switch") {
                waiting.clear();
            }
            let mut sources = Vec::with_capacity(waiting.len());
            for (source, mut passed, words) in waiting {
                let all = async {
                    for _ in 0..words {
                        // Only a source that begins anew forgets what it was to pass.
                        passed.recv().await.ok_or_else(|| MoveError::Restarted {
                            source_server: source.clone(),
                        })?;
                    }
                    Ok(())
                };
                let late = |_| MoveError::MarkerLate {
                    source_server: source.clone(),
                    waited_ms,
                };
                tokio::time::timeout(limit, all).await.map_err(late)??;
                sources.push((source, started.elapsed()));
            }
            Ok(MarkerReport {
                elapsed: started.elapsed(),
                sources,
            })
        };
        self.at_work(passing).await
    }

    /// Hands the marker to all publishers, or heralds, before waiting for any.
    async fn send_markers(
        &self,
        label: &str,
        what: impl Fn(mpsc::Sender<()>) -> Expected,
        heralds: Option<mpsc::Sender<Herald>>,
    ) -> Result<Vec<(ShardAddress, mpsc::Receiver<()>, usize)>, MoveError> {
        let parts = &self.parts;
        let servers = parts.placement.sources().iter();
        let lanes = parts
            .boards
            .iter()
            .zip(&parts.publishers)
            .zip(&parts.lane_counts);
        let mut waiting = Vec::new();
        for (server, ((board, publisher), lanes)) in servers.zip(lanes) {
            // Each lane's word, and the source task's own.
            let words = lanes + 1;
            let (passed, receiver) = mpsc::channel(words);
            let message = parts.nonces.next(label);
            board.expect(message.clone(), what(passed));
            let is_sent = match &heralds {
                None => publisher.send(message).await.is_ok(),
                Some(heralds) => {
                    let herald = Herald {
                        source: server.clone(),
                        channel: MARKER_CHANNEL,
                        message,
                    };
                    heralds.send(herald).await.is_ok()
                }
            };
            if !is_sent {
                return Err(MoveError::Stopped);
            }
            waiting.push((server.clone(), receiver, words));
        }
        Ok(waiting)
    }

    /// Compares every moving key at source and target; see [`VerifyReport`].
    /// May be called repeatedly while the stream is followed.
    ///
    /// # Errors
    /// Whatever made the mover or a connection fail; differences are no error.
    pub async fn verify(&self, options: VerifyOptions) -> Result<VerifyReport, MoveError> {
        let rechecks = match self.parts.attach {
            Attach::Psync => options.rechecks,
            Attach::Scan => options.rechecks.max(RECHECKS_SCAN_MIN),
        };
        let options = VerifyOptions {
            rechecks,
            ..options
        };
        let verifier = Verifier {
            placement: Arc::clone(&self.parts.placement),
            upstream: self.parts.upstream.clone(),
            boards: self.parts.boards.clone(),
            nonces: Arc::clone(&self.parts.nonces),
            options,
        };
        self.at_work(verify(Arc::new(verifier))).await
    }

    /// Lets go of all servers at once: taps and lanes end, sources buffer no
    /// more for us, and markers or verifications under way end with
    /// [`MoveError::Stopped`]. For when a switch is decided. May be called
    /// again; [`Mover::stop`] is still to follow.
    pub fn detach(&self) {
        self.parts.tasks.tell();
    }

    /// Runs `work` unless the mover fails or is told to stop first.
    async fn at_work<T>(
        &self,
        work: impl Future<Output = Result<T, MoveError>>,
    ) -> Result<T, MoveError> {
        let work = async {
            tokio::select! {
                biased;
                () = self.parts.tasks.told() => Err(MoveError::Stopped),
                done = work => done,
            }
        };
        self.parts.failure.or(work).await
    }

    /// Detaches from all sources, closes all lanes and joins all tasks.
    ///
    /// # Errors
    /// [`MoveError::TaskLost`] naming the tasks that did not end in time.
    pub async fn stop(self) -> Result<(), MoveError> {
        self.parts.tasks.stop().await
    }
}
