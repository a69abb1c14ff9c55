//! Hashes of keys, the same for an object among those that are known and for its row among
//! those that changed: who has one knows the other.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use crate::store::format::row::{Namespace, split_meta};

/// Keys come from clients: seeded. Clones hash alike.
#[derive(Clone, Debug, Default)]
pub struct KeyHash(RandomState);

impl KeyHash {
    /// Of a key in a namespace.
    pub fn of(&self, ns: Namespace, key: &[u8]) -> u32 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u32(ns.0);
        hasher.write(key);
        hasher.finish() as u32
    }

    /// Of a row's key: that of its object, if it is a meta row.
    pub(super) fn of_row(&self, row: &[u8]) -> u32 {
        match split_meta(row) {
            Some((ns, _, key)) => self.of(ns, key),
            None => {
                let mut hasher = self.0.build_hasher();
                hasher.write(row);
                hasher.finish() as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::row;

    #[test]
    fn a_meta_row_hashes_as_its_key() {
        let (hash, ns) = (KeyHash::default(), Namespace(3));
        let row = row::meta(ns, b"some key");
        assert_eq!(hash.of_row(&row), hash.of(ns, b"some key"));
        assert_eq!(hash.clone().of_row(&row), hash.of_row(&row));
        assert_ne!(hash.of_row(b"Sxyz"), hash.of_row(b"Sxyy"));
    }
}
