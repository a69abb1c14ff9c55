//! Walking a database: SCAN, KEYS, RANDOMKEY, snapshots of all of it.

use bytes::Bytes;

use super::Keyspace;
use super::bad_row;
use crate::store::format::object::Object;
use crate::store::format::row::{self, PLACE_BITS};
use crate::store::rows::StoreError;

/// Some keys of a database, and where the next ones are.
#[derive(Debug)]
pub struct Scanned {
    /// With their objects; none whose time is over.
    pub keys: Vec<(Bytes, Object)>,
    /// The cursor to go on with; 0 at the end.
    pub next: u64,
}

impl Keyspace {
    /// About `count` keys from a cursor on. Keys that are there all the time are given once
    /// by a whole walk, whatever changes meanwhile; the cursor is good after a restart.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn scan(&mut self, db: usize, cursor: u64, count: usize) -> Result<Scanned, StoreError> {
        let ns = self.namespace(db);
        let mut scanned = Scanned {
            keys: Vec::new(),
            next: 0,
        };
        if cursor >> PLACE_BITS != 0 {
            return Ok(scanned);
        }
        let now_ms = self.now_ms;
        let hides = self.expiry != super::Expiry::Ignore;
        let mut seen = 0;
        let mut place_before = None;
        let from = row::meta_from(ns, cursor);
        let mut range = self
            .rows
            .range(&from, &row::meta_from(ns, 1 << PLACE_BITS))?;
        while let Some(next) = range.next() {
            let (key, value) = next?;
            let (_, place, user_key) = row::split_meta(&key).ok_or_else(|| bad_row(&key))?;
            if seen >= count && place_before != Some(place) {
                scanned.next = place;
                break;
            }
            seen += 1;
            place_before = Some(place);
            let object = Object::decode(&value).ok_or_else(|| bad_row(&key))?;
            let is_over = object.expires_at_ms.is_some_and(|at| at < now_ms);
            if !(is_over && hides) {
                scanned.keys.push((key.slice_ref(user_key), object));
            }
        }
        Ok(scanned)
    }

    /// The first live key at or behind a place, then from the beginning. `place` is below
    /// 2^53.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn key_near(&mut self, db: usize, place: u64) -> Result<Option<Bytes>, StoreError> {
        let mut cursor = place;
        let mut is_again = false;
        loop {
            let mut scanned = self.scan(db, cursor, 8)?;
            if !scanned.keys.is_empty() {
                return Ok(Some(scanned.keys.swap_remove(0).0));
            }
            cursor = scanned.next;
            if cursor == 0 {
                if is_again {
                    return Ok(None);
                }
                is_again = true;
            } else if is_again && cursor >= place {
                return Ok(None);
            }
        }
    }
}
