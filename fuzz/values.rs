//! Values of every layout, from a byte and an input.
//!
//! ```text
//! bits 0-5: the type's byte under REDIS0015; 34: 22 under VALKEY080
//! bit 6: the input is a blob, to be written as a string ..
//! bit 7: .. whose first 4 bytes are to say its length (listpack, ziplist)
//! ```

use keyferry::rdb::{FileVersion, Magic, RawValue, Record, Scanner, ScannerLimits, ValueType};

/// The type, and a version that has it.
pub fn known(how: u8) -> Option<(FileVersion, ValueType)> {
    let (magic, number, byte) = match how & 0x3f {
        34 => (Magic::Valkey, 80, 22),
        byte => (Magic::Redis, 15, byte),
    };
    let version = FileVersion::known(magic, number)?;
    ValueType::known(version, byte).map(|type_id| (version, type_id))
}

/// The value as the scanner finds it in a file: its parts, or the whole as one.
pub fn parts(version: FileVersion, value: &RawValue<'_>, size: u8) -> Option<Vec<Vec<u8>>> {
    let mut file = version.to_string().into_bytes();
    file.extend_from_slice(&[value.type_id.byte(), 1, b'k']);
    file.extend_from_slice(value.bytes);
    let mut scanner = Scanner::new(ScannerLimits {
        whole_bytes_max: usize::from(size),
        ..ScannerLimits::default()
    });
    let (mut start, mut parts) = (0, Vec::new());
    while let Ok(Some(event)) = scanner.next(&file[start..]) {
        start += event.consumed;
        match event.record {
            Record::Key(key) => return Some(vec![key.value.bytes.to_vec()]),
            Record::Part(part) => {
                parts.push(part.bytes.to_vec());
                if part.last {
                    return Some(parts);
                }
            }
            _ => {}
        }
    }
    None
}

/// The value's bytes.
pub fn value_bytes(type_id: ValueType, how: u8, input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if how & 0x40 != 0 {
        // In front of the listpack of these stands the smallest expiry.
        if type_id == ValueType::HashListpackEx {
            bytes.extend_from_slice(&[0; 8]);
        }
        bytes.push(0x80);
        bytes.extend_from_slice(&(input.len() as u32).to_be_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(input);
        if how & 0x80 != 0 && input.len() >= 4 {
            bytes[start..start + 4].copy_from_slice(&(input.len() as u32).to_le_bytes());
        }
    } else {
        bytes.extend_from_slice(input);
    }
    bytes
}
