//! Emptied output buffers, kept for the next clients that are answered.
//!
//! A client has a buffer only while it is owed bytes, so in a turn in which many
//! clients are answered as many buffers go round. What is kept is bounded by
//! its bytes, not by its number: a thousand clients with short replies take less
//! memory than ten with long ones.

/// Memory of all kept buffers.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// A buffer with more memory than this is not kept.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// An empty buffer; the one that was given last, which is likely in a cache.
    #[inline]
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps the buffer's memory, if there is room; its bytes are forgotten.
    #[inline]
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        let is_kept = 0 < bytes && bytes <= BUFFER_BYTES_MAX;
        if is_kept && self.bytes + bytes <= KEPT_BYTES_MAX {
            buffer.clear();
            self.bytes += bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_round() {
        let mut spares = Spares::default();
        spares.give(b"reply".to_vec());
        let buffer = spares.take();
        assert_eq!((buffer.len(), buffer.capacity()), (0, 5));
        assert_eq!((spares.take().capacity(), spares.bytes), (0, 0));
    }

    #[test]
    fn no_more_is_kept_than_the_bounds_allow() {
        let mut spares = Spares::default();
        spares.give(Vec::with_capacity(BUFFER_BYTES_MAX + 1));
        spares.give(Vec::new());
        assert!(spares.buffers.is_empty());
        for _ in 0..=KEPT_BYTES_MAX / BUFFER_BYTES_MAX {
            spares.give(Vec::with_capacity(BUFFER_BYTES_MAX));
        }
        assert_eq!(spares.bytes, KEPT_BYTES_MAX);
        let kept: usize = spares.buffers.iter().map(Vec::capacity).sum();
        assert_eq!(kept, KEPT_BYTES_MAX);
    }
}
