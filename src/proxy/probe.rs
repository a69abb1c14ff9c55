//! Whether an ejected shard is well again: one connection of our own, with what
//! every connection of the pool says first, and one question. No request of a
//! client is ever used to find out.
//!
//! ```text
//! connect, AUTH  ->  SELECT n, if the pool has a database  ->  PING  ->  +PONG
//! ```
//! A memcached is asked for its version.
//! Everything else is a failure: -LOADING, -MASTERDOWN, -NOAUTH and their like
//! answer at once and would fail each request all the same.

use std::fmt;

use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::error::SessionError;
use crate::upstream::memcached::{NoVersion, memcached_version};
use crate::upstream::session::Session;

use super::config::{PoolConfig, Protocol};

/// Longest answer that is told in the log.
const TOLD_BYTES_MAX: usize = 200;

/// Why a shard is not let in.
#[derive(Debug, thiserror::Error)]
pub enum NotWell {
    /// It can't be reached, does not answer in time, or refuses the password.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The same of a memcached, or something else answers.
    #[error(transparent)]
    Memcached(#[from] NoVersion),
    /// It answers, but not well.
    #[error("it answers {command} with {answer}")]
    Answer {
        /// What was asked.
        command: &'static str,
        /// Its words.
        answer: Told,
    },
}

/// An answer, in words.
#[derive(Debug)]
pub struct Told(Value);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::Error(text) | Value::Simple(text) | Value::Bulk(text) => {
                let text = text.get(..TOLD_BYTES_MAX).unwrap_or(text);
                write!(f, "\"{}\"", text.escape_ascii())
            }
            _ => f.write_str("something else than was asked for"),
        }
    }
}

/// Asks a shard of `pool`. Connecting and AUTH take `timeout.connect` at most;
/// so does each answer, unless `timeout.request` is there for it.
///
/// # Errors
/// Why it is not well.
pub async fn probe(address: &ShardAddress, pool: &PoolConfig) -> Result<(), NotWell> {
    let upstream = UpstreamConfig {
        connect_timeout: pool.timeouts.connect,
        request_timeout: pool.timeouts.request.or(Some(pool.timeouts.connect)),
        ..pool.upstream.clone()
    };
    match pool.protocol {
        Protocol::Redis => {
            let mut session = Session::connect(address, &upstream).await?;
            ask_redis(&mut session, pool).await
        }
        Protocol::Memcached => Ok(memcached_version(address, &upstream).await.map(drop)?),
    }
}

/// What is asked depends on the protocol of the pool's shards; this is Redis's.
async fn ask_redis(session: &mut Session, pool: &PoolConfig) -> Result<(), NotWell> {
    if pool.database != 0 {
        let database = pool.database.to_string();
        let answer = session.call(&[b"SELECT", database.as_bytes()]).await?;
        expect("SELECT", answer, b"OK")?;
    }
    expect("PING", session.call(&[b"PING"]).await?, b"PONG")
}

fn expect(command: &'static str, answer: Value, wanted: &[u8]) -> Result<(), NotWell> {
    match answer {
        Value::Simple(text) if *text == *wanted => Ok(()),
        answer => Err(NotWell::Answer {
            command,
            answer: Told(answer),
        }),
    }
}
