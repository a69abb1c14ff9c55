//! What an engine may answer instead of doing what it was asked.
//!
//! Two of them say that *nothing was written and the same batch may be tried again*:
//! [`EngineError::Busy`] and [`EngineError::NoSpace`]. After any other error of a write
//! it is not known what is on disk; the log has it all, so the shard stops and recovers.

use std::io;
use std::path::PathBuf;

/// Why the engine did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// A key that no engine takes: our mistake, longer ones are hashed above.
    #[error("a row's key has {bytes} bytes; 1 to {max} can be stored", max = super::ROW_KEY_BYTES_MAX)]
    BadKey {
        /// Its length.
        bytes: usize,
    },
    /// A value that no engine takes.
    #[error("a row has {bytes} bytes; at most {max} can be stored", max = super::ROW_VALUE_BYTES_MAX)]
    BadValue {
        /// Its length.
        bytes: usize,
    },
    /// Rows that were said to be in order are not: our mistake.
    #[error("rows are written in the wrong order: please report it")]
    Unsorted,
    /// Nothing was written: compactions are behind. Try again.
    #[error("compactions are behind: {l0_runs} runs wait for them")]
    Busy {
        /// Runs that wait for a compaction.
        l0_runs: usize,
    },
    /// Nothing was written: too little room on disk. Try again when there is more.
    #[error("{free_bytes} bytes are free on the disk, {needed_bytes} are needed: make room")]
    NoSpace {
        /// What is free.
        free_bytes: u64,
        /// What the write and the flush behind it need.
        needed_bytes: u64,
    },
    /// Another process, or a snapshot that is still held, has the directory.
    #[error("{path} is in use: stop the other process that has it open")]
    Locked {
        /// The engine's directory.
        path: PathBuf,
    },
    /// There is something else in the directory.
    #[error("{path} holds no rows of keyferry ({what}): choose another directory, or empty it")]
    Foreign {
        /// The engine's directory.
        path: PathBuf,
        /// What was found or missed.
        what: String,
    },
    /// What is in the directory cannot be trusted.
    #[error("{path} is damaged ({what}): restore it from a backup or from a replica")]
    Corrupt {
        /// The engine's directory.
        path: PathBuf,
        /// What the engine says of it.
        what: String,
    },
    /// An earlier write or sync failed, and nothing more can be written.
    #[error("an earlier write to disk failed, nothing more is written: check the disk and restart")]
    Poisoned,
    /// The disk refused.
    #[error("cannot {doing}: {text}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// Its kind.
        kind: io::ErrorKind,
        /// What the system says.
        text: String,
    },
}

impl EngineError {
    /// Nothing was written, and the same write may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::NoSpace { .. })
    }

    /// What the system said while we were at `doing`.
    pub(super) fn io(doing: &'static str, error: &io::Error) -> Self {
        Self::Io {
            doing,
            kind: error.kind(),
            text: error.to_string(),
        }
    }
}
