//! Keys that somebody watches or waits for: what became of them is told.
//!
//! | what happened                              | who watches | who waits |
//! |--------------------------------------------|-------------|-----------|
//! | a change                                   | is told     | is woken  |
//! | a value of a kind that nobody waits for    | is told     | only if it was a stream before |
//! | a value that a command makes over another  | is told     | likewise  |
//! | a change after which there is nothing new  | is told     |           |
//! | something for those who wait only          |             | is woken  |

use super::Keyspace;
use crate::store::format::object::{Kind, Object};
use crate::store::rows::StoreError;

/// A key of interest to which something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its database.
    pub db: usize,
    /// The key.
    pub key: Box<[u8]>,
    /// Who is to be told.
    pub tells: Tells,
}

/// Who is told of something that happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Who watches it, and who waits for it.
    All,
    /// Who watches it.
    Watchers,
    /// Who waits for it.
    Waiters,
}

impl Tells {
    /// Of a value that was put. A stream that is one no longer ends the waits of groups.
    pub(super) fn of_put(was: Option<Kind>, is: Kind) -> Self {
        let is_waited_for = matches!(is, Kind::List | Kind::Zset | Kind::Stream);
        match is_waited_for || was == Some(Kind::Stream) {
            true => Tells::All,
            false => Tells::Watchers,
        }
    }

    /// Whether those are told who watch the key.
    pub fn watchers(self) -> bool {
        self != Tells::Waiters
    }

    /// Whether those are woken who wait for the key.
    pub fn waiters(self) -> bool {
        self != Tells::Watchers
    }
}

impl Keyspace {
    /// As [`Keyspace::put`], for what a command makes in place of a key, whatever it held.
    /// Who waits for the key is not woken by that if it was there, as Redis has it.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn put_over(&mut self, db: usize, key: &[u8], object: Object) -> Result<(), StoreError> {
        let is = object.value.kind();
        let was = self.put_untold(db, key, object)?;
        let tells = match was {
            None => Tells::of_put(was, is),
            Some(Kind::Stream) => Tells::All,
            Some(_) => Tells::Watchers,
        };
        self.tell(db, key, tells);
        Ok(())
    }

    /// Says that a key changed whose meta row did not.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        self.tell(db, key, Tells::All);
    }

    /// Says that something changed of a key that concerns nobody who watches or waits.
    pub fn note_change(&mut self) {
        self.changes += 1;
    }

    /// Says that a key changed, to some.
    pub fn tell(&mut self, db: usize, key: &[u8], tells: Tells) {
        self.changes += 1;
        if !self.interest.is_empty() {
            let at = (db, Box::from(key));
            if self.interest.contains_key(&at) {
                let (db, key) = at;
                self.changed.push(Changed { db, key, tells });
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

    /// Keys of interest that changed since they were last taken, in order, some twice.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        std::mem::take(&mut self.changed)
    }
}
