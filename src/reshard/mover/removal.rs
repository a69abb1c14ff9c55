//! Removing keys: on targets before a copy, on old servers after the switch.

use std::time::Duration;

use bytes::Bytes;

use std::sync::Arc;

use crate::router::address::ShardAddress;
use crate::router::moves::Moves;
use crate::upstream::config::UpstreamConfig;

use super::checkpoint::checkpoint_key;
use super::conflict::{end_old_lanes, is_unfinished};
use super::error::{MoveError, Role};
use super::keeper::way_back_key;
use super::keyspace::KeyWalk;
use super::link::Link;
use super::placement::{Place, Placement, SourceIndex, TargetIndex};
use super::source::pending_key;

const UNLINK: &str = "remove keys (UNLINK)";
/// Keys of one UNLINK.
const UNLINK_KEYS_MAX: usize = 256;

/// What a purge removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Each server that stays, with how many keys it lost.
    pub servers: Vec<(ShardAddress, u64)>,
}

impl PurgeReport {
    /// Keys removed on all servers.
    pub fn keys(&self) -> u64 {
        self.servers.iter().map(|(_, keys)| keys).sum()
    }
}

/// After the switch: removes, on every server that stays in the new layout, the
/// keys that were its own before and are no longer. Servers that leave keep
/// everything. `keys_per_s` spreads the work; `None`: as fast as it goes.
///
/// # Errors
/// The server and the step; what was removed stays removed, run it again.
pub async fn purge(
    moves: &Arc<Moves>,
    upstream: &UpstreamConfig,
    keys_per_s: Option<u64>,
) -> Result<PurgeReport, MoveError> {
    let placement = Placement::new(moves);
    let mut report = PurgeReport::default();
    for (index, server) in placement.sources().iter().enumerate() {
        if !placement.targets().contains(server) {
            continue;
        }
        let mut link = Link::connect(Role::Source, server, upstream).await?;
        let mut walk = KeyWalk::new(&mut link).await?;
        let mut removed = 0;
        while let Some(page) = walk.next(&mut link).await? {
            let moved = |key: &Bytes| {
                matches!(
                    placement.place(SourceIndex(index), page.db, key),
                    Place::Moves(_)
                )
            };
            let keys: Vec<Bytes> = page.keys.into_iter().filter(moved).collect();
            removed += keys.len() as u64;
            remove_keys(&mut link, &keys).await?;
            if let Some(rate) = keys_per_s {
                pause(keys.len(), rate).await;
            }
        }
        report.servers.push((server.clone(), removed));
    }
    Ok(report)
}

/// After a job was taken back: removes, on every server that it copied to, the keys
/// that its new layout would have had there. Before it copied there were none, or
/// those were removed.
///
/// # Errors
/// The server and the step; what was removed stays removed, run it again.
pub async fn remove_copies(
    moves: &Arc<Moves>,
    upstream: &UpstreamConfig,
    job: &str,
    keys_per_s: u64,
) -> Result<PurgeReport, MoveError> {
    let placement = Placement::new(moves);
    let mut report = PurgeReport::default();
    for (index, server) in placement.targets().iter().enumerate() {
        let mut link = Link::connect(Role::Target, server, upstream).await?;
        // A process that was killed may have left requests that are still to be executed.
        end_old_lanes(&mut link, job).await?;
        let mut walk = KeyWalk::new(&mut link).await?;
        let mut removed = 0;
        while let Some(page) = walk.next(&mut link).await? {
            let is_copy = |key: &Bytes| {
                placement.arrives_at(TargetIndex(index), key).is_some() || is_unfinished(job, key)
            };
            let keys: Vec<Bytes> = page.keys.into_iter().filter(is_copy).collect();
            removed += keys.len() as u64;
            remove_keys(&mut link, &keys).await?;
            pause(keys.len(), keys_per_s).await;
        }
        report.servers.push((server.clone(), removed));
    }
    Ok(report)
}

/// Spreads the work.
async fn pause(keys: usize, keys_per_s: u64) {
    let cost = keys as f64 / keys_per_s.max(1) as f64;
    tokio::time::sleep(Duration::from_secs_f64(cost)).await;
}

/// Removes what the jobs of these names noted on the servers of both layouts: how
/// far their lanes were, and where the way back began. For jobs that are over.
///
/// # Errors
/// The first server that failed; the others were cleaned all the same.
pub async fn remove_notes(
    moves: &Moves,
    upstream: &UpstreamConfig,
    jobs: &[&str],
) -> Result<(), MoveError> {
    let mut servers: Vec<&ShardAddress> = Vec::new();
    for shard in moves.from().shards().iter().chain(moves.to().shards()) {
        if !servers.contains(&&shard.address) {
            servers.push(&shard.address);
        }
    }
    let mut ended = Ok(());
    for server in &servers {
        let removed = async {
            let mut link = Link::connect(Role::Target, server, upstream).await?;
            for job in jobs {
                remove_checkpoints(&mut link, job, servers.len()).await?;
                let key = way_back_key(job);
                link.call("remove a note (DEL)", &[b"DEL", &key]).await?;
            }
            Ok(())
        };
        ended = ended.and(removed.await);
    }
    ended
}

/// Removes what `sources` lanes of a job wrote of their progress and of keys to be
/// read again, from a link in database 0.
pub(super) async fn remove_checkpoints(
    link: &mut Link,
    job: &str,
    sources: usize,
) -> Result<(), MoveError> {
    for source in 0..sources {
        let (checkpoint, pending) = (checkpoint_key(job, source), pending_key(job, source));
        link.call(
            "remove a checkpoint (DEL)",
            &[b"DEL", &checkpoint, &pending],
        )
        .await?;
    }
    Ok(())
}

/// Removes keys of the database the link is in; memory is freed in the
/// background where the server can.
pub(super) async fn remove_keys(link: &mut Link, keys: &[Bytes]) -> Result<(), MoveError> {
    let mut sent = 0;
    for chunk in keys.chunks(UNLINK_KEYS_MAX) {
        let mut args: Vec<&[u8]> = vec![b"UNLINK"];
        args.extend(chunk.iter().map(|key| &key[..]));
        link.queue(&args);
        sent += 1;
    }
    link.flush(UNLINK).await?;
    for _ in 0..sent {
        link.read_ok(UNLINK).await?;
    }
    Ok(())
}
