//! A value put together of the elements that an RDB or a DUMP payload has of it, in the
//! layout that this shard keeps, whatever its layout was there.

use super::hash::{HashBuilder, HashLimits};
use super::set::{SetBuilder, SetLimits};
use super::{list, stream, string, zset};
use crate::rdb::{Element, ValueKind};
use crate::store::format::object::{StringValue, Value, Written};
use crate::store::keyspace::Keyspace;
use crate::store::rows::StoreError;

/// Up to where collections are what OBJECT ENCODING tells of short ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Of hashes.
    pub hash: HashLimits,
    /// Of sets.
    pub set: SetLimits,
    /// Of sorted sets.
    pub zset: zset::Limits,
}

/// Why no value comes of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BuildError {
    /// This shard has no such values.
    #[error("it holds {0}, which this shard does not keep")]
    Kind(&'static str),
    /// An element that is there, or of another kind of value.
    #[error("its elements are not those of one value")]
    Elements,
    /// A pending entry of a stream that no consumer has.
    #[error("it has pending entries that no consumer has, which this shard does not keep")]
    Unowned,
    /// Requests of a stream's producers.
    #[error("it has requests of producers to be remembered, which this shard does not keep")]
    Producers,
    /// A field that expires by itself.
    #[error("it has fields that expire, which this shard does not keep")]
    FieldExpiry,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a value of this kind is, if this shard has no such values.
#[must_use]
pub fn what_is_not_kept(kind: ValueKind) -> Option<&'static str> {
    let any = BuildLimits {
        hash: HashLimits {
            entries_max: 0,
            bytes_max: 0,
        },
        set: SetLimits {
            intset_entries_max: 0,
        },
        zset: zset::Limits {
            members: 0,
            member_bytes: 0,
        },
    };
    match Building::new(kind, any) {
        Err(BuildError::Kind(what)) => Some(what),
        _ => None,
    }
}

/// See the head of this file. Not finished, it must be abandoned.
#[derive(Debug)]
pub struct Building {
    limits: BuildLimits,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing came yet.
    String(Option<StringValue>),
    List(list::Builder, u64),
    Hash(HashBuilder, u64),
    Set(SetBuilder),
    Zset(zset::Builder),
    /// Made with the first element: it names its rows.
    Stream(Option<stream::Builder>),
}

impl Building {
    /// Of a value of this kind.
    ///
    /// # Errors
    /// [`BuildError::Kind`].
    pub fn new(kind: ValueKind, limits: BuildLimits) -> Result<Self, BuildError> {
        let stage = match kind {
            ValueKind::String => Stage::String(None),
            ValueKind::List => Stage::List(list::Builder::default(), 0),
            ValueKind::Hash => Stage::Hash(HashBuilder::new(limits.hash), 0),
            ValueKind::Set => Stage::Set(SetBuilder::new(limits.set)),
            ValueKind::SortedSet => Stage::Zset(zset::Builder::default()),
            ValueKind::Stream => Stage::Stream(None),
            ValueKind::Module => return Err(BuildError::Kind("a module's value")),
            ValueKind::Array => return Err(BuildError::Kind("an array")),
            ValueKind::RateLimiter => return Err(BuildError::Kind("a rate limiter")),
        };
        Ok(Self { limits, stage })
    }

    /// The next element.
    ///
    /// # Errors
    /// [`BuildError`] if it does not belong to such a value.
    pub fn push(
        &mut self,
        keyspace: &mut Keyspace,
        element: &Element<'_>,
    ) -> Result<(), BuildError> {
        let is_new = match (&mut self.stage, *element) {
            (Stage::String(string), Element::String(bytes) | Element::StringPart(bytes)) => {
                *string = Some(match string.take() {
                    None => string::store(keyspace, bytes, Written::Whole),
                    Some(begun) => string::write(keyspace, &begun, begun.len(), bytes)?,
                });
                true
            }
            (Stage::List(list, items), Element::ListItem(item)) => {
                list.push(keyspace, item);
                *items += 1;
                true
            }
            (
                Stage::Hash(hash, fields),
                Element::HashField {
                    field,
                    value,
                    expires_at_ms,
                },
            ) => {
                if expires_at_ms.is_some() {
                    return Err(BuildError::FieldExpiry);
                }
                *fields += 1;
                hash.push(keyspace, field, value)?
            }
            (Stage::Set(set), Element::SetMember(member)) => set.push(keyspace, member)?,
            (Stage::Zset(zset), Element::ScoredMember { member, score }) => {
                zset.push(keyspace, member, score)?
            }
            (
                Stage::Stream(_),
                Element::StreamNacked { .. } | Element::StreamPending { consumer: None, .. },
            ) => return Err(BuildError::Unowned),
            (Stage::Stream(_), Element::StreamProduced { .. }) => {
                return Err(BuildError::Producers);
            }
            (Stage::Stream(stream), ref element) => {
                let stream = stream.get_or_insert_with(|| stream::Builder::new(keyspace));
                stream.push(keyspace.rows(), element)?
            }
            _ => false,
        };
        match is_new {
            true => Ok(()),
            false => Err(BuildError::Elements),
        }
    }

    /// The value; nothing if it is a collection without elements, which is no value.
    pub fn finish(self, keyspace: &mut Keyspace) -> Option<Value> {
        match self.stage {
            // Whatever parts it came in.
            Stage::String(string) => string.map(|string| {
                Value::String(StringValue {
                    written: Written::Whole,
                    ..string
                })
            }),
            Stage::List(list, items) => (items > 0).then(|| Value::List(list.finish())),
            Stage::Hash(hash, fields) => (fields > 0).then(|| Value::Hash(hash.finish())),
            Stage::Set(set) => (!set.is_empty()).then(|| Value::Set(set.finish())),
            Stage::Zset(zset) => {
                let limits = self.limits.zset;
                (!zset.is_empty()).then(|| Value::Zset(zset.finish(keyspace, limits)))
            }
            Stage::Stream(stream) => {
                let stream = stream.map(|stream| stream.finish(keyspace.rows()));
                stream.map(|stream| Value::Stream(Box::new(stream)))
            }
        }
    }

    /// What was built is not wanted.
    pub fn abandon(self, keyspace: &mut Keyspace) {
        if let Some(value) = self.finish(keyspace) {
            keyspace.bury(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::session::world::World;

    fn limits() -> BuildLimits {
        BuildLimits {
            hash: HashLimits {
                entries_max: 2,
                bytes_max: 8,
            },
            set: SetLimits {
                intset_entries_max: 2,
            },
            zset: zset::Limits {
                members: 2,
                member_bytes: 8,
            },
        }
    }

    #[test]
    fn a_string_in_parts_is_one() {
        let mut world = World::new();
        let keyspace = world.shard.keyspace();
        let mut building = Building::new(ValueKind::String, limits()).expect("a kind");
        let parts = [vec![b'a'; 50_000], vec![b'b'; 50_000], vec![b'c'; 3]];
        for part in &parts {
            let element = Element::StringPart(part);
            building.push(keyspace, &element).expect("a part");
        }
        let Some(Value::String(string)) = building.finish(keyspace) else {
            panic!("no string");
        };
        let read = string::read_all(keyspace.rows(), &string).expect("its bytes");
        assert!(read == parts.concat());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut world = World::new();
        let keyspace = world.shard.keyspace();
        assert!(Building::new(ValueKind::Array, limits()).is_err());
        let mut building = Building::new(ValueKind::Set, limits()).expect("a kind");
        let mut push = |element: &Element<'_>| building.push(keyspace, element);
        assert!(push(&Element::SetMember(b"1")).is_ok());
        for not_of_it in [Element::SetMember(b"1"), Element::ListItem(b"1")] {
            assert!(matches!(push(&not_of_it), Err(BuildError::Elements)));
        }
        let empty = Building::new(ValueKind::Hash, limits()).expect("a kind");
        assert_eq!(empty.finish(keyspace), None);
    }
}
