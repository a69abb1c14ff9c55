//! Text of `/metrics`: one family after another, pools and shards in order of
//! their names. `prometheus-client` adds `_total` to the names of counters; it
//! has no summaries, so that `summary.rs` writes theirs.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry as TextRegistry;

use super::ejections::EjectionState;
use super::pool::{ErrorKind, PoolCounters, ShardCounters};
use super::registry::{PoolSeries, Registry};
use super::summary;

pub(super) const PREFIX: &str = "keyferry";

struct Family<B> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of: fn(&B) -> u64,
}

const fn counter<B>(name: &'static str, help: &'static str, of: fn(&B) -> u64) -> Family<B> {
    let kind = MetricType::Counter;
    Family {
        name,
        help,
        kind,
        of,
    }
}

const fn gauge<B>(name: &'static str, help: &'static str, of: fn(&B) -> u64) -> Family<B> {
    let kind = MetricType::Gauge;
    Family {
        name,
        help,
        kind,
        of,
    }
}

const POOL_FAMILIES: [Family<PoolCounters>; 14] = [
    gauge("clients", "Clients connected now", |c| c.clients.value()),
    counter("client_connections", "Clients accepted", |c| {
        c.clients_total.value()
    }),
    counter(
        "clients_handed_over",
        "Clients given to another worker than the one that accepted them",
        |c| c.clients_handed_over.value(),
    ),
    counter(
        "clients_overrun",
        "Clients closed because they did not read their replies",
        |c| c.clients_overrun_total.value(),
    ),
    counter("client_eofs", "Clients that closed first", |c| {
        c.client_eofs_total.value()
    }),
    counter("client_errors", "Clients whose connection broke", |c| {
        c.client_errors_total.value()
    }),
    counter("requests", "Requests read from clients", |c| {
        c.requests_total.value()
    }),
    counter("replies", "Replies written to clients", |c| {
        c.replies_total.value()
    }),
    counter(
        "large_requests",
        "Requests passed on while they arrived",
        |c| c.large_requests_total.value(),
    ),
    counter(
        "large_replies",
        "Replies passed on while they arrived",
        |c| c.large_replies_total.value(),
    ),
    counter("client_received_bytes", "Bytes read from clients", |c| {
        c.client_bytes_in.value()
    }),
    counter("client_sent_bytes", "Bytes written to clients", |c| {
        c.client_bytes_out.value()
    }),
    gauge("held_requests", "Requests a switch holds now", |c| {
        c.held_requests.value()
    }),
    gauge(
        "held_bytes",
        "Bytes of the requests a switch holds now",
        |c| c.held_bytes.value(),
    ),
];

const SHARD_FAMILIES: [Family<ShardCounters>; 11] = [
    gauge(
        "shard_connections",
        "Connections to the shard that are up",
        |c| c.connections.value(),
    ),
    counter("shard_connects", "Connections made to the shard", |c| {
        c.connects_total.value()
    }),
    counter(
        "shard_failures",
        "Connections to the shard that failed or were lost",
        |c| c.failures_total.value(),
    ),
    counter(
        "shard_eofs",
        "Connections that the shard closed, also idle ones",
        |c| c.eofs_total.value(),
    ),
    counter(
        "shard_errors",
        "Connections lost or not made, but by no timeout",
        |c| c.errors_total.value(),
    ),
    counter(
        "shard_timeouts",
        "Connections ended because they or a reply took too long",
        |c| c.timeouts_total.value(),
    ),
    counter("shard_requests", "Requests sent to the shard", |c| {
        c.requests_total.value()
    }),
    counter("shard_replies", "Replies received from the shard", |c| {
        c.replies_total.value()
    }),
    gauge(
        "shard_in_flight_requests",
        "Requests the shard has not answered yet",
        |c| c.in_flight.value(),
    ),
    counter("shard_received_bytes", "Bytes read from the shard", |c| {
        c.bytes_in.value()
    }),
    counter("shard_sent_bytes", "Bytes written to the shard", |c| {
        c.bytes_out.value()
    }),
];

const EJECTION_FAMILIES: [Family<EjectionState>; 2] = [
    gauge("shard_ejected", "Whether the shard is ejected now", |s| {
        u64::from(s.is_out)
    }),
    counter("shard_ejects", "How often the shard was ejected", |s| {
        s.ejects
    }),
];

/// Renders all families of `registry`.
pub(super) fn text(registry: &Arc<Registry>) -> String {
    let mut families = TextRegistry::with_prefix(PREFIX);
    families.register_collector(Box::new(Arc::clone(registry)));
    let mut text = String::new();
    // Writing to a String has no error of its own, and none of ours exists.
    let _ = encode_registry(&mut text, &families)
        .and_then(|()| summary::encode(&mut text, &registry.swept()))
        .and_then(|()| encode_eof(&mut text));
    text
}

impl Collector for Registry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        encode_process(self, &mut encoder)?;
        encode_calls(self, &mut encoder)?;
        let pools = self.swept();
        let mut epochs = encoder.encode_descriptor(
            "pool_epoch",
            "Number of the layout in use",
            None,
            MetricType::Gauge,
        )?;
        for (pool, series) in pools.iter() {
            let labels = [("pool", pool.as_str())];
            put(
                &mut epochs.encode_family(&labels)?,
                MetricType::Gauge,
                series.state.epoch.value(),
            )?;
        }
        for family in &POOL_FAMILIES {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (pool, series) in pools.iter() {
                let labels = [("pool", pool.as_str())];
                put(
                    &mut metric.encode_family(&labels)?,
                    family.kind,
                    series.clients.sum(family.of),
                )?;
            }
        }
        encode_workers(&mut encoder, pools.iter())?;
        encode_errors(&mut encoder, pools.iter())?;
        for family in &SHARD_FAMILIES {
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (pool, series) in pools.iter() {
                for (shard, blocks) in &series.shards {
                    let labels = [("pool", pool.as_str()), ("shard", shard.as_str())];
                    put(
                        &mut metric.encode_family(&labels)?,
                        family.kind,
                        blocks.sum(family.of),
                    )?;
                }
            }
        }
        encode_ejections(&mut encoder, &pools)
    }
}

fn encode_ejections(
    encoder: &mut DescriptorEncoder<'_>,
    pools: &BTreeMap<String, PoolSeries>,
) -> Result<(), Error> {
    for Family {
        name,
        help,
        kind,
        of,
    } in EJECTION_FAMILIES
    {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (pool, series) in pools {
            for shard in series.shards.keys() {
                let labels = [("pool", pool.as_str()), ("shard", shard.as_str())];
                let value = of(&series.state.ejections.of(shard));
                put(&mut metric.encode_family(&labels)?, kind, value)?;
            }
        }
    }
    Ok(())
}

fn encode_process(registry: &Registry, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let process = registry.process();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    let mut info =
        encoder.encode_descriptor("build", "Version of this binary", None, MetricType::Info)?;
    info.encode_info(&version)?;
    let numbers = [
        (
            "workers",
            "Worker threads that run",
            MetricType::Gauge,
            process.workers.value(),
        ),
        (
            "config_reloads",
            "Config reloads applied, also those that changed nothing",
            MetricType::Counter,
            process.config_reloads.value(),
        ),
        (
            "config_reload_failures",
            "Config reloads refused; the old config stayed",
            MetricType::Counter,
            process.config_reload_failures.value(),
        ),
    ];
    for (name, help, kind, value) in numbers {
        put(
            &mut encoder.encode_descriptor(name, help, None, kind)?,
            kind,
            value,
        )?;
    }
    Ok(())
}

fn encode_calls(registry: &Registry, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "System calls of a worker's turns, by what they do";
    let kind = MetricType::Counter;
    let mut metric = encoder.encode_descriptor("worker_syscalls", help, None, kind)?;
    for (worker, calls) in registry.calls().iter() {
        let worker = worker.to_string();
        for (op, count) in calls.by_op() {
            let labels = [("worker", worker.as_str()), ("op", op)];
            put(&mut metric.encode_family(&labels)?, kind, count.value())?;
        }
    }
    Ok(())
}

fn encode_workers<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    pools: impl Iterator<Item = (&'a String, &'a PoolSeries)>,
) -> Result<(), Error> {
    let help = "Clients connected now, by the worker that serves them";
    let mut metric = encoder.encode_descriptor("worker_clients", help, None, MetricType::Gauge)?;
    for (pool, series) in pools {
        // A pool that was closed and opened again may end in a worker that has
        // it anew already.
        let mut clients = BTreeMap::<u64, u64>::new();
        for block in series.clients.live() {
            *clients.entry(block.worker).or_default() += block.clients.value();
        }
        for (worker, value) in clients {
            let worker = worker.to_string();
            let labels = [("pool", pool.as_str()), ("worker", worker.as_str())];
            put(
                &mut metric.encode_family(&labels)?,
                MetricType::Gauge,
                value,
            )?;
        }
    }
    Ok(())
}

fn encode_errors<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    pools: impl Iterator<Item = (&'a String, &'a PoolSeries)>,
) -> Result<(), Error> {
    let help = "Errors the proxy made, by kind";
    let mut metric = encoder.encode_descriptor("errors", help, None, MetricType::Counter)?;
    for (pool, series) in pools {
        for kind in ErrorKind::ALL {
            let labels = [("pool", pool.as_str()), ("kind", kind.label())];
            let value = series.clients.sum(|c| c.errors.of(kind).value());
            put(
                &mut metric.encode_family(&labels)?,
                MetricType::Counter,
                value,
            )?;
        }
    }
    Ok(())
}

fn put(metric: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> Result<(), Error> {
    match kind {
        MetricType::Counter => {
            metric.encode_counter(&value, None::<&Exemplar<[(&str, &str); 0], u64>>)
        }
        _ => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_workers_are_added_up() {
        let registry = Registry::new();
        registry.pool_state("cache").epoch.set(7);
        let first = registry.pool_counters("cache", 0);
        let second = registry.pool_counters("cache", 1);
        first.requests_total.add(3);
        second.requests_total.add(4);
        second.clients.add(2);
        first.clients_handed_over.add(6);
        second.clients_overrun_total.inc();
        second.errors.of(ErrorKind::Timeout).inc();
        let shard = registry.shard_counters("cache", "s1");
        shard.connections.set(1);
        registry.pool_state("cache").ejections.out("s1", 5);
        registry.process().config_reload_failures.inc();
        registry.worker_calls(1).reads.add(8);
        registry.worker_calls(1).reads.inc();

        let text = registry.render();
        for line in [
            "# TYPE keyferry_requests counter",
            "keyferry_requests_total{pool=\"cache\"} 7",
            "keyferry_clients{pool=\"cache\"} 2",
            "keyferry_worker_clients{pool=\"cache\",worker=\"0\"} 0",
            "keyferry_worker_clients{pool=\"cache\",worker=\"1\"} 2",
            "keyferry_clients_handed_over_total{pool=\"cache\"} 6",
            "keyferry_clients_overrun_total{pool=\"cache\"} 1",
            "keyferry_pool_epoch{pool=\"cache\"} 7",
            "keyferry_errors_total{pool=\"cache\",kind=\"timeout\"} 1",
            "keyferry_errors_total{pool=\"cache\",kind=\"protocol\"} 0",
            "keyferry_shard_connections{pool=\"cache\",shard=\"s1\"} 1",
            "keyferry_config_reload_failures_total 1",
            "keyferry_shard_ejected{pool=\"cache\",shard=\"s1\"} 1",
            "keyferry_shard_ejects_total{pool=\"cache\",shard=\"s1\"} 1",
            "keyferry_worker_syscalls_total{worker=\"1\",op=\"read\"} 9",
            "keyferry_worker_syscalls_total{worker=\"1\",op=\"write\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in:\n{text}");
        }
    }

    #[test]
    fn counters_outlive_their_worker_and_gauges_do_not() {
        let registry = Registry::new();
        let ended = registry.pool_counters("cache", 0);
        ended.replies_total.add(5);
        ended.clients.add(1);
        drop(ended);
        let _running = registry.pool_counters("cache", 0);
        for _ in 0..2 {
            let text = registry.render();
            assert!(
                text.contains("keyferry_replies_total{pool=\"cache\"} 5\n"),
                "{text}"
            );
            assert!(
                text.contains("keyferry_clients{pool=\"cache\"} 0\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_shard_nobody_serves_has_no_series() {
        let registry = Registry::new();
        let shard = registry.shard_counters("cache", "s1");
        shard.connects_total.inc();
        drop(shard);
        assert!(!registry.render().contains("s1"));
    }
}
