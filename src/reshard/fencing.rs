//! The job's posts at all servers of both layouts, and what they do together, one
//! way and back.
//!
//! ```text
//! look   what each server allows                     -> the level (fence.rs)
//! man    users of the epochs, open                   -> proxies log in as those of the epoch in force
//! raise  the leaving one's rights end, with the marker   <- way back: lower
//! keep_route  the decision, for proxies that are away; there is no way back
//! lift        a fence of settings goes, once every proxy has the new route
//! wake        waits of late proxies end, before the way back writes
//! discharge   users and keys leave                   (complete, cancel)
//! ```
//! A switch back is the same with the servers of the new layout as its sources.
//!
//! Invariant: what was ordered at one server is carried out in that order, by
//! one task (`fencing/guard.rs`); a fence is lowered only while no commit was sent.

mod asking;
mod guard;
mod post;
mod sight;
mod stand;
mod users;
mod waiters;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fence::min_replicas::KeptSettings;
use super::fence::{EpochUser, FenceLevel, Rights};
use super::mover::Herald;
use super::proxies::ShardLogin;
use super::record::Direction;
use crate::router::moves::Moves;
use crate::router::route_record::RouteRecord;
use crate::upstream::config::UpstreamConfig;

pub use asking::{OwnNames, Remains};
pub use post::{Means, PostError};
pub use sight::{FencePlan, FenceRow, Seen, Sight, level_of, look, plan};
pub use stand::{Place, places};
pub use users::{Mission, Users, new_password};

use post::{Answer, Gone, Patience, Post, Raise, Wanted};
use stand::Stand;

/// Markers on their way to the posts; one a source, as they are taken at once.
const HERALDS_MAX: usize = 64;

/// Longest time that users are tried to be made on a server that refuses it for a
/// reason that may pass.
const MAN_PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait for all servers to forget the job, or to take writes again.
const DISCHARGE_WAIT: Duration = Duration::from_secs(5);

/// Our posts, and how far the job's fence goes.
#[derive(Debug)]
pub struct Fences {
    mission: Mission,
    direction: Direction,
    users: Option<Users>,
    stands: Vec<Stand>,
}

impl Fences {
    /// Posts at every server of `moves`, which go in `direction`; nothing is written
    /// yet. `sights` say what each allows; without `users` none are made.
    pub fn at(
        mission: Mission,
        (moves, direction): (&Moves, Direction),
        upstream: &UpstreamConfig,
        sights: &[Sight],
        users: Option<Users>,
    ) -> Self {
        let stands = places(moves).into_iter().map(|place| {
            let sight = sights.iter().find(|sight| sight.server == place.server);
            let means = match sight.map(Sight::means) {
                Some(Means::Users(_)) if users.is_none() => Means::Keys,
                means => means.unwrap_or(Means::Keys),
            };
            let ways = [moves.may_give(&place.server), moves.may_take(&place.server)];
            let ([gives, takes], is_old, is_new) = match direction {
                Direction::Forward => (ways, place.is_from, place.is_to),
                Direction::Back => ([ways[1], ways[0]], place.is_to, place.is_from),
            };
            Stand {
                post: Post::at(&mission.job, place.server.clone(), upstream, means.clone()),
                means,
                server: place.server,
                is_old,
                is_new,
                gives,
                takes,
            }
        });
        let stands = stands.collect();
        Self {
            mission,
            direction,
            stands,
            users,
        }
    }

    /// No posts yet.
    pub fn nowhere(mission: Mission) -> Self {
        Self {
            mission,
            direction: Direction::Forward,
            users: None,
            stands: Vec::new(),
        }
    }

    /// From here on it is the new layout that can be left.
    pub fn turn_round(&mut self) {
        self.direction = Direction::Back;
    }

    /// What the sources have in common.
    pub fn level(&self) -> FenceLevel {
        let sources: Vec<_> = self.sources().collect();
        let all = |is: fn(&Means) -> bool| {
            !sources.is_empty() && sources.iter().all(|stand| is(&stand.means))
        };
        if self.users.is_some() && all(|means| matches!(means, Means::Users(_))) {
            FenceLevel::Acl
        } else if all(|means| matches!(means, Means::MinReplicas(_))) {
            FenceLevel::MinReplicas
        } else {
            FenceLevel::ProxiesOnly
        }
    }

    /// Whether users were made, or may have been.
    pub fn have_users(&self) -> bool {
        self.users.is_some()
    }

    /// What the sources are to be set to again, where settings are their fence.
    pub fn settings(&self) -> Vec<KeptSettings> {
        let sources = self.sources().filter_map(|stand| match &stand.means {
            Means::MinReplicas(settings) => Some(KeptSettings {
                server: stand.server.to_string(),
                settings: settings.clone(),
            }),
            _ => None,
        });
        match self.level() {
            FenceLevel::MinReplicas => sources.collect(),
            FenceLevel::Acl | FenceLevel::ProxiesOnly => Vec::new(),
        }
    }

    fn sources(&self) -> impl Iterator<Item = &Stand> {
        let direction = self.direction;
        self.stands
            .iter()
            .filter(move |stand| stand.is_source(direction))
    }

    fn fence_key(&self) -> String {
        RouteRecord::fence_key(&self.mission.pool)
    }

    /// What the fence key says where nothing is fenced now: after the switch, old
    /// shards go on to keep off who is at the epoch before.
    fn resting_fence(&self, stand: &Stand) -> Option<String> {
        let is_left = self.direction == Direction::Back && stand.is_old;
        is_left.then(|| self.mission.fence_value(Direction::Forward))
    }

    /// Whose posts these are.
    pub fn mission(&self) -> &Mission {
        &self.mission
    }

    /// Makes the users of the epochs, with the rights they are to have before a
    /// switch in this direction. An earlier process may have ended before its fence was
    /// down. Where settings are the fence this shows whether they can be set.
    ///
    /// # Errors
    /// The first server that does not let us.
    pub fn man(&self) -> impl Future<Output = Result<(), PostError>> + Send + use<> {
        all(self.manned().into_iter().map(|(_, kept)| kept).collect())
    }

    /// The same; only the sources are waited for.
    ///
    /// # Errors
    /// The first of them that does not let us.
    pub fn man_sources(&self) -> impl Future<Output = Result<(), PostError>> + Send + use<> {
        let manned = self.manned().into_iter();
        let sources = manned.filter(|(is_source, _)| *is_source);
        all(sources.map(|(_, kept)| kept).collect())
    }

    fn manned(&self) -> Vec<(bool, Answer<()>)> {
        let manned = self.stands.iter().map(|stand| {
            let mut wanted = Wanted::default();
            if let Some(users) = &self.users {
                let is_back = self.direction == Direction::Back;
                if stand.is_old {
                    let rights = if is_back {
                        Rights::Fenced
                    } else {
                        Rights::Open
                    };
                    wanted.add(&users.old, rights);
                    if is_back {
                        wanted.add(&users.back, Rights::Open);
                    }
                }
                if stand.is_new {
                    wanted.add(&users.new, Rights::Open);
                }
                if stand.is_source(self.direction) {
                    wanted
                        .keys
                        .insert(self.fence_key(), self.resting_fence(stand));
                }
            }
            if matches!(stand.means, Means::MinReplicas(_)) && stand.is_source(self.direction) {
                wanted.writes = Some(Rights::Open);
            }
            let kept = stand.post.keep(wanted, Patience::For(MAN_PATIENCE));
            (stand.is_source(self.direction), kept)
        });
        manned.collect()
    }

    /// As whom proxies log in during the epoch that is left, and the one that comes.
    pub fn logins(&self) -> (Vec<ShardLogin>, Vec<ShardLogin>) {
        let Some(users) = &self.users else {
            return (Vec::new(), Vec::new());
        };
        let direction = self.direction;
        let logins = |user: &EpochUser, is_in: &dyn Fn(&Stand) -> bool| {
            let able = self.stands.iter().filter(|stand| stand.has_users());
            able.filter(|stand| is_in(stand))
                .map(|stand| ShardLogin {
                    addr: stand.server.to_string(),
                    user: user.name.clone(),
                    password: user.password.clone(),
                })
                .collect()
        };
        (
            logins(users.leaving(direction), &|stand| {
                stand.is_source(direction)
            }),
            logins(users.coming(direction), &|stand| stand.is_target(direction)),
        )
    }

    /// Where a cut hands its markers, and the fence that goes up with them.
    pub fn raise(
        &self,
        is_wanted: &watch::Receiver<bool>,
    ) -> (
        mpsc::Sender<Herald>,
        impl Future<Output = Result<(), PostError>> + Send + use<'_>,
    ) {
        let (heralds, mut taken) = mpsc::channel(HERALDS_MAX);
        let is_wanted = is_wanted.clone();
        let raised = async move {
            let mut answers = Vec::new();
            while let Some(herald) = taken.recv().await {
                answers.extend(self.raise_at(herald, is_wanted.clone()));
            }
            all(answers).await
        };
        (heralds, raised)
    }

    fn raise_at(&self, herald: Herald, is_wanted: watch::Receiver<bool>) -> Option<Answer<()>> {
        let mut stands = self.stands.iter();
        let stand = stands.find(|stand| stand.server == herald.source)?;
        let users = self.users.as_ref();
        Some(stand.post.raise(Raise {
            user: users.map(|users| users.leaving(self.direction).clone()),
            key: (self.fence_key(), self.mission.fence_value(self.direction)),
            marker: (herald.channel.to_vec(), herald.message),
            is_wanted,
        }))
    }

    /// Gives the leaving epoch's user its rights back everywhere. It is done whether
    /// the future is awaited or not, as soon as each server is there.
    pub fn lower(&self) -> impl Future<Output = Result<(), PostError>> + Send + use<> {
        let level = self.level();
        let sources = self.sources().map(|stand| {
            let mut wanted = Wanted::default();
            match (&self.users, level) {
                (Some(users), FenceLevel::Acl) => {
                    wanted.add(users.leaving(self.direction), Rights::Open);
                }
                (_, FenceLevel::MinReplicas) => wanted.writes = Some(Rights::Open),
                _ => {}
            }
            wanted
                .keys
                .insert(self.fence_key(), self.resting_fence(stand));
            stand.post.keep(wanted, Patience::Endless)
        });
        let answers = match level {
            FenceLevel::ProxiesOnly => Vec::new(),
            FenceLevel::Acl | FenceLevel::MinReplicas => sources.collect(),
        };
        all(answers)
    }

    /// A fence of settings ends with the switch: from here on nobody has the route
    /// before, and the way back writes. The sources get the route record now.
    ///
    /// # Errors
    /// The first server that has not done it in time; it will, as long as we are here.
    pub async fn lift(&self, record: &str) -> Result<(), PostError> {
        let deadline = Instant::now() + DISCHARGE_WAIT;
        let sources = self.sources();
        let fenced = sources.filter(|stand| matches!(stand.means, Means::MinReplicas(_)));
        let asked: Vec<_> = fenced
            .map(|stand| {
                let mut wanted = Wanted {
                    writes: Some(Rights::Open),
                    ..Wanted::default()
                };
                let key = RouteRecord::key(&self.mission.pool);
                wanted.keys.insert(key, Some(record.to_owned()));
                stand.post.keep(wanted, Patience::Endless)
            })
            .collect();
        all_by(asked, deadline).await
    }

    /// Writes the route record everywhere; resolves when the first server has it.
    /// The others get it all the same. Late proxies may log in to read it, be it
    /// on a server that was restarted.
    pub fn keep_route(&self, record: &str) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = JoinSet::new();
        for stand in &self.stands {
            // It takes none yet, see `lift`.
            let is_source = stand.is_source(self.direction);
            if is_source && matches!(stand.means, Means::MinReplicas(_)) {
                continue;
            }
            let mut wanted = Wanted::default();
            let key = RouteRecord::key(&self.mission.pool);
            wanted.keys.insert(key, Some(record.to_owned()));
            if let Some(users) = &self.users {
                if is_source {
                    wanted.add(users.leaving(self.direction), Rights::Fenced);
                    let value = self.mission.fence_value(self.direction);
                    wanted.keys.insert(self.fence_key(), Some(value));
                }
                if stand.is_target(self.direction) {
                    wanted.add(users.coming(self.direction), Rights::Open);
                }
            }
            asked.spawn(stand.post.keep(wanted, Patience::Endless).done());
        }
        async move {
            while let Some(kept) = asked.join_next().await {
                match kept {
                    Ok(Ok(())) => {
                        asked.detach_all();
                        return;
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "the route record is not there"),
                    Err(_) => {}
                }
            }
            std::future::pending().await
        }
    }

    /// Writes the route record where it can be within a few seconds, or removes it.
    ///
    /// # Errors
    /// The first server that has not taken it.
    pub async fn say(&self, record: Option<&str>) -> Result<(), PostError> {
        let deadline = Instant::now() + DISCHARGE_WAIT;
        let asked = self.stands.iter().map(|stand| {
            let mut wanted = Wanted::default();
            let key = RouteRecord::key(&self.mission.pool);
            wanted.keys.insert(key, record.map(str::to_owned));
            stand.post.keep(wanted, Patience::For(MAN_PATIENCE))
        });
        all_by(asked.collect(), deadline).await
    }

    /// Removes the users and every key of the job, and what keeps writes off.
    ///
    /// # Errors
    /// The first server that did not do it in time; the others have.
    pub async fn discharge(&self) -> Result<(), PostError> {
        let deadline = Instant::now() + DISCHARGE_WAIT;
        let gone = Gone {
            users: match self.users {
                Some(_) => self.mission.user_names().to_vec(),
                None => Vec::new(),
            },
            keys: vec![self.fence_key(), RouteRecord::key(&self.mission.pool)],
        };
        let asked = self
            .stands
            .iter()
            .map(|stand| stand.post.forget(gone.clone()));
        all_by(asked.collect(), deadline).await
    }
}

impl Wanted {
    fn add(&mut self, user: &EpochUser, rights: Rights) {
        let name = user.name.clone();
        self.users.insert(name, (user.clone(), rights));
    }
}

/// Waits for all; the first failure, if there was one.
async fn all(answers: Vec<Answer<()>>) -> Result<(), PostError> {
    let mut failure = Ok(());
    for answer in answers {
        let done = answer.done().await;
        if failure.is_ok() {
            failure = done;
        }
    }
    failure
}

/// The same, but none is waited for longer than until `deadline`.
async fn all_by(answers: Vec<Answer<()>>, deadline: Instant) -> Result<(), PostError> {
    let mut failure = Ok(());
    for answer in answers {
        let done = answer.done_by(deadline).await;
        if failure.is_ok() {
            failure = done;
        }
    }
    failure
}
