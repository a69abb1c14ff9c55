//! Finishes a switch whose process died: asks every proxy, with a fence of logins
//! every server too, then goes the one way.
//!
//! ```text
//! some proxy at an epoch that the job did not bring   -> refused, nothing is asked
//! some proxy committed this job, or the route record is on a server -> forward
//! without a fence: decision recorded, all still pending -> forward
//! with a fence:    decision recorded, no source is open -> forward
//! otherwise -> back: the fence is lowered, all proxies are aborted
//! ```
//! The process that decided lowers no fence but after a decision that its journal
//! refused; that one is not to be trusted, and open sources tell of it.
//!
//! Invariant: without a fence nothing is decided before every proxy has answered;
//! with one, a proxy that does not is late. Going back takes the word of every
//! proxy, or else of every server that no route was decided.

use std::time::Duration;

use super::cutover::{AbortReason, Crew, Cutover, Proxies, ProxyIndex};
use super::fence::FenceLevel;
use super::fencing::Remains;
use super::mover::Mover;
use super::proxies::{PoolView, ProxyError};
use super::record::Goal;
use super::state::JobState;
use super::switching::{SwitchEnd, SwitchError, Switching};
use crate::router::address::ShardAddress;
use crate::router::layout::Layout;
use crate::router::spec::LayoutSpec;

/// What a proxy says of the switch when its coordinator was restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyView {
    /// This job's commit brought it to the new epoch.
    Committed,
    /// It has the new layout staged by this job and the old epoch in force.
    Pending,
    /// It has the old epoch in force and nothing staged by this job.
    Clear,
}

/// Which way an interrupted switch is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Commit every proxy.
    Forward,
    /// Abort every proxy.
    Back,
    /// Somebody who is silent may know better.
    Unknown,
}

/// How to finish a switch that was intended, given what every proxy says, `None`
/// where it does not answer, and what the servers of a fenced one say.
///
/// The decision is written before the first commit is sent, so without it, and
/// with no proxy on the new epoch, nobody committed. With it, a commit may be
/// on its way; then all were armed and have it pending still, unless the
/// decision could not be trusted and aborts had begun. A fence makes up for
/// proxies that were late; it goes down before the aborts.
pub fn recovery_of(
    decided: bool,
    fence: FenceLevel,
    views: &[Option<ProxyView>],
    remains: &Remains,
) -> Recovery {
    let some_silent = views.contains(&None);
    if views.contains(&Some(ProxyView::Committed)) {
        return Recovery::Forward;
    }
    if fence < FenceLevel::Acl {
        let all_pending = views.iter().all(|view| *view == Some(ProxyView::Pending));
        return match (some_silent, decided && all_pending) {
            (true, _) => Recovery::Unknown,
            (false, true) => Recovery::Forward,
            (false, false) => Recovery::Back,
        };
    }
    if remains.has_route || (decided && !remains.is_open) {
        Recovery::Forward
    } else if some_silent && !remains.silent.is_empty() {
        Recovery::Unknown
    } else {
        Recovery::Back
    }
}

/// Longest time that a recovery repeats its calls before the command ends.
pub const RECOVERY_MS_MAX: u64 = 30_000;

/// Why a switch could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Some proxies did not answer, and all are needed, or else all servers.
    #[error(
        "a switch of this job was interrupted, and every proxy is needed to finish it{}:\n{}\nstart what is missing, then run the same command again",
        or_servers(.servers),
        texts(.proxies)
    )]
    Unanswered {
        /// The proxies.
        proxies: Vec<ProxyError>,
        /// Servers whose word would do instead.
        servers: Vec<ShardAddress>,
    },
    /// A proxy is at an epoch that this job does not explain.
    #[error(
        "a switch of this job was interrupted, and since then proxy {proxy} went to epoch {epoch}, {}; nothing was changed: look at every proxy (GET /api/v1/pools) before anything else",
        brought_by(.decided_by.as_deref())
    )]
    Foreign {
        /// Which proxy.
        proxy: String,
        /// Where it is.
        epoch: u64,
        /// The other job that brought it there, if one did.
        decided_by: Option<String>,
    },
    /// The switch itself.
    #[error(transparent)]
    Switch(#[from] SwitchError),
}

fn brought_by(job: Option<&str>) -> String {
    match job {
        Some(job) => format!("brought there by job {job}"),
        None => "which this job did not bring: an operator changed its config".to_owned(),
    }
}

fn or_servers(servers: &[ShardAddress]) -> String {
    if servers.is_empty() {
        return String::new();
    }
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!(", or else the servers {}", names.join(", "))
}

fn texts(errors: &[ProxyError]) -> String {
    let texts: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
    texts.join("\n")
}

/// Finishes the switch that the job's state says is open.
///
/// # Errors
/// [`RecoveryError`]; running the same command again repeats it.
pub async fn recover(switching: Switching<'_>) -> Result<SwitchEnd, RecoveryError> {
    let planned = switching.log.history().planned.clone();
    let goal = planned.goal(switching.direction);
    let decided = matches!(switching.log.state(), JobState::Switching(open) if open.decided);
    let fence = switching.log.history().last_fence();
    let mut views = Vec::new();
    let mut errors = Vec::new();
    for (at, answer) in switching.fleet.views().await.into_iter().enumerate() {
        match answer {
            Ok(view) => match view_of(&view, &planned.job, goal) {
                Some(view) => views.push(Some(view)),
                None => {
                    return Err(RecoveryError::Foreign {
                        proxy: planned.proxies.get(at).cloned().unwrap_or_default(),
                        epoch: view.epoch,
                        decided_by: view.decided_by,
                    });
                }
            },
            Err(error) => {
                views.push(None);
                errors.push(error);
            }
        }
    }
    let remains = match fence {
        FenceLevel::Acl => switching.fences.remains().await,
        FenceLevel::MinReplicas | FenceLevel::ProxiesOnly => Remains::default(),
    };
    let silent = views.iter().enumerate().filter(|(_, view)| view.is_none());
    let silent: Vec<_> = silent.map(|(at, _)| ProxyIndex(at)).collect();
    let crew = Crew::new(Proxies(views.len()), fence).with_late(silent);
    let mut actions = Vec::new();
    let machine = match recovery_of(decided, fence, &views, &remains) {
        Recovery::Forward => Cutover::recover_forward(crew, &mut actions),
        Recovery::Back => {
            let why = AbortReason::GivenUp("the job was interrupted while it switched".to_owned());
            Cutover::recover_back(crew, why, &mut actions)
        }
        Recovery::Unknown => {
            return Err(RecoveryError::Unanswered {
                proxies: errors,
                servers: remains.silent,
            });
        }
    };
    let switching = Switching {
        patience: Some(Duration::from_millis(RECOVERY_MS_MAX)),
        ..switching
    };
    Ok(switching
        .drive::<Mover>(machine, actions, None, None)
        .await?)
}

/// What the switch is to a proxy; `None` for one that left the old epoch by
/// other means, be it to the same number and the same layout.
fn view_of(view: &PoolView, job: &str, goal: Goal<'_>) -> Option<ProxyView> {
    let decided_by_us = view.decided_by.as_deref() == Some(job);
    if view.epoch == goal.epoch && decided_by_us && same_layout(&view.layout, goal.to) {
        return Some(ProxyView::Committed);
    }
    if view.epoch >= goal.epoch {
        return None;
    }
    let ours = view
        .pending
        .as_ref()
        .is_some_and(|pending| pending.job == job && pending.epoch == goal.epoch);
    Some(if ours {
        ProxyView::Pending
    } else {
        ProxyView::Clear
    })
}

fn same_layout(one: &LayoutSpec, other: &LayoutSpec) -> bool {
    let fingerprint = |spec: &LayoutSpec| Layout::new(spec.clone()).map(|made| made.fingerprint());
    match (fingerprint(one), fingerprint(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
