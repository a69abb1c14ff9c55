//! `keyferry reshard start --step shard`: one job after another, from old shard to
//! old shard, and `complete` on a step that is not the last.
//!
//! ```text
//! present step -> its job runs -> switched, let go of -> completed -> the next one
//! ```
//! Invariant: the directory's lock is held from the first step to the last, so that
//! nobody takes a step up between two of them.

use std::time::Duration;

use crate::cli::exit::ExitStatus;
use crate::cli::output::print_error;
use crate::reshard::control::{Verb, ask_job};
use crate::reshard::ending::Ending;
use crate::reshard::job_error::JobError;
use crate::reshard::prepare::{Prepared, StartRequest};
use crate::reshard::proxies::Fleet;
use crate::reshard::state_dir::StateDir;
use crate::reshard::steps::{StepsError, Walk, WayReport};
use crate::reshard::stop::Stop;

use super::complete::{CompleteArgs, check_switched, consent, settings, urls};
use super::place::Spot;
use super::start::{Signals, already_switched, ask_for_name, run_to_end, say};
use super::{Failure, status_of};

/// Longest wait for proxies and servers to let go of a step that is done.
const CLEARED_MAX: Duration = Duration::from_secs(30);

/// Pause between two tries.
const CLEAR_EVERY: Duration = Duration::from_millis(500);

/// Walks all steps that are left.
pub async fn start(
    dir: &StateDir,
    request: &StartRequest,
    consented: bool,
) -> Result<ExitStatus, Failure> {
    let Some(walk) = Walk::begin(dir, request).await? else {
        return Ok(say(&format!(
            "pool {} has this layout already",
            request.pool
        )));
    };
    print_error(walk.way().to_string().trim_end());
    if !consented {
        ask_for_name(&request.pool)?;
    }
    let signals = Signals::heard();
    let ended = walk_on(&walk, request, &signals.stop).await;
    signals.end();
    ended
}

async fn walk_on(walk: &Walk, request: &StartRequest, stop: &Stop) -> Result<ExitStatus, Failure> {
    let mut at = walk.present()?.at;
    loop {
        let is_last = walk.way().is_last(at);
        match walk.prepare(at, request).await? {
            // Its journal was lost; the proxies know that it is done.
            Prepared::NothingToDo(_) => {}
            Prepared::AlreadySwitched(_) if is_last => {
                return Ok(say(&already_switched(&WayReport::of(walk)?, walk.dir())));
            }
            Prepared::AlreadySwitched(_) => {}
            Prepared::Ready(job) => {
                let (number, of) = (at + 1, walk.way().steps.len());
                print_error(&format!("step {number} of {of}\n{}", job.plan()));
                if let Some(state) = job.resumed_from() {
                    print_error(&format!("resuming step {number} ({state})"));
                }
                Box::pin(run_to_end(*job, stop)).await?;
            }
        }
        if is_last {
            return Ok(say(&WayReport::of(walk)?.to_string()));
        }
        complete_step(walk, at, request, stop).await?;
        at += 1;
    }
}

/// A proxy that is late, or was only slow, is waited for a while.
async fn complete_step(
    walk: &Walk,
    at: usize,
    request: &StartRequest,
    stop: &Stop,
) -> Result<(), Failure> {
    let token = request.proxy_token.clone();
    let mut fleet = Fleet::new(&request.pool, request.proxies.clone(), token);
    let tries = async {
        loop {
            match walk.complete(at, &mut fleet, &request.upstream).await {
                Err(JobError::Steps(StepsError::NotCleared { .. })) => {}
                ended => return ended,
            }
            tokio::time::sleep(CLEAR_EVERY).await;
        }
    };
    let mut stop = stop.clone();
    tokio::select! {
        ended = tokio::time::timeout(CLEARED_MAX, tries) => match ended {
            Ok(ended) => ended?,
            Err(_) => walk.complete(at, &mut fleet_of(request), &request.upstream).await?,
        },
        () = stop.requested() => return Err(JobError::StoppedSwitched.into()),
    }
    Ok(())
}

fn fleet_of(request: &StartRequest) -> Fleet {
    let token = request.proxy_token.clone();
    Fleet::new(&request.pool, request.proxies.clone(), token)
}

/// `complete` on a step that is not the last: its way back ends. The process that
/// walks goes on with the next one; without one the step is only ended.
pub async fn complete(
    args: &CompleteArgs,
    spot: &Spot,
    (walk, at): (&Walk, usize),
) -> Result<ExitStatus, Failure> {
    let (number, of) = (at + 1, walk.way().steps.len());
    let history = spot.history()?;
    check_switched(&history)?;
    if args.purge {
        return Err(Failure::new(
            ExitStatus::Refused,
            format!("step {number} of {of} is not the last"),
            "leave --purge away: `complete --purge` of the last step deletes what all steps moved",
        ));
    }
    consent(args, &history)?;
    let asked = ask_job(&spot.dir.socket_path(), Verb::Complete).await;
    if let Some(mut asked) = asked.map_err(JobError::from)? {
        let answer = asked.next().await.map_err(JobError::from)?;
        return match answer {
            Some(answer) if answer.ending != Ending::Done => Err(Failure::new(
                status_of(answer.ending),
                answer.message,
                "see `keyferry reshard status`",
            )),
            _ => Ok(say(&format!(
                "step {number} of {of} is completed: it cannot be rolled back any more; step {} begins",
                number + 1
            ))),
        };
    }
    let Some(walk) = Walk::taken(walk.dir())? else {
        return Err(spot.no_job());
    };
    let (upstream, configured) = settings(args.place.config(), &history.planned.pool)?;
    let token = args.proxies.token(configured.as_ref())?;
    let mut fleet = Fleet::new(
        &history.planned.pool,
        urls(&history.planned.proxies)?,
        token,
    );
    walk.complete(at, &mut fleet, &upstream).await?;
    Ok(say(&format!(
        "step {number} of {of} is completed; run its `reshard start` command again: step {} begins",
        number + 1
    )))
}
