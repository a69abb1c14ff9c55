//! Keys whose targets hold something old, until they are read again.
//!
//! ```text
//! source task:  a command that cannot be applied writes k     mark(k)      k is pending
//! refresher:    take() -> keys of one database, read together with a marker
//! source task:  at that marker the value goes into the lane   settle(k)    k is not pending
//! refresher:    they could not be read, or had no room        give_back(keys)
//! ```
//!
//! What the stream says of a pending key is passed over: the value that is read
//! later has it. Reads and their marker are one transaction of the source, so
//! what comes before the marker is in the value and what comes after is not.
//!
//! Whole databases can be pending, too (`rescan`): the refresher lists them and
//! marks their keys.
//!
//! Invariant: a key that is pending is either waiting here or in a batch of the
//! refresher's, which settles it or gives it back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Keys pending at most, for each source.
const PENDING_KEYS_MAX: usize = 2_000_000;
/// Bytes of their names at most.
const PENDING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The pending keys of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// How many there are, whole databases counted once: no lock is needed to see
    /// that there are none.
    count: AtomicUsize,
    news: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// By database.
    keys: HashMap<u32, HashSet<Bytes>>,
    /// Those that the refresher has not taken; some may be settled by now.
    waiting: VecDeque<(u32, Bytes)>,
    /// Databases to be listed; the first one may be being listed.
    rescans: VecDeque<u32>,
    bytes: usize,
    keys_max: usize,
}

/// More keys are pending than are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// Keys of one database to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) db: u32,
    pub(super) keys: Vec<Bytes>,
}

impl Pending {
    pub(super) fn new() -> Pending {
        let pending = Pending::default();
        pending.table().keys_max = PENDING_KEYS_MAX;
        pending
    }

    /// True when no key is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// Whether it was not pending before.
    pub(super) fn mark(&self, db: u32, key: &[u8]) -> Result<bool, TooMany> {
        let mut table = self.table();
        if table.has(db, key) {
            return Ok(false);
        }
        let count: usize = table.keys.values().map(HashSet::len).sum();
        if count >= table.keys_max || table.bytes >= PENDING_BYTES_MAX {
            return Err(TooMany);
        }
        // A copy: what it is a part of is a chunk of the stream.
        let key = Bytes::copy_from_slice(key);
        table.bytes += key.len();
        table.keys.entry(db).or_default().insert(key.clone());
        table.waiting.push_back((db, key));
        self.changed(table);
        Ok(true)
    }

    /// Whether the key itself is pending.
    pub(super) fn has(&self, db: u32, key: &[u8]) -> bool {
        !self.is_empty() && self.table().has(db, key)
    }

    /// Whether its target may hold something old: it or its database is pending.
    pub(super) fn is_in_doubt(&self, db: u32, key: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let table = self.table();
        table.has(db, key) || table.rescans.contains(&db)
    }

    /// All keys of a database are to be read again.
    pub(super) fn rescan(&self, db: u32) {
        let mut table = self.table();
        // The first may have been listed in part: it does not count.
        if !table.rescans.iter().skip(1).any(|other| *other == db) {
            table.rescans.push_back(db);
        }
        self.changed(table);
    }

    /// Whether all keys of a database are to be read again.
    pub(super) fn is_rescanning(&self, db: u32) -> bool {
        !self.is_empty() && self.table().rescans.contains(&db)
    }

    /// Whether that is so of any.
    pub(super) fn is_listing(&self) -> bool {
        !self.is_empty() && !self.table().rescans.is_empty()
    }

    /// The database to be listed next.
    pub(super) fn to_rescan(&self) -> Option<u32> {
        self.table().rescans.front().copied()
    }

    /// That database was listed to its end.
    pub(super) fn rescanned(&self, db: u32) {
        let mut table = self.table();
        if table.rescans.front() == Some(&db) {
            table.rescans.pop_front();
        }
        self.changed(table);
    }

    /// Up to `max` keys of one database.
    pub(super) fn take(&self, max: usize) -> Option<Due> {
        let mut table = self.table();
        let mut due: Option<Due> = None;
        while let Some((db, key)) = table.waiting.pop_front() {
            if !table.has(db, &key) {
                continue;
            }
            let due = due.get_or_insert_with(|| Due {
                db,
                keys: Vec::new(),
            });
            if due.db != db || due.keys.len() >= max {
                table.waiting.push_front((db, key));
                break;
            }
            due.keys.push(key);
        }
        due
    }

    /// Keys that were taken and not settled.
    pub(super) fn give_back(&self, due: Due) {
        let mut table = self.table();
        for key in due.keys {
            if table.has(due.db, &key) {
                table.waiting.push_back((due.db, key));
            }
        }
        self.changed(table);
    }

    /// The key's value is on its way.
    pub(super) fn settle(&self, db: u32, key: &[u8]) {
        let mut table = self.table();
        let Some(keys) = table.keys.get_mut(&db) else {
            return;
        };
        if keys.remove(key) {
            if keys.is_empty() {
                table.keys.remove(&db);
            }
            table.bytes -= key.len();
        }
        self.changed(table);
    }

    /// Forgets all: their source is copied anew.
    pub(super) fn clear(&self) {
        let mut table = self.table();
        table.keys.clear();
        table.waiting.clear();
        table.rescans.clear();
        table.bytes = 0;
        self.changed(table);
    }

    /// Resolves when something may have come. Cancel safe.
    pub(super) async fn news(&self) {
        self.0.news.notified().await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, table: MutexGuard<'_, Table>) {
        let count = table.keys.len() + table.rescans.len();
        self.0.count.store(count, Ordering::Release);
        drop(table);
        // One waits; a permit is kept for it.
        self.0.news.notify_one();
    }
}

impl Table {
    fn has(&self, db: u32, key: &[u8]) -> bool {
        self.keys.get(&db).is_some_and(|keys| keys.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(db: u32, keys: &[&'static str]) -> Option<Due> {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes()));
        Some(Due {
            db,
            keys: keys.collect(),
        })
    }

    #[test]
    fn keys_are_pending_from_mark_to_settle() {
        let pending = Pending::new();
        assert!(pending.is_empty() && pending.take(9).is_none());
        for (db, key) in [(0, "a"), (0, "b"), (0, "a"), (3, "a"), (0, "c")] {
            pending.mark(db, key.as_bytes()).unwrap();
        }
        assert_eq!(pending.take(9), due(0, &["a", "b"]), "one database a batch");
        assert_eq!(pending.take(9), due(3, &["a"]));
        pending.mark(0, b"a").unwrap();
        assert_eq!(pending.take(9), due(0, &["c"]), "`a` is under way");
        pending.settle(0, b"a");
        pending.give_back(due(0, &["a", "b"]).unwrap());
        assert_eq!(pending.take(9), due(0, &["b"]), "`a` is settled");
        assert!(!pending.has(0, b"a") && pending.has(3, b"a"));
        for (db, key) in [(0, "b"), (0, "c"), (3, "a")] {
            assert!(!pending.is_empty());
            pending.settle(db, key.as_bytes());
        }
        assert!(pending.is_empty());
    }

    #[test]
    fn a_batch_has_a_bound_and_so_has_the_table() {
        let pending = Pending::new();
        pending.table().keys_max = 3;
        for key in ["a", "b", "c"] {
            pending.mark(0, key.as_bytes()).unwrap();
        }
        assert_eq!(pending.mark(0, b"d"), Err(TooMany));
        assert_eq!(pending.mark(0, b"a"), Ok(false), "it is there");
        assert_eq!(pending.take(2), due(0, &["a", "b"]));
        pending.clear();
        pending.give_back(due(0, &["a", "b"]).unwrap());
        assert!(pending.is_empty() && pending.take(2).is_none());
    }

    #[test]
    fn a_database_that_changes_while_it_is_listed_is_listed_again() {
        let pending = Pending::new();
        pending.rescan(1);
        assert!(pending.is_in_doubt(1, b"any") && !pending.has(1, b"any"));
        assert_eq!(pending.to_rescan(), Some(1));
        pending.rescan(1);
        pending.rescan(1);
        pending.rescanned(1);
        assert_eq!(pending.to_rescan(), Some(1));
        pending.rescanned(1);
        assert_eq!(pending.to_rescan(), None);
        assert!(pending.is_empty());
    }
}
