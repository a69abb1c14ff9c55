//! The bounded cache of decoded objects, in front of their meta rows.
//!
//! It is told of every change, so what it has is always what the rows say. What is known
//! not to be there is kept too.

use std::hash::Hash;

use bytes::Bytes;
use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};

use super::bad_row;
use crate::store::format::object::{ListValue, Object, Stored, StringStored, Value};
use crate::store::format::row::{self, Namespace};
use crate::store::rows::{Rows, StoreError};

/// What an entry takes besides its bytes: two headers of `Bytes` or boxes, the table.
const ENTRY_BYTES: usize = 160;
/// What most entries take, to know how many there will be.
const USUAL_BYTES: usize = 256;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    ns: Namespace,
    key: Box<[u8]>,
}

#[derive(Hash)]
struct KeyRef<'a> {
    ns: Namespace,
    key: &'a [u8],
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, other: &Key) -> bool {
        self.ns == other.ns && *self.key == *other.key
    }
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Key, Option<Object>> for ByBytes {
    fn weight(&self, key: &Key, object: &Option<Object>) -> u64 {
        let bytes = object.as_ref().map_or(0, |object| bytes_of(&object.value));
        (ENTRY_BYTES + key.key.len() + bytes) as u64
    }
}

fn bytes_of(value: &Value) -> usize {
    let whole: Option<&Bytes> = match value {
        Value::String(string) => match &string.stored {
            StringStored::Whole(bytes) => Some(bytes),
            StringStored::Chunks { .. } => None,
        },
        Value::List(ListValue::Inline(items)) => Some(items.as_bytes()),
        Value::List(ListValue::Rows { .. }) => None,
        Value::Hash(of) | Value::Set(of) | Value::Zset(of) => match &of.stored {
            Stored::Inline(items) => Some(items.as_bytes()),
            Stored::Rows { .. } => None,
        },
    };
    whole.map_or(0, Bytes::len)
}

#[derive(Debug)]
pub(super) struct Objects {
    cache: Cache<Key, Option<Object>, ByBytes, RandomState>,
}

impl Objects {
    pub(super) fn new(cache_bytes: usize) -> Self {
        let cache = Cache::with(
            cache_bytes / USUAL_BYTES,
            cache_bytes as u64,
            ByBytes,
            RandomState::default(),
            DefaultLifecycle::default(),
        );
        Self { cache }
    }

    pub(super) fn read(
        &mut self,
        rows: &mut Rows,
        ns: Namespace,
        key: &[u8],
    ) -> Result<Option<Object>, StoreError> {
        // No row can have such a key, and the engine must not be asked for one.
        if key.len() > row::KEY_BYTES_MAX {
            return Ok(None);
        }
        if let Some(known) = self.cache.get(&KeyRef { ns, key }) {
            return Ok(known.clone());
        }
        let meta = row::meta(ns, key);
        let object = match rows.get(&meta)? {
            None => None,
            Some(bytes) => Some(Object::decode(&bytes).ok_or_else(|| bad_row(&meta))?),
        };
        self.put(ns, key, object.clone());
        Ok(object)
    }

    pub(super) fn put(&mut self, ns: Namespace, key: &[u8], object: Option<Object>) {
        if let Some(mut known) = self.cache.get_mut(&KeyRef { ns, key }) {
            *known = object;
            return;
        }
        let key = Key {
            ns,
            key: Box::from(key),
        };
        self.cache.insert(key, object);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.cache.clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}
