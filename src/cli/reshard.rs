//! `keyferry reshard`: move a pool's keys to another layout while clients work.
//!
//! ```text
//! plan      what would move; changes nothing
//! start     runs the job in the foreground, until it is switched or completed
//! status watch verify switch pause resume set cancel rollback     ask the running job
//! report complete                                             read or end its journal
//! ```
//! Exit codes: 0 done, 1 failed, 2 usage or config, 3 verify found differences,
//! 4 a guard refused and nothing changed, 5 cancelled or rolled back, 6 a job
//! already runs, 75 temporary: run the same command again.

mod ask;
mod complete;
mod journaled;
mod place;
mod plan;
mod pool;
mod progress;
pub(super) mod quantity;
mod start;
mod steps;

use std::fmt;
use std::future::Future;

use crate::reshard::ending::Ending;
use crate::reshard::job_error::JobError;

use super::exit::ExitStatus;
use super::output::{fail, print_error};

/// Arguments of `keyferry reshard`.
#[derive(Debug, clap::Args)]
pub struct ReshardArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print what would move; changes nothing
    Plan(plan::PlanArgs),
    /// Copy, follow, verify, switch, then keep the old shards exact for a rollback;
    /// resumes an interrupted job
    Start(start::StartArgs),
    /// Print where the job is
    Status(ask::ReadArgs),
    /// Print where the job is, again at every change, until it ends
    Watch(ask::ReadArgs),
    /// Compare every moving key at source and target
    Verify(ask::ReadArgs),
    /// Switch every proxy to the new layout now
    Switch(ask::TellArgs),
    /// Keep the job from switching; copying and following go on
    Pause(ask::TellArgs),
    /// End a pause
    Resume(ask::TellArgs),
    /// Change how fast a running job copies
    Set(ask::SetArgs),
    /// Give the job up before its switch
    Cancel(ask::TellArgs),
    /// Go back to the old layout: before the switch as cancel, after it with
    /// everything that was written since
    Rollback(ask::TellArgs),
    /// Print what the job did
    Report(journaled::ReportArgs),
    /// End a switched job; with --purge delete moved keys from the old shards
    Complete(complete::CompleteArgs),
}

/// Runs `keyferry reshard`.
pub fn run(args: &ReshardArgs) -> ExitStatus {
    match &args.verb {
        Verb::Plan(args) => plan::run(args),
        Verb::Start(args) => start::run(args),
        Verb::Status(args) => ask::status(args),
        Verb::Watch(args) => ask::watch(args),
        Verb::Verify(args) => ask::verify(args),
        Verb::Switch(args) => ask::tell(args, crate::reshard::control::Verb::Switch),
        Verb::Pause(args) => ask::tell(args, crate::reshard::control::Verb::Pause),
        Verb::Resume(args) => ask::tell(args, crate::reshard::control::Verb::Resume),
        Verb::Set(args) => ask::set(args),
        Verb::Cancel(args) => ask::give_up(args, crate::reshard::control::Verb::Cancel),
        Verb::Rollback(args) => ask::give_up(args, crate::reshard::control::Verb::Rollback),
        Verb::Report(args) => journaled::report(args),
        Verb::Complete(args) => complete::run(args),
    }
}

/// An end short of the goal, as it is printed.
#[derive(Debug)]
struct Failure {
    status: ExitStatus,
    text: String,
}

impl Failure {
    /// An error of this command line's own.
    fn new(status: ExitStatus, what: impl fmt::Display, help: &str) -> Self {
        Self {
            status,
            text: format!("error: {what}\n  help: {help}"),
        }
    }

    /// Text that begins with `error:` already.
    fn laid_out(status: ExitStatus, text: impl fmt::Display) -> Self {
        Self {
            status,
            text: text.to_string(),
        }
    }

    fn print(self) -> ExitStatus {
        print_error(&self.text);
        self.status
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self {
            status: status_of(error.ending()),
            text: format!("error: {error}"),
        }
    }
}

fn status_of(ending: Ending) -> ExitStatus {
    match ending {
        Ending::Done => ExitStatus::Done,
        Ending::Failed => ExitStatus::Failed,
        Ending::Usage => ExitStatus::Usage,
        Ending::Differences => ExitStatus::Differences,
        Ending::Guard => ExitStatus::Refused,
        Ending::Undone => ExitStatus::RolledBack,
        Ending::AlreadyRuns => ExitStatus::AlreadyRuns,
        Ending::Temporary => ExitStatus::TryAgain,
    }
}

/// Runs `work` on a runtime of its own; every exit code comes from `work`.
fn block_on(work: impl Future<Output = Result<ExitStatus, Failure>>) -> ExitStatus {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            fail(
                &format!("cannot start threads: {error}"),
                "check this user's limits on threads and files",
            );
            return ExitStatus::Failed;
        }
    };
    let ended = runtime.block_on(Box::pin(work));
    // Look-ups of names may be under way; nobody waits for them any more.
    runtime.shutdown_background();
    ended.unwrap_or_else(Failure::print)
}
