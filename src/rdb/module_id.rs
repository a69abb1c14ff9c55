//! Which module wrote a value: the number that its bytes begin with.
//!
//! ```text
//! 64 bits:  9 characters of 6 bits | version of the module's encoding 10
//! ```

use std::fmt;

use super::reader::plain_length;

/// The characters that six bits stand for.
const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Name and encoding version of a module's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(u64);

impl ModuleId {
    /// The id at the start of a module's value or of a module's data outside
    /// keys. `None` if the bytes do not begin with a number.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (id, _) = plain_length(bytes).ok()??;
        Some(Self(id))
    }

    /// Version of the module's own encoding, 0..=1023.
    pub fn encoding_version(self) -> u16 {
        (self.0 & 1023) as u16
    }
}

/// The name: nine characters.
impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..9).rev() {
            let index = (self.0 >> (10 + 6 * place)) & 63;
            let character = CHARACTERS.get(index as usize).copied().unwrap_or(b'?');
            write!(f, "{}", char::from(character))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_version_are_those_that_the_module_registered() {
        // "ReJSON-RL" with encoding version 3, as RedisJSON 2 writes it.
        let id = b"ReJSON-RL".iter().fold(0u64, |id, character| {
            let six = CHARACTERS.iter().position(|c| c == character).unwrap();
            id << 6 | six as u64
        }) << 10
            | 3;
        let mut bytes = vec![0x81];
        bytes.extend_from_slice(&id.to_be_bytes());
        let id = ModuleId::of(&bytes).unwrap();
        assert_eq!(
            (id.to_string().as_str(), id.encoding_version()),
            ("ReJSON-RL", 3)
        );
        assert_eq!(ModuleId::of(&bytes[..5]), None);
        assert_eq!(ModuleId::of(&[0xc0]), None);
    }
}
