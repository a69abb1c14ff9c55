//! What a server allows: looked at before anything is changed there.

use serde::Serialize;
use tokio::task::JoinSet;

use super::post::{Means, settings};
use super::{Place, places};
use crate::reshard::fence::min_replicas::{MinReplicas, NAMES, Setting};
use crate::reshard::fence::{FenceChoice, FenceLevel, Rules};
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{Session, SessionError};

/// The first version that knows selectors.
const SELECTORS_SINCE: u32 = 7;

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
    /// They cannot, for this reason; but it can be kept from all writes.
    MinReplicas(MinReplicas, String),
    /// Neither, for this reason.
    No(String),
    /// It did not answer.
    Silent(String),
}

impl Sight {
    /// What it can be fenced with.
    pub fn means(&self) -> Means {
        match &self.seen {
            Seen::Acl(rules) => Means::Users(rules.clone()),
            Seen::MinReplicas(settings, _) => Means::MinReplicas(settings.clone()),
            Seen::No(_) | Seen::Silent(_) => Means::Keys,
        }
    }

    /// How far a fence can go there.
    pub fn level(&self) -> FenceLevel {
        match &self.seen {
            Seen::Acl(_) => FenceLevel::Acl,
            Seen::MinReplicas(..) => FenceLevel::MinReplicas,
            Seen::No(_) | Seen::Silent(_) => FenceLevel::ProxiesOnly,
        }
    }

    /// Why no further.
    pub fn why(&self) -> Option<&str> {
        match &self.seen {
            Seen::Acl(_) => None,
            Seen::MinReplicas(_, why) | Seen::No(why) | Seen::Silent(why) => Some(why),
        }
    }
}

/// How far a fence of all these can go: sources that differ are fenced like none of
/// them but with users.
pub fn level_of<'a>(sources: impl Iterator<Item = &'a Sight>) -> FenceLevel {
    let levels: Vec<_> = sources.map(Sight::level).collect();
    match levels.first() {
        Some(first) if levels.iter().all(|level| level == first) => *first,
        _ => FenceLevel::ProxiesOnly,
    }
}

/// Looks at all of `places` at once, changing nothing.
pub async fn look(places: Vec<Place>, upstream: &UpstreamConfig) -> Vec<Sight> {
    let mut looking = JoinSet::new();
    for place in places {
        let upstream = settings(upstream);
        looking.spawn(async move {
            let seen = match look_at(&place, &upstream).await {
                Ok(seen) => seen,
                Err(error) => Seen::Silent(error.to_string()),
            };
            Sight {
                server: place.server,
                seen,
            }
        });
    }
    looking.join_all().await
}

async fn look_at(place: &Place, upstream: &UpstreamConfig) -> Result<Seen, SessionError> {
    let mut session = Session::connect(&place.server, upstream).await?;
    let why = match rules_of(&mut session).await? {
        Ok(rules) => return Ok(Seen::Acl(rules)),
        Err(why) => why,
    };
    // Keys that stay there would be refused, too.
    if !place.leaves() {
        return Ok(Seen::No(why));
    }
    Ok(match replicas_of(&mut session).await? {
        Some(settings) => Seen::MinReplicas(settings, why),
        None => Seen::No(why),
    })
}

/// The rules of the pool's user, or why there can be no others with them.
async fn rules_of(session: &mut Session) -> Result<Result<Rules, String>, SessionError> {
    let whoami = session.call(&[b"ACL", b"WHOAMI"]).await?;
    let user = match whoami.as_bytes() {
        Some(user) => String::from_utf8_lossy(user).into_owned(),
        None => return Ok(Err(refusal("ACL WHOAMI", &whoami))),
    };
    let list = session.call(&[b"ACL", b"LIST"]).await?;
    let Value::Array(items) = list else {
        return Ok(Err(refusal("ACL LIST", &list)));
    };
    let lines: Vec<_> = items
        .iter()
        .filter_map(Value::as_bytes)
        .map(String::from_utf8_lossy)
        .collect();
    let info = session.call(&[b"INFO", b"server"]).await?;
    let rules = Rules::of(
        &user,
        lines.iter().map(AsRef::as_ref),
        knows_selectors(&info),
    );
    Ok(rules.map_err(|error| error.to_string()))
}

/// Valkey calls itself a Redis 7, for the sake of such questions.
fn knows_selectors(info: &Value) -> bool {
    let text = String::from_utf8_lossy(info.as_bytes().unwrap_or_default());
    let mut lines = text.lines();
    let version = lines.find_map(|line| line.strip_prefix("redis_version:"));
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= SELECTORS_SINCE)
}

async fn replicas_of(session: &mut Session) -> Result<Option<MinReplicas>, SessionError> {
    for names in NAMES {
        let mut found = Vec::new();
        for name in names {
            let reply = session.call(&[b"CONFIG", b"GET", name.as_bytes()]).await?;
            found.extend(setting(name, &reply));
        }
        if let Ok([to_write, max_lag]) = <[Setting; 2]>::try_from(found) {
            return Ok(Some(MinReplicas { to_write, max_lag }));
        }
    }
    Ok(None)
}

fn setting(name: &str, reply: &Value) -> Option<Setting> {
    let Value::Array(pair) = reply else {
        return None;
    };
    let value = pair.get(1)?.as_bytes()?;
    Some(Setting {
        name: name.to_owned(),
        value: String::from_utf8_lossy(value).into_owned(),
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
    let old: Vec<_> = places(moves).into_iter().filter(|at| at.is_from).collect();
    let (level, mut sources) = match choice {
        FenceChoice::Proxies => {
            let row = |place: &Place| FenceRow {
                addr: place.server.to_string(),
                level: FenceLevel::ProxiesOnly,
                why: Some("--fence proxies".to_owned()),
            };
            (FenceLevel::ProxiesOnly, old.iter().map(row).collect())
        }
        FenceChoice::Auto | FenceChoice::Acl => {
            let sights = look(old, upstream).await;
            let row = |sight: &Sight| FenceRow {
                addr: sight.server.to_string(),
                level: sight.level(),
                why: sight.why().map(str::to_owned),
            };
            let rows: Vec<_> = sights.iter().map(row).collect();
            (level_of(sights.iter()), rows)
        }
    };
    sources.sort_by(|one, other| one.addr.cmp(&other.addr));
    FencePlan { level, sources }
}
