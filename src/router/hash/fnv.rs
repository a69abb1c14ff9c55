//! FNV as twemproxy computes it: bytes are signed chars, sign-extended.
//!
//! The "64" variants return the low 32 bits of the 64-bit hash. Those depend
//! only on low bits (the prime is 2^40 + 0x1b3), so 32-bit arithmetic gives
//! the same result at half the width.

const OFFSET_64_LOW: u32 = 0x8422_2325;
const PRIME_64_LOW: u32 = 0x0000_01b3;
const OFFSET_32: u32 = 2_166_136_261;
const PRIME_32: u32 = 16_777_619;

pub(super) fn fnv1_64(key: &[u8]) -> u32 {
    fnv1(key, OFFSET_64_LOW, PRIME_64_LOW)
}

pub(super) fn fnv1a_64(key: &[u8]) -> u32 {
    fnv1a(key, OFFSET_64_LOW, PRIME_64_LOW)
}

pub(super) fn fnv1_32(key: &[u8]) -> u32 {
    fnv1(key, OFFSET_32, PRIME_32)
}

pub(super) fn fnv1a_32(key: &[u8]) -> u32 {
    fnv1a(key, OFFSET_32, PRIME_32)
}

#[inline(always)]
fn fnv1(key: &[u8], offset: u32, prime: u32) -> u32 {
    key.iter().fold(offset, |hash, &byte| {
        hash.wrapping_mul(prime) ^ sign_extend(byte)
    })
}

#[inline(always)]
fn fnv1a(key: &[u8], offset: u32, prime: u32) -> u32 {
    key.iter().fold(offset, |hash, &byte| {
        (hash ^ sign_extend(byte)).wrapping_mul(prime)
    })
}

/// A byte as x86's plain `char`, widened.
#[inline(always)]
pub(super) const fn sign_extend(byte: u8) -> u32 {
    byte as i8 as i32 as u32
}
