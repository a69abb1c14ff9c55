//! The engine's directory: found, made, locked, opened.
//!
//! ```text
//! rows/lock     held by who has it open, and by snapshots
//! rows/current  which list of tables counts    rows/v7  that list    rows/tables/12
//! ```
//! A directory is made under another name and renamed when it is whole: one that a crash
//! left half made is made again.

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use lsm_tree::config::{
    BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, HashRatioPolicy,
    RestartIntervalPolicy,
};
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, DescriptorTable, SequenceNumberCounter,
    Tree,
};

use super::brake::Brake;
use super::filter::{DeadRows, Told};
use super::{EngineError, EngineOptions};

/// Tells our directory from another program's, and this layout from later ones.
pub(super) const FORMAT_ROW: &[u8] = b"Xformat";
pub(super) const FORMAT: &[u8] = b"keyferry rows 2";

/// Points at the list of tables that counts.
const CURRENT: &str = "current";

const LOCK: &str = "lock";

/// Open files that are kept at most.
const OPEN_FILES_MAX: usize = 256;

/// A tree, and what was made for it.
pub(super) struct Opened {
    pub(super) tree: Tree,
    pub(super) cache: Arc<Cache>,
    /// The next sequence number.
    pub(super) seqno: SequenceNumberCounter,
    pub(super) told: Told,
    /// Ends merges that are under way.
    pub(super) brake: Arc<Brake>,
    /// The directory is ours as long as it is open.
    pub(super) lock: Arc<File>,
}

/// Makes the directory if there is nothing, and opens it.
pub(super) fn open(dir: &Path, options: &EngineOptions) -> Result<Opened, EngineError> {
    match what_is_in(dir)? {
        Found::Nothing => create(dir, options)?,
        Found::Ours => (),
        Found::Other(what) => return Err(foreign(dir, what)),
    }
    let opened = open_tree(dir, options)?;
    match opened.tree.get(FORMAT_ROW, lsm_tree::SeqNo::MAX) {
        Ok(Some(format)) if &*format == FORMAT => Ok(opened),
        Ok(Some(format)) => Err(foreign(
            dir,
            format!(
                "its format is `{}`, this version reads `{}`",
                format.escape_ascii(),
                FORMAT.escape_ascii(),
            ),
        )),
        Ok(None) => Err(foreign(dir, "no format is written down".to_owned())),
        Err(error) => Err(told("read its format", dir, error)),
    }
}

fn foreign(dir: &Path, what: String) -> EngineError {
    EngineError::Foreign {
        path: dir.to_owned(),
        what,
    }
}

enum Found {
    Nothing,
    Ours,
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
        if entry.file_name() == CURRENT {
            return Ok(Found::Ours);
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
    fs::create_dir_all(&beside).map_err(io)?;
    let opened = open_tree(&beside, options)?;
    let (tree, seqno) = (&opened.tree, &opened.seqno);
    tree.insert(FORMAT_ROW, FORMAT, seqno.next());
    tree.flush_active_memtable(0)
        .map_err(|e| told("make the rows", &beside, e))?;
    drop(opened);
    fs::rename(&beside, dir).map_err(io)?;
    File::open(&parent)
        .and_then(|parent| parent.sync_all())
        .map_err(io)
}

fn open_tree(dir: &Path, options: &EngineOptions) -> Result<Opened, EngineError> {
    let lock = File::create(dir.join(LOCK))
        .map_err(|e| EngineError::io("make the lock file of the rows", &e))?;
    match lock.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            return Err(EngineError::Locked {
                path: dir.to_owned(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(EngineError::io("lock the rows", &e)),
    }
    let told_to_filter = Told::default();
    let brake = Arc::new(Brake::new(dir));
    let (seqno, visible) = (
        SequenceNumberCounter::default(),
        SequenceNumberCounter::default(),
    );
    let cache = Arc::new(Cache::with_capacity_bytes(options.cache_bytes));
    let filter = DeadRows {
        told: Arc::clone(&told_to_filter),
        brake: Arc::clone(&brake),
    };
    let config = Config::new(dir, seqno.clone(), visible.clone())
        .use_cache(Arc::clone(&cache))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(OPEN_FILES_MAX))))
        .with_compaction_filter_factory(Some(Arc::new(filter)));
    let tree = match catch_panic(dir, || tuned(config).open())? {
        Ok(AnyTree::Standard(tree)) => tree,
        Ok(AnyTree::Blob(_)) => return Err(foreign(dir, "its values are elsewhere".to_owned())),
        Err(error) => return Err(told("open the rows", dir, error)),
    };
    let next = tree.get_highest_seqno().map_or(0, |highest| highest + 1);
    seqno.fetch_max(next);
    visible.fetch_max(next);
    Ok(Opened {
        tree,
        cache,
        seqno,
        told: told_to_filter,
        brake,
        lock: Arc::new(lock),
    })
}

/// For point reads: a third more of them than with the tree's defaults. Level 0 has many
/// runs, most of which do not have the row.
fn tuned(config: Config) -> Config {
    let bloom = |policy| FilterPolicyEntry::Bloom(policy);
    config
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .data_block_restart_interval_policy(RestartIntervalPolicy::all(4))
        .data_block_hash_ratio_policy(HashRatioPolicy::all(1.33))
        .filter_policy(FilterPolicy::new([
            bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
            bloom(BloomConstructionPolicy::BitsPerKey(10.0)),
        ]))
}

/// The tree trusts what it reads in a few places, and panics if it is damaged.
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

/// What the tree says, in our words.
pub(super) fn told(doing: &'static str, dir: &Path, error: lsm_tree::Error) -> EngineError {
    let path = dir.to_owned();
    match error {
        lsm_tree::Error::Io(error) => EngineError::Io {
            doing,
            kind: error.kind(),
            text: format!("{error} (in {})", dir.display()),
        },
        lsm_tree::Error::InvalidVersion(version) => EngineError::Foreign {
            path,
            what: format!("written in format {version} of its tables"),
        },
        error => EngineError::Corrupt {
            path,
            what: error.to_string(),
        },
    }
}
