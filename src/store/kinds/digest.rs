//! DEBUG DIGEST, bit for bit as Redis 7.0 makes it (`debug.c`).
//!
//! ```text
//! xor  digest ^= SHA1(data)            the order does not count
//! mix  digest = SHA1(digest ^ SHA1(data))        it does
//!
//! all     each database that has keys:  mix number; each key: xor in of (mix key, object)
//! object  mix type; mix or xor its elements; xor "!!expire!!" if it expires
//! ```

use sha1_smol::Sha1;

use super::walk::walk;
use crate::rdb::Element;
use crate::store::format::numbers::float_text;
use crate::store::format::object::{Kind, Object};
use crate::store::keyspace::{DATABASES, Keyspace};
use crate::store::rows::{Rows, StoreError};

/// Keys that are looked at in one go.
const KEYS_AT_ONCE: usize = 1024;

/// Of a value, or of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 20]);

impl Digest {
    /// In hexadecimal digits.
    pub fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn xor(&mut self, data: &[u8]) {
        for (byte, other) in self.0.iter_mut().zip(Sha1::from(data).digest().bytes()) {
            *byte ^= other;
        }
    }

    fn mix(&mut self, data: &[u8]) {
        self.xor(data);
        self.0 = Sha1::from(self.0).digest().bytes();
    }

    fn add(&mut self, element: Element<'_>) {
        match element {
            Element::String(bytes) | Element::ListItem(bytes) => self.mix(bytes),
            Element::SetMember(member) => self.xor(member),
            Element::ScoredMember { member, score } => {
                self.xor_pair(member, float_text(score).as_bytes());
            }
            Element::HashField { field, value, .. } => self.xor_pair(field, value),
            // Groups are not looked at, as Redis has it.
            Element::StreamEntry { id, fields } => {
                self.mix(format!("{}.{}", id.ms, id.seq).as_bytes());
                for (name, value) in fields {
                    self.mix(name);
                    self.mix(value);
                }
            }
            // Nothing else is walked.
            _ => {}
        }
    }

    fn xor_pair(&mut self, one: &[u8], other: &[u8]) {
        let mut pair = Digest::default();
        pair.mix(one);
        pair.mix(other);
        self.xor(&pair.0);
    }

    fn add_object(&mut self, rows: &Rows, object: &Object) -> Result<(), StoreError> {
        self.mix(&number_of(object.value.kind()).to_be_bytes());
        walk(rows, &object.value, &mut |element| self.add(element))?;
        if object.expires_at_ms.is_some() {
            self.xor(b"!!expire!!");
        }
        Ok(())
    }
}

/// Redis' number of a type.
fn number_of(kind: Kind) -> u32 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::Zset => 3,
        Kind::Hash => 4,
        Kind::Stream => 6,
    }
}

/// Of one object; zeros for none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn of_object(rows: &Rows, object: Option<&Object>) -> Result<Digest, StoreError> {
    let mut digest = Digest::default();
    if let Some(object) = object {
        digest.add_object(rows, object)?;
    }
    Ok(digest)
}

/// Of all databases.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn of_all(keyspace: &mut Keyspace) -> Result<Digest, StoreError> {
    let mut all = Digest::default();
    for (db, number) in (0..DATABASES).zip(0_u32..) {
        if keyspace.key_count(db) == 0 {
            continue;
        }
        all.mix(&number.to_be_bytes());
        let mut cursor = 0;
        loop {
            let scanned = keyspace.scan(db, cursor, KEYS_AT_ONCE)?;
            for (key, object) in &scanned.keys {
                let mut digest = Digest::default();
                digest.mix(key);
                digest.add_object(keyspace.rows(), object)?;
                all.xor(&digest.0);
            }
            cursor = scanned.next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(all)
}
