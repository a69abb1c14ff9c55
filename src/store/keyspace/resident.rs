//! The table of what is known by key: found by hash, bounded in bytes.
//!
//! ```text
//!   slots    hash 4 | number 4     open addressing, eight in a line of the cache
//!   entries  by number, in chunks that never move; numbers of those that went are reused
//!
//!   new ---> trial --used since--> kept     both first in, first out; who was used meanwhile
//!              |                    |       goes to the end of `kept`
//!              '-- not used         '-- not used since --> forgotten
//!                    '--> forgotten; its hash stays for a while: if it comes again, it is kept
//! ```
//! The queues are S3-FIFO's (Yang et al., SOSP 2023): what is asked for once does not drive
//! out what is asked for often.
//!
//! With a million keys, most of what a request takes is waiting for memory: three places
//! one after the other. [`Resident::warm`] looks at those of many requests at once, so
//! that they come in side by side.
//!
//! Invariants: each entry has one slot and stands in one queue; `bytes` is the sum of
//! all entries' weights; a slot's way from its hash to it has no empty one.

use std::cell::Cell;
use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::store::format::row::Namespace;
use crate::store::rows::KeyHash;

/// As many keys are warmed at once.
pub(super) const WARM_MAX: usize = 64;

/// Of all bytes, one part in so many is for entries on trial.
const TRIAL_PART: u64 = 10;
/// More uses than this are not counted.
const USES_MAX: u8 = 3;
const SLOTS_MIN: usize = 16;
const CHUNK: usize = 1024;
/// What a slot without an entry has for a number.
const NOBODY: u32 = u32::MAX;

/// What is kept for a key: it says how many bytes it takes besides its entry.
pub(super) trait Weighed {
    /// Bytes that it has somewhere else.
    fn bytes(&self) -> usize;

    /// Something of what it has elsewhere, which is read and thus comes near.
    fn touch(&self) -> u8;
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    number: u32,
}

const EMPTY: Slot = Slot {
    hash: 0,
    number: NOBODY,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Trial,
    Kept,
}

/// Two lines of the cache, and not parts of three.
#[derive(Debug)]
#[repr(align(64))]
struct Entry<T> {
    /// A short one stands where it is looked for.
    key: SmallVec<[u8; 24]>,
    ns: Namespace,
    hash: u32,
    uses: Cell<u8>,
    queue: Queue,
    value: T,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Resident<T> {
    /// A power of two.
    slots: Vec<Slot>,
    entries: Vec<Vec<Entry<T>>>,
    /// Numbers that were given and are free.
    free: Vec<u32>,
    count: usize,
    bytes: u64,
    trial_bytes: u64,
    bytes_max: u64,
    /// What an entry takes besides its key's and its value's bytes.
    entry_bytes: usize,
    trial: VecDeque<u32>,
    kept: VecDeque<u32>,
    /// Hashes of entries that left on trial, by their lower bits.
    left: Vec<u32>,
    hash: KeyHash,
}

impl<T: Weighed + Default> Resident<T> {
    pub(super) fn new(bytes_max: u64, entry_bytes: usize, hash: KeyHash) -> Self {
        Self {
            slots: vec![EMPTY; SLOTS_MIN],
            entries: Vec::new(),
            free: Vec::new(),
            count: 0,
            bytes: 0,
            trial_bytes: 0,
            bytes_max,
            entry_bytes,
            trial: VecDeque::new(),
            kept: VecDeque::new(),
            left: Vec::new(),
            hash,
        }
    }

    pub(super) fn hash_of(&self, ns: Namespace, key: &[u8]) -> u32 {
        self.hash.of(ns, key)
    }

    /// The number of a key, good until something is put. It is a use of it.
    pub(super) fn find(&self, hash: u32, ns: Namespace, key: &[u8]) -> Option<u32> {
        let (number, entry) = self.probe(hash, ns, key)?;
        let uses = entry.uses.get();
        if uses < USES_MAX {
            entry.uses.set(uses + 1);
        }
        Some(number)
    }

    /// The same, and no use.
    pub(super) fn peek(&self, hash: u32, ns: Namespace, key: &[u8]) -> Option<&T> {
        let (_, entry) = self.probe(hash, ns, key)?;
        Some(&entry.value)
    }

    fn probe(&self, hash: u32, ns: Namespace, key: &[u8]) -> Option<(u32, &Entry<T>)> {
        let mut at = hash as usize;
        loop {
            let slot = self.slot(at);
            if slot.number == NOBODY {
                return None;
            }
            if slot.hash == hash {
                let entry = self.entry(slot.number)?;
                if entry.ns == ns && entry.key[..] == *key {
                    return Some((slot.number, entry));
                }
            }
            at += 1;
        }
    }

    fn slot(&self, at: usize) -> Slot {
        self.slots[at & (self.slots.len() - 1)]
    }

    fn entry(&self, number: u32) -> Option<&Entry<T>> {
        let chunk = self.entries.get(number as usize / CHUNK)?;
        chunk.get(number as usize % CHUNK)
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry<T>> {
        let chunk = self.entries.get_mut(number as usize / CHUNK)?;
        chunk.get_mut(number as usize % CHUNK)
    }

    /// What a number stands for.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.entry(number).map(|entry| &entry.value)
    }

    /// Changes what a number stands for. No number is good any more.
    pub(super) fn change<R>(&mut self, number: u32, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let entry = self.entry_mut(number)?;
        let before = entry.value.bytes() as u64;
        let changed = change(&mut entry.value);
        let (after, queue) = (entry.value.bytes() as u64, entry.queue);
        if after != before {
            self.bytes = self.bytes + after - before;
            if queue == Queue::Trial {
                self.trial_bytes = self.trial_bytes + after - before;
            }
            self.make_room(0);
        }
        Some(changed)
    }

    /// Adds a key that is not there; its number, the only one that is good then.
    pub(super) fn add(&mut self, hash: u32, ns: Namespace, key: &[u8], value: T) -> u32 {
        let weight = (self.entry_bytes + key.len() + value.bytes()) as u64;
        self.make_room(weight);
        let queue = match self.take_left(hash) {
            true => Queue::Kept,
            false => Queue::Trial,
        };
        let entry = Entry {
            key: SmallVec::from_slice(key),
            ns,
            hash,
            uses: Cell::new(0),
            queue,
            value,
        };
        let number = self.place(entry);
        self.bytes += weight;
        match queue {
            Queue::Trial => {
                self.trial_bytes += weight;
                self.trial.push_back(number);
            }
            Queue::Kept => self.kept.push_back(number),
        }
        self.count += 1;
        self.grow_if_due();
        self.link(Slot { hash, number });
        number
    }

    fn place(&mut self, entry: Entry<T>) -> u32 {
        if let Some(number) = self.free.pop()
            && let Some(old) = self.entry_mut(number)
        {
            *old = entry;
            return number;
        }
        let chunks = self.entries.len();
        let chunk = match self.entries.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk,
            _ => {
                self.entries.push(Vec::with_capacity(CHUNK));
                return self.place(entry);
            }
        };
        chunk.push(entry);
        ((chunks - 1) * CHUNK + chunk.len() - 1) as u32
    }

    /// Puts a slot behind those that are in its way.
    fn link(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].number != NOBODY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Takes a slot out; those that it was in the way of move up.
    fn unlink(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut hole = slot.hash as usize & mask;
        while self.slots[hole].number != slot.number {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.slots[at];
            if next.number == NOBODY {
                break;
            }
            let way = at.wrapping_sub(next.hash as usize) & mask;
            if way >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = next;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
    }

    /// At most five of eight slots are taken: few are in each other's way.
    fn grow_if_due(&mut self) {
        if self.count * 8 <= self.slots.len() * 5 {
            return;
        }
        let more = vec![EMPTY; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, more);
        for slot in old.into_iter().filter(|slot| slot.number != NOBODY) {
            self.link(slot);
        }
    }

    /// Forgets entries until there is room for so many bytes.
    fn make_room(&mut self, bytes: u64) {
        while self.bytes + bytes > self.bytes_max && self.count > 0 {
            let is_trial = self.trial_bytes > self.bytes_max / TRIAL_PART || self.kept.is_empty();
            match is_trial && !self.trial.is_empty() {
                true => self.end_trial(),
                false => self.look_at_kept(),
            }
        }
    }

    fn end_trial(&mut self) {
        let Some(number) = self.trial.pop_front() else {
            return;
        };
        let weight = self.weight_of(number);
        self.trial_bytes -= weight;
        let Some(entry) = self.entry_mut(number) else {
            return;
        };
        if entry.uses.replace(0) > 0 {
            entry.queue = Queue::Kept;
            self.kept.push_back(number);
            return;
        }
        let hash = entry.hash;
        self.note_left(hash);
        self.forget(number, weight);
    }

    fn look_at_kept(&mut self) {
        let Some(number) = self.kept.pop_front() else {
            return;
        };
        let uses = self.entry(number).map_or(0, |entry| entry.uses.get());
        match uses.checked_sub(1) {
            Some(less) => {
                if let Some(entry) = self.entry(number) {
                    entry.uses.set(less);
                }
                self.kept.push_back(number);
            }
            None => self.forget(number, self.weight_of(number)),
        }
    }

    fn weight_of(&self, number: u32) -> u64 {
        self.entry(number).map_or(0, |entry| {
            (self.entry_bytes + entry.key.len() + entry.value.bytes()) as u64
        })
    }

    /// It is in no queue any more.
    fn forget(&mut self, number: u32, weight: u64) {
        let Some(entry) = self.entry_mut(number) else {
            return;
        };
        let hash = entry.hash;
        (entry.key, entry.value) = (SmallVec::new(), T::default());
        self.unlink(Slot { hash, number });
        self.free.push(number);
        self.count -= 1;
        self.bytes -= weight;
    }

    fn note_left(&mut self, hash: u32) {
        if self.left.len() < self.slots.len() / 2 {
            self.left = vec![0; self.slots.len() / 2];
        }
        let mask = self.left.len() - 1;
        self.left[hash as usize & mask] = hash;
    }

    fn take_left(&mut self, hash: u32) -> bool {
        let mask = self.left.len().wrapping_sub(1);
        match self.left.get_mut(hash as usize & mask) {
            Some(of) if *of == hash => {
                *of = 0;
                true
            }
            _ => false,
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        let hash = self.hash.clone();
        *self = Self::new(self.bytes_max, self.entry_bytes, hash);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what lookups of these keys will read: in three rounds, in each of which no read
    /// waits for another one. The hashes of keys, those that were asked for.
    pub(super) fn warm<'h, 'k>(
        &self,
        keys: impl Iterator<Item = (Namespace, &'k [u8])>,
        hashes: &'h mut [u32; WARM_MAX],
    ) -> &'h [u32] {
        let mut numbers = [NOBODY; WARM_MAX];
        let (mut count, mut seen) = (0, 0_u32);
        for (place, (ns, key)) in hashes.iter_mut().zip(keys) {
            *place = self.hash_of(ns, key);
            seen ^= self.slot(*place as usize).hash;
            count += 1;
        }
        let hashes = hashes.get(..count).unwrap_or(&[]);
        for (number, hash) in numbers.iter_mut().zip(hashes) {
            *number = self.likely(*hash);
            if let Some(entry) = self.entry(*number) {
                seen ^= entry.hash ^ u32::from(entry.uses.get());
            }
        }
        for number in numbers.iter().take(count) {
            if let Some(entry) = self.entry(*number) {
                seen ^= u32::from(entry.value.touch());
            }
        }
        std::hint::black_box(seen);
        hashes
    }

    /// The number of the first entry with this hash: mostly the right one.
    fn likely(&self, hash: u32) -> u32 {
        let mut at = hash as usize;
        loop {
            let slot = self.slot(at);
            if slot.number == NOBODY || slot.hash == hash {
                return slot.number;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests;
