//! A short collection as one run of bytes.
//!
//! ```text
//! | length varint | item | length varint | item | ..
//! ```
//! What the items are is the collection's business: fields and values of a hash in turn,
//! members of a set, scores (8 bytes) and members of a sorted set in turn.

use bytes::Bytes;

/// Seven bits a byte, low ones first; the last byte has the high bit clear.
const VARINT_BYTES_MAX: usize = 5;

/// Items, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed(Bytes);

impl Packed {
    /// Reads bytes that [`PackedWriter`] made.
    ///
    /// `None` if they do not end with an item's end.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = split_item(rest)?.1;
        }
        Some(Self(bytes))
    }

    /// The bytes as they are stored.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All items in order.
    pub fn iter(&self) -> PackedIter<'_> {
        PackedIter(&self.0)
    }

    /// How many items there are: they are counted, one by one.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// An item that shares this one's memory. `item` must come from [`Self::iter`].
    pub fn share(&self, item: &[u8]) -> Bytes {
        self.0.slice_ref(item)
    }
}

impl<'a> FromIterator<&'a [u8]> for Packed {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(items: I) -> Self {
        let mut writer = PackedWriter::default();
        for item in items {
            writer.push(item);
        }
        writer.finish()
    }
}

/// See [`Packed::iter`].
#[derive(Clone, Debug)]
pub struct PackedIter<'a>(&'a [u8]);

impl<'a> Iterator for PackedIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (item, rest) = split_item(self.0)?;
        self.0 = rest;
        Some(item)
    }
}

impl<'a> PackedIter<'a> {
    /// Two items at once, as long as there are two.
    pub fn pairs(mut self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        std::iter::from_fn(move || Some((self.next()?, self.next()?)))
    }
}

fn split_item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes.get(at + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// Makes a [`Packed`].
#[derive(Clone, Debug, Default)]
pub struct PackedWriter(Vec<u8>);

impl PackedWriter {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// One more item, of at most `u32::MAX` bytes.
    pub fn push(&mut self, item: &[u8]) {
        let mut left = item.len();
        while left >= 0x80 {
            self.0.push(left as u8 | 0x80);
            left >>= 7;
        }
        self.0.push(left as u8);
        self.0.extend_from_slice(item);
    }

    /// All items of another one, behind those here.
    pub fn push_all(&mut self, items: &Packed) {
        self.0.extend_from_slice(&items.0);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was pushed.
    pub fn finish(self) -> Packed {
        Packed(Bytes::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_and_torn_bytes_do_not() {
        let long = vec![7_u8; 20_000];
        let items: Vec<&[u8]> = vec![b"", b"a", &long, b"\x80\xff"];
        let packed: Packed = items.iter().copied().collect();
        assert_eq!(packed.iter().collect::<Vec<_>>(), items);
        assert_eq!(packed.count(), 4);
        let bytes = packed.as_bytes().clone();
        assert_eq!(Packed::from_bytes(bytes.clone()), Some(packed));
        assert_eq!(Packed::from_bytes(bytes.slice(..bytes.len() - 1)), None);
        assert_eq!(Packed::from_bytes(Bytes::from_static(&[0x80; 9])), None);
    }
}
