//! What a server allows: looked at before anything is changed there.

use serde::Serialize;
use tokio::task::JoinSet;

use super::post::settings;
use super::servers;
use crate::reshard::fence::{FenceChoice, FenceLevel, Rules};
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{Session, SessionError};

/// One server, as far as a fence is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Its address.
    pub server: ShardAddress,
    /// What it allows.
    pub seen: Seen,
}

/// What a server allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Epoch users can be made, with these rules.
    Acl(Rules),
    /// They cannot, for this reason.
    No(String),
    /// It did not answer.
    Silent(String),
}

impl Sight {
    /// What epoch users get there, where they can be made.
    pub fn rules(&self) -> Option<&Rules> {
        match &self.seen {
            Seen::Acl(rules) => Some(rules),
            Seen::No(_) | Seen::Silent(_) => None,
        }
    }

    /// How far a fence can go there.
    pub fn level(&self) -> FenceLevel {
        match &self.seen {
            Seen::Acl(_) => FenceLevel::Acl,
            Seen::No(_) | Seen::Silent(_) => FenceLevel::ProxiesOnly,
        }
    }

    /// Why no further.
    pub fn why(&self) -> Option<&str> {
        match &self.seen {
            Seen::Acl(_) => None,
            Seen::No(why) | Seen::Silent(why) => Some(why),
        }
    }
}

/// Looks at all of `servers` at once, changing nothing.
pub async fn look(servers: Vec<ShardAddress>, upstream: &UpstreamConfig) -> Vec<Sight> {
    let mut looking = JoinSet::new();
    for server in servers {
        let upstream = settings(upstream);
        looking.spawn(async move {
            let seen = match look_at(&server, &upstream).await {
                Ok(seen) => seen,
                Err(error) => Seen::Silent(error.to_string()),
            };
            Sight { server, seen }
        });
    }
    looking.join_all().await
}

async fn look_at(server: &ShardAddress, upstream: &UpstreamConfig) -> Result<Seen, SessionError> {
    let mut session = Session::connect(server, upstream).await?;
    let whoami = session.call(&[b"ACL", b"WHOAMI"]).await?;
    let user = match whoami.as_bytes() {
        Some(user) => String::from_utf8_lossy(user).into_owned(),
        None => return Ok(Seen::No(refusal("ACL WHOAMI", &whoami))),
    };
    let list = session.call(&[b"ACL", b"LIST"]).await?;
    let Value::Array(items) = list else {
        return Ok(Seen::No(refusal("ACL LIST", &list)));
    };
    let lines: Vec<_> = items
        .iter()
        .filter_map(Value::as_bytes)
        .map(String::from_utf8_lossy)
        .collect();
    Ok(match Rules::of(&user, lines.iter().map(AsRef::as_ref)) {
        Ok(rules) => Seen::Acl(rules),
        Err(error) => Seen::No(error.to_string()),
    })
}

fn refusal(asked: &str, reply: &Value) -> String {
    match reply {
        Value::Error(text) => format!("{asked}: {}", String::from_utf8_lossy(text)),
        _ => format!("{asked}: a reply of an unexpected kind"),
    }
}

/// What a fence would be, of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FencePlan {
    /// What the old shards have in common.
    pub level: FenceLevel,
    /// Each old shard.
    pub sources: Vec<FenceRow>,
}

/// One old shard of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FenceRow {
    /// Its address.
    pub addr: String,
    /// How far a fence can go there.
    pub level: FenceLevel,
    /// Why no further.
    pub why: Option<String>,
}

/// Asks every old shard how far a fence could go; changes nothing.
pub async fn plan(moves: &Moves, upstream: &UpstreamConfig, choice: FenceChoice) -> FencePlan {
    let old = servers(moves).into_iter().filter(|(_, is_old, _)| *is_old);
    let old: Vec<_> = old.map(|(server, ..)| server).collect();
    let mut sources: Vec<FenceRow> = match choice {
        FenceChoice::Proxies => old
            .iter()
            .map(|server| FenceRow {
                addr: server.to_string(),
                level: FenceLevel::ProxiesOnly,
                why: Some("--fence proxies".to_owned()),
            })
            .collect(),
        FenceChoice::Auto | FenceChoice::Acl => look(old, upstream)
            .await
            .into_iter()
            .map(|sight| FenceRow {
                addr: sight.server.to_string(),
                level: sight.level(),
                why: sight.why().map(str::to_owned),
            })
            .collect(),
    };
    sources.sort_by(|one, other| one.addr.cmp(&other.addr));
    let level = sources.iter().map(|row| row.level).min();
    FencePlan {
        level: level.unwrap_or_default(),
        sources,
    }
}
