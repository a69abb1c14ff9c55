//! What a shard counts, and the names it gives out: one system row.
//!
//! ```text
//! X counted: | next object id 8 | next namespace 4 | 16 times: namespace 4, keys 8, expiring 8 |
//!            | 16 times: namespace 4 |                 of a load that is under way, or nothing
//! ```
//! The row is written into each generation before it is frozen, so what it says is what
//! the generation's other rows say.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::bad_row;
use crate::store::format::row::{self, Namespace, ObjectId};
use crate::store::rows::{Rows, StoreError};

/// Databases of a shard.
pub const DATABASES: usize = 16;

const ROW_BYTES: usize = 12 + DATABASES * 20;
const LOADING_BYTES: usize = DATABASES * 4;
const ROW_NAME: &str = "counted";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Database {
    pub(super) ns: Namespace,
    pub(super) keys: u64,
    pub(super) expiring: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    next_object: u64,
    next_ns: u32,
    databases: [Database; DATABASES],
    /// What will be the databases once it is all there.
    loading: Option<Box<[Database; DATABASES]>>,
}

impl Counted {
    fn new() -> Self {
        Self {
            next_object: 1,
            next_ns: DATABASES as u32,
            databases: std::array::from_fn(|db| Database {
                ns: Namespace(db as u32),
                keys: 0,
                expiring: 0,
            }),
            loading: None,
        }
    }

    /// As it was written; and the namespaces of a load that did not come to its end.
    pub(super) fn read(rows: &mut Rows) -> Result<(Self, Vec<Namespace>), StoreError> {
        let key = row::system(ROW_NAME);
        let Some(mut bytes) = rows.get(&key)? else {
            return Ok((Self::new(), Vec::new()));
        };
        if ![ROW_BYTES, ROW_BYTES + LOADING_BYTES].contains(&bytes.len()) {
            return Err(bad_row(&key));
        }
        let counted = Self {
            next_object: bytes.get_u64(),
            next_ns: bytes.get_u32(),
            databases: std::array::from_fn(|_| Database {
                ns: Namespace(bytes.get_u32()),
                keys: bytes.get_u64(),
                expiring: bytes.get_u64(),
            }),
            loading: None,
        };
        let mut left = Vec::new();
        while bytes.has_remaining() {
            left.push(Namespace(bytes.get_u32()));
        }
        Ok((counted, left))
    }

    pub(super) fn write(&self, rows: &mut Rows) {
        let mut bytes = BytesMut::with_capacity(ROW_BYTES + LOADING_BYTES);
        bytes.put_u64(self.next_object);
        bytes.put_u32(self.next_ns);
        for database in &self.databases {
            bytes.put_u32(database.ns.0);
            bytes.put_u64(database.keys);
            bytes.put_u64(database.expiring);
        }
        for database in self.loading.iter().flat_map(|loading| loading.iter()) {
            bytes.put_u32(database.ns.0);
        }
        rows.put(&row::system(ROW_NAME), Bytes::from(bytes));
    }

    pub(super) fn new_object_id(&mut self) -> ObjectId {
        let id = ObjectId(self.next_object);
        self.next_object += 1;
        id
    }

    /// Those from [`DATABASES`] on are the ones that are being loaded.
    pub(super) fn of(&self, db: usize) -> &Database {
        match &self.loading {
            Some(loading) if db >= DATABASES => &loading[db % DATABASES],
            _ => &self.databases[db % DATABASES],
        }
    }

    pub(super) fn of_mut(&mut self, db: usize) -> &mut Database {
        match &mut self.loading {
            Some(loading) if db >= DATABASES => &mut loading[db % DATABASES],
            _ => &mut self.databases[db % DATABASES],
        }
    }

    /// Empty databases beside the others. Those of an earlier load are given back.
    pub(super) fn begin_loading(&mut self) -> Vec<Namespace> {
        let left = self.take_loading();
        let first = self.next_ns;
        self.next_ns += DATABASES as u32;
        self.loading = Some(Box::new(std::array::from_fn(|db| Database {
            ns: Namespace(first + db as u32),
            keys: 0,
            expiring: 0,
        })));
        left
    }

    /// Ends a load without its result: the namespaces that it used.
    pub(super) fn take_loading(&mut self) -> Vec<Namespace> {
        let loading = self.loading.take();
        let databases = loading.iter().flat_map(|loading| loading.iter());
        databases.map(|database| database.ns).collect()
    }

    /// What was loaded are the databases now: the namespaces that were.
    pub(super) fn switch_to_loaded(&mut self) -> Vec<Namespace> {
        let Some(loaded) = self.loading.take() else {
            return Vec::new();
        };
        let old = std::mem::replace(&mut self.databases, *loaded);
        old.iter().map(|database| database.ns).collect()
    }

    pub(super) fn database_of(&self, ns: Namespace) -> Option<usize> {
        self.databases.iter().position(|database| database.ns == ns)
    }

    /// Gives a database a new namespace; the one it had, and how many keys were in it.
    pub(super) fn renew(&mut self, db: usize) -> (Namespace, u64) {
        let ns = Namespace(self.next_ns);
        self.next_ns += 1;
        let old = *self.of(db);
        *self.of_mut(db) = Database {
            ns,
            keys: 0,
            expiring: 0,
        };
        (old.ns, old.keys)
    }

    pub(super) fn swap(&mut self, one: usize, other: usize) {
        self.databases.swap(one % DATABASES, other % DATABASES);
    }
}
