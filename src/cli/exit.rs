//! How a command ends, for scripts.

use std::process::ExitCode;

/// The exit codes of every subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Done,
    /// It failed at run time.
    Failed,
    /// The command line or the config is wrong; nothing was done.
    Usage,
    /// Verification found differences.
    Differences,
    /// A guard refused and nothing changed.
    Refused,
    /// Rolled back or cancelled.
    RolledBack,
    /// A job already runs.
    AlreadyRuns,
    /// Temporary: run it again.
    TryAgain,
}

impl ExitStatus {
    /// The number a shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Differences => 3,
            Self::Refused => 4,
            Self::RolledBack => 5,
            Self::AlreadyRuns => 6,
            // EX_TEMPFAIL of sysexits.h.
            Self::TryAgain => 75,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
