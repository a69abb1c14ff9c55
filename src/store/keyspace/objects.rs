//! The bounded cache of decoded objects, in front of their meta rows.
//!
//! It is told of every change, so what it has is always what the rows say. What is known
//! not to be there is kept too. When an object was last used is known as long as it is
//! here, in seconds of 24 bits, as Redis keeps it.

use std::cell::Cell;

use bytes::Bytes;

use super::bad_row;
use super::resident::{Resident, WARM_MAX, Weighed};
use crate::store::format::object::{Kind, ListValue, Object, Stored, StringStored, Value};
use crate::store::format::row::{self, Namespace, ObjectId};
use crate::store::rows::{KeyHash, Rows, StoreError};

/// What an entry takes besides its bytes: its place, what the allocator and `Bytes` add to
/// them, the table.
const ENTRY_BYTES: usize = 192;

/// An object, or that there is none, and when it was last used.
#[derive(Debug, Default)]
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

impl Weighed for Known {
    fn bytes(&self) -> usize {
        self.whole().map_or(0, Bytes::len)
    }

    fn touch(&self) -> u8 {
        let bytes = self.whole().map_or(&[][..], |bytes| bytes);
        let read = |at: usize| bytes.get(at).copied().unwrap_or(0);
        read(0) ^ read(CACHE_LINE_BYTES) ^ bytes.last().copied().unwrap_or(0)
    }
}

/// So much of memory comes at once.
const CACHE_LINE_BYTES: usize = 64;

impl Known {
    /// The bytes of what is not in rows.
    fn whole(&self) -> Option<&Bytes> {
        match &self.object.as_ref()?.value {
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
        }
    }
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
    known: Resident<Known>,
    clock: u32,
}

impl Objects {
    pub(super) fn new(cache_bytes: usize, hash: KeyHash) -> Self {
        Self {
            known: Resident::new(cache_bytes as u64, ENTRY_BYTES, hash),
            clock: 0,
        }
    }

    pub(super) fn set_now_ms(&mut self, now_ms: u64) {
        self.clock = ((now_ms / 1000) & CLOCK_MASK) as u32;
    }

    /// Seconds since an object was used, as far as that is known.
    pub(super) fn idle_seconds(&self, ns: Namespace, key: &[u8]) -> u64 {
        let known = self.known.peek(self.known.hash_of(ns, key), ns, key);
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
        if let Some(known) = self.known.peek(self.known.hash_of(ns, key), ns, key) {
            known.used_at.set((used_at as u64 & CLOCK_MASK) as u32);
        }
    }

    /// Where the object of a key is, until something is put; nothing if there is none.
    pub(super) fn locate(
        &mut self,
        rows: &Rows,
        ns: Namespace,
        key: &[u8],
        look: Look,
    ) -> Result<Option<At>, StoreError> {
        // No row can have such a key, and the engine must not be asked for one.
        if key.len() > row::KEY_BYTES_MAX {
            return Ok(None);
        }
        let hash = self.known.hash_of(ns, key);
        let number = match self.known.find(hash, ns, key) {
            Some(number) => number,
            None => {
                let known = self.used_now(fetch(rows, ns, key)?);
                self.known.add(hash, ns, key, known)
            }
        };
        let Some(known) = self.known.get(number) else {
            return Ok(None);
        };
        if look == Look::Use {
            known.used_at.set(self.clock);
        }
        Ok(known.object.as_ref().map(|_| At(number)))
    }

    /// The object at a place.
    pub(super) fn at(&self, at: At) -> Option<&Object> {
        self.known.get(at.0)?.object.as_ref()
    }

    pub(super) fn read(
        &mut self,
        rows: &Rows,
        ns: Namespace,
        key: &[u8],
        look: Look,
    ) -> Result<Option<Object>, StoreError> {
        let at = self.locate(rows, ns, key, look)?;
        Ok(at.and_then(|at| self.at(at)).cloned())
    }

    fn used_now(&self, object: Option<Object>) -> Known {
        Known {
            object,
            used_at: Cell::new(self.clock),
        }
    }

    /// What there is to know of an object that is about to be put over: it is not kept.
    pub(super) fn outline(
        &self,
        rows: &Rows,
        ns: Namespace,
        key: &[u8],
        look: Look,
    ) -> Result<Option<Outline>, StoreError> {
        let number = self.known.find(self.known.hash_of(ns, key), ns, key);
        if let Some(known) = number.and_then(|number| self.known.get(number)) {
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
        let number = self.known.find(self.known.hash_of(ns, key), ns, key);
        let found = number.and_then(|number| Some((number, self.known.get(number)?)));
        let Some((number, known)) = found else {
            return Err(object);
        };
        let old = known.object.as_ref().map(Outline::of);
        if old.as_ref().is_some_and(|old| !may(old)) {
            return Err(object);
        }
        let new = self.used_now(Some(object));
        self.known.change(number, |known| *known = new);
        Ok(old)
    }

    pub(super) fn put(&mut self, ns: Namespace, key: &[u8], object: Option<Object>) {
        let new = self.used_now(object);
        let hash = self.known.hash_of(ns, key);
        match self.known.find(hash, ns, key) {
            Some(number) => drop(self.known.change(number, |known| *known = new)),
            None => drop(self.known.add(hash, ns, key, new)),
        }
    }

    /// Brings near what lookups of these keys will read, and if `are_put`, what puts will.
    pub(super) fn warm<'k>(
        &self,
        rows: &Rows,
        keys: impl Iterator<Item = (Namespace, &'k [u8])>,
        are_put: bool,
    ) {
        let mut hashes = [0; WARM_MAX];
        let hashes = self.known.warm(keys, &mut hashes);
        if are_put {
            rows.warm(hashes);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.known.bytes()
    }
}

/// A place of [`Objects::locate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct At(u32);
