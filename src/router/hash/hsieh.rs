//! Paul Hsieh's SuperFastHash, with initial value 0 where the original takes
//! the length, and the third byte of a tail of three taken as signed.
//! Source: azillionmonkeys.com/qed/hash.html, as twemproxy carries it.

use super::fnv::sign_extend;

pub(super) fn hsieh(key: &[u8]) -> u32 {
    if key.is_empty() {
        return 0;
    }
    let mut hash = 0u32;
    let (blocks, tail) = key.as_chunks::<4>();
    for &[a, b, c, d] in blocks {
        hash = hash.wrapping_add(word(a, b));
        let mixed = (word(c, d) << 11) ^ hash;
        hash = (hash << 16) ^ mixed;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *tail {
        [a, b, c] => {
            hash = hash.wrapping_add(word(a, b));
            hash ^= hash << 16;
            hash ^= sign_extend(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(word(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    avalanche(hash)
}

/// Forces the last bits to reach all others.
#[inline(always)]
fn avalanche(mut hash: u32) -> u32 {
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

#[inline(always)]
const fn word(low: u8, high: u8) -> u32 {
    u16::from_le_bytes([low, high]) as u32
}
