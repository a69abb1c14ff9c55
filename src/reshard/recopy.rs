//! A source whose stream was lost for good is copied anew by the mover, alone.
//! The job goes back to copying then, and what was verified counts no more.
//!
//! ```text
//! following, verified --restarted--> copying --followed closely--> following, to be verified
//! ```
//!
//! Invariant: `restarts_recorded` is what the journal knows; a clean verify
//! carries the number it was made at, and a switch fails at any other.

use std::time::Duration;

use super::clock::now_ms;
use super::job::SHORTFALLS;
use super::job_error::JobError;
use super::mover::{MoveError, MoverProgress, Short, VerifyOptions, VerifyReport};
use super::moving::{Moving, copied};
use super::record::Record;
use super::run::Runner;
use super::serve::Stage;

/// Verifies that may fail one after the other because a source was out of reach.
const VERIFY_TRIES_MAX: u32 = 30;
/// Unheld keys that an error shows.
const EXAMPLES_MAX: usize = 10;
/// Pause before the next of them.
const VERIFY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a job that waits must not sleep through.
#[derive(Debug)]
pub(super) enum Disturbed {
    /// The mover is done for.
    Failed(MoveError),
    /// A source is being copied anew.
    Restarted,
    /// Canaries found keys that differ, this many by now.
    Differs(u64),
}

/// Resolves when the mover failed, more sources restarted than `restarts`, or more
/// canaries differed than `canaries`.
pub(super) async fn disturbed<M: Moving>(moving: &M, restarts: u64, canaries: u64) -> Disturbed {
    let mut progress = moving.progress();
    let seen = async {
        let what = |seen: &MoverProgress| match seen.canary_differences() {
            _ if seen.restarts() != restarts => Some(Disturbed::Restarted),
            differing if differing > canaries => Some(Disturbed::Differs(differing)),
            _ => None,
        };
        let found = progress.wait_for(|seen| what(seen).is_some()).await;
        match found.map(|seen| what(&seen)) {
            Ok(found) => found,
            // The mover is ending: its failure tells.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        error = moving.failed() => Disturbed::Failed(error),
        seen = seen => seen.unwrap_or(Disturbed::Restarted),
    }
}

impl Runner {
    /// Sources copied anew so far.
    pub(super) fn restarts(&self) -> u64 {
        let progress = self.progress.as_ref();
        progress.map_or(0, |seen| seen.borrow().restarts())
    }

    /// Puts down that everything is followed, with what was copied for it.
    pub(super) fn record_following(&mut self) -> Result<(), JobError> {
        let progress = self.progress.as_ref().map(|seen| seen.borrow().clone());
        let progress = progress.unwrap_or_default();
        self.restarts_recorded = progress.restarts();
        self.record(Record::FollowingBegan {
            at_ms: now_ms(),
            copied: copied(&progress),
        })
    }

    /// Waits until every source is followed again, sources that restarted included.
    pub(super) async fn copy_again<M: Moving>(&mut self, moving: &M) -> Result<(), JobError> {
        while self.restarts() != self.restarts_recorded {
            let restarted = self.restarted();
            tracing::warn!(source = %restarted, "its stream was lost: it is copied anew");
            self.record(Record::SourceRestarted {
                at_ms: now_ms(),
                source: restarted,
            })?;
            self.clean = None;
            self.say("copying a source anew, whose stream was lost");
            let following = moving.wait_following();
            self.within(Stage::Copying, following).await??;
            self.record_following()?;
        }
        Ok(())
    }

    /// Keys that their targets cannot hold would be missed by clients.
    pub(super) fn check_all_held(&self) -> Result<(), JobError> {
        let Some(progress) = self.progress.as_ref() else {
            return Ok(());
        };
        let seen = progress.borrow();
        let sources = seen.sources.iter();
        let count = sources.clone().map(|row| row.shortfalls.cannot_hold).sum();
        if count == 0 {
            return Ok(());
        }
        let examples = sources.flat_map(|row| &row.shortfalls.examples);
        let examples = examples.filter(|example| example.short == Short::CannotHold);
        Err(JobError::Unheld {
            count,
            file: SHORTFALLS.to_owned(),
            examples: examples
                .take(EXAMPLES_MAX)
                .map(|example| format!("  {example}"))
                .collect(),
        })
    }

    /// The sources that were copied anew, in words.
    fn restarted(&self) -> String {
        let Some(progress) = self.progress.as_ref() else {
            return String::new();
        };
        let seen = progress.borrow();
        let restarted = seen.sources.iter().filter(|row| row.restarts > 0);
        let names: Vec<String> = restarted.map(|row| row.source.to_string()).collect();
        names.join(", ")
    }

    /// Compares every moving key; again if a source was out of reach or began
    /// anew meanwhile. The report, and the restarts it was made at.
    pub(super) async fn compare<M: Moving>(
        &mut self,
        moving: &M,
    ) -> Result<(VerifyReport, u64), JobError> {
        let mut tries = 0;
        loop {
            self.copy_again(moving).await?;
            self.check_all_held()?;
            self.say("verifying every moving key");
            let restarts = self.restarts();
            let verifying = moving.verify(VerifyOptions::default());
            let error = match self.within(Stage::Verifying, verifying).await? {
                Ok(report) if self.restarts() == restarts => return Ok((report, restarts)),
                Ok(_) => continue,
                Err(error) => error,
            };
            tries += 1;
            if !error.is_of_a_moment() || tries >= VERIFY_TRIES_MAX {
                return Err(error.into());
            }
            tracing::warn!(%error, "the verify is begun again");
            let pause = async {
                tokio::select! {
                    failure = moving.failed() => Err(failure),
                    () = tokio::time::sleep(VERIFY_AGAIN_AFTER) => Ok(()),
                }
            };
            self.within(Stage::Verifying, pause).await??;
        }
    }
}
