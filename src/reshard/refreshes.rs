//! How much was read from sources a second time, and for which commands: put down
//! in the journal, so that the report of a job has it when its process is gone.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::clock::now_ms;
use super::history::History;
use super::job_error::JobError;
use super::mover::{MoverProgress, SourceProgress};
use super::record::Record;
use super::run::Runner;

/// What one source had to be asked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRefreshes {
    /// Its address.
    pub source: String,
    /// Keys that were read again.
    pub keys: u64,
    /// Commands whose keys go to different servers, by name.
    pub spanning: BTreeMap<String, u64>,
}

impl SourceRefreshes {
    fn of(row: &SourceProgress) -> Option<Self> {
        let spanning = row.spanning_commands.iter();
        let spanning: BTreeMap<String, u64> = spanning
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let is_worth_it = row.keys_refreshed > 0 || !spanning.is_empty();
        is_worth_it.then(|| Self {
            source: row.source.to_string(),
            keys: row.keys_refreshed,
            spanning,
        })
    }

    fn of_all(progress: &MoverProgress) -> Vec<Self> {
        progress.sources.iter().filter_map(Self::of).collect()
    }

    /// What two processes had to ask, one after the other, of each source.
    pub fn sum(earlier: &[Self], later: &[Self]) -> Vec<Self> {
        let mut sums = earlier.to_vec();
        for more in later {
            let Some(sum) = sums.iter_mut().find(|sum| sum.source == more.source) else {
                sums.push(more.clone());
                continue;
            };
            sum.keys += more.keys;
            for (name, count) in &more.spanning {
                *sum.spanning.entry(name.clone()).or_default() += count;
            }
        }
        sums
    }
}

impl fmt::Display for SourceRefreshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} keys", self.source, self.keys)?;
        let mut before = "; keys on different servers: ";
        for (name, count) in &self.spanning {
            write!(f, "{before}{} {count}", name.to_uppercase())?;
            before = ", ";
        }
        Ok(())
    }
}

/// What the newest process of a job has put down of it.
fn recorded(history: &History) -> &[SourceRefreshes] {
    let records = history.records.iter().rev();
    let mut of_this = records.take_while(|record| !matches!(record, Record::Started { .. }));
    let found = of_this.find_map(|record| match record {
        Record::Refreshed { sources, .. } => Some(sources.as_slice()),
        _ => None,
    });
    found.unwrap_or_default()
}

impl Runner {
    /// Puts down what was read again so far on the way to the new layout, if there
    /// is anything new.
    pub(super) fn record_refreshes(&mut self) -> Result<(), JobError> {
        let progress = self.progress.as_ref().map(|seen| seen.borrow().clone());
        let sources = SourceRefreshes::of_all(&progress.unwrap_or_default());
        let is_new = !sources.is_empty() && recorded(self.log.history()) != sources;
        if is_new && self.direction.is_forward() && !self.log.state().is_over() {
            let at_ms = now_ms();
            self.record(Record::Refreshed { at_ms, sources })?;
        }
        Ok(())
    }
}
