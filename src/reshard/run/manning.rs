//! The fence over the life of a job's process: posts at the servers, the epoch's
//! users, the proxies' logins, and what is left of them when the process ends.
//!
//! ```text
//! start   look at the servers -> make the users -> proxies log in as the old epoch's
//! switch  raise, or lower again                                 (switching.rs)
//! end     before the switch, or with every proxy on the new route: proxies log in
//!         as their config says, so that nothing rests on users that a server
//!         forgets when it restarts
//!         otherwise: all stays as it is for the next start
//! ```
//! Invariants: users are told to proxies only where they are; a proxy that has not confirmed the new route never gets the config's
//! logins back, since the sources are not fenced against those.

use std::time::Duration;

use super::Runner;
use crate::reshard::announce::LEASE;
use crate::reshard::cutover::ProxyIndex;
use crate::reshard::fence::{FenceChoice, FenceLevel};
use crate::reshard::fencing::{Fences, Mission, Sight, Users, look, servers};
use crate::reshard::job_error::JobError;
use crate::reshard::proxies::{Disagreement, PoolView, ProxyError, ShardLogin};
use crate::reshard::record::{Direction, PlannedJob};
use crate::reshard::serve::Stage;
use crate::reshard::state::JobState;

/// Whose posts a job has.
pub fn mission(planned: &PlannedJob) -> Mission {
    Mission {
        pool: planned.pool.clone(),
        job: planned.job.clone(),
        epoch: planned.epoch,
    }
}

impl Runner {
    /// Posts for a switch that an earlier process left; nothing is changed there yet.
    pub(super) async fn post_for_settling(&mut self) -> Result<(), JobError> {
        let mission = mission(&self.log.history().planned);
        if self.log.history().last_fence() < FenceLevel::Acl {
            self.fences = self.without_users(mission);
            return Ok(());
        }
        let users = self.logins.users(&mission)?;
        let sights = self.look().await;
        self.fences = self.posts(mission, &sights, Some(users));
        Ok(())
    }

    /// Users and logins of the old epoch, as far as `--fence`, the servers and the
    /// proxies allow.
    pub(super) async fn man(&mut self, incarnation: u64) -> Result<(), JobError> {
        let mission = mission(&self.log.history().planned);
        if self.options.fence == FenceChoice::Proxies {
            return self.go_without(mission, incarnation, None).await;
        }
        self.say("looking whether the servers can be fenced");
        let sights = self.look().await;
        let old: Vec<_> = servers(&self.moves)
            .into_iter()
            .filter(|(_, is_old, _)| *is_old)
            .map(|(server, ..)| server)
            .collect();
        let unable = sights
            .iter()
            .filter(|sight| old.contains(&sight.server))
            .find_map(|sight| Some(format!("{}: {}", sight.server, sight.why()?)));
        if let Some(why) = unable {
            return self.go_without(mission, incarnation, Some(why)).await;
        }
        let users = self.logins.users(&mission)?;
        self.fences = self.posts(mission.clone(), &sights, Some(users));
        self.say("making the epoch's users");
        let manned = self.fences.man();
        if let Err(error) = self.within(Stage::Starting, manned).await? {
            let why = error.to_string();
            return self.go_without(mission, incarnation, Some(why)).await;
        }
        self.say("proxies log in as the epoch's users");
        let (logins, _) = self.fences.logins();
        let job = mission.job.clone();
        let everybody = self.fleet.everybody();
        let said = self
            .fleet
            .tell_logins(&everybody, (&job, incarnation), LEASE, &logins);
        let errors: Vec<_> = said.await.into_iter().filter_map(Result::err).collect();
        let (refused, silent): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|error| !error.is_temporary());
        match refused.into_iter().next() {
            Some(error) => {
                let why = error.to_string();
                self.go_without(mission, incarnation, Some(why)).await
            }
            None if silent.is_empty() => Ok(()),
            None => Err(Disagreement::Unanswered(silent).into()),
        }
    }

    /// What the sources of a switch are fenced with now. Back from the new layout it
    /// takes every proxy: who was late is still on the route before.
    pub(super) fn fence_level(&self) -> FenceLevel {
        match self.direction {
            Direction::Forward => self.fences.level(),
            Direction::Back => FenceLevel::ProxiesOnly,
        }
    }

    /// As whom proxies log in once the switch is made; as their config says after
    /// one back.
    pub(super) fn logins_of_new(&self) -> Vec<ShardLogin> {
        match self.direction {
            Direction::Forward => self.fences.logins().1,
            Direction::Back => Vec::new(),
        }
    }

    /// A switched job that is taken up again after a kill: proxies may be logged in
    /// as its users, which a server that restarts forgets.
    pub(super) async fn keep_users(&mut self) -> Result<(), JobError> {
        let is_needed = self.fences.level() < FenceLevel::Acl
            && self.direction.is_forward()
            && self.logins.exists();
        if is_needed {
            let mission = mission(&self.log.history().planned);
            let users = self.logins.users(&mission)?;
            let sights = self.look().await;
            self.fences = self.posts(mission, &sights, Some(users));
            self.fences.man_switched();
        }
        Ok(())
    }

    async fn look(&self) -> Vec<Sight> {
        let all = servers(&self.moves).into_iter().map(|(server, ..)| server);
        look(all.collect(), &self.upstream).await
    }

    fn posts(&self, mission: Mission, sights: &[Sight], users: Option<Users>) -> Fences {
        Fences::at(mission, &self.moves, &self.upstream, sights, users)
    }

    fn without_users(&self, mission: Mission) -> Fences {
        self.posts(mission, &[], None)
    }

    /// No fence on the servers: because it was asked for, or since `why` stands
    /// before it. What an earlier start made is taken back.
    async fn go_without(
        &mut self,
        mission: Mission,
        incarnation: u64,
        why: Option<String>,
    ) -> Result<(), JobError> {
        if self.logins.exists() {
            let everybody = self.fleet.everybody();
            self.take_logins_back(everybody, (incarnation, LEASE)).await;
        }
        self.fences = self.without_users(mission);
        match (why, self.options.fence) {
            (Some(why), FenceChoice::Acl) => Err(JobError::NoFence(why)),
            (Some(why), FenceChoice::Auto | FenceChoice::Proxies) => {
                tracing::warn!(
                    "no fence on the servers, every proxy is needed at the switch: {why}"
                );
                self.no_fence_because = Some(why);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// At the end of the process; see the file's head.
    pub(super) async fn relieve(&mut self) {
        if self.fences.level() < FenceLevel::Acl {
            return;
        }
        // The announcement's own end bears the incarnation of the start, which a switch
        // has made an earlier one.
        let over = (self.log.history().incarnation, Duration::ZERO);
        let everybody = self.fleet.everybody();
        match self.log.state() {
            // Somebody may still be told either way.
            JobState::Switching(_) => {}
            JobState::Switched { .. } => {
                let epoch = self.log.history().planned.epoch;
                let views = self.fleet.views().await;
                let is_there = |view: &Result<PoolView, _>| {
                    view.as_ref().is_ok_and(|view| view.epoch >= epoch)
                };
                let confirmed = everybody.into_iter().zip(&views);
                let confirmed = confirmed.filter(|(_, view)| is_there(view));
                let confirmed = confirmed.map(|(at, _)| at).collect();
                // The users stay: who is late is refused as the old one until `complete`.
                self.say_logins_of_config(confirmed, over).await;
            }
            _ => self.take_logins_back(everybody, over).await,
        }
    }

    /// Proxies log in as their config says, then the users go, if nobody uses them.
    async fn take_logins_back(&mut self, proxies: Vec<ProxyIndex>, said: (u64, Duration)) {
        let errors = self.say_logins_of_config(proxies, said).await;
        if !errors.is_empty() {
            return;
        }
        let mission = self.fences.mission();
        let users = [mission.old_user(), mission.new_user()];
        match self.fences.discharge(&users).await {
            Ok(()) => self.logins.remove(),
            Err(error) => tracing::warn!(%error, "users of this job stay on a server"),
        }
    }

    async fn say_logins_of_config(
        &mut self,
        proxies: Vec<ProxyIndex>,
        (incarnation, lease): (u64, Duration),
    ) -> Vec<ProxyError> {
        let job = self.log.history().planned.job.clone();
        let said = self
            .fleet
            .tell_logins(&proxies, (&job, incarnation), lease, &[]);
        let errors: Vec<_> = said.await.into_iter().filter_map(Result::err).collect();
        for error in &errors {
            tracing::warn!(%error, "this proxy goes on with the epoch's users: they stay");
        }
        errors
    }
}
