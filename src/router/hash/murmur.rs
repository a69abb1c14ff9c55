//! MurmurHash2 (32 bits), seeded with 0xdeadbeef times the length as
//! libmemcached and twemproxy do.

pub(super) fn murmur2(key: &[u8]) -> u32 {
    // A key's length is far below 2^32; a longer one would wrap as in C.
    let length = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

const M: u32 = 0x5bd1_e995;
const R: u32 = 24;
