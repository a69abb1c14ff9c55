//! What the built-in shard asks of a disk, and two that answer.
//!
//! ```text
//! Files      names of a directory: create, open, rename, remove, list, sync_dir, locks
//! DiskFile   bytes of one file: write_at, read_at, sync_data
//!
//! RealFiles    the system's files                                   real.rs
//! FaultyFiles  in memory; fails, fills up and crashes as planned    faulty.rs
//! ```
//!
//! What both promise, and no more:
//! - bytes that were written are read back at once, and survive the process;
//! - they survive a power loss after [`DiskFile::sync_data`], names after
//!   [`Files::sync_dir`]; before that any block may be the new or the old one;
//! - after a failed sync nobody knows what is on the disk: who asked may not ask again.

mod faulty;
mod real;

use std::any::Any;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use faulty::{Fault, FaultyFiles, Operation};
pub use real::RealFiles;

/// Held as long as a directory is ours; dropped to let go of it.
pub type DirLock = Box<dyn Any + Send + Sync>;

/// The names in directories.
pub trait Files: Send + Sync + Debug {
    /// Makes `dir` and what is missing above it; fine if it is there.
    ///
    /// # Errors
    /// What the system said, as everywhere here.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in `dir`, in no order.
    ///
    /// # Errors
    /// See above.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that exists, to read and write.
    ///
    /// # Errors
    /// `NotFound`, and see above.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// An empty file; one that has this name is emptied.
    ///
    /// # Errors
    /// See above.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// An empty file that is ours alone as long as it is held, and that only we can read.
    /// One that is there is taken over, if who made it is gone.
    ///
    /// # Errors
    /// `WouldBlock` when somebody holds it.
    fn create_locked(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in the place of the one that has it.
    ///
    /// # Errors
    /// See above.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name that nobody has.
    ///
    /// # Errors
    /// `AlreadyExists`: all is as before.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a name away; who has the file open still reads it.
    ///
    /// # Errors
    /// See above.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` survive a power loss.
    ///
    /// # Errors
    /// See above.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Keeps other processes, and other calls of this, out of `dir`.
    ///
    /// # Errors
    /// `WouldBlock` when somebody holds it.
    fn lock(&self, dir: &Path) -> io::Result<DirLock>;
}

/// The bytes of one file; any number of threads may use it.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes `parts` one after the other at byte `at`; may write fewer bytes and says how many.
    ///
    /// # Errors
    /// What the system said, as everywhere here.
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize>;

    /// Reads at byte `at`; may read fewer bytes, and 0 only at the end of the file.
    ///
    /// # Errors
    /// See above.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;

    /// How long the file is, in bytes.
    ///
    /// # Errors
    /// See above.
    fn length(&self) -> io::Result<u64>;

    /// Makes all bytes written so far survive a power loss.
    ///
    /// # Errors
    /// See above; not to be asked again then.
    fn sync_data(&self) -> io::Result<()>;
}

/// Writes all of `parts` at byte `at`.
///
/// # Errors
/// What the system said; a part of the bytes may be written then.
pub fn write_all_at(
    file: &dyn DiskFile,
    mut parts: &mut [IoSlice<'_>],
    mut at: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_at(parts, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut parts, written);
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `into` from byte `at` as far as the file goes; answers how far that was.
///
/// # Errors
/// What the system said.
pub fn read_full_at(file: &dyn DiskFile, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether `error` says that the disk, or our share of it, is full: that can pass.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
