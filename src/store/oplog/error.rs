//! What can be wrong with a log, whose fault it is and what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the log did not do what was asked.
#[derive(Debug, Error)]
pub enum LogError {
    /// A write or sync failed before; nobody knows what is on the disk.
    #[error(
        "the log takes no more writes: {why}; \
         what was acknowledged before is safe: check the disk, then restart"
    )]
    Poisoned {
        /// What failed first.
        why: String,
    },
    /// The disk is full; nothing changed, and the call can be made again.
    #[error("no room on the disk for {}: {source}; make room, then try again", file.display())]
    DiskFull {
        /// What was to be written.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something.
    #[error("{} cannot be {doing}: {source}", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was tried, as in "cannot be opened".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were safely on the disk have changed since.
    #[error(
        "{} is damaged at byte {at} (offset {offset} of the stream): {what}; \
         restore the shard from a replica or a backup", file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in the file.
        at: u64,
        /// Where in the stream of effects.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The file that names the log's identity is missing or wrong.
    #[error(
        "{} is damaged: {what}; restore the shard from a replica or a backup", file.display()
    )]
    ManifestDamaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A newer keyferry wrote it.
    #[error(
        "{} has version {version} of its format, and this keyferry knows {known}: start it with \
         the keyferry that wrote it, or restore the shard from a backup", file.display()
    )]
    Newer {
        /// The file that says so.
        file: PathBuf,
        /// What it says.
        version: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The offset is before what the log still holds.
    #[error("offset {offset} is gone from the log, which starts at {start}: a full sync is due")]
    Gone {
        /// What was asked for.
        offset: u64,
        /// The oldest offset there is.
        start: u64,
    },
    /// The offset is after the end.
    #[error("offset {offset} is behind the end of the log, {end}: it is of another history")]
    BehindEnd {
        /// What was asked for.
        offset: u64,
        /// The end.
        end: u64,
    },
    /// No frame starts at the offset a replay was to begin at.
    #[error("offset {offset} is inside a frame of the log: nothing can be replayed from there")]
    InsideFrame {
        /// What was asked for.
        offset: u64,
    },
    /// One frame can hold no more than 4 GiB.
    #[error("{bytes} bytes of effects at once are more than a frame of the log can hold")]
    FrameTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Somebody has the directory open.
    #[error("{} is in use by another process: stop that first", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
}
