//! Copying, then following: what a job does until it switches.
//!
//! ```text
//! copying -> following -> verify -> ready: waits for `verify`, `switch`, a restart
//!    ^                      ^         |
//!    `-- a source restarted |---------`
//! ```
//! Invariant: only a clean verify that was made at the present number of
//! restarts, and is not older than the job's limit, lets a switch begin.

use super::Runner;
use crate::reshard::clock::now_ms;
use crate::reshard::control::Reply;
use crate::reshard::ending::Ending;
use crate::reshard::job_error::JobError;
use crate::reshard::mover::VerifyReport;
use crate::reshard::moving::{CleanVerify, DataPath, Moving};
use crate::reshard::prepare::SwitchMode;
use crate::reshard::recopy::{Disturbed, disturbed};
use crate::reshard::record::{Direction, Record};
use crate::reshard::serve::{Stage, Wish};
use crate::reshard::state::{Back, JobState};

/// What a job that follows does next.
pub(super) enum Due {
    Verify(Option<Reply>),
    Switch(Option<Reply>),
    CopyAgain,
    Wait,
}

impl Runner {
    pub(super) async fn copy_and_switch<D: DataPath>(
        &mut self,
        data: &D,
        moving: &D::Moving,
    ) -> Result<(), JobError> {
        self.say(match self.direction {
            Direction::Forward => "copying",
            Direction::Back => "bringing the old shards up to date",
        });
        let following = moving.wait_following();
        self.within(Stage::Copying, following).await??;
        self.record_following()?;
        self.canaries_recorded = 0;
        // The mover's own replicas keep the backlogs from here on.
        self.keepers = None;
        let mut due = Due::Verify(None);
        loop {
            due = match due {
                Due::Verify(reply) => self.verify_and_tell(data, moving, reply).await?,
                Due::Switch(reply) => match self.try_switch(data, moving, reply).await? {
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

    pub(super) fn due_by_itself(&self) -> Due {
        let paused = matches!(self.log.state(), JobState::Paused(_));
        match self.options.switch {
            SwitchMode::Auto if !paused && self.direction.is_forward() => Due::Switch(None),
            _ => Due::Wait,
        }
    }

    /// Ready, or not: until somebody wants something or the mover fails.
    async fn wait<M: Moving>(&mut self, moving: &M) -> Result<Due, JobError> {
        self.say(match self.log.state() {
            JobState::Switched {
                back: Back::Verified { .. },
                ..
            } => "`keyferry reshard rollback` goes back, `complete` ends the job",
            JobState::Switched { .. } => {
                "waiting for `keyferry reshard verify`, `rollback` or `complete`"
            }
            JobState::Paused(_) => "paused: no switch until `keyferry reshard resume`",
            JobState::Verified { .. } => "ready: waiting for `keyferry reshard switch`",
            _ => "following: waiting for `keyferry reshard verify` or `switch`",
        });
        let disturbed = disturbed(moving, self.restarts_recorded, self.canaries_recorded);
        let wish = match self.serve(Stage::Ready, disturbed).await? {
            Ok(Disturbed::Failed(error)) => return Err(error.into()),
            Ok(Disturbed::Restarted) => return Ok(Due::CopyAgain),
            Ok(Disturbed::Differs(differing)) => return self.canary_differed(differing),
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

    /// What was verified does not hold; the job waits for somebody to look, or, when it
    /// goes on by itself, verifies again, which names what differs and ends it.
    fn canary_differed(&mut self, differing: u64) -> Result<Due, JobError> {
        let more = differing - self.canaries_recorded;
        self.canaries_recorded = differing;
        self.clean = None;
        tracing::error!(
            keys = more,
            "keys differ that were the same: what was verified holds no more"
        );
        if !matches!(self.log.state(), JobState::Paused(_)) {
            self.record(Record::VerifyDiffered {
                at_ms: now_ms(),
                differing: more,
            })?;
        }
        Ok(match (self.options.switch, self.direction) {
            (SwitchMode::Manual, Direction::Forward) => Due::Wait,
            (SwitchMode::Auto, _) | (_, Direction::Back) => Due::Verify(None),
        })
    }

    async fn verify_and_tell<D: DataPath>(
        &mut self,
        data: &D,
        moving: &D::Moving,
        reply: Option<Reply>,
    ) -> Result<Due, JobError> {
        match (self.verify(moving).await, reply) {
            (Ok(clean), reply) => {
                self.attach_keepers(data).await?;
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
                self.after_differences(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// They stay for somebody to look at; on the way back nobody has to: it is
    /// begun anew.
    pub(super) fn after_differences(&self, error: JobError) -> Result<Due, JobError> {
        match self.direction {
            Direction::Forward => Ok(Due::Wait),
            Direction::Back => Err(error),
        }
    }

    pub(super) async fn verify<M: Moving>(&mut self, moving: &M) -> Result<CleanVerify, JobError> {
        self.clean = None;
        let (report, restarts) = self.compare(moving).await?;
        let at_ms = now_ms();
        match CleanVerify::of(&report, at_ms, restarts) {
            Some(clean) => {
                self.clean = Some(clean.clone());
                self.no_way_back = None;
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
    pub(super) fn record_clean(&mut self) -> Result<(), JobError> {
        let Some(clean) = &self.clean else {
            return Ok(());
        };
        let known = match self.log.state() {
            JobState::Following { .. }
            | JobState::Switched {
                back: Back::Following,
                ..
            } => false,
            JobState::Verified { verified_at_ms, .. }
            | JobState::Switched {
                back: Back::Verified { verified_at_ms },
                ..
            } => *verified_at_ms == clean.at_ms(),
            _ => true,
        };
        if !known {
            let record = Record::Verified {
                at_ms: clean.at_ms(),
                keys: clean.keys(),
                proof: clean.sources().to_vec(),
            };
            self.record(record)?;
            self.record_refreshes()?;
        }
        Ok(())
    }

    pub(super) fn fresh_clean(&self) -> Option<CleanVerify> {
        let oldest = now_ms().saturating_sub(self.options.verify_age_max.as_millis() as u64);
        let restarts = self.restarts();
        let clean = self.clean.as_ref();
        clean
            .filter(|clean| clean.at_ms() >= oldest && clean.restarts() == restarts)
            .cloned()
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
