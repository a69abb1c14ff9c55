//! Databases that are loaded beside those in use, and take their place all at once.
//!
//! ```text
//! begin_loading --> load .. --> switch_to_loaded     the old ones are buried
//!                          '--> abandon_loading      the new ones are
//! ```
//! A load that a crash ended is buried when the keyspace is opened.

use bytes::Bytes;

use crate::store::engine::DeadId;
use crate::store::format::object::Object;
use crate::store::format::row;
use crate::store::rows::{DurableTicket, Rows};

use super::{Changed, DATABASES, Keyspace, Namespace, Tells};

fn loading(db: usize) -> usize {
    DATABASES + db
}

impl Keyspace {
    /// Begins a load, into databases that are empty; one that did not end is abandoned.
    pub fn begin_loading(&mut self) {
        let left = self.counted.begin_loading();
        self.bury_all(&left);
    }

    /// Gives a key of a load its object. A snapshot has each key once: what it had before is
    /// not looked for.
    pub fn load(&mut self, db: usize, key: &[u8], object: &Object) {
        let database = self.counted.of_mut(loading(db));
        let ns = database.ns;
        database.keys += 1;
        if let Some(at) = object.expires_at_ms {
            database.expiring += 1;
            self.rows.put(&row::ttl(at, ns, key), Bytes::new());
        }
        self.rows.put(&row::meta(ns, key), object.encode());
    }

    /// What was loaded so far is not wanted.
    pub fn abandon_loading(&mut self) {
        let left = self.counted.take_loading();
        self.bury_all(&left);
    }

    /// What was loaded takes the place of all databases: seen by the next lookup, and in the
    /// engine as one with what `and` puts and with the log's end, `log_end`. Durable when
    /// the ticket says so.
    pub fn switch_to_loaded(&mut self, log_end: u64, and: impl FnOnce(&mut Rows)) -> DurableTicket {
        let old = self.counted.switch_to_loaded();
        self.bury_all(&old);
        self.objects.clear();
        self.changes += 1;
        let all = self.interest.keys().cloned();
        self.changed.extend(all.map(|(db, key)| Changed {
            db,
            key,
            tells: Tells::All,
        }));
        self.soonest_ms = 0;
        and(&mut self.rows);
        self.counted.write(&mut self.rows);
        self.rows.freeze_durably(log_end)
    }

    fn bury_all(&mut self, namespaces: &[Namespace]) {
        for ns in namespaces {
            self.rows.bury(DeadId::Namespace(ns.0));
        }
    }
}

#[cfg(test)]
mod tests;
