//! How a command of a job ends, as the interface's exit codes tell it.

use serde::{Deserialize, Serialize};

/// The end of a command; `cli` turns it into its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Done (0).
    Done,
    /// Failed at run time (1).
    Failed,
    /// Wrong usage or config (2).
    Usage,
    /// A verify found differences (3).
    Differences,
    /// A guard refused and nothing changed (4).
    Guard,
    /// Rolled back or cancelled (5).
    Undone,
    /// A job already runs (6).
    AlreadyRuns,
    /// Temporary: run the same command again (75).
    Temporary,
}
