//! Runs one job from its plan to its switch.
//!
//! ```text
//! settle an open switch -> announce -> preflight -> look at targets -> copy -> follow -> verify -> switch -> report
//!                                                            ^  ready: waits for `switch` |
//!                                                            `------- taken back ---------'
//! ```
//! `run/follow.rs` is the loop from copying to ready, `run/switch.rs` one switch.
//!
//! Invariant: the mover is stopped on every way out, and its end is awaited.

mod follow;
mod switch;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::announce::Announced;
use super::clock::now_ms;
use super::control::Request;
use super::history::{JobLog, Safety};
use super::job_error::JobError;
use super::mover::{MoverConfig, MoverProgress, ThrottleDial};
use super::moving::{CleanVerify, DataPath, Moving};
use super::prepare::JobOptions;
use super::proxies::Fleet;
use super::record::Record;
use super::serve::{Stage, Undo};
use super::state::JobState;
use super::status::JobStatus;
use super::stop::Stop;
use crate::router::moves::Moves;

/// Incarnation of a job's first start.
pub(super) const INCARNATION_FIRST: u64 = 1;

/// A job at work.
pub(super) struct Runner {
    pub(super) log: JobLog,
    pub(super) fleet: Fleet,
    pub(super) moves: Arc<Moves>,
    pub(super) options: JobOptions,
    pub(super) questions: mpsc::Receiver<Request>,
    pub(super) throttle: ThrottleDial,
    pub(super) stop: Stop,
    pub(super) status: watch::Sender<JobStatus>,
    pub(super) progress: Option<watch::Receiver<MoverProgress>>,
    pub(super) doing: &'static str,
    pub(super) undo: Option<Undo>,
    pub(super) clean: Option<CleanVerify>,
    /// Sources copied anew, as far as the journal knows.
    pub(super) restarts_recorded: u64,
    /// Canaries that differed, as far as the journal knows.
    pub(super) canaries_recorded: u64,
}

impl Runner {
    /// From the start's record to the switch, or to a recorded end.
    ///
    /// A fresh job comes with its announcement and a preflight behind it. One
    /// that an earlier process left is announced before its start is recorded,
    /// but for an open switch: that is settled whoever has the pool by now.
    pub(super) async fn run<D: DataPath>(
        &mut self,
        data: &D,
        config: MoverConfig,
        announced: Option<Announced>,
    ) -> Result<(), JobError> {
        let incarnation = self.log.history().incarnation + 1;
        let was_switching = matches!(self.log.state(), JobState::Switching(_));
        if was_switching {
            let at_ms = now_ms();
            self.record(Record::Started { incarnation, at_ms })?;
            if self.settle().await? {
                return Ok(());
            }
        }
        let is_fresh = announced.is_some();
        let announced = match announced {
            Some(announced) => announced,
            None => Announced::begin(&self.fleet, &config.job, incarnation).await?,
        };
        let resumed = config.resumed;
        let ended = async {
            if !was_switching {
                let at_ms = now_ms();
                self.record(Record::Started { incarnation, at_ms })?;
            }
            if !is_fresh {
                self.preflight(data, &config).await?;
            }
            self.move_and_switch(data, config).await
        }
        .await;
        announced.end().await;
        match ended {
            Ok(()) => Ok(()),
            Err(error) => Err(self.ended_by(error, resumed)),
        }
    }

    /// Again: servers may be others than those the earlier process looked at.
    async fn preflight<D: DataPath>(
        &mut self,
        data: &D,
        config: &MoverConfig,
    ) -> Result<(), JobError> {
        self.say("looking at every server");
        let checked = self
            .within(Stage::Starting, data.preflight(config))
            .await??;
        for warning in &checked.warnings {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    async fn move_and_switch<D: DataPath>(
        &mut self,
        data: &D,
        config: MoverConfig,
    ) -> Result<(), JobError> {
        self.say("looking for keys in the targets that are not this job's");
        let checking = data.check_targets(&config);
        let checked = self.within(Stage::Starting, checking).await??;
        // Not before: a run that finds this record removes what targets hold.
        self.record(Record::CopyingBegan { at_ms: now_ms() })?;
        let starting = data.start(config, checked);
        let moving = self.within(Stage::Starting, starting).await??;
        self.progress = Some(moving.progress());
        let ended = self.copy_and_switch(&moving).await;
        self.progress = None;
        self.say("closing connections");
        // A task that would not end does not change what the job did.
        if let Err(error) = moving.stop().await {
            tracing::warn!(%error, "the mover did not end cleanly");
        }
        ended
    }

    /// Puts down why the job did not get to its switch.
    fn ended_by(&mut self, error: JobError, resumed: bool) -> JobError {
        let at_ms = now_ms();
        let why = error.to_string();
        let undo = self.undo.take();
        let record = match &error {
            JobError::Undone { .. } if undo.as_ref().is_some_and(Undo::is_rollback) => {
                Record::RolledBack { at_ms }
            }
            JobError::Undone { .. } => Record::Cancelled { at_ms, why },
            // Refused before anything was written: nothing is left to resume.
            JobError::Move(refusal) if refusal.is_refusal() && !resumed => {
                Record::Cancelled { at_ms, why }
            }
            JobError::Move(_) | JobError::Unheld { .. } => Record::Failed { at_ms, why },
            _ => return error,
        };
        match (self.record(record), undo) {
            (Ok(()), undo) => {
                if let Some(undo) = undo {
                    undo.done();
                }
                error
            }
            (Err(not_kept), Some(_)) => not_kept,
            (Err(_), None) => error,
        }
    }

    pub(super) fn record(&mut self, record: Record) -> Result<(), JobError> {
        self.log.record(record, Safety::Synced)?;
        self.publish();
        Ok(())
    }

    pub(super) fn say(&mut self, doing: &'static str) {
        self.doing = doing;
        self.publish();
    }

    pub(super) fn publish(&self) {
        let progress = self.progress.as_ref().map(|seen| seen.borrow().clone());
        let status = JobStatus::running(self.log.history(), self.doing, progress.as_ref());
        self.status.send_replace(status);
    }
}

#[cfg(test)]
mod tests;
