//! Short bytes that two hold from the start: their count of holders stands beside them.
//!
//! `Bytes` made of a `Vec` that is cloned has a count of its own, somewhere else: one more
//! piece of memory to be had, waited for and given back, for each value that is written.

use bytes::{BufMut, Bytes, BytesMut};

/// Room for `N` bytes.
struct Room<const N: usize> {
    bytes: [u8; N],
    len: u16,
}

impl<const N: usize> AsRef<[u8]> for Room<N> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

fn in_room<const N: usize>(first: u8, rest: &[u8]) -> Bytes {
    const { assert!(N <= u16::MAX as usize) };
    let mut room = Room {
        bytes: [0; N],
        len: (1 + rest.len()) as u16,
    };
    if let Some((to_first, to_rest)) = room.bytes.split_first_mut()
        && let Some(to_rest) = to_rest.get_mut(..rest.len())
    {
        *to_first = first;
        to_rest.copy_from_slice(rest);
    }
    Bytes::from_owner(room)
}

/// A byte and those behind it.
pub(super) fn joined(first: u8, rest: &[u8]) -> Bytes {
    match 1 + rest.len() {
        ..=16 => in_room::<16>(first, rest),
        17..=32 => in_room::<32>(first, rest),
        33..=48 => in_room::<48>(first, rest),
        49..=64 => in_room::<64>(first, rest),
        65..=96 => in_room::<96>(first, rest),
        97..=144 => in_room::<144>(first, rest),
        145..=192 => in_room::<192>(first, rest),
        193..=256 => in_room::<256>(first, rest),
        257..=384 => in_room::<384>(first, rest),
        385..=512 => in_room::<512>(first, rest),
        len => {
            let mut bytes = BytesMut::with_capacity(len);
            bytes.put_u8(first);
            bytes.put_slice(rest);
            bytes.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_there_whatever_their_number() {
        for len in 0..600 {
            let rest: Vec<u8> = (0..len).map(|number| number as u8).collect();
            let joined = joined(7, &rest);
            assert_eq!(joined, [&[7][..], &rest].concat());
            assert_eq!(joined.slice(1..), rest);
        }
    }
}
