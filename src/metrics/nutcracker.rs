//! The statistics of twemproxy: one JSON object with its names, its order and
//! its punctuation, for the scripts that read its port 22222.
//!
//! ```text
//! {"service":"nutcracker", ..., "alpha": {"client_eof":0, ..., "s1": {"server_eof":0,
//! ...},"s2": {...}},"beta": {...}}}
//! ```
//! Pools and servers come in twemproxy's order: shorter names first, equal
//! lengths by bytes. `fragments` is always 0, as in the original. `in_queue` and `in_queue_bytes` are 0, since what is queued in a turn
//! is written in it; `out_queue_bytes` is not counted.

use std::fmt::Write;

use super::ejections::EjectionState;
use super::pool::{ErrorKind, PoolCounters, ShardCounters};
use super::registry::{Blocks, PoolSeries, Registry};

/// What the object says about the process.
#[derive(Debug, Clone, Copy)]
pub struct StatsSource<'a> {
    /// Name of this host.
    pub host: &'a str,
    /// Version of the service.
    pub version: &'a str,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Seconds since 1970.
    pub now_s: u64,
}

type Field<B> = (&'static str, fn(&Blocks<B>, EjectionState) -> u64);

const POOL_FIELDS: [Field<PoolCounters>; 6] = [
    ("client_eof", |all, _| {
        all.sum(|c| c.client_eofs_total.value())
    }),
    ("client_err", |all, _| {
        all.sum(|c| c.client_errors_total.value())
    }),
    ("client_connections", |all, _| {
        all.live().map(|c| c.clients.value()).sum()
    }),
    ("server_ejects", |_, ejected| ejected.ejects),
    ("forward_error", |all, _| {
        let unanswered = [ErrorKind::ShardDown, ErrorKind::Timeout];
        let of = |kind| all.sum(|c| c.errors.of(kind).value());
        unanswered.into_iter().map(of).sum()
    }),
    ("fragments", |_, _| 0),
];

const SERVER_FIELDS: [Field<ShardCounters>; 13] = [
    ("server_eof", |all, _| all.sum(|c| c.eofs_total.value())),
    ("server_err", |all, _| all.sum(|c| c.errors_total.value())),
    ("server_timedout", |all, _| {
        all.sum(|c| c.timeouts_total.value())
    }),
    ("server_connections", |all, _| {
        all.live().map(|c| c.connections.value()).sum()
    }),
    ("server_ejected_at", |_, ejected| ejected.last_at_us),
    ("requests", |all, _| all.sum(|c| c.requests_total.value())),
    ("request_bytes", |all, _| all.sum(|c| c.bytes_out.value())),
    ("responses", |all, _| all.sum(|c| c.replies_total.value())),
    ("response_bytes", |all, _| all.sum(|c| c.bytes_in.value())),
    ("in_queue", |_, _| 0),
    ("in_queue_bytes", |_, _| 0),
    ("out_queue", |all, _| {
        all.live().map(|c| c.in_flight.value()).sum()
    }),
    ("out_queue_bytes", |_, _| 0),
];

/// The object and a newline.
pub(super) fn text(registry: &Registry, source: &StatsSource<'_>) -> String {
    let pools = registry.swept();
    let served = pools
        .iter()
        .filter(|(_, pool)| pool.clients.live().next().is_some());
    let mut served: Vec<(&String, &PoolSeries)> = served.collect();
    served.sort_by_key(|(name, _)| (name.len(), *name));
    let (mut total, mut current) = (0, 0);
    for (_, pool) in &served {
        // One listener a pool is a connection, too.
        total += 1 + pool.clients.sum(|c| c.clients_total.value());
        current += 1 + pool.clients.live().map(|c| c.clients.value()).sum::<u64>();
        for shard in pool.shards.values() {
            total += shard.sum(|c| c.connects_total.value());
            current += shard.live().map(|c| c.connections.value()).sum::<u64>();
        }
    }
    let mut text = String::from("{");
    let StatsSource {
        host,
        version,
        uptime_s,
        now_s,
    } = source;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\"service\":\"nutcracker\", \"source\":\"{}\", \"version\":\"{}\", \"uptime\":{uptime_s}, \
         \"timestamp\":{now_s}, \"total_connections\":{total}, \"curr_connections\":{current}, ",
        escaped(host),
        escaped(version)
    );
    let pools: Vec<String> = served
        .iter()
        .map(|(name, pool)| object(name, pool))
        .collect();
    text.push_str(&pools.join(","));
    text.push_str("}\n");
    text
}

fn object(name: &str, pool: &PoolSeries) -> String {
    let mut text = format!("\"{}\": {{", escaped(name));
    let ejections = &pool.state.ejections;
    let all = EjectionState {
        ejects: ejections.ejects(),
        ..EjectionState::default()
    };
    fields(&mut text, &POOL_FIELDS, &pool.clients, all);
    text.push_str(", ");
    let mut shards: Vec<(&String, &Blocks<ShardCounters>)> = pool.shards.iter().collect();
    shards.sort_by_key(|(name, _)| (name.len(), *name));
    for (index, (name, blocks)) in shards.into_iter().enumerate() {
        let before = if index == 0 { "" } else { "," };
        let _ = write!(text, "{before}\"{}\": {{", escaped(name));
        fields(&mut text, &SERVER_FIELDS, blocks, ejections.of(name));
        text.push('}');
    }
    text.push('}');
    text
}

fn fields<B>(text: &mut String, fields: &[Field<B>], blocks: &Blocks<B>, ejected: EjectionState) {
    for (index, (name, of)) in fields.iter().enumerate() {
        let before = if index == 0 { "" } else { ", " };
        let _ = write!(text, "{before}\"{name}\":{}", of(blocks, ejected));
    }
}

/// As part of a JSON string; the original would break on a quotation mark.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_punctuated_as_the_original_does() {
        let registry = Registry::new();
        let clients = registry.pool_counters("alpha", 0);
        let _other = registry.pool_counters("be", 0);
        clients.clients_total.add(5);
        clients.clients.add(2);
        clients.errors.of(ErrorKind::Timeout).add(3);
        let _ten = registry.shard_counters("alpha", "10.0.0.10:1");
        let nine = registry.shard_counters("alpha", "10.0.0.9:1");
        nine.requests_total.add(7);
        nine.connections.add(1);
        nine.connects_total.add(4);
        let ejections = &registry.pool_state("alpha").ejections;
        ejections.out("10.0.0.10:1", 5);
        ejections.back("10.0.0.10:1");
        ejections.out("10.0.0.10:1", 7);
        let source = StatsSource {
            host: "h",
            version: "1",
            uptime_s: 9,
            now_s: 99,
        };
        let zeros = "\"server_ejects\":0, \"forward_error\":0, \"fragments\":0, ";
        let server = |connections, ejected_at, requests| {
            format!(
                "\"server_eof\":0, \"server_err\":0, \"server_timedout\":0, \"server_connections\":{connections}, \
                 \"server_ejected_at\":{ejected_at}, \"requests\":{requests}, \"request_bytes\":0, \"responses\":0, \
                 \"response_bytes\":0, \"in_queue\":0, \"in_queue_bytes\":0, \"out_queue\":0, \"out_queue_bytes\":0"
            )
        };
        assert_eq!(
            registry.nutcracker_stats(&source),
            format!(
                "{{\"service\":\"nutcracker\", \"source\":\"h\", \"version\":\"1\", \"uptime\":9, \"timestamp\":99, \
                 \"total_connections\":11, \"curr_connections\":5, \
                 \"be\": {{\"client_eof\":0, \"client_err\":0, \"client_connections\":0, {zeros}}},\
                 \"alpha\": {{\"client_eof\":0, \"client_err\":0, \"client_connections\":2, {}\
                 \"10.0.0.9:1\": {{{}}},\"10.0.0.10:1\": {{{}}}}}}}\n",
                zeros
                    .replace("forward_error\":0", "forward_error\":3")
                    .replace("server_ejects\":0", "server_ejects\":2"),
                server(1, 0, 7),
                server(0, 7, 0)
            )
        );
    }
}
