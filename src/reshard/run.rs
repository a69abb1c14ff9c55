//! Runs one job from its plan to its switch.
//!
//! ```text
//! settle an open switch -> announce -> preflight -> look at targets -> copy -> follow -> verify -> switch -> report
//!                                                            ^  ready: waits for `switch` |
//!                                                            `------- taken back ---------'
//! ```
//! Invariant: the mover is stopped on every way out, and its end is awaited.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::announce::Announced;
use super::clock::now_ms;
use super::control::{Reply, Request};
use super::cutover::{Cutover, Proxies};
use super::ending::Ending;
use super::history::{History, JobLog, Safety};
use super::job_error::JobError;
use super::mover::{MoverConfig, MoverProgress, ThrottleDial, VerifyReport};
use super::moving::{CleanVerify, DataPath, Moving, with_pass_hint};
use super::prepare::{AUTO_TRIES_MAX, JobOptions, SwitchMode, check_proxies};
use super::proxies::{Fleet, SwitchTerms};
use super::recopy::{Disturbed, disturbed};
use super::record::{ProxyPause, Record};
use super::recovery::recover;
use super::report::Report;
use super::serve::{Stage, Undo, Wish};
use super::state::JobState;
use super::status::JobStatus;
use super::stop::Stop;
use super::switching::{SwitchEnd, Switching};
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
}

/// What a job that follows does next.
enum Due {
    Verify(Option<Reply>),
    Switch(Option<Reply>),
    CopyAgain,
    Wait,
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

    /// Finishes a switch that an earlier process left open; whether it is committed.
    async fn settle(&mut self) -> Result<bool, JobError> {
        self.say("finishing an interrupted switch");
        let terms = self.terms();
        let mut stop = self.stop.clone();
        match recover(self.switching(&terms, &mut stop)).await? {
            SwitchEnd::Committed(proxies) => {
                self.committed(proxies)?;
                Ok(true)
            }
            SwitchEnd::Aborted { why } => {
                let at_ms = now_ms();
                self.record(Record::SwitchAborted { at_ms, why })?;
                let from = Arc::clone(self.moves.from());
                check_proxies(&mut self.fleet, self.log.history(), &from).await?;
                Ok(false)
            }
            SwitchEnd::Unfinished { waiting } => Err(JobError::SwitchUnfinished(waiting)),
        }
    }

    async fn copy_and_switch<M: Moving>(&mut self, moving: &M) -> Result<(), JobError> {
        self.say("copying");
        let following = moving.wait_following();
        self.within(Stage::Copying, following).await??;
        self.record_following()?;
        let mut due = Due::Verify(None);
        loop {
            due = match due {
                Due::Verify(reply) => self.verify_and_tell(moving, reply).await?,
                Due::Switch(reply) => match self.try_switch(moving, reply).await? {
                    Some(due) => due,
                    None => return Ok(()),
                },
                Due::CopyAgain => {
                    self.copy_again(moving).await?;
                    Due::Verify(None)
                }
                Due::Wait => self.wait(moving).await?,
            };
        }
    }

    fn due_by_itself(&self) -> Due {
        let paused = matches!(self.log.state(), JobState::Paused(_));
        match self.options.switch {
            SwitchMode::Auto if !paused => Due::Switch(None),
            _ => Due::Wait,
        }
    }

    /// Ready, or not: until somebody wants something or the mover fails.
    async fn wait<M: Moving>(&mut self, moving: &M) -> Result<Due, JobError> {
        self.say(match self.log.state() {
            JobState::Paused(_) => "paused: no switch until `keyferry reshard resume`",
            JobState::Verified { .. } => "ready: waiting for `keyferry reshard switch`",
            _ => "following: waiting for `keyferry reshard verify` or `switch`",
        });
        let disturbed = disturbed(moving, self.restarts_recorded);
        let wish = match self.serve(Stage::Ready, disturbed).await? {
            Ok(Disturbed::Failed(error)) => return Err(error.into()),
            Ok(Disturbed::Restarted) => return Ok(Due::CopyAgain),
            Err(wish) => wish,
        };
        match wish {
            Wish::Switch(reply) => Ok(Due::Switch(Some(reply))),
            Wish::Verify(reply) => Ok(Due::Verify(Some(reply))),
            Wish::Unpaused => {
                self.record_clean()?;
                Ok(self.due_by_itself())
            }
            wish => Err(self.unwind(wish)),
        }
    }

    async fn verify_and_tell<M: Moving>(
        &mut self,
        moving: &M,
        reply: Option<Reply>,
    ) -> Result<Due, JobError> {
        match (self.verify(moving).await, reply) {
            (Ok(clean), reply) => {
                self.record_clean()?;
                if let Some(reply) = reply {
                    let text = format!("{} keys compared, none differs", clean.keys());
                    reply.send(Ending::Done, text);
                }
                Ok(self.due_by_itself())
            }
            // Whoever asked is told; the job holds at following for them to look.
            (
                Err(error @ (JobError::Differences { .. } | JobError::Unheld { .. })),
                Some(reply),
            ) => {
                reply.send(error.ending(), error.to_string());
                Ok(Due::Wait)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn verify<M: Moving>(&mut self, moving: &M) -> Result<CleanVerify, JobError> {
        self.clean = None;
        let (report, restarts) = self.compare(moving).await?;
        let at_ms = now_ms();
        match CleanVerify::of(&report, at_ms, restarts) {
            Some(clean) => {
                self.clean = Some(clean);
                Ok(clean)
            }
            None => {
                let differing = report.differences;
                self.record(Record::VerifyDiffered { at_ms, differing })?;
                Err(differences(&report))
            }
        }
    }

    /// Puts the clean verify down, unless a pause stands before it.
    fn record_clean(&mut self) -> Result<(), JobError> {
        let Some(clean) = self.clean else {
            return Ok(());
        };
        let known = match self.log.state() {
            JobState::Following { .. } => false,
            JobState::Verified { verified_at_ms, .. } => *verified_at_ms == clean.at_ms(),
            _ => true,
        };
        if !known {
            self.record(Record::Verified {
                at_ms: clean.at_ms(),
                keys: clean.keys(),
            })?;
        }
        Ok(())
    }

    fn fresh_clean(&self) -> Option<CleanVerify> {
        let oldest = now_ms().saturating_sub(self.options.verify_age_max.as_millis() as u64);
        let restarts = self.restarts();
        self.clean
            .filter(|clean| clean.at_ms() >= oldest && clean.restarts() == restarts)
    }

    /// One try; `None` when it is committed.
    async fn try_switch<M: Moving>(
        &mut self,
        moving: &M,
        reply: Option<Reply>,
    ) -> Result<Option<Due>, JobError> {
        let clean = match self.fresh_clean() {
            Some(clean) => clean,
            None => match (self.verify(moving).await, reply.is_some()) {
                (Ok(clean), _) => clean,
                (Err(error @ (JobError::Differences { .. } | JobError::Unheld { .. })), true) => {
                    tell(
                        reply,
                        Ending::Guard,
                        &format!("a switch needs a clean verify: {error}"),
                    );
                    return Ok(Some(Due::Wait));
                }
                (Err(error), _) => return Err(error),
            },
        };
        self.record_clean()?;
        if let Err(error) = self.check_all_held() {
            let Some(reply) = reply else {
                return Err(error);
            };
            reply.send(Ending::Guard, error.to_string());
            return Ok(Some(Due::Wait));
        }
        if matches!(self.log.state(), JobState::Paused(_)) {
            tell(
                reply,
                Ending::Guard,
                "the job was paused meanwhile; resume it first",
            );
            return Ok(Some(Due::Wait));
        }
        match self.switch(moving, clean).await? {
            SwitchEnd::Committed(proxies) => {
                self.committed(proxies)?;
                let report = Report::of(self.log.history());
                tell(reply, Ending::Done, &report.to_string());
                Ok(None)
            }
            SwitchEnd::Aborted { why } | SwitchEnd::Unfinished { waiting: why } => {
                let why = with_pass_hint(why, &moving.progress().borrow(), self.options.hold);
                let record = Record::SwitchAborted {
                    at_ms: now_ms(),
                    why: why.clone(),
                };
                self.record(record)?;
                self.after_abort(moving, reply, why).await.map(Some)
            }
        }
    }

    /// The proof is demanded here: no intent is recorded without a clean verify.
    async fn switch<M: Moving>(
        &mut self,
        moving: &M,
        proof: CleanVerify,
    ) -> Result<SwitchEnd, JobError> {
        self.say("switching");
        let terms = SwitchTerms {
            incarnation: self.log.history().incarnation + 1,
            ..self.terms()
        };
        let mut actions = Vec::new();
        let machine = Cutover::begin(Proxies(self.fleet.len()), &mut actions);
        let mut stop = self.stop.clone();
        let switching = Switching {
            restarts: proof.restarts(),
            ..self.switching(&terms, &mut stop)
        };
        Ok(switching.drive(machine, actions, Some(moving)).await?)
    }

    async fn after_abort<M: Moving>(
        &mut self,
        moving: &M,
        reply: Option<Reply>,
        why: String,
    ) -> Result<Due, JobError> {
        tracing::warn!(why, "the switch was taken back");
        if reply.is_some() {
            let text = format!("the switch was taken back, clients are on the old route: {why}");
            tell(reply, Ending::Temporary, &text);
            self.record_clean()?;
            return Ok(Due::Wait);
        }
        let tries = match self.log.state() {
            JobState::Following { aborted_switches } => *aborted_switches,
            _ => AUTO_TRIES_MAX,
        };
        if tries >= AUTO_TRIES_MAX {
            return Err(JobError::SwitchAborted { tries, why });
        }
        self.say("the switch was taken back; waiting before the next try");
        let pause = self.options.back_off * 2_u32.saturating_pow(tries.saturating_sub(1));
        let backing_off = async {
            tokio::select! {
                error = moving.failed() => Err(error),
                () = tokio::time::sleep(pause) => Ok(()),
            }
        };
        self.within(Stage::BackingOff, backing_off).await??;
        Ok(self.due_by_itself())
    }

    fn committed(&mut self, proxies: Vec<ProxyPause>) -> Result<(), JobError> {
        let at_ms = now_ms();
        self.record(Record::SwitchCommitted { at_ms, proxies })
    }

    fn terms(&self) -> SwitchTerms {
        let history: &History = self.log.history();
        SwitchTerms {
            job: history.planned.job.clone(),
            epoch: history.planned.epoch,
            incarnation: history.incarnation,
            from_fingerprint: self.moves.from().fingerprint(),
            to: history.planned.to.clone(),
            lease: self.options.hold,
        }
    }

    fn switching<'a>(&'a mut self, terms: &'a SwitchTerms, stop: &'a mut Stop) -> Switching<'a> {
        Switching {
            fleet: &mut self.fleet,
            terms,
            log: &mut self.log,
            stop,
            status: &self.status,
            hold: self.options.hold,
            restarts: 0,
            patience: None,
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

fn tell(reply: Option<Reply>, ending: Ending, text: &str) {
    if let Some(reply) = reply {
        reply.send(ending, text);
    }
}

fn differences(report: &VerifyReport) -> JobError {
    JobError::Differences {
        count: report.differences,
        compared: report.keys_compared,
        examples: report
            .examples
            .iter()
            .map(|example| format!("  {example}"))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
