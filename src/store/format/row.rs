//! Keys of rows: where everything stands in the engine.
//!
//! Integers are big-endian, so that rows stand in the order of what they name.
//!
//! ```text
//! meta   M | ns 4 | place 7 | user key              the object, short ones whole
//! sub    S | object id 8 | kind 1 | ..              parts of a large object
//!            F | h32 4 | member                     field of a hash, member of a (sorted) set
//!            Z | score 8 | member                   order of a sorted set
//!            L | index 8                            item of a list
//!            C | chunk 4                            piece of a string
//!            E | ms 8 | seq 8                       entry of a stream
//!            G | part 1 | ..                        group of a stream, see `kinds::stream`
//! ttl    T | expires at, ms 8 | ns 4 | place 7 | user key
//! dead   G | ..                                     `rows`: what is to be swept
//! system X | name
//! ```
//! A *place* is 53 bits, left in its 56: the 14 bits of the key's cluster slot, then 39
//! bits of its hash. SCAN's cursors are its upper 39 bits, so that they are stateless; a slot's
//! keys are one range.
//! A *member* is its bytes up to [`MEMBER_BYTES_MAX`]; a longer one is so many of them and its
//! SHA-256, and the row's value holds all of it. Of members with one score and so many
//! bytes in common the digests tell the order.

use crc::{CRC_16_XMODEM, Crc, Table};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

/// Longest key of a client; with what stands before it, a row's key is within the engine's
/// 65,535 bytes.
pub const KEY_BYTES_MAX: usize = 60_000;
/// Of longer members a row's key has this much, and a digest.
pub const MEMBER_BYTES_MAX: usize = 8 * 1024;
/// Bits of a place.
pub const PLACE_BITS: u32 = 53;
/// Bits of a place below the slot.
const HASH_BITS: u32 = 39;
const SLOT_MASK: u16 = 0x3fff;

/// Sixteen bytes in one step: as long as many keys are.
static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// First byte of a row's key.
pub mod space {
    /// Objects.
    pub const META: u8 = b'M';
    /// Parts of objects.
    pub const SUB: u8 = b'S';
    /// Expiry times.
    pub const TTL: u8 = b'T';
    /// What is to be swept.
    pub const DEAD: u8 = b'G';
    /// The shard's own state.
    pub const SYSTEM: u8 = b'X';
}

/// Namespace of a database's keys; FLUSHDB gives the database another one. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(pub u32);

/// Names the sub rows of a large object. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

/// Cluster slot of a key, 0..=16,383: CRC16 of its hash tag, or of all of it.
pub fn slot(key: &[u8]) -> u16 {
    CRC16.checksum(tag(key)) & SLOT_MASK
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let after = &key[open + 1..];
    match after.iter().position(|byte| *byte == b'}') {
        Some(length @ 1..) => &after[..length],
        _ => key,
    }
}

/// Where a key stands among those of its database: below 2^53.
pub fn place(key: &[u8]) -> u64 {
    (u64::from(slot(key)) << HASH_BITS) | (xxh3_64(key) >> (64 - HASH_BITS))
}

/// Where a member stands among those of its object.
pub fn member_place(member: &[u8]) -> u32 {
    (xxh3_64(member) >> 32) as u32
}

/// Key of a row; a short one takes no memory of its own.
pub type RowBuf = SmallVec<[u8; 40]>;

/// The first key behind this one.
pub fn behind(row: &[u8]) -> RowBuf {
    let mut behind = RowBuf::with_capacity(row.len() + 1);
    behind.extend_from_slice(row);
    behind.push(0);
    behind
}

/// Key of a meta row.
pub fn meta(ns: Namespace, key: &[u8]) -> RowBuf {
    let mut row = RowBuf::with_capacity(12 + key.len());
    row.push(space::META);
    row.extend_from_slice(&ns.0.to_be_bytes());
    row.extend_from_slice(&place_bytes(place(key)));
    row.extend_from_slice(key);
    row
}

/// The first meta row key of a namespace at or behind a place (2^53 for its end).
pub fn meta_from(ns: Namespace, place: u64) -> Vec<u8> {
    let mut row = vec![space::META];
    if place >> PLACE_BITS == 0 {
        push_placed(&mut row, ns, place);
    } else {
        row.extend_from_slice(&ns.0.wrapping_add(1).to_be_bytes());
    }
    row
}

fn push_placed(row: &mut Vec<u8>, ns: Namespace, place: u64) {
    row.extend_from_slice(&ns.0.to_be_bytes());
    row.extend_from_slice(&place_bytes(place));
}

fn place_bytes(place: u64) -> [u8; 7] {
    let [_, bytes @ ..] = (place << (56 - PLACE_BITS)).to_be_bytes();
    bytes
}

/// What a meta row's key says: place and user key.
pub fn split_meta(row: &[u8]) -> Option<(Namespace, u64, &[u8])> {
    split_placed(row.strip_prefix(&[space::META])?)
}

fn split_placed(rest: &[u8]) -> Option<(Namespace, u64, &[u8])> {
    let (ns, rest) = rest.split_first_chunk::<4>()?;
    let (place, key) = rest.split_first_chunk::<7>()?;
    let mut wide = [0; 8];
    wide[1..].copy_from_slice(place);
    let place = u64::from_be_bytes(wide) >> (56 - PLACE_BITS);
    Some((Namespace(u32::from_be_bytes(*ns)), place, key))
}

/// Key of a ttl row.
pub fn ttl(expires_at_ms: u64, ns: Namespace, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(20 + key.len());
    row.push(space::TTL);
    row.extend_from_slice(&expires_at_ms.to_be_bytes());
    push_placed(&mut row, ns, place(key));
    row.extend_from_slice(key);
    row
}

/// Ttl rows before a time stand before this key.
pub fn ttl_from(expires_at_ms: u64) -> Vec<u8> {
    let mut row = vec![space::TTL];
    row.extend_from_slice(&expires_at_ms.to_be_bytes());
    row
}

/// What a ttl row's key says: when, and which key.
pub fn split_ttl(row: &[u8]) -> Option<(u64, Namespace, &[u8])> {
    let (at, rest) = row.strip_prefix(&[space::TTL])?.split_first_chunk::<8>()?;
    let (ns, _, key) = split_placed(rest)?;
    Some((u64::from_be_bytes(*at), ns, key))
}

/// Key of a row of the shard's own state.
pub fn system(name: &str) -> Vec<u8> {
    let mut row = vec![space::SYSTEM];
    row.extend_from_slice(name.as_bytes());
    row
}

/// Kinds of sub rows.
pub mod kind {
    /// Field of a hash, member of a set or a sorted set.
    pub const FIELD: u8 = b'F';
    /// Order of a sorted set.
    pub const SCORE: u8 = b'Z';
    /// Item of a list.
    pub const INDEX: u8 = b'L';
    /// Piece of a string.
    pub const CHUNK: u8 = b'C';
    /// Entry of a stream.
    pub const ENTRY: u8 = b'E';
    /// Group of a stream, its consumers, and what is pending.
    pub const GROUP: u8 = b'G';
}

/// What all sub rows of one kind of an object begin with; `kind + 1` is behind them.
pub fn sub(id: ObjectId, kind: u8) -> RowBuf {
    let mut row = RowBuf::new();
    push_sub(&mut row, id, kind);
    row
}

fn push_sub(row: &mut RowBuf, id: ObjectId, kind: u8) {
    row.push(space::SUB);
    row.extend_from_slice(&id.0.to_be_bytes());
    row.push(kind);
}

/// Sub row of a field or member.
pub fn field(id: ObjectId, member: &[u8]) -> RowBuf {
    let (start, digest) = member_parts(member);
    let mut row = RowBuf::with_capacity(14 + start.len());
    row.push(space::SUB);
    row.extend_from_slice(&id.0.to_be_bytes());
    row.push(kind::FIELD);
    row.extend_from_slice(&member_place(member).to_be_bytes());
    row.extend_from_slice(start);
    row.extend_from_slice(digest.as_ref().map_or(&[], |digest| &digest[..]));
    row
}

/// The first field row at or behind a place (2^32 for the end of all).
pub fn field_from(id: ObjectId, place: u64) -> RowBuf {
    match u32::try_from(place) {
        Ok(place) => {
            let mut row = sub(id, kind::FIELD);
            row.extend_from_slice(&place.to_be_bytes());
            row
        }
        Err(_) => sub(id, kind::FIELD + 1),
    }
}

/// Appends a member as a row's key names it.
pub fn push_member(row: &mut RowBuf, member: &[u8]) {
    let (start, digest) = member_parts(member);
    row.extend_from_slice(start);
    row.extend_from_slice(digest.as_ref().map_or(&[], |digest| &digest[..]));
}

/// What a row's key has of a member.
fn member_parts(member: &[u8]) -> (&[u8], Option<[u8; 32]>) {
    match member.split_at_checked(MEMBER_BYTES_MAX) {
        Some((start, rest)) if !rest.is_empty() => (start, Some(Sha256::digest(member).into())),
        _ => (member, None),
    }
}

/// A member that a row's key names, or where to look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member<'a> {
    /// All its bytes.
    Whole(&'a [u8]),
    /// The row's value has it.
    InValue,
}

/// Place and member of a field row's key.
pub fn split_field(row: &[u8]) -> Option<(u32, Member<'_>)> {
    let (place, rest) = row.get(10..)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*place), named_member(rest)))
}

/// A member that was appended to a row's key by [`push_member`].
pub fn named_member(bytes: &[u8]) -> Member<'_> {
    match bytes.len() {
        ..=MEMBER_BYTES_MAX => Member::Whole(bytes),
        _ => Member::InValue,
    }
}

/// Sub row that orders a member of a sorted set: by score, then by bytes.
pub fn score(id: ObjectId, score: f64, member: &[u8]) -> RowBuf {
    let mut row = RowBuf::with_capacity(18 + member.len().min(MEMBER_BYTES_MAX + 32));
    push_sub(&mut row, id, kind::SCORE);
    row.extend_from_slice(&score_bits(score).to_be_bytes());
    push_member(&mut row, member);
    row
}

/// The first score row at or behind a score.
pub fn score_from(id: ObjectId, score: f64) -> RowBuf {
    score_bits_from(id, score_bits(score))
}

/// The first score row at or behind a score of these bits.
pub fn score_bits_from(id: ObjectId, bits: u64) -> RowBuf {
    let mut row = sub(id, kind::SCORE);
    row.extend_from_slice(&bits.to_be_bytes());
    row
}

/// Score and member of a score row's key.
pub fn split_score(row: &[u8]) -> Option<(f64, Member<'_>)> {
    let (bits, rest) = row.get(10..)?.split_first_chunk::<8>()?;
    Some((score_of(u64::from_be_bytes(*bits)), named_member(rest)))
}

/// A score as bits that stand in its order; -0 is 0.
pub fn score_bits(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    match bits >> 63 {
        0 => bits ^ (1 << 63),
        _ => !bits,
    }
}

/// The score of [`score_bits`].
pub fn score_of(bits: u64) -> f64 {
    f64::from_bits(match bits >> 63 {
        1 => bits ^ (1 << 63),
        _ => !bits,
    })
}

/// Sub row of a list's item.
pub fn index(id: ObjectId, index: u64) -> RowBuf {
    let mut row = sub(id, kind::INDEX);
    row.extend_from_slice(&index.to_be_bytes());
    row
}

/// Sub row of a piece of a string.
pub fn chunk(id: ObjectId, number: u32) -> RowBuf {
    let mut row = sub(id, kind::CHUNK);
    row.extend_from_slice(&number.to_be_bytes());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(slot(b"123456789"), 12_739);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(
            slot(b"foo{}{bar}"),
            CRC16.checksum(b"foo{}{bar}") & SLOT_MASK
        );
        assert_eq!(slot(b"foo{{bar}}"), slot(b"{bar"));
    }

    #[test]
    fn keys_of_rows_say_what_they_were_made_of() {
        let (ns, key) = (Namespace(7), b"some key".as_slice());
        let row = meta(ns, key);
        assert_eq!(split_meta(&row), Some((ns, place(key), key)));
        assert!(meta_from(ns, place(key))[..] <= row[..]);
        assert!(row[..] < meta_from(ns, place(key) + 1)[..]);
        assert!(row[..] < meta_from(ns, 1 << PLACE_BITS)[..]);
        assert_eq!(
            meta_from(ns, 1 << PLACE_BITS),
            meta_from(Namespace(8), 0)[..5]
        );
        assert_eq!(split_ttl(&ttl(99, ns, key)), Some((99, ns, key)));
        assert!(ttl(99, ns, key) < ttl_from(100));
        let id = ObjectId(3);
        let long = vec![b'x'; MEMBER_BYTES_MAX + 1];
        let whole = Member::Whole(b"m");
        assert_eq!(
            split_field(&field(id, b"m")),
            Some((member_place(b"m"), whole))
        );
        let named = (member_place(&long), Member::InValue);
        assert_eq!(split_field(&field(id, &long)), Some(named));
        assert_eq!(split_score(&score(id, 1.5, b"m")), Some((1.5, whole)));
    }

    #[test]
    fn scores_stand_in_their_order() {
        let scores = [
            f64::NEG_INFINITY,
            -2.5,
            -1e-300,
            0.0,
            1e-300,
            2.5,
            f64::INFINITY,
        ];
        for pair in scores.windows(2) {
            assert!(score_bits(pair[0]) < score_bits(pair[1]), "{pair:?}");
        }
        assert_eq!(score_bits(-0.0), score_bits(0.0));
        for score in scores {
            assert_eq!(score_of(score_bits(score)), score);
        }
    }
}
