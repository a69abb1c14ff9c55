//! Why rows cannot be had or changed.

use crate::store::engine::EngineError;

/// What [`super::Rows`] may answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine could not read or write.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The thread that applies rows could not be started, or ended by a panic.
    #[error("the thread that writes rows to disk {what}: restart the shard")]
    Applier {
        /// What happened to it.
        what: String,
    },
    /// What the engine holds cannot be read by us.
    #[error("row `{row}` is damaged: restore the shard from a backup or from a replica")]
    BadRow {
        /// Its key.
        row: String,
    },
    /// A snapshot cannot be taken since as many generations wait to be applied.
    #[error(
        "{waiting} generations of rows wait to be written, no snapshot can be taken: try later"
    )]
    Behind {
        /// How many.
        waiting: usize,
    },
    /// The rows were closed before the snapshot could be taken.
    #[error("the shard is stopping")]
    Closed,
}
