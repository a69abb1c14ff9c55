//! The bounded cache of decoded objects, in front of their meta rows.
//!
//! It is told of every change, so what it has is always what the rows say. What is known
//! not to be there is kept too. When an object was last used is known as long as it is
//! here, in seconds of 24 bits, as Redis keeps it.

use std::cell::Cell;
use std::hash::Hash;

use bytes::Bytes;
use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};
use smallvec::SmallVec;

use super::bad_row;
use crate::store::format::object::{Kind, ListValue, Object, Stored, StringStored, Value};
use crate::store::format::row::{self, Namespace, ObjectId};
use crate::store::rows::{Rows, StoreError};

/// What an entry takes besides its bytes: two headers of `Bytes` or boxes, the table.
const ENTRY_BYTES: usize = 160;
/// What most entries take, to know how many there will be.
const USUAL_BYTES: usize = 256;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    ns: Namespace,
    /// A short one stands where it is looked for.
    key: SmallVec<[u8; 24]>,
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

/// An object, or that there is none, and when it was last used.
#[derive(Clone, Debug)]
struct Known {
    object: Option<Object>,
    used_at: Cell<u32>,
}

/// Whether looking at an object is a use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Use,
    Peek,
}

/// An object without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) expires_at_ms: Option<u64>,
    pub(super) id: Option<ObjectId>,
    pub(super) kind: Kind,
}

impl Outline {
    pub(super) fn of(object: &Object) -> Self {
        Self {
            expires_at_ms: object.expires_at_ms,
            id: object.value.id(),
            kind: object.value.kind(),
        }
    }
}

/// Seconds of the clock of uses.
const CLOCK_MASK: u64 = (1 << 24) - 1;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Key, Known> for ByBytes {
    fn weight(&self, key: &Key, known: &Known) -> u64 {
        let object = known.object.as_ref();
        let bytes = object.map_or(0, |object| bytes_of(&object.value));
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
        Value::List(ListValue::Rows { .. }) | Value::Stream(_) => None,
        Value::Hash(of) | Value::Set(of) | Value::Zset(of) => match &of.stored {
            Stored::Inline(items) => Some(items.as_bytes()),
            Stored::Rows { .. } => None,
        },
    };
    whole.map_or(0, Bytes::len)
}

fn fetch(rows: &Rows, ns: Namespace, key: &[u8]) -> Result<Option<Object>, StoreError> {
    let meta = row::meta(ns, key);
    match rows.get(&meta)? {
        None => Ok(None),
        Some(bytes) => Object::decode(&bytes)
            .map(Some)
            .ok_or_else(|| bad_row(&meta)),
    }
}

#[derive(Debug)]
pub(super) struct Objects {
    cache: Cache<Key, Known, ByBytes, RandomState>,
    clock: u32,
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
        Self { cache, clock: 0 }
    }

    pub(super) fn set_now_ms(&mut self, now_ms: u64) {
        self.clock = ((now_ms / 1000) & CLOCK_MASK) as u32;
    }

    /// Seconds since an object was used, as far as that is known.
    pub(super) fn idle_seconds(&self, ns: Namespace, key: &[u8]) -> u64 {
        let known = self.cache.peek(&KeyRef { ns, key });
        let used_at = known.map_or(self.clock, |known| known.used_at.get());
        match self.clock.checked_sub(used_at) {
            Some(idle) => idle.into(),
            None => u64::from(self.clock) + CLOCK_MASK - u64::from(used_at),
        }
    }

    /// Says that an object was used so long ago.
    pub(super) fn set_idle_seconds(&mut self, ns: Namespace, key: &[u8], idle: i64) {
        // As Redis reckons, whatever comes of it.
        let idle = idle.wrapping_mul(1000) / 1000;
        let used_at = match i64::from(self.clock).wrapping_sub(idle) {
            at @ 0.. => at,
            at => at.wrapping_add(CLOCK_MASK as i64),
        };
        if let Some(known) = self.cache.peek(&KeyRef { ns, key }) {
            known.used_at.set((used_at as u64 & CLOCK_MASK) as u32);
        }
    }

    pub(super) fn read(
        &mut self,
        rows: &mut Rows,
        ns: Namespace,
        key: &[u8],
        look: Look,
    ) -> Result<Option<Object>, StoreError> {
        // No row can have such a key, and the engine must not be asked for one.
        if key.len() > row::KEY_BYTES_MAX {
            return Ok(None);
        }
        if let Some(known) = self.cache.get(&KeyRef { ns, key }) {
            if look == Look::Use {
                known.used_at.set(self.clock);
            }
            return Ok(known.object.clone());
        }
        let object = fetch(rows, ns, key)?;
        self.put(ns, key, object.clone());
        Ok(object)
    }

    /// What there is to know of an object that is about to be put over: it is not kept.
    pub(super) fn outline(
        &self,
        rows: &Rows,
        ns: Namespace,
        key: &[u8],
        look: Look,
    ) -> Result<Option<Outline>, StoreError> {
        if let Some(known) = self.cache.get(&KeyRef { ns, key }) {
            if look == Look::Use {
                known.used_at.set(self.clock);
            }
            return Ok(known.object.as_ref().map(Outline::of));
        }
        if key.len() > row::KEY_BYTES_MAX {
            return Ok(None);
        }
        let found = fetch(rows, ns, key)?;
        Ok(found.as_ref().map(Outline::of))
    }

    /// Puts an object over one that is here and `may` be put over; what that was. The object
    /// comes back if there is none.
    pub(super) fn put_over(
        &mut self,
        ns: Namespace,
        key: &[u8],
        object: Object,
        may: impl Fn(&Outline) -> bool,
    ) -> Result<Option<Outline>, Object> {
        let Some(mut known) = self.cache.get_mut(&KeyRef { ns, key }) else {
            return Err(object);
        };
        let old = known.object.as_ref().map(Outline::of);
        if old.as_ref().is_some_and(|old| !may(old)) {
            return Err(object);
        }
        known.object = Some(object);
        known.used_at.set(self.clock);
        Ok(old)
    }

    pub(super) fn put(&mut self, ns: Namespace, key: &[u8], object: Option<Object>) {
        let new = Known {
            object,
            used_at: Cell::new(self.clock),
        };
        if let Some(mut known) = self.cache.get_mut(&KeyRef { ns, key }) {
            *known = new;
            return;
        }
        let key = Key {
            ns,
            key: SmallVec::from_slice(key),
        };
        self.cache.insert(key, new);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.cache.clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}
