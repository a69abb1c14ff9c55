//! What was loaded and what was not, counted by all tasks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::rdb::{Loss, Lost};
use crate::router::address::ShardAddress;

/// Keys that were not loaded and are kept for the report.
pub const NOT_LOADED_KEPT_MAX: usize = 10_000;
/// Bytes of a key that messages show.
const SHOWN_BYTES_MAX: usize = 128;

/// A key, library or script that a target does not have now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLoaded {
    /// `key`, `function library` or `script`.
    pub what: &'static str,
    /// Database of a key.
    pub db: Option<u32>,
    /// Its name, escaped and cut.
    pub name: String,
    /// Where it was to go.
    pub target: ShardAddress,
    /// Why not.
    pub why: String,
}

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys of the file that were read.
    pub keys_read: u64,
    /// Keys that targets have accepted.
    pub loaded: u64,
    /// Bytes of requests for them.
    pub bytes: u64,
    /// Keys that the filters leave out.
    pub unwanted: u64,
    /// Keys that had expired, which are not sent.
    pub expired: u64,
    /// Keys without elements, which servers skip when they load, too.
    pub empty: u64,
    /// Keys that were there and stayed.
    pub existing: u64,
    /// Function libraries loaded, each counted once for each target.
    pub libraries: u64,
    /// Scripts loaded, each counted once for each target.
    pub scripts: u64,
    /// Records of modules outside keys, for which there is no command.
    pub module_records: u64,
    /// What was not loaded; the first `NOT_LOADED_KEPT_MAX`.
    pub not_loaded: Vec<NotLoaded>,
    /// How much was not loaded.
    pub not_loaded_count: u64,
    /// What was loaded without something: of how many keys, and one of them.
    pub lost: BTreeMap<Loss, (u64, String)>,
}

/// Shared by the feeder and all lanes.
pub(super) struct Tally {
    loaded: AtomicU64,
    rare: Mutex<Report>,
    overflow: fn(&NotLoaded),
}

impl Tally {
    pub(super) fn new(overflow: fn(&NotLoaded)) -> Tally {
        Tally {
            loaded: AtomicU64::new(0),
            rare: Mutex::new(Report::default()),
            overflow,
        }
    }

    /// The rest of the counts, which change seldom.
    pub(super) fn rare(&self) -> MutexGuard<'_, Report> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn loaded(&self) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, key: &[u8], lost: Lost) {
        let mut report = self.rare();
        for loss in lost.iter() {
            let (count, _) = report.lost.entry(loss).or_insert_with(|| (0, shown(key)));
            *count += 1;
        }
    }

    pub(super) fn not_loaded(&self, not_loaded: NotLoaded) {
        let mut report = self.rare();
        report.not_loaded_count += 1;
        if report.not_loaded.len() < NOT_LOADED_KEPT_MAX {
            report.not_loaded.push(not_loaded);
        } else {
            (self.overflow)(&not_loaded);
        }
    }

    pub(super) fn report(&self) -> Report {
        let mut report = self.rare().clone();
        report.loaded = self.loaded.load(Ordering::Relaxed);
        report
    }
}

/// A binary key as messages show it.
pub(super) fn shown(key: &[u8]) -> String {
    let cut = key.get(..SHOWN_BYTES_MAX).unwrap_or(key);
    let more = if cut.len() < key.len() {
        format!("... ({} bytes)", key.len())
    } else {
        String::new()
    };
    format!("{}{more}", cut.escape_ascii())
}
