//! A running shard -> a file: by the replication protocol, as a replica that wants the
//! snapshot only.
//!
//! ```text
//! AUTH -> REPLCONF capa eof -> REPLCONF rdb-only 1 -> REPLCONF keyferry-kept 1 -> PSYNC ? -1
//!      -> +FULLRESYNC id offset -> newlines -> $EOF:mark | $length -> RDB [mark]
//! ```
//! The shard keeps no log for it, holds its rows as they were, and goes on writing. Real
//! redis-servers are backed up the same way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Progress;
use super::contents::{Contents, ContentsError, Reading};
use super::part::{self, Part};
use crate::store::client::{ClientError, Connection, Target};
use crate::store::disk::{Files, RealFiles, is_full};

const MARK_BYTES: usize = 40;

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Whose history it is of.
    pub replid: String,
    /// Where in it.
    pub offset: u64,
    /// What it holds.
    pub contents: Contents,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The name is taken.
    #[error("{} is there already: a backup never replaces a file", .0.display())]
    Exists(PathBuf),
    /// There is no such directory.
    #[error("{} is no name of a file in a directory that is there: {cause}", path.display())]
    Place {
        /// What was named.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Somebody writes the same file.
    #[error("another backup writes {} now", .0.display())]
    Busy(PathBuf),
    /// The shard does not give it.
    #[error(transparent)]
    Shard(#[from] ClientError),
    /// What came is no snapshot.
    #[error("what the shard sent cannot be trusted: {0}")]
    Contents(#[from] ContentsError),
    /// It is another one than was announced.
    #[error("the snapshot's end is not where the shard said")]
    End,
    /// No room.
    #[error("no room on the disk for {}", path.display())]
    DiskFull {
        /// What was written.
        path: PathBuf,
        /// How far it came, in bytes.
        bytes: u64,
    },
    /// The disk failed.
    #[error("{} cannot be written: {cause}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Somebody asked us to.
    #[error("it was interrupted")]
    Interrupted,
}

/// Where the snapshot ends.
#[derive(Clone, Copy)]
enum End {
    AfterBytes(u64),
    AtMark([u8; MARK_BYTES]),
}

/// Makes a backup of `from` at `to`, which is not there yet.
///
/// # Errors
/// [`SaveError`]; there is nothing at `to` then.
pub fn save(from: &Target, to: &Path, progress: &Progress) -> Result<Saved, SaveError> {
    save_with(Arc::new(RealFiles), from, to, progress)
}

/// The same on other files.
///
/// # Errors
/// As [`save`].
pub fn save_with(
    files: Arc<dyn Files>,
    from: &Target,
    to: &Path,
    progress: &Progress,
) -> Result<Saved, SaveError> {
    check_name(&*files, to)?;
    let mut part = Part::begin(files, to).map_err(|cause| began(to, cause))?;
    let mut shard = Connection::open(from, &progress.stop)?;
    let (replid, offset) = ask(&mut shard)?;
    let end = end_of(&mut shard)?;
    let contents = copy(&mut shard, end, &mut part, to, progress)?;
    drop(shard);
    if progress.is_to_stop() {
        return Err(SaveError::Interrupted);
    }
    let bytes = contents.bytes;
    part.finish(to).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => SaveError::Exists(to.to_owned()),
        _ => failed(to, bytes, cause),
    })?;
    Ok(Saved {
        replid,
        offset,
        contents,
    })
}

/// It is looked at once more when the file gets its name; here, before any work.
fn check_name(files: &dyn Files, to: &Path) -> Result<(), SaveError> {
    let name = to.file_name().and_then(|name| name.to_str());
    let named = files.list(part::parent(to));
    match (name, named) {
        (Some(name), Ok(names)) if names.iter().any(|taken| taken == name) => {
            Err(SaveError::Exists(to.to_owned()))
        }
        (Some(_), Ok(_)) => Ok(()),
        (None, _) => Err(SaveError::Place {
            path: to.to_owned(),
            cause: io::ErrorKind::InvalidFilename.into(),
        }),
        (_, Err(cause)) => Err(SaveError::Place {
            path: to.to_owned(),
            cause,
        }),
    }
}

fn began(to: &Path, cause: io::Error) -> SaveError {
    match cause.kind() {
        io::ErrorKind::WouldBlock => SaveError::Busy(to.to_owned()),
        io::ErrorKind::AlreadyExists => SaveError::Exists(part::path_of(to)),
        _ => failed(to, 0, cause),
    }
}

fn failed(to: &Path, bytes: u64, cause: io::Error) -> SaveError {
    let path = to.to_owned();
    match is_full(&cause) {
        true => SaveError::DiskFull { path, bytes },
        false => SaveError::Write { path, cause },
    }
}

/// Asks for a snapshot: whose history it is of, and where in it.
fn ask(shard: &mut Connection<'_>) -> Result<(String, u64), ClientError> {
    shard.ask(&["REPLCONF", "capa", "eof", "capa", "psync2"])?;
    match shard.ask(&["REPLCONF", "rdb-only", "1"]) {
        // Older servers do not know it: they send the stream behind, which nobody reads.
        Ok(_) | Err(ClientError::Refused { .. }) => {}
        Err(error) => return Err(error),
    }
    match shard.ask(&["REPLCONF", "keyferry-kept", "1"]) {
        // A user who may not read settings and users gets none, and others have none.
        Ok(_) | Err(ClientError::Refused { .. }) => {}
        Err(error) => return Err(error),
    }
    shard.say(&["PSYNC", "?", "-1"])?;
    let line = shard.line()?;
    let mut words = line.split_ascii_whitespace();
    let told = match (words.next(), words.next(), words.next()) {
        (Some("+FULLRESYNC"), Some(replid), Some(offset)) => offset
            .parse()
            .ok()
            .map(|offset| (replid.to_owned(), offset)),
        _ => None,
    };
    told.ok_or_else(|| shard.answered("PSYNC", &line))
}

fn end_of(shard: &mut Connection<'_>) -> Result<End, ClientError> {
    let line = shard.line()?;
    let end = line.strip_prefix('$').and_then(|rest| {
        if let Some(mark) = rest.strip_prefix("EOF:") {
            return mark.as_bytes().try_into().ok().map(End::AtMark);
        }
        rest.parse().ok().map(End::AfterBytes)
    });
    end.ok_or_else(|| shard.answered("PSYNC", &line))
}

/// Takes the whole snapshot; what comes behind is not taken.
fn copy(
    shard: &mut Connection<'_>,
    end: End,
    part: &mut Part,
    to: &Path,
    progress: &Progress,
) -> Result<Contents, SaveError> {
    let mut reading = Reading::new();
    let mut written: u64 = 0;
    let mut behind: Vec<u8> = Vec::new();
    while !reading.is_over() {
        let bytes = shard.read()?;
        reading.feed(&bytes)?;
        let len = bytes.len().saturating_sub(reading.behind().len());
        let (of_file, rest) = bytes.split_at_checked(len).unwrap_or((&bytes, &[]));
        part.write(of_file)
            .map_err(|cause| failed(to, written, cause))?;
        written += of_file.len() as u64;
        behind = rest.to_vec();
        progress.set(written, reading.keys());
    }
    match end {
        End::AfterBytes(bytes) if bytes == written => {}
        End::AfterBytes(_) => return Err(SaveError::End),
        End::AtMark(mark) => {
            while behind.len() < MARK_BYTES {
                behind.extend_from_slice(&shard.read()?);
            }
            if behind.get(..MARK_BYTES) != Some(&mark[..]) {
                return Err(SaveError::End);
            }
        }
    }
    Ok(reading.finish_before_more()?)
}
