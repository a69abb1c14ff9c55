//! Objects are put: their rows, what is counted of them, what is swept of the ones before.

use bytes::Bytes;

use super::objects::{Look, Outline};
use super::{Expiry, Keyspace, Tells};
use crate::store::engine::DeadId;
use crate::store::format::object::{Kind, Object};
use crate::store::format::row;
use crate::store::rows::StoreError;

impl Keyspace {
    /// Gives a key an object, whatever it had before.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn put(&mut self, db: usize, key: &[u8], object: Object) -> Result<(), StoreError> {
        let is = object.value.kind();
        let was = self.put_untold(db, key, object)?;
        self.tell(db, key, Tells::of_put(was, is));
        Ok(())
    }

    /// The same for what is no change to clients: what encoding a value has, what it
    /// remembers of being counted. Answers what it was before.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn put_untold(
        &mut self,
        db: usize,
        key: &[u8],
        object: Object,
    ) -> Result<Option<Kind>, StoreError> {
        let ns = self.counted.of(db).ns;
        let (is, row) = (Outline::of(&object), object.encode());
        let old = match self.objects.put_over(ns, key, object, |_| true) {
            Ok(old) => old,
            Err(object) => {
                let old = self.objects.outline(&self.rows, ns, key, Look::Peek)?;
                self.objects.put(ns, key, Some(object));
                old
            }
        };
        self.put_row(db, key, old, is, row);
        Ok(old.map(|old| old.kind))
    }

    /// As [`Keyspace::put`] behind a [`Keyspace::lookup`], with nothing looked for twice;
    /// `row` is the object encoded. True if the key is new.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn put_over_any(
        &mut self,
        db: usize,
        key: &[u8],
        object: Object,
        row: Bytes,
    ) -> Result<bool, StoreError> {
        let (ns, is) = (self.counted.of(db).ns, Outline::of(&object));
        let (now_ms, expiry) = (self.now_ms, self.expiry);
        let is_over = |old: &Outline| old.expires_at_ms.is_some_and(|at| at < now_ms);
        let may = |old: &Outline| expiry == Expiry::Ignore || !is_over(old);
        let old = match self.objects.put_over(ns, key, object, may) {
            Ok(old) => old,
            Err(object) => {
                let mut old = self.objects.outline(&self.rows, ns, key, Look::Use)?;
                if old.is_some_and(|old| !may(&old)) {
                    // What is to become of it is decided there.
                    self.lookup(db, key)?;
                    old = self.objects.outline(&self.rows, ns, key, Look::Use)?;
                }
                self.objects.put(ns, key, Some(object));
                old
            }
        };
        if old.is_some()
            && let Some(frequencies) = &mut self.frequencies
        {
            frequencies.note(ns, key, now_ms);
        }
        self.put_row(db, key, old, is, row);
        self.tell(db, key, Tells::of_put(old.map(|old| old.kind), is.kind));
        Ok(old.is_none())
    }

    /// The rows and counters of an object that was put.
    fn put_row(&mut self, db: usize, key: &[u8], old: Option<Outline>, is: Outline, row: Bytes) {
        let counts = self.counted.of_mut(db);
        let ns = counts.ns;
        if old.is_none() {
            counts.keys += 1;
        }
        let (was, is_id, is) = (
            old.and_then(|old| old.expires_at_ms),
            is.id,
            is.expires_at_ms,
        );
        if was != is {
            counts.expiring += u64::from(is.is_some());
            counts.expiring -= u64::from(was.is_some());
            if let Some(at) = was {
                self.rows.delete(&row::ttl(at, ns, key));
            }
            if let Some(at) = is {
                self.rows.put(&row::ttl(at, ns, key), Bytes::new());
                self.soonest_ms = self.soonest_ms.min(at);
            }
        }
        if let Some(id) = old.and_then(|old| old.id)
            && is_id != Some(id)
        {
            self.rows.bury(DeadId::Object(id.0));
        }
        self.rows.put_owned(row::meta(ns, key), row);
    }
}
