//! Keepers: replicas that want nothing, one on each new shard, from before the
//! switch until the way back stands.
//!
//! ```text
//! attach -> keeping: every event is dropped -> ended
//!              `- position: MULTI, INFO, SET, EXEC -'
//! ```
//! A server that has no replica counts no offsets and keeps no backlog: without a
//! keeper there would be no place in its stream that the way back could begin at.
//! A keeper goes on where the stream is if there is a backlog, asks for a snapshot
//! of nothing where that exists (Redis 7.0), and drops a whole one elsewhere.
//!
//! Invariant: a position lies between two commands, and the command behind it is
//! our own SET in database 0: whatever was selected there, the database is known.
//! Keepers acknowledge nothing: no WAIT of a client counts them.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::replication::{ResumePoint, SnapshotWanted, Tap, TapConfig, TapEvent};
use crate::resp::Value;
use crate::restore::Dialect;
use crate::router::RESERVED_PREFIX;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;

use super::begin::Position;
use super::config::{SOURCE_PATIENCE_MS_MAX, TAP_REST};
use super::error::{MoveError, Role};
use super::feed::tap_error;
use super::link::{Link, info_field};
use super::start::dialect;

/// Longest time that all positions together may take: clients wait.
pub const POSITIONS_MS_MAX: u64 = 100;
/// Longest time that all keepers together may take to attach.
pub const ATTACH_MS_MAX: u64 = 60_000;

const STEP: &str = "attach a keeper";
const POSITION: &str = "take a position";

/// What servers before Redis 6.2 have put into their stream when INFO runs
/// inside a block: `MULTI` as it is sent there.
const MULTI_BYTES: u64 = "*1\r\n$5\r\nMULTI\r\n".len() as u64;

/// Where keepers attach.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// The servers, each once.
    pub shards: Vec<ShardAddress>,
    /// How to dial them.
    pub upstream: UpstreamConfig,
    /// The job's id.
    pub job: String,
}

/// Attached keepers; dropped, they let go.
#[derive(Debug, Default)]
pub struct Keepers(Vec<Keeper>);

#[derive(Debug)]
struct Keeper {
    requests: mpsc::Sender<oneshot::Sender<Position>>,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keepers {
    /// Attaches one to each server; returns when every one of them counts.
    ///
    /// # Errors
    /// The first that cannot attach, or [`MoveError::KeeperLate`].
    pub async fn attach(config: &KeeperConfig) -> Result<Keepers, MoveError> {
        let mut attaching = JoinSet::new();
        for shard in &config.shards {
            let (shard, upstream) = (shard.clone(), config.upstream.clone());
            let key = way_back_key(&config.job);
            attaching.spawn(async move { Keeper::attach(shard, &upstream, key).await });
        }
        let attached = async {
            let mut keepers = Vec::new();
            while let Some(joined) = attaching.join_next().await {
                keepers.push(joined.map_err(|error| MoveError::TaskLost {
                    task: STEP.to_owned(),
                    how: error.to_string(),
                })??);
            }
            Ok(Keepers(keepers))
        };
        let limit = Duration::from_millis(ATTACH_MS_MAX);
        timeout(limit, attached)
            .await
            .unwrap_or(Err(MoveError::KeeperLate {
                waited_ms: ATTACH_MS_MAX,
            }))
    }

    /// Where every stream is now, one round trip; empty when one did not say so
    /// within 100 ms.
    pub async fn positions(&self) -> Vec<Position> {
        let mut answers = Vec::new();
        for keeper in &self.0 {
            let (reply, answer) = oneshot::channel();
            // One that ended answers nothing.
            let _ = keeper.requests.try_send(reply);
            answers.push(answer);
        }
        let all = async {
            let mut positions = Vec::new();
            for answer in answers {
                positions.push(answer.await.ok()?);
            }
            Some(positions)
        };
        let limit = Duration::from_millis(POSITIONS_MS_MAX);
        timeout(limit, all).await.ok().flatten().unwrap_or_default()
    }
}

/// A keeper's connections.
struct Parts {
    shard: ShardAddress,
    link: Link,
    tap: Tap,
    dialect: Dialect,
    key: Vec<u8>,
}

impl Keeper {
    async fn attach(
        shard: ShardAddress,
        upstream: &UpstreamConfig,
        key: Vec<u8>,
    ) -> Result<Keeper, MoveError> {
        let mut link = Link::connect(Role::Target, &shard, upstream).await?;
        let dialect = dialect(&mut link).await?;
        let info = link.text(STEP, &[b"INFO", b"replication"]).await?;
        let config = TapConfig {
            snapshot: SnapshotWanted::Empty,
            two_sockets: false,
            rest: TAP_REST,
            patience: Duration::from_millis(SOURCE_PATIENCE_MS_MAX),
            ..TapConfig::new(shard.clone(), upstream.clone())
        };
        let resume = resume_point(&info);
        let tap = Tap::attach(config, resume).await;
        let mut tap = tap.map_err(|cause| tap_error(&shard, cause))?;
        loop {
            match tap.next().await {
                Ok(TapEvent::Continue { .. } | TapEvent::SnapshotEnd) => break,
                Ok(_) => {}
                Err(cause) => return Err(tap_error(&shard, cause)),
            }
        }
        let (requests, asked) = mpsc::channel(1);
        let parts = Parts {
            shard,
            link,
            tap,
            dialect,
            key,
        };
        let task = tokio::spawn(parts.keep(asked));
        Ok(Keeper { requests, task })
    }
}

impl Parts {
    async fn keep(mut self, mut asked: mpsc::Receiver<oneshot::Sender<Position>>) {
        let shard = self.shard.clone();
        if let Err(error) = self.serve(&mut asked).await {
            tracing::warn!(%shard, %error, "a keeper ended: the way back will copy everything");
        }
        self.tap.close().await;
    }

    async fn serve(
        &mut self,
        asked: &mut mpsc::Receiver<oneshot::Sender<Position>>,
    ) -> Result<(), MoveError> {
        loop {
            let (shard, tap) = (&self.shard, &mut self.tap);
            let due = async {
                loop {
                    tokio::select! {
                        biased;
                        request = asked.recv() => return Ok(request),
                        event = tap.next() => {
                            event.map_err(|cause| tap_error(shard, cause))?;
                        }
                    }
                }
            };
            let Some(reply) = self.link.keep_until(due).await?? else {
                return Ok(());
            };
            let position = self.position().await?;
            // Whoever asked may have lost patience.
            let _ = reply.send(position);
        }
    }

    async fn position(&mut self) -> Result<Position, MoveError> {
        let link = &mut self.link;
        link.queue(&[b"MULTI"]);
        link.queue(&[b"INFO", b"replication"]);
        link.queue(&[b"SET", &self.key, b"1"]);
        link.queue(&[b"EXEC"]);
        link.flush(POSITION).await?;
        for _ in 0..3 {
            link.read_ok(POSITION).await?;
        }
        let Value::Array(done) = link.read_ok(POSITION).await? else {
            return Err(link.odd(POSITION));
        };
        if let Some(Value::Error(text)) = done.get(1) {
            return Err(link.answered(POSITION, text));
        }
        let info = done.first().and_then(Value::as_bytes);
        let info = info.map(|info| String::from_utf8_lossy(info).into_owned());
        let point = info.as_deref().and_then(resume_point);
        let point = point.ok_or_else(|| link.odd(POSITION))?;
        let before_block = if self.dialect.speaks(6, 2) {
            0
        } else {
            MULTI_BYTES
        };
        Ok(Position {
            source: self.shard.clone(),
            replid: point.replid,
            offset: point.offset.saturating_sub(before_block),
            db: 0,
        })
    }
}

/// The key whose SET marks the place.
pub(super) fn way_back_key(job: &str) -> Vec<u8> {
    [RESERVED_PREFIX, b"rev:", job.as_bytes()].concat()
}

/// The stream's end, where a backlog is kept.
fn resume_point(info: &str) -> Option<ResumePoint> {
    let field = |name| info_field(info, name).map(str::trim);
    if field("repl_backlog_active") != Some("1") || field("role") != Some("master") {
        return None;
    }
    Some(ResumePoint {
        replid: field("master_replid")?.to_owned(),
        offset: field("master_repl_offset")?.parse().ok()?,
        db: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_master_with_a_backlog_has_a_place_to_begin_at() {
        let info = |role: &str, backlog: &str| {
            format!(
                "# Replication\r\nrole:{role}\r\nmaster_replid:abc\r\nmaster_repl_offset:42\r\nrepl_backlog_active:{backlog}\r\n"
            )
        };
        let point = resume_point(&info("master", "1")).unwrap();
        assert_eq!((point.replid.as_str(), point.offset), ("abc", 42));
        assert_eq!(resume_point(&info("master", "0")), None);
        assert_eq!(resume_point(&info("slave", "1")), None);
    }
}
