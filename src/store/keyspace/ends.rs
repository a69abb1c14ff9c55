//! Where the live rows of ordered objects begin and end.
//!
//! Who pops from an end leaves tombstones there, and the next one would walk over all of
//! them. What a walk found first is kept, and the next one begins there. It is only known
//! here: after a restart the first walk finds it again.

use std::cell::RefCell;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::store::format::row::ObjectId;

/// Objects whose ends are known at once; beyond it all are forgotten.
const OBJECTS_MAX: usize = 1024;

/// See the head of this file. Rows are by their keys.
#[derive(Debug, Default)]
pub struct LiveEnds {
    of: RefCell<HashMap<ObjectId, Ends, RandomState>>,
}

#[derive(Clone, Debug, Default)]
struct Ends {
    /// No live row stands before it.
    low: Option<Box<[u8]>>,
    /// No live row stands behind it.
    high: Option<Box<[u8]>>,
}

impl LiveEnds {
    /// No live row of the object stands before this key, if one is known.
    pub fn low(&self, id: ObjectId) -> Option<Box<[u8]>> {
        self.of.borrow().get(&id).and_then(|ends| ends.low.clone())
    }

    /// No live row of the object stands behind this key, if one is known.
    pub fn high(&self, id: ObjectId) -> Option<Box<[u8]>> {
        self.of.borrow().get(&id).and_then(|ends| ends.high.clone())
    }

    /// Says that no live row stands before this key.
    pub fn begins_at(&self, id: ObjectId, row: &[u8]) {
        self.change(id, |ends| ends.low = Some(Box::from(row)));
    }

    /// Says that no live row stands behind this key.
    pub fn ends_at(&self, id: ObjectId, row: &[u8]) {
        self.change(id, |ends| ends.high = Some(Box::from(row)));
    }

    /// A row is put.
    pub fn put(&self, id: ObjectId, row: &[u8]) {
        if let Some(ends) = self.of.borrow_mut().get_mut(&id) {
            if ends.low.as_deref().is_some_and(|low| row < low) {
                ends.low = Some(Box::from(row));
            }
            if ends.high.as_deref().is_some_and(|high| row > high) {
                ends.high = Some(Box::from(row));
            }
        }
    }

    fn change(&self, id: ObjectId, change: impl FnOnce(&mut Ends)) {
        let mut of = self.of.borrow_mut();
        if of.len() >= OBJECTS_MAX && !of.contains_key(&id) {
            of.clear();
        }
        change(of.entry(id).or_default());
    }
}
