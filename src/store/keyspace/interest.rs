//! Keys that somebody watches or waits for: what became of them is told.

use super::Keyspace;
use crate::store::format::object::Object;
use crate::store::rows::StoreError;

impl Keyspace {
    /// As [`Keyspace::put`], for what a command makes in place of a key, whatever it held.
    /// Who waits for the key is not woken by that if it was there, as Redis has it.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn put_over(&mut self, db: usize, key: &[u8], object: Object) -> Result<(), StoreError> {
        let at = (db, Box::from(key));
        if self.interest.contains_key(&at) && self.lookup(db, key)?.is_some() {
            self.overwritten.push(at);
        }
        self.put(db, key, object)
    }

    /// Says that a key changed whose meta row did not.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        self.changes += 1;
        if !self.interest.is_empty() {
            let at = (db, Box::from(key));
            if self.interest.contains_key(&at) {
                self.changed.push(at);
            }
        }
    }

    /// Somebody watches or waits for a key: its changes are told.
    pub fn add_interest(&mut self, db: usize, key: &[u8]) {
        *self.interest.entry((db, Box::from(key))).or_default() += 1;
    }

    /// The opposite of [`Keyspace::add_interest`].
    pub fn drop_interest(&mut self, db: usize, key: &[u8]) {
        let at = (db, Box::from(key));
        if let Some(count) = self.interest.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.interest.remove(&at);
            }
        }
    }

    /// Keys of interest that nobody is to be woken by, since they were last taken.
    pub fn take_overwritten(&mut self) -> Vec<(usize, Box<[u8]>)> {
        std::mem::take(&mut self.overwritten)
    }

    /// Keys of interest that changed since they were last taken, in order, some twice.
    pub fn take_changed(&mut self) -> Vec<(usize, Box<[u8]>)> {
        std::mem::take(&mut self.changed)
    }
}
