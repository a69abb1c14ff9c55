//! Why a job's command ended short of its goal, and which exit code that is.

use std::path::PathBuf;

use super::control::ControlError;
use super::ending::Ending;
use super::fencing::PostError;
use super::history::RecordError;
use super::logins::LoginsError;
use super::mover::{MoveError, Retry};
use super::proxies::Disagreement;
use super::recovery::RecoveryError;
use super::state_dir::StateDirError;
use super::steps::StepsError;
use super::switching::SwitchError;
use crate::router::layout_error::LayoutError;
use crate::router::moves::MovesError;

/// The end of a job's process that is not "switched".
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The journal, or a record that does not follow.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A layout that the journal has.
    #[error("a layout in the journal cannot be used: {0}")]
    Layout(Box<LayoutError>),
    /// Keys without owners.
    #[error(transparent)]
    Moves(#[from] MovesError),
    /// The directory holds another job that is not over.
    #[error(transparent)]
    OtherJob(Box<OtherJob>),
    /// A way in steps.
    #[error(transparent)]
    Steps(#[from] StepsError),
    /// The proxies.
    #[error("{0}")]
    Proxies(#[from] Disagreement),
    /// The proxies changed since the job was planned.
    #[error(
        "the proxies are at epoch {epoch}{}, but job {job} was planned from epoch {planned_from}: cancel it (`keyferry reshard cancel --yes`) and start again",
        if *.layout_differs { " with another layout" } else { "" }
    )]
    ProxiesMovedOn {
        /// The job.
        job: String,
        /// Where the proxies are.
        epoch: u64,
        /// Where they were.
        planned_from: u64,
        /// Whether the layout differs from the plan's.
        layout_differs: bool,
    },
    /// The job's layout is not the one that proxies route by any more.
    #[error(
        "the proxies are at epoch {epoch}{}, not at epoch {wanted} where job {job} left them: its keys may live where they were by now, so nothing is deleted there; complete a switched job without --purge",
        if *.layout_differs { " with another layout" } else { "" }
    )]
    NotInForce {
        /// The job.
        job: String,
        /// Where the proxies are.
        epoch: u64,
        /// Where the job brought them.
        wanted: u64,
        /// Whether the layout differs from the job's.
        layout_differs: bool,
    },
    /// A switched job whose layout is not in force any more.
    #[error(
        "the proxies are at epoch {epoch}{}, not at epoch {wanted} where job {job} brought them: there is no way back from here; end the job with `keyferry reshard complete --yes`",
        if *.layout_differs { " with another layout" } else { "" }
    )]
    NoWayBack {
        /// The job.
        job: String,
        /// Where the proxies are.
        epoch: u64,
        /// Where the job brought them.
        wanted: u64,
        /// Whether the layout differs from the job's.
        layout_differs: bool,
    },
    /// A purge that had begun was not safe any more.
    #[error("deleting moved keys was stopped midway: {0}")]
    PurgeStopped(Box<JobError>),
    /// The servers, or the proxies, do not allow the fence that was asked for.
    #[error("no fence on the servers: {0}")]
    NoFence(String),
    /// The passwords of the epoch's users.
    #[error(transparent)]
    Logins(#[from] LoginsError),
    /// Clients go round the proxies.
    #[error(
        "connections write to the old shards without going through the proxies, and what they write after the switch would be lost:\n{}\nlet them use a proxy or close them, and switch again a minute after their last write",
        .0.join("\n")
    )]
    Bypass(Vec<String>),
    /// Clients of late proxies wait on an old shard, and would take what is written there.
    #[error(
        "what clients of late proxies wait for on old shards cannot be ended, and they would take what is written there: {0}; let our user CLIENT LIST and CLIENT UNBLOCK"
    )]
    Waits(#[from] PostError),
    /// The interrupted switch could not be finished.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// An interrupted switch is still not confirmed everywhere.
    #[error("{0}; start what is missing, then run the same command again")]
    SwitchUnfinished(String),
    /// The switch's own failure.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The mover.
    #[error("{0}")]
    Move(#[from] MoveError),
    /// Verify found differences.
    #[error(
        "verify: {count} of {compared} keys differ between source and target\n{}",
        examples.join("\n")
    )]
    Differences {
        /// How many.
        count: u64,
        /// Of how many.
        compared: u64,
        /// Some of them, in words.
        examples: Vec<String>,
    },
    /// Targets cannot hold some keys: switched, clients would miss them.
    #[error(
        "{count} keys cannot be held by their targets, all of them in {file}\n{}",
        examples.join("\n")
    )]
    Unheld {
        /// How many.
        count: u64,
        /// Where all of them are named.
        file: String,
        /// Some of them, in words.
        examples: Vec<String>,
    },
    /// All tries of an automatic switch were taken back.
    #[error(
        "the switch was taken back {tries} times, the last time because {why}; clients are on the old route. Run the same command again, with a longer --hold or at a quieter time"
    )]
    SwitchAborted {
        /// How many.
        tries: u32,
        /// The last reason.
        why: String,
    },
    /// SIGINT or SIGTERM.
    #[error("stopped as asked before the switch: run the same command again to resume")]
    Stopped,
    /// SIGINT or SIGTERM after the switch.
    #[error(
        "stopped as asked; the job has switched and stays so, but the old shards are not kept exact any more: run the same command again to take the way back up, or end the job with `keyferry reshard complete --yes`"
    )]
    StoppedSwitched,
    /// `complete` from elsewhere: it goes on where this process ends.
    #[error("`keyferry reshard complete` ends the job")]
    LetGo,
    /// `rollback` after the switch.
    #[error(
        "rolled back: every proxy is on the old layout again, at epoch {epoch}, with everything that was written since the switch"
    )]
    WentBack {
        /// The epoch of the old layout now.
        epoch: u64,
    },
    /// `cancel` or `rollback` before the switch.
    #[error("{how} before the switch: clients never left the old route")]
    Undone {
        /// `cancelled` or `rolled back`.
        how: &'static str,
    },
}

/// What lies in the state directory, and what was asked instead.
#[derive(Debug, thiserror::Error)]
#[error(
    "{dir} holds job {job} of pool {pool} ({state}), which is not what was asked: {what}; {help}"
)]
pub struct OtherJob {
    /// The state directory.
    pub dir: PathBuf,
    /// The job in it.
    pub job: String,
    /// Its pool.
    pub pool: String,
    /// Its state.
    pub state: &'static str,
    /// What differs.
    pub what: String,
    /// What to do.
    pub help: &'static str,
}

impl From<LayoutError> for JobError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(Box::new(error))
    }
}

impl JobError {
    /// How the command ends.
    pub fn ending(&self) -> Ending {
        match self {
            Self::StateDir(StateDirError::AlreadyRuns(_)) => Ending::AlreadyRuns,
            // Nothing was changed yet.
            Self::StateDir(StateDirError::Journal(_) | StateDirError::Contradiction { .. }) => {
                Ending::Guard
            }
            Self::Record(RecordError::Journal(error))
            | Self::Switch(SwitchError::Record(RecordError::Journal(error)))
            | Self::Recovery(RecoveryError::Switch(SwitchError::Record(RecordError::Journal(
                error,
            )))) => {
                if error.is_temporary() {
                    Ending::Temporary
                } else {
                    Ending::Guard
                }
            }
            Self::StateDir(_)
            | Self::Control(_)
            | Self::Record(_)
            | Self::Logins(_)
            | Self::Switch(_) => Ending::Failed,
            Self::Layout(_)
            | Self::OtherJob(_)
            | Self::ProxiesMovedOn { .. }
            | Self::NoFence(_)
            | Self::Bypass(_)
            | Self::Waits(_)
            | Self::NoWayBack { .. }
            | Self::NotInForce { .. } => Ending::Guard,
            // A guard's ending would say that nothing was changed.
            Self::PurgeStopped(why) => match why.ending() {
                Ending::Guard => Ending::Failed,
                ending => ending,
            },
            Self::Moves(_) => Ending::Usage,
            Self::Steps(error) => error.ending(),
            Self::Proxies(disagreement) if disagreement.is_temporary() => Ending::Temporary,
            Self::Proxies(_) => Ending::Guard,
            Self::Recovery(RecoveryError::Unanswered { .. }) | Self::SwitchUnfinished(_) => {
                Ending::Temporary
            }
            Self::Recovery(RecoveryError::Foreign { .. }) => Ending::Guard,
            Self::Recovery(RecoveryError::Switch(_)) => Ending::Failed,
            Self::Move(error) if error.is_refusal() => Ending::Guard,
            Self::Move(error) if error.retry() == Retry::RunAgain => Ending::Temporary,
            Self::Move(_) => Ending::Failed,
            Self::Differences { .. } | Self::Unheld { .. } => Ending::Differences,
            Self::SwitchAborted { .. } | Self::Stopped | Self::StoppedSwitched => Ending::Temporary,
            Self::LetGo => Ending::Done,
            Self::Undone { .. } | Self::WentBack { .. } => Ending::Undone,
        }
    }
}
