//! MEMORY and LATENCY, TIME and LASTSAVE.
//!
//! What Redis measures and we do not is answered as by a Redis that has measured nothing.

use crate::store::commands::{Args, Failure};
use crate::store::format::object::{ListValue, Object, Stored, StringStored, Value};
use crate::store::format::row::{self, ObjectId, kind};
use crate::store::rows::StoreError;

use super::shard::Shard;

/// Rows that are looked at to know how long all are, when nothing is said.
const SAMPLES_DEFAULT: usize = 5;

impl Shard {
    pub(super) fn time(&mut self, key: usize) {
        let now_ms = self.keyspace.now_ms();
        let reply = &mut self.clients[key].reply;
        reply.array(2);
        reply.bulk((now_ms / 1000).to_string().as_bytes());
        reply.bulk((now_ms % 1000 * 1000).to_string().as_bytes());
    }

    /// Everything is saved all the time; as INFO, this tells since when.
    pub(super) fn last_save(&mut self, key: usize) {
        let seconds = i64::try_from(self.facts.started_at_ms / 1000).unwrap_or(i64::MAX);
        self.clients[key].reply.integer(seconds);
    }

    pub(super) fn latency(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let reply = &mut self.clients[key].reply;
        if args.is(1, "LATEST") || args.is(1, "HISTORY") {
            reply.array(0);
        } else if args.is(1, "RESET") {
            reply.integer(0);
        } else if args.is(1, "GRAPH") {
            let before = "ERR No samples available for event '";
            return Err(Failure::quoting(before, args.at(2), "'"));
        } else if args.is(1, "HISTOGRAM") {
            reply.map(0);
        } else if args.is(1, "DOCTOR") {
            reply.verbatim(
                "Latency is not monitored by this server. SLOWLOG GET tells of slow commands.\n",
            );
        } else {
            return Err(super::connection::unknown_subcommand("latency", args));
        }
        Ok(())
    }

    pub(super) fn memory(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.is(1, "USAGE") {
            return self.memory_usage(key, args);
        }
        if args.is(1, "STATS") {
            self.memory_stats(key);
            return Ok(());
        }
        let reply = &mut self.clients[key].reply;
        if args.is(1, "PURGE") {
            reply.ok();
        } else if args.is(1, "DOCTOR") {
            reply.verbatim("What this server holds in memory is bounded: see MEMORY STATS.\n");
        } else if args.is(1, "MALLOC-STATS") {
            reply.bulk(b"Stats not supported for the current allocator");
        } else {
            return Err(super::connection::unknown_subcommand("memory", args));
        }
        Ok(())
    }

    fn memory_usage(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let mut samples = SAMPLES_DEFAULT;
        let mut at = 3;
        while at < args.len() {
            if !args.is(at, "SAMPLES") || at + 1 == args.len() {
                return Err(Failure::SYNTAX);
            }
            let given = args.integer(at + 1)?;
            // 0 is all.
            samples = match usize::try_from(given) {
                Ok(0) => usize::MAX,
                Ok(given) => given,
                Err(_) => return Err(Failure::SYNTAX),
            };
            at += 2;
        }
        let db = self.clients[key].db;
        let bytes = match self.keyspace.lookup(db, args.at(2))? {
            None => None,
            Some(object) => Some(self.bytes_of(db, args.at(2), &object, samples)?),
        };
        let reply = &mut self.clients[key].reply;
        match bytes {
            None => reply.null(),
            Some(bytes) => reply.integer(i64::try_from(bytes).unwrap_or(i64::MAX)),
        }
        Ok(())
    }

    /// What the rows of a key take before they are compressed: of many, some are looked at.
    fn bytes_of(
        &mut self,
        db: usize,
        name: &[u8],
        object: &Object,
        samples: usize,
    ) -> Result<u64, StoreError> {
        let meta = row::meta(self.keyspace.namespace(db), name).len() + object.encode().len();
        let ttl = object.expires_at_ms.map_or(0, |at| {
            row::ttl(at, self.keyspace.namespace(db), name).len()
        });
        let mut bytes = (meta + ttl) as u64;
        for (id, rows_of, count) in rows_of(&object.value) {
            let mean = self.mean_row(id, rows_of, samples)?;
            bytes = bytes.saturating_add((mean * count as f64) as u64);
        }
        Ok(bytes)
    }

    fn mean_row(&mut self, id: ObjectId, of: u8, samples: usize) -> Result<f64, StoreError> {
        let (mut bytes, mut rows) = (0_u64, 0_u64);
        let range = self
            .keyspace
            .rows()
            .range(&row::sub(id, of), &row::sub(id, of + 1))?;
        for next in range.take(samples) {
            let (key, value) = next?;
            bytes += (key.len() + value.len()) as u64;
            rows += 1;
        }
        Ok(bytes as f64 / rows.max(1) as f64)
    }

    fn memory_stats(&mut self, key: usize) {
        let databases = 0..crate::store::keyspace::DATABASES;
        let keys: u64 = databases.map(|db| self.keyspace.key_count(db)).sum();
        let clients: usize = self
            .clients
            .iter()
            .map(|(_, client)| client.input.capacity() + client.reply.len())
            .sum();
        let objects = self.keyspace.cached_bytes();
        let stats = self.keyspace.rows().stats();
        let overlay = stats.overlay_bytes as u64;
        let fields = [
            (
                "total.allocated",
                objects + overlay + stats.cache_bytes + clients as u64,
            ),
            ("clients.normal", clients as u64),
            ("keys.count", keys),
            ("objects.cache", objects),
            ("rows.cache", stats.cache_bytes),
            ("rows.overlay", overlay),
        ];
        let reply = &mut self.clients[key].reply;
        reply.map(fields.len());
        for (name, value) in fields {
            reply.bulk(name.as_bytes());
            reply.integer(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// Kinds of rows that a value has, and how many of each.
fn rows_of(value: &Value) -> Vec<(ObjectId, u8, u64)> {
    let (collection, kinds): (_, &[u8]) = match value {
        Value::String(string) => {
            return match string.stored {
                // All its chunks, as one.
                StringStored::Chunks { id, len } => {
                    vec![(id, kind::CHUNK, len.div_ceil(CHUNK_BYTES))]
                }
                StringStored::Whole(_) => Vec::new(),
            };
        }
        Value::List(ListValue::Rows { id, first, end }) => {
            return vec![(*id, kind::INDEX, end.saturating_sub(*first))];
        }
        Value::List(ListValue::Inline(_)) => return Vec::new(),
        Value::Stream(of) => return vec![(of.id, kind::ENTRY, of.entries)],
        Value::Hash(of) | Value::Set(of) => (of, &[kind::FIELD]),
        Value::Zset(of) => (of, &[kind::FIELD, kind::SCORE]),
    };
    match collection.stored {
        Stored::Rows { id, count } => kinds.iter().map(|of| (id, *of, count)).collect(),
        Stored::Inline(_) => Vec::new(),
    }
}

/// Bytes of a string's chunk.
const CHUNK_BYTES: u64 = 16 * 1024;
