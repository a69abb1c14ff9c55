//! One try of a switch, what comes of it, and the switch that a dead process left.

use super::Runner;
use super::follow::Due;
use crate::reshard::clock::now_ms;
use crate::reshard::control::Reply;
use crate::reshard::cutover::{Cutover, Proxies};
use crate::reshard::ending::Ending;
use crate::reshard::history::History;
use crate::reshard::job_error::JobError;
use crate::reshard::moving::{CleanVerify, DataPath, Moving, with_pass_hint};
use crate::reshard::prepare::{AUTO_TRIES_MAX, check_proxies};
use crate::reshard::proxies::SwitchTerms;
use crate::reshard::record::{Direction, ProxyPause, Record};
use crate::reshard::recovery::recover;
use crate::reshard::report::Report;
use crate::reshard::serve::Stage;
use crate::reshard::state::JobState;
use crate::reshard::stop::Stop;
use crate::reshard::switching::{SwitchEnd, Switching, Taking};

impl Runner {
    /// Finishes a switch that an earlier process left open, whichever way it went.
    pub(super) async fn settle(&mut self) -> Result<(), JobError> {
        self.say("finishing an interrupted switch");
        if self.log.state().direction() == Direction::Back {
            self.turn_round()?;
        }
        let terms = self.terms();
        let mut stop = self.stop.clone();
        match recover(self.switching(&terms, &mut stop)).await? {
            SwitchEnd::Committed(proxies) => self.committed(proxies),
            SwitchEnd::Aborted { why } => {
                let at_ms = now_ms();
                self.record(Record::SwitchAborted { at_ms, why })?;
                check_proxies(&mut self.fleet, self.log.history()).await
            }
            SwitchEnd::Unfinished { waiting } => Err(JobError::SwitchUnfinished(waiting)),
        }
    }

    /// One try; `None` when it is committed.
    pub(super) async fn try_switch<D: DataPath>(
        &mut self,
        data: &D,
        moving: &D::Moving,
        reply: Option<Reply>,
    ) -> Result<Option<Due>, JobError> {
        let clean = match self.fresh_clean() {
            Some(clean) => clean,
            None => match (self.verify(moving).await, reply.is_some()) {
                (Ok(clean), _) => clean,
                (Err(error @ (JobError::Differences { .. } | JobError::Unheld { .. })), true) => {
                    let why = format!("a switch needs a clean verify: {error}");
                    tell(reply, Ending::Guard, &why);
                    return self.after_differences(error).map(Some);
                }
                (Err(error), _) => return Err(error),
            },
        };
        self.attach_keepers(data).await?;
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
        self.say(match self.direction {
            Direction::Forward => "switching",
            Direction::Back => "switching back",
        });
        let terms = SwitchTerms {
            incarnation: self.log.history().incarnation + 1,
            ..self.terms()
        };
        let mut actions = Vec::new();
        let machine = Cutover::begin(Proxies(self.fleet.len()), &mut actions);
        let mut stop = self.stop.clone();
        let keepers = self.keepers.take();
        let taking = keepers.as_ref().map(|keepers| {
            let taking: Taking<'_> = Box::pin(keepers.positions());
            taking
        });
        let switching = Switching {
            restarts: proof.restarts(),
            ..self.switching(&terms, &mut stop)
        };
        let ended = switching
            .drive(machine, actions, Some(moving), taking)
            .await;
        self.keepers = keepers;
        Ok(ended?)
    }

    async fn after_abort<M: Moving>(
        &mut self,
        moving: &M,
        reply: Option<Reply>,
        why: String,
    ) -> Result<Due, JobError> {
        tracing::warn!(why, "the switch was taken back");
        if reply.is_some() {
            let (what, route) = match self.direction {
                Direction::Forward => ("switch", "old"),
                Direction::Back => ("rollback", "new"),
            };
            let text =
                format!("the {what} was taken back, clients are on the {route} route: {why}");
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
        let goal = history.planned.goal(self.direction);
        SwitchTerms {
            job: history.planned.job.clone(),
            epoch: goal.epoch,
            incarnation: history.incarnation,
            from_fingerprint: self.moves.from().fingerprint(),
            to: goal.to.clone(),
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
            direction: self.direction,
        }
    }
}

fn tell(reply: Option<Reply>, ending: Ending, text: &str) {
    if let Some(reply) = reply {
        reply.send(ending, text);
    }
}
