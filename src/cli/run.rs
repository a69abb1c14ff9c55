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
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::{self, Config, ConfigError};

use super::ConfigFile;
use super::exit::ExitStatus;
use super::logging::{Log, LogError};
use super::output::{fail, print_error};
use super::server::{Server, ServerError};
use super::signals::{Asked, Signals};
use super::state_dir::{StateDir, StateDirError};
use super::stores::{Stores, StoresError};

/// Longest wait for replies that are owed when we are asked to stop.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Threads for everything that is not the data path.
pub const CONTROL_THREADS: usize = 2;

/// Descriptors besides those of clients: shards, listeners, log, epoll.
pub const DESCRIPTORS_SPARE: u64 = 512;

/// Arguments of `keyferry run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Worker threads, instead of the config's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: Option<u16>,
    /// Where the admin API listens, instead of the config's: an address of this host
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    admin: Option<SocketAddr>,
    /// Where epochs and unfinished switches are kept, instead of the config's
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl RunArgs {
    /// The config file, and what was said beside it: a nutcracker.yml has no words
    /// for that.
    fn load(&self) -> Result<Config, ConfigError> {
        let mut config = config::load(&self.config.file)?;
        if let Some(admin) = self.admin {
            config.admin.http = Some(admin);
        }
        if let Some(state_dir) = &self.state_dir {
            config.server.state_dir.clone_from(state_dir);
        }
        Ok(config)
    }
}

/// Elsewhere a token is needed, and that is in the config.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "an IP address and a port is needed, such as 127.0.0.1:9181".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("it must be on 127.0.0.1 or [::1]; others need a token, in [admin]".into());
    }
    Ok(address)
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
    Stores(#[from] StoresError),
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl RunError {
    fn help(&self) -> &'static str {
        match self {
            Self::Log(_) => "name a file this user can write in [log] file, or leave it empty",
            Self::StateDir(error) => error.help(),
            Self::Runtime(_) | Self::Signals(_) => "check this user's limits on threads and files",
            Self::Stores(_) => "what it says must be free or writable; then start again",
            Self::Server(error) => error.help(),
        }
    }
}

/// Runs `keyferry run`; returns when the proxy has ended.
pub fn run(args: &RunArgs) -> ExitStatus {
    let config = match args.load() {
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
    let workers = workers(args, &config);
    let mut stores = Stores::default();
    stores.start_for(&config.pools, &config.stores)?;
    let server = Server::start(&config, workers).await?;
    info!(workers, version = env!("CARGO_PKG_VERSION"), "ready");

    let mut running = Running {
        args,
        config,
        log,
        stores,
        server,
    };
    loop {
        match signals.next().await {
            Asked::Reload => running.reload().await,
            Asked::Louder => running.step_level(true),
            Asked::Quieter => running.step_level(false),
            Asked::Stop => break,
        }
    }
    running.server.is_going();
    running.drain(&mut signals).await;
    running.server.close_ports().await;
    running.stores.stop();
    info!("ended");
    Ok(())
}

fn workers(args: &RunArgs, config: &Config) -> usize {
    match (args.workers, config.server.workers) {
        (Some(workers), _) => usize::from(workers),
        (None, 0) => thread::available_parallelism().map_or(1, NonZero::get),
        (None, workers) => workers,
    }
}

/// The soft limit is 1024 on most systems, whatever the hard one is.
pub(super) fn raise_descriptor_limit(max_clients: usize) {
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
    stores: Stores,
    server: Server,
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
        let counters = self.server.registry.process();
        let config = match self.args.load() {
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
        if let Err(error) = self.stores.start_for(&config.pools, &config.stores) {
            counters.config_reload_failures.inc();
            error!(%error, "config not reloaded");
            return;
        }
        let applied = self.server.proxy.reload(config.pools.clone()).await;
        // Also after an error: pools before the one at fault were changed.
        self.server.state.replace_pools(self.server.proxy.pools());
        match applied {
            Ok(report) => {
                info!(
                    opened = ?report.opened, closed = ?report.closed,
                    changed = ?report.changed, switched = ?report.switched,
                    "config reloaded"
                );
                self.apply_rest(config);
                self.server.registry.process().config_reloads.inc();
            }
            Err(error) => {
                self.server.registry.process().config_reload_failures.inc();
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
            ("[store]", config.stores != self.config.stores),
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
            in_time = self.server.proxy.drain(DRAIN_MAX) => {
                if !in_time {
                    warn!(waited = ?DRAIN_MAX, "some replies did not come; their clients were closed");
                }
            }
            () = signals.stop() => {
                warn!("asked twice: ending at once");
                self.server.proxy.abandon();
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
