//! What becomes of those who write round the proxies.
//!
//! ```text
//! before the switch  shown in the status; the switch is refused
//! after it           journal, report, status and log: what they write is lost
//! ```

use super::Runner;
use crate::reshard::bypass::{Bypass, RECENT_S};
use crate::reshard::clock::now_ms;
use crate::reshard::job_error::JobError;
use crate::reshard::lookout::Lookout;
use crate::reshard::record::Record;
use crate::reshard::state::JobState;

/// How many are kept in the journal.
const RECORDED_MAX: usize = 100;

impl Runner {
    /// Begins to look, where users tell who is who.
    pub(super) fn look_out(&mut self) {
        if !self.lookout.is_begun() {
            self.lookout = Lookout::begin(self.fences.watched(), &self.upstream);
        }
    }

    /// For the status of a job that has not switched.
    pub(super) fn going_round(&self) -> Vec<String> {
        match self.log.state() {
            JobState::Switched { .. } | JobState::Switching(_) => Vec::new(),
            state if state.is_over() => Vec::new(),
            _ => {
                let since_s = (now_ms() / 1_000).saturating_sub(RECENT_S);
                let writers = self.lookout.writers(since_s);
                writers.iter().map(ToString::to_string).collect()
            }
        }
    }

    /// After a look at a switched job: who wrote since the switch. The second in which
    /// it was made is that of its own look.
    pub(in crate::reshard) fn note_bypass(&mut self) -> Result<(), JobError> {
        let JobState::Switched { at_ms, .. } = self.log.state() else {
            return Ok(());
        };
        let writers = self.lookout.writers(at_ms / 1_000);
        let writers = self.without_late(writers);
        self.record_bypass(&writers)
    }

    /// Each connection once.
    pub(super) fn record_bypass(&mut self, writers: &[Bypass]) -> Result<(), JobError> {
        let mut known = Vec::new();
        for record in &self.log.history().records {
            if let Record::BypassSeen { writers, .. } = record {
                known.extend(writers.iter());
            }
        }
        let is_new = |bypass: &&Bypass| {
            let who = bypass.who();
            !known.iter().any(|known| known.starts_with(&who))
        };
        let room = RECORDED_MAX.saturating_sub(known.len());
        let new = writers.iter().filter(is_new).take(room);
        let writers: Vec<String> = new.map(ToString::to_string).collect();
        if writers.is_empty() {
            return Ok(());
        }
        for writer in &writers {
            tracing::error!(
                writer,
                "wrote to a shard that keys left, round the proxies: what came after the switch is only there"
            );
        }
        let at_ms = now_ms();
        self.record(Record::BypassSeen { at_ms, writers })
    }
}
