//! DEBUG DIGEST, bit for bit as Redis 7.0 makes it (`debug.c`).
//!
//! ```text
//! xor  digest ^= SHA1(data)            the order does not count
//! mix  digest = SHA1(digest ^ SHA1(data))        it does
//!
//! all     each database that has keys:  mix number; each key: xor in of (mix key, object)
//! object  mix type; mix or xor its elements; xor "!!expire!!" if it expires
//! ```
//! The same of a snapshot, whose elements come as its file has them: [`KeyDigest`] and
//! [`WholeDigest`].

use std::collections::BTreeMap;

use sha1_smol::Sha1;

use super::walk::walk;
use crate::rdb::{Element, ValueKind};
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
        self.xor_with(&Sha1::from(data).digest().bytes());
    }

    fn xor_with(&mut self, other: &[u8; 20]) {
        for (byte, other) in self.0.iter_mut().zip(other) {
            *byte ^= other;
        }
    }

    fn mix(&mut self, data: &[u8]) {
        self.mix_sum(&Sha1::from(data).digest().bytes());
    }

    /// Mixes what has this sum.
    fn mix_sum(&mut self, sum: &[u8; 20]) {
        self.xor_with(sum);
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

/// Redis' number of the type that a value of a snapshot is of; nothing for those that
/// DEBUG DIGEST does not know.
fn number_of_kind(kind: ValueKind) -> Option<u32> {
    Some(match kind {
        ValueKind::String => 0,
        ValueKind::List => 1,
        ValueKind::Set => 2,
        ValueKind::SortedSet => 3,
        ValueKind::Hash => 4,
        ValueKind::Stream => 6,
        _ => return None,
    })
}

/// Of one key of a snapshot, whose elements come one by one.
pub struct KeyDigest {
    digest: Digest,
    /// Of a string that comes in parts.
    string: Option<Sha1>,
}

impl KeyDigest {
    /// Of a key whose value is of this kind; nothing if such values have none.
    pub fn new(key: &[u8], kind: ValueKind) -> Option<Self> {
        let mut digest = Digest::default();
        digest.mix(key);
        digest.mix(&number_of_kind(kind)?.to_be_bytes());
        Some(Self {
            digest,
            string: None,
        })
    }

    /// The next element.
    pub fn add(&mut self, element: Element<'_>) {
        match element {
            Element::StringPart(part) => {
                self.string.get_or_insert_with(Sha1::new).update(part);
            }
            element => self.digest.add(element),
        }
    }

    /// After the last one.
    pub fn finish(mut self, expires: bool) -> Digest {
        if let Some(string) = self.string {
            self.digest.mix_sum(&string.digest().bytes());
        }
        if expires {
            self.digest.xor(b"!!expire!!");
        }
        self.digest
    }
}

/// Of all databases, put together from those of their keys, which come in any order.
#[derive(Debug, Default)]
pub struct WholeDigest(BTreeMap<u32, Digest>);

impl WholeDigest {
    /// One key more.
    pub fn add(&mut self, db: u32, key: &Digest) {
        self.0.entry(db).or_default().xor(&key.0);
    }

    /// After the last one.
    pub fn finish(&self) -> Digest {
        let mut all = Digest::default();
        for (db, keys) in &self.0 {
            all.mix(&db.to_be_bytes());
            all.xor_with(&keys.0);
        }
        all
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
    let mut all = WholeDigest::default();
    for (db, number) in (0..DATABASES).zip(0_u32..) {
        if keyspace.key_count(db) == 0 {
            continue;
        }
        // It counts, even if no key of it is seen any more.
        all.0.entry(number).or_default();
        let mut cursor = 0;
        loop {
            let scanned = keyspace.scan(db, cursor, KEYS_AT_ONCE)?;
            for (key, object) in &scanned.keys {
                let mut digest = Digest::default();
                digest.mix(key);
                digest.add_object(keyspace.rows(), object)?;
                all.add(number, &digest);
            }
            cursor = scanned.next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(all.finish())
}
