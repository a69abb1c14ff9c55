//! A disk in memory that fails as planned, and forgets what was not synced.
//!
//! ```text
//! names    now ---- sync_dir ----> durable     between them: changes, in their order
//! blocks   now ---- sync_data ---> durable     4 KiB each; dirty in between
//! ```
//!
//! [`FaultyFiles::crashed`] is the disk after a power loss, for one of many ways
//! that it can go, chosen by a seed:
//! - of the changes of names a prefix happened (file systems keep their order);
//! - each dirty block is the new one, the old one, or torn at a byte, on its own;
//! - a file that grew has some length between its durable and its new one.
//!
//! A failed sync behaves as on Linux: the blocks count as clean from then on and
//! are not on the disk, so that the next sync succeeds without having written them.
//!
//! Handles, locks and faults belong to one life of the disk: the crashed disk is
//! a new one, and the old one is as it was.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirLock, DiskFile, Files};
use content::Content;

/// Something that is asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`Files::sync_dir`].
    SyncDir,
    /// [`Files::create`].
    Create,
    /// [`Files::open`].
    Open,
    /// [`Files::rename`].
    Rename,
    /// [`Files::remove`].
    Remove,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO. A write leaves half of its bytes; a sync forgets what it should have written.
    Broken,
    /// ENOSPC. A write leaves half of its bytes.
    Full,
    /// A write or read of half the bytes that succeeds; no fault to other operations.
    Short,
}

#[derive(Debug, Default)]
struct Inode(Mutex<Content>);

#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, Arc<Inode>),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

type Names = BTreeMap<PathBuf, Arc<Inode>>;

#[derive(Debug, Default)]
struct Disk {
    now: Names,
    durable: Names,
    changes: Vec<Change>,
    /// Operation and how many of its kind are let through before it fails, once.
    faults: Vec<(Operation, u64, Fault)>,
    counts: BTreeMap<Operation, u64>,
    /// Bytes that files may still grow by.
    free_bytes: Option<u64>,
    locked: BTreeSet<PathBuf>,
}

/// See the head of the file. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultyFiles(Arc<Mutex<Disk>>);

impl FaultyFiles {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `after` more operations of this kind through and fails the next one.
    pub fn fail(&self, operation: Operation, after: u64, fault: Fault) {
        self.disk().faults.push((operation, after, fault));
    }

    /// Forgets the faults that are planned and have not happened.
    pub fn heal(&self) {
        let mut disk = self.disk();
        disk.faults.clear();
        disk.free_bytes = None;
    }

    /// Files may grow by this many bytes in all; then the disk is full.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.disk().free_bytes = Some(bytes);
    }

    /// How often this was asked so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.disk().counts.get(&operation).copied().unwrap_or(0)
    }

    /// Inverts the bits of `mask` in one byte, on the disk and in what is read;
    /// whether there is such a byte.
    pub fn flip(&self, path: &Path, at: usize, mask: u8) -> bool {
        let Some(inode) = self.disk().now.get(path).cloned() else {
            return false;
        };
        inode.content().flip(at, mask)
    }

    /// What the system may do at any time: some blocks that were not synced are written as
    /// they are now, chosen by `seed`. Nothing counts on it.
    pub fn write_back(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let inodes: Vec<_> = self.disk().now.values().cloned().collect();
        for inode in inodes {
            inode.content().write_back(&mut || random.bool());
        }
    }

    /// The bytes of a file as they are read now.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.disk().now.get(path).cloned()?;
        Some(inode.content().now.clone())
    }

    /// The disk after the process was killed: it reads the same and has lost nothing, but
    /// what was not synced still is not. All faults are over.
    #[must_use]
    pub fn killed(&self) -> Self {
        let disk = self.disk();
        // Names that share a file share its copy.
        let mut copies = BTreeMap::new();
        let mut copy = |inode: &Arc<Inode>| -> Arc<Inode> {
            let fresh = copies.entry(Arc::as_ptr(inode));
            let fresh = fresh.or_insert_with(|| Arc::new(Inode::of(inode.content().clone())));
            fresh.clone()
        };
        let mut names = |names: &Names| -> Names {
            let names = names.iter();
            names
                .map(|(path, inode)| (path.clone(), copy(inode)))
                .collect()
        };
        let (now, durable) = (names(&disk.now), names(&disk.durable));
        let changes = disk.changes.iter().map(|change| match change {
            Change::Link(path, inode) => Change::Link(path.clone(), copy(inode)),
            other => other.clone(),
        });
        let changes = changes.collect();
        Self(Arc::new(Mutex::new(Disk {
            now,
            durable,
            changes,
            ..Disk::default()
        })))
    }

    /// The disk after a power loss; `seed` chooses what is lost.
    #[must_use]
    pub fn crashed(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut choose = |below: usize| random.usize(..=below);
        let disk = self.disk();
        let mut names = disk.durable.clone();
        let happened = choose(disk.changes.len());
        for change in disk.changes.iter().take(happened) {
            apply(&mut names, change);
        }
        let found = names.into_iter().map(|(path, inode)| {
            let bytes = inode.content().after_power_loss(&mut choose);
            (path, Arc::new(Inode::of(Content::durable(bytes))))
        });
        let found: Names = found.collect();
        Self(Arc::new(Mutex::new(Disk {
            now: found.clone(),
            durable: found,
            ..Disk::default()
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the operation and says whether it fails now.
    fn ask(&self, operation: Operation) -> Option<Fault> {
        let mut disk = self.disk();
        *disk.counts.entry(operation).or_default() += 1;
        let mut due = None;
        for (at, (kind, left, fault)) in disk.faults.iter_mut().enumerate() {
            if *kind == operation {
                match left.checked_sub(1) {
                    Some(fewer) => *left = fewer,
                    None if due.is_none() => due = Some((at, *fault)),
                    None => {}
                }
            }
        }
        due.map(|(at, fault)| {
            disk.faults.swap_remove(at);
            fault
        })
    }

    fn ask_name(&self, operation: Operation) -> io::Result<()> {
        match self.ask(operation) {
            None | Some(Fault::Short) => Ok(()),
            Some(Fault::Broken) => Err(broken()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Takes `bytes` off what is free; answers how many there were.
    fn take_free(&self, bytes: u64) -> u64 {
        match &mut self.disk().free_bytes {
            None => bytes,
            Some(free) => {
                let taken = bytes.min(*free);
                *free -= taken;
                taken
            }
        }
    }

    fn handle(&self, inode: Arc<Inode>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            disk: self.clone(),
            inode,
            _lock: None,
        })
    }

    fn locked(&self, path: &Path) -> io::Result<FaultyLock> {
        if !self.disk().locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(FaultyLock {
            disk: self.clone(),
            path: path.to_path_buf(),
        })
    }

    fn create_inode(&self, path: &Path) -> io::Result<Arc<Inode>> {
        self.ask_name(Operation::Create)?;
        let inode = Arc::new(Inode::default());
        let mut disk = self.disk();
        disk.now.insert(path.to_path_buf(), inode.clone());
        let change = Change::Link(path.to_path_buf(), inode.clone());
        disk.changes.push(change);
        Ok(inode)
    }
}

impl Inode {
    fn of(content: Content) -> Self {
        Self(Mutex::new(content))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Rename(path, _) | Self::Unlink(path) => path,
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("input/output error (planned)")
}

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Link(path, inode) => {
            names.insert(path.clone(), inode.clone());
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Unlink(path) => {
            names.remove(path);
        }
    }
}

impl Files for FaultyFiles {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let inside = disk.now.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name().and_then(OsStr::to_str));
        Ok(names.map(str::to_owned).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.ask_name(Operation::Open)?;
        let inode = self.disk().now.get(path).cloned();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(inode))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.handle(self.create_inode(path)?))
    }

    fn create_locked(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let lock = self.locked(path)?;
        Ok(Arc::new(FaultyFile {
            disk: self.clone(),
            inode: self.create_inode(path)?,
            _lock: Some(lock),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask_name(Operation::Rename)?;
        let mut disk = self.disk();
        let inode = disk.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.now.insert(to.to_path_buf(), inode);
        let change = Change::Rename(from.to_path_buf(), to.to_path_buf());
        disk.changes.push(change);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let is_taken = self.disk().now.contains_key(to);
        match is_taken {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => self.rename(from, to),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask_name(Operation::Remove)?;
        let mut disk = self.disk();
        disk.now.remove(path).ok_or(io::ErrorKind::NotFound)?;
        disk.changes.push(Change::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask_name(Operation::SyncDir)?;
        let mut disk = self.disk();
        let disk = &mut *disk;
        disk.changes.retain(|change| {
            let is_inside = change.path().parent() == Some(dir);
            if is_inside {
                apply(&mut disk.durable, change);
            }
            !is_inside
        });
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        Ok(Box::new(self.locked(dir)?))
    }
}

#[derive(Debug)]
struct FaultyLock {
    disk: FaultyFiles,
    path: PathBuf,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.disk().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyFiles,
    inode: Arc<Inode>,
    _lock: Option<FaultyLock>,
}

impl FaultyFile {
    /// Writes the first `limit` of the bytes.
    fn put(&self, bytes: &[u8], at: u64, limit: usize) -> io::Result<usize> {
        let mut content = self.inode.content();
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let wanted = (at + bytes.len().min(limit)).saturating_sub(content.now.len());
        let granted = self.disk.take_free(wanted as u64) as usize;
        let count = bytes.len().min(limit).saturating_sub(wanted - granted);
        content.put(bytes.get(..count).unwrap_or_default(), at);
        Ok(count)
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let bytes = parts.iter().flat_map(|part| part.iter().copied());
        let bytes: Vec<u8> = bytes.collect();
        let half = bytes.len() / 2;
        match self.disk.ask(Operation::Write) {
            None => match self.put(&bytes, at, bytes.len())? {
                0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
                written => Ok(written),
            },
            Some(Fault::Short) => self.put(&bytes, at, half.max(1)),
            Some(fault) => {
                self.put(&bytes, at, half)?;
                Err(match fault {
                    Fault::Full => io::ErrorKind::StorageFull.into(),
                    _ => broken(),
                })
            }
        }
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let limit = match self.disk.ask(Operation::Read) {
            None | Some(Fault::Full) => into.len(),
            Some(Fault::Short) => into.len().div_ceil(2),
            Some(Fault::Broken) => return Err(broken()),
        };
        let content = self.inode.content();
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = content.now.get(from..).unwrap_or_default();
        let bytes = bytes.get(..limit).unwrap_or(bytes);
        if let Some(into) = into.get_mut(..bytes.len()) {
            into.copy_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.inode.content().now.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let fault = self.disk.ask(Operation::Sync);
        let mut content = self.inode.content();
        match fault {
            None | Some(Fault::Short) => {
                content.sync();
                Ok(())
            }
            Some(fault) => {
                content.forget();
                Err(match fault {
                    Fault::Full => io::ErrorKind::StorageFull.into(),
                    _ => broken(),
                })
            }
        }
    }
}
