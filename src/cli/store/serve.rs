//! `keyferry store --dir DIR`: the built-in shard itself.
//!
//! ```text
//! flags over [store] of a config -> log -> replay -> listening -> ready
//!   SIGHUP            reopen the log
//!   SIGTERM, SIGINT   everything to disk, exit 0
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{
    self, BACKLOG_BYTES_DEFAULT, ConfigError, MEMORY_BYTES_DEFAULT, StoreConfig, parse_size,
};
use crate::reuseport::address::ListenAddress;
use crate::router::address::STORE_SOCKET;
use crate::store::commands::Settings;
use crate::store::server::{
    self, Durability, ListenAt, MEMORY_BYTES_MIN, MasterAddress, Running, StartError, StartFault,
    StoreOptions,
};

use crate::cli::exit::ExitStatus;
use crate::cli::logging::{Log, LogError};
use crate::cli::output::{fail, print_error};
use crate::cli::run::raise_descriptor_limit;
use crate::cli::signals::{Asked, Signals};

/// Where clients connect when nothing is said.
const LISTEN_DEFAULT: &str = "127.0.0.1:6379";
/// How often it is looked whether a client ended the shard.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Who may connect to a shard's own socket: this user and its group.
const SOCKET_MODE: u32 = 0o660;
/// Clients that descriptors are asked for.
const CLIENTS: usize = 10_000;

/// Arguments of `keyferry store` without a verb.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// A TOML file with [store] and [log]; flags come before what it says
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where its files are: made if it is missing
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where clients connect: IP:PORT or unix:/path [default: 127.0.0.1:6379]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<ListenAddress>,
    /// When writes survive a power loss: before they are acknowledged, each second, or
    /// when the system likes to [default: everysec]
    #[arg(long, value_name = "WHEN", value_parser = ["always", "everysec", "no"])]
    durability: Option<String>,
    /// Memory for caches and for what is on its way to disk [default: 512MB]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// A shard or Redis server to follow, until REPLICAOF says otherwise
    #[arg(long, value_name = "HOST:PORT", value_parser = master)]
    replicaof: Option<MasterAddress>,
}

fn master(text: &str) -> Result<MasterAddress, String> {
    MasterAddress::parse(text).ok_or("write HOST:PORT, as in 10.0.0.7:6379".to_owned())
}

pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).ok_or("write a whole number and a unit, as in 512MB")?;
    match bytes as u64 {
        bytes if bytes < MEMORY_BYTES_MIN => Err("it must be at least 64MB".to_owned()),
        bytes => Ok(bytes),
    }
}

/// The shard could not start, or ended badly.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("no directory is named")]
    NoDirectory,
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot start the control thread: {0}")]
    Runtime(io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl StoreError {
    fn help(&self) -> &'static str {
        match self {
            Self::NoDirectory => "say where its files are: --dir DIR, or `dir` in [store]",
            Self::Log(_) => "name a file this user can write in [log] file, or leave it empty",
            Self::Runtime(_) | Self::Signals(_) => "check this user's limits on threads and files",
            Self::Start(error) => error.help(),
        }
    }
}

/// Runs the shard; returns when the shard has ended.
pub fn run(args: &ServeArgs) -> ExitStatus {
    let config = match load(args) {
        Ok(config) => config,
        Err(error) => {
            print_error(&error.to_string());
            return ExitStatus::Usage;
        }
    };
    match start(args, &config) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            fail(&error.to_string(), error.help());
            match error {
                StoreError::NoDirectory => ExitStatus::Usage,
                StoreError::Start(error) => match error.fault() {
                    StartFault::Settings => ExitStatus::Usage,
                    StartFault::InUse => ExitStatus::AlreadyRuns,
                    StartFault::Refused => ExitStatus::Refused,
                    StartFault::Machine => ExitStatus::Failed,
                },
                _ => ExitStatus::Failed,
            }
        }
    }
}

fn load(args: &ServeArgs) -> Result<StoreConfig, ConfigError> {
    args.file.as_ref().map_or_else(
        || Ok(StoreConfig::default()),
        |file| config::load_store(file),
    )
}

fn options(args: &ServeArgs, config: &StoreConfig) -> Result<StoreOptions, StoreError> {
    let dir = args.dir.clone().or_else(|| config.dir.clone());
    let flag = args.durability.as_deref().and_then(Durability::parse);
    let listen = args.listen.clone().or_else(|| config.listen.clone());
    let dir = dir.ok_or(StoreError::NoDirectory)?;
    Ok(StoreOptions {
        dir: dir.clone(),
        listen: vec![
            match listen {
                Some(ListenAddress::Tcp(address)) => ListenAt::Tcp(address),
                Some(ListenAddress::Unix { path, mode }) => ListenAt::Unix { path, mode },
                None => ListenAt::Tcp(default_address()),
            },
            own_socket(&dir),
        ],
        durability: flag
            .or(config.durability)
            .unwrap_or(Durability::EverySecond),
        memory_bytes: args
            .memory
            .or(config.memory_bytes)
            .unwrap_or(MEMORY_BYTES_DEFAULT),
        backlog_bytes: config.backlog_bytes.unwrap_or(BACKLOG_BYTES_DEFAULT),
        password: config
            .password
            .as_ref()
            .map(|secret| secret.reveal().to_owned()),
        settings: Settings::default(),
        replicaof: args.replicaof.clone().or_else(|| config.replicaof.clone()),
    })
}

/// The socket by which `store:/dir` is reached.
pub fn own_socket(dir: &Path) -> ListenAt {
    ListenAt::Unix {
        path: dir.join(STORE_SOCKET),
        mode: SOCKET_MODE,
    }
}

fn default_address() -> SocketAddr {
    LISTEN_DEFAULT
        .parse()
        .unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 6379)))
}

fn start(args: &ServeArgs, config: &StoreConfig) -> Result<(), StoreError> {
    let log = Log::start(&config.log)?;
    raise_descriptor_limit(CLIENTS);
    let options = options(args, config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StoreError::Runtime)?;
    runtime.block_on(serve(&options, &log))
}

async fn serve(options: &StoreOptions, log: &Log) -> Result<(), StoreError> {
    let mut signals = Signals::listen().map_err(StoreError::Signals)?;
    let running = server::start(options)?;
    info!(
        listen = %running.listens_at().first().map(ToString::to_string).unwrap_or_default(),
        dir = %options.dir.display(),
        durability = options.durability.name(),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    wait_for_the_end(&running, &mut signals, log).await;
    running.stop()?;
    info!("ended");
    Ok(())
}

async fn wait_for_the_end(running: &Running, signals: &mut Signals, log: &Log) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return,
                Asked::Reload => {
                    if let Err(error) = log.reopen_same() {
                        warn!(%error, "the log was not reopened");
                    }
                }
                Asked::Louder => drop(log.step_level(true)),
                Asked::Quieter => drop(log.step_level(false)),
            },
            _ = look.tick() => {
                if running.has_ended() {
                    return;
                }
            }
        }
    }
}
