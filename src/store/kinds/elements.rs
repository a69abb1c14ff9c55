//! What hashes and sets have in common: elements, short ones in the meta row, many in
//! rows of their own.
//!
//! ```text
//! Shape::Pairs     hash   field, value, field, value ..
//! Shape::Singles   set    member, member ..
//! ```
//! They are walked in the order in which Redis gives them as long as it has one: fields of
//! a listpack as they came, members of an intset by number. Of a hash table, any order.

use std::collections::HashSet;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::fields;
use super::source::RowSource;
use super::{INLINE_BYTES_MAX, INLINE_ITEMS_MAX};
use crate::store::format::numbers::parse_integer;
use crate::store::format::object::{Collection, Stored};
use crate::store::format::packed::{Packed, PackedWriter};
use crate::store::format::row::ObjectId;
use crate::store::keyspace::Keyspace;
use crate::store::rows::{Rows, StoreError};

/// A field with its value, or a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// When it came, if that matters.
    pub(super) turn: u64,
    /// Field or member.
    pub member: Bytes,
    /// Value of a field; empty of a member.
    pub value: Bytes,
}

/// How a collection's elements look in its meta row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Pairs,
    Singles,
}

/// A part of a scan.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Elements of this part.
    pub elements: Vec<Element>,
    /// The cursor to go on with; 0 at the end.
    pub next: u64,
}

/// Elements one after the other, without holding them all; the few of a compact
/// collection excepted.
pub struct Elements<'a>(Source<'a>);

enum Source<'a> {
    Held(std::vec::IntoIter<Element>),
    Rows(Box<dyn Iterator<Item = Result<Element, StoreError>> + 'a>),
}

/// How random elements are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// Each at most once.
    Distinct,
    /// Each as often as chance has it.
    Repeated,
}

impl Iterator for Elements<'_> {
    type Item = Result<Element, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Held(elements) => elements.next().map(Ok),
            Source::Rows(rows) => rows.next(),
        }
    }
}

impl<'a> Elements<'a> {
    /// All elements of a collection.
    pub(super) fn of(
        rows: &'a (impl RowSource + ?Sized),
        of: &Collection,
        shape: Shape,
    ) -> Result<Self, StoreError> {
        let id = match &of.stored {
            Stored::Inline(items) => {
                return Ok(Self(Source::Held(unpacked(items, shape).into_iter())));
            }
            Stored::Rows { id, .. } => *id,
        };
        let (from, to) = fields::range_of(id);
        let mut rows = rows.rows_between(&from, &to)?.map(|row| {
            let (key, value) = row?;
            fields::element(&key, &value)
        });
        if !of.is_compact {
            return Ok(Self(Source::Rows(Box::new(rows))));
        }
        let mut held = rows.by_ref().collect::<Result<Vec<_>, _>>()?;
        match shape {
            Shape::Pairs => held.sort_by_key(|element| element.turn),
            Shape::Singles => held.sort_by_key(|element| parse_integer(&element.member)),
        }
        Ok(Self(Source::Held(held.into_iter())))
    }
}

/// How many elements there are.
pub(super) fn len(of: &Collection, shape: Shape) -> u64 {
    match &of.stored {
        Stored::Rows { count, .. } => *count,
        Stored::Inline(items) => match shape {
            Shape::Pairs => items.count() as u64 / 2,
            Shape::Singles => items.count() as u64,
        },
    }
}

/// What an inline collection holds, sharing its memory.
pub(super) fn unpacked(items: &Packed, shape: Shape) -> Vec<Element> {
    let element = |(member, value)| Element {
        turn: 0,
        member: items.share(member),
        value,
    };
    match shape {
        Shape::Pairs => {
            let pairs = items.iter().pairs();
            pairs
                .map(|(field, value)| element((field, items.share(value))))
                .collect()
        }
        Shape::Singles => items
            .iter()
            .map(|member| element((member, Bytes::new())))
            .collect(),
    }
}

/// The opposite of [`unpacked`].
pub(super) fn packed(elements: &[Element], shape: Shape) -> Packed {
    let bytes = elements
        .iter()
        .map(|of| of.member.len() + of.value.len() + 4);
    let mut writer = PackedWriter::with_capacity(bytes.sum());
    for element in elements {
        writer.push(&element.member);
        if shape == Shape::Pairs {
            writer.push(&element.value);
        }
    }
    writer.finish()
}

/// Whether packed elements may stand in a meta row.
pub(super) fn fits_inline(bytes: usize, elements: usize) -> bool {
    bytes <= INLINE_BYTES_MAX && elements <= INLINE_ITEMS_MAX
}

/// Gives elements rows of their own.
pub(super) fn spill(keyspace: &mut Keyspace, elements: &[Element], is_ordered: bool) -> ObjectId {
    let id = keyspace.new_object_id();
    for element in elements {
        put_row(keyspace, id, element, is_ordered);
    }
    id
}

/// Puts the row of a new element.
pub(super) fn put_row(keyspace: &mut Keyspace, id: ObjectId, element: &Element, is_ordered: bool) {
    // Object ids only grow, over restarts too: what a turn must do.
    let turn = match is_ordered {
        true => keyspace.new_object_id().0,
        false => 0,
    };
    fields::put(keyspace.rows(), id, turn, &element.member, &element.value);
}

/// A part of all elements: of a compact or short collection it is all of them.
pub(super) fn scan(
    rows: &Rows,
    of: &Collection,
    shape: Shape,
    cursor: u64,
    count: usize,
) -> Result<Scanned, StoreError> {
    match &of.stored {
        Stored::Rows { id, .. } if !of.is_compact => fields::scan(rows, *id, cursor, count),
        _ => Ok(Scanned {
            elements: Elements::of(rows, of, shape)?.collect::<Result<_, _>>()?,
            next: 0,
        }),
    }
}

/// Random elements. Of many, one is found without looking at the others.
pub(super) fn draw(
    rows: &Rows,
    of: &Collection,
    shape: Shape,
    count: usize,
    drawn: Drawn,
) -> Result<Vec<Element>, StoreError> {
    let len = usize::try_from(len(of, shape)).unwrap_or(usize::MAX);
    if len == 0 || count == 0 {
        return Ok(Vec::new());
    }
    match (drawn, &of.stored) {
        (Drawn::Repeated, Stored::Inline(items)) => {
            let all = unpacked(items, shape);
            Ok((0..count)
                .filter_map(|_| fastrand::choice(&all).cloned())
                .collect())
        }
        (Drawn::Repeated, Stored::Rows { id, .. }) => (0..count)
            .filter_map(|_| fields::random(rows, *id).transpose())
            .collect(),
        (Drawn::Distinct, Stored::Rows { id, .. }) if count < len / FEW_OF => {
            draw_few(rows, *id, count)
        }
        (Drawn::Distinct, _) => select(Elements::of(rows, of, shape)?, count, len),
    }
}

/// So many times fewer than all are drawn one by one.
pub(super) const FEW_OF: usize = 4;
/// Draws for each of them; then all are walked.
const DRAWS_PER_ELEMENT_MAX: usize = 64;

/// So many different elements, drawn one by one: of far more than that.
pub(super) fn draw_few(
    rows: &Rows,
    id: ObjectId,
    count: usize,
) -> Result<Vec<Element>, StoreError> {
    let mut seen: HashSet<Bytes, RandomState> = HashSet::default();
    let mut found = Vec::with_capacity(count);
    for _ in 0..count.saturating_mul(DRAWS_PER_ELEMENT_MAX) {
        if found.len() == count {
            return Ok(found);
        }
        let Some(element) = fields::random(rows, id)? else {
            return Ok(found);
        };
        if seen.insert(element.member.clone()) {
            found.push(element);
        }
    }
    // There are hardly more than that, whatever the object says: the others in turn.
    let (from, to) = fields::range_of(id);
    for row in rows.range(&from, &to)? {
        if found.len() == count {
            break;
        }
        let (key, value) = row?;
        let element = fields::element(&key, &value)?;
        if seen.insert(element.member.clone()) {
            found.push(element);
        }
    }
    Ok(found)
}

/// Each of `len` elements with the same chance, in one walk (Knuth's algorithm S).
fn select(elements: Elements<'_>, count: usize, len: usize) -> Result<Vec<Element>, StoreError> {
    let (mut wanted, mut left) = (count.min(len), len);
    let mut found = Vec::with_capacity(wanted);
    for element in elements {
        if wanted == 0 {
            break;
        }
        let element = element?;
        if fastrand::usize(..left.max(1)) < wanted {
            found.push(element);
            wanted -= 1;
        }
        left = left.saturating_sub(1);
    }
    Ok(found)
}

/// Puts a collection together, element by element: for what is loaded and what *STORE
/// commands make.
#[derive(Debug)]
pub(super) struct Building {
    shape: Shape,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Held {
        elements: Vec<Element>,
        known: HashSet<Bytes, RandomState>,
        bytes: usize,
    },
    Rows {
        id: ObjectId,
        count: u64,
    },
}

impl Building {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            stage: Stage::Held {
                elements: Vec::new(),
                known: HashSet::default(),
                bytes: 0,
            },
        }
    }

    pub(super) fn len(&self) -> u64 {
        match &self.stage {
            Stage::Held { elements, .. } => elements.len() as u64,
            Stage::Rows { count, .. } => *count,
        }
    }

    /// Adds an element. False if there is one of that name: it stays as it is.
    pub(super) fn push(
        &mut self,
        keyspace: &mut Keyspace,
        member: &[u8],
        value: &[u8],
        is_ordered: bool,
    ) -> Result<bool, StoreError> {
        let element = Element {
            turn: 0,
            member: Bytes::copy_from_slice(member),
            value: Bytes::copy_from_slice(value),
        };
        match &mut self.stage {
            Stage::Held {
                elements,
                known,
                bytes,
            } => {
                if !known.insert(element.member.clone()) {
                    return Ok(false);
                }
                *bytes += packed_bytes(&element, self.shape);
                elements.push(element);
                if !fits_inline(*bytes, elements.len()) {
                    let count = elements.len() as u64;
                    let id = spill(keyspace, elements, is_ordered);
                    self.stage = Stage::Rows { id, count };
                }
            }
            Stage::Rows { id, count } => {
                if fields::has(keyspace.rows(), *id, member)? {
                    return Ok(false);
                }
                put_row(keyspace, *id, &element, is_ordered);
                *count += 1;
            }
        }
        Ok(true)
    }

    pub(super) fn finish(self, is_compact: bool) -> Collection {
        let stored = match self.stage {
            Stage::Rows { id, count } => Stored::Rows { id, count },
            Stage::Held { mut elements, .. } => {
                if is_compact && self.shape == Shape::Singles {
                    elements.sort_by_key(|element| parse_integer(&element.member));
                }
                Stored::Inline(packed(&elements, self.shape))
            }
        };
        Collection { stored, is_compact }
    }

    /// Its rows, if it has some: to be buried if nobody takes what was built.
    pub(super) fn id(&self) -> Option<ObjectId> {
        match &self.stage {
            Stage::Held { .. } => None,
            Stage::Rows { id, .. } => Some(*id),
        }
    }
}

/// What an element takes packed.
pub(super) fn packed_bytes(element: &Element, shape: Shape) -> usize {
    let item = |bytes: usize| bytes + 1 + bytes.checked_ilog2().unwrap_or(0) as usize / 7;
    match shape {
        Shape::Pairs => item(element.member.len()) + item(element.value.len()),
        Shape::Singles => item(element.member.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::kinds::hash::{self, HashBuilder, HashLimits};
    use crate::store::kinds::set::{self, SetBuilder, SetLimits};

    fn keyspace() -> Keyspace {
        Keyspace::in_memory(1 << 20)
    }

    const HASH_LIMITS: HashLimits = HashLimits {
        entries_max: 512,
        bytes_max: 64,
    };
    const SET_LIMITS: SetLimits = SetLimits {
        intset_entries_max: 512,
    };

    fn pairs(keyspace: &mut Keyspace, of: &Collection) -> Vec<(Vec<u8>, Vec<u8>)> {
        let elements = hash::iter(&*keyspace.rows(), of).expect("elements");
        elements
            .map(|element| element.expect("an element"))
            .map(|element| (element.member.to_vec(), element.value.to_vec()))
            .collect()
    }

    #[test]
    fn a_hash_is_what_a_map_is_through_all_its_sizes() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut keyspace = keyspace();
        for size in [20, 300, 2_000] {
            let (mut of, mut model) = (hash::empty(), BTreeMap::new());
            for _ in 0..4 * size {
                let field = format!("field {}", rng.usize(..size)).into_bytes();
                if rng.u8(..4) == 0 {
                    let removed = hash::remove(&mut keyspace, &mut of, &field).expect("removes");
                    assert_eq!(removed, model.remove(&field).is_some());
                } else {
                    let value = vec![b'v'; rng.usize(..40)];
                    let is_new = hash::set(&mut keyspace, &mut of, &field, &value, HASH_LIMITS);
                    assert_eq!(is_new.expect("sets"), model.insert(field, value).is_none());
                }
                assert_eq!(hash::len(&of), model.len() as u64);
            }
            let mut found = pairs(&mut keyspace, &of);
            found.sort();
            assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
            for (field, value) in &model {
                let found = hash::get(keyspace.rows(), &of, field).expect("reads");
                assert_eq!(found.as_deref(), Some(&**value));
            }
            assert_eq!(of.is_compact, size < 600, "{size}");
        }
    }

    #[test]
    fn what_is_built_is_what_is_set_one_by_one() {
        let mut keyspace = keyspace();
        for count in [0, 1, 100, 512, 513, 3_000] {
            let (mut one_by_one, mut builder) = (hash::empty(), HashBuilder::new(HASH_LIMITS));
            let (mut added, mut members) = (set::empty(), SetBuilder::new(SET_LIMITS));
            for number in 0..count {
                let number = (number * 7_919 % 10_007).to_string().into_bytes();
                let set = hash::set(
                    &mut keyspace,
                    &mut one_by_one,
                    &number,
                    b"value",
                    HASH_LIMITS,
                );
                assert!(set.expect("sets"));
                assert!(
                    builder
                        .push(&mut keyspace, &number, b"value")
                        .expect("pushes")
                );
                assert!(
                    !builder
                        .push(&mut keyspace, &number, b"other")
                        .expect("pushes")
                );
                assert!(set::add(&mut keyspace, &mut added, &number, SET_LIMITS).expect("adds"));
                assert!(members.push(&mut keyspace, &number).expect("pushes"));
                assert!(!members.push(&mut keyspace, &number).expect("pushes"));
            }
            let built = builder.finish();
            assert_eq!(built.is_compact, one_by_one.is_compact, "{count}");
            assert_eq!(
                pairs(&mut keyspace, &built),
                pairs(&mut keyspace, &one_by_one)
            );
            let built = members.finish();
            assert_eq!(built.is_compact, added.is_compact, "{count}");
            let of = |keyspace: &mut Keyspace, of: &Collection| -> Vec<Bytes> {
                let elements = set::iter(&*keyspace.rows(), of).expect("elements");
                elements
                    .map(|element| element.expect("an element").member)
                    .collect()
            };
            assert_eq!(of(&mut keyspace, &built), of(&mut keyspace, &added));
        }
    }

    #[test]
    fn fewer_rows_than_the_object_says_do_not_draw_for_ever() {
        let mut keyspace = keyspace();
        let mut of = set::empty();
        for number in 0..600 {
            let member = format!("m{number}").into_bytes();
            set::add(&mut keyspace, &mut of, &member, SET_LIMITS).expect("adds");
        }
        if let Stored::Rows { count, .. } = &mut of.stored {
            *count = 100_000;
        }
        let drawn = set::draw(keyspace.rows(), &of, 5_000, Drawn::Distinct).expect("draws");
        assert!(drawn.len() <= 600);
    }
}
