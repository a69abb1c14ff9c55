//! Looks every 10 s who writes to the shards that keys leave, or left, round the
//! proxies: before the switch it stands in its way, after it what they write is lost.
//!
//! Only logins tell: without a fence of users there is nothing to be seen. One look is
//! a connection of its own that is closed again; a server that does not answer is
//! looked at the next time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::bypass::{Bypass, Memory, RECENT_S};
use super::clock::now_ms;
use super::fencing::OwnNames;
use crate::router::address::ShardAddress;
use crate::upstream::Session;
use crate::upstream::config::UpstreamConfig;

/// Time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Longest wait for one server.
const LOOK_MS_MAX: u64 = 2_000;

/// Where one looks, and for whom not.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The shards that keys leave.
    pub servers: Vec<ShardAddress>,
    /// Who may write there.
    pub own: OwnNames,
}

/// See the head of this file; the looks end when it is dropped.
#[derive(Debug, Default)]
pub struct Lookout(Option<Post>);

#[derive(Debug)]
struct Post {
    watched: Watched,
    upstream: UpstreamConfig,
    memory: Arc<Mutex<Memory>>,
    looks: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Post {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lookout {
    /// Looks from now on; never where there is nothing to be seen.
    pub fn begin(watched: Option<Watched>, upstream: &UpstreamConfig) -> Self {
        let Some(watched) = watched else {
            return Self(None);
        };
        let upstream = UpstreamConfig {
            request_timeout: Some(Duration::from_millis(LOOK_MS_MAX)),
            ..upstream.clone()
        };
        let memory = Arc::new(Mutex::new(Memory::default()));
        let (looked, looks) = watch::channel(0);
        let work = (watched.clone(), upstream.clone(), Arc::clone(&memory));
        let task = tokio::spawn(async move {
            let (watched, upstream, memory) = work;
            let mut tick = interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                look(&watched, &upstream, &memory).await;
                looked.send_modify(|count| *count += 1);
            }
        });
        Self(Some(Post {
            watched,
            upstream,
            memory,
            looks,
            task,
        }))
    }

    /// Whether it looks.
    pub fn is_begun(&self) -> bool {
        self.0.is_some()
    }

    /// Looks at once: who wrote within the last minute and is still connected.
    pub async fn look(&self) -> Vec<Bypass> {
        if let Some(post) = &self.0 {
            look(&post.watched, &post.upstream, &post.memory).await;
        }
        self.writers(now_s().saturating_sub(RECENT_S))
    }

    /// Who wrote after `since_s`, seconds since 1970, as far as it was seen.
    pub fn writers(&self, since_s: u64) -> Vec<Bypass> {
        match &self.0 {
            Some(post) => {
                let memory = post.memory.lock().unwrap_or_else(PoisonError::into_inner);
                memory.writers(now_s(), since_s)
            }
            None => Vec::new(),
        }
    }

    /// Resolves after the next look.
    pub async fn looked(&mut self) {
        if let Some(post) = &mut self.0
            && post.looks.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

async fn look(watched: &Watched, upstream: &UpstreamConfig, memory: &Mutex<Memory>) {
    for server in &watched.servers {
        let listed = async {
            let mut session = Session::connect(server, upstream).await?;
            session.call(&[b"CLIENT", b"LIST"]).await
        };
        let limit = Duration::from_millis(LOOK_MS_MAX);
        match tokio::time::timeout(limit, listed).await {
            Ok(Ok(list)) => {
                let text = String::from_utf8_lossy(list.as_bytes().unwrap_or_default());
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                memory.look(now_s(), server, &text, &watched.own);
            }
            Ok(Err(error)) => tracing::debug!(%error, "no look at who writes there"),
            Err(_) => tracing::debug!(%server, "no look at who writes there: it is silent"),
        }
    }
}

fn now_s() -> u64 {
    now_ms() / 1_000
}
