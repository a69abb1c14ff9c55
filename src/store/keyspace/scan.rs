//! Walking a database: SCAN, KEYS, RANDOMKEY, snapshots of all of it.

use bytes::Bytes;

use super::Keyspace;
use super::bad_row;
use crate::store::format::object::Object;
use crate::store::format::row::{self, PLACE_BITS};

/// Bits of a cursor: a proxy in front of many shards has room for 14 more in what JavaScript
/// calls a safe integer.
pub const CURSOR_BITS: u32 = 39;
/// Bits of a place that cursors do not tell apart.
const PLACE_BITS_BELOW: u32 = PLACE_BITS - CURSOR_BITS;
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
        if cursor >> CURSOR_BITS != 0 {
            return Ok(scanned);
        }
        let now_ms = self.now_ms;
        let hides = self.expiry != super::Expiry::Ignore;
        let mut cursor_before = None;
        let from = row::meta_from(ns, cursor << PLACE_BITS_BELOW);
        let range = self
            .rows
            .range(&from, &row::meta_from(ns, 1 << PLACE_BITS))?;
        for (seen, next) in range.enumerate() {
            let (key, value) = next?;
            let (_, place, user_key) = row::split_meta(&key).ok_or_else(|| bad_row(&key))?;
            let cursor = place >> PLACE_BITS_BELOW;
            if seen >= count && cursor_before != Some(cursor) {
                scanned.next = cursor;
                break;
            }
            cursor_before = Some(cursor);
            let object = Object::decode(&value).ok_or_else(|| bad_row(&key))?;
            let is_over = object.expires_at_ms.is_some_and(|at| at < now_ms);
            if !(is_over && hides) {
                scanned.keys.push((key.slice_ref(user_key), object));
            }
        }
        Ok(scanned)
    }

    /// The first live key at or behind a cursor, then from the beginning.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn key_near(&mut self, db: usize, from: u64) -> Result<Option<Bytes>, StoreError> {
        let mut cursor = from;
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
            } else if is_again && cursor >= from {
                return Ok(None);
            }
        }
    }
}
