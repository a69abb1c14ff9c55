//! Commands that change whole databases of the source.
//!
//! ```text
//! FLUSHDB, FLUSHALL   lanes empty -> its keys removed on every target -> read on
//! SWAPDB a b          the same for a and b, whose keys then are read again (`refresh`)
//! ```
//!
//! Invariant: nothing is removed while a request from before the command is
//! under way, and nothing from behind it is sent before.

use super::super::error::MoveError;
use super::noting::Note;
use super::{Source, Unit};

/// What a command leaves empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptied {
    All,
    Database(u32),
}

impl Source {
    /// A database of the source, or all, have lost their keys.
    pub(super) async fn flush_out(&mut self, what: Emptied) -> Result<(), MoveError> {
        self.flushes += 1;
        let removed = self.remove_everywhere(what).await?;
        if what == Emptied::All {
            // What targets could not hold is gone, too.
            self.parts.shortfalls.forget();
        }
        tracing::warn!(source = %self.parts.address, ?what, removed, "it was flushed, and so were the keys of it that targets had");
        Ok(())
    }

    /// Two databases of the source have each other's keys.
    pub(super) async fn swap(&mut self, one: u32, other: u32) -> Result<(), MoveError> {
        if one == other {
            return Ok(());
        }
        self.flushes += 1;
        tracing::warn!(source = %self.parts.address, one, other, "two of its databases were swapped (SWAPDB): their keys are copied again");
        for db in [one, other] {
            // Before they are gone there: nobody shall take them for the source's.
            self.parts.pending.rescan(db);
            for target in self.targets() {
                self.note_pending(target, Note::Database(db))?;
            }
            self.remove_everywhere(Emptied::Database(db)).await?;
        }
        Ok(())
    }

    async fn remove_everywhere(&mut self, what: Emptied) -> Result<u64, MoveError> {
        // It does not wait for the end of the source's transaction, and a run that
        // dies before all is removed must not be gone on with from behind it.
        let unit = std::mem::replace(&mut self.unit, Unit::Broken);
        self.empty_lanes().await?;
        let mut removed = 0;
        for target in self.targets() {
            // What an earlier run of this job has brought there is of later.
            let offset = self.offset;
            if self.queue(target)?.covers(offset) {
                continue;
            }
            removed += self.remove_arrived(target, what).await?;
        }
        if unit == Unit::Outside {
            self.unit = unit;
        }
        Ok(removed)
    }
}
