//! A session with a source or target whose errors name the server and the step.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{Blame, Session, SessionError, SessionReader, SessionWriter};

use super::config::{IDLE_PING_MS, SOURCE_PATIENCE_MS_MAX};
use super::error::{MoveError, Role, is_passing};

const IDLE_PING: Duration = Duration::from_millis(IDLE_PING_MS);

/// One connection for our own requests.
pub(super) struct Link {
    role: Role,
    server: ShardAddress,
    upstream: UpstreamConfig,
    reader: SessionReader,
    writer: SessionWriter,
    /// When the server was last heard.
    heard: Instant,
}

/// How long a server that is out of reach is waited for.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    began: Option<Instant>,
    pause: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience::of_ms(SOURCE_PATIENCE_MS_MAX)
    }
}

impl Patience {
    pub(super) fn of_ms(limit_ms: u64) -> Patience {
        Patience {
            limit: Duration::from_millis(limit_ms),
            began: None,
            pause: None,
        }
    }

    /// Waits before the next try; false when it is over, or when `error` is one
    /// that no other try can end without.
    pub(super) async fn pause_after(&mut self, error: &MoveError) -> bool {
        let passes = match error {
            MoveError::Link { cause, .. } => cause.blame() != Blame::Configuration,
            MoveError::Answer { reply, .. } => is_passing(reply),
            MoveError::LaneLost { .. } => true,
            _ => false,
        };
        match self.next_pause() {
            Some(pause) if passes => tokio::time::sleep(pause).await,
            _ => return false,
        }
        true
    }

    /// The pause before the next try; `None` when it is over.
    fn next_pause(&mut self) -> Option<Duration> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if began.elapsed() >= self.limit {
            return None;
        }
        let pause = self.pause.map_or(REDIAL_PAUSE_MIN, |pause| pause * 2);
        let pause = pause.min(REDIAL_PAUSE_MAX);
        self.pause = Some(pause);
        Some(pause)
    }
}

/// Pause before the first try to dial again; it doubles.
const REDIAL_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two tries.
const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Whether a link is still the connection it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// The same.
    Same,
    /// A new connection, in database 0.
    Renewed,
}

impl Link {
    pub(super) async fn connect(
        role: Role,
        server: &ShardAddress,
        upstream: &UpstreamConfig,
    ) -> Result<Link, MoveError> {
        let session = Session::connect(server, upstream).await;
        let session = session.map_err(|cause| broken(role, server, "connect", cause))?;
        let (reader, writer) = session.split();
        Ok(Link {
            role,
            server: server.clone(),
            upstream: upstream.clone(),
            reader,
            writer,
            heard: Instant::now(),
        })
    }

    /// Makes sure that a link which was idle for a while is alive, by dialing
    /// again if need be. No reply may be owed: then nothing is lost by it.
    pub(super) async fn keep(&mut self) -> Result<Kept, MoveError> {
        if self.heard.elapsed() < IDLE_PING {
            return Ok(Kept::Same);
        }
        match self.ask("keep the connection", &[b"PING"]).await {
            Ok(_) => Ok(Kept::Same),
            Err(error) => {
                self.revive(&mut Patience::default(), error).await?;
                Ok(Kept::Renewed)
            }
        }
    }

    /// After `error`: dials again, into database 0, until that works. What was
    /// under way may have been done or not.
    ///
    /// # Errors
    /// The last error, once patience is over or when dialing again is of no use.
    pub(super) async fn revive(
        &mut self,
        patience: &mut Patience,
        error: MoveError,
    ) -> Result<(), MoveError> {
        let mut error = error;
        loop {
            if !patience.pause_after(&error).await {
                return Err(error);
            }
            match Link::connect(self.role, &self.server, &self.upstream).await {
                Ok(link) => {
                    *self = link;
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }

    /// Waits for `work` and keeps the link meanwhile, which must be in database
    /// 0 and owed no reply.
    pub(super) async fn keep_until<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, MoveError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(IDLE_PING) => {
                    self.keep().await?;
                }
            }
        }
    }

    pub(super) fn server(&self) -> &ShardAddress {
        &self.server
    }

    /// The two directions, for a pipeline. All replies must have been read.
    pub(super) fn into_halves(self) -> (SessionReader, SessionWriter) {
        (self.reader, self.writer)
    }

    /// One request; an error reply is a value.
    pub(super) async fn ask(
        &mut self,
        step: &'static str,
        args: &[&[u8]],
    ) -> Result<Value, MoveError> {
        self.queue(args);
        self.flush(step).await?;
        self.read(step).await
    }

    /// One request that a server may not allow us: that is a value, an error that
    /// passes is none.
    pub(super) async fn allowed(
        &mut self,
        step: &'static str,
        args: &[&[u8]],
    ) -> Result<Value, MoveError> {
        match self.ask(step, args).await? {
            Value::Error(text) if is_passing(&String::from_utf8_lossy(&text)) => {
                Err(self.answered(step, &text))
            }
            value => Ok(value),
        }
    }

    /// One request that must succeed.
    pub(super) async fn call(
        &mut self,
        step: &'static str,
        args: &[&[u8]],
    ) -> Result<Value, MoveError> {
        match self.ask(step, args).await? {
            Value::Error(text) => Err(self.answered(step, &text)),
            value => Ok(value),
        }
    }

    /// One request whose reply is text, such as INFO.
    pub(super) async fn text(
        &mut self,
        step: &'static str,
        args: &[&[u8]],
    ) -> Result<String, MoveError> {
        let value = self.call(step, args).await?;
        let bytes = value.as_bytes().ok_or_else(|| self.odd(step))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Adds a request to those that `flush` sends.
    pub(super) fn queue(&mut self, args: &[&[u8]]) {
        self.writer.queue(args);
    }

    /// Adds requests that are already encoded.
    pub(super) fn queue_encoded(&mut self, requests: &[u8]) {
        self.writer.output().extend_from_slice(requests);
    }

    pub(super) async fn flush(&mut self, step: &'static str) -> Result<(), MoveError> {
        let flushed = self.writer.flush().await;
        flushed.map_err(|cause| broken(self.role, &self.server, step, cause))
    }

    /// The next reply; an error reply is a value.
    pub(super) async fn read(&mut self, step: &'static str) -> Result<Value, MoveError> {
        let reply = self.reader.read_reply().await;
        self.heard = Instant::now();
        reply.map_err(|cause| broken(self.role, &self.server, step, cause))
    }

    /// The next reply, which must be no error.
    pub(super) async fn read_ok(&mut self, step: &'static str) -> Result<Value, MoveError> {
        match self.read(step).await? {
            Value::Error(text) => Err(self.answered(step, &text)),
            value => Ok(value),
        }
    }

    /// The error for an error reply.
    pub(super) fn answered(&self, step: &'static str, text: &[u8]) -> MoveError {
        MoveError::Answer {
            role: self.role,
            server: self.server.clone(),
            step,
            reply: String::from_utf8_lossy(text).into_owned(),
        }
    }

    /// The error for a reply of an unexpected shape.
    pub(super) fn odd(&self, step: &'static str) -> MoveError {
        self.answered(step, b"a reply of an unexpected kind")
    }

    /// The error for a failed check.
    pub(super) fn refuse(&self, step: &'static str, why: impl Into<String>) -> MoveError {
        MoveError::Preflight {
            role: self.role,
            server: self.server.clone(),
            step,
            why: why.into(),
        }
    }
}

fn broken(role: Role, server: &ShardAddress, step: &'static str, cause: SessionError) -> MoveError {
    MoveError::Link {
        role,
        server: server.clone(),
        step,
        cause: Arc::new(cause),
    }
}

/// One `field:value` line of an INFO text.
pub(super) fn info_field<'t>(info: &'t str, field: &str) -> Option<&'t str> {
    info.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Server\r\nredis_version_x:1\r\nredis_version:7.0.15\r\n";
        assert_eq!(info_field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(info_field(info, "role"), None);
    }
}
