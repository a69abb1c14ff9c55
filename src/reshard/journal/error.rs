//! What can be wrong with a journal, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or opening failed.
    #[error("journal {path}: cannot be {doing}: {source}")]
    Io {
        /// The journal's file.
        path: PathBuf,
        /// What was being done, as a participle.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The disk took no more bytes; what was written before is whole.
    #[error(
        "journal {path}: the disk is full while recording {step}; free some space, then run the same command again: the job resumes"
    )]
    DiskFull {
        /// The journal's file.
        path: PathBuf,
        /// Which record did not fit.
        step: &'static str,
    },
    /// A write or sync failed for another reason.
    #[error(
        "journal {path}: recording {step} failed: {source}; check the disk, then run the same command again: the job resumes"
    )]
    WriteFailed {
        /// The journal's file.
        path: PathBuf,
        /// Which record was being written.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write failed, so this process writes no more.
    #[error("journal {path}: an earlier write failed, so {step} was not recorded")]
    Poisoned {
        /// The journal's file.
        path: PathBuf,
        /// Which record was not written.
        step: &'static str,
    },
    /// Not a journal, or one of a newer program.
    #[error("journal {path}: {what}; use another --state directory or the version that wrote it")]
    NotAJournal {
        /// The journal's file.
        path: PathBuf,
        /// What is wrong with its first bytes.
        what: &'static str,
    },
    /// Damaged before its end: refused, because records after it are whole.
    #[error(
        "journal {path}: damaged at byte {offset} ({what}) although records follow; nothing was changed: restore the file, or cancel the job by hand on every proxy and use another --state directory"
    )]
    Corrupt {
        /// The journal's file.
        path: PathBuf,
        /// Where the damaged record starts.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A record that cannot be written down; a fault of this program.
    #[error("journal {path}: {step} cannot be encoded: {what}")]
    Unencodable {
        /// The journal's file.
        path: PathBuf,
        /// Which record.
        step: &'static str,
        /// Why.
        what: String,
    },
}

impl JournalError {
    /// Whether running the same command again may end well.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::DiskFull { .. } | Self::WriteFailed { .. } | Self::Poisoned { .. }
        )
    }
}
