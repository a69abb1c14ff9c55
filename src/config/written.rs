//! A config as TOML text that reads back as the same pools.
//!
//! Invariant: [`to_toml`] hands out only a text that it has read back itself,
//! and whose pools, and thus layouts, are equal to those it was given.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::proxy::config::{Compat, EjectConfig, PoolConfig, PoolLimits, Protocol, Timeouts};
use crate::reuseport::listener::BACKLOG_DEFAULT;
use crate::router::spec::ShardSpec;
use crate::upstream::config::{Credentials, UpstreamConfig};

use super::process::Config;

/// A config that TOML cannot say.
#[derive(Debug, thiserror::Error)]
pub enum UnwritableConfig {
    /// The text is wrong.
    #[error("the pools cannot be written as TOML: {0}")]
    Wrong(String),
    /// The text means something else.
    #[error("pool `{0}` would mean something else as TOML")]
    Different(String),
}

/// The pools of `config`, the rest as by default. A key whose value is the
/// default of TOML is left out, unless twemproxy's default is another one.
///
/// # Errors
/// Some value has no TOML form, such as a secret that begins with `file:`.
pub fn to_toml(config: &Config) -> Result<String, UnwritableConfig> {
    let mut text = String::new();
    for pool in &config.pools {
        write_pool(&mut text, pool);
    }
    let file = Path::new("converted.toml");
    let read = super::parse(file, &text, &|_| None)
        .map_err(|error| UnwritableConfig::Wrong(error.to_string()))?;
    let pairs = config.pools.iter().zip(&read.pools);
    for (given, read) in pairs {
        if given != read {
            return Err(UnwritableConfig::Different(given.name.clone()));
        }
    }
    Ok(text)
}

fn write_pool(text: &mut String, pool: &PoolConfig) {
    let name = key(&pool.name);
    let listen: Vec<String> = pool
        .listen
        .iter()
        .map(|at| quoted(&at.to_string()))
        .collect();
    let layout = &pool.layout;
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("[pool.{name}]"));
    if pool.protocol != Protocol::default() {
        line(
            "# redis: false, twemproxy's default. Without this line the shards are Redis's."
                .to_owned(),
        );
        line(format!("protocol = \"{}\"", pool.protocol.name()));
    }
    line(format!("listen = [{}]", listen.join(", ")));
    if pool.backlog != BACKLOG_DEFAULT {
        line(format!(
            "# For each worker. Without this line it is {BACKLOG_DEFAULT}; twemproxy's default is 512."
        ));
        line(format!("backlog = {}", pool.backlog));
    }
    line(format!("hash = \"{}\"", layout.hash));
    line(format!("distribution = \"{}\"", layout.distribution));
    if let Some(tag) = layout.hash_tag {
        line(format!("hash_tag = {}", quoted(&tag.to_string())));
    }
    if pool.database != 0 {
        line(
            "# redis_db. Unlike twemproxy's, it also holds for shards on unix sockets.".to_owned(),
        );
        line(format!("database = {}", pool.database));
    }
    write_timeouts(&mut line, pool);
    write_eject(&mut line, pool.eject);
    write_upstream(&mut line, &pool.upstream);
    write_limits(&mut line, &pool.limits);
    if let Some(auth) = &pool.auth {
        line(format!("auth = {{ {} }}", written_credentials(auth)));
    }
    line(format!(
        "# \"redis\": unlike twemproxy, a command that is not taken gets an error, and the client\n\
          # stays. \"twemproxy\": connections close where the original closes them.\n\
          compat = \"{}\"",
        match pool.compat {
            Compat::Redis => "redis",
            Compat::Twemproxy => "twemproxy",
        }
    ));
    for shard in &layout.shards {
        line(String::new());
        line(format!("[[pool.{name}.shard]]"));
        write_shard(&mut line, shard);
    }
    line(String::new());
}

fn write_timeouts(line: &mut impl FnMut(String), pool: &PoolConfig) {
    let Timeouts {
        connect,
        request,
        idle,
    } = pool.timeouts;
    if request.is_none() {
        line(
            "# No `timeout:` was written, so a reply is waited for without end, as by twemproxy.\n\
             # Connecting is given a second; twemproxy leaves it to the system, about two minutes."
                .to_owned(),
        );
    }
    line(format!(
        "timeout = {{ connect = \"{}\", request = \"{}\", idle = \"{}\" }}",
        duration(Some(connect)),
        duration(request),
        duration(idle)
    ));
}

fn write_eject(line: &mut impl FnMut(String), eject: EjectConfig) {
    if eject.enabled {
        line(
            "# A shard that was ejected is let in again when a probe of ours finds it well;\n\
              # twemproxy lets it in by the clock, and requests find out."
                .to_owned(),
        );
    }
    line(format!(
        "# auto_eject_hosts, server_failure_limit and server_retry_timeout.\n\
         eject = {{ enabled = {}, failures = {}, retry_after = \"{}\" }}",
        eject.enabled,
        eject.failures,
        duration(Some(eject.retry_after))
    ));
}

fn write_upstream(line: &mut impl FnMut(String), upstream: &UpstreamConfig) {
    line(
        "# Connections are for each worker; twemproxy has one thread. tcp_keepalive is of\n\
          # connections to shards; those of clients always have it (tcpkeepalive: true)."
            .to_owned(),
    );
    let mut fields = format!(
        "connections = {}, preconnect = {}, tcp_keepalive = {}",
        upstream.connections, upstream.preconnect, upstream.tcp_keepalive
    );
    if let Some(credentials) = &upstream.credentials {
        // Writing to a String cannot fail.
        let _ = write!(fields, ", {}", written_credentials(credentials));
    }
    line(format!("upstream = {{ {fields} }}"));
}

fn written_credentials(credentials: &Credentials) -> String {
    let password = quoted(credentials.password.reveal());
    match &credentials.username {
        Some(username) => format!("username = {}, password = {password}", quoted(username)),
        None => format!("password = {password}"),
    }
}

fn write_limits(line: &mut impl FnMut(String), limits: &PoolLimits) {
    if let Some(clients) = limits.clients_max {
        line(format!(
            "# client_connections, which twemproxy reads and ignores; here it is a limit.\n\
             limits = {{ max_clients = {clients} }}"
        ));
    }
}

fn write_shard(line: &mut impl FnMut(String), shard: &ShardSpec) {
    match &shard.name {
        Some(name) => line(format!("name = {}", quoted(name))),
        None => line(
            "# Without a name the address decides which keys are here: do not rewrite it."
                .to_owned(),
        ),
    }
    line(format!("addr = {}", quoted(&shard.addr)));
    line(format!("weight = {}", shard.weight));
}

fn duration(duration: Option<Duration>) -> String {
    match duration {
        Some(duration) => humantime::format_duration(duration).to_string(),
        None => "0s".to_owned(),
    }
}

/// As a TOML key; a dot would part it.
fn key(name: &str) -> String {
    match name.contains('.') {
        true => quoted(name),
        false => name.to_owned(),
    }
}

/// As a TOML string; control characters become escapes.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
