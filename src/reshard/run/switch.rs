//! One try of a switch, what comes of it, and the switch that a dead process left.

use super::Runner;
use super::follow::Due;
use crate::planted::{self, Planted};
use crate::reshard::bypass::{BEHIND_THE_FENCE_S, Bypass, RECENT_S};
use crate::reshard::clock::now_ms;
use crate::reshard::control::Reply;
use crate::reshard::cutover::{Call, Crew, Cutover, Proxies, ProxyIndex};
use crate::reshard::ending::Ending;
use crate::reshard::fence::FenceLevel;
use crate::reshard::fencing::places;
use crate::reshard::history::History;
use crate::reshard::job_error::JobError;
use crate::reshard::moving::{CleanVerify, DataPath, Moving, with_pass_hint};
use crate::reshard::prepare::{AUTO_TRIES_MAX, check_proxies};
use crate::reshard::proxies::{Disagreement, SwitchTerms};
use crate::reshard::record::{Direction, ProxyPause, Record};
use crate::reshard::recovery::recover;
use crate::reshard::reminders::Reminders;
use crate::reshard::report::Report;
use crate::reshard::serve::Stage;
use crate::reshard::state::JobState;
use crate::reshard::stop::Stop;
use crate::reshard::switching::{SwitchEnd, Switching, Taking};
use crate::router::route_record::RouteRecord;

impl Runner {
    /// Finishes a switch that an earlier process left open, whichever way it went.
    pub(super) async fn settle(&mut self) -> Result<(), JobError> {
        self.say("finishing an interrupted switch");
        let fence = self.log.history().last_fence();
        let terms = SwitchTerms {
            fenced: fence == FenceLevel::Acl,
            ..self.terms()
        };
        let route = self.route_record();
        let mut stop = self.stop.clone();
        match recover(self.switching(&terms, &route, &mut stop)).await? {
            SwitchEnd::Committed { proxies, late } => self.committed(proxies, late, &terms).await,
            SwitchEnd::Aborted { why, late } => {
                self.remind_of_abort(&terms, late);
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
        if let Err(error) = self.check_nobody_goes_round().await {
            let Some(reply) = reply else {
                return Err(error);
            };
            reply.send(Ending::Guard, error.to_string());
            return Ok(Some(Due::Wait));
        }
        self.man_for_rollback().await?;
        if self.direction.is_forward()
            && self.log.history().was_tried()
            && let Err(error) = self.fences.say(None).await
        {
            // A stage would be taken for one that is over.
            tracing::warn!(%error, "an earlier end of this job may still be written there");
        }
        if let Err(error) = self.check_everybody_answers().await {
            let Some(reply) = reply else {
                return Err(error);
            };
            reply.send(error.ending(), error.to_string());
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
                self.remind_of_abort(&terms, late);
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
        self.say(match self.direction {
            Direction::Forward => "switching",
            Direction::Back => "switching back",
        });
        // An abort of the last try that is still under way would meet this one.
        self.aborts = Reminders::none();
        // Without it the marker takes longer, or says what stands in its way.
        if let Err(error) = moving.prepare_cut().await {
            tracing::warn!(%error, "expiry times could not be set before the switch");
        }
        let mut actions = Vec::new();
        let crew = Crew::new(Proxies(self.fleet.len()), self.fence_level());
        let machine = Cutover::begin(crew, &mut actions);
        let route = self.route_record();
        let mut stop = self.stop.clone();
        let keepers = self.keepers.take();
        let taking = keepers.as_ref().map(|keepers| {
            let taking: Taking<'_> = Box::pin(keepers.positions());
            taking
        });
        let switching = Switching {
            restarts: proof.restarts(),
            ..self.switching(terms, &route, &mut stop)
        };
        let ended = switching
            .drive(machine, actions, Some(moving), taking)
            .await;
        if matches!(ended, Ok(SwitchEnd::Aborted { .. })) {
            moving.uncut();
        }
        self.keepers = keepers;
        Ok(ended?)
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

    /// A proxy may be away for long since the switch. Where a switch back takes every
    /// proxy it would not only fail, its abort would wait for that one.
    async fn check_everybody_answers(&mut self) -> Result<(), JobError> {
        if self.direction.is_forward() || self.fence_level() == FenceLevel::Acl {
            return Ok(());
        }
        let views = self.fleet.views().await;
        let silent: Vec<_> = views.into_iter().filter_map(Result::err).collect();
        match silent.is_empty() {
            true => Ok(()),
            false => Err(Disagreement::Unanswered(silent).into()),
        }
    }

    async fn check_nobody_goes_round(&self) -> Result<(), JobError> {
        if self.fence_level() < FenceLevel::Acl {
            // Proxies are logged in as anybody else.
            return Ok(());
        }
        let mut writers = self.fences.bypassing(RECENT_S).await;
        if self.direction.is_forward() {
            let seen = self.lookout.look().await.into_iter();
            let more = seen.filter(|seen| !writers.iter().any(|known| known.who() == seen.who()));
            let more: Vec<_> = more.collect();
            writers.extend(more);
        }
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
        let names = late.iter().map(|at| self.fleet.name(*at)).collect();
        if !planted::is_on(Planted::LateProxyForgotten) {
            let everybody = self.fleet.everybody().into_iter();
            if self.direction.is_forward() && !terms.logins.is_empty() {
                self.as_new = everybody.filter(|at| !late.contains(at)).collect();
            }
            self.commits = Reminders::begin(&self.fleet, Call::Commit, terms, late);
        }
        self.aborts = Reminders::none();
        if let Err(error) = self.fences.lift(&self.route_record()).await {
            tracing::error!(
                %error,
                "an old shard still refuses writes (min-replicas-to-write); set it as it was"
            );
        }
        self.record(Record::SwitchCommitted {
            at_ms: now_ms(),
            proxies,
            late: names,
            bypass: Vec::new(),
        })?;
        if terms.fenced {
            self.look_behind_the_fence().await?;
        }
        Ok(())
    }

    /// None had written for a while before the switch: who has now, did since.
    async fn look_behind_the_fence(&mut self) -> Result<(), JobError> {
        let writers = self.fences.bypassing(BEHIND_THE_FENCE_S).await;
        let writers = self.without_late(writers);
        if self.log.state().is_over() {
            for writer in &writers {
                tracing::error!(%writer, "wrote to a shard that keys left, round the proxies");
            }
            return Ok(());
        }
        self.record_bypass(&writers)
    }

    /// A late proxy may have found the route by itself: as whom its config says
    /// it writes, rightly, to servers that stay.
    pub(super) fn without_late(&self, mut writers: Vec<Bypass>) -> Vec<Bypass> {
        if !self.commits.asked_nobody() {
            let places = places(&self.moves);
            let switched_back = self.log.state().is_over();
            let is_turned = self.direction == Direction::Back && !switched_back;
            writers.retain(|bypass| {
                let mut places = places.iter();
                places.any(|place| {
                    let leaves = match is_turned {
                        true => place.is_to && !place.is_from,
                        false => place.leaves(),
                    };
                    place.server == bypass.server && leaves
                })
            });
        }
        writers
    }

    /// Clients of those proxies wait for it, or are refused.
    fn remind_of_abort(&mut self, terms: &SwitchTerms, late: Vec<ProxyIndex>) {
        self.aborts = Reminders::begin(&self.fleet, Call::Abort, terms, late);
    }

    /// A switched job that is taken up again: who is not on its route is told, as the
    /// process before had.
    pub(super) async fn remind_late(&mut self) {
        if !self.commits.asked_nobody() || planted::is_on(Planted::LateProxyForgotten) {
            return;
        }
        let epoch = self.log.history().planned.epoch;
        let fenced = self.log.history().last_fence() == FenceLevel::Acl;
        let views = self.fleet.views().await.into_iter().enumerate();
        let late = views.filter(|(_, view)| match view {
            Ok(view) => view.epoch < epoch,
            Err(_) => fenced,
        });
        let late: Vec<_> = late.map(|(at, _)| ProxyIndex(at)).collect();
        if late.is_empty() {
            return;
        }
        let planned = &self.log.history().planned;
        let terms = SwitchTerms {
            job: planned.job.clone(),
            epoch,
            incarnation: self.log.history().incarnation,
            from_fingerprint: self.moves.to().fingerprint(),
            to: planned.to.clone(),
            lease: self.options.hold,
            fenced,
            logins: self.fences.logins().0,
        };
        self.commits = Reminders::begin(&self.fleet, Call::Commit, &terms, late);
    }

    fn route_record(&self) -> String {
        let planned = &self.log.history().planned;
        let goal = planned.goal(self.direction);
        RouteRecord::new(&planned.pool, &planned.job, goal.epoch, goal.to.clone()).to_json()
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
            fenced: self.fence_level() == FenceLevel::Acl,
            logins: self.logins_of_new(),
        }
    }

    fn switching<'a>(
        &'a mut self,
        terms: &'a SwitchTerms,
        route: &'a str,
        stop: &'a mut Stop,
    ) -> Switching<'a> {
        let level = self.fence_level();
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
            direction: self.direction,
            level,
        }
    }
}

fn tell(reply: Option<Reply>, ending: Ending, text: &str) {
    if let Some(reply) = reply {
        reply.send(ending, text);
    }
}
