//! CRC-64 "Jones" as Redis uses it for RDB files and DUMP payloads.
//!
//! Polynomial ad93d23594c935a9, reflected in and out, initial value 0, no
//! final xor, so a running value is also the next call's start.

use crc_fast::{CrcAlgorithm, Digest};

/// Continues a checksum over `bytes`; `crc` is 0 or what an earlier call gave.
///
/// `crc64(crc64(0, a), b)` equals `crc64(0, a ++ b)`.
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    if crc == 0 {
        return crc_fast::checksum(CrcAlgorithm::Crc64Redis, bytes);
    }
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Redis, crc);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(0, b""), 0);
    }

    #[test]
    fn any_split_gives_what_the_table_driven_reference_gives() {
        let reference = crc::Crc::<u64>::new(&crc::CRC_64_REDIS);
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        let whole = reference.checksum(&bytes);
        assert_eq!(crc64(0, &bytes), whole);
        for split in 0..bytes.len() {
            let (left, right) = bytes.split_at(split);
            assert_eq!(crc64(crc64(0, left), right), whole, "split at {split}");
        }
    }
}
