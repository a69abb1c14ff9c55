//! One `[pool.NAME]` as typed -> a [`PoolConfig`].

use crate::proxy::config::{
    BULK_BYTES_MAX, Compat, DATABASES, EjectConfig, PoolConfig, PoolLimits, Protocol,
    REQUEST_HEADROOM_BYTES, Timeouts,
};
use crate::reuseport::address::ListenAddress;
use crate::reuseport::listener::BACKLOG_DEFAULT;
use crate::upstream::config::{Credentials, Secret, UpstreamConfig};

use super::document::{Item, Section};
use super::layout::{layout, one_of};
use super::process::CLIENTS_MAX;
use super::secret::{Environment, resolve};

/// Longest name of a pool: it becomes part of file names and URLs.
pub const NAME_BYTES_MAX: usize = 64;

/// Most connections of one worker to one shard.
pub const CONNECTIONS_MAX: u64 = 64;

/// Longest queue of connections that nobody accepted yet.
const BACKLOG_MAX: u64 = i32::MAX as u64;

const KIB: usize = 1024;
const GIB: usize = 1024 * 1024 * KIB;

/// Bounds of `limits.max_request` and `limits.max_client_buffer`, in bytes.
const REQUEST_BYTES: (usize, usize) = (KIB, 2 * BULK_BYTES_MAX);
const CLIENT_BUFFER_BYTES: (usize, usize) = (64 * KIB, 16 * GIB);

/// Bounds of `limits.large_bytes_per_second`; 0 is no limit.
const LARGE_BYTES_PER_SECOND: (usize, usize) = (0, 1024 * GIB);

/// A pool and the places of its listen addresses, for clashes between pools.
pub struct PlacedPool<'d, 't> {
    /// What the pool means.
    pub config: PoolConfig,
    /// Each listen address with its place, in order.
    pub listen: Vec<(ListenAddress, Item<'d, 't>)>,
}

/// Reads `[pool.NAME]`; `None` after a problem was recorded.
pub fn pool<'d, 't>(
    name: &str,
    item: &Item<'d, 't>,
    environment: Environment<'_>,
) -> Option<PlacedPool<'d, 't>> {
    let section = item.section()?;
    check_name(name, item);
    let protocol = section
        .take("protocol")
        .as_ref()
        .and_then(protocol)
        .unwrap_or_default();
    let listen = listen(&section);
    let backlog = section
        .take("backlog")
        .and_then(|item| item.integer(1..BACKLOG_MAX + 1));
    let database = section
        .take("database")
        .and_then(|item| item.integer(0..u64::from(DATABASES)));
    let layout = layout(&section);
    let timeouts = timeouts(section.section("timeout").as_ref());
    let eject = eject(section.section("eject").as_ref());
    let upstream = upstream(section.section("upstream").as_ref(), timeouts, environment);
    let auth = auth(section.section("auth").as_ref(), environment);
    if protocol == Protocol::Memcached {
        refuse_of_redis(&section, &upstream);
    }
    let limits = limits(section.section("limits").as_ref());
    let compat = section
        .take("compat")
        .as_ref()
        .and_then(compat)
        .unwrap_or_default();
    let allow_flush = section.take("allow_flush").and_then(|item| item.boolean());
    section.close();
    let config = PoolConfig {
        name: name.to_owned(),
        protocol,
        listen: listen.iter().map(|(address, _)| address.clone()).collect(),
        backlog: backlog
            .and_then(|backlog| u32::try_from(backlog).ok())
            .unwrap_or(BACKLOG_DEFAULT),
        layout,
        database: database
            .and_then(|database| u16::try_from(database).ok())
            .unwrap_or_default(),
        timeouts,
        eject,
        upstream,
        limits,
        compat,
        auth,
        allow_flush: allow_flush.unwrap_or_default(),
    };
    Some(PlacedPool { config, listen })
}

fn protocol(item: &Item<'_, '_>) -> Option<Protocol> {
    let all = [Protocol::Redis, Protocol::Memcached];
    let name = one_of(item, "protocol", &all.map(Protocol::name))?;
    all.into_iter().find(|protocol| protocol.name() == name)
}

/// What a pool of memcacheds has no use for.
fn refuse_of_redis(section: &Section<'_, '_>, upstream: &UpstreamConfig) {
    let help = "leave the line out, or write protocol = \"redis\"";
    if let Some(item) = section.peek("database") {
        item.problem("memcached has no databases", help);
    }
    if upstream.credentials.is_some() {
        // Of the pool as a whole: the line may have the password in it.
        section.problem(
            "memcached's text protocol has no password",
            "leave `password` out of `upstream`, or write protocol = \"redis\"",
        );
    }
}

fn check_name(name: &str, item: &Item<'_, '_>) {
    if !is_pool_name(name) {
        item.problem(
            "a pool's name is letters, digits, `_`, `-` and `.`",
            format!("rename it; it has at most {NAME_BYTES_MAX} characters"),
        );
    }
}

/// Whether a text can name a pool: safe in file names and URLs.
pub fn is_pool_name(name: &str) -> bool {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    name.bytes().all(is_sound) && (1..=NAME_BYTES_MAX).contains(&name.len())
}

fn listen<'d, 't>(section: &Section<'d, 't>) -> Vec<(ListenAddress, Item<'d, 't>)> {
    let Some(item) = section.take("listen") else {
        section.problem(
            "the pool does not say where clients connect",
            "write listen = [\"127.0.0.1:6379\"]",
        );
        return Vec::new();
    };
    let Some(elements) = item.elements() else {
        item.problem(
            "`listen` is a list",
            "write it in brackets, as in [\"127.0.0.1:6379\"]",
        );
        return Vec::new();
    };
    if elements.is_empty() {
        item.problem(
            "`listen` is empty",
            "write at least one address, as in [\"127.0.0.1:6379\"]",
        );
    }
    elements
        .into_iter()
        .filter_map(|item| listen_address(&item).map(|address| (address, item)))
        .collect()
}

fn listen_address(item: &Item<'_, '_>) -> Option<ListenAddress> {
    match item.text()?.parse::<ListenAddress>() {
        Ok(address) => Some(address),
        Err(error) => {
            item.problem(error.to_string(), error.help());
            None
        }
    }
}

fn timeouts(section: Option<&Section<'_, '_>>) -> Timeouts {
    let default = Timeouts::default();
    let Some(section) = section else {
        return default;
    };
    let connect = section
        .take("connect")
        .and_then(|item| item.duration_above_zero());
    let request = section.take("request").and_then(|item| item.duration());
    let idle = section.take("idle").and_then(|item| item.duration());
    section.close();
    Timeouts {
        connect: connect.unwrap_or(default.connect),
        request,
        idle,
    }
}

fn eject(section: Option<&Section<'_, '_>>) -> EjectConfig {
    let default = EjectConfig::default();
    let Some(section) = section else {
        return default;
    };
    let enabled = section.take("enabled").and_then(|item| item.boolean());
    let failures = section
        .take("failures")
        .and_then(|item| item.integer(1..1001));
    let retry_after = section
        .take("retry_after")
        .and_then(|item| item.duration_above_zero());
    section.close();
    EjectConfig {
        enabled: enabled.unwrap_or(default.enabled),
        failures: failures
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(default.failures),
        retry_after: retry_after.unwrap_or(default.retry_after),
    }
}

fn upstream(
    section: Option<&Section<'_, '_>>,
    timeouts: Timeouts,
    environment: Environment<'_>,
) -> UpstreamConfig {
    let default = UpstreamConfig {
        connect_timeout: timeouts.connect,
        request_timeout: timeouts.request,
        ..UpstreamConfig::default()
    };
    let Some(section) = section else {
        return default;
    };
    let connections = section
        .take("connections")
        .and_then(|item| item.integer(1..CONNECTIONS_MAX + 1));
    let preconnect = section.take("preconnect").and_then(|item| item.boolean());
    let tcp_keepalive = section
        .take("tcp_keepalive")
        .and_then(|item| item.boolean());
    let credentials = credentials(section, environment);
    section.close();
    UpstreamConfig {
        connections: connections
            .and_then(|n| u16::try_from(n).ok())
            .unwrap_or(default.connections),
        preconnect: preconnect.unwrap_or(default.preconnect),
        tcp_keepalive: tcp_keepalive.unwrap_or(default.tcp_keepalive),
        credentials,
        ..default
    }
}

/// `[pool.NAME.auth]`: what clients must say.
fn auth(section: Option<&Section<'_, '_>>, environment: Environment<'_>) -> Option<Credentials> {
    let section = section?;
    let problems = section.problem_count();
    let credentials = credentials(section, environment);
    section.close();
    if credentials.is_none() && section.problem_count() == problems {
        section.problem(
            "`auth` does not say which password clients must give",
            "write password = \"file:/path\" or \"${NAME}\", or leave `auth` out to let all in",
        );
    }
    credentials
}

fn credentials(section: &Section<'_, '_>, environment: Environment<'_>) -> Option<Credentials> {
    let username = section.take("username");
    let password = section.take("password");
    if let (Some(username), None) = (&username, &password) {
        username.problem(
            "a username without a password",
            "write `password` too, or leave out `username`",
        );
    }
    let username = username.and_then(|item| resolve(&item, environment));
    let password = password.and_then(|item| resolve(&item, environment))?;
    Some(Credentials {
        username,
        password: Secret::new(password),
    })
}

fn limits(section: Option<&Section<'_, '_>>) -> PoolLimits {
    let default = PoolLimits::default();
    let Some(section) = section else {
        return default;
    };
    let request = section
        .take("max_request")
        .and_then(|item| item.size(REQUEST_BYTES.0, REQUEST_BYTES.1));
    let buffer = section
        .take("max_client_buffer")
        .and_then(|item| item.size(CLIENT_BUFFER_BYTES.0, CLIENT_BUFFER_BYTES.1));
    let clients = section
        .take("max_clients")
        .and_then(|item| item.integer(0..CLIENTS_MAX + 1))
        .filter(|clients| *clients > 0);
    let large = section
        .take("large_bytes_per_second")
        .and_then(|item| item.size(LARGE_BYTES_PER_SECOND.0, LARGE_BYTES_PER_SECOND.1));
    let hold = section.take("max_hold").and_then(|item| item.duration());
    section.close();
    PoolLimits {
        // "512MB" is meant as Redis means it, a value of that size.
        request_bytes_max: request.map_or(default.request_bytes_max, |size| {
            size + REQUEST_HEADROOM_BYTES
        }),
        client_buffer_bytes_max: buffer.unwrap_or(default.client_buffer_bytes_max),
        clients_max: clients.and_then(|clients| usize::try_from(clients).ok()),
        large_bytes_per_second: match large {
            Some(0) => None,
            Some(bytes) => Some(bytes as u64),
            None => default.large_bytes_per_second,
        },
        held_max: hold.unwrap_or(default.held_max),
    }
}

fn compat(item: &Item<'_, '_>) -> Option<Compat> {
    match one_of(item, "compat", &["redis", "twemproxy"])? {
        "twemproxy" => Some(Compat::Twemproxy),
        _ => Some(Compat::Redis),
    }
}
