//! What the posts are asked: what a dead process left, who goes round the proxies,
//! who still waits at an old shard.

use std::time::Duration;

use super::post::{CONNECTION_NAME, PostError};
use super::stand::Stand;
use super::waiters::Waiters;
use super::{Fences, all};
use crate::reshard::bypass::{Bypass, bypassing};
use crate::reshard::fence::words;
use crate::reshard::lookout::Watched;
use crate::reshard::record::Direction;
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::route_record::RouteRecord;

/// Longest wait for one server's list of connections.
const LIST_WAIT: Duration = Duration::from_secs(2);

/// How connections of the job and of its proxies are told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNames {
    /// Users of proxies.
    pub users: [String; 3],
    /// What names of our connections begin with.
    pub prefix: &'static str,
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

impl Fences {
    /// What the servers say of a switch that a dead process left.
    pub async fn remains(&self) -> Remains {
        let mut remains = Remains::default();
        let (fence, route) = (
            RouteRecord::fence_key(&self.mission.pool),
            RouteRecord::key(&self.mission.pool),
        );
        let users = self.users.as_ref();
        let leaving = users.map(|users| users.leaving(self.direction).name.clone());
        let fence_value = self.mission.fence_value(self.direction);
        let asked: Vec<_> = self
            .stands
            .iter()
            .map(|stand| {
                let mut requests = vec![words(&["GET", &route]), words(&["GET", &fence])];
                if let Some(leaving) = leaving.as_ref().filter(|_| stand.has_users()) {
                    requests.push(words(&["ACL", "GETUSER", leaving]));
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
            let is_fenced = text(1) == Some(fence_value.as_bytes());
            // A user that is not known is refused as well.
            let is_known = matches!(replies.get(2), Some(Value::Array(_) | Value::Map(_)));
            remains.is_open |= stand.is_cut(self.direction) && is_known && !is_fenced;
        }
        remains
    }

    fn is_our_route(&self, record: &[u8]) -> bool {
        let record = RouteRecord::parse(&self.mission.pool, record);
        record.is_ok_and(|record| {
            record.job == self.mission.job
                && record.epoch == self.mission.coming_epoch(self.direction)
        })
    }

    /// Who wrote round the proxies in the last `recent_s` seconds; only logins tell.
    pub async fn bypassing(&self, recent_s: u64) -> Vec<Bypass> {
        if self.users.is_none() {
            return Vec::new();
        }
        let own = self.own_names();
        let lists = self.client_lists().await;
        lists
            .iter()
            .flat_map(|(server, list)| bypassing(server, list, &own, recent_s))
            .collect()
    }

    /// Where the fence of the switch to the new layout is, and who may write there.
    pub fn watched(&self) -> Option<Watched> {
        self.users.as_ref()?;
        let cut = |stand: &&Stand| stand.is_cut(Direction::Forward);
        let cut = self.stands.iter().filter(cut);
        Some(Watched {
            servers: cut.map(|stand| stand.server.clone()).collect(),
            own: self.own_names(),
        })
    }

    pub(super) fn own_names(&self) -> OwnNames {
        OwnNames {
            users: self.mission.user_names(),
            prefix: CONNECTION_NAME.split(':').next().unwrap_or_default(),
        }
    }

    /// Ends what clients of late proxies still wait for on old shards of a job that
    /// has switched; resolves when every old shard has done it.
    pub fn wake(&self) -> impl Future<Output = Result<(), PostError>> + Send + use<> {
        let own = self.own_names();
        let old = self.stands.iter().filter(|stand| stand.is_old);
        let woken = old.filter_map(|stand| {
            let whose = match (stand.has_users(), stand.is_new) {
                (true, _) => Waiters::Of(self.mission.old_user()),
                (false, false) => Waiters::All,
                // Every proxy confirmed its switch; who waits there waits for what stays.
                (false, true) => return None,
            };
            Some(stand.post.wake(whose, own.clone()))
        });
        all(woken.collect())
    }

    /// Text of CLIENT LIST of each source that gives keys and answers.
    async fn client_lists(&self) -> Vec<(ShardAddress, String)> {
        let cut = self.sources().filter(|stand| stand.is_cut(self.direction));
        let asked: Vec<_> = cut
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
}
