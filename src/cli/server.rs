//! The proxy with its ports, as every way to run it has them.
//!
//! ```text
//! admin port, statistics port -> workers -> ready ... drain -> ports closed
//! ```
//! Invariant: a port that is taken ends the start before a client was accepted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use crate::admin::{
    Admin, AdminError, AdminSettings, AdminState, Readiness, StatsPort, StatsPortError, Token,
};
use crate::config::Config;
use crate::metrics::registry::Registry;
use crate::proxy::pool::PoolHandle;
use crate::proxy::process::{Proxy, ProxySettings, StartError};

/// Longest wait for callers of the ports at the end.
const PORTS_STOP_MAX: Duration = Duration::from_secs(1);

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The statistics port.
    #[error(transparent)]
    Stats(#[from] StatsPortError),
    /// The workers, or what they listen on.
    #[error(transparent)]
    Proxy(Box<StartError>),
}

impl ServerError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Admin(_) => "stop what has the port, or choose another [admin] http",
            Self::Stats(_) => "stop what has the port, or choose another [admin] nutcracker_stats",
            Self::Proxy(_) => "correct the config, or free what it names, and start again",
        }
    }
}

/// A proxy that serves.
pub struct Server {
    /// Its workers and pools.
    pub proxy: Proxy,
    /// What they count.
    pub registry: Arc<Registry>,
    /// What the admin port knows.
    pub state: Arc<AdminState<PoolHandle>>,
    readiness: watch::Sender<Readiness>,
    stop: watch::Sender<bool>,
    ports: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the ports and the pools.
    ///
    /// # Errors
    /// Something cannot be opened; then nothing stays open.
    pub async fn start(config: &Config, workers: usize) -> Result<Self, ServerError> {
        let admin = bind_admin(config).await?;
        let stats = match config.admin.nutcracker_stats {
            Some(address) => Some(StatsPort::bind(address, host_name()).await?),
            None => None,
        };
        let registry = Registry::new();
        let settings = ProxySettings {
            workers,
            state_dir: config.server.state_dir.clone(),
            clients_max: config.server.max_clients,
            registry: Arc::clone(&registry),
        };
        let started = Proxy::start(settings, config.pools.clone());
        let proxy = started.map_err(|error| ServerError::Proxy(Box::new(error)))?;
        let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
        let (stop, stop_seen) = watch::channel(false);
        let state = AdminState::new(proxy.pools(), Arc::clone(&registry), readiness_seen);
        let mut ports = Vec::new();
        if let Some(admin) = admin {
            info!(http = %admin.address(), "admin");
            let served = admin.serve(Arc::clone(&state), stop_seen.clone());
            ports.push(tokio::spawn(served));
        }
        if let Some(stats) = stats {
            ports.push(tokio::spawn(stats.serve(Arc::clone(&registry), stop_seen)));
        }
        readiness.send_replace(Readiness::Ready);
        Ok(Self {
            proxy,
            registry,
            state,
            readiness,
            stop,
            ports,
        })
    }

    /// `/readyz` says from now on that this one is going.
    pub fn is_going(&self) {
        self.readiness.send_replace(Readiness::Draining);
    }

    /// Closes the ports.
    pub async fn close_ports(self) {
        self.stop.send_replace(true);
        for mut port in self.ports {
            let ended = tokio::time::timeout(PORTS_STOP_MAX, &mut port).await;
            if ended.is_err() {
                // Somebody holds a connection open; there is nothing to tell them.
                port.abort();
            }
        }
    }
}

async fn bind_admin(config: &Config) -> Result<Option<Admin>, AdminError> {
    let Some(http) = config.admin.http else {
        return Ok(None);
    };
    let token = config
        .admin
        .token
        .as_ref()
        .map(|token| Token::new(token.reveal()));
    Admin::bind(AdminSettings { http, token }).await.map(Some)
}

fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}
