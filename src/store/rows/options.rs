//! Bounds of the overlay and the pace of the thread behind it.

use std::sync::Arc;
use std::time::Duration;

use crate::store::engine::ObjectOf;

/// Called on the applier's thread; must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// See [`super::Rows::open`].
#[derive(Clone)]
pub struct RowsOptions {
    /// With as many bytes not yet in the engine, [`super::Rows::is_full`] says so.
    pub overlay_bytes_max: usize,
    /// A generation of this size is handed to the applier, if that has nothing to do.
    pub freeze_bytes: usize,
    /// So is one of this age.
    pub freeze_age: Duration,
    /// One of this size is handed over in any case.
    pub freeze_busy_bytes: usize,
    /// Memory for rows of large values that were read lately.
    pub cache_bytes: usize,
    /// What was applied survives a power loss after this time at the latest,
    pub persist_age: Duration,
    /// or after as many bytes.
    pub persist_bytes: usize,
    /// Between two rounds of removing dead rows.
    pub sweep_pause: Duration,
    /// Reads a meta row's value: which object has the rest of it.
    pub object_of: ObjectOf,
    /// Told when a generation was applied, a snapshot taken, or the applier failed.
    pub wake: Option<Wake>,
}

impl RowsOptions {
    /// The usual sizes.
    pub fn new(object_of: ObjectOf) -> Self {
        Self {
            overlay_bytes_max: 256 << 20,
            // Large: rows that change again meanwhile cost the engine one write, and what is
            // large enough becomes tables without a detour.
            freeze_bytes: 64 << 20,
            freeze_age: Duration::from_secs(5),
            freeze_busy_bytes: 96 << 20,
            cache_bytes: 64 << 20,
            persist_age: Duration::from_secs(30),
            persist_bytes: 32 << 20,
            sweep_pause: Duration::from_millis(10),
            object_of,
            wake: None,
        }
    }
}
