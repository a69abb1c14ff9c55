//! Ids whose rows a compaction may leave out.
//!
//! An id gets here only when the batch that made its rows unreachable *survives a power
//! loss*: else a compaction could drop rows that a recovered meta row still refers to.
//! It is taken out when all its rows are gone. Ids are never used again, so a row that
//! comes back from an older table is garbage, not data.
//!
//! The decision needs no clock and no other row.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::spaces::{DeadId, ObjectOf, Owner};

/// The ids, shared by the thread that buries and sweeps and by the engine's compactions.
pub struct DeadIds {
    object_of: ObjectOf,
    sets: RwLock<Sets>,
    len: AtomicUsize,
}

#[derive(Default)]
struct Sets {
    objects: HashSet<u64, foldhash::fast::RandomState>,
    namespaces: HashSet<u32, foldhash::fast::RandomState>,
}

impl DeadIds {
    /// None is dead yet. `object_of` reads a meta row's value.
    pub fn new(object_of: ObjectOf) -> Self {
        Self {
            object_of,
            sets: RwLock::default(),
            len: AtomicUsize::new(0),
        }
    }

    /// Adds one; false if it is there already.
    pub fn insert(&self, id: DeadId) -> bool {
        let mut sets = self.write();
        let is_new = match id {
            DeadId::Object(id) => sets.objects.insert(id),
            DeadId::Namespace(ns) => sets.namespaces.insert(ns),
        };
        self.count(&sets);
        is_new
    }

    /// Takes one out: all its rows are gone.
    pub fn remove(&self, id: DeadId) {
        let mut sets = self.write();
        match id {
            DeadId::Object(id) => sets.objects.remove(&id),
            DeadId::Namespace(ns) => sets.namespaces.remove(&ns),
        };
        self.count(&sets);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is there.
    pub fn contains(&self, id: DeadId) -> bool {
        let sets = self.read();
        match id {
            DeadId::Object(id) => sets.objects.contains(&id),
            DeadId::Namespace(ns) => sets.namespaces.contains(&ns),
        }
    }

    /// The object that this meta row's value refers to.
    pub fn object_of(&self, value: &[u8]) -> Option<u64> {
        (self.object_of)(value)
    }

    /// Whether a compaction may leave this row out. A meta row that refers to an object
    /// stays: only the sweeper may remove it, since it alone says which object dies too.
    pub fn may_drop(&self, owner: Owner, value: &[u8]) -> bool {
        match owner {
            Owner::Nobody => false,
            Owner::Object(id) => self.contains(DeadId::Object(id)),
            Owner::ExpiryOf(ns) => self.contains(DeadId::Namespace(ns)),
            Owner::MetaOf(ns) => {
                self.contains(DeadId::Namespace(ns)) && self.object_of(value).is_none()
            }
        }
    }

    fn count(&self, sets: &Sets) {
        let len = sets.objects.len() + sets.namespaces.len();
        self.len.store(len, Ordering::Release);
    }

    // A thread that panicked while it held the lock left a set whole: nothing between
    // two of its lines can fail.
    fn read(&self) -> RwLockReadGuard<'_, Sets> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Sets> {
        self.sets.write().unwrap_or_else(PoisonError::into_inner)
    }
}
