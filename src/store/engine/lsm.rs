//! The engine on disk: fjall, contained.
//!
//! - One keyspace for all spaces: two are a third slower. Never `clear`, FIFO, value
//!   separation or weak tombstones, whose defects keep coming back.
//! - fjall's own rotation of memtables is off. It pokes its workers through a bounded
//!   mailbox that a flood of commits fills, and a worker that then pokes itself waits for
//!   ever. So the writing thread rotates, when a memtable is full and few wait.
//! - fjall stops a writer in a loop when flushes are behind, also when the thread that
//!   should flush has died. So we look first, write nothing, and answer `Busy`.
//! - fjall is poisoned for good by a full disk. So we look first, and answer `NoSpace`.
//! - It panics on keys of more than 65,535 bytes and on some damaged files: the first are
//!   refused, the second caught and told.
//! - Its reads wait while it syncs a list of tables. Ours do not: see `view`.
//! - A directory is made under another name and renamed when it is whole: fjall cannot
//!   open one that a crash left half made.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use fjall::config::{CompressionPolicy, HashRatioPolicy, RestartIntervalPolicy};
use fjall::{
    AbstractTree, CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode,
    Readable, Slice,
};

use super::dead::DeadIds;
use super::filter::{DeadRows, Told};
use super::view::Views;
use super::{Change, Engine, EngineError, EngineSnapshot, EngineStats, Row, RowIter, check_row};

const KEYSPACE: &str = "rows";

/// Tells our directory from another program's, and this layout from later ones.
const FORMAT_ROW: &[u8] = b"Xformat";
const FORMAT: &[u8] = b"keyferry rows 1";

/// Memtables that may wait for a flush. fjall stops its writer at four.
const SEALED_MEMTABLES_MAX: usize = 3;

/// With as many waiting, the active one may grow to this many times its size.
const MEMTABLE_GROWTH_MAX: u64 = 2;

/// Runs in level 0 at which nothing more is written. fjall stops its writer at 30.
const L0_RUNS_MAX: usize = 18;

/// What a byte in memory may become before anything is freed: journal, and table.
const SPACE_AMPLIFICATION: u64 = 2;

/// A compaction writes its tables anew before it frees the old ones: all of them, but
/// hardly more than this at a time.
const COMPACTION_BYTES_MAX: u64 = 1 << 30;

/// Open files that fjall keeps at most.
const OPEN_FILES_MAX: usize = 256;

/// How the engine on disk shares out what it has.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Memory for blocks of tables.
    pub cache_bytes: u64,
    /// Size of a memtable; up to five such may be in memory.
    pub memtable_bytes: u64,
    /// Threads that flush and compact.
    pub worker_threads: usize,
    /// Nothing is written unless as much stays free on the disk, besides what flushes and
    /// compactions need.
    pub free_bytes_min: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            worker_threads: 2,
            free_bytes_min: 256 << 20,
        }
    }
}

/// Ordered rows on disk. See [`open_fjall`].
pub struct FjallEngine {
    // Dropped first: it waits for its threads, which use the rows.
    db: Database,
    rows: Keyspace,
    views: Views,
    /// All batches below this sequence number are whole.
    whole_below: AtomicU64,
    told: Told,
    dir: PathBuf,
    options: EngineOptions,
}

/// Opens the engine in `dir`, or makes it if there is nothing yet.
pub fn open_fjall(dir: &Path, options: &EngineOptions) -> Result<FjallEngine, EngineError> {
    match what_is_in(dir)? {
        Found::Nothing => create(dir, options)?,
        Found::Fjall => (),
        Found::Other(what) => {
            return Err(EngineError::Foreign {
                path: dir.to_owned(),
                what,
            });
        }
    }
    open_existing(dir, options)
}

impl FjallEngine {
    /// Flushes what is in memory, and compacts all tables into one level. Waits for it.
    pub fn compact_all(&self) -> Result<(), EngineError> {
        let run = || {
            self.rows.rotate_memtable_and_wait()?;
            self.rows.major_compact()
        };
        run().map_err(|e| self.told_error("compact", e))?;
        self.rest();
        Ok(())
    }

    /// Flushes the memtable. Waits for it.
    pub fn flush(&self) -> Result<(), EngineError> {
        self.rows
            .rotate_memtable_and_wait()
            .map_err(|e| self.told_error("flush", e))?;
        self.rest();
        Ok(())
    }

    /// Says why the next write would have to wait.
    fn check_room(&self) -> Result<(), EngineError> {
        let sealed_memtables = self.rows.sealed_memtable_count();
        let l0_runs = self.rows.tree.l0_run_count();
        let grown = MEMTABLE_GROWTH_MAX.saturating_mul(self.options.memtable_bytes);
        let is_memory_full = sealed_memtables >= SEALED_MEMTABLES_MAX
            && self.rows.tree.active_memtable().size() >= grown;
        if !is_memory_full && l0_runs < L0_RUNS_MAX {
            return Ok(());
        }
        self.check_poison()?;
        // fjall looks for something to compact after a flush only, and may then have found
        // the tables busy. Without writes there is no flush, so we look ourselves.
        if l0_runs >= L0_RUNS_MAX && self.db.active_compactions() == 0 {
            let strategy = Arc::clone(&self.rows.config.compaction_strategy);
            self.rows
                .tree
                .compact(strategy, 0)
                .map_err(|e| self.told_error("compact", e.into()))?;
        }
        Err(EngineError::Busy {
            sealed_memtables,
            l0_runs,
        })
    }

    /// What we wait for never comes if a worker has died.
    fn check_poison(&self) -> Result<(), EngineError> {
        self.db
            .persist(PersistMode::Buffer)
            .map_err(|e| self.told_error("write rows", e))
    }

    fn check_disk(&self, batch_bytes: u64) -> Result<(), EngineError> {
        let disk = rustix::fs::statvfs(&self.dir)
            .map_err(|e| EngineError::io("ask for the free space", &e.into()))?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let in_memory = self.db.write_buffer_size();
        let needed_bytes = batch_bytes
            .saturating_add(in_memory)
            .saturating_mul(SPACE_AMPLIFICATION)
            .saturating_add(self.rows.disk_space().min(COMPACTION_BYTES_MAX))
            .saturating_add(self.options.free_bytes_min);
        if free_bytes < needed_bytes {
            self.check_poison()?;
            return Err(EngineError::NoSpace {
                free_bytes,
                needed_bytes,
            });
        }
        Ok(())
    }

    fn rotate_if_due(&self) -> fjall::Result<()> {
        let is_full = self.rows.tree.active_memtable().size() >= self.options.memtable_bytes;
        if is_full && self.rows.sealed_memtable_count() < SEALED_MEMTABLES_MAX {
            self.rows.rotate_memtable()?;
        }
        self.views.renew_if_rotated(&self.rows.tree);
        Ok(())
    }

    fn told_error(&self, doing: &'static str, error: fjall::Error) -> EngineError {
        told(doing, &self.dir, error)
    }

    fn journal_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return 0;
        };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "jnl"))
            .filter_map(|entry| entry.metadata().ok())
            // They are preallocated: what counts is what is really taken.
            .map(|about| about.blocks().saturating_mul(512))
            .sum()
    }
}

impl Engine for FjallEngine {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = match self.views.current() {
            Some(view) => view.get(row).map_err(fjall::Error::from),
            None => self.rows.get(row).map(|value| value.map(Bytes::from)),
        };
        found.map_err(|e| self.told_error("read a row", e))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let dir = self.dir.clone();
        let Some(view) = self.views.current() else {
            let now = self.db.snapshot();
            return rows_of_guards(now.range(&self.rows, from..to), dir);
        };
        // After the view: what that has merged away must be below it.
        let seqno = self.whole_below.load(Ordering::Acquire);
        Box::new(view.range(from, to, seqno).map(move |row| match row {
            Ok(row) => Ok((row.key.user_key.into(), row.value.into())),
            Err(error) => Err(told("read rows", &dir, error.into())),
        }))
    }

    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        Ok(Box::new(Moment {
            snapshot: self.db.snapshot(),
            rows: self.rows.clone(),
            dir: self.dir.clone(),
        }))
    }

    fn write<'a>(&self, batch: &mut dyn Iterator<Item = Change<'a>>) -> Result<(), EngineError> {
        self.check_room()?;
        // To the system, so that what was applied survives the end of the process.
        let mut out = self.db.batch().durability(Some(PersistMode::Buffer));
        let mut bytes = 0u64;
        for (key, value) in batch {
            check_row(key, value)?;
            bytes += (key.len() + value.map_or(0, Bytes::len)) as u64;
            match value {
                Some(value) => out.insert(&self.rows, key, Slice::from(value.clone())),
                None => out.remove(&self.rows, key),
            }
        }
        self.check_disk(bytes)?;
        out.commit().map_err(|e| self.told_error("write rows", e))?;
        let whole_below = self.db.visible_seqno();
        self.whole_below.store(whole_below, Ordering::Release);
        self.rotate_if_due()
            .map_err(|e| self.told_error("rotate the memtable", e))
    }

    fn persist(&self) -> Result<(), EngineError> {
        self.db
            .persist(PersistMode::SyncData)
            .map_err(|e| self.told_error("sync the journal", e))?;
        self.rest();
        Ok(())
    }

    fn rest(&self) {
        self.views.renew(&self.rows.tree);
    }

    fn mark_dead(&self, dead: Arc<DeadIds>) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = Some(dead);
    }

    fn stats(&self) -> EngineStats {
        let journal_bytes = self.journal_bytes();
        EngineStats {
            disk_bytes: self.rows.disk_space() + journal_bytes,
            journal_bytes,
            tables: self.rows.table_count(),
            l0_runs: self.rows.tree.l0_run_count(),
            memtable_bytes: self.db.write_buffer_size(),
            sealed_memtables: self.rows.sealed_memtable_count(),
            cache_bytes: self.db.cache_size(),
            compactions: self.db.active_compactions(),
        }
    }
}

struct Moment {
    snapshot: fjall::Snapshot,
    rows: Keyspace,
    dir: PathBuf,
}

impl EngineSnapshot for Moment {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.snapshot.get(&self.rows, row) {
            Ok(value) => Ok(value.map(Bytes::from)),
            Err(error) => Err(told("read a row", &self.dir, error)),
        }
    }

    fn range(&self, from: &[u8], to: &[u8]) -> RowIter {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        rows_of_guards(self.snapshot.range(&self.rows, from..to), self.dir.clone())
    }
}

fn rows_of_guards(guards: fjall::Iter, dir: PathBuf) -> RowIter {
    Box::new(guards.map(move |guard: Guard| match guard.into_inner() {
        Ok((key, value)) => Ok::<Row, _>((key.into(), value.into())),
        Err(error) => Err(told("read rows", &dir, error)),
    }))
}

enum Found {
    Nothing,
    Fjall,
    Other(String),
}

fn what_is_in(dir: &Path) -> Result<Found, EngineError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        entries => entries.map_err(|e| EngineError::io("look into the directory", &e))?,
    };
    let mut some_name = None;
    for entry in entries {
        let entry = entry.map_err(|e| EngineError::io("look into the directory", &e))?;
        // fjall writes it last when it makes a directory.
        if entry.file_name() == "version" {
            return Ok(Found::Fjall);
        }
        some_name = Some(entry.file_name());
    }
    Ok(match some_name {
        None => Found::Nothing,
        Some(name) => Found::Other(format!("there is `{}`", name.display())),
    })
}

/// Makes it beside `dir`, and moves it there when it is whole.
fn create(dir: &Path, options: &EngineOptions) -> Result<(), EngineError> {
    let io = |e: std::io::Error| EngineError::io("make the directory of the rows", &e);
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = dir.with_file_name(name);
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(io)?;
    }
    let parent = beside.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).to_owned();
    fs::create_dir_all(&parent).map_err(io)?;
    let made = catch_panic(&beside, || {
        let db = builder(&beside, options, Told::default()).open()?;
        let rows = db.keyspace(KEYSPACE, keyspace_options)?;
        rows.insert(FORMAT_ROW, FORMAT)?;
        db.persist(PersistMode::SyncAll)
    });
    made?.map_err(|e| told("make the rows", &beside, e))?;
    fs::rename(&beside, dir).map_err(io)?;
    File::open(&parent)
        .and_then(|parent| parent.sync_all())
        .map_err(io)
}

fn open_existing(dir: &Path, options: &EngineOptions) -> Result<FjallEngine, EngineError> {
    let told_to_filter = Told::default();
    let foreign = |what: &str| EngineError::Foreign {
        path: dir.to_owned(),
        what: what.to_owned(),
    };
    let opened = catch_panic(dir, || builder(dir, options, told_to_filter.clone()).open())?;
    let db = opened.map_err(|e| told("open the rows", dir, e))?;
    if !db.keyspace_exists(KEYSPACE) {
        return Err(foreign("another program's database"));
    }
    let rows = catch_panic(dir, || db.keyspace(KEYSPACE, keyspace_options))?;
    let rows = rows.map_err(|e| told("open the rows", dir, e))?;
    let engine = FjallEngine {
        db,
        rows,
        views: Views::default(),
        whole_below: AtomicU64::new(0),
        told: told_to_filter,
        dir: dir.to_owned(),
        options: options.clone(),
    };
    engine
        .whole_below
        .store(engine.db.visible_seqno(), Ordering::Release);
    match engine.get(FORMAT_ROW)? {
        Some(format) if format == FORMAT => {
            engine.rest();
            Ok(engine)
        }
        Some(format) => Err(foreign(&format!(
            "its format is `{}`, this version reads `{}`",
            format.escape_ascii(),
            FORMAT.escape_ascii(),
        ))),
        None => Err(foreign("no format is written down")),
    }
}

fn builder(dir: &Path, options: &EngineOptions, told: Told) -> fjall::DatabaseBuilder<Database> {
    Database::builder(dir)
        .cache_size(options.cache_bytes)
        .worker_threads(options.worker_threads.max(1))
        .max_cached_files(Some(OPEN_FILES_MAX))
        .manual_journal_persist(true)
        .journal_compression(CompressionType::None)
        // Above it, its workers would rotate memtables by themselves.
        .max_journaling_size(u64::MAX)
        .with_compaction_filter_factories(Arc::new(move |_| {
            Some(Arc::new(DeadRows {
                told: Arc::clone(&told),
            }))
        }))
}

/// Tuned for point reads: a third more of them than with fjall's defaults.
fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(u64::MAX)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .data_block_restart_interval_policy(RestartIntervalPolicy::all(4))
        .data_block_hash_ratio_policy(HashRatioPolicy::all(1.33))
}

/// fjall trusts what it reads in a few places, and panics if it is damaged.
fn catch_panic<T>(dir: &Path, open: impl FnOnce() -> T) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(open)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        EngineError::Corrupt {
            path: dir.to_owned(),
            what: text.unwrap_or("its reader gave up").to_owned(),
        }
    })
}

fn told(doing: &'static str, dir: &Path, error: fjall::Error) -> EngineError {
    use fjall::{Error, LsmError};
    let path = dir.to_owned();
    match error {
        Error::Io(e) | Error::Storage(LsmError::Io(e)) => EngineError::io(doing, &e),
        Error::Poisoned => EngineError::Poisoned,
        Error::Locked => EngineError::Locked { path },
        Error::InvalidVersion(Some(version)) => EngineError::Foreign {
            path,
            what: format!("written in fjall's format {version:?}"),
        },
        error => EngineError::Corrupt {
            path,
            what: error.to_string(),
        },
    }
}
