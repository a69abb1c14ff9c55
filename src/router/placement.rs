//! The line `keyferry route` prints for a key: `key TAB shard TAB address`.

use std::io::{self, Write};

use super::layout::Layout;

/// Writes one line. `shown` is the key as it was typed (it may be hex), `key` its bytes.
///
/// # Errors
/// Only those of `out`; a `Vec` has none.
pub fn write_placement(
    out: &mut impl Write,
    layout: &Layout,
    shown: &[u8],
    key: &[u8],
) -> io::Result<()> {
    let shard = layout.shard(layout.owner(key));
    out.write_all(shown)?;
    writeln!(out, "\t{}\t{}", shard.name, shard.address)
}

/// A key that is not written in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// An odd number of digits.
    #[error("a hex key has two digits for each byte; this one has {digits} digits")]
    Odd {
        /// How many there are.
        digits: usize,
    },
    /// Something that is no hex digit.
    #[error("character {position} of the key is no hex digit (0-9, a-f, A-F)")]
    Digit {
        /// Byte position, from 1.
        position: usize,
    },
}

/// The bytes of a key written in hex.
///
/// # Errors
/// Says where the text is no hex.
pub fn parse_hex(text: &[u8]) -> Result<Vec<u8>, HexError> {
    let mut digits = Vec::with_capacity(text.len());
    for (at, &byte) in text.iter().enumerate() {
        let digit = char::from(byte)
            .to_digit(16)
            .ok_or(HexError::Digit { position: at + 1 })?;
        digits.push(digit as u8);
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(HexError::Odd {
            digits: digits.len(),
        });
    }
    Ok(pairs.iter().map(|&[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::spec::{LayoutSpec, ShardSpec};

    #[test]
    fn a_line_is_key_shard_address() {
        let shards = vec![ShardSpec::named("s1", &"127.0.0.1:7001".parse().unwrap())];
        let layout = Layout::new(LayoutSpec {
            shards,
            ..LayoutSpec::default()
        })
        .unwrap();
        let mut out = Vec::new();
        write_placement(&mut out, &layout, b"666f6f", &parse_hex(b"666F6f").unwrap()).unwrap();
        assert_eq!(out, b"666f6f\ts1\t127.0.0.1:7001\n");
    }

    #[test]
    fn hex_says_where_it_is_wrong() {
        assert_eq!(parse_hex(b"00fFA9"), Ok(vec![0, 0xff, 0xa9]));
        assert_eq!(parse_hex(b"0"), Err(HexError::Odd { digits: 1 }));
        assert_eq!(parse_hex(b"00g0"), Err(HexError::Digit { position: 3 }));
    }
}
