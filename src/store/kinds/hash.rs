//! Hashes: fields with values.
//!
//! In the meta row field and value stand in turn, as they came. In rows, see `fields`.
//! *Compact* is what Redis calls a listpack: until there is a field too many or one that
//! is too long, and never again.

use bytes::Bytes;

use super::elements::{self, Building, Drawn, Element, Elements, Scanned, Shape};
use super::fields;
use super::source::RowSource;
use crate::store::engine::DeadId;
use crate::store::format::object::{Collection, Stored};
use crate::store::format::packed::{Packed, PackedWriter};
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

const SHAPE: Shape = Shape::Pairs;

/// Until when a hash is a listpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashLimits {
    /// Most fields.
    pub entries_max: u64,
    /// Longest field or value.
    pub bytes_max: u64,
}

impl HashLimits {
    /// Whether texts are short enough.
    pub fn allow(&self, field: &[u8], value: &[u8]) -> bool {
        field.len() as u64 <= self.bytes_max && value.len() as u64 <= self.bytes_max
    }
}

/// A hash without fields.
pub fn empty() -> Collection {
    Collection {
        stored: Stored::Inline(Packed::default()),
        is_compact: true,
    }
}

/// How many fields there are.
pub fn len(of: &Collection) -> u64 {
    elements::len(of, SHAPE)
}

/// The value of a field.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn get(rows: &Rows, of: &Collection, field: &[u8]) -> Result<Option<Bytes>, StoreError> {
    match &of.stored {
        Stored::Inline(items) => {
            let found = items.iter().pairs().find(|(known, _)| *known == field);
            Ok(found.map(|(_, value)| items.share(value)))
        }
        Stored::Rows { id, .. } => {
            let found = fields::get(rows, *id, field)?;
            Ok(found.map(|element| element.value))
        }
    }
}

/// Sets a field. True if it is new.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn set(
    keyspace: &mut Keyspace,
    of: &mut Collection,
    field: &[u8],
    value: &[u8],
    limits: HashLimits,
) -> Result<bool, StoreError> {
    if !limits.allow(field, value) {
        of.is_compact = false;
    }
    let is_new = match &mut of.stored {
        Stored::Inline(items) => {
            let (packed, count, is_new) = with_field(items, field, value);
            of.stored = match elements::fits_inline(packed.as_bytes().len(), count) {
                true => Stored::Inline(packed),
                false => {
                    let all = elements::unpacked(&packed, SHAPE);
                    let id = elements::spill(keyspace, &all, of.is_compact);
                    let count = count as u64;
                    Stored::Rows { id, count }
                }
            };
            is_new
        }
        Stored::Rows { id, count } => match fields::get(keyspace.rows(), *id, field)? {
            Some(old) => {
                fields::put(keyspace.rows(), *id, old.turn, field, value);
                false
            }
            None => {
                let element = Element {
                    turn: 0,
                    member: Bytes::copy_from_slice(field),
                    value: Bytes::copy_from_slice(value),
                };
                elements::put_row(keyspace, *id, &element, of.is_compact);
                *count += 1;
                true
            }
        },
    };
    if of.is_compact && len(of) > limits.entries_max {
        of.is_compact = false;
    }
    Ok(is_new)
}

/// The same fields with one set: they, how many they are, and whether it is new.
fn with_field(items: &Packed, field: &[u8], value: &[u8]) -> (Packed, usize, bool) {
    let room = items.as_bytes().len() + field.len() + value.len() + 10;
    let mut writer = PackedWriter::with_capacity(room);
    let (mut count, mut is_new) = (0, true);
    for (known, old) in items.iter().pairs() {
        count += 1;
        writer.push(known);
        if known == field {
            writer.push(value);
            is_new = false;
        } else {
            writer.push(old);
        }
    }
    if is_new {
        count += 1;
        writer.push(field);
        writer.push(value);
    }
    (writer.finish(), count, is_new)
}

/// Removes a field. False if it was not there.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn remove(
    keyspace: &mut Keyspace,
    of: &mut Collection,
    field: &[u8],
) -> Result<bool, StoreError> {
    match &mut of.stored {
        Stored::Inline(items) => {
            if !items.iter().pairs().any(|(known, _)| known == field) {
                return Ok(false);
            }
            let mut writer = PackedWriter::with_capacity(items.as_bytes().len());
            for (known, value) in items.iter().pairs().filter(|(known, _)| *known != field) {
                writer.push(known);
                writer.push(value);
            }
            of.stored = Stored::Inline(writer.finish());
        }
        Stored::Rows { id, count } => {
            if !fields::has(keyspace.rows(), *id, field)? {
                return Ok(false);
            }
            fields::delete(keyspace.rows(), *id, field);
            *count = count.saturating_sub(1);
        }
    }
    Ok(true)
}

/// All fields with their values, in Redis' order where it has one. Not all are held.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn iter<'a>(
    rows: &'a (impl RowSource + ?Sized),
    of: &Collection,
) -> Result<Elements<'a>, StoreError> {
    Elements::of(rows, of, SHAPE)
}

/// About `count` fields from a cursor on.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn scan(
    rows: &Rows,
    of: &Collection,
    cursor: u64,
    count: usize,
) -> Result<Scanned, StoreError> {
    elements::scan(rows, of, SHAPE, cursor, count)
}

/// Random fields with their values.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn draw(
    rows: &Rows,
    of: &Collection,
    count: usize,
    drawn: Drawn,
) -> Result<Vec<Element>, StoreError> {
    elements::draw(rows, of, SHAPE, count, drawn)
}

/// Puts a hash together.
#[derive(Debug)]
pub struct HashBuilder {
    building: Building,
    limits: HashLimits,
    is_compact: bool,
}

impl HashBuilder {
    /// Of no field yet.
    pub fn new(limits: HashLimits) -> Self {
        Self {
            building: Building::new(SHAPE),
            limits,
            is_compact: true,
        }
    }

    /// Adds a field. False if it is there already: it keeps its value.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn push(
        &mut self,
        keyspace: &mut Keyspace,
        field: &[u8],
        value: &[u8],
    ) -> Result<bool, StoreError> {
        self.is_compact &= self.limits.allow(field, value);
        let is_new = self
            .building
            .push(keyspace, field, value, self.is_compact)?;
        self.is_compact &= self.building.len() <= self.limits.entries_max;
        Ok(is_new)
    }

    /// The hash.
    pub fn finish(self) -> Collection {
        self.building.finish(self.is_compact)
    }

    /// What was built is not wanted.
    pub fn abandon(self, keyspace: &mut Keyspace) {
        if let Some(id) = self.building.id() {
            keyspace.rows().bury(DeadId::Object(id.0));
        }
    }
}
