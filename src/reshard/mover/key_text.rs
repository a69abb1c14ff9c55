//! Keys and argument bytes as people read them in messages: printable ASCII as
//! it is, everything else as `\xNN`, long ones cut.

use std::fmt;

/// Bytes of a key that a message shows.
const SHOWN_BYTES_MAX: usize = 96;

/// Shows a binary key in a message.
#[derive(Clone, Copy)]
pub(super) struct KeyText<'k>(pub(super) &'k [u8]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.iter().take(SHOWN_BYTES_MAX) {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                0x20..=0x7e => write!(f, "{}", char::from(byte))?,
                other => write!(f, "\\x{other:02x}")?,
            }
        }
        if self.0.len() > SHOWN_BYTES_MAX {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_keys_are_escaped_and_long_ones_cut() {
        assert_eq!(KeyText(b"user:1").to_string(), "user:1");
        assert_eq!(KeyText(b"a\x00\xff\\").to_string(), "a\\x00\\xff\\\\");
        assert!(
            KeyText(&[b'k'; 200])
                .to_string()
                .ends_with("... (200 bytes)")
        );
    }
}
