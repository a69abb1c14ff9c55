//! The reading side of latencies: what every worker counted of a shard is added
//! up, and only then are quantiles taken. (A mean of quantiles is no quantile.)
//!
//! ```text
//! worker 0's buckets --+
//! worker 1's buckets --+--> one histogram --> quantiles, count
//! ended workers'     --+
//! ```
//!
//! Invariant: the histogram's buckets are those the workers count in, so that
//! adding up loses nothing: a quantile is at most a sixteenth above the latency
//! it stands for. Beyond `LATENCY_US_MAX` it says that limit; the sum is exact.

use std::collections::BTreeMap;
use std::fmt::{Error, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::latency::{CommandClass, LATENCY_US_MAX, Latencies};
use super::pool::ShardCounters;
use super::registry::{Blocks, PoolSeries};
use super::render::PREFIX;

/// One significant digit is 16 buckets to a doubling: those of `latency.rs`.
const SIGNIFICANT_DIGITS: u8 = 1;
/// Rendered of each series; the last is the maximum.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];
const FAMILY: &str = "shard_latency_seconds";
const HELP: &str = "Time from sending a request to its reply, by class of command";

/// What one shard took to answer requests, those aside that wait for others.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ShardLatencySummary {
    /// Name of the shard.
    pub shard: String,
    /// Replies that were counted.
    pub replies: u64,
    /// Half of them took at most this long.
    pub p50_us: u64,
    /// All but a hundredth took at most this long.
    pub p99_us: u64,
}

impl ShardLatencySummary {
    pub(super) fn of(shard: &str, blocks: &Blocks<ShardCounters>) -> Self {
        let mut merged = Merged::new();
        for class in CommandClass::ALL {
            if class != CommandClass::Waiting {
                merged.add_all(blocks, class);
            }
        }
        Self {
            shard: shard.to_owned(),
            replies: merged.count(),
            p50_us: merged.quantile_us(0.5),
            p99_us: merged.quantile_us(0.99),
        }
    }
}

/// Latencies of several blocks, added up.
struct Merged {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Merged {
    fn new() -> Self {
        #[expect(clippy::expect_used, reason = "it fails on wrong constants only")]
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
            .expect("bounds and digits of a histogram");
        Self {
            histogram,
            sum_us: 0,
        }
    }

    fn clear(&mut self) {
        self.histogram.reset();
        self.sum_us = 0;
    }

    fn add_all(&mut self, blocks: &Blocks<ShardCounters>, class: CommandClass) {
        let counted = blocks.all().filter_map(|block| block.latency.of(class));
        counted.for_each(|latencies| self.add(latencies));
    }

    fn add(&mut self, latencies: &Latencies) {
        for (highest_us, count) in latencies.counts() {
            self.histogram.saturating_record_n(highest_us, count);
        }
        self.sum_us = self.sum_us.wrapping_add(latencies.sum_us());
    }

    fn count(&self) -> u64 {
        self.histogram.len()
    }

    fn quantile_us(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }
}

/// Appends the family to the text of `/metrics`. A class that a shard has not
/// answered yet has no series.
pub(super) fn encode(text: &mut String, pools: &BTreeMap<String, PoolSeries>) -> Result<(), Error> {
    let name = format!("{PREFIX}_{FAMILY}");
    writeln!(text, "# HELP {name} {HELP}")?;
    writeln!(text, "# TYPE {name} summary")?;
    writeln!(text, "# UNIT {name} seconds")?;
    let mut merged = Merged::new();
    for (pool, series) in pools {
        for (shard, blocks) in &series.shards {
            for class in CommandClass::ALL {
                merged.clear();
                merged.add_all(blocks, class);
                if merged.count() > 0 {
                    let (pool, shard) = (escaped(pool), escaped(shard));
                    let class = class.label();
                    let labels = format!("pool=\"{pool}\",shard=\"{shard}\",class=\"{class}\"");
                    encode_series(text, &name, &labels, &merged)?;
                }
            }
        }
    }
    Ok(())
}

fn encode_series(
    text: &mut String,
    name: &str,
    labels: &str,
    merged: &Merged,
) -> Result<(), Error> {
    for quantile in QUANTILES {
        let value = seconds(merged.quantile_us(quantile));
        writeln!(text, "{name}{{{labels},quantile=\"{quantile:?}\"}} {value}")?;
    }
    writeln!(text, "{name}_sum{{{labels}}} {}", seconds(merged.sum_us))?;
    writeln!(text, "{name}_count{{{labels}}} {}", merged.count())
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// As the value of a label.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::latency::ShardLatency;
    use crate::metrics::registry::Registry;

    #[test]
    fn the_histogram_has_the_buckets_of_the_workers() {
        let histogram = Merged::new().histogram;
        let mut below = None;
        for us in (0..20_000).chain((20_000..LATENCY_US_MAX).step_by(9_973)) {
            let latency = ShardLatency::default();
            latency.record(CommandClass::Read, us, 1);
            let counted = latency.of(CommandClass::Read).unwrap();
            let (highest_us, _) = counted.counts().next().unwrap();
            assert_eq!(histogram.highest_equivalent(us), highest_us, "{us}");
            assert!(below <= Some(highest_us), "{us}");
            below = Some(highest_us);
        }
    }

    #[test]
    fn quantiles_are_those_of_all_workers_together_also_of_ended_ones() {
        let registry = Registry::new();
        let quick = registry.shard_counters("cache", "s1");
        let slow = registry.shard_counters("cache", "s1");
        let ended = registry.shard_counters("cache", "s1");
        quick.latency.record(CommandClass::Read, 10, 980);
        quick.latency.record(CommandClass::Write, 5, 1);
        slow.latency.record(CommandClass::Read, 1_000, 10);
        ended.latency.record(CommandClass::Read, 2_000_000, 9);
        ended.latency.record(CommandClass::Read, 300_000_000, 1);
        drop(ended);
        let other = registry.shard_counters("cache", "s\"2");
        other.latency.record(CommandClass::Part, 0, 1);

        // The mean of the workers' medians would be 0.68 s.
        let expected = r#"
# HELP keyferry_shard_latency_seconds Time from sending a request to its reply, by class of command
# TYPE keyferry_shard_latency_seconds summary
# UNIT keyferry_shard_latency_seconds seconds
keyferry_shard_latency_seconds{pool="cache",shard="s\"2",class="part",quantile="0.5"} 0
keyferry_shard_latency_seconds{pool="cache",shard="s\"2",class="part",quantile="0.9"} 0
keyferry_shard_latency_seconds{pool="cache",shard="s\"2",class="part",quantile="0.99"} 0
keyferry_shard_latency_seconds{pool="cache",shard="s\"2",class="part",quantile="0.999"} 0
keyferry_shard_latency_seconds{pool="cache",shard="s\"2",class="part",quantile="1.0"} 0
keyferry_shard_latency_seconds_sum{pool="cache",shard="s\"2",class="part"} 0
keyferry_shard_latency_seconds_count{pool="cache",shard="s\"2",class="part"} 1
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="read",quantile="0.5"} 0.00001
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="read",quantile="0.9"} 0.00001
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="read",quantile="0.99"} 0.001023
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="read",quantile="0.999"} 2.031615
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="read",quantile="1.0"} 134.217727
keyferry_shard_latency_seconds_sum{pool="cache",shard="s1",class="read"} 318.0198
keyferry_shard_latency_seconds_count{pool="cache",shard="s1",class="read"} 1000
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="write",quantile="0.5"} 0.000005
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="write",quantile="0.9"} 0.000005
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="write",quantile="0.99"} 0.000005
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="write",quantile="0.999"} 0.000005
keyferry_shard_latency_seconds{pool="cache",shard="s1",class="write",quantile="1.0"} 0.000005
keyferry_shard_latency_seconds_sum{pool="cache",shard="s1",class="write"} 0.000005
keyferry_shard_latency_seconds_count{pool="cache",shard="s1",class="write"} 1
# EOF
"#;
        for _ in 0..2 {
            let text = registry.render();
            assert!(text.ends_with(expected.trim_start()), "{text}");
        }
        let all = registry.shard_latencies("cache");
        assert_eq!(
            all.last(),
            Some(&ShardLatencySummary {
                shard: "s1".to_owned(),
                replies: 1001,
                p50_us: 10,
                p99_us: 1_023,
            })
        );
        assert_eq!(registry.shard_latencies("none"), []);
    }
}
