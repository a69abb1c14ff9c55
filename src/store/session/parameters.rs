//! Parameters of CONFIG: their names, what they take, and what they are when nothing is said.
//!
//! All that Redis 7.0 has are here, so that tools find what they look for. Those that this
//! shard acts on are in [`Settings`]; of the others the value is kept and told.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::commands::{NotifyFlags, Settings};

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Takes {
    /// It is what it is.
    Fixed,
    /// One of these, that is read at the start and not set later.
    AtStart(&'static [&'static str]),
    YesNo,
    Integer(i64, i64),
    /// Bytes, with a unit or without.
    Memory,
    /// Bytes, or percent of `maxmemory`.
    MemoryOrPercent,
    Words(&'static [&'static str]),
    Text,
    Events,
    Save,
    OutputLimits,
    Percentiles,
}

use Takes::{
    AtStart, Events, Fixed, Integer, Memory, MemoryOrPercent, OutputLimits, Percentiles, Save,
    Text, Words, YesNo,
};

const INT: Takes = Integer(0, i32::MAX as i64);
const LONG: Takes = Integer(0, i64::MAX);
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

/// Names, what they take, and their defaults; in alphabetical order.
pub(super) const PARAMETERS: &[(&str, Takes, &str)] = &[
    (
        "acl-pubsub-default",
        Words(&["allchannels", "resetchannels"]),
        "resetchannels",
    ),
    ("aclfile", Fixed, ""),
    ("acllog-max-len", LONG, "128"),
    ("active-defrag-cycle-max", Integer(1, 99), "25"),
    ("active-defrag-cycle-min", Integer(1, 99), "1"),
    ("active-defrag-ignore-bytes", Memory, "104857600"),
    (
        "active-defrag-max-scan-fields",
        Integer(1, i64::MAX),
        "1000",
    ),
    ("active-defrag-threshold-lower", Integer(0, 1000), "10"),
    ("active-defrag-threshold-upper", Integer(0, 1000), "100"),
    ("active-expire-effort", Integer(1, 10), "1"),
    ("activedefrag", YesNo, "no"),
    ("activerehashing", YesNo, "yes"),
    ("always-show-logo", Fixed, "no"),
    ("aof-disable-auto-gc", YesNo, "no"),
    ("aof-load-truncated", YesNo, "yes"),
    ("aof-rewrite-incremental-fsync", YesNo, "yes"),
    ("aof-timestamp-enabled", YesNo, "no"),
    ("aof-use-rdb-preamble", YesNo, "yes"),
    ("aof_rewrite_cpulist", Fixed, ""),
    ("appenddirname", Fixed, "appendonlydir"),
    ("appendfilename", Fixed, "appendonly.aof"),
    (
        "appendfsync",
        Words(&["everysec", "always", "no"]),
        "everysec",
    ),
    ("appendonly", YesNo, "yes"),
    ("auto-aof-rewrite-min-size", Memory, "67108864"),
    ("auto-aof-rewrite-percentage", INT, "100"),
    ("bgsave_cpulist", Fixed, ""),
    ("bind", Fixed, "127.0.0.1"),
    ("bind-source-addr", Text, ""),
    ("bio_cpulist", Fixed, ""),
    ("busy-reply-threshold", LONG, "5000"),
    (
        "client-output-buffer-limit",
        OutputLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    ),
    ("client-query-buffer-limit", Memory, "1073741824"),
    ("cluster-allow-pubsubshard-when-down", YesNo, "yes"),
    ("cluster-allow-reads-when-down", YesNo, "no"),
    ("cluster-allow-replica-migration", YesNo, "yes"),
    ("cluster-announce-bus-port", INT, "0"),
    ("cluster-announce-hostname", Text, ""),
    ("cluster-announce-ip", Text, ""),
    ("cluster-announce-port", INT, "0"),
    ("cluster-announce-tls-port", INT, "0"),
    ("cluster-config-file", Fixed, "nodes.conf"),
    ("cluster-enabled", Fixed, "no"),
    ("cluster-link-sendbuf-limit", Memory, "0"),
    ("cluster-migration-barrier", INT, "1"),
    ("cluster-node-timeout", LONG, "15000"),
    ("cluster-port", Fixed, "0"),
    (
        "cluster-preferred-endpoint-type",
        Words(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
    ),
    ("cluster-replica-no-failover", YesNo, "no"),
    ("cluster-replica-validity-factor", INT, "10"),
    ("cluster-require-full-coverage", YesNo, "yes"),
    ("cluster-slave-no-failover", YesNo, "no"),
    ("cluster-slave-validity-factor", INT, "10"),
    ("crash-log-enabled", YesNo, "yes"),
    ("crash-memcheck-enabled", YesNo, "yes"),
    ("daemonize", Fixed, "no"),
    ("databases", Fixed, "16"),
    ("dbfilename", Text, "dump.rdb"),
    ("dir", Fixed, ""),
    ("disable-thp", Fixed, "yes"),
    ("dynamic-hz", YesNo, "yes"),
    (
        "enable-debug-command",
        AtStart(&["no", "local", "yes"]),
        "local",
    ),
    ("enable-module-command", Fixed, "no"),
    ("enable-protected-configs", Fixed, "no"),
    ("hash-max-listpack-entries", LONG, "512"),
    ("hash-max-listpack-value", LONG, "64"),
    ("hash-max-ziplist-entries", LONG, "512"),
    ("hash-max-ziplist-value", LONG, "64"),
    ("hll-sparse-max-bytes", LONG, "3000"),
    ("hz", INT, "10"),
    ("ignore-warnings", Text, ""),
    ("io-threads", Fixed, "1"),
    ("io-threads-do-reads", Fixed, "no"),
    ("jemalloc-bg-thread", YesNo, "yes"),
    ("latency-monitor-threshold", LONG, "0"),
    ("latency-tracking", YesNo, "yes"),
    (
        "latency-tracking-info-percentiles",
        Percentiles,
        "50 99 99.9",
    ),
    ("lazyfree-lazy-eviction", YesNo, "no"),
    ("lazyfree-lazy-expire", YesNo, "no"),
    ("lazyfree-lazy-server-del", YesNo, "no"),
    ("lazyfree-lazy-user-del", YesNo, "no"),
    ("lazyfree-lazy-user-flush", YesNo, "no"),
    ("lfu-decay-time", INT, "1"),
    ("lfu-log-factor", INT, "10"),
    ("list-compress-depth", INT, "0"),
    (
        "list-max-listpack-size",
        Integer(i32::MIN as i64, i32::MAX as i64),
        "-2",
    ),
    (
        "list-max-ziplist-size",
        Integer(i32::MIN as i64, i32::MAX as i64),
        "-2",
    ),
    ("logfile", Fixed, ""),
    (
        "loglevel",
        Words(&["debug", "verbose", "notice", "warning"]),
        "notice",
    ),
    ("lua-time-limit", LONG, "5000"),
    ("masterauth", Text, ""),
    ("masteruser", Text, ""),
    ("maxclients", Integer(1, u32::MAX as i64), "10000"),
    ("maxmemory", Memory, "0"),
    ("maxmemory-clients", MemoryOrPercent, "0"),
    ("maxmemory-eviction-tenacity", Integer(0, 100), "10"),
    ("maxmemory-policy", Words(POLICIES), "noeviction"),
    ("maxmemory-samples", Integer(1, i32::MAX as i64), "5"),
    ("min-replicas-max-lag", INT, "10"),
    ("min-replicas-to-write", INT, "0"),
    ("min-slaves-max-lag", INT, "10"),
    ("min-slaves-to-write", INT, "0"),
    ("no-appendfsync-on-rewrite", YesNo, "no"),
    ("notify-keyspace-events", Events, ""),
    (
        "oom-score-adj",
        Words(&["no", "yes", "relative", "absolute"]),
        "no",
    ),
    ("oom-score-adj-values", Text, "0 200 800"),
    ("pidfile", Fixed, ""),
    ("port", Fixed, "0"),
    (
        "proc-title-template",
        Text,
        "{title} {listen-addr} {server-mode}",
    ),
    (
        "propagation-error-behavior",
        Words(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
    ),
    ("protected-mode", YesNo, "no"),
    ("proto-max-bulk-len", Memory, "536870912"),
    ("rdb-del-sync-files", YesNo, "no"),
    ("rdb-save-incremental-fsync", YesNo, "yes"),
    ("rdbchecksum", Fixed, "yes"),
    ("rdbcompression", YesNo, "yes"),
    ("repl-backlog-size", Memory, "1048576"),
    ("repl-backlog-ttl", INT, "3600"),
    ("repl-disable-tcp-nodelay", YesNo, "no"),
    (
        "repl-diskless-load",
        Words(&["disabled", "on-empty-db", "swapdb"]),
        "disabled",
    ),
    ("repl-diskless-sync", YesNo, "yes"),
    ("repl-diskless-sync-delay", INT, "0"),
    ("repl-diskless-sync-max-replicas", INT, "0"),
    (
        "repl-ping-replica-period",
        Integer(1, i32::MAX as i64),
        "10",
    ),
    ("repl-ping-slave-period", Integer(1, i32::MAX as i64), "10"),
    ("repl-timeout", Integer(1, i32::MAX as i64), "60"),
    ("replica-announce-ip", Text, ""),
    ("replica-announce-port", Integer(0, 65_535), "0"),
    ("replica-announced", YesNo, "yes"),
    ("replica-ignore-disk-write-errors", YesNo, "no"),
    ("replica-ignore-maxmemory", YesNo, "yes"),
    ("replica-lazy-flush", YesNo, "no"),
    ("replica-priority", INT, "100"),
    ("replica-read-only", YesNo, "yes"),
    ("replica-serve-stale-data", YesNo, "yes"),
    ("replicaof", Fixed, ""),
    ("requirepass", Text, ""),
    (
        "sanitize-dump-payload",
        Words(&["no", "yes", "clients"]),
        "no",
    ),
    ("save", Save, ""),
    ("server_cpulist", Fixed, ""),
    ("set-max-intset-entries", LONG, "512"),
    ("set-proc-title", Fixed, "yes"),
    ("shutdown-on-sigint", Text, "default"),
    ("shutdown-on-sigterm", Text, "default"),
    ("shutdown-timeout", INT, "10"),
    ("slave-announce-ip", Text, ""),
    ("slave-announce-port", Integer(0, 65_535), "0"),
    ("slave-ignore-maxmemory", YesNo, "yes"),
    ("slave-lazy-flush", YesNo, "no"),
    ("slave-priority", INT, "100"),
    ("slave-read-only", YesNo, "yes"),
    ("slave-serve-stale-data", YesNo, "yes"),
    ("slaveof", Fixed, ""),
    ("slowlog-log-slower-than", Integer(-1, i64::MAX), "10000"),
    ("slowlog-max-len", LONG, "128"),
    ("socket-mark-id", INT, "0"),
    ("stop-writes-on-bgsave-error", YesNo, "yes"),
    ("stream-node-max-bytes", Memory, "4096"),
    ("stream-node-max-entries", LONG, "100"),
    ("supervised", Fixed, "no"),
    ("syslog-enabled", Fixed, "no"),
    ("syslog-facility", Fixed, "local0"),
    ("syslog-ident", Fixed, "redis"),
    ("tcp-backlog", Fixed, "511"),
    ("tcp-keepalive", INT, "300"),
    ("timeout", INT, "0"),
    ("tls-auth-clients", Words(&["no", "yes", "optional"]), "yes"),
    ("tls-ca-cert-dir", Text, ""),
    ("tls-ca-cert-file", Text, ""),
    ("tls-cert-file", Text, ""),
    ("tls-ciphers", Text, ""),
    ("tls-ciphersuites", Text, ""),
    ("tls-client-cert-file", Text, ""),
    ("tls-client-key-file", Text, ""),
    ("tls-client-key-file-pass", Text, ""),
    ("tls-cluster", YesNo, "no"),
    ("tls-dh-params-file", Text, ""),
    ("tls-key-file", Text, ""),
    ("tls-key-file-pass", Text, ""),
    ("tls-port", Fixed, "0"),
    ("tls-prefer-server-ciphers", YesNo, "no"),
    ("tls-protocols", Text, ""),
    ("tls-replication", YesNo, "no"),
    ("tls-session-cache-size", INT, "20480"),
    ("tls-session-cache-timeout", INT, "300"),
    ("tls-session-caching", YesNo, "yes"),
    ("tracking-table-max-keys", LONG, "1000000"),
    ("unixsocket", Fixed, ""),
    ("unixsocketperm", Fixed, "0"),
    ("zset-max-listpack-entries", LONG, "128"),
    ("zset-max-listpack-value", LONG, "64"),
    ("zset-max-ziplist-entries", LONG, "128"),
    ("zset-max-ziplist-value", LONG, "64"),
];

/// Least backlog, as Redis has it.
const BACKLOG_BYTES_MIN: u64 = 16 * 1024;

/// Values that are not their defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    values: BTreeMap<&'static str, String>,
    /// Those that were set by CONFIG SET.
    changed: BTreeSet<&'static str>,
}

impl Parameters {
    pub(super) fn find(name: &[u8]) -> Option<(&'static str, Takes)> {
        let is_it = |of: &&(&str, Takes, &str)| of.0.as_bytes().eq_ignore_ascii_case(name);
        PARAMETERS
            .iter()
            .find(is_it)
            .map(|(name, takes, _)| (*name, *takes))
    }

    /// The value of one; of an older name that of the newer.
    pub(super) fn value(&self, name: &str) -> &str {
        let name = newer(name);
        let default = || {
            PARAMETERS
                .iter()
                .find(|of| of.0 == name)
                .map_or("", |of| of.2)
        };
        self.values.get(name).map_or_else(default, String::as_str)
    }

    /// One that takes a number.
    pub(super) fn number(&self, name: &str) -> i64 {
        self.value(name).parse().unwrap_or(0)
    }

    /// Keeps what was checked by [`meant`]; or what the server is, of those that are fixed.
    pub(super) fn set(&mut self, name: &'static str, value: String) {
        self.values.insert(newer(name), value);
    }

    /// Says that one was set by CONFIG SET.
    pub(super) fn note_changed(&mut self, name: &str) {
        self.changed.insert(newer(name));
    }

    /// Those that were.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.changed.iter().map(|name| (*name, self.value(name)))
    }

    /// What commands look at.
    pub(super) fn apply_to(&self, settings: &mut Settings) {
        let count = |name| u64::try_from(self.number(name)).unwrap_or(0);
        *settings = Settings {
            hash_max_listpack_entries: count("hash-max-listpack-entries"),
            hash_max_listpack_value: count("hash-max-listpack-value"),
            set_max_intset_entries: count("set-max-intset-entries"),
            zset_max_listpack_entries: count("zset-max-listpack-entries"),
            zset_max_listpack_value: count("zset-max-listpack-value"),
            hll_sparse_max_bytes: count("hll-sparse-max-bytes"),
            stream_node_max_entries: count("stream-node-max-entries"),
            proto_max_bulk_len: count("proto-max-bulk-len"),
            notify: NotifyFlags::parse(self.value("notify-keyspace-events").as_bytes())
                .unwrap_or_default(),
            is_lfu: self.value("maxmemory-policy").ends_with("-lfu"),
            lazyfree_lazy_expire: self.value("lazyfree-lazy-expire") == "yes",
            slowlog_log_slower_than: self.number("slowlog-log-slower-than"),
            slowlog_max_len: count("slowlog-max-len"),
        };
    }
}

/// Parameters with two names have one value.
fn newer(name: &str) -> &'static str {
    let renamed = match name {
        "hash-max-ziplist-entries" => "hash-max-listpack-entries",
        "hash-max-ziplist-value" => "hash-max-listpack-value",
        "zset-max-ziplist-entries" => "zset-max-listpack-entries",
        "zset-max-ziplist-value" => "zset-max-listpack-value",
        "list-max-ziplist-size" => "list-max-listpack-size",
        "lua-time-limit" => "busy-reply-threshold",
        "min-slaves-max-lag" => "min-replicas-max-lag",
        "min-slaves-to-write" => "min-replicas-to-write",
        "repl-ping-slave-period" => "repl-ping-replica-period",
        "slaveof" => "replicaof",
        "cluster-slave-no-failover" => "cluster-replica-no-failover",
        "cluster-slave-validity-factor" => "cluster-replica-validity-factor",
        "slave-announce-ip" => "replica-announce-ip",
        "slave-announce-port" => "replica-announce-port",
        "slave-ignore-maxmemory" => "replica-ignore-maxmemory",
        "slave-lazy-flush" => "replica-lazy-flush",
        "slave-priority" => "replica-priority",
        "slave-read-only" => "replica-read-only",
        "slave-serve-stale-data" => "replica-serve-stale-data",
        other => other,
    };
    PARAMETERS
        .iter()
        .find(|of| of.0 == renamed)
        .map_or("", |of| of.0)
}

/// What a written value means, as it will be told; or why it is none.
pub(super) fn meant(name: &str, takes: Takes, written: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(written).into_owned();
    match takes {
        Fixed | AtStart(_) => Err("can't set immutable config".to_owned()),
        YesNo => match text.to_ascii_lowercase().as_str() {
            known @ ("yes" | "no") => Ok(known.to_owned()),
            _ => Err("argument must be 'yes' or 'no'".to_owned()),
        },
        Integer(low, high) => {
            let number = crate::store::format::numbers::parse_integer(written)
                .ok_or("argument couldn't be parsed into an integer")?;
            if !(low..=high).contains(&number) {
                return Err(format!(
                    "argument must be between {low} and {high} inclusive"
                ));
            }
            Ok(number.to_string())
        }
        Memory => {
            let bytes = memory(&text).ok_or("argument must be a memory value")?;
            let bytes = match name {
                "repl-backlog-size" => bytes.max(BACKLOG_BYTES_MIN),
                _ => bytes,
            };
            Ok(bytes.to_string())
        }
        MemoryOrPercent => match text.strip_suffix('%').map(str::parse::<u32>) {
            Some(Ok(percent)) => Ok(format!("{percent}%")),
            Some(Err(_)) => Err("argument must be a memory or percent value".to_owned()),
            None => memory(&text)
                .map(|bytes| bytes.to_string())
                .ok_or_else(|| "argument must be a memory or percent value".to_owned()),
        },
        Words(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(&text)) {
            Some(word) => Ok((*word).to_owned()),
            None => Err(format!(
                "argument(s) must be one of the following: {}",
                words.join(", ")
            )),
        },
        Text => Ok(text),
        Events => NotifyFlags::parse(written)
            .map(NotifyFlags::text)
            .ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
        Save => save(&text).ok_or_else(|| "Invalid save parameters".to_owned()),
        OutputLimits => match text.split_whitespace().count() % 4 {
            0 if !text.trim().is_empty() => Ok(text),
            _ => Err("Wrong number of arguments in buffer limit configuration.".to_owned()),
        },
        Percentiles => {
            let mut parts = text.split_whitespace().map(str::parse::<f64>);
            match parts.all(|part| part.is_ok_and(|part| (0.0..=100.0).contains(&part))) {
                true => Ok(text),
                false => Err("Invalid latency-tracking-info-percentiles parameters".to_owned()),
            }
        }
    }
}

fn save(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let is_sound =
        parts.len().is_multiple_of(2) && parts.iter().all(|part| part.parse::<u32>().is_ok());
    is_sound.then(|| parts.join(" "))
}

/// `100mb` and the like; `k` is 1000, `kb` is 1024.
fn memory(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match lower.get(digits.len()..)? {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_defaults_are_what_they_take() {
        assert!(PARAMETERS.is_sorted_by(|one, other| one.0 < other.0));
        for (name, takes, default) in PARAMETERS {
            if !matches!(takes, Fixed | AtStart(_)) {
                assert_eq!(
                    meant(name, *takes, default.as_bytes()).as_deref(),
                    Ok(*default),
                    "{name}"
                );
            }
        }
        let mut settings = Settings::default();
        Parameters::default().apply_to(&mut settings);
        assert_eq!(
            settings,
            Settings::default(),
            "the defaults of both are the same"
        );
    }

    #[test]
    fn written_values_are_taken_as_redis_takes_them() {
        for (takes, written, told) in [
            (Memory, "100mb", Ok("104857600")),
            (Memory, "5mbx", Err("argument must be a memory value")),
            (Words(POLICIES), "ALLKEYS-LRU", Ok("allkeys-lru")),
            (
                INT,
                "-3",
                Err("argument must be between 0 and 2147483647 inclusive"),
            ),
            (Events, "KEA", Ok("AKE")),
            (Save, "900 1  300 10", Ok("900 1 300 10")),
            (Save, "a b", Err("Invalid save parameters")),
        ] {
            let meaning = meant("x", takes, written.as_bytes());
            assert_eq!(meaning.as_deref().map_err(String::as_str), told);
        }
    }
}
