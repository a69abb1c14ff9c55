//! Runs one job from its plan to its switch, and back if that is wanted.
//!
//! ```text
//! settle an open switch -> announce -> preflight -> look at targets -> copy -> follow -> verify -> switch -> report
//!                                                            ^  ready: waits for `switch` |         |
//!                                                            `------- taken back ---------'         v
//!                                               rolled_back <- switch back <- verify <- follow <- turn round
//! ```
//! `run/follow.rs` is the loop from copying to ready, `run/switch.rs` one switch,
//! either way; `run/back.rs` turns round and keeps the way back alive.
//!
//! Invariant: the mover is stopped on every way out, and its end is awaited.

mod back;
mod bypassed;
mod follow;
mod manning;
mod switch;

pub use back::mover_names;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::announce::{Absent, Announced};
use super::clock::now_ms;
use super::control::{Reply, Request};
use super::cutover::ProxyIndex;
use super::ending::Ending;
use super::fencing::Fences;
use super::history::{JobLog, Safety};
use super::job_error::JobError;
use super::logins::Logins;
use super::lookout::Lookout;
use super::mover::{KeeperConfig, Keepers, MoverConfig, MoverProgress, OnConflict, ThrottleDial};
use super::moving::{CleanVerify, DataPath, Moving};
use super::prepare::{AfterSwitch, JobOptions};
use super::proxies::Fleet;
use super::record::{Direction, Record};
use super::reminders::Reminders;
use super::serve::{Stage, Undo};
use super::state::JobState;
use super::status::JobStatus;
use super::stop::Stop;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;

pub(super) use manning::mission;

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
    /// How to reach the servers.
    pub(super) upstream: UpstreamConfig,
    /// Our posts at the servers.
    pub(super) fences: Fences,
    /// The passwords of the epoch's users.
    pub(super) logins: Logins,
    /// Proxies that are late since a switch that was made.
    pub(super) commits: Reminders,
    /// Proxies that do not know yet that the last try was taken back.
    pub(super) aborts: Reminders,
    /// Proxies that are, or were, logged in as the new epoch's users: the new shards
    /// can keep them off.
    pub(super) as_new: BTreeSet<ProxyIndex>,
    /// Why a switch back takes every proxy, though users are there.
    pub(super) unfenced_because: Option<String>,
    /// Looks who writes to the shards that keys leave, round the proxies.
    pub(super) lookout: Lookout,
    /// Why the servers are not fenced, if that was not asked for.
    pub(super) no_fence_because: Option<String>,
    /// Canaries that differed, as far as the journal knows.
    pub(super) canaries_recorded: u64,
    /// Which way `moves` and the mover go.
    pub(super) direction: Direction,
    /// Where keepers attach before a switch that the process is to outlive.
    pub(super) keeping: KeeperConfig,
    /// From the clean verify until the way back stands.
    pub(super) keepers: Option<Keepers>,
    /// Why the job cannot be rolled back now.
    pub(super) no_way_back: Option<String>,
    /// Who wants to complete the job and waits for this process to let go.
    pub(super) let_go: Option<Reply>,
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
            self.post_for_settling().await?;
            self.settle().await?;
            if self.is_done() {
                if self.log.state().is_over() {
                    self.remove_notes().await;
                }
                self.relieve().await;
                return self.went_back();
            }
        }
        let is_fresh = announced.is_some();
        let announced = match announced {
            Some(announced) => announced,
            None => {
                let absent = match self.log.state() {
                    JobState::Switched { .. } => Absent::Late,
                    _ => Absent::Refused,
                };
                Announced::begin(&self.fleet, &config.job, incarnation, absent).await?
            }
        };
        let resumed = config.resumed;
        let ended = async {
            if !was_switching {
                let at_ms = now_ms();
                self.record(Record::Started { incarnation, at_ms })?;
            }
            if !matches!(self.log.state(), JobState::Switched { .. }) {
                if !is_fresh {
                    self.preflight(data, &config).await?;
                }
                self.man(incarnation).await?;
                self.look_out();
                self.move_and_switch(data, config.clone()).await?;
            }
            if self.is_done() {
                return Ok(());
            }
            self.man_back().await?;
            self.look_out();
            self.remind_late().await;
            self.follow_back(data, config).await
        }
        .await;
        let is_over = self.log.state().is_over();
        if is_over || matches!(ended, Err(JobError::LetGo | JobError::Undone { .. })) {
            self.remove_notes().await;
        }
        self.relieve().await;
        announced.end().await;
        match ended {
            Ok(()) => self.went_back(),
            Err(JobError::LetGo) => {
                if let Some(reply) = self.let_go.take() {
                    reply.send(Ending::Done, "the old shards are not followed any more");
                }
                Ok(())
            }
            Err(error) => Err(self.ended_by(error, resumed)),
        }
    }

    /// Whether the process has nothing more to do.
    fn is_done(&self) -> bool {
        match self.log.state() {
            JobState::Switched { .. } => self.options.after == AfterSwitch::End,
            state => state.is_over(),
        }
    }

    /// How a job ends that did what it was told.
    fn went_back(&self) -> Result<(), JobError> {
        match self.log.state() {
            JobState::RolledBack => Err(JobError::WentBack {
                epoch: self.log.history().planned.goal(Direction::Back).epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Again: servers may be others than those the earlier process looked at.
    pub(super) async fn preflight<D: DataPath>(
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
        let is_skip = self.options.on_conflict == OnConflict::Skip;
        self.record(Record::CopyingBegan {
            at_ms: now_ms(),
            beside_others: is_skip && self.direction.is_forward(),
        })?;
        let starting = data.start(config, checked);
        let moving = self.within(Stage::Starting, starting).await??;
        self.progress = Some(moving.progress());
        let ended = self.copy_and_switch(data, &moving).await;
        // A journal that cannot take it does not change what the job did.
        if let Err(error) = self.record_refreshes() {
            tracing::warn!(%error, "what was read again is not in the job's report");
        }
        self.progress = None;
        self.say("closing connections");
        // A task that would not end changes nothing either.
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
            // A switched job has not failed because its way back did.
            _ if self.direction == Direction::Back => return error,
            // A run after it goes on where the checkpoints are.
            JobError::Move(passing) if passing.keeps_checkpoints() => return error,
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
        let mut status = JobStatus::running(self.log.history(), self.doing, progress.as_ref());
        status.fence = Some(self.fences.level());
        status.no_fence_because.clone_from(&self.no_fence_because);
        status.late_proxies = self.commits.left();
        status.late_proxies.extend(self.aborts.left());
        status.going_round = self.going_round();
        if let Some(why) = &self.no_way_back {
            status.no_way_back(why);
        }
        if let Some(step) = &self.options.step {
            step.put_into(&mut status);
        }
        self.status.send_replace(status);
    }
}

#[cfg(test)]
mod tests;
