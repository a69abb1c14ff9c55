//! Keys whose time is over: removed when they are looked at, or when they are due.

use bytes::Bytes;

use super::{Ended, Expiry, Keyspace, bad_row};
use crate::store::format::row;
use crate::store::rows::StoreError;

impl Keyspace {
    /// Removes a key whose time is over.
    pub(super) fn end(&mut self, db: usize, key: &[u8]) -> Result<(), StoreError> {
        let changes = self.changes;
        if self.remove(db, key)? {
            self.changes = changes; // told by an effect of its own
            self.expired += 1;
            self.ended.push(Ended {
                db,
                key: Bytes::copy_from_slice(key),
            });
        }
        Ok(())
    }

    /// Keys that expired since they were last taken.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Whether [`Keyspace::take_ended`] has something.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Removes up to `max` keys whose time is over; true if there are more.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or of a row that is none.
    pub fn end_due(&mut self, max: usize) -> Result<bool, StoreError> {
        if self.now_ms <= self.soonest_ms || self.expiry != Expiry::Remove {
            return Ok(false);
        }
        let mut due = Vec::new();
        let mut soonest_ms = u64::MAX;
        let range = self
            .rows
            .range(&row::ttl_from(0), &row::ttl_from(u64::MAX))?;
        for next in range {
            let (key, _) = next?;
            let (at, ns, user_key) = row::split_ttl(&key).ok_or_else(|| bad_row(&key))?;
            if at >= self.now_ms || due.len() == max {
                soonest_ms = at;
                break;
            }
            due.push((ns, key.slice_ref(user_key), key.clone()));
        }
        let has_more = due.len() == max && soonest_ms < self.now_ms;
        self.soonest_ms = soonest_ms;
        for (ns, key, ttl_row) in due {
            match self.counted.database_of(ns) {
                Some(db) => self.end(db, &key)?,
                // Of a database that was emptied.
                None => self.rows.delete(&ttl_row),
            }
        }
        Ok(has_more)
    }

    /// Sets or takes away when a key ends. False if there is no such key.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn set_expiry_of(
        &mut self,
        db: usize,
        key: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Result<bool, StoreError> {
        let Some(mut object) = self.lookup(db, key)? else {
            return Ok(false);
        };
        object.expires_at_ms = expires_at_ms;
        self.put(db, key, object)?;
        Ok(true)
    }
}
