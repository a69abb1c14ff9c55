//! `server.state_dir`: made if missing, and ours alone while we run.
//!
//! Invariant: two processes never write the epochs of one directory; the lock
//! goes with the process, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file whose lock stands for the directory.
const LOCK_NAME: &str = "lock";

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made, or not be written.
    #[error("cannot use `server.state_dir` {}: {cause}", dir.display())]
    Unusable {
        /// As configured.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process runs with it.
    #[error("another keyferry runs with `server.state_dir` {}", dir.display())]
    Taken {
        /// As configured.
        dir: PathBuf,
    },
}

impl StateDirError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => {
                "name a directory this user can write in [server] state_dir, or by --state-dir"
            }
            Self::Taken { .. } => {
                "stop that one, or give each its own [server] state_dir, or --state-dir"
            }
        }
    }
}

/// The directory, locked until this is dropped.
#[derive(Debug)]
pub struct StateDir {
    _lock: File,
}

impl StateDir {
    /// Makes and locks the directory.
    ///
    /// # Errors
    /// It cannot be written, or another process has it.
    pub fn open(dir: &Path) -> Result<Self, StateDirError> {
        let unusable = |cause| StateDirError::Unusable {
            dir: dir.to_owned(),
            cause,
        };
        fs::create_dir_all(dir).map_err(unusable)?;
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK_NAME));
        let lock = opened.map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::Taken {
                dir: dir.to_owned(),
            }),
            Err(TryLockError::Error(cause)) => Err(unusable(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_process() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("a/b");
        let first = StateDir::open(&dir).expect("ours");
        let second = StateDir::open(&dir).expect_err("taken");
        assert_eq!(
            second.to_string(),
            format!(
                "another keyferry runs with `server.state_dir` {}",
                dir.display()
            )
        );
        drop(first);
        StateDir::open(&dir).expect("free again");
    }
}
