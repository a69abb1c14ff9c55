//! JSON of the admin API, the part that a job speaks.
//!
//! ```text
//! GET  /api/v1/pools                          -> {"v":1,"pools":[PoolView, ...]}
//! POST /api/v1/pools/POOL/job {"job","incarnation","lease_ms","logins"?} -> 200 {...} | 4xx
//! POST /api/v1/pools/POOL/switch/{stage|hold|arm|commit|abort}
//!      {"job","epoch","incarnation", ...}     -> 200 {...} | 4xx {"v":1,"error","reason"}
//! ```
//! Fields we do not know are left alone: a newer proxy may say more.

use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::SwitchTerms;
use crate::reshard::cutover::{Call, Pause};
use crate::router::spec::LayoutSpec;
use crate::upstream::config::Secret;

/// The format version both sides speak.
pub const VERSION: u32 = 1;

/// Answer to `GET /api/v1/pools`.
#[derive(Debug, Deserialize)]
pub struct PoolsAnswer {
    pub v: u32,
    pub pools: Vec<PoolView>,
}

/// One pool as a proxy sees it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Epoch in force.
    pub epoch: u64,
    /// Layout in force.
    pub layout: LayoutSpec,
    /// What moving keys have to do.
    pub gate: GateView,
    /// A switch that was staged and neither committed nor aborted.
    pub pending: Option<PendingView>,
    /// The job that works on the pool, as far as it said so lately.
    #[serde(default)]
    pub job: Option<String>,
    /// The job whose commit brought the layout in force; `None`: a config did.
    #[serde(default)]
    pub decided_by: Option<String>,
    /// Shards that are not in the ring now.
    #[serde(default)]
    pub ejected: Vec<EjectedView>,
}

/// A shard that a proxy has ejected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct EjectedView {
    /// Its name.
    pub shard: String,
}

/// The gate of a pool in a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateView {
    /// Requests pass.
    Open,
    /// Requests for moving keys wait.
    Held,
    /// They wait, and the proxy does not release them by itself.
    Armed,
    /// Requests for moving keys are refused.
    Fenced,
}

/// A switch that a proxy has written down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct PendingView {
    /// Whose switch.
    pub job: String,
    /// Its new epoch.
    pub epoch: u64,
    /// How far it is.
    pub state: String,
}

/// What a refusal says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RefusalAnswer {
    pub error: String,
    pub reason: String,
}

/// What a commit answers; other calls leave the numbers out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SwitchAnswer {
    pub held_requests: u64,
    pub held_us_max: u64,
}

impl From<SwitchAnswer> for Pause {
    fn from(answer: SwitchAnswer) -> Self {
        Self {
            held_requests: answer.held_requests,
            held_us_max: answer.held_us_max,
        }
    }
}

/// As whom proxies are to log in on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLogin {
    /// The server, as the layout has it.
    pub addr: String,
    /// The epoch's user there.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

impl Serialize for ShardLogin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut login = serializer.serialize_struct("ShardLogin", 3)?;
        login.serialize_field("addr", &self.addr)?;
        login.serialize_field("user", &self.user)?;
        login.serialize_field("password", self.password.reveal())?;
        login.end()
    }
}

#[derive(Serialize)]
struct SwitchBody<'a> {
    job: &'a str,
    epoch: u64,
    incarnation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_fingerprint: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a LayoutSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fenced: bool,
    #[serde(skip_serializing_if = "<[ShardLogin]>::is_empty")]
    logins: &'a [ShardLogin],
}

/// The body of an announcement.
///
/// # Errors
/// What JSON cannot carry.
pub fn announcement(
    job: &str,
    incarnation: u64,
    lease: Duration,
    logins: Option<&[ShardLogin]>,
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Announcement<'a> {
        job: &'a str,
        incarnation: u64,
        lease_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        logins: Option<&'a [ShardLogin]>,
    }
    let lease_ms = lease.as_millis() as u64;
    serde_json::to_vec(&Announcement {
        job,
        incarnation,
        lease_ms,
        logins,
    })
}

/// The body of one call.
///
/// # Errors
/// What JSON cannot carry.
pub fn body(call: Call, terms: &SwitchTerms) -> Result<Vec<u8>, serde_json::Error> {
    let stage = call == Call::Stage;
    let leased = matches!(call, Call::Hold | Call::Arm);
    // A proxy that missed the stage learns all of it from the commit.
    let fenced = call == Call::Commit && terms.fenced;
    let tells_logins = stage || fenced;
    serde_json::to_vec(&SwitchBody {
        job: &terms.job,
        epoch: terms.epoch,
        incarnation: terms.incarnation,
        from_fingerprint: stage.then_some(terms.from_fingerprint),
        to: (stage || fenced).then_some(&terms.to),
        lease_ms: leased.then_some(terms.lease.as_millis() as u64),
        fenced,
        logins: if tells_logins { &terms.logins } else { &[] },
    })
}
