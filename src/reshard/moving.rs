//! The seam to the part that moves data, and the proofs that only it can give.
//!
//! The job drives a [`DataPath`]: in production the mover, in tests of the job
//! one that moves nothing. Two values open dangerous steps and cannot be made
//! otherwise: [`MarkerApplied`] lets proxies be armed, [`CleanVerify`] lets a
//! switch be intended.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::mover::{
    self, Herald, KeeperConfig, Keepers, MarkerReport, MoveError, Mover, MoverConfig,
    MoverProgress, PreflightReport, SourceProof, TargetsChecked, Verified, VerifyOptions,
    VerifyReport,
};
use super::record::Copied;

/// What can move the keys of a job.
pub trait DataPath: Sync {
    /// A move under way.
    type Moving: Moving;
    /// Proof: no target holds a key that the job may not write.
    type Checked: Send;

    /// Checks every server, changing nothing.
    fn preflight(
        &self,
        config: &MoverConfig,
    ) -> impl Future<Output = Result<PreflightReport, MoveError>> + Send;

    /// Applies the conflict policy to what targets hold; may take minutes. Only
    /// what is found in a target after this can be the job's own.
    fn check_targets(
        &self,
        config: &MoverConfig,
    ) -> impl Future<Output = Result<Self::Checked, MoveError>> + Send;

    /// Attaches to new shards, so that places in their streams can be told.
    fn keep(
        &self,
        config: &KeeperConfig,
    ) -> impl Future<Output = Result<Keepers, MoveError>> + Send;

    /// Begins to copy.
    fn start(
        &self,
        config: MoverConfig,
        checked: Self::Checked,
    ) -> impl Future<Output = Result<Self::Moving, MoveError>> + Send;
}

/// A move under way: copying, then following.
pub trait Moving: Send + Sync {
    /// How far every source is.
    fn progress(&self) -> watch::Receiver<MoverProgress>;
    /// Returns when every source is followed closely.
    fn wait_following(&self) -> impl Future<Output = Result<(), MoveError>> + Send;
    /// Returns when the move cannot go on.
    fn failed(&self) -> impl Future<Output = MoveError> + Send;
    /// Makes a cut quick that comes at once: few expiry times are left for it.
    /// [`Moving::uncut`] takes it back.
    fn prepare_cut(&self) -> impl Future<Output = Result<(), MoveError>> + Send;
    /// Sends a marker through every source; returns when all before it is
    /// applied. What comes after it waits for [`Moving::uncut`]. Fails when a
    /// source was copied anew since there were `restarts` of that kind. With
    /// `heralds` the markers are handed there, to be published by them.
    fn cut(
        &self,
        label: &str,
        restarts: u64,
        heralds: Option<mpsc::Sender<Herald>>,
    ) -> impl Future<Output = Result<MarkerReport, MoveError>> + Send;
    /// Applies again what comes, after a cut or a preparation that led to no switch.
    fn uncut(&self);
    /// Lets go of every source, once a switch is decided and what they say is of
    /// no more use: an unread tap would fill their buffers.
    fn detach(&self);
    /// Compares moving keys at source and target.
    fn verify(
        &self,
        options: VerifyOptions,
    ) -> impl Future<Output = Result<VerifyReport, MoveError>> + Send;
    /// Ends all connections and tasks.
    fn stop(self) -> impl Future<Output = Result<(), MoveError>> + Send;
}

/// The data path of production.
#[derive(Debug, Clone, Copy)]
pub struct Movers;

impl DataPath for Movers {
    type Moving = Mover;
    type Checked = TargetsChecked;

    async fn preflight(&self, config: &MoverConfig) -> Result<PreflightReport, MoveError> {
        mover::preflight(config).await
    }

    async fn check_targets(&self, config: &MoverConfig) -> Result<TargetsChecked, MoveError> {
        mover::check_targets(config).await
    }

    async fn keep(&self, config: &KeeperConfig) -> Result<Keepers, MoveError> {
        Keepers::attach(config).await
    }

    async fn start(
        &self,
        config: MoverConfig,
        checked: TargetsChecked,
    ) -> Result<Mover, MoveError> {
        mover::start(config, checked).await
    }
}

impl Moving for Mover {
    fn progress(&self) -> watch::Receiver<MoverProgress> {
        Mover::progress(self)
    }

    async fn wait_following(&self) -> Result<(), MoveError> {
        Mover::wait_following(self).await
    }

    async fn failed(&self) -> MoveError {
        Mover::failed(self).await
    }

    async fn prepare_cut(&self) -> Result<(), MoveError> {
        Mover::prepare_cut(self).await
    }

    async fn cut(
        &self,
        label: &str,
        restarts: u64,
        heralds: Option<mpsc::Sender<Herald>>,
    ) -> Result<MarkerReport, MoveError> {
        Mover::cut_with(self, label, restarts, heralds).await
    }

    fn uncut(&self) {
        Mover::uncut(self);
    }

    fn detach(&self) {
        Mover::detach(self);
    }

    async fn verify(&self, options: VerifyOptions) -> Result<VerifyReport, MoveError> {
        Mover::verify(self, options).await
    }

    async fn stop(self) -> Result<(), MoveError> {
        Mover::stop(self).await
    }
}

/// Proof: a marker went through every source and all before it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerApplied(());

impl MarkerApplied {
    /// The proof that a marker's report is.
    pub fn of(_report: &MarkerReport) -> Self {
        Self(())
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        Self(())
    }
}

/// Proof: a full verify compared every moving key and found no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanVerify {
    at_ms: u64,
    keys: u64,
    restarts: u64,
    verified: Verified,
}

impl CleanVerify {
    /// The proof that a report without differences is, if it is one. It was
    /// made when sources had been copied anew `restarts` times.
    pub fn of(report: &VerifyReport, at_ms: u64, restarts: u64) -> Option<Self> {
        let verified = report.verified.clone()?;
        Some(Self {
            at_ms,
            keys: report.keys_compared,
            restarts,
            verified,
        })
    }

    /// What was compared at each source.
    pub fn sources(&self) -> &[SourceProof] {
        self.verified.sources()
    }

    /// It says nothing of what was copied after more restarts than these.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// When the verify ended, milliseconds since 1970.
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// How many keys were compared.
    pub fn keys(&self) -> u64 {
        self.keys
    }
}

/// Keys and bytes that targets confirmed so far, all sources together.
pub fn copied(progress: &MoverProgress) -> Copied {
    Copied {
        keys: progress.sources.iter().map(|row| row.keys_acked).sum(),
        bytes: progress.sources.iter().map(|row| row.bytes_sent).sum(),
    }
}

/// Why a switch was taken back, with what to do where its marker had to wait for
/// a pass over all keys of a source that takes longer than the hold.
pub(super) fn with_pass_hint(why: String, progress: &MoverProgress, hold: Duration) -> String {
    match progress.pass_ms() {
        Some(ms) if Duration::from_millis(ms) >= hold => format!(
            "{why}; with --attach scan and no keyspace notifications a switch takes a pass over all keys, {ms} ms now: start again with a longer --hold (up to 30s), or let our user CONFIG SET notify-keyspace-events"
        ),
        _ => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reshard::mover::{SourceProgress, WalkFigures};

    #[test]
    fn a_hold_that_is_shorter_than_a_pass_is_told() {
        let row = SourceProgress {
            walk: Some(WalkFigures {
                pass_ms: Some(700),
                ..WalkFigures::default()
            }),
            ..SourceProgress::idle("10.0.0.1:6379".parse().unwrap())
        };
        let progress = MoverProgress {
            sources: vec![row],
            ..MoverProgress::default()
        };
        let told = |hold| with_pass_hint("late".to_owned(), &progress, hold);
        let short = told(Duration::from_millis(500));
        assert!(
            short.contains("700 ms") && short.contains("--hold"),
            "{short}"
        );
        assert_eq!(told(Duration::from_secs(5)), "late");
    }
}
