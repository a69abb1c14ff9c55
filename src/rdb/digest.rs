//! Content digests: equal for equal content, whatever the layout and order.
//!
//! ```text
//! element -> murmur3_x64_128 of: tag, then each part with its length before it
//! list:   state = state * odd constant + element     (order counts)
//! others: state = state + element                    (order does not)
//! ```
//!
//! Left out, because servers that hold the same content may differ in it: what
//! streams remember of producers (only Redis 8.6 and later do, for a minute);
//! seen and active times of stream consumers, consumers with nothing pending
//! (older servers do not replicate them), and the lag counters of streams
//! (type 15 has none, a newer target makes them up). The digest is not keyed:
//! it finds damage and omissions, not forgery.

use std::io::Cursor;

use super::decode::{DecodeError, decode};
use super::element::Element;
use super::value_type::{RawValue, ValueKind};

/// What a value holds, for comparing two copies of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentDigest {
    /// What a client sees the value as.
    pub kind: ValueKind,
    /// Elements in it; bytes of a string or a module's value; for a stream its
    /// length as it counts itself.
    pub length: u64,
    /// Digest of all of it.
    pub digest: [u8; 16],
}

/// Digests the content of `value`.
///
/// # Errors
/// [`DecodeError`] if the value breaks its format.
pub fn content_digest(value: &RawValue<'_>) -> Result<ContentDigest, DecodeError> {
    let mut digester = Digester::default();
    decode(value, &mut |element| digester.add(element))?;
    Ok(ContentDigest {
        kind: value.type_id.kind(),
        length: digester.length,
        digest: digester.state.to_le_bytes(),
    })
}

/// Digests a key with its content, in the database `db`. The wrapping sum of these
/// over many keys is a digest of all of them, in any order.
pub fn key_digest(db: u32, key: &[u8], content: &ContentDigest) -> u128 {
    let mut parts = Vec::with_capacity(key.len() + 40);
    parts.extend_from_slice(&db.to_le_bytes());
    parts.extend_from_slice(&(key.len() as u64).to_le_bytes());
    parts.extend_from_slice(key);
    parts.push(content.kind as u8);
    parts.extend_from_slice(&content.length.to_le_bytes());
    parts.extend_from_slice(&content.digest);
    murmur(&parts)
}

/// Odd, so that multiplying loses nothing; the digits of pi.
const LIST_FACTOR: u128 = 0x2437_0734_4a40_9382_2299_f31d_0082_efa9;

#[derive(Default)]
struct Digester {
    state: u128,
    length: u64,
    /// Reused for each element.
    parts: Vec<u8>,
}

impl Digester {
    fn add(&mut self, element: Element<'_>) {
        self.parts.clear();
        match element {
            Element::String(bytes) | Element::Module(bytes) => {
                self.state = murmur(bytes);
                self.length = bytes.len() as u64;
            }
            Element::ListItem(item) => {
                let hash = murmur(item);
                self.state = self.state.wrapping_mul(LIST_FACTOR).wrapping_add(hash);
                self.length += 1;
            }
            Element::ArrayItem { index, value } => {
                self.parts.extend_from_slice(&index.to_le_bytes());
                self.parts.extend_from_slice(value);
                self.count(murmur(&self.parts));
            }
            Element::ArrayCursor { inserted_at } => {
                self.parts.push(b'c');
                self.parts.extend_from_slice(&inserted_at.to_le_bytes());
                self.state = self.state.wrapping_add(murmur(&self.parts));
            }
            Element::RateLimiter(arrival) => {
                self.state = murmur(&arrival.to_le_bytes());
                self.length = 1;
            }
            Element::SetMember(member) => self.count(murmur(member)),
            Element::ScoredMember { member, score } => {
                // Adding 0.0 makes -0.0 and 0.0, which are equal, one.
                self.parts
                    .extend_from_slice(&(score + 0.0).to_bits().to_le_bytes());
                self.parts.extend_from_slice(member);
                self.count(murmur(&self.parts));
            }
            Element::HashField {
                field,
                value,
                expires_at_ms,
            } => {
                self.optional(expires_at_ms);
                self.part(field);
                self.parts.extend_from_slice(value);
                self.count(murmur(&self.parts));
            }
            stream_part => self.stream(stream_part),
        }
    }

    fn stream(&mut self, element: Element<'_>) {
        match element {
            Element::StreamEntry { id, fields } => {
                self.parts.push(b'e');
                self.id(id);
                for (name, value) in fields {
                    self.part(name);
                    self.part(value);
                }
            }
            Element::StreamState {
                length,
                last_id,
                counters: _,
            } => {
                self.length = length;
                self.parts.push(b's');
                self.id(last_id);
            }
            Element::StreamGroup {
                group,
                last_id,
                entries_read: _,
            } => {
                self.parts.push(b'g');
                self.id(last_id);
                self.part(group);
            }
            Element::StreamPending {
                group,
                consumer,
                id,
                delivered_at_ms,
                deliveries,
            } => {
                self.parts.push(b'p');
                self.id(id);
                self.parts.extend_from_slice(&delivered_at_ms.to_le_bytes());
                self.parts.extend_from_slice(&deliveries.to_le_bytes());
                self.part(group);
                self.parts.push(u8::from(consumer.is_some()));
                self.part(consumer.unwrap_or(&[]));
            }
            Element::StreamNacked {
                group,
                id,
                delivered_at_ms,
                deliveries,
            } => {
                self.parts.push(b'n');
                self.id(id);
                self.parts.extend_from_slice(&delivered_at_ms.to_le_bytes());
                self.parts.extend_from_slice(&deliveries.to_le_bytes());
                self.part(group);
            }
            // A consumer counts by what is pending; other kinds are added by `add`.
            _ => return,
        }
        self.state = self.state.wrapping_add(murmur(&self.parts));
    }

    fn count(&mut self, hash: u128) {
        self.state = self.state.wrapping_add(hash);
        self.length += 1;
    }

    fn part(&mut self, bytes: &[u8]) {
        self.parts
            .extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.parts.extend_from_slice(bytes);
    }

    fn id(&mut self, id: super::stream::StreamId) {
        self.parts.extend_from_slice(&id.ms.to_le_bytes());
        self.parts.extend_from_slice(&id.seq.to_le_bytes());
    }

    fn optional(&mut self, number: Option<i64>) {
        self.parts.push(u8::from(number.is_some()));
        self.parts
            .extend_from_slice(&number.unwrap_or(0).to_le_bytes());
    }
}

/// Not 0, under which the empty string would hash to 0 and leave no trace in a sum.
const HASH_SEED: u32 = 0x6b66;

fn murmur(bytes: &[u8]) -> u128 {
    // A slice never fails to be read.
    murmur3::murmur3_x64_128(&mut Cursor::new(bytes), HASH_SEED).unwrap_or(0)
}

#[cfg(test)]
mod tests;
