//! The whole config, and the sections that concern the process as a whole:
//! `[server]`, `[log]` and `[admin]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::proxy::config::PoolConfig;
use crate::reuseport::address::ListenAddress;
use crate::upstream::config::Secret;

use super::document::{Item, Section};
use super::layout::one_of;
use super::pool::{PlacedPool, pool};
use super::secret::{Environment, resolve};
use super::store::{StoresConfig, stores};

/// Most worker threads; more than any machine this was tried on has cores.
const WORKERS_MAX: u64 = 512;

/// Most clients of a process or a pool.
pub const CLIENTS_MAX: u64 = 10_000_000;

/// Shortest admin token: 128 bits, were each byte drawn from 256.
const TOKEN_BYTES_MIN: usize = 16;

/// `admin.http` when none is written.
pub const HTTP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Everything a config file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The process.
    pub server: ServerConfig,
    /// Its log.
    pub log: LogConfig,
    /// Its HTTP side.
    pub admin: AdminConfig,
    /// Its built-in shards, if pools name some.
    pub stores: StoresConfig,
    /// Its pools, in the order of the file; never empty.
    pub pools: Vec<PoolConfig>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// Where epochs and pending switches are kept.
    pub state_dir: PathBuf,
    /// Most clients of all pools together; from 1.
    pub max_clients: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            state_dir: PathBuf::from("/var/lib/keyferry"),
            max_clients: 10_000,
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines go; `None` is stderr.
    pub file: Option<PathBuf>,
}

/// How important a line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// What an operator must act on.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Why it happened.
    Debug,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// As twemproxy writes it, when called by its name; not for config files.
    Nutcracker,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where to listen; `None` for not at all.
    pub http: Option<SocketAddr>,
    /// What a caller must know: printable ASCII without spaces. `None`, only
    /// on loopback, asks for nothing.
    pub token: Option<Secret>,
    /// Where to tell what twemproxy tells on its port 22222; `None` for nowhere.
    pub nutcracker_stats: Option<SocketAddr>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            http: Some(HTTP_DEFAULT),
            token: None,
            nutcracker_stats: None,
        }
    }
}

/// Reads the root of a config.
pub fn config(root: &Section<'_, '_>, environment: Environment<'_>) -> Config {
    let server = server(root.section("server").as_ref());
    let log = log(root.section("log").as_ref());
    let (admin, admin_at) = admin(root.section("admin").as_ref(), environment);
    let stores = stores(root.section("store").as_ref());
    let entries = root
        .section("pool")
        .map(|section| section.entries())
        .unwrap_or_default();
    if entries.is_empty() {
        root.problem(
            "there is no pool",
            "write [pool.NAME] with `listen` and [[pool.NAME.shard]]",
        );
    }
    let placed: Vec<_> = entries
        .iter()
        .filter_map(|(name, item)| pool(name, item, environment))
        .collect();
    check_clashes(admin.http, admin_at.as_ref(), &placed);
    let pools = placed.into_iter().map(|pool| pool.config).collect();
    Config {
        server,
        log,
        admin,
        stores,
        pools,
    }
}

/// Two addresses that cannot both be bound: the later place is the problem.
fn check_clashes(
    admin: Option<SocketAddr>,
    admin_at: Option<&Item<'_, '_>>,
    pools: &[PlacedPool<'_, '_>],
) {
    let mut bound: Vec<(ListenAddress, String)> = Vec::new();
    let http = admin.map(ListenAddress::Tcp);
    for pool in pools {
        for (address, item) in &pool.listen {
            if let Some((_, owner)) = bound.iter().find(|(other, _)| other.clashes_with(address)) {
                item.problem(
                    format!("{address} is already listened on by {owner}"),
                    "give each an address of its own",
                );
            } else if http.as_ref().is_some_and(|http| http.clashes_with(address)) {
                let at = admin_at.unwrap_or(item);
                at.problem(
                    format!(
                        "`admin.http` is also listened on by pool `{}`",
                        pool.config.name
                    ),
                    "give each an address of its own",
                );
            }
            bound.push((address.clone(), format!("pool `{}`", pool.config.name)));
        }
    }
}

fn server(section: Option<&Section<'_, '_>>) -> ServerConfig {
    let default = ServerConfig::default();
    let Some(section) = section else {
        return default;
    };
    let count = |key: &'static str, low: u64, high: u64| {
        let number = section
            .take(key)
            .and_then(|item| item.integer(low..high + 1));
        number.and_then(|number| usize::try_from(number).ok())
    };
    let workers = count("workers", 0, WORKERS_MAX);
    let max_clients = count("max_clients", 1, CLIENTS_MAX);
    let state_dir = section.take("state_dir").and_then(|item| {
        let path = item.text()?;
        if path.is_empty() {
            item.problem(
                "`server.state_dir` is empty",
                "name a directory that survives restarts",
            );
        }
        Some(PathBuf::from(path))
    });
    section.close();
    ServerConfig {
        workers: workers.unwrap_or(default.workers),
        state_dir: state_dir.unwrap_or(default.state_dir),
        max_clients: max_clients.unwrap_or(default.max_clients),
    }
}

pub(super) fn log(section: Option<&Section<'_, '_>>) -> LogConfig {
    let Some(section) = section else {
        return LogConfig::default();
    };
    let level = section.take("level").and_then(|item| {
        let level = match one_of(&item, "level", &["error", "warn", "info", "debug"])? {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            _ => LogLevel::Info,
        };
        Some(level)
    });
    let format = section.take("format").and_then(|item| {
        let json = one_of(&item, "format", &["text", "json"])? == "json";
        Some(if json {
            LogFormat::Json
        } else {
            LogFormat::Text
        })
    });
    let file = section.take("file").and_then(|item| item.text());
    section.close();
    LogConfig {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
        file: file.filter(|path| !path.is_empty()).map(PathBuf::from),
    }
}

fn admin<'d, 't>(
    section: Option<&Section<'d, 't>>,
    environment: Environment<'_>,
) -> (AdminConfig, Option<Item<'d, 't>>) {
    let Some(section) = section else {
        return (AdminConfig::default(), None);
    };
    let item = section.take("http");
    let http = match &item {
        None => Some(HTTP_DEFAULT),
        Some(item) => tcp_address(item, "127.0.0.1:9180"),
    };
    let written = section.take("token");
    let token = written.as_ref().and_then(|item| token(item, environment));
    if let (Some(address), Some(item), None) = (http, &item, &written)
        && !address.ip().is_loopback()
    {
        item.problem(
            format!("{address} can be reached from other machines, and there is no `admin.token`"),
            "write token = \"file:/path\" below it, or listen on 127.0.0.1",
        );
    }
    let stats_at = section.take("nutcracker_stats");
    let nutcracker_stats = stats_at
        .as_ref()
        .and_then(|item| tcp_address(item, "127.0.0.1:22222"));
    if let (Some(item), Some(http), Some(stats)) = (&stats_at, http, nutcracker_stats)
        && ListenAddress::Tcp(http).clashes_with(&ListenAddress::Tcp(stats))
    {
        item.problem(
            "`admin.nutcracker_stats` and `admin.http` are the same address",
            "give each an address of its own",
        );
    }
    section.close();
    let admin = AdminConfig {
        http,
        token,
        nutcracker_stats,
    };
    (admin, item)
}

/// An address, or `""` for none.
fn tcp_address(item: &Item<'_, '_>, example: &str) -> Option<SocketAddr> {
    let text = item.text()?;
    if text.is_empty() {
        return None;
    }
    match text.parse::<ListenAddress>() {
        Ok(ListenAddress::Tcp(address)) => return Some(address),
        Ok(ListenAddress::Unix { .. }) => item.problem(
            format!(
                "`{}` on a unix socket is not in this build yet",
                item.path()
            ),
            format!("write an address such as \"{example}\""),
        ),
        Err(error) => item.problem(
            error.to_string(),
            format!("write \"IP:PORT\" such as \"{example}\", or \"\" for none"),
        ),
    }
    None
}

fn token(item: &Item<'_, '_>, environment: Environment<'_>) -> Option<Secret> {
    let text = resolve(item, environment)?;
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.len() < TOKEN_BYTES_MIN || !printable {
        item.problem(
            format!(
                "`admin.token` must be at least {TOKEN_BYTES_MIN} printable characters without spaces"
            ),
            "make one with: openssl rand -hex 16",
        );
    }
    Some(Secret::new(text))
}
