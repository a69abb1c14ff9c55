//! A connection of our own to one shard, for the job: call and reply, or a
//! pipeline.
//!
//! ```text
//! connect: dial -> AUTH, both within connect_timeout
//! call:    queue + flush + read_reply
//! split:   SessionWriter (queue, flush) | SessionReader (read_reply), for two tasks
//! ```
//!
//! Replies come in the order of requests. A session that returned an error is
//! over: what was in flight has no known outcome. An error *reply* is no such
//! error, it is `Ok(Value::Error)`.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::config::{Credentials, UpstreamConfig};
use super::error::{SessionError, SessionErrorKind, SessionStep};
use super::socket::{ReadHalf, WriteHalf, dial};
use crate::resp::{ReplyScanner, Value, parse_value, write_command};
use crate::router::address::ShardAddress;

/// Bound of a wait where the configuration sets none: a session never waits for ever.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// One reply in memory; as large as the largest DUMP payload and its header.
const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Room made for each read.
const READ_BYTES: usize = 64 * 1024;

/// Output buffers above this are given back once they are sent.
const RETAINED_OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// A connection with both directions in one hand.
#[derive(Debug)]
pub struct Session {
    reader: SessionReader,
    writer: SessionWriter,
}

/// The receiving direction.
#[derive(Debug)]
pub struct SessionReader {
    half: ReadHalf,
    buffer: BytesMut,
    scanner: ReplyScanner,
    shared: Arc<Settings>,
}

/// The sending direction.
#[derive(Debug)]
pub struct SessionWriter {
    half: WriteHalf,
    out: Vec<u8>,
    shared: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    address: ShardAddress,
    request_timeout: Duration,
}

impl Settings {
    fn error(&self, step: SessionStep, kind: impl Into<SessionErrorKind>) -> SessionError {
        SessionError {
            address: self.address.clone(),
            step,
            kind: kind.into(),
        }
    }
}

impl Session {
    /// Connects and, where credentials are set, authenticates; both within
    /// `connect_timeout`.
    ///
    /// # Errors
    /// No connection, or credentials the shard refuses.
    pub async fn connect(
        address: &ShardAddress,
        config: &UpstreamConfig,
    ) -> Result<Session, SessionError> {
        let shared = Arc::new(Settings {
            address: address.clone(),
            request_timeout: config.request_timeout.unwrap_or(REQUEST_TIMEOUT_DEFAULT),
        });
        let limit = config.connect_timeout;
        let timed_out = |step| shared.error(step, SessionErrorKind::TimedOut(limit));
        let (read, write) = timeout(limit, dial(address, config.tcp_keepalive))
            .await
            .map_err(|_| timed_out(SessionStep::Connect))?
            .map_err(|error| shared.error(SessionStep::Connect, error))?;
        let mut session = Session {
            reader: SessionReader {
                half: read,
                buffer: BytesMut::new(),
                scanner: ReplyScanner::new(),
                shared: Arc::clone(&shared),
            },
            writer: SessionWriter {
                half: write,
                out: Vec::new(),
                shared: Arc::clone(&shared),
            },
        };
        if let Some(credentials) = &config.credentials {
            timeout(limit, session.authenticate(credentials))
                .await
                .map_err(|_| timed_out(SessionStep::Authenticate))??;
        }
        Ok(session)
    }

    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), SessionError> {
        let password = credentials.password.reveal().as_bytes();
        let reply = match &credentials.username {
            Some(user) => self.call(&[b"AUTH", user.as_bytes(), password]).await,
            None => self.call(&[b"AUTH", password]).await,
        };
        let step = SessionStep::Authenticate;
        match reply.map_err(|error| SessionError { step, ..error })? {
            Value::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                Err(self
                    .writer
                    .shared
                    .error(step, SessionErrorKind::AuthRefused(text)))
            }
            _ => Ok(()),
        }
    }

    /// The shard this session is connected to.
    #[must_use]
    pub fn address(&self) -> &ShardAddress {
        &self.writer.shared.address
    }

    /// Sends one request and waits for its reply. All replies of earlier
    /// queued requests must have been read.
    ///
    /// # Errors
    /// The connection failed; an error reply is `Ok(Value::Error)`.
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Value, SessionError> {
        self.queue(args);
        self.flush().await?;
        self.read_reply().await
    }

    /// Adds a request to the output.
    pub fn queue(&mut self, args: &[&[u8]]) {
        self.writer.queue(args);
    }

    /// Sends the output.
    ///
    /// # Errors
    /// The connection failed, or the shard took nothing within the timeout.
    pub async fn flush(&mut self) -> Result<(), SessionError> {
        self.writer.flush().await
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection failed, or no reply came within the timeout.
    pub async fn read_reply(&mut self) -> Result<Value, SessionError> {
        self.reader.read_reply().await
    }

    /// Takes the two directions apart, for a pipeline driven by two tasks.
    #[must_use]
    pub fn split(self) -> (SessionReader, SessionWriter) {
        (self.reader, self.writer)
    }
}

impl SessionReader {
    /// The next reply, waiting at most `request_timeout` for each piece of it.
    /// Cancel safe: what has arrived is kept.
    ///
    /// # Errors
    /// The connection failed or ended, or what came is no RESP.
    pub async fn read_reply(&mut self) -> Result<Value, SessionError> {
        loop {
            if let Some(value) = self.buffered_reply()? {
                return Ok(value);
            }
            self.fill().await?;
        }
    }

    /// The next reply if it is here already: lets a pipeline take all that came
    /// with one read.
    ///
    /// # Errors
    /// What came is no RESP, or too long.
    pub fn buffered_reply(&mut self) -> Result<Option<Value>, SessionError> {
        let receive = |kind| self.shared.error(SessionStep::Receive, kind);
        match self.scanner.scan(&self.buffer) {
            Ok(Some(reply)) => {
                let value = parse_value(self.buffer.get(..reply.len).unwrap_or_default())
                    .map_err(|error| receive(SessionErrorKind::NotResp(error)))?;
                self.buffer.advance(reply.len);
                Ok(Some(value))
            }
            Ok(None) if self.buffer.len() > REPLY_BYTES_MAX => {
                Err(receive(SessionErrorKind::ReplyTooLong(REPLY_BYTES_MAX)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(receive(SessionErrorKind::NotResp(error))),
        }
    }

    async fn fill(&mut self) -> Result<(), SessionError> {
        self.buffer.reserve(READ_BYTES);
        let limit = self.shared.request_timeout;
        match timeout(limit, self.half.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(self
                .shared
                .error(SessionStep::Receive, SessionErrorKind::Closed)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.shared.error(SessionStep::Receive, error)),
            Err(_) => Err(self
                .shared
                .error(SessionStep::Receive, SessionErrorKind::TimedOut(limit))),
        }
    }

    /// The bare direction and what was received but not read as a reply, for a
    /// connection that stops being request and reply (PSYNC).
    #[must_use]
    pub fn into_raw(self) -> (ReadHalf, BytesMut) {
        (self.half, self.buffer)
    }
}

impl SessionWriter {
    /// Adds a request to the output.
    pub fn queue(&mut self, args: &[&[u8]]) {
        write_command(&mut self.out, args);
    }

    /// Bytes queued and not yet sent, to bound a pipeline by.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.out.len()
    }

    /// The output buffer, for requests that are written piece by piece. Only
    /// whole requests may be in it when [`Self::flush`] is called.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends the output. Not cancel safe: a flush that was dropped may have
    /// sent half a request, and the session is over then.
    ///
    /// # Errors
    /// The connection failed, or the shard did not take all of it within
    /// `request_timeout`.
    pub async fn flush(&mut self) -> Result<(), SessionError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let limit = self.shared.request_timeout;
        let sent = timeout(limit, self.half.write_all(&self.out)).await;
        self.out.clear();
        if self.out.capacity() > RETAINED_OUTPUT_BYTES_MAX {
            self.out.shrink_to(RETAINED_OUTPUT_BYTES_MAX);
        }
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.shared.error(SessionStep::Send, error)),
            Err(_) => Err(self
                .shared
                .error(SessionStep::Send, SessionErrorKind::TimedOut(limit))),
        }
    }

    /// The bare direction. What is queued is dropped.
    #[must_use]
    pub fn into_raw(self) -> WriteHalf {
        self.half
    }
}
