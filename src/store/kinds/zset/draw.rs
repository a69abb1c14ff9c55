//! Elements of a sorted set in no order: drawn at random, or scanned.

use super::range::Range;
use super::walk::{Direction, Entry, decoded, walk, walk_all};
use super::{layout, len};
use crate::store::format::object::{Collection, Stored};
use crate::store::keyspace::Keyspace;
use crate::store::kinds::elements::{Drawn, Element, FEW_OF, draw_few};
use crate::store::kinds::fields;
use crate::store::rows::{Rows, StoreError};

/// Random elements: of many, one is found without looking at the others. If all are
/// wanted they come as Redis gives them, the highest score first.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn draw(
    keyspace: &Keyspace,
    zset: &Collection,
    count: usize,
    drawn: Drawn,
) -> Result<Vec<Entry>, StoreError> {
    let (rows, len) = (keyspace.rows_read(), len(zset));
    let held = usize::try_from(len).unwrap_or(usize::MAX);
    if held == 0 || count == 0 {
        return Ok(Vec::new());
    }
    match (drawn, &zset.stored) {
        (Drawn::Repeated, Stored::Inline(packed)) => {
            let all = decoded(packed)?;
            Ok((0..count)
                .filter_map(|_| fastrand::choice(&all).cloned())
                .collect())
        }
        (Drawn::Repeated, Stored::Rows { id, .. }) => {
            let drawn = (0..count).filter_map(|_| fields::random(rows, *id).transpose());
            drawn.map(|element| entry(element?)).collect()
        }
        (Drawn::Distinct, Stored::Rows { id, .. }) if count < held / FEW_OF => {
            draw_few(rows, *id, count)?.into_iter().map(entry).collect()
        }
        (Drawn::Distinct, _) if count >= held => {
            walk(keyspace, zset, &Range::Rank(0..len), Direction::Backward)?.collect()
        }
        (Drawn::Distinct, _) => select(walk_all(rows, zset)?, count, held),
    }
}

/// Each of `len` elements with the same chance, in one walk.
fn select(
    entries: impl Iterator<Item = Result<Entry, StoreError>>,
    count: usize,
    len: usize,
) -> Result<Vec<Entry>, StoreError> {
    let (mut wanted, mut left) = (count, len);
    let mut found = Vec::with_capacity(wanted);
    for entry in entries {
        let entry = entry?;
        if fastrand::usize(..left.max(1)) < wanted {
            found.push(entry);
            wanted -= 1;
        }
        left = left.saturating_sub(1);
    }
    Ok(found)
}

fn entry(element: Element) -> Result<Entry, StoreError> {
    let score = layout::score_of(&element.value)?;
    let member = element.member;
    Ok(Entry { member, score })
}

/// Some elements, and the cursor of the next ones; 0 at the end.
#[derive(Debug)]
pub struct Scanned {
    /// Elements.
    pub entries: Vec<Entry>,
    /// Where to go on.
    pub next: u64,
}

/// About `count` elements from a cursor on; all of a listpack, and of what is as short.
/// What is there all the time is given once by a whole walk.
///
/// # Errors
/// [`StoreError`] of the engine, or of a row that is none.
pub fn scan(
    rows: &Rows,
    zset: &Collection,
    cursor: u64,
    count: usize,
) -> Result<Scanned, StoreError> {
    match &zset.stored {
        Stored::Rows { id, .. } if !zset.is_compact => {
            let part = fields::scan(rows, *id, cursor, count)?;
            let entries = part
                .elements
                .into_iter()
                .map(entry)
                .collect::<Result<_, _>>()?;
            Ok(Scanned {
                entries,
                next: part.next,
            })
        }
        _ => {
            let entries = walk_all(rows, zset)?.collect::<Result<_, _>>()?;
            Ok(Scanned { entries, next: 0 })
        }
    }
}
