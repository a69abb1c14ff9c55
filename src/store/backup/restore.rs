//! A file -> a new directory, which a shard can be started in.
//!
//! ```text
//! read to the end, compared with its checksum        nothing is written until here
//! DIR made or found empty, marked
//! loaded beside the empty databases, switched to, durable, closed; settings and users written
//! opened again: counts, DEBUG DIGEST, settings and users compared with the file's
//! the mark removed                                    from here on it is a shard
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Progress;
use super::contents::{Contents, ContentsError, Counted, Reading};
use super::part::parent;
use crate::store::keyspace::{DATABASES, Expiry};
use crate::store::kinds::digest;
use crate::store::oplog::LogError;
use crate::store::rows::StoreError;
use crate::store::server::{Apart, RESTORING, StartError};
use crate::store::sync::replica::{Load, LoadError};

/// Read of the file at once.
const READ_BYTES: usize = 256 * 1024;
/// Waits for the disk are looked up from this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a restore makes in its directory, and removes if it fails.
const MADE: [&str; 7] = [
    "log",
    "rows",
    "rows.new",
    "settings.json",
    "settings.json.new",
    "users.acl",
    "users.acl.new",
];
/// What an empty file system has.
const OF_FILE_SYSTEM: &str = "lost+found";
/// Of the log that is made.
const BACKLOG_BYTES: u64 = 1 << 20;

/// A shard that was made.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the file holds, and the shard.
    pub contents: Contents,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is no whole backup.
    #[error("{} is no whole backup: {cause}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: ContentsError,
    },
    /// It holds what the shard would lose.
    #[error("{} holds what a built-in shard does not keep: {what}", path.display())]
    NotKept {
        /// Which.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// Something is in the directory.
    #[error("{} is not empty: `{what}` is in it", dir.display())]
    NotEmpty {
        /// Which.
        dir: PathBuf,
        /// One of the things in it.
        what: String,
    },
    /// Another restore works in it.
    #[error("another restore works in {}", .0.display())]
    Busy(PathBuf),
    /// The directory cannot be made, or written to.
    #[error("{} cannot be prepared: {cause}", dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The shard cannot be opened or closed.
    #[error(transparent)]
    Shard(#[from] StartError),
    /// Its rows cannot be written.
    #[error(transparent)]
    Rows(#[from] StoreError),
    /// A value cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What was loaded is not what the file holds.
    #[error("what was restored is not what the file holds: {0}")]
    Differs(String),
    /// Somebody asked us to.
    #[error("it was interrupted")]
    Interrupted,
}

/// Makes a shard of `file` in `dir`, which is not there yet, or empty.
///
/// # Errors
/// [`RestoreError`]; what was made in `dir` is removed again.
pub fn restore(
    file: &Path,
    dir: &Path,
    memory_bytes: u64,
    progress: &Progress,
) -> Result<Restored, RestoreError> {
    let contents = read_whole(file, progress)?;
    if let Some(what) = contents.not_kept.clone() {
        return Err(RestoreError::NotKept {
            path: file.to_owned(),
            what,
        });
    }
    let site = Site::take(dir).map_err(|error| error.told(dir))?;
    let filled = fill(file, dir, memory_bytes, &contents, progress)
        .and_then(|()| compare(dir, memory_bytes, &contents));
    match filled {
        Ok(()) => {
            let finished = site.finish();
            finished.map_err(|cause| SiteError::Io(cause).told(dir))?;
            Ok(Restored { contents })
        }
        // Somebody else is in it: what is there is not ours to remove.
        Err(error @ RestoreError::Shard(StartError::Log(LogError::InUse { .. }))) => Err(error),
        Err(error) => {
            site.clear();
            Err(error)
        }
    }
}

fn failed_to_read(file: &Path) -> impl Fn(io::Error) -> RestoreError {
    move |cause| RestoreError::File {
        path: file.to_owned(),
        cause,
    }
}

/// Hands the bytes of the file to `each`.
fn read(
    file: &Path,
    progress: &Progress,
    each: &mut dyn FnMut(&[u8]) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let failed = failed_to_read(file);
    let mut input = File::open(file).map_err(&failed)?;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        if progress.is_to_stop() {
            return Err(RestoreError::Interrupted);
        }
        match input.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => each(bytes.get(..read).unwrap_or(&[]))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn read_whole(file: &Path, progress: &Progress) -> Result<Contents, RestoreError> {
    let damaged = |cause| RestoreError::Damaged {
        path: file.to_owned(),
        cause,
    };
    let length = fs::metadata(file).map_err(failed_to_read(file))?.len();
    // It is read twice.
    progress.set_in_all(2 * length);
    let mut reading = Reading::new();
    let mut bytes_read = 0;
    read(file, progress, &mut |bytes| {
        reading.feed(bytes).map_err(damaged)?;
        bytes_read += bytes.len() as u64;
        progress.set(bytes_read, reading.keys());
        Ok(())
    })?;
    reading.finish().map_err(damaged)
}

fn fill(
    file: &Path,
    dir: &Path,
    memory_bytes: u64,
    contents: &Contents,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let mut shard = Apart::open(dir, memory_bytes, BACKLOG_BYTES)?;
    shard.keyspace().begin_loading();
    let mut load = Load::new(shard.build_limits());
    // As a master announces it.
    let mut loaded = load.feed(
        shard.keyspace(),
        format!("${}\r\n", contents.bytes).as_bytes(),
    )?;
    let mut bytes_read = contents.bytes;
    read(file, progress, &mut |bytes| {
        if loaded.is_none() {
            loaded = load.feed(shard.keyspace(), bytes)?;
        }
        shard.make_room()?;
        bytes_read += bytes.len() as u64;
        progress.set(bytes_read, load.keys());
        Ok(())
    })?;
    let Some(loaded) = loaded else {
        // It changed since it was read.
        return Err(LoadError::End.into());
    };
    shard.replace_libraries(&loaded.libraries)?;
    if let Some(kept) = &contents.kept {
        shard.keep(kept)?;
    }
    let end = shard.log_end();
    let mut durable = shard.keyspace().switch_to_loaded(end, |_| ());
    while !durable.wait(LOOK_EVERY)? {
        shard.check_rows()?;
    }
    Ok(shard.close()?)
}

/// Opens what was made once more and compares it with the file.
fn compare(dir: &Path, memory_bytes: u64, contents: &Contents) -> Result<(), RestoreError> {
    let mut shard = Apart::open(dir, memory_bytes, BACKLOG_BYTES)?;
    let keyspace = shard.keyspace();
    keyspace.set_expiry(Expiry::Ignore);
    for (db, number) in (0..DATABASES).zip(0_u32..) {
        let wanted = contents.databases.get(&number).copied();
        let found = Counted {
            keys: keyspace.key_count(db),
            expiring: keyspace.expiring_count(db),
        };
        if found != wanted.unwrap_or_default() {
            let what = format!("database {db}: {found:?}, and not {wanted:?}");
            return Err(RestoreError::Differs(what));
        }
    }
    let libraries = keyspace.library_texts()?.len() as u64;
    if libraries != contents.libraries {
        let what = format!(
            "{libraries} function libraries, and not {}",
            contents.libraries
        );
        return Err(RestoreError::Differs(what));
    }
    let found = digest::of_all(keyspace)?;
    if let Some(wanted) = contents.digest
        && wanted != found
    {
        let what = format!("DEBUG DIGEST {}, and not {}", found.text(), wanted.text());
        return Err(RestoreError::Differs(what));
    }
    // Also that it can be started with them.
    let kept = shard.load_kept()?;
    if contents.kept.as_ref().is_some_and(|wanted| *wanted != kept) {
        let what = "the settings or users are others".to_owned();
        return Err(RestoreError::Differs(what));
    }
    Ok(shard.close()?)
}

/// The directory while it is filled.
struct Site<'a> {
    dir: &'a Path,
    is_ours: bool,
    /// Held until it is finished.
    mark: File,
}

enum SiteError {
    NotEmpty(String),
    Busy,
    Io(io::Error),
}

impl From<io::Error> for SiteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl SiteError {
    fn told(self, dir: &Path) -> RestoreError {
        let dir = dir.to_owned();
        match self {
            Self::NotEmpty(what) => RestoreError::NotEmpty { dir, what },
            Self::Busy => RestoreError::Busy(dir),
            Self::Io(cause) => RestoreError::Dir { dir, cause },
        }
    }
}

impl<'a> Site<'a> {
    /// Makes the directory, or takes it over: empty, or left by a restore that ended badly.
    fn take(dir: &'a Path) -> Result<Self, SiteError> {
        let is_ours = !dir.exists();
        fs::create_dir_all(dir)?;
        let is_left = check(dir)?;
        let path = dir.join(RESTORING);
        let mark = match is_left {
            true => File::options().write(true).open(&path),
            false => File::create_new(&path),
        };
        let mark = mark.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => SiteError::Busy,
            _ => SiteError::Io(error),
        })?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SiteError::Busy),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // Who held it may have come to the end: what is there is a shard then.
        let (ours, named) = (mark.metadata()?, fs::metadata(&path));
        if !named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Err(SiteError::Busy);
        }
        // Or a shard may have begun before the mark was there.
        if !is_left && let Err(error) = check_marked(dir) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        mark.sync_all()?;
        sync(dir)?;
        if is_ours {
            sync(parent(dir))?;
        }
        let site = Self { dir, is_ours, mark };
        site.remove_made()?;
        Ok(site)
    }

    fn remove_made(&self) -> io::Result<()> {
        for name in MADE {
            let path = self.dir.join(name);
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All of it is durable, and then it is a shard.
    fn finish(self) -> io::Result<()> {
        sync(self.dir)?;
        fs::remove_file(self.dir.join(RESTORING))?;
        sync(self.dir)?;
        drop(self.mark);
        Ok(())
    }

    /// Removes what was made. What cannot be removed stays marked.
    fn clear(self) {
        let mark = self.dir.join(RESTORING);
        let removed = self.remove_made().and_then(|()| fs::remove_file(mark));
        if removed.is_ok() && self.is_ours {
            // It stays if somebody put something into it.
            let _ = fs::remove_dir(self.dir);
        }
    }
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != OF_FILE_SYSTEM);
    Ok(names)
}

/// Whether a restore left something, and nobody else did.
fn check(dir: &Path) -> Result<bool, SiteError> {
    let names = names_in(dir)?;
    let is_left = names.iter().any(|name| name == RESTORING);
    let is_made = |name: &String| is_left && (MADE.contains(&&**name) || name == RESTORING);
    match names.iter().find(|name| !is_made(name)) {
        Some(other) => Err(SiteError::NotEmpty(other.clone())),
        None => Ok(is_left),
    }
}

/// That there is nothing but the mark.
fn check_marked(dir: &Path) -> Result<(), SiteError> {
    match names_in(dir)?.into_iter().find(|name| name != RESTORING) {
        Some(other) => Err(SiteError::NotEmpty(other)),
        None => Ok(()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
