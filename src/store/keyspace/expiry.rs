//! What becomes of keys whose time is over.

use bytes::Bytes;

use super::Keyspace;

/// What becomes of an object whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It is removed when it is looked at: masters.
    Remove,
    /// It is not seen, and stays until the master says so: replicas, for their clients.
    Hide,
    /// It is there: what a master or the log says is applied as it was meant.
    Ignore,
}

/// A key that expired while it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its database.
    pub db: usize,
    /// The key.
    pub key: Bytes,
}

impl Keyspace {
    /// Says what becomes of objects whose time is over.
    pub fn set_expiry(&mut self, expiry: Expiry) {
        self.expiry = expiry;
    }

    /// What becomes of objects whose time is over.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }
}
