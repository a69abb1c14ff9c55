//! Merges of the whole tree, which give back the room of what was deleted or written over.
//!
//! Other merges go by the sizes of levels. A deletion is small, so without these the rows
//! that it hides would stay until as much else was written.
//!
//! ```text
//!   worth it? --yes--> alone, all tables into the last level --> pause, ten times as long
//!                          `-- the brake --> its tables are removed --'
//! ```
//! - At the most every eleventh part of the time goes into them.
//! - They make way for writers, and leave free what writers need.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lsm_tree::{AbstractTree, SequenceNumberCounter, TableId, Tree};

use super::brake::Brake;
use super::compactor::TABLE_BYTES;

/// Where the tree keeps its tables.
const TABLES: &str = "tables";

/// Less is not worth a merge.
const BYTES_MIN: u64 = 4 << 20;

/// A merge is due when one row in so many could be garbage.
const SHARE: u64 = 3;

/// Between two of them.
const PAUSE_MIN: Duration = Duration::from_secs(30);

/// The pause is as many times as long as the merge was.
const PAUSE_TIMES: u32 = 10;

/// When the next may be.
#[derive(Default)]
pub(super) struct Pause {
    until: Option<Instant>,
}

impl Pause {
    pub(super) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    pub(super) fn after(took: Duration) -> Self {
        let pause = took.saturating_mul(PAUSE_TIMES).max(PAUSE_MIN);
        Self {
            until: Instant::now().checked_add(pause),
        }
    }
}

/// Whether a third of the rows in tables could go. A deletion goes with the row it hides.
/// While nobody writes it is enough that other rows may hide some.
pub(super) fn is_worth_it(tree: &Tree, is_idle: bool) -> bool {
    let version = tree.current_version();
    if tree.disk_space() < BYTES_MIN {
        return false;
    }
    let last = version.level_count().saturating_sub(1);
    let (mut rows, mut deletions, mut above) = (0u64, 0u64, 0u64);
    for (at, level) in version.iter_levels().enumerate() {
        for table in level.iter().flat_map(|run| run.iter()) {
            let here = table.metadata.item_count;
            rows += here;
            deletions += table.tombstone_count();
            above += if at < last { here } else { 0 };
        }
    }
    let hides = if is_idle { above } else { 0 };
    deletions.saturating_mul(2).max(hides).saturating_mul(SHARE) >= rows
}

/// Merges all tables into the last level. Nobody else may merge meanwhile.
pub(super) fn merge(
    tree: &Tree,
    seqno: &SequenceNumberCounter,
    brake: &Brake,
    keep_free: u64,
    writing: &Mutex<()>,
    dir: &Path,
) -> lsm_tree::Result<()> {
    let first = tree.get_next_table_id();
    brake.begin_whole(keep_free);
    let merged = tree.major_compact(TABLE_BYTES, seqno.get());
    let was_ended = brake.ends_whole();
    brake.end_whole();
    let Err(error) = merged else {
        return Ok(());
    };
    // Anything else may have come after its tables were written down: they must stay.
    let is_ours =
        matches!(&error, lsm_tree::Error::Io(e) if e.kind() == io::ErrorKind::Interrupted);
    if !(is_ours && was_ended) {
        return Err(error);
    }
    // Who holds it makes no tables: those of this time are in the list, or ours.
    let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
    if brake.is_stopped() {
        // The next start removes its tables.
        return Err(error);
    }
    remove_unlisted(tree, dir, first);
    Ok(())
}

/// Removes the tables made since `first` that no list has.
fn remove_unlisted(tree: &Tree, dir: &Path, first: TableId) {
    let version = tree.current_version();
    let listed: HashSet<TableId> = version.iter_tables().map(|table| table.id()).collect();
    let end = tree.get_next_table_id();
    for id in (first..end).filter(|id| !listed.contains(id)) {
        let path = dir.join(TABLES).join(id.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a table stays until the next start");
            }
            _ => (),
        }
    }
}
