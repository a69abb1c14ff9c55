//! Names of shards, looked up where a slow name server stops nobody.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use mio::Waker;
use tokio::runtime::Handle;

use super::orders::Order;

/// Longest wait for a name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks names up on the control runtime, so that a slow name server never
/// stops a worker.
pub struct Resolver {
    runtime: Handle,
    inbox: Sender<Order>,
    waker: Arc<Waker>,
}

impl Resolver {
    /// Answers go to `inbox`.
    pub fn new(runtime: Handle, inbox: Sender<Order>, waker: Arc<Waker>) -> Self {
        Self {
            runtime,
            inbox,
            waker,
        }
    }

    /// Asks for the first address of `host`; the answer is an [`Order::Resolved`].
    pub fn resolve(&self, pool: usize, key: u32, host: String, port: u16) {
        let (inbox, waker) = (self.inbox.clone(), Arc::clone(&self.waker));
        // The task ends by itself within RESOLVE_TIMEOUT; an answer to a worker
        // that is gone is dropped.
        self.runtime.spawn(async move {
            let looked_up = tokio::net::lookup_host((host.as_str(), port));
            let found = match tokio::time::timeout(RESOLVE_TIMEOUT, looked_up).await {
                Ok(Ok(mut addresses)) => addresses
                    .next()
                    .ok_or_else(|| format!("`{host}` has no address")),
                Ok(Err(error)) => Err(format!("can't look up `{host}`: {error}")),
                Err(_) => Err(format!("looking up `{host}` timed out")),
            };
            let asked = (host, port);
            if inbox
                .send(Order::Resolved {
                    pool,
                    key,
                    asked,
                    found,
                })
                .is_ok()
            {
                let _ = waker.wake();
            }
        });
    }
}
