//! Where keys go, and who is there.
//!
//! Each server is asked for INFO once, before anything is sent: what a value
//! becomes depends on it. Members of a cluster are refused, since values are
//! built under names that hash to other slots.

use std::io::Read;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::rdbfile::source::Meter;
use crate::resp::Value;
use crate::restore::{Dialect, Overwrite, RestoreOptions, Restorer, ServerIdentity};
use crate::router::address::ShardAddress;
use crate::router::layout::{Layout, ShardIndex};
use crate::upstream::{Session, UpstreamConfig};

use super::error::LoadError;
use super::feeder::{Feeder, Outlet};
use super::lane::Lane;
use super::tally::{Report, Tally};
use super::{BUDGET_BYTES, LoadConfig, OnConflict, QUEUE_BATCHES_MAX};

/// One server, or several that share the keys.
#[derive(Clone, Debug)]
pub enum Destination {
    /// All keys.
    Server(ShardAddress),
    /// Each key to the shard that owns it.
    Layout(Arc<Layout>),
}

/// The servers of a destination, each once.
pub(super) struct Routes {
    layout: Option<Arc<Layout>>,
    /// Of each shard of the layout: its server.
    server_of_shard: Vec<usize>,
}

impl Destination {
    fn servers(&self) -> Result<(Vec<ShardAddress>, Routes), LoadError> {
        let layout = match self {
            Self::Server(address) => {
                let routes = Routes {
                    layout: None,
                    server_of_shard: Vec::new(),
                };
                return Ok((vec![address.clone()], routes));
            }
            Self::Layout(layout) => layout,
        };
        if !layout.is_deterministic() {
            return Err(LoadError::NotDeterministic);
        }
        let mut servers: Vec<ShardAddress> = Vec::new();
        let mut server_of_shard = Vec::new();
        for shard in layout.shards() {
            let known = servers.iter().position(|known| *known == shard.address);
            server_of_shard.push(known.unwrap_or_else(|| {
                servers.push(shard.address.clone());
                servers.len() - 1
            }));
        }
        let routes = Routes {
            layout: Some(Arc::clone(layout)),
            server_of_shard,
        };
        Ok((servers, routes))
    }
}

impl Routes {
    /// Position of the server that `key` goes to.
    pub(super) fn server(&self, key: &[u8]) -> usize {
        let Some(layout) = &self.layout else { return 0 };
        let ShardIndex(shard) = layout.owner(key);
        let server = self.server_of_shard.get(usize::from(shard));
        server.copied().unwrap_or(0)
    }
}

/// A target as it was found.
#[derive(Clone, Debug)]
pub struct TargetFacts {
    /// Its address.
    pub address: ShardAddress,
    /// Who it is.
    pub identity: ServerIdentity,
}

/// Everything is ready; nothing was changed yet.
pub struct Prepared {
    config: LoadConfig,
    routes: Routes,
    targets: Vec<(TargetFacts, Session)>,
}

/// Connects to every target and asks who it is.
///
/// # Errors
/// No connection, or nothing that can be loaded into.
pub async fn prepare(config: LoadConfig) -> Result<Prepared, LoadError> {
    let (servers, routes) = config.destination.servers()?;
    let mut targets = Vec::new();
    for address in servers {
        targets.push(look_at(&address, &config.upstream).await?);
    }
    Ok(Prepared {
        config,
        routes,
        targets,
    })
}

async fn look_at(
    address: &ShardAddress,
    upstream: &UpstreamConfig,
) -> Result<(TargetFacts, Session), LoadError> {
    let mut session = Session::connect(address, upstream).await?;
    let unfit = |why: String| LoadError::Unfit {
        target: address.clone(),
        why,
    };
    let reply = session.call(&[b"INFO"]).await?;
    let info = match &reply {
        Value::Error(text) => return Err(unfit(String::from_utf8_lossy(text).into_owned())),
        value => value.as_bytes().unwrap_or_default(),
    };
    let info = String::from_utf8_lossy(info);
    let says = |line: &str| info.lines().any(|known| known.trim_end() == line);
    if says("cluster_enabled:1") {
        return Err(unfit(
            "it is a member of a cluster; only servers that stand alone can be loaded into".into(),
        ));
    }
    if says("role:slave") {
        return Err(unfit("it is a replica; load into its master".to_owned()));
    }
    if says("loading:1") {
        return Err(unfit("it is loading its own data; wait for it".to_owned()));
    }
    let identity = ServerIdentity::of_info(&info)
        .ok_or_else(|| unfit("INFO states no version: no server we know".to_owned()))?;
    let facts = TargetFacts {
        address: address.clone(),
        identity,
    };
    Ok((facts, session))
}

impl Prepared {
    /// The targets, in the order of the layout.
    pub fn targets(&self) -> impl Iterator<Item = &TargetFacts> {
        self.targets.iter().map(|(facts, _)| facts)
    }

    /// Loads `input`. Whatever happens, the report says what was loaded until then.
    ///
    /// Runs on a multi-threaded runtime; the file is read on a thread of its own.
    pub async fn run(
        self,
        mut input: impl Read + Send + 'static,
        meter: Arc<Meter>,
    ) -> (Report, Result<(), LoadError>) {
        let tally = Arc::new(Tally::new(self.config.overflow));
        let (stopper, stop) = watch::channel(false);
        let mut lanes = JoinSet::new();
        let mut outlets = Vec::new();
        for (facts, session) in self.targets {
            let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
            let restorer = Restorer::new(Dialect::of(&facts.identity), options(&self.config));
            outlets.push(Outlet::new(facts.address.clone(), restorer, sender));
            let lane = Lane::new(
                facts.address,
                session,
                self.config.on_conflict,
                Arc::clone(&tally),
            );
            lanes.spawn(lane.run(receiver, stop.clone()));
        }
        let feeder = Feeder::new(
            self.config,
            self.routes,
            outlets,
            Arc::new(Semaphore::new(BUDGET_BYTES)),
            Arc::clone(&tally),
        );
        let feeding = tokio::task::spawn_blocking(move || feeder.feed(&mut input, &meter));
        let mut ended = Ok(());
        while let Some(lane) = lanes.join_next().await {
            let lane = lane.unwrap_or_else(|error| Err(LoadError::Task(error.to_string())));
            if lane.is_err() && ended.is_ok() {
                ended = lane;
                // Their queues close, which ends the feeder.
                let _ = stopper.send(true);
            }
        }
        let fed = feeding.await;
        let fed = fed.unwrap_or_else(|error| Err(LoadError::Task(error.to_string())));
        (tally.report(), ended.and(fed))
    }
}

fn options(config: &LoadConfig) -> RestoreOptions {
    let overwrite = match config.on_conflict {
        OnConflict::Replace => Overwrite::Always,
        OnConflict::Fail | OnConflict::Skip => Overwrite::Never,
    };
    let tag = config.tag.clone();
    if config.by_commands {
        RestoreOptions::commands_only(overwrite, tag)
    } else {
        RestoreOptions::new(overwrite, tag)
    }
}
