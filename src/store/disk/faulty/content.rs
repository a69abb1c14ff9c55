//! One file of the disk that fails: as it is read, and as a power loss finds it.

use std::collections::BTreeSet;

/// What a disk writes at once, or does not.
const BLOCK_BYTES: usize = 4096;

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    durable: Vec<u8>,
    /// Blocks that differ, as far as the system knows.
    dirty: BTreeSet<usize>,
}

impl Content {
    /// A file that was synced.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self {
            now: bytes.clone(),
            durable: bytes,
            dirty: BTreeSet::new(),
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        if let Some(place) = self.now.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
        let blocks = at / BLOCK_BYTES..=(end - 1) / BLOCK_BYTES;
        self.dirty.extend(blocks);
    }

    /// Inverts the bits of `mask` in both; whether there is such a byte.
    pub(super) fn flip(&mut self, at: usize, mask: u8) -> bool {
        for bytes in [&mut self.now, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        at < self.now.len()
    }

    pub(super) fn sync(&mut self) {
        self.write_back(&mut || true);
    }

    /// Writes the dirty blocks that `is_chosen`. The length comes with the last of them.
    pub(super) fn write_back(&mut self, is_chosen: &mut dyn FnMut() -> bool) {
        for block in std::mem::take(&mut self.dirty) {
            if !is_chosen() {
                self.dirty.insert(block);
                continue;
            }
            let from = block * BLOCK_BYTES;
            let until = (from + BLOCK_BYTES).min(self.now.len());
            if self.durable.len() < until {
                self.durable.resize(until, 0);
            }
            if let (Some(old), Some(new)) =
                (self.durable.get_mut(from..until), self.now.get(from..until))
            {
                old.copy_from_slice(new);
            }
        }
    }

    /// After a sync that failed: the blocks count as written, and are not.
    pub(super) fn forget(&mut self) {
        self.dirty.clear();
    }

    /// The bytes that are found after a power loss; `choose` gives a number up to its own.
    pub(super) fn after_power_loss(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let grown = self.now.len().saturating_sub(bytes.len());
        let grown = if choose(1) == 0 { grown } else { choose(grown) };
        bytes.resize(bytes.len() + grown, 0);
        for &block in &self.dirty {
            let from = block * BLOCK_BYTES;
            let until = (from + BLOCK_BYTES).min(self.now.len());
            let until = match choose(2) {
                0 => from,
                1 => from + choose(until.saturating_sub(from)),
                _ => until,
            };
            let until = until.min(bytes.len());
            if let (Some(old), Some(new)) = (bytes.get_mut(from..until), self.now.get(from..until))
            {
                old.copy_from_slice(new);
            }
        }
        bytes
    }
}
