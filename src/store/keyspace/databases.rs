//! Databases as a whole: emptied, and swapped.

use super::objects::Look;
use super::{Changed, Keyspace, Tells};
use crate::store::engine::DeadId;
use crate::store::rows::StoreError;

impl Keyspace {
    /// Empties a database, in a time that does not depend on its size. How many keys it had.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn flush(&mut self, db: usize) -> Result<u64, StoreError> {
        self.tell_interested(db, None)?;
        let (dead, keys) = self.counted.renew(db);
        if keys > 0 {
            self.rows.bury(DeadId::Namespace(dead.0));
            self.objects.clear();
        }
        self.changes += 1;
        Ok(keys)
    }

    /// Lets two databases change places.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn swap(&mut self, one: usize, other: usize) -> Result<(), StoreError> {
        if one != other {
            self.tell_interested(one, Some(other))?;
            self.tell_interested(other, Some(one))?;
        }
        self.counted.swap(one, other);
        self.changes += 1;
        Ok(())
    }

    /// Keys that are watched or waited for change if they are there now, or will be.
    fn tell_interested(&mut self, db: usize, next: Option<usize>) -> Result<(), StoreError> {
        let of_it = self.interest.keys().filter(|(of, _)| *of == db);
        let keys: Vec<_> = of_it.map(|(_, key)| key.clone()).collect();
        let mut changed = Vec::new();
        for key in keys {
            let ns = self.namespace(db);
            let is_here = self
                .objects
                .read(&self.rows, ns, &key, Look::Peek)?
                .is_some();
            let will_be = match next {
                None => false,
                Some(next) => self.is_live(next, &key)?,
            };
            if is_here || will_be {
                changed.push(Changed {
                    db,
                    key,
                    tells: Tells::All,
                });
            }
        }
        self.changed.extend(changed);
        Ok(())
    }

    fn is_live(&mut self, db: usize, key: &[u8]) -> Result<bool, StoreError> {
        let ns = self.namespace(db);
        let found = self.objects.read(&self.rows, ns, key, Look::Peek)?;
        let ends_ms = found.map(|object| object.expires_at_ms);
        Ok(ends_ms.is_some_and(|at| at.is_none_or(|at| at >= self.now_ms)))
    }
}
