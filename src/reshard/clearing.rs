//! What a job that is over leaves nowhere: its users and keys on the servers,
//! and their logins in the proxies. For `complete`, and for `cancel` and
//! `rollback` when no process runs the job.
//!
//! ```text
//! proxies log in as their config says -> users and keys are removed -> the passwords' file
//! ```
//! Invariant: users go only when no proxy is logged in as one of them, and the
//! route record only when every proxy has its route; else all stays, and the same
//! command tries again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cutover::ProxyIndex;
use super::fence::FenceLevel;
use super::fencing::{Fences, Mission, look, servers};
use super::history::History;
use super::job_error::JobError;
use super::logins::Logins;
use super::proxies::Fleet;
use super::record::Record;
use crate::router::layout::Layout;
use crate::router::moves::Moves;
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
    if has_users {
        let left = log_in_by_config(fleet, history, &mission).await;
        if !left.is_empty() {
            return Ok(left);
        }
    }
    let from = Arc::new(Layout::new(planned.from.clone())?);
    let to = Arc::new(Layout::new(planned.to.clone())?);
    let moves = Moves::between(from, to)?;
    let all: Vec<_> = servers(&moves)
        .into_iter()
        .map(|(server, ..)| server)
        .collect();
    let (sights, users) = if has_users {
        let sights = look(all, upstream).await;
        (sights, Some(logins.users(&mission)?))
    } else {
        (Vec::new(), None)
    };
    let names = match &users {
        Some(users) => vec![users.old.name.clone(), users.new.name.clone()],
        None => Vec::new(),
    };
    let fences = Fences::at(mission, &moves, upstream, &sights, users);
    match fences.discharge(&names).await {
        Ok(()) => {
            logins.remove();
            Ok(Vec::new())
        }
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// Why not all proxies do.
async fn log_in_by_config(fleet: &mut Fleet, history: &History, mission: &Mission) -> Vec<String> {
    let was_switched = |record: &Record| matches!(record, Record::SwitchCommitted { .. });
    let is_switched = history.records.iter().any(was_switched);
    let mut left = Vec::new();
    let mut able = Vec::new();
    for (at, view) in fleet.views().await.into_iter().enumerate() {
        match view {
            Ok(view) if is_switched && view.epoch < mission.epoch => left.push(format!(
                "proxy {} is still at epoch {}",
                fleet.name(ProxyIndex(at)),
                view.epoch
            )),
            Ok(_) => able.push(ProxyIndex(at)),
            Err(error) => left.push(error.to_string()),
        }
    }
    let said = (mission.job.as_str(), history.incarnation);
    for answer in fleet.tell_logins(&able, said, Duration::ZERO, &[]).await {
        left.extend(answer.err().map(|error| error.to_string()));
    }
    left
}
