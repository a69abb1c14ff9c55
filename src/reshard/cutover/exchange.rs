//! What a switch is told, and what it asks its driver to do.

use crate::reshard::moving::MarkerApplied;

/// A proxy's place in the job's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyIndex(pub usize);

/// What a proxy is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Write the new layout down.
    Stage,
    /// Park requests for moving keys and drain.
    Hold,
    /// Never release on the old route without being told.
    Arm,
    /// Release on the new route.
    Commit,
    /// Release on the old route.
    Abort,
}

/// How long clients waited at one proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Pause {
    /// Requests that were held.
    pub held_requests: u64,
    /// Longest hold, microseconds.
    pub held_us_max: u64,
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallFailure {
    /// The proxy answered that it will not.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer that settles it: it may or may not have been done.
    #[error("not confirmed: {0}")]
    Lost(String),
}

/// Why a switch was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AbortReason {
    /// A proxy did not do its part.
    #[error("proxy {} {}: {failure}", proxy.0, call.name())]
    Proxy {
        /// Which proxy.
        proxy: ProxyIndex,
        /// What it was asked.
        call: Call,
        /// What it answered.
        failure: CallFailure,
    },
    /// The bound on the hold ran out.
    #[error("it took longer than --hold allows ({during})")]
    Deadline {
        /// What was being waited for.
        during: &'static str,
    },
    /// Nobody is left to switch: no proxy answered its stage in time.
    #[error("no proxy answered the stage in time")]
    Nobody,
    /// A source was not fenced.
    #[error("the fence failed: {0}")]
    Fence(String),
    /// The marker did not come through.
    #[error("the marker failed: {0}")]
    Marker(String),
    /// Keys cannot be moved any more.
    #[error("the mover failed: {0}")]
    Mover(String),
    /// The journal took no record.
    #[error("{0}")]
    Journal(String),
    /// The job, its operator or a recovery gave up.
    #[error("{0}")]
    GivenUp(String),
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The journal holds what the last [`Action::Record`] asked for.
    Recorded,
    /// The journal could not take it.
    NotRecorded(String),
    /// A proxy's answer to a call.
    Answered {
        /// Which proxy.
        proxy: ProxyIndex,
        /// What it was asked.
        call: Call,
        /// What came of it; the pause is only meaningful for commits.
        outcome: Result<Pause, CallFailure>,
    },
    /// Every source refuses the old epoch's logins.
    Fenced,
    /// A source could not be fenced, or nobody knows whether it is.
    FenceFailed(String),
    /// No source refuses the old epoch's logins any more.
    Unfenced,
    /// A server keeps the route record.
    RouteKept,
    /// Who has not answered by now is not waited for, see [`Action::StartPatience`].
    PatienceEnded,
    /// Every source's marker is applied at every target.
    Applied(MarkerApplied),
    /// A marker was lost or late.
    MarkerFailed(String),
    /// The mover failed: a target may lack what its source has.
    MoverFailed(String),
    /// `--hold` ran out, counted from [`Action::StartDeadline`].
    Deadline,
    /// Whoever drives the switch wants out, if there still is a way out.
    GiveUp(String),
}

/// What the driver has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Put it in the journal, then report [`Event::Recorded`] or [`Event::NotRecorded`].
    Record(Entry),
    /// Ask a proxy; `attempt` counts from 0 and sets the pause before it.
    Call {
        /// Which proxy.
        proxy: ProxyIndex,
        /// What to ask.
        call: Call,
        /// How often this was asked in vain before.
        attempt: u32,
    },
    /// Start counting `--hold`.
    StartDeadline,
    /// Start counting the patience with this step; it ends with the step.
    StartPatience(Step),
    /// Send a marker through every source.
    PublishMarker,
    /// Fence every source, in one transaction with its marker.
    RaiseFence,
    /// Give the old epoch's logins their rights back on every source, and repeat
    /// it until all are.
    LowerFence,
    /// Write the route record on every server.
    KeepRoute,
}

/// A step that is not waited for without end when the sources are fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Nobody is held yet.
    Staging,
    /// Clients wait at those that answered.
    Holding,
    /// Clients wait.
    Arming,
    /// Clients wait at those that have not answered.
    Committing,
    /// The fence is being lowered, clients wait.
    Unfencing,
    /// Clients wait at those that have not answered.
    Aborting,
}

/// Journal entries that a switch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Synced before the first call.
    Intent,
    /// Written before the first commit; not synced, see `switching.rs`.
    Decision,
}

impl Call {
    /// The call's name in the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Hold => "hold",
            Self::Arm => "arm",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }
}
