//! Which preparation for a cut is in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which preparation for a cut is in force; shared with the mover.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Stance(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    last: AtomicU64,
    /// 0: none.
    in_force: AtomicU64,
}

impl Stance {
    /// A new preparation is in force; its number.
    pub(in super::super) fn prepare(&self) -> u64 {
        let number = self.0.last.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.in_force.store(number, Ordering::Release);
        number
    }

    /// None is.
    pub(in super::super) fn relax(&self) {
        self.0.in_force.store(0, Ordering::Release);
    }

    pub(super) fn in_force(&self) -> u64 {
        self.0.in_force.load(Ordering::Acquire)
    }
}
