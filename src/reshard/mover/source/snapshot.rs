//! Keys of the snapshot: which go, to whom, and what cannot.
//!
//! ```text
//! whole      place -> had it expired? -> guard -> restorer -> lane
//! in parts   the same for its head, then each part as it comes:
//!            Building  by commands, under a temporary name
//!            Passed    nobody's here, expired, or not to be held by its target
//! ```

use bytes::Bytes;

use crate::rdb::{DecodeError, Lost, ValueType};
use crate::replication::{LargeKeyHead, SnapshotRecord};
use crate::restore::{CannotRestore, How, KeyHead, LargeValue, Outcome};

use super::super::error::MoveError;
use super::super::placement::{Place, TargetIndex};
use super::super::shortfall::{Short, Shortfall};
use super::{Source, unix_ms};

/// A key that was over this long before its source wrote the time into the
/// snapshot had expired when the snapshot was taken, at the latest: the process
/// that writes it may begin that much later.
const EXPIRED_MARGIN_MS: i64 = 5_000;

/// A value that comes in parts.
#[derive(Debug, Default)]
pub(super) enum Large {
    /// None does.
    #[default]
    None,
    /// Its parts are dropped.
    Passed,
    /// Each part becomes commands.
    Building(Box<Building>),
}

/// A value being built.
#[derive(Debug)]
pub(super) struct Building {
    db: u32,
    key: Bytes,
    target: TargetIndex,
    value: LargeValue,
}

impl Source {
    pub(super) async fn on_record(&mut self, record: &SnapshotRecord) -> Result<(), MoveError> {
        self.scanned += 1;
        self.copy_record(record).await
    }

    /// The same for one that is counted already.
    pub(super) async fn copy_record(&mut self, record: &SnapshotRecord) -> Result<(), MoveError> {
        let Some((target, ends)) = self.destination(record.db, &record.key, record.expires_at_ms)
        else {
            return Ok(());
        };
        self.note_fields((record.db, &record.key), record.type_id, &record.value);
        let head = KeyHead {
            key: &record.key,
            expires_at_ms: ends,
            idle_s: record.idle_s,
            freq: record.freq,
            metadata: record.metadata.as_deref(),
        };
        let queue = self.queue(target)?;
        let pushed = queue.push_key(record.db, &record.key, &head, &record.raw_value());
        self.take_outcome(pushed, target, (record.db, &record.key))?;
        self.flush_if_full(target).await
    }

    /// Where a key goes and when it is to end there; `None` if it goes nowhere.
    fn destination(
        &mut self,
        db: u32,
        key: &Bytes,
        expires_at_ms: Option<i64>,
    ) -> Option<(TargetIndex, Option<i64>)> {
        let Place::Moves(target) = self.parts.placement.place(self.parts.index, db, key) else {
            return None;
        };
        if self.had_expired(expires_at_ms) {
            self.expired += 1;
            return None;
        }
        let guard = &mut self.guard;
        let ends = guard.time_of((db, key), target, expires_at_ms, unix_ms());
        Some((target, ends))
    }

    /// Fields of a hash end on its target by themselves.
    pub(super) fn note_fields(&mut self, (db, key): (u32, &[u8]), kind: ValueType, value: &[u8]) {
        if let Some(at_ms) = first_field_ends_at_ms(kind, value) {
            self.guard.fields_end(db, key, at_ms);
        }
    }

    /// Counts a key that was handed over, or says what it falls short of.
    fn take_outcome(
        &mut self,
        outcome: Result<Outcome, CannotRestore>,
        target: TargetIndex,
        (db, key): (u32, &Bytes),
    ) -> Result<(), MoveError> {
        let (short, what) = match outcome {
            Ok(Outcome { how, lost }) => {
                self.sent += u64::from(how != How::Empty);
                self.by_commands += u64::from(how == How::Commands);
                if lost.is_empty() {
                    return Ok(());
                }
                (Short::Loses, in_words(lost))
            }
            Err(CannotRestore::Malformed(cause)) => return Err(self.malformed(db, key, cause)),
            Err(beyond) => (Short::CannotHold, beyond.to_string()),
        };
        self.add_shortfall(short, target, (db, key), what);
        Ok(())
    }

    /// A key whose value comes in parts.
    pub(super) fn on_large_key(&mut self, head: &LargeKeyHead) -> Result<(), MoveError> {
        self.scanned += 1;
        let destination = self.destination(head.db, &head.key, head.expires_at_ms);
        let Some((target, ends)) = destination else {
            self.large = Large::Passed;
            return Ok(());
        };
        self.note_fields((head.db, &head.key), head.type_id, &[]);
        let key_head = KeyHead {
            key: &head.key,
            expires_at_ms: ends,
            idle_s: head.idle_s,
            freq: head.freq,
            metadata: head.metadata.as_deref(),
        };
        let begun = self.queue(target)?.begin_large(&key_head, head.type_id);
        match begun {
            Ok(value) => {
                let (db, key) = (head.db, head.key.clone());
                let building = Building {
                    db,
                    key,
                    target,
                    value,
                };
                self.large = Large::Building(Box::new(building));
                Ok(())
            }
            Err(error) => {
                self.large = Large::Passed;
                self.take_outcome(Err(error), target, (head.db, &head.key))
            }
        }
    }

    /// More of the value under way.
    pub(super) async fn on_part(&mut self, bytes: &[u8], last: bool) -> Result<(), MoveError> {
        let target = match std::mem::take(&mut self.large) {
            Large::None | Large::Passed => {
                if !last {
                    self.large = Large::Passed;
                }
                return Ok(());
            }
            Large::Building(building) => self.build(building, bytes, last)?,
        };
        self.flush_if_full(target).await
    }

    fn build(
        &mut self,
        building: Box<Building>,
        bytes: &[u8],
        last: bool,
    ) -> Result<TargetIndex, MoveError> {
        let Building {
            db,
            key,
            target,
            mut value,
        } = *building;
        let queue = self.queue(target)?;
        let outcome = match queue.add_to_large(db, &key, &mut value, (bytes, last)) {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => {
                let building = Building {
                    db,
                    key,
                    target,
                    value,
                };
                self.large = Large::Building(Box::new(building));
                return Ok(target);
            }
            Err(error) => {
                queue.abandon_large(db, &key, value);
                if !last {
                    self.large = Large::Passed;
                }
                Err(error)
            }
        };
        self.take_outcome(outcome, target, (db, &key))?;
        Ok(target)
    }

    /// What a run of parts left unfinished is void with its snapshot.
    pub(super) fn abandon_large(&mut self) -> Result<(), MoveError> {
        if let Large::Building(building) = std::mem::take(&mut self.large) {
            let Building {
                db,
                key,
                target,
                value,
            } = *building;
            self.queue(target)?.abandon_large(db, &key, value);
        }
        Ok(())
    }

    pub(super) fn malformed(&self, db: u32, key: &[u8], cause: DecodeError) -> MoveError {
        MoveError::Malformed {
            source_server: self.parts.address.clone(),
            db,
            key: key.to_vec(),
            cause,
        }
    }

    /// Whether a key was gone for its clients before the snapshot was taken.
    fn had_expired(&self, expires_at_ms: Option<i64>) -> bool {
        match (expires_at_ms, self.snapshot_at_ms) {
            (Some(at), Some(taken)) => at < taken.saturating_sub(EXPIRED_MARGIN_MS),
            _ => false,
        }
    }

    pub(super) fn add_shortfall(
        &self,
        short: Short,
        target: TargetIndex,
        at: (u32, &[u8]),
        what: String,
    ) {
        let Some(server) = self.parts.placement.targets().get(target.0) else {
            return;
        };
        self.parts.shortfalls.add(Shortfall {
            short,
            source: self.parts.address.clone(),
            target: server.clone(),
            db: at.0,
            key: at.1.to_vec(),
            what,
        });
    }
}

/// When the first field of a hash with field expiry ends, Unix time in ms; long
/// ago where its layout does not say it first.
fn first_field_ends_at_ms(kind: ValueType, value: &[u8]) -> Option<i64> {
    match kind {
        ValueType::HashMetadata | ValueType::HashListpackEx => {
            let first = value.first_chunk::<8>();
            Some(first.map_or(0, |bytes| i64::from_le_bytes(*bytes)))
        }
        ValueType::HashMetadataPreGa | ValueType::HashListpackExPreGa | ValueType::HashValkey2 => {
            Some(0)
        }
        _ => None,
    }
}

/// What a value had to be brought without.
pub(super) fn in_words(lost: Lost) -> String {
    let words: Vec<String> = lost.iter().map(|loss| loss.to_string()).collect();
    words.join(", ")
}
