//! Objects are looked up: what is over is not there, and uses are counted.

use super::objects::{At, Look};
use super::{Expiry, Keyspace};
use crate::store::format::object::Object;
use crate::store::rows::StoreError;

impl Keyspace {
    /// The object of a key; nothing if its time is over.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn lookup(&mut self, db: usize, key: &[u8]) -> Result<Option<Object>, StoreError> {
        let at = self.find(db, key, Look::Use)?;
        Ok(at.and_then(|at| self.objects.at(at)).cloned())
    }

    fn find(&mut self, db: usize, key: &[u8], look: Look) -> Result<Option<At>, StoreError> {
        let ns = self.counted.of(db).ns;
        let Some(at) = self.objects.locate(&self.rows, ns, key, look)? else {
            return Ok(None);
        };
        let ends = self.objects.at(at).and_then(|object| object.expires_at_ms);
        let is_over = ends.is_some_and(|ends| ends < self.now_ms);
        if !is_over || self.expiry == Expiry::Ignore {
            if let (Some(frequencies), Look::Use) = (&mut self.frequencies, look) {
                frequencies.note(ns, key, self.now_ms);
            }
            return Ok(Some(at));
        }
        if self.expiry == Expiry::Remove {
            self.end(db, key)?;
        }
        Ok(None)
    }

    /// As [`Keyspace::lookup`], and counts a hit or a miss.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn read(&mut self, db: usize, key: &[u8]) -> Result<Option<Object>, StoreError> {
        Ok(self.read_here(db, key)?.cloned())
    }

    /// The same, and the object stays where it is: what is only looked at need not be copied.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn read_here(&mut self, db: usize, key: &[u8]) -> Result<Option<&Object>, StoreError> {
        let at = self.find(db, key, Look::Use)?;
        self.count(at.is_some());
        Ok(at.and_then(|at| self.objects.at(at)))
    }

    /// The same, and it is not what OBJECT IDLETIME counts from.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn peek(&mut self, db: usize, key: &[u8]) -> Result<Option<Object>, StoreError> {
        let at = self.find(db, key, Look::Peek)?;
        self.count(at.is_some());
        Ok(at.and_then(|at| self.objects.at(at)).cloned())
    }

    fn count(&mut self, is_hit: bool) {
        let counter = if is_hit {
            &mut self.hits
        } else {
            &mut self.misses
        };
        *counter += 1;
    }

    /// Brings near what lookups of these keys of a database will read, and if `are_put`,
    /// what puts will: of many at once, that takes hardly longer than of one.
    pub fn warm<'k>(&self, db: usize, keys: impl Iterator<Item = &'k [u8]>, are_put: bool) {
        let ns = self.counted.of(db).ns;
        self.objects
            .warm(&self.rows, keys.map(|key| (ns, key)), are_put);
    }
}
