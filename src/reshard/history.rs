//! A job as its journal tells it: what it is to do, where it is, what happened.
//!
//! Invariant: every record was a legal step; a journal with an illegal one is
//! refused, since it was not written by this program.

use super::fence::FenceLevel;
use super::fence::min_replicas::KeptSettings;
use super::journal::{Journal, JournalError, Medium};
use super::record::{PlannedJob, Record, StreamPosition};
use super::state::{Back, JobState, Misstep};
use crate::router::spec::LayoutSpec;

/// A replayed journal.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// What the job is to do.
    pub planned: PlannedJob,
    /// Where it is.
    pub state: JobState,
    /// The highest incarnation that spoke to proxies; 0 before the first.
    pub incarnation: u64,
    /// Every record, oldest first.
    pub records: Vec<Record>,
}

impl History {
    /// Replays records; `None` for an empty journal.
    ///
    /// # Errors
    /// [`Misstep`] when the records do not follow from each other.
    pub fn replay(records: Vec<Record>) -> Result<Option<Self>, Misstep> {
        let Some(first) = records.first() else {
            return Ok(None);
        };
        let mut state = JobState::first(first)?;
        let Record::Planned { job, .. } = first else {
            return Ok(None);
        };
        let planned = job.clone();
        let mut incarnation = 0;
        for record in records.iter().skip(1) {
            state = state.step(record)?;
            incarnation = incarnation.max(incarnation_of(record));
        }
        Ok(Some(Self {
            planned,
            state,
            incarnation,
            records,
        }))
    }

    /// A job that is planned and nothing else.
    pub fn of_plan(planned: PlannedJob, at_ms: u64) -> Self {
        let record = Record::Planned {
            at_ms,
            job: planned.clone(),
        };
        Self {
            planned,
            state: JobState::Planned {
                copied_before: false,
            },
            incarnation: 0,
            records: vec![record],
        }
    }

    /// The fence of the last switch that was intended.
    pub fn last_fence(&self) -> FenceLevel {
        let mut records = self.records.iter().rev();
        let found = records.find_map(|record| match record {
            Record::SwitchIntended { fence, .. } => Some(*fence),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// What old shards are to be set to again, as the last intent has it.
    pub fn kept_settings(&self) -> &[KeptSettings] {
        let mut records = self.records.iter().rev();
        let found = records.find_map(|record| match record {
            Record::SwitchIntended { settings, .. } => Some(settings.as_slice()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// Whether proxies were ever asked to switch.
    pub fn was_tried(&self) -> bool {
        let mut records = self.records.iter();
        records.any(|record| matches!(record, Record::SwitchIntended { .. }))
    }

    /// Where every proxy is to be: the epoch before the job, the one it brought, or
    /// the one that took it back.
    pub fn epoch_in_force(&self) -> u64 {
        let commits = self.records.iter();
        let commits = commits.filter(|record| matches!(record, Record::SwitchCommitted { .. }));
        self.planned.epoch.saturating_sub(1) + commits.count() as u64
    }

    /// Whether what the targets hold may be gone on with, where their checkpoints
    /// say so: not after an error or a difference, which only a new copy heals.
    pub fn may_go_on(&self) -> bool {
        let judged = self.records.iter().rev().find_map(|record| match record {
            Record::Failed { .. } | Record::VerifyDiffered { .. } => Some(false),
            Record::CopyingBegan { .. } | Record::Verified { .. } => Some(true),
            _ => None,
        });
        judged.unwrap_or(false) && self.state.copied_before()
    }

    /// Whether the job was taken back and the new shards still hold what it copied,
    /// and nobody else's keys that would have moved there.
    pub fn leaves_copies(&self) -> bool {
        let is_taken_back = matches!(self.state, JobState::RolledBack | JobState::Cancelled);
        let began = self.records.iter().find_map(|record| match record {
            Record::CopyingBegan { beside_others, .. } => Some(!beside_others),
            _ => None,
        });
        let is_gone = |record: &Record| matches!(record, Record::CopiesRemoved { .. });
        is_taken_back && began.unwrap_or(false) && !self.records.iter().any(is_gone)
    }

    /// The epoch and the layout that the job left in force when it ended.
    pub fn in_force(&self) -> (u64, &LayoutSpec) {
        let planned = &self.planned;
        let was_switched = |record: &Record| matches!(record, Record::SwitchCommitted { .. });
        let is_switched = self.records.iter().any(was_switched);
        match (is_switched, &self.state) {
            (true, JobState::RolledBack) => (planned.epoch + 1, &planned.from),
            (true, _) => (planned.epoch, &planned.to),
            (false, _) => (planned.epoch.saturating_sub(1), &planned.from),
        }
    }

    /// When the last record was written, milliseconds since 1970.
    pub fn last_at_ms(&self) -> u64 {
        self.records.last().map_or(0, Record::at_ms)
    }

    /// Where the way back can begin: what was noted with the decision of the switch
    /// that was committed. Empty when that is not known, or when it began before.
    pub fn positions(&self) -> &[StreamPosition] {
        let unbegun = matches!(
            self.state,
            JobState::Switched {
                back: Back::Unbegun,
                ..
            }
        );
        if !unbegun {
            return &[];
        }
        // The last intent's: a try before it was taken back.
        let since = self.records.iter().rev();
        let mut since = since.take_while(|record| !matches!(record, Record::SwitchIntended { .. }));
        since
            .find_map(|record| match record {
                Record::SwitchDecided { positions, .. } => Some(positions.as_slice()),
                _ => None,
            })
            .unwrap_or_default()
    }

    fn step(&mut self, record: &Record) -> Result<(), Misstep> {
        self.state = self.state.clone().step(record)?;
        self.incarnation = self.incarnation.max(incarnation_of(record));
        Ok(())
    }
}

fn incarnation_of(record: &Record) -> u64 {
    match record {
        Record::Started { incarnation, .. } | Record::SwitchIntended { incarnation, .. } => {
            *incarnation
        }
        _ => 0,
    }
}

/// Why a record was not kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It does not follow from the state; a fault of this program.
    #[error(transparent)]
    Misstep(#[from] Misstep),
    /// The journal could not take it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// How safe a record must be before the job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// It survives a power cut.
    Synced,
    /// It survives the end of this process.
    Written,
}

/// A job's history and the journal it is kept in.
#[derive(Debug)]
pub struct JobLog<M = std::fs::File> {
    history: History,
    journal: Journal<M>,
}

impl<M: Medium> JobLog<M> {
    /// Goes on with a replayed journal.
    pub fn new(history: History, journal: Journal<M>) -> Self {
        Self { history, journal }
    }

    /// Begins an empty journal with the plan.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn begin(
        mut journal: Journal<M>,
        job: PlannedJob,
        at_ms: u64,
    ) -> Result<Self, RecordError> {
        let history = History::of_plan(job, at_ms);
        for record in &history.records {
            journal.append_synced(record)?;
        }
        Ok(Self { history, journal })
    }

    /// The job so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Where the job is.
    pub fn state(&self) -> &JobState {
        &self.history.state
    }

    /// Steps the state and keeps the record; on an error the state stays what it was.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn record(&mut self, record: Record, safety: Safety) -> Result<(), RecordError> {
        let mut next = self.history.clone();
        next.step(&record)?;
        match safety {
            Safety::Synced => self.journal.append_synced(&record)?,
            Safety::Written => self.journal.append(&record)?,
        }
        next.records.push(record);
        self.history = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
