//! Replies that came before an earlier one of the same client.
//!
//! ```text
//!   slots:   [ Waiting | Parked | Parked | Waiting | Parked ]    from the client's head on
//!   bytes:   "..reply 1..|..reply 2..|....reply 4...."           in the order they came
//! ```
//!
//! Invariants
//! - Slots after the last parked reply are not kept: they all wait.
//! - The head is never parked.
//! - A client has this memory only while something is parked. What it gives back
//!   is kept for the next one, so that ten thousand idle clients have none of it
//!   and a pipeline over several shards still allocates nothing.

use std::collections::VecDeque;

/// Bytes of parked replies from which holes left by replies that went out are closed.
const COMPACT_BYTES_MIN: usize = 64 * 1024;
/// Emptied memory larger than this is given back.
const KEEP_BYTES_MAX: usize = 64 * 1024;
/// Emptied memory kept for all clients together.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// What a request still owes its client.
#[derive(Debug, Clone, Copy)]
enum Slot {
    /// Nothing is here yet.
    Waiting,
    /// The reply is in `bytes`, but an earlier one is not here. Replies that
    /// came together stand in the first one's slot; the others' are empty.
    Parked { start: usize, len: usize },
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Parking {
    slots: VecDeque<Slot>,
    bytes: Vec<u8>,
    /// Bytes that did not leave yet.
    waiting: usize,
}

impl Parking {
    /// Bytes that wait.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nothing is parked.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Keeps `count` replies that are `index` after the client's head.
    pub fn park(&mut self, index: usize, count: usize, bytes: &[u8]) {
        if self.slots.len() < index + count {
            self.slots.resize(index + count, Slot::Waiting);
        }
        let empty = Slot::Parked { start: 0, len: 0 };
        self.slots
            .range_mut(index..index + count)
            .for_each(|slot| *slot = empty);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot::Parked {
                start: self.bytes.len(),
                len: bytes.len(),
            };
        }
        self.bytes.extend_from_slice(bytes);
        self.waiting += bytes.len();
    }

    /// The first `count` replies went out past this. Moves those behind them
    /// that nothing holds back any more into `out`, and says how many they are.
    /// What lies side by side is copied at once.
    pub fn pass(&mut self, count: u32, out: &mut Vec<u8>) -> u32 {
        self.slots.drain(..self.slots.len().min(count as usize));
        let (mut from, mut to) = (0, 0);
        let mut passed = 0;
        while let Some(Slot::Parked { start, len }) = self.slots.front().copied() {
            if len > 0 {
                if start != to {
                    out.extend_from_slice(self.bytes.get(from..to).unwrap_or_default());
                    from = start;
                }
                to = start + len;
                self.waiting -= len;
            }
            self.slots.pop_front();
            passed += 1;
        }
        out.extend_from_slice(self.bytes.get(from..to).unwrap_or_default());
        if self.slots.is_empty() {
            self.bytes.clear();
        } else if self.bytes.len() > COMPACT_BYTES_MIN && self.bytes.len() / 4 > self.waiting {
            self.compact();
        }
        passed
    }

    /// Closes the holes that replies left which went out.
    fn compact(&mut self) {
        let mut kept = Vec::with_capacity(self.waiting);
        for slot in &mut self.slots {
            if let Slot::Parked { start, len } = slot {
                let bytes = self.bytes.get(*start..*start + *len).unwrap_or_default();
                *start = kept.len();
                kept.extend_from_slice(bytes);
            }
        }
        self.bytes = kept;
    }

    /// Memory it takes, itself included, so that any number of them has a bound.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.slots.capacity() * size_of::<Slot>() + self.bytes.capacity()
    }
}

/// Emptied memory for the next clients.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a client holds a pointer, or nothing")]
pub struct SpareParkings {
    spare: Vec<Box<Parking>>,
    bytes: usize,
}

impl SpareParkings {
    /// The one that was given back last, or a fresh one.
    pub fn take(&mut self) -> Box<Parking> {
        let Some(parking) = self.spare.pop() else {
            return Box::default();
        };
        self.bytes -= parking.memory();
        parking
    }

    /// Keeps an empty one, if there is room.
    pub fn give(&mut self, parking: Box<Parking>) {
        let bytes = parking.memory();
        if bytes <= KEEP_BYTES_MAX && self.bytes + bytes <= SPARE_BYTES_MAX {
            self.bytes += bytes;
            self.spare.push(parking);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_closed() {
        let mut parking = Parking::default();
        let (long, mut out) = (vec![b'x'; COMPACT_BYTES_MIN], Vec::new());
        parking.park(1, 1, &long);
        parking.park(3, 1, b"last");
        assert_eq!(parking.pass(1, &mut out), 1);
        assert_eq!((&out, parking.bytes.len()), (&long, 4));
        assert_eq!((parking.pass(1, &mut out), parking.waiting()), (1, 0));
        assert!(out.ends_with(b"xlast") && parking.is_empty());
    }

    #[test]
    fn spare_memory_has_a_bound() {
        let mut spares = SpareParkings::default();
        let mut large = Box::<Parking>::default();
        large.bytes.reserve(KEEP_BYTES_MAX);
        spares.give(large);
        assert_eq!((spares.spare.len(), spares.bytes), (0, 0));
        for _ in 0..SPARE_BYTES_MAX / (KEEP_BYTES_MAX / 2) + 1 {
            let mut parking = Box::<Parking>::default();
            parking.bytes.reserve(KEEP_BYTES_MAX / 2);
            spares.give(parking);
        }
        assert!(spares.bytes <= SPARE_BYTES_MAX && spares.bytes > SPARE_BYTES_MAX / 2);
        while !spares.spare.is_empty() {
            spares.take();
        }
        assert_eq!(spares.bytes, 0);
    }
}
