//! What a job that is over leaves nowhere: its users and keys on the servers,
//! and its stages and logins in the proxies. For `complete`, and for `cancel` and
//! `rollback` when no process runs the job, and again for a job that is over whose
//! late proxies kept it from that.
//!
//! ```text
//! stages are aborted -> proxies log in as their config says -> users and keys are removed -> the passwords' file
//!      '-- who cannot be told finds on the servers that the route before is the last word
//! ```
//! Invariant: users go only when no proxy is logged in as one of them, and the
//! route record only when every proxy has its route; else all stays, and the same
//! command tries again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cutover::{Call, ProxyIndex};
use super::fence::FenceLevel;
use super::fencing::{Fences, Mission, look, places};
use super::history::History;
use super::job_error::JobError;
use super::logins::Logins;
use super::proxies::{Fleet, ProxyError, SwitchTerms};
use super::record::Direction;
use crate::router::layout::Layout;
use crate::router::moves::Moves;
use crate::router::route_record::RouteRecord;
use crate::upstream::config::UpstreamConfig;

/// Removes them; what stands before it, in words.
///
/// # Errors
/// [`JobError`]: the journal's layouts are none.
pub async fn clear(
    fleet: &mut Fleet,
    history: &History,
    upstream: &UpstreamConfig,
    dir: &Path,
) -> Result<Vec<String>, JobError> {
    let planned = &history.planned;
    let logins = Logins::in_dir(dir);
    let has_users = logins.exists() || history.last_fence() == FenceLevel::Acl;
    let mission = Mission {
        pool: planned.pool.clone(),
        job: planned.job.clone(),
        epoch: planned.epoch,
    };
    let mut left = Vec::new();
    let came_to_stay = history.epoch_in_force();
    if came_to_stay < planned.epoch && history.was_tried() {
        let silent = release(fleet, history).await;
        left.extend(silent.iter().map(ToString::to_string));
    }
    if has_users && left.is_empty() {
        left = log_in_by_config(fleet, history, came_to_stay).await;
    }
    let from = Arc::new(Layout::new(planned.from.clone())?);
    let to = Arc::new(Layout::new(planned.to.clone())?);
    let moves = Moves::between(from, to)?;
    let (sights, users) = if has_users {
        let sights = look(places(&moves), upstream).await;
        (sights, Some(logins.users(&mission)?))
    } else {
        (Vec::new(), None)
    };
    let way = (&moves, Direction::Forward);
    let fences = Fences::at(mission, way, upstream, &sights, users);
    if !left.is_empty() {
        if came_to_stay < planned.epoch && history.was_tried() {
            let said = fences.say(Some(&last_word(history))).await;
            left.extend(said.err().map(|error| error.to_string()));
        }
        return Ok(left);
    }
    match fences.discharge().await {
        Ok(()) => {
            logins.remove();
            Ok(Vec::new())
        }
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// Tells every proxy that has a switch of this job pending that it was taken back;
/// who could not be told.
pub(super) async fn release(fleet: &mut Fleet, history: &History) -> Vec<ProxyError> {
    let planned = &history.planned;
    let terms = SwitchTerms {
        job: planned.job.clone(),
        epoch: planned.epoch,
        incarnation: history.incarnation,
        from_fingerprint: 0,
        to: planned.to.clone(),
        lease: Duration::ZERO,
        fenced: false,
        logins: Vec::new(),
    };
    let mut left = Vec::new();
    for (at, view) in fleet.views().await.into_iter().enumerate() {
        let pending = match view {
            Ok(view) => view
                .pending
                .is_some_and(|pending| pending.job == planned.job),
            Err(error) => {
                left.push(error);
                continue;
            }
        };
        let Some((pool, mut connection)) = fleet.connection(ProxyIndex(at)) else {
            continue;
        };
        if pending {
            let said = connection.switch(&pool, Call::Abort, &terms).await;
            left.extend(said.err());
        }
    }
    left
}

/// The route record of a job that ends where it began: for proxies that wait for a
/// decision of its switch.
pub(super) fn last_word(history: &History) -> String {
    let planned = &history.planned;
    let epoch = history.epoch_in_force();
    RouteRecord::new(&planned.pool, &planned.job, epoch, planned.from.clone()).to_json()
}

/// Why not all proxies do.
async fn log_in_by_config(fleet: &mut Fleet, history: &History, epoch: u64) -> Vec<String> {
    let mut left = Vec::new();
    let mut able = Vec::new();
    for (at, view) in fleet.views().await.into_iter().enumerate() {
        match view {
            Ok(view) if view.epoch < epoch => left.push(format!(
                "proxy {} is still at epoch {}",
                fleet.name(ProxyIndex(at)),
                view.epoch
            )),
            Ok(_) => able.push(ProxyIndex(at)),
            Err(error) => left.push(error.to_string()),
        }
    }
    let said = (history.planned.job.as_str(), history.incarnation);
    for answer in fleet.tell_logins(&able, said, Duration::ZERO, &[]).await {
        left.extend(answer.err().map(|error| error.to_string()));
    }
    left
}
