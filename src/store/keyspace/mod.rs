//! Databases of objects over rows: lookup, expiry, counters, object ids.
//!
//! ```text
//! commands --> Keyspace --> object cache (decoded) --> Rows (overlay, engine)
//!                 |- put / remove    meta row, ttl row, counters, what is to be swept
//!                 |- changed         keys that somebody watches or waits for
//!                 '- ended           keys that expired while they were looked at
//! ```
//! Invariants
//! - The meta row, its ttl row and the counters change in the same generation.
//! - An object id and a namespace are given out once, also over restarts: what they name
//!   is dropped by burying them, never by walking rows.
//! - The clock is what the executor set; nothing here reads one.

mod counted;
mod databases;
mod ending;
mod expiry;
mod frequency;
mod interest;
mod libraries;
mod loading;
mod objects;
mod putting;
mod reading;
mod resident;
mod scan;

pub use scan::CURSOR_BITS;

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::engine::DeadId;
use super::format::object::{Object, Value};
use super::format::row::{self, Namespace, ObjectId};
use super::rows::{Rows, SnapshotTicket, StoreError};

use counted::Counted;
pub use counted::DATABASES;
pub use expiry::{Ended, Expiry};
use frequency::Frequencies;
pub use frequency::FrequencyRules;
pub use interest::{Changed, Tells};
pub use libraries::{LIBRARY_NAME_BYTES_MAX, LibraryTexts};
use objects::{Look, Objects};

/// All databases of a shard. Owned by the executor.
#[derive(Debug)]
pub struct Keyspace {
    rows: Rows,
    objects: Objects,
    counted: Counted,
    expiry: Expiry,
    now_ms: u64,
    /// No key expires before.
    soonest_ms: u64,
    /// Grows with each change.
    changes: u64,
    ended: Vec<Ended>,
    /// How many watch or wait for a key.
    interest: HashMap<(usize, Box<[u8]>), u32, RandomState>,
    changed: Vec<Changed>,
    /// How often keys are used, under an LFU policy.
    frequencies: Option<Box<Frequencies>>,
    /// Counters for INFO.
    pub hits: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Keys that expired.
    pub expired: u64,
}

impl Keyspace {
    /// On an engine in memory; `rows_cache_bytes` bounds what is kept of rows.
    #[cfg(test)]
    pub(crate) fn in_memory(rows_cache_bytes: usize) -> Self {
        use super::engine::MemoryEngine;
        use super::format::object::id_of_row;
        use super::rows::RowsOptions;

        let options = RowsOptions {
            cache_bytes: rows_cache_bytes,
            ..RowsOptions::new(id_of_row)
        };
        let rows = Rows::open(std::sync::Arc::new(MemoryEngine::new()), options).expect("rows");
        Self::open(rows, 1 << 20).expect("a keyspace")
    }

    /// Over rows as they were opened; `cache_bytes` bounds what is kept decoded.
    ///
    /// # Errors
    /// [`StoreError`] if the shard's own rows cannot be read.
    pub fn open(mut rows: Rows, cache_bytes: usize) -> Result<Self, StoreError> {
        let (counted, left) = Counted::read(&mut rows)?;
        // A load that a crash ended: nobody will read what there is of it.
        for ns in left {
            rows.bury(DeadId::Namespace(ns.0));
        }
        Ok(Self {
            objects: Objects::new(cache_bytes, rows.key_hash()),
            rows,
            counted,
            expiry: Expiry::Remove,
            now_ms: 0,
            soonest_ms: 0,
            changes: 0,
            ended: Vec::new(),
            interest: HashMap::default(),
            changed: Vec::new(),
            frequencies: None,
            hits: 0,
            misses: 0,
            expired: 0,
        })
    }

    /// What time it is, Unix ms.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Sets the clock.
    pub fn set_now_ms(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.objects.set_now_ms(now_ms);
    }

    /// Grows with each change of any key.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The rows below, for the parts of large objects. Who changes some without putting
    /// the object anew says so by [`Keyspace::touch`].
    pub fn rows(&mut self) -> &mut Rows {
        &mut self.rows
    }

    /// The rows below, to be read.
    pub fn rows_read(&self) -> &Rows {
        &self.rows
    }

    /// A name for the rows of a new large object.
    pub fn new_object_id(&mut self) -> ObjectId {
        self.counted.new_object_id()
    }

    /// Keys in a database, those that expired and were not looked at among them.
    pub fn key_count(&self, db: usize) -> u64 {
        self.counted.of(db).keys
    }

    /// Those of them that expire.
    pub fn expiring_count(&self, db: usize) -> u64 {
        self.counted.of(db).expiring
    }

    /// Forgets what is only a copy of rows.
    pub fn forget_cached(&mut self) {
        self.objects.clear();
        self.rows.forget_copies();
    }

    /// Seconds since a key was used; 0 if nobody remembers.
    pub fn idle_seconds(&self, db: usize, key: &[u8]) -> u64 {
        self.objects.idle_seconds(self.namespace(db), key)
    }

    /// Says that a key was used so long ago, in seconds.
    pub fn set_idle_seconds(&mut self, db: usize, key: &[u8], idle: i64) {
        let ns = self.namespace(db);
        self.objects.set_idle_seconds(ns, key, idle);
    }

    /// Removes a key, in a time that does not depend on its size.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn remove(&mut self, db: usize, key: &[u8]) -> Result<bool, StoreError> {
        let Some(old) = self.take(db, key)? else {
            return Ok(false);
        };
        if let Some(id) = old.value.id() {
            self.rows.bury(DeadId::Object(id.0));
        }
        Ok(true)
    }

    /// A value that was made and is not wanted: its rows go.
    pub fn bury(&mut self, value: &Value) {
        if let Some(id) = value.id() {
            self.rows.bury(DeadId::Object(id.0));
        }
    }

    /// Removes a key and gives its object, whose rows stay: it is put elsewhere.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn take(&mut self, db: usize, key: &[u8]) -> Result<Option<Object>, StoreError> {
        let ns = self.counted.of(db).ns;
        let Some(old) = self.objects.read(&self.rows, ns, key, Look::Peek)? else {
            return Ok(None);
        };
        let counts = self.counted.of_mut(db);
        counts.keys -= 1;
        if let Some(at) = old.expires_at_ms {
            counts.expiring -= 1;
            self.rows.delete(&row::ttl(at, ns, key));
        }
        self.rows.delete(&row::meta(ns, key));
        self.objects.put(ns, key, None);
        self.touch(db, key);
        Ok(Some(old))
    }

    /// At the end of a turn whose effects are in the log: what changed goes on its way into
    /// the engine, if it is time.
    pub fn freeze_if_due(&mut self, log_end: u64) {
        if self.rows.is_freeze_due(log_end) {
            self.counted.write(&mut self.rows);
            self.rows.freeze_now(log_end);
        }
    }

    /// Asks for a snapshot of all there is, at the end of a turn.
    pub fn snapshot_at(&mut self, log_end: u64) -> SnapshotTicket {
        self.counted.write(&mut self.rows);
        self.rows.snapshot_at(log_end)
    }

    /// Ends the keyspace: everything is in the engine then, up to the end of the log.
    ///
    /// # Errors
    /// [`StoreError`]; the log has what the engine does not.
    pub fn close(mut self, log_end: u64) -> Result<(), StoreError> {
        self.counted.write(&mut self.rows);
        self.rows.close(log_end)
    }

    /// Bytes that decoded objects take.
    pub fn cached_bytes(&self) -> u64 {
        self.objects.bytes()
    }

    /// The namespace of a database's keys.
    pub fn namespace(&self, db: usize) -> Namespace {
        self.counted.of(db).ns
    }

    /// Puts a new value, and keeps when the key ends.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn put_value(
        &mut self,
        db: usize,
        key: &[u8],
        expires_at_ms: Option<u64>,
        value: Value,
    ) -> Result<(), StoreError> {
        self.put(
            db,
            key,
            Object {
                expires_at_ms,
                value,
            },
        )
    }
}

/// A row that cannot be read.
fn bad_row(key: &[u8]) -> StoreError {
    StoreError::BadRow {
        row: key.escape_ascii().to_string(),
    }
}
