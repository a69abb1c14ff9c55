//! What the admin API may ask of a pool: its status, and the steps of a switch.
//!
//! ```text
//!          stage        hold         arm          commit
//!  open --------> open -----> held ------> armed ---------> open, next epoch
//!  (pending)        \          |  lease        |  lease
//!                    \         v               v
//!                     '--> open, old route   fenced --commit | abort--> open
//! ```
//! A commit that says `fenced` is taken in any state: the sources themselves
//! refuse the old epoch's logins then.
//!
//! Every message carries the job, the epoch it wants and the incarnation of
//! the job's process; a message of an older incarnation is refused.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::router::spec::LayoutSpec;

/// As whom to log in on one server: how the servers tell connections of one
/// epoch from those of another, so that they themselves can refuse the old ones.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardLogin {
    /// The server, as the layout has it.
    pub addr: String,
    /// The epoch's user there.
    pub user: String,
    /// Its password; never printed.
    pub password: String,
}

impl fmt::Debug for ShardLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.addr)
    }
}

/// Tells a proxy that a job works on the pool: until the lease ends, no other
/// job may, and a reload may not change the layout. Kept in memory only; the
/// job repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobAnnounce {
    /// The job.
    pub job: String,
    /// Which start of the job speaks.
    pub incarnation: u64,
    /// How long this holds without being repeated; 0: the job is over.
    pub lease_ms: u64,
    /// From now on connections to these servers log in as this; answered when
    /// every connection has. An empty list: back to the configured credentials;
    /// none: no change. Kept on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logins: Option<Vec<ShardLogin>>,
}

/// Asks a proxy to write down that a switch to `to` is coming.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchStage {
    /// Whose switch this is.
    pub job: String,
    /// The epoch of the new layout: one above the pool's.
    pub epoch: u64,
    /// Which start of the job asks; grows with every restart.
    pub incarnation: u64,
    /// Fingerprint of the layout the job believes is in use.
    pub from_fingerprint: u64,
    /// The new layout.
    pub to: LayoutSpec,
    /// Logins of the coming epoch, for servers of the new layout: in use from the
    /// hold on, and for good with the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<ShardLogin>,
}

/// Asks that requests for moving keys wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchHold {
    /// Whose switch this is.
    pub job: String,
    /// The epoch of the new layout.
    pub epoch: u64,
    /// Which start of the job asks.
    pub incarnation: u64,
    /// After this time the pool opens on the old route by itself.
    pub lease_ms: u64,
}

/// Asks that the hold does not end on the old route by itself any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchArm {
    /// Whose switch this is.
    pub job: String,
    /// The epoch of the new layout.
    pub epoch: u64,
    /// Which start of the job asks.
    pub incarnation: u64,
    /// After this time the gate is fenced until commit or abort.
    pub lease_ms: u64,
}

/// Asks for the new layout to be used from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchCommit {
    /// Whose switch this is.
    pub job: String,
    /// The epoch of the new layout.
    pub epoch: u64,
    /// Which start of the job asks.
    pub incarnation: u64,
    /// The sources refuse the logins of the old epoch, so that nothing was
    /// executed on the old route since: the commit is good in whatever state the
    /// proxy is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fenced: bool,
    /// The new layout, for a proxy that does not know the switch (it was away
    /// when it was staged); only with `fenced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<LayoutSpec>,
    /// The new epoch's logins; those of the stage if there are none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<ShardLogin>,
}

/// Asks for the old layout to stay and the switch to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchAbort {
    /// Whose switch this is.
    pub job: String,
    /// The epoch of the layout that shall not come.
    pub epoch: u64,
    /// Which start of the job asks.
    pub incarnation: u64,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReport {
    /// Requests that waited for this switch.
    pub held_requests: u64,
    /// The longest wait among them, in microseconds.
    pub held_us_max: u64,
}

/// Why a step of a switch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// A later start of the same job has already spoken.
    StaleIncarnation,
    /// The epoch is not the one above the pool's.
    WrongEpoch,
    /// The pool's layout is not the one the job believes.
    LayoutDiffers,
    /// The step needs a hold, and there is none.
    NotHeld,
    /// A switch of another job is pending.
    OtherJob,
    /// The new layout is no layout.
    BadLayout,
    /// In-flight requests were not answered within the lease.
    NotDrained,
    /// The state could not be written to disk.
    StateNotWritten,
    /// The proxy is shutting down.
    Stopping,
    /// A shard is ejected: what is written to its keys goes to others.
    ShardEjected,
    /// A server refused one of the logins, or did not answer in time: all
    /// connections are logged in as before.
    LoginRefused,
}

/// A refused step; the pool is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct SwitchRefusal {
    /// For programs.
    pub reason: RefusalReason,
    /// For people: what, where, what to do.
    pub error: String,
}

/// One pool as `GET /api/v1/pools` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name of the pool.
    pub name: String,
    /// Number of the layout in use.
    pub epoch: u64,
    /// The layout in use.
    pub layout: LayoutSpec,
    /// What becomes of requests for moving keys.
    pub gate: GateStatus,
    /// The switch that was staged and is not decided.
    pub pending: Option<PendingSwitch>,
    /// The job whose commit brought this epoch, if one did.
    pub decided_by: Option<String>,
    /// The job that works on the pool, as far as it said so lately.
    pub job: Option<String>,
    /// Worker threads that serve the pool.
    pub workers: usize,
    /// Shards that failed too often, until a probe lets them in again.
    pub ejected: Vec<EjectedShard>,
    /// What a hold costs, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
}

/// A hold that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// For how long, in milliseconds.
    pub ms: u64,
    /// Requests that wait, of all workers.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Which limits it has reached.
    pub limit: HoldLimit,
}

/// Limits of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldLimit {
    /// None.
    Below,
    /// It lasts for [`HOLD_SOFT_MS`], or a worker holds half of what it may: a job
    /// whose sources are not fenced does well to abort.
    Soft,
    /// Requests are answered by `-TRYAGAIN`.
    Hard,
}

/// A hold of this length is longer than a switch takes.
pub const HOLD_SOFT_MS: u64 = 50;

/// A shard that is not in the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectedShard {
    /// Its name.
    pub shard: String,
    /// Where it is.
    pub addr: String,
    /// Since when, in microseconds since 1970.
    pub at_us: u64,
    /// What failed last: the connection that was one too many, or the probe.
    pub why: String,
}

/// What becomes of requests for moving keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    /// Nothing is held.
    Open,
    /// They wait; the old route comes back by itself.
    Held,
    /// They wait; no route comes back by itself.
    Armed,
    /// They are refused with `-TRYAGAIN`.
    Fenced,
}

/// A staged switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSwitch {
    /// Whose switch this is.
    pub job: String,
    /// The epoch of the new layout.
    pub epoch: u64,
    /// How far it is.
    pub state: PendingState,
}

/// How far a staged switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingState {
    /// Written down.
    Staged,
    /// Moving keys are held.
    Held,
    /// Held, and only the job may decide.
    Armed,
    /// Undecided for too long, or found at a restart.
    Fenced,
}

/// A pool that can be asked, implemented by the pool handle and by fakes.
pub trait SwitchTarget: Clone + Send + Sync + 'static {
    /// Name of the pool.
    fn name(&self) -> &str;
    /// The pool now.
    fn status(&self) -> impl Future<Output = PoolStatus> + Send;
    /// A job works on the pool, or is over.
    fn announce(&self, ask: JobAnnounce) -> impl Future<Output = Result<(), SwitchRefusal>> + Send;
    /// Writes the switch to disk before it answers.
    fn stage(&self, ask: SwitchStage) -> impl Future<Output = Result<(), SwitchRefusal>> + Send;
    /// Answers when no request for a moving key sent before is unanswered.
    fn hold(&self, ask: SwitchHold) -> impl Future<Output = Result<(), SwitchRefusal>> + Send;
    /// From now on only the job decides.
    fn arm(&self, ask: SwitchArm) -> impl Future<Output = Result<(), SwitchRefusal>> + Send;
    /// The new layout; idempotent.
    fn commit(
        &self,
        ask: SwitchCommit,
    ) -> impl Future<Output = Result<CommitReport, SwitchRefusal>> + Send;
    /// The old layout; idempotent.
    fn abort(&self, ask: SwitchAbort) -> impl Future<Output = Result<(), SwitchRefusal>> + Send;
}
