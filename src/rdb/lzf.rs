//! LZF decompression, the only compression inside an RDB.
//!
//! ```text
//! 000lllll                     copy l+1 literal bytes that follow
//! lllooooo oooooooo            copy l+2 bytes from 1+o bytes back   (l = 1..6)
//! 111ooooo llllllll oooooooo   copy l+9 bytes from 1+o bytes back
//! ```
//!
//! A copy may overlap what it writes. The declared length comes from the file,
//! so it is checked against what the input could make before it allocates.

use super::reader::Malformed;

/// Bytes one input byte can become at most: 3 bytes make a copy of 255+9.
const EXPANSION_MAX: usize = 264 / 3;
/// No string of a server is longer than 512 MiB unless its proto-max-bulk-len
/// was raised, and no listpack or ziplist blob exceeds 1 GiB.
const UNPACKED_BYTES_MAX: usize = 1 << 30;

/// Unpacks `packed` into exactly `unpacked_len` bytes.
pub(super) fn decompress(packed: &[u8], unpacked_len: u64) -> Result<Vec<u8>, Malformed> {
    let bound = packed
        .len()
        .saturating_mul(EXPANSION_MAX)
        .min(UNPACKED_BYTES_MAX);
    let unpacked_len = usize::try_from(unpacked_len).unwrap_or(usize::MAX);
    if unpacked_len > bound {
        return Err(Malformed::LzfLength);
    }
    let mut out = Vec::with_capacity(unpacked_len);
    let mut input = packed;
    while let Some((&control, rest)) = input.split_first() {
        input = rest;
        let literals = usize::from(control) + 1;
        if control < 32 {
            let (bytes, rest) = input.split_at_checked(literals).ok_or(Malformed::Lzf)?;
            input = rest;
            if out.len() + bytes.len() > unpacked_len {
                return Err(Malformed::LzfLength);
            }
            out.extend_from_slice(bytes);
            continue;
        }
        let mut len = usize::from(control >> 5) + 2;
        if len == 9 {
            let (&more, rest) = input.split_first().ok_or(Malformed::Lzf)?;
            input = rest;
            len += usize::from(more);
        }
        let (&low, rest) = input.split_first().ok_or(Malformed::Lzf)?;
        input = rest;
        let back = ((usize::from(control) & 31) << 8 | usize::from(low)) + 1;
        if out.len() + len > unpacked_len {
            return Err(Malformed::LzfLength);
        }
        copy_back(&mut out, back, len)?;
    }
    if out.len() == unpacked_len {
        Ok(out)
    } else {
        Err(Malformed::LzfLength)
    }
}

fn copy_back(out: &mut Vec<u8>, back: usize, len: usize) -> Result<(), Malformed> {
    let start = out.len().checked_sub(back).ok_or(Malformed::Lzf)?;
    if back >= len {
        out.extend_from_within(start..start + len);
        return Ok(());
    }
    // Overlap: what is copied repeats with period `back`.
    let mut left = len;
    while left > 0 {
        let run = left.min(out.len() - start);
        out.extend_from_within(start..start + run);
        left -= run;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlapping_copy_repeats() {
        // 'a', then 15 more of it from one byte back.
        let packed = [0, b'a', 0xe0, 6, 0];
        assert_eq!(decompress(&packed, 16).unwrap(), vec![b'a'; 16]);
    }

    #[test]
    fn wrong_lengths_and_offsets_are_errors() {
        assert!(decompress(&[0, b'a'], 2).is_err());
        assert!(decompress(&[1, b'a', b'b'], 1).is_err());
        assert!(decompress(&[0x20, 0], 3).is_err());
        assert!(decompress(&[5, b'a'], 6).is_err());
        assert!(decompress(&[0, b'a'], u64::MAX).is_err());
        assert_eq!(decompress(&[], 0).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn unpacks_what_the_reference_packs(unit in prop::collection::vec(0u8..4, 1..40), times in 1usize..60) {
            let data = unit.repeat(times);
            if let Ok(packed) = lzf::compress(&data) {
                prop_assert_eq!(decompress(&packed, data.len() as u64).unwrap(), data);
            }
        }

        #[test]
        fn garbage_is_an_error_or_the_declared_length(packed in prop::collection::vec(any::<u8>(), 0..200), len in 0u64..20_000) {
            if let Ok(data) = decompress(&packed, len) {
                prop_assert_eq!(data.len() as u64, len);
            }
        }
    }
}
