//! CRC-16/XMODEM (poly 0x1021, most significant bit first, start 0) in a
//! 32-bit accumulator.
//!
//! twemproxy never masks the accumulator to 16 bits, so its high half carries
//! older bits and is part of `hash = "crc16"`. The low half is the true CRC,
//! which is what Redis Cluster's slots are made of.

pub(super) fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0u32, |crc, &byte| {
        (crc << 8) ^ u32::from(TABLE[usize::from((crc >> 8) as u8 ^ byte)])
    })
}

const POLY: u16 = 0x1021;

static TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ POLY
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::crc16;

    #[test]
    fn low_half_is_xmodem() {
        let reference = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        let key: Vec<u8> = (0..=255).collect();
        for length in 0..key.len() {
            assert_eq!(
                crc16(&key[..length]) as u16,
                reference.checksum(&key[..length])
            );
        }
    }
}
