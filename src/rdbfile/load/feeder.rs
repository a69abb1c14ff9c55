//! The reading side: records of the file -> batches for the targets.
//!
//! It blocks, on the file as on full queues, and so has a thread of its own.
//! When a lane is gone it stops; the lane's own error is the one that is told.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::rdb::{KeyRecord, LargeKey, Record, ScannerLimits, ValuePart};
use crate::rdbfile::facts::KeyFacts;
use crate::rdbfile::source::{Meter, Stopped, scan};
use crate::rdbfile::survey::library_name;
use crate::resp::write_command;
use crate::restore::{
    CannotRestore, How, KeyHead, LARGE_VALUE_BYTES, LargeValue, Reply, Requests, Restorer,
};
use crate::router::address::ShardAddress;

use super::batch::{Batch, What};
use super::error::LoadError;
use super::tally::{NotLoaded, Tally, shown};
use super::target::Routes;
use super::{BATCH_BYTES, BATCH_REQUESTS_MAX, BUDGET_BYTES, LoadConfig};

/// The way to one target.
pub(super) struct Outlet {
    address: ShardAddress,
    restorer: Restorer,
    batch: Batch,
    sender: mpsc::Sender<Batch>,
}

impl Outlet {
    pub(super) fn new(
        address: ShardAddress,
        restorer: Restorer,
        sender: mpsc::Sender<Batch>,
    ) -> Outlet {
        Outlet {
            address,
            restorer,
            batch: Batch::default(),
            sender,
        }
    }
}

/// Why feeding stops before the file ends.
enum Stop {
    /// A lane ended; it says why.
    LaneGone,
    Error(LoadError),
}

/// A value that comes in parts.
struct Large {
    at: usize,
    db: u32,
    value: LargeValue,
}

pub(super) struct Feeder {
    config: LoadConfig,
    routes: Routes,
    outlets: Vec<Outlet>,
    budget: Arc<Semaphore>,
    tally: Arc<Tally>,
    pace: Pace,
    /// The file's database that goes to the one chosen.
    only_db: Option<u32>,
    /// The value whose parts come now.
    large: Option<Large>,
}

impl Feeder {
    pub(super) fn new(
        config: LoadConfig,
        routes: Routes,
        outlets: Vec<Outlet>,
        budget: Arc<Semaphore>,
        tally: Arc<Tally>,
    ) -> Feeder {
        let pace = Pace {
            bytes_per_s: config.rate_bytes_per_s,
            free_at: Instant::now(),
        };
        Feeder {
            config,
            routes,
            outlets,
            budget,
            tally,
            pace,
            only_db: None,
            large: None,
        }
    }

    /// Reads all of `input`; what it read before an error is sent.
    pub(super) fn feed(mut self, input: &mut impl Read, meter: &Meter) -> Result<(), LoadError> {
        // What a target would be told by commands is never held whole here either.
        let limits = ScannerLimits {
            whole_bytes_max: LARGE_VALUE_BYTES,
            ..ScannerLimits::default()
        };
        let scanned = scan(input, limits, meter, &mut |record| self.record(record));
        if let Some(large) = self.large.take() {
            let before = self
                .outlets
                .get(large.at)
                .map_or(0, |outlet| outlet.batch.replies.len());
            self.abandon(large, before);
        }
        let rest = (0..self.outlets.len()).try_for_each(|at| self.flush(at));
        self.tally.rare().keys_read = meter.keys();
        match scanned {
            Ok(_) => {}
            Err(Stopped::File(error)) => return Err(error.into()),
            Err(Stopped::Taker(Stop::Error(error))) => return Err(error),
            Err(Stopped::Taker(Stop::LaneGone)) => return Ok(()),
        }
        match rest {
            Ok(()) | Err(Stop::LaneGone) => Ok(()),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        match record {
            Record::Key(key) => self.key(key),
            Record::LargeKey(key) => self.large(key),
            Record::Part(part) => self.part(part),
            Record::Function(source) => self.library(source),
            // Servers up to 6.2 hand their cached scripts to replicas so.
            Record::Aux { key, value } if &**key == b"lua" => self.script(value),
            Record::ModuleAux(_) => {
                self.tally.rare().module_records += 1;
                Ok(())
            }
            Record::Header(_)
            | Record::Aux { .. }
            | Record::SelectDb(_)
            | Record::ResizeDb { .. }
            | Record::SlotInfo { .. }
            | Record::SlotImport { .. }
            | Record::HashTemplate { .. }
            | Record::End { .. } => Ok(()),
        }
    }

    /// The outlet and database of a key that is to be sent; makes the outlet ready for it.
    fn place(&mut self, key: &KeyFacts<'_>) -> Result<Option<(usize, u32)>, Stop> {
        if !self
            .config
            .selection
            .wants(key.db, key.key, key.type_id.kind())
        {
            self.tally.rare().unwanted += 1;
            return Ok(None);
        }
        if key.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms()) {
            self.tally.rare().expired += 1;
            return Ok(None);
        }
        let db = self.database(key.db)?;
        let at = self.routes.server(key.key);
        self.make_current(at, db)?;
        Ok(Some((at, db)))
    }

    fn key(&mut self, record: &KeyRecord<'_>) -> Result<(), Stop> {
        let facts = KeyFacts::from(record);
        let Some((at, db)) = self.place(&facts)? else {
            return Ok(());
        };
        let Some(outlet) = self.outlets.get_mut(at) else {
            return Ok(());
        };
        let before = outlet.batch.replies.len();
        let mut requests = Requests {
            bytes: &mut outlet.batch.bytes,
            replies: &mut outlet.batch.replies,
        };
        let head = head(&facts);
        match outlet.restorer.whole(&mut requests, &head, &record.value) {
            Ok(outcome) if outcome.how == How::Empty => self.tally.rare().empty += 1,
            Ok(outcome) => outlet.batch.add_key(facts.key, before, outcome.lost),
            Err(error) => cannot(&self.tally, outlet, facts.key, db, &error),
        }
        self.flush_full(at)
    }

    fn large(&mut self, record: &LargeKey<'_>) -> Result<(), Stop> {
        let facts = KeyFacts::from(record);
        let Some((at, db)) = self.place(&facts)? else {
            return Ok(());
        };
        let Some(outlet) = self.outlets.get_mut(at) else {
            return Ok(());
        };
        match outlet.restorer.begin(&head(&facts), record.type_id) {
            Ok(value) => self.large = Some(Large { at, db, value }),
            Err(error) => cannot(&self.tally, outlet, facts.key, db, &error),
        }
        Ok(())
    }

    /// More of a large value; nothing if it is not sent.
    fn part(&mut self, part: &ValuePart<'_>) -> Result<(), Stop> {
        let Some(mut large) = self.large.take() else {
            return Ok(());
        };
        let at = large.at;
        self.make_current(at, large.db)?;
        let Some(outlet) = self.outlets.get_mut(at) else {
            return Ok(());
        };
        let before = outlet.batch.replies.len();
        let mut requests = Requests {
            bytes: &mut outlet.batch.bytes,
            replies: &mut outlet.batch.replies,
        };
        let added = large
            .value
            .part(&mut outlet.restorer, &mut requests, part.bytes, part.last);
        match added {
            Ok(None) => {
                let temporary = Bytes::copy_from_slice(large.value.temporary());
                outlet.batch.add(before, What::Part(temporary));
                self.large = Some(large);
            }
            Ok(Some(outcome)) if outcome.how == How::Empty => {
                outlet.batch.add(before, What::Abandoned);
                self.tally.rare().empty += 1;
            }
            Ok(Some(outcome)) => {
                let key = large.value.key();
                outlet.batch.add_key(key, before, outcome.lost);
            }
            Err(error) => {
                cannot(&self.tally, outlet, large.value.key(), large.db, &error);
                self.abandon(large, before);
            }
        }
        self.flush_full(at)
    }

    /// Removes what was built of a value that cannot become whole.
    fn abandon(&mut self, large: Large, requests_before: usize) {
        if let Some(outlet) = self.outlets.get_mut(large.at) {
            large.value.abandon(&mut Requests {
                bytes: &mut outlet.batch.bytes,
                replies: &mut outlet.batch.replies,
            });
            outlet.batch.db = Some(large.db);
            outlet.batch.add(requests_before, What::Abandoned);
        }
    }

    /// The target's database for keys of the file's `db`.
    fn database(&mut self, db: u32) -> Result<u32, Stop> {
        let Some(chosen) = self.config.database else {
            return Ok(db);
        };
        match *self.only_db.get_or_insert(db) {
            first if first != db => Err(Stop::Error(LoadError::SeveralDatabases {
                first,
                second: db,
            })),
            _ => Ok(chosen),
        }
    }

    fn library(&mut self, source: &[u8]) -> Result<(), Stop> {
        let name = library_name(source);
        for at in 0..self.outlets.len() {
            let Some(outlet) = self.outlets.get_mut(at) else {
                continue;
            };
            if outlet.restorer.dialect().has_functions() {
                let args: [&[u8]; 4] = [b"FUNCTION", b"LOAD", b"REPLACE", source];
                outlet.command(&args, What::Library(name.clone()));
                self.flush_full(at)?;
            } else {
                self.tally.not_loaded(NotLoaded {
                    what: "function library",
                    db: None,
                    name: name.clone(),
                    target: outlet.address.clone(),
                    why: "the target has no functions".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn script(&mut self, source: &[u8]) -> Result<(), Stop> {
        for at in 0..self.outlets.len() {
            if let Some(outlet) = self.outlets.get_mut(at) {
                outlet.command(&[b"SCRIPT", b"LOAD", source], What::Script);
            }
            self.flush_full(at)?;
        }
        Ok(())
    }

    /// Hands the batch over if it belongs to another database.
    fn make_current(&mut self, at: usize, db: u32) -> Result<(), Stop> {
        let other = |outlet: &Outlet| outlet.batch.db.is_some_and(|known| known != db);
        if self.outlets.get(at).is_some_and(other) {
            self.flush(at)?;
        }
        if let Some(outlet) = self.outlets.get_mut(at) {
            outlet.batch.db = Some(db);
        }
        Ok(())
    }

    fn flush_full(&mut self, at: usize) -> Result<(), Stop> {
        let full = |outlet: &Outlet| {
            let batch = &outlet.batch;
            batch.bytes.len() >= BATCH_BYTES || batch.replies.len() >= BATCH_REQUESTS_MAX
        };
        if self.outlets.get(at).is_some_and(full) {
            self.flush(at)?;
        }
        Ok(())
    }

    fn flush(&mut self, at: usize) -> Result<(), Stop> {
        let Some(outlet) = self.outlets.get_mut(at) else {
            return Ok(());
        };
        let mut batch = std::mem::take(&mut outlet.batch);
        if batch.ops.is_empty() {
            return Ok(());
        }
        let bytes = batch.bytes.len();
        self.tally.rare().bytes += bytes as u64;
        self.pace.wait(bytes);
        // A batch larger than the whole budget passes alone.
        let share = u32::try_from(bytes.min(BUDGET_BYTES)).unwrap_or(u32::MAX);
        let budget = Arc::clone(&self.budget);
        // Lanes that end give their shares back, so this cannot wait for ever.
        batch.share = Handle::current()
            .block_on(budget.acquire_many_owned(share))
            .ok();
        outlet
            .sender
            .blocking_send(batch)
            .map_err(|_| Stop::LaneGone)
    }
}

fn head<'a>(key: &KeyFacts<'a>) -> KeyHead<'a> {
    KeyHead {
        key: key.key,
        expires_at_ms: key.expires_at_ms,
        idle_s: key.idle_s,
        freq: key.freq,
        metadata: key.metadata,
    }
}

/// Notes a key that its target cannot hold.
fn cannot(tally: &Tally, outlet: &Outlet, key: &[u8], db: u32, error: &CannotRestore) {
    tally.not_loaded(NotLoaded {
        what: "key",
        db: Some(db),
        name: shown(key),
        target: outlet.address.clone(),
        why: error.to_string(),
    });
}

impl Outlet {
    fn command(&mut self, args: &[&[u8]], what: What) {
        let before = self.batch.replies.len();
        write_command(&mut self.batch.bytes, args);
        self.batch.replies.push(Reply::Accepted);
        self.batch.add(before, what);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// A schedule: each batch moves the moment at which the next may start, so a
/// pause is never made up for by a burst.
struct Pace {
    bytes_per_s: Option<u64>,
    free_at: Instant,
}

impl Pace {
    fn wait(&mut self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else { return };
        let now = Instant::now();
        let start = self.free_at.max(now);
        self.free_at = start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        std::thread::sleep(start - now);
    }
}
