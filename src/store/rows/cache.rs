//! Rows of large values that were read from the engine lately.
//!
//! What is here is told of each change, so it is always the newest there is, whether the
//! engine has that by now or the overlay.

use std::cell::RefCell;

use bytes::Bytes;
use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::store::engine::SUB;
use crate::store::format::row::{RowBuf, kind};

/// What an entry takes up besides its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// A guess; the table grows.
const ENTRY_BYTES_GUESSED: usize = 256;

/// Where a part's key says of which kind it is.
const KIND_AT: usize = 9;

type Found = Option<Bytes>;

/// A short key stands where it is looked for.
type Table = Cache<RowBuf, Found, Weight, RandomState>;

/// Bounded in bytes. Keys come from clients, so the hash is seeded.
pub(super) struct RowCache {
    rows: Option<RefCell<Table>>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<RowBuf, Found> for Weight {
    fn weight(&self, row: &RowBuf, value: &Found) -> u64 {
        (row.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES) as u64
    }
}

/// Parts of objects; not those that are only walked.
fn may_have(row: &[u8]) -> bool {
    row.first() == Some(&SUB) && row.get(KIND_AT) != Some(&kind::SCORE)
}

impl RowCache {
    /// Keeps nothing if `bytes_max` is 0.
    pub(super) fn new(bytes_max: usize) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max as u64)
            .estimated_items_capacity(bytes_max / ENTRY_BYTES_GUESSED + 1)
            .build();
        let rows = options.ok().filter(|_| bytes_max > 0).map(|options| {
            let (hash, life) = (RandomState::default(), DefaultLifecycle::default());
            RefCell::new(Cache::with_options(options, Weight, hash, life))
        });
        Self { rows }
    }

    pub(super) fn get(&self, row: &[u8]) -> Option<Found> {
        if !may_have(row) {
            return None;
        }
        self.rows.as_ref()?.borrow().get(row).cloned()
    }

    /// Keeps what the engine said; the value owns its bytes. What it does not have is not
    /// kept: it knows that fast, and most who ask for it put it then.
    pub(super) fn keep(&self, row: &[u8], found: &Found) {
        if !may_have(row) || found.is_none() {
            return;
        }
        if let Some(rows) = &self.rows {
            rows.borrow_mut().insert(row.into(), found.clone());
        }
    }

    /// A row that is here has this value from now on.
    pub(super) fn change(&self, row: &[u8], value: &Found) {
        if !may_have(row) {
            return;
        }
        if let Some(rows) = &self.rows
            && let Some(mut known) = rows.borrow_mut().get_mut(row)
        {
            known.clone_from(value);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows.as_ref().map_or(0, |rows| rows.borrow().weight())
    }
}
