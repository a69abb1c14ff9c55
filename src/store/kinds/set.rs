//! Sets: members.
//!
//! In the meta row they stand one after the other; in rows, see `fields`. *Compact* is
//! what Redis calls an intset: all members are integers and not too many, else never
//! again. In the meta row those stand by number.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::elements::{self, Building, Drawn, Element, Elements, Scanned, Shape};
use super::fields;
use super::source::RowSource;
use crate::store::engine::DeadId;
use crate::store::format::numbers::parse_integer;
use crate::store::format::object::{Collection, Stored};
use crate::store::format::packed::{Packed, PackedWriter};
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

const SHAPE: Shape = Shape::Singles;

/// Most members of an intset, whatever the limit says: Redis has this one too.
const INTSET_ENTRIES_MAX: u64 = 1 << 30;

/// Until when a set is an intset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetLimits {
    /// Most members.
    pub intset_entries_max: u64,
}

impl SetLimits {
    fn allow(self, count: u64) -> bool {
        count <= self.intset_entries_max.min(INTSET_ENTRIES_MAX)
    }
}

/// A set without members.
pub fn empty() -> Collection {
    Collection {
        stored: Stored::Inline(Packed::default()),
        is_compact: true,
    }
}

/// How many members there are.
pub fn len(of: &Collection) -> u64 {
    elements::len(of, SHAPE)
}

/// Whether a member is there.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn contains(rows: &Rows, of: &Collection, member: &[u8]) -> Result<bool, StoreError> {
    match &of.stored {
        Stored::Inline(items) => Ok(items.iter().any(|known| known == member)),
        Stored::Rows { id, .. } => fields::has(rows, *id, member),
    }
}

/// Adds a member. False if it is there already.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn add(
    keyspace: &mut Keyspace,
    of: &mut Collection,
    member: &[u8],
    limits: SetLimits,
) -> Result<bool, StoreError> {
    if contains(keyspace.rows(), of, member)? {
        return Ok(false);
    }
    if parse_integer(member).is_none() {
        of.is_compact = false;
    }
    match &mut of.stored {
        Stored::Inline(items) => {
            let (packed, count) = with_member(items, member, of.is_compact);
            of.stored = match elements::fits_inline(packed.as_bytes().len(), count) {
                true => Stored::Inline(packed),
                false => {
                    let all = elements::unpacked(&packed, SHAPE);
                    let id = elements::spill(keyspace, &all, false);
                    let count = count as u64;
                    Stored::Rows { id, count }
                }
            };
        }
        Stored::Rows { id, count } => {
            fields::put(keyspace.rows(), *id, 0, member, &[]);
            *count += 1;
        }
    }
    if of.is_compact && !limits.allow(len(of)) {
        of.is_compact = false;
    }
    Ok(true)
}

/// The same members and a new one, and how many they are.
fn with_member(items: &Packed, member: &[u8], is_ordered: bool) -> (Packed, usize) {
    let room = items.as_bytes().len() + member.len() + 5;
    let mut writer = PackedWriter::with_capacity(room);
    let number = if is_ordered {
        parse_integer(member)
    } else {
        None
    };
    let mut waiting = Some(member);
    let mut count = 1;
    for known in items.iter() {
        count += 1;
        if number.is_some()
            && parse_integer(known) > number
            && let Some(member) = waiting.take()
        {
            writer.push(member);
        }
        writer.push(known);
    }
    if let Some(member) = waiting {
        writer.push(member);
    }
    (writer.finish(), count)
}

/// Removes a member. False if it was not there.
///
/// # Errors
/// [`StoreError`] of the engine; nothing is changed then.
pub fn remove(
    keyspace: &mut Keyspace,
    of: &mut Collection,
    member: &[u8],
) -> Result<bool, StoreError> {
    if !contains(keyspace.rows(), of, member)? {
        return Ok(false);
    }
    match &mut of.stored {
        Stored::Inline(items) => {
            let left: Packed = items.iter().filter(|known| *known != member).collect();
            of.stored = Stored::Inline(left);
        }
        Stored::Rows { id, count } => {
            fields::delete(keyspace.rows(), *id, member);
            *count = count.saturating_sub(1);
        }
    }
    Ok(true)
}

/// All members, in Redis' order where it has one. Not all are held.
///
/// # Errors
/// [`StoreError`] of the engine.
pub fn iter<'a>(
    rows: &'a (impl RowSource + ?Sized),
    of: &Collection,
) -> Result<Elements<'a>, StoreError> {
    Elements::of(rows, of, SHAPE)
}

/// About `count` members from a cursor on.
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

/// Random members.
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

/// A set that many members are looked up in: a short one is indexed first.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// All its members.
    Short(HashSet<&'a [u8], RandomState>),
    /// It has rows.
    Long(&'a Collection),
}

impl<'a> Lookup<'a> {
    /// Of a set.
    pub fn new(of: &'a Collection) -> Self {
        match &of.stored {
            Stored::Inline(items) => Lookup::Short(items.iter().collect()),
            Stored::Rows { .. } => Lookup::Long(of),
        }
    }

    /// Whether a member is there.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn contains(&self, rows: &Rows, member: &[u8]) -> Result<bool, StoreError> {
        match self {
            Lookup::Short(members) => Ok(members.contains(member)),
            Lookup::Long(of) => contains(rows, of, member),
        }
    }
}

/// Puts a set together.
#[derive(Debug)]
pub struct SetBuilder {
    building: Building,
    limits: SetLimits,
    is_compact: bool,
}

impl SetBuilder {
    /// Of no member yet.
    pub fn new(limits: SetLimits) -> Self {
        Self {
            building: Building::new(SHAPE),
            limits,
            is_compact: true,
        }
    }

    /// Adds a member. False if it is there already.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn push(&mut self, keyspace: &mut Keyspace, member: &[u8]) -> Result<bool, StoreError> {
        let is_new = self.building.push(keyspace, member, &[], false)?;
        let is_integer = !self.is_compact || parse_integer(member).is_some();
        self.is_compact &= is_integer && self.limits.allow(self.building.len());
        Ok(is_new)
    }

    /// How many members there are.
    pub fn len(&self) -> u64 {
        self.building.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.building.len() == 0
    }

    /// The set.
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
