//! What a compaction asks of each row: does it belong to a dead id?
//!
//! A dropped row leaves no tombstone, so an older version of it may show up again. That
//! is harmless here: nothing reads the rows of a dead id.
//!
//! It also is how a compaction that is under way is ended: see `brake`.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

use super::brake::Brake;
use super::dead::DeadIds;
use super::spaces::Owner;

/// The ids that are dead, once somebody has told.
pub(super) type Told = Arc<RwLock<Option<Arc<DeadIds>>>>;

/// Rows between two looks at whether a merge of the whole tree has to end.
const LOOK_EVERY: u32 = 16;

/// Makes one filter for each compaction.
pub(super) struct DeadRows {
    pub(super) told: Told,
    pub(super) brake: Arc<Brake>,
}

impl Factory for DeadRows {
    fn name(&self) -> &str {
        "dead-rows"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        Box::new(DropDead {
            dead: told.clone(),
            brake: Arc::clone(&self.brake),
            until_look: 0,
            last: (Owner::Nobody, false),
        })
    }
}

struct DropDead {
    dead: Option<Arc<DeadIds>>,
    brake: Arc<Brake>,
    until_look: u32,
    /// Rows of one object follow each other: it is looked up once for all of them.
    last: (Owner, bool),
}

impl CompactionFilter for DropDead {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let looks = self.until_look == 0;
        self.until_look = if looks {
            LOOK_EVERY
        } else {
            self.until_look - 1
        };
        if self.brake.is_stopped() || looks && self.brake.ends_whole() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let Some(dead) = self.dead.as_ref().filter(|dead| !dead.is_empty()) else {
            return Ok(Verdict::Keep);
        };
        let owner = Owner::of(item.key());
        let is_dead = match owner {
            Owner::Nobody => false,
            // Whether it may go depends on its value, too.
            Owner::MetaOf(_) => dead.may_drop(owner, &item.value()?),
            _ if owner == self.last.0 => self.last.1,
            _ => dead.may_drop(owner, &[]),
        };
        self.last = (owner, is_dead);
        Ok(if is_dead {
            Verdict::Destroy
        } else {
            Verdict::Keep
        })
    }
}
