//! Whole pools: what must be there, what must differ, and what this build does
//! not do yet. A pool that passes is the `PoolConfig` that TOML would give.
//!
//! Checked in the order of the original: each pool by itself, then listen
//! addresses, then names; last, what only we cannot do.

use std::time::Duration;

use crate::proxy::config::{
    Compat, DATABASES, EjectConfig, PoolConfig, PoolLimits, Protocol, Timeouts,
};
use crate::reuseport::address::ListenAddress;
use crate::router::layout::Layout;
use crate::router::layout_error::{LayoutError, Place as LayoutPlace};
use crate::router::spec::LayoutSpec;
use crate::upstream::config::{Credentials, Secret, UpstreamConfig};

use super::super::pool::{CONNECTIONS_MAX, NAME_BYTES_MAX, is_pool_name};
use super::super::process::{AdminConfig, Config, LogConfig, ServerConfig};
use super::super::store::StoresConfig;
use super::super::unit::DURATION_MAX;
use super::Fault;
use super::draft::{Draft, Placed};
use super::tree::Place;

/// `backlog:` when none is written.
const BACKLOG_DEFAULT: u32 = 512;

/// `server_failure_limit:` and `server_retry_timeout:` when none are written.
const FAILURES_DEFAULT: u32 = 2;
const RETRY_MS_DEFAULT: u32 = 30_000;

/// Most failures that [`EjectConfig`] takes.
const FAILURES_MAX: u32 = 1000;

/// The config that the pools in the file called `name` mean.
pub fn config(name: &str, drafts: Vec<Draft>) -> Result<Config, Vec<Fault>> {
    for draft in &drafts {
        check_pool(draft).map_err(|fault| vec![fault])?;
    }
    check_pools(name, &drafts).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    for draft in &drafts {
        refuse_what_is_not_done(draft, &mut faults);
    }
    let mut pools = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let listen_at = draft.listen.as_ref().map(|listen| listen.at);
        pools.push((pool(draft), listen_at));
    }
    check_clashes(&pools, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Config {
        server: ServerConfig::default(),
        log: LogConfig::default(),
        admin: AdminConfig::default(),
        stores: StoresConfig::default(),
        pools: pools.into_iter().map(|(pool, _)| pool).collect(),
    })
}

fn fault(at: Place, what: String, help: &'static str) -> Fault {
    Fault {
        at,
        text: String::new(),
        what,
        help,
    }
}

fn check_pool(draft: &Draft) -> Result<(), Fault> {
    let pool = &draft.name;
    if draft.listen.is_none() {
        return Err(fault(
            pool.at,
            "directive \"listen:\" is missing".to_owned(),
            "write `listen: host:port` into the pool",
        ));
    }
    if let Some(Placed { value: 0, at }) = draft.number("server_connections") {
        return Err(fault(
            at,
            "directive \"server_connections:\" cannot be 0".to_owned(),
            "write 1, or leave the line out",
        ));
    }
    let is_redis = draft.switch("redis").is_some_and(|redis| redis.value);
    if let (Some(auth), false) = (&draft.redis_auth, is_redis) {
        return Err(fault(
            auth.at,
            "directive \"redis_auth:\" is only valid for a redis pool".to_owned(),
            "write `redis: true` too, or leave the line out",
        ));
    }
    let name = &pool.value;
    if draft.servers.is_empty() {
        return Err(fault(
            pool.at,
            format!("pool '{name}' has no servers"),
            "write `servers:` and one `- host:port:weight` a line below it",
        ));
    }
    match Layout::new(spec(draft)) {
        Ok(_) => Ok(()),
        Err(error) => Err(layout_fault(draft, &error)),
    }
}

/// What the router makes of the servers; only same names are the original's
/// error, too.
fn layout_fault(draft: &Draft, error: &LayoutError) -> Fault {
    use crate::router::layout_error::LayoutFault;

    let (at, label) = match &error.place {
        LayoutPlace::Shard {
            position, label, ..
        } => {
            let server = draft.servers.get(*position);
            (
                server.map_or(draft.name.at, |server| server.at),
                label.as_str(),
            )
        }
        LayoutPlace::Layout { .. } | LayoutPlace::Route { .. } => (draft.name.at, ""),
    };
    let name = &draft.name.value;
    match &error.fault {
        LayoutFault::SameName { .. } => fault(
            at,
            format!("pool '{name}' has servers with same name '{label}'"),
            "give each server a name of its own; names decide which keys it gets",
        ),
        other => fault(
            at,
            format!("pool '{name}': {other}"),
            "correct this server's line",
        ),
    }
}

fn check_pools(name: &str, drafts: &[Draft]) -> Result<(), Fault> {
    let listens = |draft: &Draft| draft.listen.as_ref().map(|listen| listen.value.0.clone());
    for (index, later) in drafts.iter().enumerate() {
        let earlier = drafts.get(..index).unwrap_or_default();
        if let (Some(text), Some(listen)) = (listens(later), &later.listen)
            && let Some(same) = earlier
                .iter()
                .find(|draft| listens(draft).as_ref() == Some(&text))
        {
            let (a, b) = (&same.name.value, &later.name.value);
            return Err(fault(
                listen.at,
                format!("pools '{a}' and '{b}' have the same listen address '{text}'"),
                "give each pool an address of its own",
            ));
        }
    }
    for (index, later) in drafts.iter().enumerate() {
        let earlier = drafts.get(..index).unwrap_or_default();
        if earlier
            .iter()
            .any(|draft| draft.name.value == later.name.value)
        {
            let pool = &later.name.value;
            return Err(fault(
                later.name.at,
                // As the original writes it, with one quotation mark.
                format!("'{name}' has pools with same name {pool}'"),
                "give each pool a name of its own",
            ));
        }
    }
    Ok(())
}

fn refuse_what_is_not_done(draft: &Draft, faults: &mut Vec<Fault>) {
    let name = &draft.name.value;
    let mut refuse = |at, what: &str, help| {
        faults.push(fault(at, format!("pool '{name}': {what}"), help));
    };
    if !is_pool_name(name) {
        let what =
            format!("its name is not letters, digits, `_`, `-` and `.`, at most {NAME_BYTES_MAX}");
        refuse(
            draft.name.at,
            &what,
            "rename it; names become parts of file names and URLs",
        );
    }
    if let Some(Placed { value, at }) = draft.number("redis_db")
        && value >= u32::from(DATABASES)
    {
        let what = format!("redis_db is not below {DATABASES}");
        refuse(at, &what, "databases of a pool are 0 to 15");
    }
    for key in ["timeout", "server_retry_timeout"] {
        if let Some(Placed { value, at }) = draft.number(key)
            && Duration::from_millis(u64::from(value)) > DURATION_MAX
        {
            refuse(
                at,
                &format!("{key} is longer than a day"),
                "write fewer milliseconds",
            );
        }
    }
    if let Some(Placed { value, at }) = draft.number("server_connections")
        && u64::from(value) > CONNECTIONS_MAX
    {
        let what = format!("server_connections is more than {CONNECTIONS_MAX}");
        refuse(at, &what, "a few are enough; every worker has as many");
    }
}

/// Two literal addresses that mean the same socket; the original finds out when
/// it binds them.
fn check_clashes(pools: &[(PoolConfig, Option<Place>)], faults: &mut Vec<Fault>) {
    let address = |pool: &PoolConfig| pool.listen.first().cloned();
    for (index, (later, at)) in pools.iter().enumerate() {
        let earlier = pools.get(..index).unwrap_or_default();
        let Some(own) = address(later) else { continue };
        let clash = earlier
            .iter()
            .find(|(pool, _)| pool.listen.iter().any(|other| other.clashes_with(&own)));
        if let Some((other, _)) = clash {
            let (a, b) = (&other.name, &later.name);
            let what = format!("pools '{a}' and '{b}' listen on the same address {own}");
            let at = at.unwrap_or(Place { line: 1, column: 1 });
            faults.push(fault(at, what, "give each pool an address of its own"));
        }
    }
}

fn spec(draft: &Draft) -> LayoutSpec {
    LayoutSpec {
        hash: draft.hash.unwrap_or_default(),
        distribution: draft.distribution.unwrap_or_default(),
        hash_tag: draft.hash_tag,
        route: Vec::new(),
        shards: draft
            .servers
            .iter()
            .map(|server| server.value.clone())
            .collect(),
        earlier: None,
    }
}

fn pool(draft: Draft) -> PoolConfig {
    let layout = spec(&draft);
    let number = |key: &str| draft.number(key).map(|number| number.value);
    let is_on = |key: &str| draft.switch(key).is_some_and(|switch| switch.value);
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    // 0 is no limit, as absence is.
    let request = number("timeout").filter(|ms| *ms > 0).map(millis);
    let defaults = Timeouts::default();
    let timeouts = Timeouts {
        // The original's one limit covers the connect, too.
        connect: request.unwrap_or(defaults.connect),
        request,
        idle: defaults.idle,
    };
    let failures = number("server_failure_limit").unwrap_or(FAILURES_DEFAULT);
    let retry_ms = number("server_retry_timeout").unwrap_or(RETRY_MS_DEFAULT);
    let connections = number("server_connections").unwrap_or(1);
    let clients = number("client_connections").filter(|clients| *clients > 0);
    let backlog = number("backlog").unwrap_or(BACKLOG_DEFAULT);
    let protocol = match is_on("redis") {
        true => Protocol::Redis,
        false => Protocol::Memcached,
    };
    // The original reads it in a pool of memcacheds, too, and makes nothing of it.
    let database = number("redis_db").filter(|_| protocol == Protocol::Redis);
    let preconnect = is_on("preconnect");
    let ejects = is_on("auto_eject_hosts");
    // Clients say it to us, and we to the servers.
    let auth = draft.redis_auth.as_ref().map(|password| Credentials {
        username: None,
        password: Secret::new(password.value.as_str()),
    });
    let listen: Vec<ListenAddress> = draft
        .listen
        .map(|listen| listen.value.1)
        .into_iter()
        .collect();
    PoolConfig {
        name: draft.name.value,
        protocol,
        listen,
        backlog,
        layout,
        database: database
            .and_then(|database| u16::try_from(database).ok())
            .unwrap_or_default(),
        timeouts,
        eject: EjectConfig {
            enabled: ejects,
            failures: failures.clamp(1, FAILURES_MAX),
            retry_after: millis(retry_ms.max(1)),
        },
        upstream: UpstreamConfig {
            connect_timeout: timeouts.connect,
            request_timeout: timeouts.request,
            connections: u16::try_from(connections).unwrap_or(u16::MAX),
            preconnect,
            credentials: auth.clone(),
            ..UpstreamConfig::default()
        },
        limits: PoolLimits {
            clients_max: clients.map(|clients| clients as usize),
            ..PoolLimits::default()
        },
        compat: Compat::default(),
        auth,
        allow_flush: false,
    }
}
