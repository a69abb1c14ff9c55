//! What a client may ask about "the server" it believes it talks to: INFO,
//! CONFIG GET, ROLE, SLOWLOG, LATENCY. The shape is Redis's; the facts are the
//! proxy's own, and what the proxy has none of is left out or empty.

use std::fmt::Write;
use std::time::Duration;

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::errors::ErrorReply;

use super::config::BULK_BYTES_MAX;
use super::config::DATABASES;
use super::core::PoolCore;
use super::describe::{map_header, text};
use super::glob::{self, Case};
use super::local::REDIS_VERSION;

/// The sections INFO knows, in the order it prints them.
const SECTIONS: [&str; 8] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cluster",
    "keyspace",
];

/// The reply to INFO, with the sections that were asked for.
pub(super) fn info(core: &PoolCore, args: &Request<'_>, protocol: u8, out: &mut Vec<u8>) {
    let wanted = |section: &str| {
        args.len() == 1
            || (1..args.len()).any(|index| {
                let word = args.arg(index);
                [section, "all", "default", "everything"]
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
            })
    };
    let mut lines = String::new();
    for section in SECTIONS.into_iter().filter(|section| wanted(section)) {
        if !lines.is_empty() {
            lines.push_str("\r\n");
        }
        // Writing to a String never fails.
        let _ = write_section(core, section, &mut lines);
    }
    text(protocol, &lines, out);
}

fn write_section(core: &PoolCore, section: &str, lines: &mut String) -> std::fmt::Result {
    let totals = || core.registry.pool_totals(&core.config.name);
    match section {
        "server" => {
            let uptime_s = core.now_ms() / 1_000;
            write!(
                lines,
                "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n\
                 os:{}\r\narch_bits:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{uptime_s}\r\n\
                 uptime_in_days:{}\r\nkeyferry_version:{}\r\nkeyferry_pool:{}\r\n\
                 keyferry_epoch:{}\r\nkeyferry_shards:{}\r\n",
                std::env::consts::OS,
                usize::BITS,
                std::process::id(),
                uptime_s / 86_400,
                env!("CARGO_PKG_VERSION"),
                core.config.name,
                core.routing.epoch,
                core.routing.layout.shards().len(),
            )
        }
        "clients" => write!(
            lines,
            "# Clients\r\nconnected_clients:{}\r\ncluster_connections:0\r\n",
            totals().clients
        ),
        "memory" => write!(
            lines,
            "# Memory\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n"
        ),
        "persistence" => write!(
            lines,
            "# Persistence\r\nloading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:0\r\n\
             aof_enabled:0\r\naof_rewrite_in_progress:0\r\n"
        ),
        "stats" => {
            let totals = totals();
            write!(
                lines,
                "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
                 total_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\n",
                totals.clients_total, totals.requests_total, totals.bytes_in, totals.bytes_out,
            )
        }
        "replication" => write!(
            lines,
            "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n"
        ),
        "cluster" => write!(lines, "# Cluster\r\ncluster_enabled:0\r\n"),
        // How many keys there are only the shards know: DBSIZE asks them.
        _ => write!(lines, "# Keyspace\r\n"),
    }
}

/// The parameters clients and exporters look at.
fn parameters(core: &PoolCore) -> Vec<(&'static str, String)> {
    let config = &core.config;
    let seconds = |wait: Option<Duration>| wait.map_or(0, |wait| wait.as_secs()).to_string();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let keepalive = if config.upstream.tcp_keepalive {
        "300"
    } else {
        "0"
    };
    vec![
        ("appendonly", yes_no(false)),
        ("cluster-enabled", yes_no(false)),
        (
            "client-query-buffer-limit",
            config.limits.request_bytes_max.to_string(),
        ),
        ("databases", DATABASES.to_string()),
        ("latency-monitor-threshold", "0".to_owned()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", BULK_BYTES_MAX.to_string()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("slowlog-log-slower-than", "-1".to_owned()),
        ("slowlog-max-len", "0".to_owned()),
        ("tcp-keepalive", keepalive.to_owned()),
        ("timeout", seconds(config.timeouts.idle)),
    ]
}

/// CONFIG GET pattern [pattern ...], CONFIG RESETSTAT.
pub(super) fn config(
    core: &PoolCore,
    name: &str,
    args: &Request<'_>,
    protocol: u8,
    out: &mut Vec<u8>,
) {
    if name != "config|get" {
        return write_simple(out, "OK");
    }
    let parameters = parameters(core);
    let found: Vec<(&[u8], &str)> = parameters
        .iter()
        .filter_map(|(name, value)| Some((asked_as(name, args)?, value.as_str())))
        .collect();
    map_header(protocol, found.len(), out);
    for (name, value) in found {
        write_bulk(out, name);
        write_bulk(out, value.as_bytes());
    }
}

/// How CONFIG GET spells a parameter: as it was asked for, if that was no pattern.
fn asked_as<'a>(parameter: &'static str, args: &'a Request<'_>) -> Option<&'a [u8]> {
    let name = parameter.as_bytes();
    let mut asked = (2..args.len()).map(|index| args.arg(index));
    let asked = asked.find(|pattern| glob::fits(pattern, name, Case::Any))?;
    Some(match asked.eq_ignore_ascii_case(name) {
        true => asked,
        false => name,
    })
}

/// ROLE: a master without replicas.
pub(super) fn role(out: &mut Vec<u8>) {
    write_array_header(out, 3);
    write_bulk(out, b"master");
    write_integer(out, 0);
    write_array_header(out, 0);
}

/// SLOWLOG: none is kept here.
pub(super) fn slowlog(name: &str, args: &Request<'_>, out: &mut Vec<u8>) -> Result<(), ErrorReply> {
    match name {
        "slowlog|get" if args.len() > 3 => {
            return Err(ErrorReply::new(
                "ERR wrong number of arguments for 'slowlog|get' command",
            ));
        }
        "slowlog|get" => {
            let count = std::str::from_utf8(args.arg(2)).ok();
            let count = count.and_then(|count| count.parse::<i64>().ok());
            match count {
                None if args.len() == 2 => write_array_header(out, 0),
                Some(-1..) => write_array_header(out, 0),
                None | Some(_) => {
                    return Err(ErrorReply::new(
                        "ERR count should be greater than or equal to -1",
                    ));
                }
            }
        }
        "slowlog|len" => write_integer(out, 0),
        _ => write_simple(out, "OK"),
    }
    Ok(())
}

/// LATENCY: the monitor is off, as Redis's is unless it is turned on.
pub(super) fn latency(
    name: &str,
    args: &Request<'_>,
    protocol: u8,
    out: &mut Vec<u8>,
) -> Result<(), ErrorReply> {
    match name {
        "latency|reset" => write_integer(out, 0),
        "latency|doctor" => text(
            protocol,
            "Latency monitoring is not part of this proxy. What its shards take to answer is in \
             /metrics as keyferry_shard_latency_seconds; ask each shard for its own LATENCY DOCTOR.\n",
            out,
        ),
        "latency|graph" => {
            let event = String::from_utf8_lossy(args.arg(2));
            return Err(ErrorReply::new(format!(
                "ERR No samples available for event '{event}'"
            )));
        }
        "latency|histogram" => map_header(protocol, 0, out),
        _ => write_array_header(out, 0),
    }
    Ok(())
}
