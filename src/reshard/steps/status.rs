//! Where a step is on its way, for `status`, `watch` and the status line.

use serde::{Deserialize, Serialize};

use super::Way;
use crate::reshard::record::Copied;
use crate::reshard::status::JobStatus;

/// A step, and what the steps before it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStatus {
    /// Which, from 1.
    pub number: usize,
    /// Of so many.
    pub of: usize,
    /// Name of the old shard whose keys move.
    pub shard: String,
    /// Its address.
    pub addr: String,
    /// What the steps before it copied.
    pub copied_before: Copied,
}

impl StepStatus {
    pub(super) fn of(way: &Way, at: usize, copied_before: Copied) -> Self {
        let step = way.steps.get(at);
        Self {
            number: at + 1,
            of: way.steps.len(),
            shard: step.map(|step| step.shard.clone()).unwrap_or_default(),
            addr: step.map(|step| step.addr.clone()).unwrap_or_default(),
            copied_before,
        }
    }

    /// Whether no other step follows.
    pub fn is_last(&self) -> bool {
        self.number >= self.of
    }

    /// Puts the step into its job's status, and what it means for what is done next.
    pub fn put_into(&self, status: &mut JobStatus) {
        let following = format!("step {} of {}", self.number + 1, self.of);
        let next = match (status.state.as_str(), self.is_last()) {
            ("switched", false) if status.running => {
                let back = match status.way_back.as_deref() {
                    Some("following back") if status.verified_at_ms.is_some() => ", or rollback",
                    _ => "",
                };
                Some(format!(
                    "keyferry reshard complete (ends this step's way back and begins {following}){back}"
                ))
            }
            ("switched", false) => Some(format!(
                "run its `reshard start` command again, or keyferry reshard complete; then {following}"
            )),
            ("completed", false) => Some(format!(
                "run its `reshard start` command again: {following} begins"
            )),
            ("rolled_back" | "cancelled", _) if !status.copies_left => Some(
                "run its `reshard start` command again: this step begins anew; or go back with a job that has the old layout as --to".to_owned(),
            ),
            _ => None,
        };
        if let Some(next) = next {
            status.next = next;
        }
        status.step = Some(self.clone());
    }
}
