//! What the code under test may allocate: 64 MiB and twice its input.
//!
//! All that is allocated is added up, nothing that is freed is taken off again, so
//! the bound is stricter than one on what is held at any moment. What a target
//! allocates itself does not count.
//!
//! One byte of LZF becomes 88 at most, and a packed string is unpacked as a whole once
//! its elements are asked for. So the bound holds as it stands for strings that unpack
//! to 62 MiB, which takes 0.7 MiB of input at least and is far beyond what the
//! targets' inputs reach; a longer one, up to the 1 GiB that `rdb::lzf` takes, is held
//! once besides. A declared length alone never allocates.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FREE_BYTES: usize = 64 << 20;

/// Adds up what is allocated for one input.
#[derive(Default)]
pub struct Meter {
    allocated: usize,
}

impl Meter {
    /// Does `work` and adds what it allocates.
    pub fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let region = Region::new(ALLOCATOR);
        let done = work();
        // Growth in place or by a copy is in there too.
        self.allocated += region.change().bytes_allocated;
        done
    }

    /// Fails if it was too much for `input` bytes.
    pub fn check(&self, input: usize) {
        let max = FREE_BYTES + 2 * input;
        let allocated = self.allocated;
        assert!(allocated <= max, "{allocated} bytes for {input} of input");
    }
}
