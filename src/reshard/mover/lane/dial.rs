//! Getting a lane's connection, at the start and after one was lost.
//!
//! ```text
//! connect -> end older connections of this lane -> take its name -> read the checkpoint
//! ```
//!
//! What was sent on a connection that broke may still lie in its socket, where
//! the server would execute it after we have looked at the checkpoint. So the
//! old one is ended by the server first: from there on the checkpoint stands.

use crate::resp::Value;
use crate::upstream::config::UpstreamConfig;

use super::super::checkpoint::{Checkpoint, checkpoint_key};
use super::super::config::MoverLimits;
use super::super::conflict::{Ended, end_connections, lane_name};
use super::super::error::{MoveError, Role};
use super::super::link::{Link, Patience};
use super::super::placement::SourceIndex;
use super::LaneNames;

const CHECKPOINT: &str = "read the checkpoint (GET)";
const WRITE: &str = "write a checkpoint (MULTI, SET, EXEC)";

/// Dials the target of one lane.
#[derive(Debug, Clone)]
pub(in super::super) struct Dialer {
    names: LaneNames,
    upstream: UpstreamConfig,
    /// What the connection calls itself.
    name: String,
    /// Where the checkpoint is.
    key: Vec<u8>,
    limits: MoverLimits,
}

impl Dialer {
    pub(in super::super) fn new(
        names: LaneNames,
        upstream: UpstreamConfig,
        (job, source): (&str, SourceIndex),
        limits: MoverLimits,
    ) -> Dialer {
        Dialer {
            names,
            upstream,
            name: format!("{}:{}", lane_name(job), source.0),
            key: checkpoint_key(job, source.0),
            limits,
        }
    }

    /// Where the checkpoint is.
    pub(in super::super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// A connection of this lane, and whether it is the only one for sure.
    pub(in super::super) async fn connect(&self) -> Result<(Link, Ended), MoveError> {
        let mut link = Link::connect(Role::Target, &self.names.target, &self.upstream).await?;
        let is_ours = |name: &str| name == self.name;
        let mut ended = end_connections(&mut link, is_ours).await?;
        let name = self.name.as_bytes();
        let named = link
            .allowed("name the connection", &[b"CLIENT", b"SETNAME", name])
            .await?;
        if let Value::Error(_) = named {
            ended = Ended::Unknown;
        }
        Ok((link, ended))
    }

    /// The checkpoint that the target holds; `None` if there is none, or none
    /// that we understand.
    pub(in super::super) async fn checkpoint(
        &self,
        link: &mut Link,
    ) -> Result<Option<Checkpoint>, MoveError> {
        let found = link.call(CHECKPOINT, &[b"GET", &self.key]).await?;
        Ok(found.as_bytes().and_then(Checkpoint::parse))
    }

    /// Puts a checkpoint where there is none, or one of another copy.
    pub(in super::super) async fn write(
        &self,
        link: &mut Link,
        checkpoint: &Checkpoint,
    ) -> Result<(), MoveError> {
        let text = checkpoint.text();
        link.call(WRITE, &[b"MULTI"]).await?;
        link.call(WRITE, &[b"SET", &self.key, text.as_bytes()])
            .await?;
        link.call(WRITE, &[b"EXEC"]).await?;
        Ok(())
    }

    /// A new connection after one was lost, and how far its target is; dialed
    /// with patience.
    ///
    /// # Errors
    /// The last error once patience is over, or one that does not pass.
    pub(super) async fn again(
        &self,
        lost: MoveError,
    ) -> Result<(Link, Option<Checkpoint>), MoveError> {
        let mut patience = Patience::of_ms(self.limits.target_patience_ms);
        let mut error = lost;
        loop {
            if !patience.pause_after(&error).await {
                return Err(error);
            }
            match self.once_more().await {
                Ok(dialed) => return Ok(dialed),
                Err(again) => error = again,
            }
        }
    }

    async fn once_more(&self) -> Result<(Link, Option<Checkpoint>), MoveError> {
        let (mut link, ended) = self.connect().await?;
        if ended == Ended::Unknown {
            return Err(link.answered(
                "end the connection that broke (CLIENT LIST, CLIENT KILL)",
                b"it does not let us, so what it may still execute of that one cannot be known: let our user run CLIENT, then start the job again",
            ));
        }
        let found = self.checkpoint(&mut link).await?;
        Ok((link, found))
    }
}
