//! Which bytes of a row's key the engine understands: the space, and who owns the row.
//! Everything behind them is opaque here.
//!
//! ```text
//! M | ns u32 | h56 (7 bytes) | user key          a key, with small values in it
//! S | object id u64 | ...                        a row of a large value
//! T | expire ms u64 | ns u32 | h56 | user key    when a key expires
//! G | object id u64                              an object whose rows are to go
//! G | FF x 8 | ns u32                            a namespace whose rows are to go
//! X | name                                       what the shard knows of itself
//! ```
//!
//! Numbers are big-endian, so that bytes sort as numbers do. Object id `u64::MAX` is
//! never given out: it is the mark of a namespace in `G`.

use bytes::Bytes;

/// First byte of a meta row.
pub const META: u8 = b'M';
/// First byte of a row that belongs to an object.
pub const SUB: u8 = b'S';
/// First byte of an expiry row.
pub const TTL: u8 = b'T';
/// First byte of a row that says what is dead.
pub const DEAD: u8 = b'G';
/// First byte of a system row.
pub const SYSTEM: u8 = b'X';

/// Keys longer than this are refused. The LSM panics on more than 65,535.
pub const ROW_KEY_BYTES_MAX: usize = 62_000;

/// Values longer than this are refused; large strings are cut into chunks long before.
pub const ROW_VALUE_BYTES_MAX: usize = 1 << 30;

/// Says which object a meta row's value refers to, if its value is not inline.
pub type ObjectOf = fn(&[u8]) -> Option<u64>;

/// Something whose rows nobody will read again. An id is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadId {
    /// A large value that was deleted or replaced: its `S` rows.
    Object(u64),
    /// A database that was flushed: its `M` and `T` rows, and the objects they refer to.
    Namespace(u32),
}

impl DeadId {
    /// The key of the `G` row that keeps it over a restart.
    pub fn row(self) -> Vec<u8> {
        let mut row = vec![DEAD];
        match self {
            Self::Object(id) => row.extend_from_slice(&id.to_be_bytes()),
            Self::Namespace(ns) => {
                row.extend_from_slice(&u64::MAX.to_be_bytes());
                row.extend_from_slice(&ns.to_be_bytes());
            }
        }
        row
    }

    /// Reads the key of a `G` row.
    pub fn of_row(row: &[u8]) -> Option<Self> {
        let rest = row.strip_prefix(&[DEAD])?;
        let (id, rest) = rest.split_first_chunk()?;
        match (u64::from_be_bytes(*id), rest) {
            (u64::MAX, ns) => Some(Self::Namespace(u32::from_be_bytes(ns.try_into().ok()?))),
            (id, []) => Some(Self::Object(id)),
            _ => None,
        }
    }
}

/// Whom a row dies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A row of space `S`.
    Object(u64),
    /// A row of space `M`.
    MetaOf(u32),
    /// A row of space `T`.
    ExpiryOf(u32),
    /// Any other: it is only ever deleted by name.
    Nobody,
}

impl Owner {
    /// Reads it from the key of a row.
    pub fn of(row: &[u8]) -> Self {
        Self::read(row).unwrap_or(Self::Nobody)
    }

    fn read(row: &[u8]) -> Option<Self> {
        let (space, rest) = row.split_first()?;
        Some(match *space {
            SUB => Self::Object(u64::from_be_bytes(*rest.first_chunk()?)),
            META => Self::MetaOf(u32::from_be_bytes(*rest.first_chunk()?)),
            TTL => Self::ExpiryOf(u32::from_be_bytes(*rest.get(8..)?.first_chunk()?)),
            _ => Self::Nobody,
        })
    }
}

/// From where to where (not included) the rows of `space` are whose next bytes are `owner`.
pub fn rows_of(space: u8, owner: &[u8]) -> (Bytes, Bytes) {
    let mut from = vec![space];
    from.extend_from_slice(owner);
    let to = after_prefix(&from);
    (Bytes::from(from), Bytes::from(to))
}

/// The first key behind all keys that begin with `prefix`; empty if there is none.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_rows_are_read_back() {
        for id in [
            DeadId::Object(0),
            DeadId::Object(u64::MAX - 1),
            DeadId::Namespace(0),
            DeadId::Namespace(u32::MAX),
        ] {
            assert_eq!(DeadId::of_row(&id.row()), Some(id));
        }
        assert_eq!(DeadId::of_row(b"G1234567"), None);
        assert_eq!(DeadId::of_row(b"S12345678"), None);
        assert_eq!(DeadId::of_row(b"G123456789"), None);
    }

    #[test]
    fn owners_are_told_from_keys_of_any_length() {
        assert_eq!(Owner::of(b""), Owner::Nobody);
        assert_eq!(Owner::of(b"S1"), Owner::Nobody);
        assert_eq!(Owner::of(b"S\0\0\0\0\0\0\x01\x02F"), Owner::Object(258));
        assert_eq!(Owner::of(b"M\0\0\0\x07hash..key"), Owner::MetaOf(7));
        assert_eq!(Owner::of(b"T12345678\0\0\0\x07h"), Owner::ExpiryOf(7));
        assert_eq!(Owner::of(b"T12345678\0\0"), Owner::Nobody);
        assert_eq!(Owner::of(b"Xapplied_offset"), Owner::Nobody);
    }

    #[test]
    fn a_prefix_ends_behind_its_last_row() {
        let (from, to) = rows_of(SUB, &[0, 255]);
        assert_eq!(&from[..], [SUB, 0, 255]);
        assert_eq!(&to[..], [SUB, 1]);
        let (_, to) = rows_of(SUB, &[255, 255]);
        assert_eq!(&to[..], [SUB + 1]);
    }
}
