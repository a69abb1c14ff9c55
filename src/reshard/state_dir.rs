//! The directory a job lives in (`--state DIR`), one job at a time.
//!
//! ```text
//! DIR/lock          held by the process that runs or changes the job
//! DIR/journal       what happened (journal.rs)
//! DIR/journal.JOB   journals of jobs that are over
//! DIR/control.sock  where a running job answers (control.rs), mode 0600
//! DIR/report.json   the last report
//! ```
//! Invariant: only the holder of the lock writes here.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::history::History;
use super::journal::{Journal, JournalError};
use super::report::Report;
use super::state::Misstep;

/// A job's directory; it may not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// Why a job's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process holds the lock.
    #[error(
        "a job already runs in {0}: ask it with `keyferry reshard status --state {0}`, or use another --state directory"
    )]
    AlreadyRuns(PathBuf),
    /// The directory cannot be made or used.
    #[error("state directory {path}: {doing}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's records contradict each other.
    #[error("journal {path}: {misstep}; it was not written by this program, nothing was changed")]
    Contradiction {
        /// The journal.
        path: PathBuf,
        /// What does not follow.
        misstep: Misstep,
    },
}

/// The right to write in a job's directory; ends with the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl StateDir {
    /// The directory at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The journal's file.
    pub fn journal_path(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// Where what sources send faster than targets take it waits.
    pub fn spool_path(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// The running job's socket.
    pub fn socket_path(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The last report.
    pub fn report_path(&self) -> PathBuf {
        self.0.join("report.json")
    }

    /// Makes the directory if need be and takes its lock.
    ///
    /// # Errors
    /// [`StateDirError::AlreadyRuns`] when another process has it.
    pub fn lock(&self) -> Result<Lock, StateDirError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|source| self.io_error("cannot be made", source))?;
        let file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::AlreadyRuns(self.0.clone())),
            Err(TryLockError::Error(source)) => {
                Err(self.io_error("its lock cannot be taken", source))
            }
        }
    }

    /// The lock, as soon as whoever has it is gone. Dropped while it waits, it
    /// leaves a thread behind that waits on.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub async fn lock_when_free(&self) -> Result<Lock, StateDirError> {
        match self.lock() {
            Err(StateDirError::AlreadyRuns(_)) => {}
            other => return other,
        }
        let file = self.lock_file()?;
        let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        let locked = waiting
            .await
            .map_err(io::Error::other)
            .and_then(|done| done);
        match locked {
            Ok(file) => Ok(Lock { _file: file }),
            Err(source) => Err(self.io_error("its lock cannot be taken", source)),
        }
    }

    fn lock_file(&self) -> Result<File, StateDirError> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.0.join("lock"))
            .map_err(|source| self.io_error("its lock cannot be opened", source))
    }

    /// The job as its journal tells it, changing nothing; `None` when there was none.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn history(&self) -> Result<Option<History>, StateDirError> {
        let records = Journal::read(&self.journal_path())?.unwrap_or_default();
        self.replayed(records)
    }

    /// Opens the journal for writing.
    ///
    /// # Errors
    /// [`StateDirError`]; a damaged journal is refused.
    pub fn open(&self, _lock: &Lock) -> Result<(Option<History>, Journal), StateDirError> {
        let opened = Journal::open(&self.journal_path())?;
        if opened.cut_bytes > 0 {
            tracing::warn!(
                bytes = opened.cut_bytes,
                journal = %self.journal_path().display(),
                "cut a record that a crash had torn"
            );
        }
        Ok((self.replayed(opened.records)?, opened.journal))
    }

    /// Puts the journal of a job that is over aside and opens an empty one.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn put_aside(&self, _lock: &Lock, over: &History) -> Result<Journal, StateDirError> {
        let aside = self.0.join(format!("journal.{}", over.planned.job));
        fs::rename(self.journal_path(), aside)
            .map_err(|source| self.io_error("the old journal cannot be renamed", source))?;
        Ok(Journal::open(&self.journal_path())?.journal)
    }

    /// Removes what a killed process of a job that is over left in the spool: data
    /// of users.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn remove_spool(&self, _lock: &Lock) -> Result<(), StateDirError> {
        match fs::remove_dir_all(self.spool_path()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.io_error("the spool cannot be removed", source))
            }
            _ => Ok(()),
        }
    }

    /// Writes `report.json`, whole or not at all.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn write_report(&self, _lock: &Lock, report: &Report) -> Result<(), StateDirError> {
        let failed = |source| self.io_error("the report cannot be written", source);
        let mut text = serde_json::to_vec_pretty(report)
            .map_err(io::Error::from)
            .map_err(failed)?;
        text.push(b'\n');
        let partial = self.0.join("report.json.partial");
        fs::write(&partial, text).map_err(failed)?;
        fs::rename(&partial, self.report_path()).map_err(failed)
    }

    fn replayed(
        &self,
        records: Vec<super::record::Record>,
    ) -> Result<Option<History>, StateDirError> {
        History::replay(records).map_err(|misstep| StateDirError::Contradiction {
            path: self.journal_path(),
            misstep,
        })
    }

    fn io_error(&self, doing: &'static str, source: io::Error) -> StateDirError {
        StateDirError::Io {
            path: self.0.clone(),
            doing,
            source,
        }
    }
}
