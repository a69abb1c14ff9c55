//! `keyferry run`: the proxy.
//!
//! ```text
//! load config -> log -> state_dir -> signals -> admin port -> workers -> ready
//!   SIGHUP            reopen the log, reload the config
//!   SIGTTIN/SIGTTOU   more or less log
//!   SIGTERM, SIGINT   drain, exit 0; a second one: at once
//! ```
//! Invariant: a config that is wrong, or a port that is taken, ends the start
//! before a client was accepted; at a reload it changes nothing.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::{Admin, AdminError, AdminSettings, AdminState, Readiness, Token};
use crate::config::{self, Config, ConfigError};
use crate::metrics::registry::Registry;
use crate::proxy::pool::PoolHandle;
use crate::proxy::process::{Proxy, ProxySettings, StartError};

use super::ConfigFile;
use super::exit::ExitStatus;
use super::logging::{Log, LogError};
use super::output::{fail, print_error};
use super::signals::{Asked, Signals};
use super::state_dir::{StateDir, StateDirError};

/// Longest wait for replies that are owed when we are asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Longest wait for callers of the admin port at the end.
const ADMIN_STOP_MAX: Duration = Duration::from_secs(1);

/// Threads for everything that is not the data path.
const CONTROL_THREADS: usize = 2;

/// Descriptors besides those of clients: shards, listeners, log, epoll.
const DESCRIPTORS_SPARE: u64 = 512;

/// Arguments of `keyferry run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Worker threads, instead of the config's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: Option<u16>,
}

/// The proxy could not start.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error("cannot start the control threads: {0}")]
    Runtime(io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Proxy(Box<StartError>),
}

impl RunError {
    fn help(&self) -> &'static str {
        match self {
            Self::Log(_) => "name a file this user can write in [log] file, or leave it empty",
            Self::StateDir(error) => error.help(),
            Self::Runtime(_) | Self::Signals(_) => "check this user's limits on threads and files",
            Self::Admin(_) => "stop what has the port, or choose another [admin] http",
            Self::Proxy(_) => "correct the config, or free what it names, and start again",
        }
    }
}

/// Runs `keyferry run`; returns when the proxy has ended.
pub fn run(args: &RunArgs) -> ExitStatus {
    let config = match config::load(&args.config.file) {
        Ok(config) => config,
        Err(error) => {
            print_error(&error.to_string());
            return ExitStatus::Usage;
        }
    };
    match start(args, config) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            fail(&error.to_string(), error.help());
            ExitStatus::Failed
        }
    }
}

fn start(args: &RunArgs, config: Config) -> Result<(), RunError> {
    let log = Log::start(&config.log)?;
    raise_descriptor_limit(config.server.max_clients);
    let state_dir = StateDir::open(&config.server.state_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let ended = runtime.block_on(Box::pin(serve(args, config, log)));
    // Look-ups of names may be under way; nobody waits for them any more.
    runtime.shutdown_background();
    drop(state_dir);
    ended
}

async fn serve(args: &RunArgs, config: Config, log: Log) -> Result<(), RunError> {
    let mut signals = Signals::listen().map_err(RunError::Signals)?;
    let admin = bind_admin(&config).await?;
    let registry = Registry::new();
    let settings = ProxySettings {
        workers: workers(args, &config),
        state_dir: config.server.state_dir.clone(),
        clients_max: config.server.max_clients,
        registry: Arc::clone(&registry),
    };
    let workers = settings.workers;
    let started = Proxy::start(settings, config.pools.clone());
    let proxy = started.map_err(|error| RunError::Proxy(Box::new(error)))?;
    let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
    let (stop_admin, stop_seen) = watch::channel(false);
    let state = AdminState::new(proxy.pools(), Arc::clone(&registry), readiness_seen);
    let admin = admin.map(|admin| {
        info!(http = %admin.address(), "admin");
        tokio::spawn(admin.serve(Arc::clone(&state), stop_seen))
    });
    readiness.send_replace(Readiness::Ready);
    info!(workers, version = env!("CARGO_PKG_VERSION"), "ready");

    let mut running = Running {
        args,
        config,
        log,
        registry,
        proxy,
        state,
    };
    loop {
        match signals.next().await {
            Asked::Reload => running.reload().await,
            Asked::Louder => running.step_level(true),
            Asked::Quieter => running.step_level(false),
            Asked::Stop => break,
        }
    }
    readiness.send_replace(Readiness::Draining);
    running.drain(&mut signals).await;
    stop_admin.send_replace(true);
    if let Some(admin) = admin {
        join_admin(admin).await;
    }
    info!("ended");
    Ok(())
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

async fn join_admin(mut admin: JoinHandle<()>) {
    if tokio::time::timeout(ADMIN_STOP_MAX, &mut admin)
        .await
        .is_err()
    {
        // Somebody holds a connection open; there is nothing to tell them.
        admin.abort();
    }
}

fn workers(args: &RunArgs, config: &Config) -> usize {
    match (args.workers, config.server.workers) {
        (Some(workers), _) => usize::from(workers),
        (None, 0) => thread::available_parallelism().map_or(1, NonZero::get),
        (None, workers) => workers,
    }
}

/// The soft limit is 1024 on most systems, whatever the hard one is.
fn raise_descriptor_limit(max_clients: usize) {
    let needed = max_clients as u64 + DESCRIPTORS_SPARE;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => warn!(
            limit,
            needed,
            "fewer open files are allowed than `server.max_clients` needs; raise LimitNOFILE or lower it"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit on open files"),
    }
}

/// A proxy that has started.
struct Running<'a> {
    args: &'a RunArgs,
    config: Config,
    log: Log,
    registry: Arc<Registry>,
    proxy: Proxy,
    state: Arc<AdminState<PoolHandle>>,
}

impl Running<'_> {
    fn step_level(&self, louder: bool) {
        let level = self.log.step_level(louder);
        // At this level, or it would not be seen where it says "error".
        error!(?level, "log level changed by a signal");
    }

    async fn reload(&mut self) {
        if let Err(error) = self.log.reopen_same() {
            warn!(%error, "the log goes on where it was");
        }
        let counters = self.registry.process();
        let config = match config::load(&self.args.config.file) {
            Ok(config) => config,
            Err(error) => {
                counters.config_reload_failures.inc();
                log_refusal(&error);
                return;
            }
        };
        if config == self.config {
            info!("the config has not changed");
            counters.config_reloads.inc();
            return;
        }
        let applied = self.proxy.reload(config.pools.clone()).await;
        // Also after an error: pools before the one at fault were changed.
        self.state.replace_pools(self.proxy.pools());
        match applied {
            Ok(report) => {
                info!(
                    opened = ?report.opened, closed = ?report.closed,
                    changed = ?report.changed, switched = ?report.switched,
                    "config reloaded"
                );
                self.apply_rest(config);
                self.registry.process().config_reloads.inc();
            }
            Err(error) => {
                self.registry.process().config_reload_failures.inc();
                error!(%error, "config not reloaded, or not wholly; correct it and send SIGHUP again");
            }
        }
    }

    /// What is not about pools: the log at once, the rest at the next start.
    fn apply_rest(&mut self, config: Config) {
        if config.log.level != self.config.log.level {
            self.log.set_level(config.log.level);
        }
        if config.log.file != self.config.log.file
            && let Err(error) = self.log.reopen(config.log.file.as_deref())
        {
            warn!(%error, "the log goes on where it was");
        }
        let later = [
            ("[server]", config.server != self.config.server),
            ("[admin]", config.admin != self.config.admin),
            ("[log] format", config.log.format != self.config.log.format),
        ];
        for (section, _) in later.iter().filter(|(_, changed)| *changed) {
            warn!(
                section,
                "changed in the config; it takes effect at the next start"
            );
        }
        self.config = config;
    }

    async fn drain(&self, signals: &mut Signals) {
        info!("stopping: accepting nobody, answering what is in flight");
        tokio::select! {
            in_time = self.proxy.drain(DRAIN_MAX) => {
                if !in_time {
                    warn!(waited = ?DRAIN_MAX, "some replies did not come; their clients were closed");
                }
            }
            () = signals.stop() => {
                warn!("asked twice: ending at once");
                self.proxy.abandon();
            }
        }
    }
}

fn log_refusal(error: &ConfigError) {
    match error {
        ConfigError::Wrong(problems) => {
            for problem in problems {
                let at = &problem.at;
                error!(
                    file = %at.file.display(), line = at.line, column = at.column, help = problem.help,
                    "config not reloaded: {}", problem.what
                );
            }
        }
        ConfigError::Unreadable { file, cause } => {
            error!(file = %file.display(), %cause, "config not reloaded: it cannot be read");
        }
    }
}
