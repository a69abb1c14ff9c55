//! One try of a switch, what comes of it, and the switch that a dead process left.

use std::sync::Arc;

use super::Runner;
use super::follow::Due;
use crate::planted::{self, Planted};
use crate::reshard::bypass::RECENT_S;
use crate::reshard::clock::now_ms;
use crate::reshard::control::Reply;
use crate::reshard::cutover::{Call, Crew, Cutover, Proxies, ProxyIndex};
use crate::reshard::ending::Ending;
use crate::reshard::fence::FenceLevel;
use crate::reshard::history::History;
use crate::reshard::job_error::JobError;
use crate::reshard::moving::{CleanVerify, Moving, with_pass_hint};
use crate::reshard::prepare::{AUTO_TRIES_MAX, check_proxies};
use crate::reshard::proxies::SwitchTerms;
use crate::reshard::record::{ProxyPause, Record};
use crate::reshard::recovery::recover;
use crate::reshard::reminders::Reminders;
use crate::reshard::report::Report;
use crate::reshard::serve::Stage;
use crate::reshard::state::JobState;
use crate::reshard::stop::Stop;
use crate::reshard::switching::{SwitchEnd, Switching};

/// A write this long ago may have been made behind the fence.
const BEHIND_THE_FENCE_S: u64 = 2;

impl Runner {
    /// Finishes a switch that an earlier process left open; whether it is committed.
    pub(super) async fn settle(&mut self) -> Result<bool, JobError> {
        self.say("finishing an interrupted switch");
        let terms = self.terms();
        let route = self.route_record();
        let mut stop = self.stop.clone();
        match recover(self.switching(&terms, &route, &mut stop)).await? {
            SwitchEnd::Committed { proxies, late } => {
                self.committed(proxies, late, &terms).await?;
                Ok(true)
            }
            SwitchEnd::Aborted { why, late } => {
                self.remind(Call::Abort, &terms, late);
                let at_ms = now_ms();
                self.record(Record::SwitchAborted { at_ms, why })?;
                let from = Arc::clone(self.moves.from());
                check_proxies(&mut self.fleet, self.log.history(), &from).await?;
                Ok(false)
            }
            SwitchEnd::Unfinished { waiting } => Err(JobError::SwitchUnfinished(waiting)),
        }
    }

    /// One try; `None` when it is committed.
    pub(super) async fn try_switch<M: Moving>(
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
        if let Err(error) = self.check_nobody_goes_round().await {
            let Some(reply) = reply else {
                return Err(error);
            };
            reply.send(Ending::Guard, error.to_string());
            return Ok(Some(Due::Wait));
        }
        let terms = SwitchTerms {
            incarnation: self.log.history().incarnation + 1,
            ..self.terms()
        };
        match self.switch(moving, clean, &terms).await? {
            SwitchEnd::Committed { proxies, late } => {
                self.committed(proxies, late, &terms).await?;
                let report = Report::of(self.log.history());
                tell(reply, Ending::Done, &report.to_string());
                Ok(None)
            }
            SwitchEnd::Aborted { why, late } => {
                self.remind(Call::Abort, &terms, late);
                self.taken_back(moving, reply, why).await.map(Some)
            }
            SwitchEnd::Unfinished { waiting } => {
                self.taken_back(moving, reply, waiting).await.map(Some)
            }
        }
    }

    /// The proof is demanded here: no intent is recorded without a clean verify.
    async fn switch<M: Moving>(
        &mut self,
        moving: &M,
        proof: CleanVerify,
        terms: &SwitchTerms,
    ) -> Result<SwitchEnd, JobError> {
        self.say("switching");
        // An abort of the last try that is still under way would meet this one.
        self.reminders = Reminders::none();
        let mut actions = Vec::new();
        let crew = Crew::new(Proxies(self.fleet.len()), self.fences.level());
        let machine = Cutover::begin(crew, &mut actions);
        let route = self.route_record();
        let mut stop = self.stop.clone();
        let switching = Switching {
            restarts: proof.restarts(),
            ..self.switching(terms, &route, &mut stop)
        };
        Ok(switching.drive(machine, actions, Some(moving)).await?)
    }

    async fn taken_back<M: Moving>(
        &mut self,
        moving: &M,
        reply: Option<Reply>,
        why: String,
    ) -> Result<Due, JobError> {
        let why = with_pass_hint(why, &moving.progress().borrow(), self.options.hold);
        self.record(Record::SwitchAborted {
            at_ms: now_ms(),
            why: why.clone(),
        })?;
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

    async fn check_nobody_goes_round(&self) -> Result<(), JobError> {
        let writers = self.fences.bypassing(RECENT_S).await;
        if writers.is_empty() {
            return Ok(());
        }
        let writers = writers.iter().map(|bypass| format!("  {bypass}"));
        Err(JobError::Bypass(writers.collect()))
    }

    async fn committed(
        &mut self,
        proxies: Vec<ProxyPause>,
        late: Vec<ProxyIndex>,
        terms: &SwitchTerms,
    ) -> Result<(), JobError> {
        let at_ms = now_ms();
        let names = late.iter().map(|at| self.fleet.name(*at)).collect();
        self.remind(Call::Commit, terms, late);
        // None had written for a while before the switch: these did since.
        let writers = self.fences.bypassing(BEHIND_THE_FENCE_S).await;
        let bypass: Vec<String> = writers.iter().map(ToString::to_string).collect();
        for writer in &bypass {
            tracing::error!(
                writer,
                "wrote to an old shard round the proxies while the switch was made: what came after it is only there"
            );
        }
        self.record(Record::SwitchCommitted {
            at_ms,
            proxies,
            late: names,
            bypass,
        })
    }

    fn remind(&mut self, call: Call, terms: &SwitchTerms, late: Vec<ProxyIndex>) {
        if planted::is_on(Planted::LateProxyForgotten) {
            return;
        }
        self.reminders = Reminders::begin(&self.fleet, call, terms, late);
    }

    fn route_record(&self) -> String {
        let planned = &self.log.history().planned;
        serde_json::json!({
            "v": 1, "pool": planned.pool, "job": planned.job,
            "epoch": planned.epoch, "to": planned.to,
        })
        .to_string()
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
            fenced: self.fences.level() == FenceLevel::Acl,
            logins: self.fences.logins().1,
        }
    }

    fn switching<'a>(
        &'a mut self,
        terms: &'a SwitchTerms,
        route: &'a str,
        stop: &'a mut Stop,
    ) -> Switching<'a> {
        Switching {
            fleet: &mut self.fleet,
            fences: &self.fences,
            route,
            terms,
            log: &mut self.log,
            stop,
            status: &self.status,
            hold: self.options.hold,
            restarts: 0,
            patience: None,
        }
    }
}

fn tell(reply: Option<Reply>, ending: Ending, text: &str) {
    if let Some(reply) = reply {
        reply.send(ending, text);
    }
}
