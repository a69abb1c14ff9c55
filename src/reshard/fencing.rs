//! The job's posts at all servers of both layouts, and what they do together.
//!
//! ```text
//! look   what each server allows                     -> the level (fence.rs)
//! man    users of both epochs, open                  -> proxies log in as the old one's
//! raise  the old one's rights end, with the marker   <- way back: lower
//! keep_route  the decision, for proxies that are away; there is no way back
//! discharge   users and keys leave                   (complete, cancel)
//! ```
//! Invariant: what was ordered at one server is carried out in that order, by
//! one task (`fencing/post.rs`); a fence is lowered only while no commit was sent.

mod post;
mod sight;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::bypass::{Bypass, bypassing};
use super::fence::{EpochUser, FenceLevel, Rights, fence_value, user_name, words};
use super::mover::Herald;
use super::proxies::ShardLogin;
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::moves::Moves;
use crate::router::route_record::RouteRecord;
use crate::upstream::config::{Secret, UpstreamConfig};

pub use post::PostError;
pub use sight::{FencePlan, FenceRow, Seen, Sight, look, plan};

use post::{Answer, CONNECTION_NAME, Gone, Post, Raise, Wanted};

/// Markers on their way to the posts; one a source, as they are taken at once.
const HERALDS_MAX: usize = 64;

/// Whose posts these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mission {
    /// The pool.
    pub pool: String,
    /// The job.
    pub job: String,
    /// Epoch of the new layout.
    pub epoch: u64,
}

impl Mission {
    fn old_epoch(&self) -> u64 {
        self.epoch.saturating_sub(1)
    }

    /// Name of the user whose rights end at the switch.
    pub fn old_user(&self) -> String {
        user_name(&self.pool, self.old_epoch())
    }

    /// Name of the user that the new layout is served as.
    pub fn new_user(&self) -> String {
        user_name(&self.pool, self.epoch)
    }
}

/// The users of both epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// The one whose rights end at the switch.
    pub old: EpochUser,
    /// The one that the new layout is served as.
    pub new: EpochUser,
}

/// Our posts, and how far the job's fence goes.
#[derive(Debug)]
pub struct Fences {
    mission: Mission,
    level: FenceLevel,
    users: Option<Users>,
    stands: Vec<Stand>,
}

#[derive(Debug)]
struct Stand {
    server: ShardAddress,
    is_old: bool,
    is_new: bool,
    /// Keys may leave it: the fence goes up there.
    is_source: bool,
    /// Epoch users can be made there.
    has_users: bool,
    post: Post,
}

/// What the servers say of a switch that a dead process left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Some old shard takes the old epoch's writes.
    pub is_open: bool,
    /// Some server has the decided route.
    pub has_route: bool,
    /// Servers that did not answer.
    pub silent: Vec<ShardAddress>,
}

/// Servers of both layouts, each once: whether it is in the old one and in the new one.
pub fn servers(moves: &Moves) -> Vec<(ShardAddress, bool, bool)> {
    let address = |shards: &[crate::router::layout::Shard]| -> BTreeSet<ShardAddress> {
        shards.iter().map(|shard| shard.address.clone()).collect()
    };
    let (old, new) = (address(moves.from().shards()), address(moves.to().shards()));
    old.union(&new)
        .map(|server| (server.clone(), old.contains(server), new.contains(server)))
        .collect()
}

impl Fences {
    /// Posts at every server; nothing is written yet. `sights` say what each allows;
    /// without `users` there is no fence.
    pub fn at(
        mission: Mission,
        moves: &Moves,
        upstream: &UpstreamConfig,
        sights: &[Sight],
        users: Option<Users>,
    ) -> Self {
        let stands = servers(moves).into_iter().map(|(server, is_old, is_new)| {
            let sight = sights.iter().find(|sight| sight.server == server);
            let rules = sight.and_then(Sight::rules).filter(|_| users.is_some());
            Stand {
                has_users: rules.is_some(),
                post: Post::at(server.clone(), upstream, rules.cloned()),
                is_source: is_old && moves.may_give(&server),
                server,
                is_old,
                is_new,
            }
        });
        let level = match users {
            Some(_) => FenceLevel::Acl,
            None => FenceLevel::ProxiesOnly,
        };
        Self {
            mission,
            level,
            stands: stands.collect(),
            users,
        }
    }

    /// No posts yet.
    pub fn nowhere(mission: Mission) -> Self {
        Self {
            mission,
            level: FenceLevel::ProxiesOnly,
            users: None,
            stands: Vec::new(),
        }
    }

    /// What the sources have in common.
    pub fn level(&self) -> FenceLevel {
        self.level
    }

    /// Whose posts these are.
    pub fn mission(&self) -> &Mission {
        &self.mission
    }

    /// Makes the users of both epochs, with all rights.
    ///
    /// # Errors
    /// The first server that does not let us.
    pub fn man(&self) -> impl Future<Output = Result<(), PostError>> + Send + use<> {
        let kept = self.users.iter().flat_map(|users| {
            self.stands.iter().map(|stand| {
                let mut wanted = Wanted::default();
                if stand.is_old {
                    wanted.add(&users.old, Rights::Open);
                    // An earlier process may have ended before its fence was down.
                    let key = RouteRecord::fence_key(&self.mission.pool);
                    wanted.keys.insert(key, None);
                }
                if stand.is_new {
                    wanted.add(&users.new, Rights::Open);
                }
                stand.post.keep(wanted)
            })
        });
        all(kept.collect())
    }

    /// The users of both epochs after the switch: the old one fenced. Nobody waits
    /// for it.
    pub fn man_switched(&self) {
        let Some(users) = &self.users else {
            return;
        };
        for stand in &self.stands {
            let mut wanted = Wanted::default();
            if stand.is_old {
                wanted.add(&users.old, Rights::Fenced);
            }
            if stand.is_new {
                wanted.add(&users.new, Rights::Open);
            }
            drop(stand.post.keep(wanted));
        }
    }

    /// As whom proxies log in during the old epoch, and during the new one.
    pub fn logins(&self) -> (Vec<ShardLogin>, Vec<ShardLogin>) {
        let Some(users) = &self.users else {
            return (Vec::new(), Vec::new());
        };
        let logins = |user: &EpochUser, is_in: fn(&Stand) -> bool| {
            let able = self.stands.iter().filter(|stand| stand.has_users);
            able.filter(|stand| is_in(stand))
                .map(|stand| ShardLogin {
                    addr: stand.server.to_string(),
                    user: user.name.clone(),
                    password: user.password.clone(),
                })
                .collect()
        };
        (
            logins(&users.old, |stand| stand.is_old),
            logins(&users.new, |stand| stand.is_new),
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
        let users = self.users.as_ref()?;
        let mut stands = self.stands.iter();
        let stand = stands.find(|stand| stand.server == herald.source)?;
        Some(stand.post.raise(Raise {
            user: users.old.clone(),
            key: (
                RouteRecord::fence_key(&self.mission.pool),
                self.fence_value(),
            ),
            marker: (herald.channel.to_vec(), herald.message),
            is_wanted,
        }))
    }

    fn fence_value(&self) -> String {
        fence_value(&self.mission.job, self.mission.old_epoch())
    }

    /// Gives the old epoch's user its rights back everywhere. It is done whether
    /// the future is awaited or not, as soon as each server is there.
    pub fn lower(&self) -> impl Future<Output = Result<(), PostError>> + Send + use<> {
        let answers: Vec<_> = match &self.users {
            Some(users) => self
                .stands
                .iter()
                .filter(|stand| stand.is_old)
                .map(|stand| {
                    let mut wanted = Wanted::default();
                    wanted.add(&users.old, Rights::Open);
                    wanted
                        .keys
                        .insert(RouteRecord::fence_key(&self.mission.pool), None);
                    stand.post.keep(wanted)
                })
                .collect(),
            None => Vec::new(),
        };
        all(answers)
    }

    /// Writes the route record everywhere; resolves when the first server has it.
    /// The others get it all the same. Late proxies may log in to read it, be it
    /// on a server that was restarted.
    pub fn keep_route(&self, record: &str) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = JoinSet::new();
        for stand in &self.stands {
            let mut wanted = Wanted::default();
            let key = RouteRecord::key(&self.mission.pool);
            wanted.keys.insert(key, Some(record.to_owned()));
            if let Some(users) = &self.users {
                if stand.is_old {
                    wanted.add(&users.old, Rights::Fenced);
                    let key = RouteRecord::fence_key(&self.mission.pool);
                    wanted.keys.insert(key, Some(self.fence_value()));
                }
                if stand.is_new {
                    wanted.add(&users.new, Rights::Open);
                }
            }
            asked.spawn(stand.post.keep(wanted).done());
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

    /// What the servers say of a switch that a dead process left.
    pub async fn remains(&self) -> Remains {
        let mut remains = Remains::default();
        let (fence, route) = (
            RouteRecord::fence_key(&self.mission.pool),
            RouteRecord::key(&self.mission.pool),
        );
        let old_user = self.mission.old_user();
        let asked: Vec<_> = self
            .stands
            .iter()
            .map(|stand| {
                let mut requests = vec![words(&["GET", &route]), words(&["GET", &fence])];
                if stand.has_users {
                    requests.push(words(&["ACL", "GETUSER", &old_user]));
                }
                (stand, stand.post.ask(requests))
            })
            .collect();
        for (stand, answer) in asked {
            let Ok(replies) = answer.done().await else {
                remains.silent.push(stand.server.clone());
                continue;
            };
            let text = |at: usize| replies.get(at).and_then(Value::as_bytes);
            remains.has_route |= text(0).is_some_and(|record| self.is_our_route(record));
            let is_fenced = text(1) == Some(self.fence_value().as_bytes());
            // A user that is not known is refused as well.
            let is_known = matches!(replies.get(2), Some(Value::Array(_) | Value::Map(_)));
            remains.is_open |= stand.is_source && is_known && !is_fenced;
        }
        remains
    }

    fn is_our_route(&self, record: &[u8]) -> bool {
        let record = RouteRecord::parse(&self.mission.pool, record);
        record.is_ok_and(|record| {
            record.job == self.mission.job && record.epoch == self.mission.epoch
        })
    }

    /// Who wrote round the proxies in the last `recent_s` seconds; only logins tell.
    pub async fn bypassing(&self, recent_s: u64) -> Vec<Bypass> {
        if self.users.is_none() {
            return Vec::new();
        }
        let own = OwnNames {
            users: [self.mission.old_user(), self.mission.new_user()],
            prefix: CONNECTION_NAME.split(':').next().unwrap_or_default(),
        };
        let lists = self.client_lists().await;
        lists
            .iter()
            .flat_map(|(server, list)| bypassing(server, list, &own, recent_s))
            .collect()
    }

    /// Text of CLIENT LIST of each shard that gives keys and answers.
    async fn client_lists(&self) -> Vec<(ShardAddress, String)> {
        let old = self.stands.iter().filter(|stand| stand.is_source);
        let asked: Vec<_> = old
            .map(|stand| {
                let list = vec![words(&["CLIENT", "LIST"])];
                (stand.server.clone(), stand.post.ask(list))
            })
            .collect();
        let mut lists = Vec::new();
        for (server, answer) in asked {
            // A server that is out of reach keeps its orders waiting.
            let answer = tokio::time::timeout(LIST_WAIT, answer.done()).await;
            let replies = answer.ok().and_then(Result::ok).unwrap_or_default();
            let text = replies.first().and_then(Value::as_bytes);
            if let Some(text) = text {
                lists.push((server, String::from_utf8_lossy(text).into_owned()));
            }
        }
        lists
    }

    /// Removes the users named and every key of the job.
    ///
    /// # Errors
    /// The first server that did not do it; the others have.
    pub async fn discharge(&self, users: &[String]) -> Result<(), PostError> {
        let gone = Gone {
            users: users.to_vec(),
            keys: vec![
                RouteRecord::fence_key(&self.mission.pool),
                RouteRecord::key(&self.mission.pool),
            ],
        };
        let asked = self
            .stands
            .iter()
            .map(|stand| stand.post.forget(gone.clone()));
        all(asked.collect()).await
    }
}

/// Longest wait for one server's list of connections.
const LIST_WAIT: Duration = Duration::from_secs(2);

/// How connections of the job and of its proxies are told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNames {
    /// Users of proxies.
    pub users: [String; 2],
    /// What names of our connections begin with.
    pub prefix: &'static str,
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

/// A password that nobody can guess: 256 bits of the system's randomness.
///
/// # Errors
/// The system has none.
pub fn new_password() -> std::io::Result<Secret> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(text))
}
