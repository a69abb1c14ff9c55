//! The fence over the life of a job's process: posts at the servers, the epochs'
//! users, the proxies' logins, and what is left of them when the process ends.
//!
//! ```text
//! start     look at the servers -> make the users -> proxies log in as the old epoch's
//! switch    raise, or lower again                                 (switching.rs)
//! switched  make the users again, for the way back; before a switch back every proxy
//!           must have been logged in as the new epoch's once: then the new shards keep
//!           it off, wherever it is
//! end       before the switch, or with every proxy on the new route: proxies log in
//!           as their config says, so that nothing rests on users that a server
//!           forgets when it restarts
//!           otherwise: all stays as it is for the next start
//! ```
//! Invariants: users are told to proxies only where they are; a proxy that has not
//! confirmed the route that was decided never gets the config's logins back, since
//! the sources are not fenced against those.

use std::time::Duration;

use super::Runner;
use crate::reshard::announce::LEASE;
use crate::reshard::clearing::{last_word, release};
use crate::reshard::cutover::ProxyIndex;
use crate::reshard::fence::min_replicas::KeptSettings;
use crate::reshard::fence::{FenceChoice, FenceLevel};
use crate::reshard::fencing::{Fences, Mission, Seen, Sight, Users, level_of, look, places};
use crate::reshard::job_error::JobError;
use crate::reshard::proxies::{Disagreement, PoolView, ProxyError, ShardLogin};
use crate::reshard::record::{Direction, PlannedJob};
use crate::reshard::serve::Stage;
use crate::reshard::state::JobState;

/// Longest wait for the users of a switch back: without them it takes every proxy.
const BACK_PATIENCE: Duration = Duration::from_secs(2);

/// Whose posts a job has.
pub fn mission(planned: &PlannedJob) -> Mission {
    Mission {
        pool: planned.pool.clone(),
        job: planned.job.clone(),
        epoch: planned.epoch,
    }
}

impl Runner {
    /// Posts for a switch that an earlier process left, whichever way it went; nothing
    /// is changed there yet.
    pub(super) async fn post_for_settling(&mut self) -> Result<(), JobError> {
        if self.log.state().direction() == Direction::Back {
            self.turn_round()?;
        }
        let mission = mission(&self.log.history().planned);
        let fence = self.log.history().last_fence();
        let users = match fence == FenceLevel::Acl || self.logins.exists() {
            true => Some(self.logins.users(&mission)?),
            false => None,
        };
        let sights = match (fence, &users) {
            (FenceLevel::ProxiesOnly, None) => Vec::new(),
            _ => self.look().await,
        };
        self.fences = self.posts(mission, &sights, users);
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
        let sources = self.sources_of(&sights);
        let level = level_of(sources.iter().copied());
        let unable = sources
            .iter()
            .find_map(|sight| Some(format!("{}: {}", sight.server, sight.why()?)));
        match (level, unable) {
            (FenceLevel::Acl, _) => {}
            (FenceLevel::MinReplicas, why) if self.options.fence == FenceChoice::Auto => {
                return self
                    .man_settings(mission, incarnation, (&sights, why))
                    .await;
            }
            (_, why) => {
                let why = why.unwrap_or_else(|| "old shards of several kinds".to_owned());
                return self.go_without(mission, incarnation, Some(why)).await;
            }
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

    /// A fence of settings: every proxy is needed, but who goes round them is kept off.
    async fn man_settings(
        &mut self,
        mission: Mission,
        incarnation: u64,
        (sights, why): (&[Sight], Option<String>),
    ) -> Result<(), JobError> {
        self.dismiss(mission.clone(), incarnation).await?;
        self.fences = self.posts(mission.clone(), sights, None);
        let manned = self.fences.man();
        if let Err(error) = self.within(Stage::Starting, manned).await? {
            let why = error.to_string();
            return self.go_without(mission, incarnation, Some(why)).await;
        }
        let why = why.unwrap_or_default();
        tracing::info!(
            "the old shards will be kept from writes at the switch (min-replicas); every proxy is needed: {why}"
        );
        Ok(())
    }

    /// The same for the way back of a switched job; nothing is awaited here but the
    /// new shards, and only where a proxy may not be logged in as it is to be.
    pub(super) async fn man_back(&mut self) -> Result<(), JobError> {
        self.turn_round()?;
        let mission = mission(&self.log.history().planned);
        if !self.fences.have_users() {
            let sights = match self.options.fence {
                FenceChoice::Proxies => Vec::new(),
                FenceChoice::Auto | FenceChoice::Acl => self.look().await,
            };
            let is_able = level_of(self.sources_of(&sights).into_iter()) == FenceLevel::Acl;
            let users = match is_able || self.logins.exists() {
                true => Some(self.logins.users(&mission)?),
                false => None,
            };
            self.fences = self.posts(mission, &sights, users);
        }
        self.fences.turn_round();
        let manned = self.fences.man_sources();
        if self.fences.have_users() {
            self.say("making the new epoch's users");
            let manned = tokio::time::timeout(BACK_PATIENCE, manned);
            match self.within(Stage::NoWayBack, manned).await? {
                Ok(Ok(())) => self.log_in_as_new().await,
                Ok(Err(error)) => tracing::warn!(%error, "a rollback will need every proxy"),
                Err(_) => tracing::warn!("a rollback will need every proxy, as it looks now"),
            }
        }
        Ok(())
    }

    /// Just before a switch back: whether the new shards can keep off every proxy.
    pub(super) async fn man_for_rollback(&mut self) -> Result<(), JobError> {
        self.unfenced_because = None;
        if self.direction == Direction::Forward || !self.fences.have_users() {
            return Ok(());
        }
        self.say("looking whether the new shards can be fenced");
        let manned = tokio::time::timeout(BACK_PATIENCE, self.fences.man());
        self.unfenced_because = match self.within(Stage::Verifying, manned).await? {
            Ok(Ok(())) => {
                self.log_in_as_new().await;
                self.not_as_new().first().map(|proxy| {
                    let name = self.fleet.name(*proxy);
                    format!("proxy {name} has not confirmed that it logs in as the epoch's user")
                })
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!(
                "the epoch's users were not made within {} ms",
                BACK_PATIENCE.as_millis()
            )),
        };
        if let Some(why) = &self.unfenced_because {
            tracing::warn!("no fence on the new shards, every proxy is needed: {why}");
        }
        Ok(())
    }

    /// Tells those who may not be logged in as the new epoch's users to be.
    async fn log_in_as_new(&mut self) {
        let proxies = self.not_as_new();
        let (logins, _) = self.fences.logins();
        if proxies.is_empty() || logins.is_empty() {
            return;
        }
        let job = self.log.history().planned.job.clone();
        let said = (job.as_str(), self.log.history().incarnation);
        let epoch = self.log.history().planned.epoch;
        let views = self.fleet.views().await;
        // Who is still on the route before is told by its commit.
        let is_there = |proxy: &ProxyIndex| {
            let view = views.get(proxy.0).and_then(|view| view.as_ref().ok());
            view.is_some_and(|view| view.epoch == epoch)
        };
        for proxy in proxies.into_iter().filter(is_there) {
            let answers = self.fleet.tell_logins(&[proxy], said, LEASE, &logins).await;
            match answers.into_iter().next() {
                Some(Ok(())) => _ = self.as_new.insert(proxy),
                Some(Err(error)) => tracing::warn!(%error, "it may log in as its config says"),
                None => {}
            }
        }
    }

    /// Proxies that the new epoch's users were not confirmed by.
    fn not_as_new(&mut self) -> Vec<ProxyIndex> {
        self.as_new.extend(self.commits.confirmed());
        let everybody = self.fleet.everybody().into_iter();
        everybody
            .filter(|proxy| !self.as_new.contains(proxy))
            .collect()
    }

    /// What the sources of a switch are fenced with now.
    pub(super) fn fence_level(&self) -> FenceLevel {
        match (self.fences.level(), &self.unfenced_because) {
            (FenceLevel::Acl, Some(_)) => FenceLevel::ProxiesOnly,
            (level, _) => level,
        }
    }

    /// As whom proxies log in once the switch is made.
    pub(super) fn logins_of_new(&self) -> Vec<ShardLogin> {
        match &self.unfenced_because {
            // They may not be there.
            Some(_) => Vec::new(),
            None => self.fences.logins().1,
        }
    }

    async fn look(&self) -> Vec<Sight> {
        let mut sights = look(places(&self.moves), &self.upstream).await;
        let kept = self.log.history().kept_settings();
        for sight in &mut sights {
            // What a process that died has set is not what it was.
            if let Seen::MinReplicas(now, _) = &mut sight.seen
                && now.is_fenced()
                && let Some(before) = KeptSettings::of(kept, &sight.server)
            {
                now.clone_from(before);
            }
        }
        sights
    }

    /// Of the servers that keys leave now.
    fn sources_of<'s>(&self, sights: &'s [Sight]) -> Vec<&'s Sight> {
        let sources: Vec<_> = places(&self.moves)
            .into_iter()
            .filter(|place| place.is_from)
            .collect();
        let is_source = |sight: &&Sight| sources.iter().any(|at| at.server == sight.server);
        sights.iter().filter(is_source).collect()
    }

    fn posts(&self, mission: Mission, sights: &[Sight], users: Option<Users>) -> Fences {
        let way = (&*self.moves, self.direction);
        Fences::at(mission, way, &self.upstream, sights, users)
    }

    /// No fence on the servers: because it was asked for, or since `why` stands
    /// before it. What an earlier start made is taken back.
    async fn go_without(
        &mut self,
        mission: Mission,
        incarnation: u64,
        why: Option<String>,
    ) -> Result<(), JobError> {
        self.dismiss(mission.clone(), incarnation).await?;
        self.fences = self.posts(mission, &[], None);
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

    /// Takes back what an earlier start, or this one, has made.
    async fn dismiss(&mut self, mission: Mission, incarnation: u64) -> Result<(), JobError> {
        if !self.logins.exists() {
            return Ok(());
        }
        if !self.fences.have_users() {
            let users = self.logins.users(&mission)?;
            let sights = self.look().await;
            self.fences = self.posts(mission, &sights, Some(users));
        }
        let everybody = self.fleet.everybody();
        self.take_logins_back(everybody, (incarnation, LEASE)).await;
        Ok(())
    }

    /// At the end of the process; see the file's head.
    pub(super) async fn relieve(&mut self) {
        // The announcement's own end bears the incarnation of the start, which a switch
        // has made an earlier one.
        let over = (self.log.history().incarnation, Duration::ZERO);
        let everybody = self.fleet.everybody();
        let planned = &self.log.history().planned;
        let (new, back) = (planned.epoch, planned.goal(Direction::Back).epoch);
        match self.log.state() {
            // Somebody may still be told either way.
            JobState::Switching(_) => {}
            // The users stay: who is late is refused as the old one until `complete`.
            JobState::Switched { .. } => _ = self.free(new, over).await,
            JobState::RolledBack if self.direction == Direction::Back => {
                let freed = self.free(back, over).await;
                if freed.len() == everybody.len() {
                    self.discharge().await;
                } else if self.fences.have_users() {
                    tracing::warn!(
                        "proxies are late: users and keys of this job stay on the servers until `keyferry reshard cancel --yes` finds them on the route"
                    );
                }
            }
            _ => {
                self.release().await;
                if self.fences.have_users() {
                    self.take_logins_back(everybody, over).await;
                }
            }
        }
    }

    /// Those who have confirmed `epoch` log in as their config says; who they are.
    async fn free(&mut self, epoch: u64, over: (u64, Duration)) -> Vec<ProxyIndex> {
        let everybody = self.fleet.everybody();
        let views = self.fleet.views().await;
        let is_there =
            |view: &Result<PoolView, _>| view.as_ref().is_ok_and(|view| view.epoch >= epoch);
        let confirmed = everybody.into_iter().zip(&views);
        let confirmed = confirmed.filter(|(_, view)| is_there(view));
        let confirmed: Vec<_> = confirmed.map(|(at, _)| at).collect();
        if !self.fences.have_users() {
            return confirmed;
        }
        let errors = self.say_logins_of_config(confirmed.clone(), over).await;
        match errors.is_empty() {
            true => confirmed,
            false => Vec::new(),
        }
    }

    /// Proxies that still have a stage of a switch that was taken back are told so.
    /// Who cannot be told finds it on the servers.
    async fn release(&mut self) {
        if !self.log.history().was_tried() {
            return;
        }
        let left = release(&mut self.fleet, self.log.history()).await;
        if left.is_empty() {
            return;
        }
        for error in &left {
            tracing::warn!(%error, "this proxy may not know that the switch was taken back");
        }
        if let Err(error) = self.fences.say(Some(&last_word(self.log.history()))).await {
            tracing::warn!(%error, "nor does this server tell it");
        }
    }

    /// Proxies log in as their config says, then the users go, if nobody uses them.
    async fn take_logins_back(&mut self, proxies: Vec<ProxyIndex>, said: (u64, Duration)) {
        let errors = self.say_logins_of_config(proxies, said).await;
        if errors.is_empty() {
            self.discharge().await;
        }
    }

    async fn discharge(&self) {
        if !self.fences.have_users() {
            return;
        }
        match self.fences.discharge().await {
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
